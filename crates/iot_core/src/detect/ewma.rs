//! Distance from an exponentially weighted mean.

use super::bytes::{Reader, Writer};
use super::surprise::Surprise;
use super::{MAGNITUDE, MAXIMUM_VARIANCE, resolution};

/// Weight of the newest reading.
const GAIN: f64 = 0.01;
/// Readings before the variance means anything.
const SILENT: u32 = 10;

/// Exponentially weighted mean and variance, with the gain max(1/n, 0.01): the plain mean at first, so that the
/// first reading does not weigh more than the others.
///
/// The recursion is from Finch, "Incremental calculation of weighted mean and variance" (2009).
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ewma {
    mean: f64,
    variance: f64,
    count: u32,
    surprise: Surprise,
}

impl Ewma {
    pub(super) const ENCODED_LEN: usize = 20 + Surprise::ENCODED_LEN;

    /// Score, and the distance it came from; `None` when too little is known.
    pub(super) fn evaluate(&self, value: f64) -> Option<(f64, f64)> {
        if self.count < SILENT {
            return None;
        }
        let distance = (value - self.mean).abs() / (self.variance.sqrt() + resolution(value));
        Some((self.surprise.score(distance), distance))
    }

    pub(super) fn update(&mut self, value: f64, distance: Option<f64>) {
        self.count = self.count.saturating_add(1);
        let gain = (1.0 / f64::from(self.count)).max(GAIN);
        let deviation = value - self.mean;
        self.mean += gain * deviation;
        self.variance = (1.0 - gain) * (self.variance + gain * deviation * deviation);
        if let Some(distance) = distance {
            self.surprise.update(distance);
        }
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        writer.f64(self.mean);
        writer.f64(self.variance);
        writer.u32(self.count);
        self.surprise.write(writer);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            mean: reader.number(2.0 * MAGNITUDE)?,
            variance: reader.not_negative(MAXIMUM_VARIANCE)?,
            count: reader.u32()?,
            surprise: Surprise::read(reader)?,
        })
    }
}
