//! Points in time as PostgreSQL's `timestamptz` stores them, and the civil calendar.

use std::fmt;

/// Microseconds in a second.
pub const MICROS_PER_SECOND: i64 = 1_000_000;
/// Microseconds in a minute.
pub const MICROS_PER_MINUTE: i64 = 60 * MICROS_PER_SECOND;
/// Microseconds in an hour.
pub const MICROS_PER_HOUR: i64 = 60 * MICROS_PER_MINUTE;
/// Microseconds in a day of 24 hours.
pub const MICROS_PER_DAY: i64 = 24 * MICROS_PER_HOUR;

/// A point in time: microseconds since 2000-01-01 00:00 UTC, the representation of `timestamptz`.
///
/// `i64::MIN` and `i64::MAX` are PostgreSQL's `-infinity` and `infinity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// `-infinity`.
    pub const NEGATIVE_INFINITY: Self = Self(i64::MIN);
    /// `infinity`.
    pub const INFINITY: Self = Self(i64::MAX);
    /// The earliest finite `timestamptz`: 4714-11-24 00:00 UTC BC.
    pub const EARLIEST: Self = Self(-211_813_488_000_000_000);
    /// The first time after the range of `timestamptz`: 294277-01-01 00:00 UTC.
    pub const RANGE_END: Self = Self(9_223_371_331_200_000_000);

    /// Whether this is neither `infinity` nor `-infinity`.
    pub fn is_finite(self) -> bool {
        self != Self::NEGATIVE_INFINITY && self != Self::INFINITY
    }

    /// The time `micros` later. Infinity stays infinity; `None` outside the range of `timestamptz`.
    pub fn checked_add(self, micros: i64) -> Option<Self> {
        if !self.is_finite() {
            return Some(self);
        }
        self.0.checked_add(micros).map(Self).filter(|sum| (Self::EARLIEST..Self::RANGE_END).contains(sum))
    }

    /// Midnight UTC of a day of the proleptic Gregorian calendar; year 0 is 1 BC.
    ///
    /// `None` when there is no such day, or it is outside the range of `timestamptz`.
    pub fn from_utc_civil(year: i32, month: u32, day: u32) -> Option<Self> {
        if !(1..=12).contains(&month) || !(1..=days_in_month(year, month)).contains(&day) {
            return None;
        }
        let micros = days_from_civil(CivilDate { year, month, day }).checked_mul(MICROS_PER_DAY)?;
        Self(micros).checked_add(0)
    }

    /// The day on which this time falls in UTC.
    pub fn utc_civil(self) -> CivilDate {
        civil_from_days(self.0.div_euclid(MICROS_PER_DAY))
    }

    /// The time shown by a clock in UTC.
    pub fn utc_time_of_day(self) -> TimeOfDay {
        TimeOfDay(self.0.rem_euclid(MICROS_PER_DAY))
    }

    /// The `timestamptz` literal in UTC, such as `2026-11-01 00:00:00+00`; six decimals if any.
    pub fn to_utc_literal(self) -> String {
        match self {
            Self::NEGATIVE_INFINITY => return "-infinity".to_owned(),
            Self::INFINITY => return "infinity".to_owned(),
            _ => {}
        }
        let CivilDate { year, month, day } = self.utc_civil();
        let time = self.utc_time_of_day();
        // PostgreSQL has no year 0: 1 BC comes before AD 1.
        let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
        format!("{year:04}-{month:02}-{day:02} {time}+00{era}")
    }
}

/// A day of the proleptic Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CivilDate {
    /// Astronomical year: 0 is 1 BC.
    pub year: i32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
}

/// The time shown by a clock: microseconds since midnight, 0 to 24 hours inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeOfDay(pub i64);

impl TimeOfDay {
    /// Reads `HH:MM`, `HH:MM:SS` or `HH:MM:SS.ffffff` (one to six decimals), up to `24:00`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(':');
        let hour = two_digits(fields.next()?)?;
        let minute = two_digits(fields.next()?)?;
        let second = fields.next().map_or(Some(0), seconds_in_micros)?;
        if fields.next().is_some() || minute > 59 {
            return None;
        }
        let micros = hour * MICROS_PER_HOUR + minute * MICROS_PER_MINUTE + second;
        (micros <= MICROS_PER_DAY).then_some(Self(micros))
    }

    /// Whether this time lies between `start` and `end`, both inclusive. Start after end means overnight.
    pub fn is_within(self, start: Self, end: Self) -> bool {
        if start <= end { start <= self && self <= end } else { start <= self || self <= end }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hour = self.0 / MICROS_PER_HOUR;
        let minute = self.0 / MICROS_PER_MINUTE % 60;
        let second = self.0 / MICROS_PER_SECOND % 60;
        write!(formatter, "{hour:02}:{minute:02}:{second:02}")?;
        match self.0 % MICROS_PER_SECOND {
            0 => Ok(()),
            fraction => write!(formatter, ".{fraction:06}"),
        }
    }
}

