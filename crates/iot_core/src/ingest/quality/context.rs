//! What is remembered of a sensor's previous readings.

use super::{Observation, QualityLimits};
use crate::time::Timestamp;

/// What is remembered of the previous readings of one sensor, to judge the next one.
///
/// Readings from the future are not remembered: a clock that runs ahead would make every correct reading after
/// it look older than the newest. Of values outside the physical range only the time is remembered: the sensor
/// is not silent, but an error code is no value that the next one could have changed from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QualityContext {
    /// Time of the newest reading, whatever its value.
    newest_at: Timestamp,
    previous: Remembered,
    before_previous: Remembered,
    run_start: Remembered,
}

// One context is kept for every sensor.
const _: () = assert!(size_of::<QualityContext>() <= 64);

/// The time and value of a reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub at: Timestamp,
    pub value: f64,
}

/// A sample or none, which has the time `-infinity`: without the tag of an `Option` three fit in 48 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Remembered(Sample);

impl Remembered {
    const NOTHING: Self = Self(Sample { at: Timestamp::NEGATIVE_INFINITY, value: 0.0 });

    fn get(self) -> Option<Sample> {
        (self.0.at != Timestamp::NEGATIVE_INFINITY).then_some(self.0)
    }

    /// Whether this is a sample with a finite time and value, or exactly [`NOTHING`](Self::NOTHING).
    fn is_sound(self) -> bool {
        match self.get() {
            Some(sample) => sample.at.is_finite() && sample.value.is_finite(),
            None => self.0.value.to_bits() == 0,
        }
    }
}

impl Default for QualityContext {
    /// The context of a sensor that has no readings yet.
    fn default() -> Self {
        Self {
            newest_at: Timestamp::NEGATIVE_INFINITY,
            previous: Remembered::NOTHING,
            before_previous: Remembered::NOTHING,
            run_start: Remembered::NOTHING,
        }
    }
}

impl QualityContext {
    /// Length of an encoded context, in bytes.
    pub const ENCODED_LENGTH: usize = 56;

    /// Remembers a reading after it has been assessed.
    ///
    /// Only what is newer than everything remembered and not from the future has an effect. After a gap the
    /// readings before it are forgotten. `limits` are those that the reading was assessed with: they say what is
    /// a gap, what is unchanged, and which values are possible.
    pub fn observe(&mut self, observation: &Observation, limits: &QualityLimits) {
        if !self.is_in_order(observation) || !observation.value.is_finite() {
            return;
        }
        if self.is_after_gap(observation, limits) {
            *self = Self::default();
        }
        self.newest_at = observation.measured_at;
        if !limits.physical_range.contains(observation.value) {
            return;
        }
        let sample = Remembered(Sample { at: observation.measured_at, value: observation.value });
        if self.unchanged_since(observation.value, limits).is_none() {
            self.run_start = sample;
        }
        self.before_previous = self.previous;
        self.previous = sample;
    }

    /// Little-endian bytes: the time of the newest reading, then time and value of the previous reading, of the
    /// one before it, and of the first of the unchanged ones. A reading that is missing has the time
    /// `i64::MIN` and the value 0.
    pub fn encode(&self) -> [u8; Self::ENCODED_LENGTH] {
        let mut bytes = [0; Self::ENCODED_LENGTH];
        for (chunk, word) in bytes.chunks_exact_mut(WORD).zip(self.words()) {
            chunk.copy_from_slice(&word);
        }
        bytes
    }

