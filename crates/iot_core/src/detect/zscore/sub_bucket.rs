//! The readings of half an hour in 20 bytes.

use crate::detect::bytes::{Reader, Writer};
use crate::detect::{MAGNITUDE, WindowStatistics};

/// The bit of the stored count that says whether the readings differ.
const DIFFERS: u32 = 1 << 31;

/// Count, mean and sum of squared deviations, as [`crate::detect::Moments`]; and, in place of the extremes,
/// whether the readings differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SubBucket {
    count: u32,
    differs: bool,
    mean: f64,
    m2: f64,
}

impl SubBucket {
    pub(super) const EMPTY: Self = Self { count: 0, differs: false, mean: 0.0, m2: 0.0 };
    pub(super) const ENCODED_LEN: usize = 20;

    /// Welford's update. As long as the readings are equal the mean is exactly the reading and `m2` exactly 0:
    /// the increment of the mean is the difference of two equal quotients.
    pub(super) fn push(&mut self, value: f64) {
        if self.count == DIFFERS - 1 {
            // Over a million readings a second; one more changes nothing that double precision could tell.
            return;
        }
        self.differs |= self.count > 0 && value != self.mean;
        self.count += 1;
        let count = f64::from(self.count);
        let before = value - self.mean;
        self.mean += value / count - self.mean / count;
        self.m2 = (self.m2 + before * (value - self.mean)).clamp(0.0, f64::MAX);
    }

    /// Chan's merge, exact for equal readings like [`Self::push`].
    pub(super) fn merge(self, other: Self) -> Self {
        let (large, small) = if self.count >= other.count { (self, other) } else { (other, self) };
        if small.count == 0 {
            return large;
        }
        let count = large.count.saturating_add(small.count).min(DIFFERS - 1);
        let weight = f64::from(small.count) / (f64::from(large.count) + f64::from(small.count));
        let between = small.mean - large.mean;
        let m2 = large.m2 + small.m2 + between * between * weight * f64::from(large.count);
        Self {
            count,
            differs: large.differs || small.differs || large.mean != small.mean,
            mean: large.mean + (small.mean * weight - large.mean * weight),
            m2: m2.min(f64::MAX),
        }
    }

    /// See [`super::ZscoreWindow::statistics`].
    pub(super) fn statistics(&self) -> WindowStatistics {
        let Self { count, mean, .. } = *self;
        if count == 0 {
            return WindowStatistics::default();
        }
        let stddev_samp =
            if count < 2 || !self.differs { 0.0 } else { (self.m2 / f64::from(count - 1)).sqrt() };
        let reach = if !self.differs {
            0.0
        } else if stddev_samp == 0.0 {
            // Readings this near to the mean leave nothing in the sum of squares.
            4.0 * f64::EPSILON * mean.abs() + f64::MIN_POSITIVE.sqrt()
        } else {
            f64::INFINITY
        };
        let (minimum, maximum) = (mean - reach, mean + reach);
        WindowStatistics { count: u64::from(count), mean, stddev_samp, minimum, maximum }
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        writer.u32(self.count | if self.differs { DIFFERS } else { 0 });
        writer.f64(self.mean);
        writer.f64(self.m2);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let count = reader.u32()?;
        Some(Self {
            count: count & !DIFFERS,
            differs: count & DIFFERS != 0,
            mean: reader.number(2.0 * MAGNITUDE)?,
            m2: reader.not_negative(f64::MAX)?,
        })
    }
}
