//! Experts: is a moving mean, or the roughness, where it has been?

use super::constants::AdaptiveConstants;
use crate::detect::bytes::{Reader, Writer};
use crate::detect::{MAGNITUDE, MAXIMUM_VARIANCE, resolution};

/// Most readings a moving mean or the roughness can span.
pub(super) const RING: usize = 64;
/// Changes below this share of the readings themselves are no roughness.
const SMOOTHEST: f64 = 1e-6;

/// The last readings.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recent {
    values: [f64; RING],
    /// Readings ever seen; the newest is at this modulo [`RING`], minus one.
    count: u32,
}

impl Default for Recent {
    fn default() -> Self {
        Self { values: [0.0; RING], count: 0 }
    }
}

impl Recent {
    pub(super) const ENCODED_LEN: usize = RING * 8 + 4;

    /// Mean of `value` and the `window` − 1 readings before it; `None` when there are fewer.
    pub(super) fn mean_with(&self, value: f64, window: usize) -> Option<f64> {
        if (self.count as usize) < window - 1 {
            return None;
        }
        let mut sum = value;
        for back in 1..window {
            sum += self.back(back);
        }
        Some(sum / window as f64)
    }

    /// Logarithm of the mean absolute change from reading to reading over the last `window` readings, `value` being
    /// the newest; `None` when there are fewer.
    ///
    /// It falls when a sensor gets stuck, and rises when one turns noisy: neither moves a mean.
    pub(super) fn roughness_with(&self, value: f64, window: usize) -> Option<f64> {
        if (self.count as usize) < window {
            return None;
        }
        let (mut sum, mut next) = (0.0, value);
        for back in 1..window {
            let before = self.back(back);
            sum += (next - before).abs();
            next = before;
        }
        let floor = SMOOTHEST * (1e-3 + value.abs().max(next.abs()));
        Some((sum / window as f64 + floor).ln())
    }

    /// The reading `back` places before the one to come.
    fn back(&self, back: usize) -> f64 {
        self.values[(self.count as usize).wrapping_sub(back) % RING]
    }

    pub(super) fn push(&mut self, value: f64) {
        self.values[self.count as usize % RING] = value;
        self.count += 1;
        if self.count == u32::MAX {
            // Far more than a ring; the same place in it.
            self.count = u32::MAX / 2;
        }
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        self.values.iter().for_each(|value| writer.f64(*value));
        writer.u32(self.count);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut recent = Self::default();
        for value in &mut recent.values {
            *value = reader.number(2.0 * MAGNITUDE)?;
        }
        recent.count = reader.u32().filter(|count| *count < u32::MAX)?;
        Some(recent)
    }
}

/// Exponentially weighted mean and variance of a moving mean, or of the roughness.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Level {
    mean: f64,
    variance: f64,
    count: u32,
}

impl Level {
    pub(super) const ENCODED_LEN: usize = 20;

    /// Distance of a feature over `window` readings from its past, in standard deviations; `None` when too
    /// little is known.
    pub(super) fn distance(&self, feature: f64, window: usize) -> Option<f64> {
        if (self.count as usize) < 2 * window {
            return None;
        }
        Some((feature - self.mean).abs() / (self.variance.sqrt() + resolution(feature)))
    }

    /// Finch, "Incremental calculation of weighted mean and variance" (2009).
    pub(super) fn update(&mut self, constants: &AdaptiveConstants, feature: f64) {
        self.count = self.count.saturating_add(1);
        let gain = (1.0 / f64::from(self.count)).max(1.0 / constants.level_memory);
        let deviation = feature - self.mean;
        self.mean += gain * deviation;
        self.variance = (1.0 - gain) * (self.variance + gain * deviation * deviation);
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        writer.f64(self.mean);
        writer.f64(self.variance);
        writer.u32(self.count);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            mean: reader.number(2.0 * MAGNITUDE)?,
            variance: reader.not_negative(MAXIMUM_VARIANCE)?,
            count: reader.u32()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_span_the_last_readings() {
        let mut recent = Recent::default();
        for number in 0..200 {
            let value = f64::from(number);
            let expected = (number >= 9).then_some(value - 4.5);
            assert_eq!(recent.mean_with(value, 10), expected, "{number}");
            assert_eq!(recent.mean_with(value, 1), Some(value));
            recent.push(value);
        }
        assert_eq!(recent.mean_with(200.0, RING), Some(200.0 - 31.5));
    }

    #[test]
    fn roughness_is_that_of_the_changes() {
        let mut recent = Recent::default();
        assert_eq!(recent.roughness_with(1.0, 10), None);
        for number in 0..100 {
            recent.push(f64::from(number % 2));
        }
        let rough = recent.roughness_with(0.0, 10).unwrap();
        assert!((rough - 0.9_f64.ln()).abs() < 1e-5, "{rough}");
        (0..RING).for_each(|_| recent.push(7.0));
        let stuck = recent.roughness_with(7.0, 10).unwrap();
        assert!(stuck < -10.0, "{stuck}");
    }

    #[test]
    fn the_count_does_not_overflow() {
        let mut recent = Recent { count: u32::MAX - 1, ..Recent::default() };
        for number in 0..200 {
            recent.push(f64::from(number));
        }
        assert_eq!(recent.mean_with(200.0, 3), Some(199.0));
    }

    #[test]
    fn a_level_is_silent_until_two_windows_are_known() {
        let mut level = Level::default();
        for number in 0..8 {
            assert_eq!(level.distance(5.0, 4), None, "{number}");
            level.update(&AdaptiveConstants::DEFAULT, f64::from(number % 2));
        }
        // Mean and standard deviation are 0.5.
        assert!((level.distance(5.0, 4).unwrap() - 9.0).abs() < 1e-6);
    }
}
