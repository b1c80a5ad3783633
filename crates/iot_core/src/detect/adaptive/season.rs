//! Expert: what is usual at this hour of the day.

use super::constants::AdaptiveConstants;
use crate::detect::bytes::{Reader, Writer};
use crate::detect::{MAGNITUDE, MAXIMUM_VARIANCE, resolution};
use crate::time::{MICROS_PER_HOUR, Timestamp};

/// Hours of the day.
const SLOTS: usize = 24;
/// Residuals before the expert says anything.
const SILENT: u32 = 10;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Slot {
    mean: f64,
    variance: f64,
    count: u32,
}

/// Mean and variance of each hour of the day, and the variance of all residuals.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Season {
    slots: [Slot; SLOTS],
    variance: f64,
    residuals: u32,
}

impl Season {
    pub(super) const ENCODED_LEN: usize = SLOTS * 20 + 12;

    fn slot(at: Timestamp) -> usize {
        (at.utc_time_of_day().0 / MICROS_PER_HOUR) as usize % SLOTS
    }

    /// Distance from the mean of the hour, in standard deviations; `None` when too little is known.
    pub(super) fn distance(&self, constants: &AdaptiveConstants, at: Timestamp, value: f64) -> Option<f64> {
        let slot = &self.slots[Self::slot(at)];
        if slot.count == 0 || self.residuals < SILENT {
            return None;
        }
        let share = constants.slot_variance_share;
        let variance = share * slot.variance + (1.0 - share) * self.variance;
        Some((value - slot.mean).abs() / (variance.sqrt() + resolution(value)))
    }

    pub(super) fn update(&mut self, constants: &AdaptiveConstants, at: Timestamp, value: f64) {
        let slot = &mut self.slots[Self::slot(at)];
        slot.count = slot.count.saturating_add(1);
        if slot.count == 1 {
            slot.mean = value;
            return;
        }
        let residual = value - slot.mean;
        let gain = (1.0 / f64::from(slot.count)).max(1.0 / constants.slot_memory);
        slot.mean += gain * residual;
        slot.variance += gain * (residual * residual - slot.variance);
        self.residuals = self.residuals.saturating_add(1);
        let gain = (1.0 / f64::from(self.residuals)).max(1.0 / constants.residual_memory);
        self.variance += gain * (residual * residual - self.variance);
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        for slot in &self.slots {
            writer.f64(slot.mean);
            writer.f64(slot.variance);
            writer.u32(slot.count);
        }
        writer.f64(self.variance);
        writer.u32(self.residuals);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut season = Self::default();
        for slot in &mut season.slots {
            slot.mean = reader.number(2.0 * MAGNITUDE)?;
            slot.variance = reader.not_negative(MAXIMUM_VARIANCE)?;
            slot.count = reader.u32()?;
        }
        season.variance = reader.not_negative(MAXIMUM_VARIANCE)?;
        season.residuals = reader.u32()?;
        Some(season)
    }
}
