//! How long ago: PostgreSQL's `interval`, counted back in the UTC calendar.

use std::fmt;

use crate::time::{
    CivilDate, MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND, Timestamp,
};

/// The three fields of an SQL interval; never negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    months: i32,
    days: i32,
    micros: i64,
}

impl Age {
    /// `None` when it is not longer than nothing, or a field is negative.
    pub fn new(months: i32, days: i32, micros: i64) -> Option<Self> {
        let is_positive = months >= 0 && days >= 0 && micros >= 0 && (months, days, micros) != (0, 0, 0);
        is_positive.then_some(Self { months, days, micros })
    }

    /// A number of days.
    pub fn days(days: u32) -> Option<Self> {
        Self::new(0, i32::try_from(days).ok()?, 0)
    }

    /// The time that long before `now`, as PostgreSQL subtracts in UTC: months first, and a day that the month does not
    /// have becomes its last. What lies before the range of `timestamptz` is `-infinity`.
    pub fn before(self, now: Timestamp) -> Timestamp {
        if !now.is_finite() {
            return now;
        }
        // As many days as an interval can have are more microseconds than an i64.
        let days = i64::from(self.days).checked_mul(MICROS_PER_DAY);
        let moved = self
            .months_before(now)
            .and_then(|at| at.checked_add(days?.checked_neg()?)?.checked_add(self.micros.checked_neg()?));
        moved.unwrap_or(Timestamp::NEGATIVE_INFINITY)
    }

    /// The first time that is this long after `at`, so that [`Age::before`] it is not earlier than `at`; `None` when that
    /// lies beyond the range of `timestamptz`. (A month after 31 January is 1 March: only then is January a month ago.)
    pub fn reached(self, at: Timestamp) -> Option<Timestamp> {
        let (mut low, mut high) = (at.0, Timestamp::RANGE_END.0 - 1);
        if !at.is_finite() || self.before(Timestamp(high)) < at {
            return None;
        }
        while low < high {
            let middle = low.midpoint(high);
            if self.before(Timestamp(middle)) < at { low = middle + 1 } else { high = middle }
        }
        Some(Timestamp(low))
    }

    fn months_before(self, now: Timestamp) -> Option<Timestamp> {
        if self.months == 0 {
            return Some(now);
        }
        let CivilDate { year, month, day } = now.utc_civil();
        let number = i64::from(year) * 12 + i64::from(month) - 1 - i64::from(self.months);
        let year = i32::try_from(number.div_euclid(12)).ok()?;
        let month = u32::try_from(number.rem_euclid(12) + 1).ok()?;
        let first = (0..4).find_map(|less| Timestamp::from_utc_civil(year, month, day.checked_sub(less)?))?;
        first.checked_add(now.utc_time_of_day().0)
    }
}

impl fmt::Display for Age {
    /// Such as `1 year 6 months 3 days 12:00:00`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let counted = |count: i32, unit: &str| format!("{count} {unit}{}", if count == 1 { "" } else { "s" });
        for (count, unit) in [(self.months / 12, "year"), (self.months % 12, "month"), (self.days, "day")] {
            if count > 0 {
                parts.push(counted(count, unit));
            }
        }
        if self.micros > 0 {
            let (hours, rest) = (self.micros / MICROS_PER_HOUR, self.micros % MICROS_PER_HOUR);
            let (minutes, rest) = (rest / MICROS_PER_MINUTE, rest % MICROS_PER_MINUTE);
            parts.push(format!("{hours:02}:{minutes:02}:{:02}", rest / MICROS_PER_SECOND));
        }
        formatter.write_str(&parts.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(year: i32, month: u32, day: u32) -> Timestamp {
        Timestamp::from_utc_civil(year, month, day).unwrap()
    }

    #[test]
    fn months_end_with_their_last_day() {
        for (months, from, expected) in [
            (1, day(2026, 3, 31), day(2026, 2, 28)),
            (1, day(2024, 3, 31), day(2024, 2, 29)),
            (12, day(2024, 2, 29), day(2023, 2, 28)),
            (1, day(2026, 7, 31), day(2026, 6, 30)),
            (25, day(2026, 1, 15), day(2023, 12, 15)),
        ] {
            assert_eq!(Age::new(months, 0, 0).unwrap().before(from), expected);
        }
        let noon = Timestamp(day(2026, 3, 31).0 + 12 * MICROS_PER_HOUR);
        assert_eq!(
            Age::new(1, 1, MICROS_PER_HOUR).unwrap().before(noon),
            Timestamp(day(2026, 2, 27).0 + 11 * MICROS_PER_HOUR)
        );
    }

    #[test]
    fn the_first_time_that_is_so_long_after() {
        for (months, days, micros, at, expected) in [
            (1, 0, 0, day(2026, 1, 31), day(2026, 3, 1)),
            (1, 0, 0, day(2026, 2, 1), day(2026, 3, 1)),
            (12, 0, 0, day(2024, 2, 29), day(2025, 3, 1)),
            (0, 60, 0, day(2026, 1, 1), day(2026, 3, 2)),
            (0, 0, MICROS_PER_HOUR, day(2026, 1, 1), Timestamp(day(2026, 1, 1).0 + MICROS_PER_HOUR)),
        ] {
            let age = Age::new(months, days, micros).unwrap();
            let reached = age.reached(at).unwrap();
            assert_eq!(reached, expected, "{age}");
            assert!(age.before(reached) >= at && age.before(Timestamp(reached.0 - 1)) < at, "{age}");
        }
        assert_eq!(Age::days(999_999_999).unwrap().reached(day(2026, 1, 1)), None);
        assert_eq!(Age::new(0, 0, i64::MAX).unwrap().reached(day(2026, 1, 1)), None);
        assert_eq!(Age::days(1).unwrap().reached(Timestamp::INFINITY), None);
    }

    #[test]
    fn the_beginning_of_time() {
        let long = Age::new(i32::MAX, i32::MAX, i64::MAX).unwrap();
        assert_eq!(long.before(day(2026, 1, 1)), Timestamp::NEGATIVE_INFINITY);
        assert_eq!(long.before(Timestamp::INFINITY), Timestamp::INFINITY);
        assert_eq!(Age::days(3).unwrap().before(day(2026, 1, 3)), day(2025, 12, 31));
        for (months, days, micros) in [
            (0, i32::MAX, 0),
            (0, 999_999_999, 0),
            (0, 106_751_992, 0),
            (0, 213_503_983, 0),
            (i32::MAX, 0, 0),
            (1_200_000_000, 0, 0),
            (0, 0, i64::MAX),
            (0, 40_000_000, i64::MAX / 2),
        ] {
            let long = Age::new(months, days, micros).unwrap();
            assert_eq!(long.before(day(2026, 1, 1)), Timestamp::NEGATIVE_INFINITY, "{long}");
        }
    }

    #[test]
    fn nothing_and_less_is_no_age() {
        for (months, days, micros) in [(0, 0, 0), (-1, 40, 0), (0, -1, 0), (1, 0, -1)] {
            assert_eq!(Age::new(months, days, micros), None);
        }
        assert_eq!(Age::days(u32::MAX), None);
    }

    #[test]
    fn in_words() {
        for (months, days, micros, words) in [
            (0, 1, 0, "1 day"),
            (0, 90, 0, "90 days"),
            (18, 0, 0, "1 year 6 months"),
            (1, 0, 90 * MICROS_PER_MINUTE, "1 month 01:30:00"),
        ] {
            assert_eq!(Age::new(months, days, micros).unwrap().to_string(), words);
        }
    }
}
