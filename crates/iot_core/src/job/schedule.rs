//! When a job starts.

use std::fmt;

use super::cron::Cron;
use super::zone::{self, Local, Zone, stretches};
use crate::time::{
    CivilDate, MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND, Timestamp,
};

/// The starts of a job, by the clocks of a zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    recurrence: Recurrence,
    /// The first start, or the moment from which cron starts count.
    origin: Timestamp,
    /// Each start is put off by less than this.
    jitter: i64,
    /// Makes the delays of one job differ from those of another.
    seed: i64,
}

/// How the starts follow each other.
#[derive(Clone, Debug)]
pub enum Recurrence {
    /// At a distance from the origin: so a late start moves none of those to come.
    Every(Every),
    /// As an expression says.
    Cron(Box<Cron>),
}

/// The fields of an interval, none negative, and together at least a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every {
    months: i32,
    days: i32,
    micros: i64,
}

/// Why a schedule is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScheduleError {
    /// A field of the interval is negative, or it is shorter than a second.
    TooShort,
    /// The cron expression cannot be read.
    Cron {
        /// The expression.
        text: String,
        /// What is wrong.
        reason: String,
    },
}

impl ScheduleError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooShort => "Give an interval of at least one second, such as '10 minutes'.",
            Self::Cron { .. } => {
                "Give minute, hour, day of month, month and day of week, such as '0 2 * * *' for two in the morning; or an interval such as '10 minutes'."
            }
        }
    }
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => write!(formatter, "schedule interval is shorter than a second"),
            Self::Cron { text, reason } => write!(formatter, "invalid cron expression \"{text}\": {reason}"),
        }
    }
}

impl Every {
    /// From the fields of an interval.
    ///
    /// # Errors
    /// When one is negative, or they are less than a second together.
    pub fn new(months: i32, days: i32, micros: i64) -> Result<Self, ScheduleError> {
        let is_long_enough = months > 0 || days > 0 || micros >= MICROS_PER_SECOND;
        if months < 0 || days < 0 || micros < 0 || !is_long_enough {
            return Err(ScheduleError::TooShort);
        }
        Ok(Self { months, days, micros })
    }

    /// The start number `count` after `origin`: months and days by the calendar and clocks of the zone, the rest as it passes.
    fn start(self, zone: &impl Zone, origin: Timestamp, count: i64) -> Option<Timestamp> {
        let passing = self.micros.checked_mul(count)?;
        if self.months == 0 && self.days == 0 {
            return origin.checked_add(passing);
        }
        let local = zone::local(zone, origin);
        let date = add_months(Timestamp(local.0).utc_civil(), i64::from(self.months).checked_mul(count)?)?;
        let days = i64::from(self.days).checked_mul(count)?.checked_mul(MICROS_PER_DAY)?;
        let midnight = Timestamp::from_utc_civil(date.year, date.month, date.day)?;
        let at = midnight.checked_add(local.0.rem_euclid(MICROS_PER_DAY))?.checked_add(days)?;
        zone::moment(zone, Local(at.0)).checked_add(passing)
    }

    /// The first start after `after`; the origin is one.
    fn next(self, zone: &impl Zone, origin: Timestamp, after: Timestamp) -> Option<Timestamp> {
        if origin > after {
            return Some(origin);
        }
        let is_later = |count: i64| self.start(zone, origin, count).is_none_or(|start| start > after);
        let mut low = 0;
        let mut high = 1_i64;
        while !is_later(high) {
            low = high;
            high = high.checked_mul(2)?;
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if is_later(middle) { high = middle } else { low = middle }
        }
        self.start(zone, origin, high)
    }
}

/// The same day that many months later, or the last one of that month.
fn add_months(date: CivilDate, months: i64) -> Option<CivilDate> {
    let month = i64::from(date.year) * 12 + i64::from(date.month) - 1 + months;
    let year = i32::try_from(month.div_euclid(12)).ok()?;
    let month = month.rem_euclid(12) as u32 + 1;
    let day = (1..=date.day).rev().find(|&day| Timestamp::from_utc_civil(year, month, day).is_some())?;
    Some(CivilDate { year, month, day })
}