    /// Inverse of [`encode`](Self::encode). `None` for bytes that it cannot have written.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::ENCODED_LENGTH] = bytes.try_into().ok()?;
        let (words, _) = bytes.as_chunks::<WORD>();
        let [newest_at, samples @ ..] = words else { return None };
        let [previous, before_previous, run_start] = samples.as_chunks::<2>().0 else { return None };
        let context = Self {
            newest_at: Timestamp(i64::from_le_bytes(*newest_at)),
            previous: remembered(previous),
            before_previous: remembered(before_previous),
            run_start: remembered(run_start),
        };
        context.is_sound().then_some(context)
    }

    /// Whether `observation` is newer than everything remembered and its time can be trusted.
    pub(super) fn is_in_order(&self, observation: &Observation) -> bool {
        !observation.future && observation.measured_at.is_finite() && observation.measured_at > self.newest_at
    }

    /// Whether an observation in order follows a silence that is longer than allowed.
    pub(super) fn is_after_gap(&self, observation: &Observation, limits: &QualityLimits) -> bool {
        let silence = observation.measured_at.0.saturating_sub(self.newest_at.0);
        self.newest_at.is_finite() && limits.gap_after.is_some_and(|longest| silence > longest)
    }

    /// The newest possible value.
    pub(super) fn previous(&self) -> Option<Sample> {
        self.previous.get()
    }

    /// The possible value before the newest one.
    pub(super) fn before_previous(&self) -> Option<Sample> {
        self.before_previous.get()
    }

    /// Since when readings have the value `value` within the tolerance; `None` when the previous had not.
    pub(super) fn unchanged_since(&self, value: f64, limits: &QualityLimits) -> Option<Timestamp> {
        let start = self.run_start.get()?;
        let tolerance = limits.flatline_tolerance.unwrap_or(0.0);
        (!differs(value, start.value, tolerance)).then_some(start.at)
    }

    fn words(&self) -> [[u8; WORD]; Self::ENCODED_LENGTH / WORD] {
        let Self { newest_at, previous, before_previous, run_start } = self;
        [
            newest_at.0.to_le_bytes(),
            previous.0.at.0.to_le_bytes(),
            previous.0.value.to_le_bytes(),
            before_previous.0.at.0.to_le_bytes(),
            before_previous.0.value.to_le_bytes(),
            run_start.0.at.0.to_le_bytes(),
            run_start.0.value.to_le_bytes(),
        ]
    }

    /// Whether a series of observations can have led here.
    fn is_sound(&self) -> bool {
        let Self { newest_at, previous, before_previous, run_start } = self;
        let samples_are_sound = [previous, before_previous, run_start].iter().all(|sample| sample.is_sound());
        let times_are_in_order = match (previous.get(), run_start.get()) {
            (None, None) => before_previous.get().is_none(),
            (Some(previous), Some(run_start)) => {
                previous.at <= *newest_at && before_previous.0.at < previous.at && run_start.at <= previous.at
            }
            _ => false,
        };
        samples_are_sound && times_are_in_order && *newest_at != Timestamp::INFINITY
    }
}

/// Bytes of a time or a value.
const WORD: usize = 8;

fn remembered([at, value]: &[[u8; WORD]; 2]) -> Remembered {
    Remembered(Sample { at: Timestamp(i64::from_le_bytes(*at)), value: f64::from_le_bytes(*value) })
}

