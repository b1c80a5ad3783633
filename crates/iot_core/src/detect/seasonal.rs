//! Distance from what is usual at this hour of the day and of the week.

use super::bytes::{Reader, Writer};
use super::surprise::Surprise;
use super::{MAGNITUDE, MAXIMUM_VARIANCE, resolution};
use crate::time::{MICROS_PER_HOUR, Timestamp};

/// Hours of the day.
const DAY: usize = 24;
/// Hours of the week.
const WEEK: usize = 168;
/// Least weight of the newest day in the mean of an hour of the day.
const DAY_GAIN: f64 = 0.1;
/// Least weight of the newest week in the mean of an hour of the week.
const WEEK_GAIN: f64 = 0.2;
/// An hour of the week counts as much as its hour of the day after so many weeks.
const SHRINKAGE: f64 = 2.0;
/// Least weight of the newest residual in the variance of all.
const RESIDUAL_GAIN: f64 = 0.001;
/// Residuals before their variance means anything.
const SILENT: u32 = 10;

/// Mean over the hours of one place in the calendar; each hour counts once, however many readings it has.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Slot {
    mean: f64,
    hours: u32,
}

impl Slot {
    fn add(&mut self, mean: f64, least_gain: f64) {
        self.hours = self.hours.saturating_add(1);
        let gain = (1.0 / f64::from(self.hours)).max(least_gain);
        self.mean += gain * (mean - self.mean);
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.f64(self.mean);
        writer.u32(self.hours);
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { mean: reader.number(2.0 * MAGNITUDE)?, hours: reader.u32()? })
    }
}

/// What is usual at each hour, in UTC.
///
/// The mean of an hour of the week is pulled towards that of its hour of the day, as far as it rests on few weeks
/// (shrinkage; Efron and Morris, "Stein's Paradox in Statistics", 1977). The hour in progress is added when it
/// is over, so that it cannot excuse itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seasonal {
    day: [Slot; DAY],
    week: [Slot; WEEK],
    /// Variance of the residuals of each hour of the day.
    variances: [f64; DAY],
    /// Variance of all residuals.
    variance: f64,
    residuals: u32,
    /// Hours since 2000-01-01 of the hour in progress.
    hour: i64,
    /// Mean of the hour in progress.
    mean: f64,
    /// Readings in it.
    readings: u32,
    surprise: Surprise,
}

impl Default for Seasonal {
    fn default() -> Self {
        Self {
            day: [Slot::default(); DAY],
            week: [Slot::default(); WEEK],
            variances: [0.0; DAY],
            variance: 0.0,
            residuals: 0,
            hour: 0,
            mean: 0.0,
            readings: 0,
            surprise: Surprise::default(),
        }
    }
}

fn hour_of_day(hour: i64) -> usize {
    hour.rem_euclid(DAY as i64) as usize
}

fn hour_of_week(hour: i64) -> usize {
    hour.rem_euclid(WEEK as i64) as usize
}

impl Seasonal {
    pub(super) const ENCODED_LEN: usize = 12 * (DAY + WEEK) + 8 * DAY + 32 + Surprise::ENCODED_LEN;

    /// What is usual in this hour; `None` when it has not been seen.
    fn expected(&self, hour: i64) -> Option<f64> {
        let (day, week) = (&self.day[hour_of_day(hour)], &self.week[hour_of_week(hour)]);
        if day.hours == 0 {
            return None;
        }
        let weeks = f64::from(week.hours);
        Some(day.mean + weeks / (weeks + SHRINKAGE) * (week.mean - day.mean))
    }

    /// Score, and the distance it came from; `None` when too little is known.
    pub(super) fn evaluate(&self, at: Timestamp, value: f64) -> Option<(f64, f64)> {
        let hour = at.0.div_euclid(MICROS_PER_HOUR);
        let expected = self.expected(hour)?;
        if self.residuals < SILENT {
            return None;
        }
        let variance = self.variances[hour_of_day(hour)] / 2.0 + self.variance / 2.0;
        let distance = (value - expected).abs() / (variance.sqrt() + resolution(value));
        Some((self.surprise.score(distance), distance))
    }

    pub(super) fn update(&mut self, at: Timestamp, value: f64, distance: Option<f64>) {
        let hour = at.0.div_euclid(MICROS_PER_HOUR);
        if hour != self.hour {
            self.close_hour(hour);
        }
        self.readings = self.readings.saturating_add(1);
        self.mean += (value - self.mean) / f64::from(self.readings);
        if let Some(expected) = self.expected(hour) {
            let square = (value - expected) * (value - expected);
            self.residuals = self.residuals.saturating_add(1);
            let gain = (1.0 / f64::from(self.residuals)).max(RESIDUAL_GAIN);
            self.variance += gain * (square - self.variance);
            let day = &self.day[hour_of_day(hour)];
            // Ten days, whatever the number of readings in an hour.
            let gain = DAY_GAIN.max(1.0 / f64::from(day.hours)) / f64::from(self.readings);
            let own = &mut self.variances[hour_of_day(hour)];
            *own += gain * (square - *own);
        }
        if let Some(distance) = distance {
            self.surprise.update(distance);
        }
    }

    fn close_hour(&mut self, next: i64) {
        if self.readings > 0 {
            self.day[hour_of_day(self.hour)].add(self.mean, DAY_GAIN);
            self.week[hour_of_week(self.hour)].add(self.mean, WEEK_GAIN);
        }
        (self.hour, self.mean, self.readings) = (next, 0.0, 0);
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        self.day.iter().chain(&self.week).for_each(|slot| slot.write(writer));
        self.variances.iter().for_each(|variance| writer.f64(*variance));
        writer.f64(self.variance);
        writer.u32(self.residuals);
        writer.timestamp(Timestamp(self.hour));
        writer.f64(self.mean);
        writer.u32(self.readings);
        self.surprise.write(writer);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut seasonal = Self::default();
        for slot in seasonal.day.iter_mut().chain(&mut seasonal.week) {
            *slot = Slot::read(reader)?;
        }
        for variance in &mut seasonal.variances {
            *variance = reader.not_negative(MAXIMUM_VARIANCE)?;
        }
        seasonal.variance = reader.not_negative(MAXIMUM_VARIANCE)?;
        seasonal.residuals = reader.u32()?;
        seasonal.hour = reader.timestamp()?.0;
        seasonal.mean = reader.number(2.0 * MAGNITUDE)?;
        seasonal.readings = reader.u32()?;
        seasonal.surprise = Surprise::read(reader)?;
        Some(seasonal)
    }
}