fn seconds_in_micros(text: &str) -> Option<i64> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, decimals_in_micros(fraction)?),
        None => (text, 0),
    };
    let second = two_digits(whole).filter(|second| *second <= 59)?;
    Some(second * MICROS_PER_SECOND + fraction)
}

fn decimals_in_micros(digits: &str) -> Option<i64> {
    if !(1..=6).contains(&digits.len()) {
        return None;
    }
    format!("{digits:0<6}").bytes().try_fold(0, |micros, digit| Some(micros * 10 + decimal(digit)?))
}

fn two_digits(text: &str) -> Option<i64> {
    match text.as_bytes() {
        [tens, units] => Some(decimal(*tens)? * 10 + decimal(*units)?),
        _ => None,
    }
}

fn decimal(digit: u8) -> Option<i64> {
    digit.is_ascii_digit().then(|| i64::from(digit - b'0'))
}

fn days_in_month(year: i32, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days between 0000-03-01, where the algorithm below counts from, and 2000-01-01.
const DAYS_FROM_MARCH_OF_YEAR_0: i64 = 730_425;
/// Days in 400 years, after which the Gregorian calendar repeats itself.
const DAYS_PER_ERA: i64 = 146_097;

/// Days since 2000-01-01. Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": years run from March
/// to February, so that the leap day is the last of its year.
fn days_from_civil(date: CivilDate) -> i64 {
    let month = i64::from(date.month);
    let year = i64::from(date.year) - i64::from(month <= 2);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(date.day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    year.div_euclid(400) * DAYS_PER_ERA + day_of_era - DAYS_FROM_MARCH_OF_YEAR_0
}

/// Inverse of [`days_from_civil`]. The casts are exact for every day that an `i64` of microseconds can reach.
fn civil_from_days(days: i64) -> CivilDate {
    let days = days + DAYS_FROM_MARCH_OF_YEAR_0;
    let day_of_era = days.rem_euclid(DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = (month_from_march + 2) % 12 + 1;
    let year = days.div_euclid(DAYS_PER_ERA) * 400 + year_of_era + i64::from(month <= 2);
    CivilDate {
        year: year as i32,
        month: month as u32,
        day: (day_of_year - (153 * month_from_march + 2) / 5 + 1) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoch_and_known_days() {
        assert_eq!(Timestamp::from_utc_civil(2000, 1, 1), Some(Timestamp(0)));
        assert_eq!(Timestamp::from_utc_civil(1970, 1, 1), Some(Timestamp(-10_957 * MICROS_PER_DAY)));
        assert_eq!(Timestamp::from_utc_civil(2026, 11, 1), Some(Timestamp(9_801 * MICROS_PER_DAY)));
        assert_eq!(Timestamp(-1).utc_civil(), CivilDate { year: 1999, month: 12, day: 31 });
    }

    #[test]
    fn ends_of_the_range_are_those_of_postgresql() {
        assert_eq!(Timestamp::from_utc_civil(-4713, 11, 24), Some(Timestamp::EARLIEST));
        assert_eq!(Timestamp::from_utc_civil(-4713, 11, 23), None);
        assert_eq!(
            Timestamp::from_utc_civil(294_276, 12, 31),
            Timestamp::RANGE_END.0.checked_sub(MICROS_PER_DAY).map(Timestamp)
        );
        assert_eq!(Timestamp::from_utc_civil(294_277, 1, 1), None);
        assert_eq!(Timestamp::from_utc_civil(i32::MAX, 1, 1), None);
        assert_eq!(Timestamp::from_utc_civil(i32::MIN, 1, 1), None);
    }

    #[test]
    fn days_that_do_not_exist() {
        for (year, month, day) in [(2026, 0, 1), (2026, 13, 1), (2026, 1, 0), (2026, 4, 31), (1900, 2, 29)] {
            assert_eq!(Timestamp::from_utc_civil(year, month, day), None, "{year}-{month}-{day}");
        }
        for year in [2000, 2024, 0, -4] {
            assert!(Timestamp::from_utc_civil(year, 2, 29).is_some(), "{year}");
        }
    }

    /// Two Gregorian cycles around the epoch and the turn of the era, day by day.
    #[test]
    fn calendar_counts_days_without_a_gap() {
        for (first_year, last_year) in [(-403, 2), (1600, 2401)] {
            let mut days = days_from_civil(CivilDate { year: first_year, month: 1, day: 1 });
            for year in first_year..=last_year {
                for month in 1..=12 {
                    for day in 1..=days_in_month(year, month) {
                        let date = CivilDate { year, month, day };
                        assert_eq!((days_from_civil(date), civil_from_days(days)), (days, date));
                        days += 1;
                    }
                }
            }
        }
    }

    #[test]
    fn addition_stays_in_range() {
        assert_eq!(Timestamp(5).checked_add(-7), Some(Timestamp(-2)));
        assert_eq!(Timestamp::INFINITY.checked_add(-1), Some(Timestamp::INFINITY));
        assert_eq!(Timestamp::NEGATIVE_INFINITY.checked_add(1), Some(Timestamp::NEGATIVE_INFINITY));
        assert_eq!(Timestamp::EARLIEST.checked_add(-1), None);
        assert_eq!(Timestamp(0).checked_add(Timestamp::RANGE_END.0), None);
        assert_eq!(Timestamp(1).checked_add(i64::MAX), None);
        assert!(Timestamp(0).checked_add(Timestamp::RANGE_END.0 - 1).is_some());
    }

    #[test]
    fn literals() {
        let november = Timestamp::from_utc_civil(2026, 11, 1).unwrap();
        for (timestamp, literal) in [
            (november, "2026-11-01 00:00:00+00"),
            (Timestamp(november.0 + 45_296 * MICROS_PER_SECOND), "2026-11-01 12:34:56+00"),
            (Timestamp(november.0 - 1), "2026-10-31 23:59:59.999999+00"),
            (Timestamp(123_456), "2000-01-01 00:00:00.123456+00"),
            (Timestamp::from_utc_civil(12_345, 1, 2).unwrap(), "12345-01-02 00:00:00+00"),
            (Timestamp::from_utc_civil(0, 3, 15).unwrap(), "0001-03-15 00:00:00+00 BC"),
            (Timestamp::EARLIEST, "4714-11-24 00:00:00+00 BC"),
            (Timestamp::INFINITY, "infinity"),
            (Timestamp::NEGATIVE_INFINITY, "-infinity"),
        ] {
            assert_eq!(timestamp.to_utc_literal(), literal);
        }
    }

    #[test]
    fn times_of_day() {
        for (text, micros) in [
            ("00:00", 0),
            ("07:05", 7 * MICROS_PER_HOUR + 5 * MICROS_PER_MINUTE),
            ("23:59:59", MICROS_PER_DAY - MICROS_PER_SECOND),
            ("23:59:59.999999", MICROS_PER_DAY - 1),
            ("00:00:00.5", 500_000),
            ("00:00:01.000020", 1_000_020),
            ("24:00", MICROS_PER_DAY),
            ("24:00:00.000", MICROS_PER_DAY),
        ] {
            assert_eq!(TimeOfDay::parse(text), Some(TimeOfDay(micros)), "{text}");
        }
        let refused = [
            "",
            "7",
            "7:00",
            "07",
            "07:0",
            "07:60",
            "24:01",
            "24:00:00.000001",
            "25:00",
            "-1:00",
            "+1:00",
            "07:00:60",
            "07:00:00.",
            "07:00:00.1234567",
            "07:00:00:00",
            "07:00:00.12a",
            " 07:00",
            "07:00 ",
            "07.00",
            "٠٧:00",
            "aa:bb",
            "07:00:00.é",
        ];
        for text in refused {
            assert_eq!(TimeOfDay::parse(text), None, "{text}");
        }
    }

    #[test]
    fn windows_include_both_ends_and_may_pass_midnight() {
        let [night, morning, noon, evening] =
            ["00:00", "06:00", "12:00", "22:00"].map(|t| TimeOfDay::parse(t).unwrap());
        assert!(morning.is_within(morning, evening) && evening.is_within(morning, evening));
        assert!(noon.is_within(morning, evening) && !night.is_within(morning, evening));
        assert!(evening.is_within(evening, morning) && morning.is_within(evening, morning));
        assert!(night.is_within(evening, morning) && !noon.is_within(evening, morning));
        assert!(noon.is_within(noon, noon) && !night.is_within(noon, noon));
        assert!(TimeOfDay(MICROS_PER_DAY - 1).is_within(morning, TimeOfDay(MICROS_PER_DAY)));
    }
}
