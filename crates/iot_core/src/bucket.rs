//! Time buckets: the start of the bucket that holds a timestamp, compatible with TimescaleDB's `time_bucket`.

use std::fmt;

use crate::time::{CivilDate, MICROS_PER_DAY, Timestamp};

/// Where fixed-width buckets are counted from: Monday 2000-01-03 00:00 UTC, so that weeks start on Monday.
pub const FIXED_ORIGIN: Timestamp = Timestamp(2 * MICROS_PER_DAY);

/// Where month buckets are counted from: 2000-01-01 00:00 UTC.
pub const MONTH_ORIGIN: Timestamp = Timestamp(0);

/// The last day of the month that every month has.
const LAST_COMMON_DAY: u32 = 28;

/// Width of a bucket, greater than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketWidth {
    /// A fixed length in microseconds.
    Micros(i64),
    /// A number of calendar months.
    Months(i32),
}

impl BucketWidth {
    /// From the three fields of PostgreSQL's `interval`. A day counts as 24 hours.
    ///
    /// # Errors
    /// When months are mixed with days or time, or the width is not positive or too long for microseconds.
    pub fn from_interval(months: i32, days: i32, micros: i64) -> Result<Self, BucketError> {
        let width = match (months, days, micros) {
            (0, _, _) => i64::from(days)
                .checked_mul(MICROS_PER_DAY)
                .and_then(|day_micros| day_micros.checked_add(micros))
                .map(Self::Micros)
                .ok_or(BucketError::TooWide { days, micros })?,
            (_, 0, 0) => Self::Months(months),
            _ => return Err(BucketError::MixedUnits { months, days, micros }),
        };
        width.require_positive()
    }

    fn require_positive(self) -> Result<Self, BucketError> {
        match self {
            Self::Micros(..=0) | Self::Months(..=0) => Err(BucketError::NotPositive(self)),
            _ => Ok(self),
        }
    }
}

/// Start of the bucket that holds `at`: the latest `origin` + n × `width`, n any integer, not after `at`.
///
/// Without an origin, [`FIXED_ORIGIN`] or [`MONTH_ORIGIN`] is used. An infinite `at` is returned unchanged.
///
/// # Errors
/// When the width is not positive, the origin is infinite or (for months) on day 29, 30 or 31, or the start
/// lies outside the range of `timestamptz`.
pub fn bucket_start(
    width: BucketWidth,
    at: Timestamp,
    origin: Option<Timestamp>,
) -> Result<Timestamp, BucketError> {
    let width = width.require_positive()?;
    if origin.is_some_and(|origin| !origin.is_finite()) {
        return Err(BucketError::InfiniteOrigin);
    }
    if !at.is_finite() {
        return Ok(at);
    }
    let start = match width {
        BucketWidth::Micros(micros) => fixed_start(micros, at, origin.unwrap_or(FIXED_ORIGIN)),
        BucketWidth::Months(months) => month_start(months, at, origin.unwrap_or(MONTH_ORIGIN))?,
    };
    start.ok_or(BucketError::OutOfRange { at })
}

/// As [`bucket_start`], with all buckets of the default origin moved by `offset_micros`.
///
/// # Errors
/// As [`bucket_start`], and when `at` − `offset_micros` lies outside the range of `timestamptz`.
pub fn bucket_start_with_offset(
    width: BucketWidth,
    at: Timestamp,
    offset_micros: i64,
) -> Result<Timestamp, BucketError> {
    let out_of_range = BucketError::OutOfRange { at };
    let shifted = offset_micros.checked_neg().and_then(|back| at.checked_add(back)).ok_or(out_of_range)?;
    bucket_start(width, shifted, None)?.checked_add(offset_micros).ok_or(out_of_range)
}

fn fixed_start(width: i64, at: Timestamp, origin: Timestamp) -> Option<Timestamp> {
    // Remainders first: `at - origin` can overflow.
    let into_bucket = (at.0.rem_euclid(width) - origin.0.rem_euclid(width)).rem_euclid(width);
    at.checked_add(-into_bucket)
}