/// Whether `left` and `right` are further apart than `allowed`, by more than rounding can explain.
///
/// Without that margin 20.1 would be further from 20 than 0.1, because none of the three decimals is exact.
pub(super) fn differs(left: f64, right: f64, allowed: f64) -> bool {
    let rounding = 2.0 * f64::EPSILON * left.abs().max(right.abs()).max(allowed);
    (left - right).abs() > allowed + rounding
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::PhysicalRange;

    const LIMITS: QualityLimits = QualityLimits {
        physical_range: PhysicalRange { minimum: Some(-40.0), maximum: Some(85.0) },
        maximum_rate: None,
        spike_threshold: None,
        flatline_after: None,
        flatline_tolerance: Some(0.1),
        gap_after: Some(100),
        late_after: None,
        calibration_due: None,
        calibration_valid_for: None,
    };

    fn observed(readings: &[(i64, f64)]) -> QualityContext {
        let mut context = QualityContext::default();
        for (at, value) in readings {
            context.observe(&Observation::new(*value, Timestamp(*at)), &LIMITS);
        }
        context
    }

    fn remembered(context: &QualityContext) -> [Option<(i64, f64)>; 3] {
        [context.previous, context.before_previous, context.run_start]
            .map(|sample| sample.get().map(|sample| (sample.at.0, sample.value)))
    }

    #[test]
    fn the_last_two_and_the_first_unchanged() {
        let context = observed(&[(1, 18.0), (2, 20.0), (3, 20.1), (4, 19.9)]);
        assert_eq!(remembered(&context), [Some((4, 19.9)), Some((3, 20.1)), Some((2, 20.0))]);
        let drifted = observed(&[(2, 20.0), (3, 20.1), (4, 20.2)]);
        assert_eq!(remembered(&drifted), [Some((4, 20.2)), Some((3, 20.1)), Some((4, 20.2))]);
    }

    #[test]
    fn what_is_not_in_order_changes_nothing() {
        let before = observed(&[(10, 20.0), (20, 21.0)]);
        for (at, value) in [(20, 5.0), (19, 5.0), (i64::MIN, 5.0), (i64::MAX, 5.0), (30, f64::NAN)] {
            let mut after = before;
            after.observe(&Observation::new(value, Timestamp(at)), &LIMITS);
            assert_eq!(after, before, "{at} {value}");
        }
        let mut after = before;
        after.observe(&Observation { future: true, ..Observation::new(22.0, Timestamp(30)) }, &LIMITS);
        assert_eq!(after, before);
    }

    #[test]
    fn of_an_impossible_value_only_the_time_counts() {
        let context = observed(&[(10, 20.0), (20, -127.0)]);
        assert_eq!(remembered(&context), [Some((10, 20.0)), None, Some((10, 20.0))]);
        assert!(!context.is_in_order(&Observation::new(20.0, Timestamp(20))));
        assert!(!context.is_after_gap(&Observation::new(20.0, Timestamp(120)), &LIMITS));
        assert!(context.is_after_gap(&Observation::new(20.0, Timestamp(121)), &LIMITS));
    }

    #[test]
    fn a_gap_starts_anew() {
        let context = observed(&[(10, 20.0), (20, 20.0), (121, 20.0)]);
        assert_eq!(remembered(&context), [Some((121, 20.0)), None, Some((121, 20.0))]);
    }

    #[test]
    fn encoding_is_fixed() {
        let bytes = observed(&[(10, 20.0), (20, 20.0), (30, -127.0)]).encode();
        let words = bytes.chunks(8).map(|word| i64::from_le_bytes(word.try_into().unwrap()));
        let twenty = 20.0_f64.to_bits().cast_signed();
        assert_eq!(words.collect::<Vec<_>>(), [30, 20, twenty, 10, twenty, 10, twenty]);
    }

    #[test]
    fn what_cannot_have_been_encoded_is_refused() {
        let good = observed(&[(10, 20.0), (20, 21.0)]);
        assert_eq!(QualityContext::decode(&good.encode()), Some(good));
        for length in [0, 1, 55, 57, 64] {
            assert_eq!(QualityContext::decode(&vec![0; length]), None, "{length}");
        }
        let sample = |at, value| Remembered(Sample { at: Timestamp(at), value });
        for bad in [
            QualityContext { newest_at: Timestamp(19), ..good },
            QualityContext { newest_at: Timestamp::INFINITY, ..good },
            QualityContext { newest_at: Timestamp::NEGATIVE_INFINITY, ..good },
            QualityContext { previous: Remembered::NOTHING, ..good },
            QualityContext { previous: sample(20, f64::NAN), ..good },
            QualityContext { previous: sample(i64::MAX, 1.0), newest_at: Timestamp::INFINITY, ..good },
            QualityContext { before_previous: sample(20, 1.0), ..good },
            QualityContext { before_previous: sample(i64::MIN, 1.0), ..good },
            QualityContext { run_start: Remembered::NOTHING, ..good },
            QualityContext { run_start: sample(21, 1.0), ..good },
        ] {
            assert_eq!(QualityContext::decode(&bad.encode()), None, "{bad:?}");
        }
    }

    #[test]
    fn decimals_may_be_a_rounding_error_apart() {
        assert!(!differs(20.1, 20.0, 0.1) && !differs(0.3, 0.1 + 0.2, 0.0));
        assert!(differs(20.100_001, 20.0, 0.1) && differs(1.0, 2.0, 0.0));
        assert!(differs(f64::MAX, -f64::MAX, 1.0) && !differs(f64::MAX, -f64::MAX, f64::INFINITY));
    }
}
