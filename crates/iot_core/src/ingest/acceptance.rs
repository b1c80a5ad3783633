//! Which readings are taken at all.

use std::fmt;

use crate::number::Shortest;
use crate::time::{MICROS_PER_DAY, Timestamp};

/// How far ahead of the server's clock a reading may be, in microseconds: one day.
pub const MAXIMUM_LEAD: i64 = MICROS_PER_DAY;

/// How the time of an accepted reading relates to the server's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeVerdict {
    /// Not later than the clock plus the allowed skew.
    OnTime,
    /// Later than that; the device's clock is probably wrong.
    Future,
}

/// Accepts `measured` from `horizon_start` up to one day after `now`, both inclusive.
///
/// What is later than `now` + `clock_skew_micros` is accepted as [`TimeVerdict::Future`].
///
/// # Errors
/// When `measured` is outside; infinite times always are.
pub fn accept_time(
    measured: Timestamp,
    now: Timestamp,
    horizon_start: Timestamp,
    clock_skew_micros: i64,
) -> Result<TimeVerdict, TimeRejection> {
    let newest = Timestamp(now.0.saturating_add(MAXIMUM_LEAD));
    if measured < horizon_start || measured == Timestamp::NEGATIVE_INFINITY {
        return Err(TimeRejection::TooOld { measured, oldest: horizon_start });
    }
    if measured > newest || measured == Timestamp::INFINITY {
        return Err(TimeRejection::TooNew { measured, newest });
    }
    let on_time = measured.0 <= now.0.saturating_add(clock_skew_micros);
    Ok(if on_time { TimeVerdict::OnTime } else { TimeVerdict::Future })
}

/// Why the time of a reading is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeRejection {
    /// It lies before the horizon.
    TooOld {
        /// Time of the reading.
        measured: Timestamp,
        /// The oldest accepted time.
        oldest: Timestamp,
    },
    /// It lies more than a day ahead of the server's clock.
    TooNew {
        /// Time of the reading.
        measured: Timestamp,
        /// The newest accepted time.
        newest: Timestamp,
    },
}

impl TimeRejection {
    /// It in one word: `too_old` or `too_new`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooOld { .. } => "too_old",
            Self::TooNew { .. } => "too_new",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooOld { .. } => "Send readings that are younger than the retention of the readings table.",
            Self::TooNew { .. } => "Check the clock and the time zone of the device.",
        }
    }
}

impl fmt::Display for TimeRejection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooOld { measured, oldest } => write!(
                formatter,
                "measurement time {} is before {}, the oldest accepted",
                measured.to_utc_literal(),
                oldest.to_utc_literal()
            ),
            Self::TooNew { measured, newest } => write!(
                formatter,
                "measurement time {} is after {}, the newest accepted",
                measured.to_utc_literal(),
                newest.to_utc_literal()
            ),
        }
    }
}

impl std::error::Error for TimeRejection {}

/// Accepts finite numbers.
///
/// # Errors
/// For NaN and the infinities.
pub fn accept_value(value: f64) -> Result<f64, ValueRejection> {
    if value.is_finite() { Ok(value) } else { Err(ValueRejection { value }) }
}

/// The value of a reading is not a finite number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ValueRejection {
    /// The value.
    pub value: f64,
}

impl ValueRejection {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "Leave out readings that the sensor could not take."
    }
}

impl fmt::Display for ValueRejection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "measurement value must be a finite number, not {}", Shortest(self.value))
    }
}

impl std::error::Error for ValueRejection {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MICROS_PER_MINUTE;

    const NOW: Timestamp = Timestamp(1_000 * MICROS_PER_DAY);
    const HORIZON: Timestamp = Timestamp(900 * MICROS_PER_DAY);
    const SKEW: i64 = 5 * MICROS_PER_MINUTE;

    fn accept(measured: i64) -> Result<TimeVerdict, TimeRejection> {
        accept_time(Timestamp(measured), NOW, HORIZON, SKEW)
    }

    #[test]
    fn from_the_horizon_to_a_day_ahead() {
        let newest = Timestamp(NOW.0 + MICROS_PER_DAY);
        for (measured, expected) in [
            (HORIZON.0, Ok(TimeVerdict::OnTime)),
            (NOW.0, Ok(TimeVerdict::OnTime)),
            (NOW.0 + SKEW, Ok(TimeVerdict::OnTime)),
            (NOW.0 + SKEW + 1, Ok(TimeVerdict::Future)),
            (newest.0, Ok(TimeVerdict::Future)),
            (newest.0 + 1, Err(TimeRejection::TooNew { measured: Timestamp(newest.0 + 1), newest })),
            (
                HORIZON.0 - 1,
                Err(TimeRejection::TooOld { measured: Timestamp(HORIZON.0 - 1), oldest: HORIZON }),
            ),
        ] {
            assert_eq!(accept(measured), expected);
        }
    }

    #[test]
    fn infinite_times_are_refused_even_without_a_horizon() {
        let forever = Timestamp::NEGATIVE_INFINITY;
        assert!(accept_time(Timestamp::NEGATIVE_INFINITY, NOW, forever, SKEW).is_err());
        assert!(accept_time(Timestamp::INFINITY, Timestamp(i64::MAX - 1), forever, i64::MAX).is_err());
        assert_eq!(accept_time(Timestamp(i64::MIN + 1), NOW, forever, SKEW), Ok(TimeVerdict::OnTime));
    }

    #[test]
    fn refusals_name_the_times() {
        let old = accept(HORIZON.0 - MICROS_PER_DAY).unwrap_err();
        assert_eq!(
            old.to_string(),
            "measurement time 2002-06-18 00:00:00+00 is before 2002-06-19 00:00:00+00, the oldest accepted"
        );
        let new = accept(NOW.0 + 2 * MICROS_PER_DAY).unwrap_err();
        assert_eq!(
            new.to_string(),
            "measurement time 2002-09-29 00:00:00+00 is after 2002-09-28 00:00:00+00, the newest accepted"
        );
        assert!(old.hint().ends_with('.') && new.hint().ends_with('.'));
    }

    #[test]
    fn only_finite_values() {
        for value in [0.0, -1.5, f64::MAX, f64::MIN_POSITIVE] {
            assert_eq!(accept_value(value), Ok(value));
        }
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let rejection = accept_value(value).unwrap_err();
            assert_eq!(
                rejection.to_string(),
                format!("measurement value must be a finite number, not {value}")
            );
            assert!(rejection.hint().ends_with('.'));
        }
    }
}
