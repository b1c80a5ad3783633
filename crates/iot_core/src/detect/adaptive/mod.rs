//! The adaptive detector: slow experts that complement each other, each calibrated to its own past.
//!
//! Four experts measure how far a reading lies from what is usual: at this hour of the day ([`season`]), for a
//! short and a long moving mean, and for the roughness of the readings ([`level`]). Each distance becomes a
//! probability by the distances the same expert has seen before ([`calibrator`]), so that a sensor that is
//! erratic by nature is not anomalous all the time. What each expert finds more surprising than usual adds up, in
//! decimal digits; many episodes in a row raise the limit of that sum.
//!
//! Tails follow the peaks-over-threshold idea of Siffer, Fouque, Termier and Largouet, "Anomaly Detection in
//! Streams with Extreme Value Theory" (2017). The constants were chosen on the Numenta Anomaly Benchmark by
//! `benches/nab.py`.

mod calibrator;
mod constants;
mod level;
mod season;

pub use constants::AdaptiveConstants;

use super::bytes::{Reader, Writer};
use super::calibration::log_distance;
use crate::time::Timestamp;
use calibrator::Calibrator;
use level::{Level, Recent};
use season::Season;

/// Number of experts: the season, two moving means, and the roughness.
const EXPERTS: usize = 4;

/// State of the adaptive detector of one sensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adaptive {
    season: Season,
    recent: Recent,
    levels: [Level; EXPERTS - 1],
    calibrators: [Calibrator; EXPERTS],
    /// Episodes of late, fading.
    habituation: f64,
}

/// What the experts say of a reading.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation {
    /// The two moving means and the roughness, with the reading in them.
    features: [Option<f64>; EXPERTS - 1],
    /// Logarithm of each expert's distance; `None` when it is silent.
    logarithms: [Option<f64>; EXPERTS],
    /// In sigma equivalents.
    pub score: f64,
}

impl Adaptive {
    /// Bytes of the encoded state.
    pub(super) const ENCODED_LEN: usize = Season::ENCODED_LEN
        + Recent::ENCODED_LEN
        + (EXPERTS - 1) * Level::ENCODED_LEN
        + EXPERTS * Calibrator::ENCODED_LEN
        + 8;

    /// Scores a reading without taking note of it.
    pub fn evaluate(&self, constants: &AdaptiveConstants, at: Timestamp, value: f64) -> Evaluation {
        let windows = constants.windows();
        let [short, long, rough] = windows;
        let features = [
            self.recent.mean_with(value, short),
            self.recent.mean_with(value, long),
            self.recent.roughness_with(value, rough),
        ];
        let mut distances = [self.season.distance(constants, at, value), None, None, None];
        for (expert, (level, window)) in self.levels.iter().zip(windows).enumerate() {
            distances[expert + 1] = features[expert].and_then(|feature| level.distance(feature, window));
        }
        let logarithms = distances.map(|distance| distance.map(log_distance));
        let sum: f64 = (self.calibrators.iter().zip(logarithms))
            .filter_map(|(calibrator, logarithm)| Some(calibrator.surprise(constants, logarithm?)))
            .map(|surprise| (surprise - constants.usual_surprise).max(0.0))
            .sum();
        let limit = constants.limit * (1.0 + constants.habituation * self.habituation);
        Evaluation { features, logarithms, score: sigma_equivalent(sum / (sum + limit)) }
    }

    /// Takes note of a reading that was evaluated against this very state.
    pub fn update(
        &mut self,
        constants: &AdaptiveConstants,
        at: Timestamp,
        value: f64,
        evaluation: &Evaluation,
    ) {
        self.season.update(constants, at, value);
        self.recent.push(value);
        for (level, feature) in self.levels.iter_mut().zip(evaluation.features) {
            if let Some(feature) = feature {
                level.update(constants, feature);
            }
        }
        let decay = (-1.0 / constants.row_half_life).exp2() as f32;
        for (calibrator, logarithm) in self.calibrators.iter_mut().zip(evaluation.logarithms) {
            if let Some(logarithm) = logarithm {
                calibrator.update(constants, decay, logarithm);
            }
        }
        self.habituation *= (-1.0 / constants.habituation_memory).exp();
    }

    /// Takes note of an onset.
    pub fn start_episode(&mut self) {
        self.habituation += 1.0;
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        self.season.write(writer);
        self.recent.write(writer);
        self.levels.iter().for_each(|level| level.write(writer));
        self.calibrators.iter().for_each(|calibrator| calibrator.write(writer));
        writer.f64(self.habituation);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            season: Season::read(reader)?,
            recent: Recent::read(reader)?,
            levels: [Level::read(reader)?, Level::read(reader)?, Level::read(reader)?],
            calibrators: [
                Calibrator::read(reader)?,
                Calibrator::read(reader)?,
                Calibrator::read(reader)?,
                Calibrator::read(reader)?,
            ],
            habituation: reader.not_negative(1e9)?,
        })
    }
}

/// Sigma equivalents of a sum of surprises S against its limit θ, given as S/(S + θ).
///
/// Two straight lines: 0 at 0, 3 at one half, 5 at 1. So more than 3 sigma is a sum above its limit.
fn sigma_equivalent(share: f64) -> f64 {
    if share <= 0.5 { 6.0 * share } else { 1.0 + 4.0 * share }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_three_sigma_is_a_sum_above_its_limit() {
        for (share, expected) in [(0.0, 0.0), (0.25, 1.5), (0.5, 3.0), (0.75, 4.0), (1.0, 5.0)] {
            assert_eq!(sigma_equivalent(share), expected);
        }
        assert!(sigma_equivalent(0.5_f64.next_up()) > 3.0);
    }

    #[test]
    fn constants_have_names() {
        let mut constants = AdaptiveConstants::DEFAULT;
        for name in AdaptiveConstants::NAMES {
            *constants.get_mut(name).unwrap() *= 2.0;
        }
        assert_eq!(constants.limit, 2.0 * AdaptiveConstants::DEFAULT.limit);
        assert_eq!(constants.get_mut("none"), None);
    }

    #[test]
    fn episodes_in_a_row_raise_the_limit() {
        let (mut usual, mut habituated) = (Adaptive::default(), Adaptive::default());
        let constants = AdaptiveConstants::DEFAULT;
        for number in 0..3_000_i64 {
            let at = Timestamp(number * 300_000_000);
            let value = (number * 7_919 % 1_000) as f64;
            for adaptive in [&mut usual, &mut habituated] {
                let evaluation = adaptive.evaluate(&constants, at, value);
                adaptive.update(&constants, at, value, &evaluation);
            }
        }
        (0..5).for_each(|_| habituated.start_episode());
        let at = Timestamp(3_000 * 300_000_000);
        let [before, after] =
            [&usual, &habituated].map(|adaptive| adaptive.evaluate(&constants, at, 1e4).score);
        assert!(after < before && after > 0.0, "{before} {after}");
    }
}