fn month_start(width: i32, at: Timestamp, origin: Timestamp) -> Result<Option<Timestamp>, BucketError> {
    let CivilDate { day, .. } = origin.utc_civil();
    if day > LAST_COMMON_DAY {
        return Err(BucketError::OriginDay { origin, day });
    }
    let into_month = origin.0.rem_euclid(MICROS_PER_DAY) + i64::from(day - 1) * MICROS_PER_DAY;
    // A time before the origin's day of the month belongs to the period that began in the month before.
    let months = Timestamp(at.0.saturating_sub(into_month));
    let width = i64::from(width);
    let from_origin = month_number(months) - month_number(origin);
    let start = month_number(origin) + from_origin.div_euclid(width) * width;
    Ok(first_of_month(start).and_then(|first| first.checked_add(into_month)))
}

/// Months since the start of year 0.
fn month_number(at: Timestamp) -> i64 {
    let date = at.utc_civil();
    i64::from(date.year) * 12 + i64::from(date.month) - 1
}

fn first_of_month(month_number: i64) -> Option<Timestamp> {
    let year = i32::try_from(month_number.div_euclid(12)).ok()?;
    let month = u32::try_from(month_number.rem_euclid(12) + 1).ok()?;
    Timestamp::from_utc_civil(year, month, 1)
}

/// Why there is no bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketError {
    /// The width has months and also days or time; the three fields of the interval.
    MixedUnits {
        /// Months of the interval.
        months: i32,
        /// Days of the interval.
        days: i32,
        /// Microseconds of the interval.
        micros: i64,
    },
    /// The width is zero or negative.
    NotPositive(BucketWidth),
    /// The width in microseconds does not fit 64 bits.
    TooWide {
        /// Days of the interval.
        days: i32,
        /// Microseconds of the interval.
        micros: i64,
    },
    /// The origin is `infinity` or `-infinity`.
    InfiniteOrigin,
    /// Months are counted from a day that not every month has.
    OriginDay {
        /// The origin.
        origin: Timestamp,
        /// Its day of the month.
        day: u32,
    },
    /// The bucket that holds `at` starts outside the range of `timestamptz`.
    OutOfRange {
        /// The timestamp.
        at: Timestamp,
    },
}

impl BucketError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::MixedUnits { .. } => "Use months alone, or days and time alone.",
            Self::NotPositive(_) => "Use a width greater than zero.",
            Self::TooWide { .. } => "Use a width of at most 292,000 years, or give it in months.",
            Self::InfiniteOrigin => "Use a finite origin.",
            Self::OriginDay { .. } => "Use an origin on day 1 to 28 of its month.",
            Self::OutOfRange { .. } => {
                "Use a narrower bucket, or a timestamp further inside the range of timestamptz."
            }
        }
    }
}

impl fmt::Display for BucketError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MixedUnits { months, days, micros } => write!(
                formatter,
                "bucket width mixes months with days or time: {months} months, {days} days, {micros} microseconds"
            ),
            Self::NotPositive(BucketWidth::Micros(micros)) => {
                write!(formatter, "bucket width must be greater than zero, not {micros} microseconds")
            }
            Self::NotPositive(BucketWidth::Months(months)) => {
                write!(formatter, "bucket width must be greater than zero, not {months} months")
            }
            Self::TooWide { days, micros } => {
                write!(formatter, "bucket width is out of range: {days} days, {micros} microseconds")
            }
            Self::InfiniteOrigin => formatter.write_str("bucket origin must not be infinite"),
            Self::OriginDay { origin, day } => write!(
                formatter,
                "bucket origin {} is on day {day}, which not every month has",
                origin.to_utc_literal()
            ),
            Self::OutOfRange { at } => {
                write!(formatter, "bucket of {} is outside the range of timestamptz", at.to_utc_literal())
            }
        }
    }
}

