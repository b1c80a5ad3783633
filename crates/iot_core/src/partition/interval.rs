//! The grid of partition ranges.

use std::fmt;

use crate::bucket::{BucketWidth, bucket_start};
use crate::time::{MICROS_PER_DAY, MICROS_PER_HOUR, Timestamp};

/// Length of a partition. Boundaries are in UTC, whatever the time zone of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PartitionInterval {
    /// One hour.
    Hour,
    /// One day of 24 hours.
    Day,
    /// Seven days from Monday.
    Week,
    /// One calendar month.
    Month,
    /// Three calendar months from January, April, July or October.
    Quarter,
    /// One calendar year.
    Year,
}

impl PartitionInterval {
    /// All of them, in order of their length.
    pub const ALL: [Self; 6] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Quarter, Self::Year];

    /// From the three fields of PostgreSQL's `interval`. A day counts as 24 hours.
    ///
    /// # Errors
    /// When it is not exactly one hour, one day, seven days, or one, three or twelve months.
    pub fn from_interval(months: i32, days: i32, micros: i64) -> Result<Self, IntervalError> {
        const WEEK: i64 = 7 * MICROS_PER_DAY;
        match BucketWidth::from_interval(months, days, micros) {
            Ok(BucketWidth::Micros(MICROS_PER_HOUR)) => Ok(Self::Hour),
            Ok(BucketWidth::Micros(MICROS_PER_DAY)) => Ok(Self::Day),
            Ok(BucketWidth::Micros(WEEK)) => Ok(Self::Week),
            Ok(BucketWidth::Months(1)) => Ok(Self::Month),
            Ok(BucketWidth::Months(3)) => Ok(Self::Quarter),
            Ok(BucketWidth::Months(12)) => Ok(Self::Year),
            _ => Err(IntervalError { months, days, micros }),
        }
    }

    /// The range of the grid that holds `at`.
    ///
    /// `None` when `at` is infinite, or the range reaches outside that of `timestamptz`.
    pub fn range_containing(self, at: Timestamp) -> Option<PartitionRange> {
        if !at.is_finite() {
            return None;
        }
        let start = bucket_start(self.width(), at, None).ok()?;
        Some(PartitionRange { start, end: self.end_from(start)? })
    }

    /// The range of the grid after the one in which `range` starts.
    pub fn next(self, range: PartitionRange) -> Option<PartitionRange> {
        let start = self.range_containing(range.start)?.end;
        Some(PartitionRange { start, end: self.end_from(start)? })
    }

    fn width(self) -> BucketWidth {
        match self {
            Self::Hour => BucketWidth::Micros(MICROS_PER_HOUR),
            Self::Day => BucketWidth::Micros(MICROS_PER_DAY),
            Self::Week => BucketWidth::Micros(7 * MICROS_PER_DAY),
            Self::Month => BucketWidth::Months(1),
            Self::Quarter => BucketWidth::Months(3),
            Self::Year => BucketWidth::Months(12),
        }
    }

    fn end_from(self, start: Timestamp) -> Option<Timestamp> {
        /// No month is longer.
        const MONTH: i64 = 31 * MICROS_PER_DAY;
        match self.width() {
            BucketWidth::Micros(micros) => start.checked_add(micros),
            BucketWidth::Months(months) => {
                let into_next = start.checked_add(i64::from(months) * MONTH + MICROS_PER_DAY)?;
                bucket_start(self.width(), into_next, None).ok()
            }
        }
    }
}

/// The times of one partition: from `start`, inclusive, to `end`, exclusive. Either may be infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartitionRange {
    /// First time inside.
    pub start: Timestamp,
    /// First time after it.
    pub end: Timestamp,
}

impl PartitionRange {
    /// Whether `at` lies in the range.
    pub fn contains(&self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }

    /// Whether some time lies in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// The interval is not one by which tables can be partitioned; its three fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntervalError {
    /// Months of the interval.
    pub months: i32,
    /// Days of the interval.
    pub days: i32,
    /// Microseconds of the interval.
    pub micros: i64,
}

impl IntervalError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "Use an interval of 1 hour, 1 day, 7 days, 1 month, 3 months or 1 year."
    }
}