impl Schedule {
    /// Starts from `origin` on; `jitter` in microseconds, `seed` the number of the job.
    pub fn new(recurrence: Recurrence, origin: Timestamp, jitter: i64, seed: i64) -> Self {
        Self { recurrence, origin, jitter: jitter.max(0), seed }
    }

    /// The first start after `after`. Those that were missed until then count for nothing: there is never a burst.
    pub fn next(&self, zone: &impl Zone, after: Timestamp) -> Option<Timestamp> {
        let mut planned = self.next_planned(zone, Timestamp(after.0.saturating_sub(self.jitter)))?;
        loop {
            let following = self.next_planned(zone, planned);
            // Less than to the next one, so that starts keep their order.
            let room = following.map_or(self.jitter, |following| self.jitter.min(following.0 - planned.0));
            let start = Timestamp(planned.0.saturating_add(fraction(self.seed, planned, room)));
            if start > after {
                return Some(start);
            }
            planned = following?;
        }
    }

    /// The first start after `after` as it would be without jitter.
    fn next_planned(&self, zone: &impl Zone, after: Timestamp) -> Option<Timestamp> {
        match &self.recurrence {
            Recurrence::Every(every) => every.next(zone, self.origin, after),
            Recurrence::Cron(cron) => {
                next_cron(cron, zone, after.max(Timestamp(self.origin.0.saturating_sub(1))))
            }
        }
    }
}

/// The first start of `cron` after `after`. Times that the clocks leave out are made up for once, right after the gap; of
/// times that they show twice the first counts. An expression for every hour just goes on.
fn next_cron(cron: &Cron, zone: &impl Zone, after: Timestamp) -> Option<Timestamp> {
    let from = after.checked_add(1).filter(|from| from.is_finite())?;
    let mut shown: Option<Local> = None;
    // Of the search before: from where, and what it found.
    let mut found: Option<(Local, Local)> = None;
    let mut search = |floor: Local| match found {
        Some((searched, next)) if searched <= floor && floor <= next => Some(next),
        _ => {
            let next = cron.next(floor)?;
            found = Some((floor, next));
            Some(next)
        }
    };
    for stretch in stretches(zone, from) {
        let first = stretch.to_local(stretch.start);
        if let Some(shown) = shown
            && shown < first
            && stretch.start >= from
            && !cron.is_every_hour()
            && search(shown)? < first
        {
            return Some(stretch.start);
        }
        let floor = match shown {
            Some(shown) if !cron.is_every_hour() => first.max(shown),
            _ => first,
        };
        let next = search(floor.max(stretch.to_local(from)))?;
        let at = stretch.at(next);
        if stretch.ends_after(at) {
            return Some(at);
        }
        shown = shown.max(stretch.end.map(|end| stretch.to_local(end)));
    }
    None
}

/// A part of `whole` that is the same whenever it is asked for.
fn fraction(seed: i64, start: Timestamp, whole: i64) -> i64 {
    // SplitMix64 (Steele, Lea, Flood 2014).
    let mut bits = (seed as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (start.0 as u64);
    bits = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^= bits >> 31;
    ((u128::from(bits) * whole.max(0) as u128) >> 64) as i64
}

/// Longest wait before a retry.
const LONGEST_RETRY_DELAY: i64 = MICROS_PER_HOUR;

/// Wait after a start that was put off.
pub const DEFERRED_FOR: i64 = MICROS_PER_MINUTE;

/// What a job does after a start that failed.
#[derive(Clone, Copy, Debug)]
pub struct Retries {
    /// Attempts after it.
    pub most: u32,
    /// Microseconds before the first of them.
    pub delay: i64,
}

impl Retries {
    /// The wait after that many failures in a row; `None` when there is nothing for it but the next planned start.
    pub fn delay_after(self, failures: u32) -> Option<i64> {
        if failures == 0 || failures > self.most {
            return None;
        }
        let doublings = (failures - 1).min(62);
        Some(self.delay.saturating_mul(1_i64 << doublings).clamp(0, LONGEST_RETRY_DELAY))
    }
}