impl std::error::Error for BucketError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MICROS_PER_HOUR;

    const DAY: BucketWidth = BucketWidth::Micros(MICROS_PER_DAY);
    const WEEK: BucketWidth = BucketWidth::Micros(7 * MICROS_PER_DAY);
    const MONTH: BucketWidth = BucketWidth::Months(1);

    fn day(year: i32, month: u32, day: u32) -> Timestamp {
        Timestamp::from_utc_civil(year, month, day).unwrap()
    }

    fn start(width: BucketWidth, at: Timestamp) -> Timestamp {
        bucket_start(width, at, None).unwrap()
    }

    #[test]
    fn widths_from_intervals() {
        assert_eq!(BucketWidth::from_interval(3, 0, 0), Ok(BucketWidth::Months(3)));
        assert_eq!(BucketWidth::from_interval(0, 7, 0), Ok(WEEK));
        assert_eq!(
            BucketWidth::from_interval(0, 1, -MICROS_PER_HOUR),
            Ok(BucketWidth::Micros(23 * MICROS_PER_HOUR))
        );
        for (months, days, micros) in [(1, 1, 0), (1, 0, 1), (-1, 5, 0)] {
            let error = BucketWidth::from_interval(months, days, micros).unwrap_err();
            assert_eq!(error, BucketError::MixedUnits { months, days, micros });
        }
        for (months, days, micros) in [(0, 0, 0), (0, -1, 0), (0, 0, -1), (-1, 0, 0)] {
            let error = BucketWidth::from_interval(months, days, micros).unwrap_err();
            assert!(matches!(error, BucketError::NotPositive(_)), "{error}");
        }
        for (days, micros) in [(i32::MAX, 0), (i32::MIN, 0), (1, i64::MAX)] {
            assert_eq!(
                BucketWidth::from_interval(0, days, micros),
                Err(BucketError::TooWide { days, micros })
            );
        }
    }

    #[test]
    fn a_width_made_by_hand_is_checked_too() {
        for width in [BucketWidth::Micros(0), BucketWidth::Micros(i64::MIN), BucketWidth::Months(-1)] {
            assert_eq!(bucket_start(width, Timestamp(0), None), Err(BucketError::NotPositive(width)));
        }
    }

    #[test]
    fn weeks_start_on_monday() {
        assert_eq!(start(WEEK, day(2026, 11, 19)), day(2026, 11, 16));
        assert_eq!(start(WEEK, day(2026, 11, 16)), day(2026, 11, 16));
        assert_eq!(start(WEEK, Timestamp(day(2026, 11, 16).0 - 1)), day(2026, 11, 9));
    }

    #[test]
    fn before_the_origin_buckets_are_floored_too() {
        assert_eq!(start(WEEK, day(2000, 1, 1)), day(1999, 12, 27));
        assert_eq!(start(DAY, Timestamp(-1)), day(1999, 12, 31));
        assert_eq!(start(BucketWidth::Months(2), day(1999, 12, 31)), day(1999, 11, 1));
        assert_eq!(start(BucketWidth::Months(12), day(-5, 7, 1)), day(-5, 1, 1));
    }

    #[test]
    fn fixed_buckets_with_an_origin() {
        let origin = Some(Timestamp(day(2026, 1, 1).0 + 5));
        assert_eq!(bucket_start(DAY, day(2026, 1, 1), origin), Ok(Timestamp(day(2025, 12, 31).0 + 5)));
        assert_eq!(bucket_start(DAY, day(2026, 1, 2), origin), Ok(Timestamp(day(2026, 1, 1).0 + 5)));
    }

    #[test]
    fn month_buckets_with_an_origin_inside_the_month() {
        let noon = 12 * MICROS_PER_HOUR;
        let origin = Some(Timestamp(day(2026, 1, 15).0 + noon));
        let quarter = BucketWidth::Months(3);
        for (at, expected) in [
            (day(2026, 4, 15), day(2026, 1, 15)),
            (Timestamp(day(2026, 4, 15).0 + noon), day(2026, 4, 15)),
            (day(2026, 1, 14), day(2025, 10, 15)),
            (day(2026, 7, 31), day(2026, 7, 15)),
        ] {
            assert_eq!(bucket_start(quarter, at, origin), Ok(Timestamp(expected.0 + noon)), "{at:?}");
        }
        assert!(bucket_start(quarter, day(2026, 4, 15), Some(day(2026, 1, 28))).is_ok());
        let late = day(2026, 1, 29);
        assert_eq!(
            bucket_start(quarter, day(2026, 4, 15), Some(late)),
            Err(BucketError::OriginDay { origin: late, day: 29 })
        );
    }

    #[test]
    fn offsets_move_all_buckets() {
        let hours = 6 * MICROS_PER_HOUR;
        assert_eq!(
            bucket_start_with_offset(DAY, day(2026, 1, 2), hours),
            Ok(Timestamp(day(2026, 1, 1).0 + hours))
        );
        assert_eq!(
            bucket_start_with_offset(DAY, day(2026, 1, 2), -hours),
            Ok(Timestamp(day(2026, 1, 2).0 - hours))
        );
        assert_eq!(
            bucket_start_with_offset(MONTH, day(2026, 1, 1), hours),
            Ok(Timestamp(day(2025, 12, 1).0 + hours))
        );
        for offset in [i64::MIN, i64::MAX] {
            let error = bucket_start_with_offset(DAY, Timestamp(0), offset);
            assert_eq!(error, Err(BucketError::OutOfRange { at: Timestamp(0) }));
        }
    }

    #[test]
    fn infinity_stays_infinity() {
        for at in [Timestamp::INFINITY, Timestamp::NEGATIVE_INFINITY] {
            assert_eq!(bucket_start(DAY, at, None), Ok(at));
            assert_eq!(bucket_start(MONTH, at, None), Ok(at));
            assert_eq!(bucket_start_with_offset(DAY, at, 1), Ok(at));
            assert_eq!(bucket_start(DAY, Timestamp(0), Some(at)), Err(BucketError::InfiniteOrigin));
        }
    }

    #[test]
    fn buckets_that_start_out_of_range() {
        let at = Timestamp(Timestamp::EARLIEST.0 + 1);
        for width in [WEEK, MONTH, BucketWidth::Months(i32::MAX), BucketWidth::Micros(i64::MAX)] {
            let origin = Some(Timestamp(5 * MICROS_PER_DAY));
            assert_eq!(bucket_start(width, at, origin), Err(BucketError::OutOfRange { at }), "{width:?}");
        }
        let last = Timestamp(Timestamp::RANGE_END.0 - 1);
        assert_eq!(start(DAY, last), day(294_276, 12, 31));
        assert_eq!(start(MONTH, last), day(294_276, 12, 1));
    }

    #[test]
    fn messages_name_the_values() {
        let errors = [
            BucketError::MixedUnits { months: 1, days: 2, micros: 3 },
            BucketError::NotPositive(BucketWidth::Micros(-5)),
            BucketError::NotPositive(BucketWidth::Months(-1)),
            BucketError::TooWide { days: 200_000_000, micros: 0 },
            BucketError::InfiniteOrigin,
            BucketError::OriginDay { origin: day(2026, 1, 31), day: 31 },
            BucketError::OutOfRange { at: Timestamp::EARLIEST },
        ];
        assert!(errors.iter().all(|error| error.hint().ends_with('.')));
        let messages = [
            "bucket width mixes months with days or time: 1 months, 2 days, 3 microseconds",
            "bucket width must be greater than zero, not -5 microseconds",
            "bucket width must be greater than zero, not -1 months",
            "bucket width is out of range: 200000000 days, 0 microseconds",
            "bucket origin must not be infinite",
            "bucket origin 2026-01-31 00:00:00+00 is on day 31, which not every month has",
            "bucket of 4714-11-24 00:00:00+00 BC is outside the range of timestamptz",
        ];
        assert_eq!(errors.map(|error| error.to_string()), messages);
    }
}