impl fmt::Display for IntervalError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { months, days, micros } = self;
        write!(
            formatter,
            "unsupported partition interval: {months} months, {days} days, {micros} microseconds"
        )
    }
}

impl std::error::Error for IntervalError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(year: i32, month: u32, day: u32) -> Timestamp {
        Timestamp::from_utc_civil(year, month, day).unwrap()
    }

    #[test]
    fn supported_intervals() {
        for (months, days, micros, expected) in [
            (12, 0, 0, PartitionInterval::Year),
            (3, 0, 0, PartitionInterval::Quarter),
            (1, 0, 0, PartitionInterval::Month),
            (0, 7, 0, PartitionInterval::Week),
            (0, 1, 0, PartitionInterval::Day),
            (0, 0, MICROS_PER_DAY, PartitionInterval::Day),
            (0, 0, MICROS_PER_HOUR, PartitionInterval::Hour),
        ] {
            assert_eq!(PartitionInterval::from_interval(months, days, micros), Ok(expected));
        }
        for (months, days, micros) in
            [(0, 0, 0), (2, 0, 0), (0, 2, 0), (1, 1, 0), (-1, 0, 0), (0, i32::MAX, 0)]
        {
            let error = PartitionInterval::from_interval(months, days, micros).unwrap_err();
            assert_eq!(error, IntervalError { months, days, micros });
        }
        let error = IntervalError { months: 2, days: 0, micros: 0 };
        assert_eq!(error.to_string(), "unsupported partition interval: 2 months, 0 days, 0 microseconds");
        assert!(error.hint().ends_with('.'));
    }

    #[test]
    fn ranges_of_the_grid() {
        let at = Timestamp(day(2026, 11, 19).0 + 7 * MICROS_PER_HOUR + 1);
        let seven = Timestamp(day(2026, 11, 19).0 + 7 * MICROS_PER_HOUR);
        for (interval, start, end) in [
            (PartitionInterval::Hour, seven, Timestamp(seven.0 + MICROS_PER_HOUR)),
            (PartitionInterval::Day, day(2026, 11, 19), day(2026, 11, 20)),
            (PartitionInterval::Week, day(2026, 11, 16), day(2026, 11, 23)),
            (PartitionInterval::Month, day(2026, 11, 1), day(2026, 12, 1)),
            (PartitionInterval::Quarter, day(2026, 10, 1), day(2027, 1, 1)),
            (PartitionInterval::Year, day(2026, 1, 1), day(2027, 1, 1)),
        ] {
            let range = interval.range_containing(at).unwrap();
            assert_eq!(range, PartitionRange { start, end });
            assert!(range.contains(start) && range.contains(at) && !range.contains(end));
            assert_eq!(interval.next(range), interval.range_containing(end));
        }
    }

    #[test]
    fn ranges_that_share_a_time() {
        let range = |start, end| PartitionRange { start, end };
        let week = range(day(2026, 11, 2), day(2026, 11, 9));
        let always = range(Timestamp::NEGATIVE_INFINITY, Timestamp::INFINITY);
        for (other, expected) in [
            (week, true),
            (always, true),
            (range(day(2026, 11, 8), Timestamp::INFINITY), true),
            (range(day(2026, 11, 9), Timestamp::INFINITY), false),
            (range(Timestamp::NEGATIVE_INFINITY, day(2026, 11, 2)), false),
        ] {
            assert_eq!((week.overlaps(&other), other.overlaps(&week)), (expected, expected));
        }
    }

    #[test]
    fn the_next_range_after_one_that_was_cut() {
        let cut = PartitionRange { start: day(2026, 11, 5), end: day(2026, 11, 8) };
        let december = PartitionRange { start: day(2026, 12, 1), end: day(2027, 1, 1) };
        assert_eq!(PartitionInterval::Month.next(cut), Some(december));
    }

    #[test]
    fn no_range_beyond_those_of_timestamptz() {
        for interval in PartitionInterval::ALL {
            assert_eq!(interval.range_containing(Timestamp::INFINITY), None);
            assert_eq!(interval.range_containing(Timestamp::NEGATIVE_INFINITY), None);
            assert_eq!(interval.range_containing(Timestamp(Timestamp::RANGE_END.0 - 1)), None);
        }
        assert_eq!(PartitionInterval::Month.range_containing(Timestamp::EARLIEST), None);
    }
}
