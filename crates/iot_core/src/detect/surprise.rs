//! From a distance to sigma equivalents, by the distances of the same sensor before.

use super::bytes::{Reader, Writer};
use super::calibration::{Histogram, Tail, log_distance};
use super::sigma::sigma_equivalent;

/// Weight of a distance after the next one: a half-life of 4,000 readings.
const DECAY: f32 = 0.999_826_7;
/// The power law starts at the greatest 2 % of the distances.
const TAIL: Tail = Tail { share: 0.02, minimum: 5.0, maximum_exponent: 8.0 };

/// Turns the distances of one detector into sigma equivalents.
///
/// The distances of real sensors are not normal: five standard deviations may come every day. So a distance
/// becomes the share of the distances before that were as large, and that probability becomes standard
/// deviations of a normal distribution.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Surprise {
    distances: Histogram,
}

impl Surprise {
    pub(super) const ENCODED_LEN: usize = Histogram::ENCODED_LEN;

    pub(super) fn score(&self, distance: f64) -> f64 {
        let digits = self.distances.surprise(log_distance(distance), &TAIL);
        sigma_equivalent(10_f64.powf(-digits))
    }

    pub(super) fn update(&mut self, distance: f64) {
        self.distances.add(log_distance(distance), DECAY);
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        self.distances.write(writer);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { distances: Histogram::read(reader)? })
    }
}
