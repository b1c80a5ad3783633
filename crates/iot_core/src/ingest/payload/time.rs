//! When a reading says that it was measured.

use crate::jsonb::Numeric;
use crate::time::{MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND, Timestamp};

/// Unix time of 2000-01-01 00:00 UTC, in microseconds.
const EPOCH_IN_UNIX_MICROS: i128 = 946_684_800 * MICROS_PER_SECOND as i128;

/// From this magnitude on, a Unix time is in milliseconds; as seconds it would be in the year 5138.
const FIRST_MILLISECOND: i64 = 100_000_000_000;
/// From this magnitude on, a Unix time is in microseconds.
const FIRST_MICROSECOND: i64 = 1_000 * FIRST_MILLISECOND;
/// From this magnitude on, a Unix time is in nanoseconds.
const FIRST_NANOSECOND: i64 = 1_000 * FIRST_MICROSECOND;

/// The widest time zone that PostgreSQL reads, in hours; it takes any minutes beside them.
const WIDEST_ZONE_HOURS: i64 = 15;
/// Decimals of a second that `f64` arithmetic rounds as PostgreSQL does.
const MAXIMUM_DECIMALS: usize = 15;

/// The time of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfferedTime<'a> {
    /// A point in time.
    At(Timestamp),
    /// Text that PostgreSQL's own input function must read, or refuse: it has no time zone, or another format.
    Text(&'a str),
    /// There is none: the reading was measured when it arrived.
    Missing,
}

impl<'a> OfferedTime<'a> {
    /// Reads ISO 8601 with a time zone, such as `2025-06-13T10:00:00Z`; leaves every other text as it is.
    pub fn from_text(text: &'a str) -> Self {
        parse_iso(text.as_bytes()).map_or(Self::Text(text), Self::At)
    }

    /// Reads a Unix time, whose magnitude tells its unit: below 10¹¹ seconds (up to the year 5138), below 10¹⁴
    /// milliseconds, below 10¹⁷ microseconds, from there on nanoseconds. So in each of the smaller units, times
    /// within 1,157 days of 1970 are taken for the next larger one. What is finer than a microsecond is rounded.
    ///
    /// `None` outside the range of `timestamptz`, and for more than 38 digits.
    pub fn from_unix(number: Numeric<'_>) -> Option<Self> {
        let unix_micros = match number.to_i64() {
            Some(integer) => match integer.unsigned_abs() {
                magnitude if magnitude < FIRST_MILLISECOND.cast_unsigned() => i128::from(integer) * 1_000_000,
                magnitude if magnitude < FIRST_MICROSECOND.cast_unsigned() => i128::from(integer) * 1_000,
                magnitude if magnitude < FIRST_NANOSECOND.cast_unsigned() => i128::from(integer),
                _ => divide_rounding(i128::from(integer), 1_000),
            },
            None => fractional_unix_micros(number)?,
        };
        let micros = i64::try_from(unix_micros - EPOCH_IN_UNIX_MICROS).ok()?;
        // The two infinities are not numbers of a clock.
        let at = Timestamp(micros);
        if at.is_finite() { at.checked_add(0).map(Self::At) } else { None }
    }
}

/// A Unix time with decimals, in microseconds: exact up to the one rounding at the end.
fn fractional_unix_micros(number: Numeric<'_>) -> Option<i128> {
    let (mantissa, exponent) = number.to_decimal()?;
    let decimals = u32::try_from(exponent.checked_neg()?).ok()?;
    let divisor = 10_i128.checked_pow(decimals)?;
    let magnitude = i64::try_from((mantissa / divisor).unsigned_abs()).ok()?;
    let shift = match magnitude {
        _ if magnitude < FIRST_MILLISECOND => 6,
        _ if magnitude < FIRST_MICROSECOND => 3,
        _ if magnitude < FIRST_NANOSECOND => 0,
        _ => -3,
    };
    let left = shift - i32::try_from(decimals).ok()?;
    if left >= 0 {
        return mantissa.checked_mul(10_i128.checked_pow(left.unsigned_abs())?);
    }
    Some(divide_rounding(mantissa, 10_i128.checked_pow(left.unsigned_abs())?))
}

/// The integer nearest to the quotient, halves upwards.
fn divide_rounding(dividend: i128, divisor: i128) -> i128 {
    let quotient = dividend.div_euclid(divisor);
    quotient + i128::from(dividend.rem_euclid(divisor) >= divisor - divisor / 2)
}

/// `YYYY-MM-DD`, `T` or a space, `HH:MM`, maybe `:SS` and decimals, then `Z` or an offset.
///
/// `None` for everything else, even if it is only unusual: PostgreSQL decides about that.
fn parse_iso(text: &[u8]) -> Option<Timestamp> {
    let ([y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T' | b't' | b' ', h1, h2, b':', n1, n2], rest) =
        text.split_first_chunk::<16>()?
    else {
        return None;
    };
    let year = two_digits(*y1, *y2)? * 100 + two_digits(*y3, *y4)?;
    let (month, day) = (two_digits(*m1, *m2)?, two_digits(*d1, *d2)?);
    let (hour, minute) = (two_digits(*h1, *h2)?, two_digits(*n1, *n2)?);
    if year == 0 || hour > 23 || minute > 59 {
        return None;
    }
    let (second, zone) = seconds_in_micros(rest)?;
    let midnight = Timestamp::from_utc_civil(
        i32::try_from(year).ok()?,
        u32::try_from(month).ok()?,
        u32::try_from(day).ok()?,
    )?;
    let clock = hour * MICROS_PER_HOUR + minute * MICROS_PER_MINUTE + second;
    midnight.checked_add(clock - zone_in_micros(zone)?)
}

/// Seconds and their decimals as microseconds, and what follows them.
fn seconds_in_micros(text: &[u8]) -> Option<(i64, &[u8])> {
    let [b':', tens, units, rest @ ..] = text else { return Some((0, text)) };
    let second = two_digits(*tens, *units).filter(|second| *second <= 59)? * MICROS_PER_SECOND;
    let [b'.', rest @ ..] = rest else { return Some((second, rest)) };
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (decimals, rest) = rest.split_at_checked(count)?;
    if !(1..=MAXIMUM_DECIMALS).contains(&count) {
        return None;
    }
    let digits = decimals.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    let power = u32::try_from(count).ok()?;
    let micros = if power <= 6 {
        digits * 10_i64.pow(6 - power)
    } else {
        // In the steps of PostgreSQL, so that a half falls to the same side as there.
        let fraction = digits as f64 / 10_f64.powi(power.cast_signed());
        (fraction * MICROS_PER_SECOND as f64).round_ties_even() as i64
    };
    Some((second + micros, rest))
}

/// How far the zone is ahead of UTC: `Z`, `±HH`, `±HHMM` or `±HH:MM`.
fn zone_in_micros(text: &[u8]) -> Option<i64> {
    let (sign, hours, minutes) = match text {
        [b'Z' | b'z'] => return Some(0),
        [sign, h1, h2] => (sign, two_digits(*h1, *h2)?, 0),
        [sign, h1, h2, m1, m2] | [sign, h1, h2, b':', m1, m2] => {
            (sign, two_digits(*h1, *h2)?, two_digits(*m1, *m2)?)
        }
        _ => return None,
    };
    if hours > WIDEST_ZONE_HOURS || minutes > 59 {
        return None;
    }
    let ahead = hours * MICROS_PER_HOUR + minutes * MICROS_PER_MINUTE;
    match sign {
        b'+' => Some(ahead),
        b'-' => Some(-ahead),
        _ => None,
    }
}

fn two_digits(tens: u8, units: u8) -> Option<i64> {
    let (tens, units) = (tens.wrapping_sub(b'0'), units.wrapping_sub(b'0'));
    (tens <= 9 && units <= 9).then(|| i64::from(tens * 10 + units))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonb::{Document, Value};

    /// 2025-06-13 10:00:00 UTC.
    const TEN_O_CLOCK: i64 = 803_124_000_000_000;

    #[test]
    fn iso_with_a_zone() {
        for (text, micros) in [
            ("2025-06-13T10:00:00Z", TEN_O_CLOCK),
            ("2025-06-13t10:00:00z", TEN_O_CLOCK),
            ("2025-06-13 10:00Z", TEN_O_CLOCK),
            ("2025-06-13T12:00:00+02:00", TEN_O_CLOCK),
            ("2025-06-13T04:30:00-0530", TEN_O_CLOCK),
            ("2025-06-13 00:00:00-10", TEN_O_CLOCK),
            ("2025-06-13T10:00:00.1Z", TEN_O_CLOCK + 100_000),
            ("2025-06-13T10:00:00.123456Z", TEN_O_CLOCK + 123_456),
            ("2025-06-13T10:00:00.123456789Z", TEN_O_CLOCK + 123_457),
            ("2025-06-13T09:59:59.999999999Z", TEN_O_CLOCK),
            ("2000-01-01T00:00:00Z", 0),
            ("0001-01-01T00:00:00Z", -63_082_281_600_000_000),
            ("9999-12-31T23:59:59.999999Z", 252_455_615_999_999_999),
        ] {
            assert_eq!(OfferedTime::from_text(text), OfferedTime::At(Timestamp(micros)), "{text}");
        }
    }

    #[test]
    fn other_text_is_left_to_postgresql() {
        for text in [
            "",
            "now",
            "infinity",
            "2025-06-13",
            "2025-06-13T10:00:00",
            "2025-06-13T10:00:00 Z",
            " 2025-06-13T10:00:00Z",
            "2025-06-13T10:00:00Europe/Berlin",
            "2025-06-13T10:00:00.Z",
            "2025-06-13T10:00:00.1234567890123456Z",
            "2025-06-13T10:00:60Z",
            "2025-06-13T24:00:00Z",
            "2025-06-13T10:60:00Z",
            "2025-02-29T10:00:00Z",
            "2025-13-01T10:00:00Z",
            "0000-01-01T00:00:00Z",
            "2025-06-13T10:00:00+2",
            "2025-06-13T10:00:00+02:60",
            "2025-06-13T10:00:00+16",
            "2025-06-13T10:00:00*02",
            "2025-06-13T10:00:00+02:00:01",
            "2025-06-13T10:0é:00Z",
            "1749808800",
        ] {
            assert_eq!(OfferedTime::from_text(text), OfferedTime::Text(text));
        }
    }

    /// A short positive `numeric` in a lone scalar: `digits` of base 10,000, the first times 10,000^`weight`.
    fn unix(weight: u16, digits: &[u16]) -> Option<Timestamp> {
        let length = 6 + 2 * digits.len() as u32;
        let mut image = Vec::new();
        for word in [0x5000_0001, 0x9000_0000 | length, length << 2] {
            image.extend_from_slice(&u32::to_ne_bytes(word));
        }
        for half in std::iter::once(&(0x8000 | weight)).chain(digits) {
            image.extend_from_slice(&half.to_ne_bytes());
        }
        match Document::new(&image).root() {
            // Taken apart, since the image that it could borrow from ends here.
            Value::Number(number) => match OfferedTime::from_unix(number)? {
                OfferedTime::At(at) => Some(at),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn unix_times_by_magnitude() {
        let at = |micros| Some(Timestamp(micros));
        let epoch = -946_684_800_000_000;
        for (weight, digits, expected) in [
            (0, &[][..], at(epoch)),
            (2, &[17, 4980, 8800], at(TEN_O_CLOCK)),
            (2, &[17, 4980, 8800, 1234, 5600], at(TEN_O_CLOCK + 123_456)),
            (2, &[17, 4980, 8800, 1234, 5678, 9000], at(TEN_O_CLOCK + 123_457)),
            (3, &[1, 7498, 880, 0], at(TEN_O_CLOCK)),
            (3, &[1, 7498, 880, 0, 5000], at(TEN_O_CLOCK + 500)),
            (3, &[1749, 8088, 0, 0], at(TEN_O_CLOCK)),
            (4, &[174, 9808, 8000, 0, 1499], at(TEN_O_CLOCK + 1)),
            (4, &[174, 9808, 8000, 0, 1500], at(TEN_O_CLOCK + 2)),
            (4, &[174, 9808, 8000, 0, 1500, 5], at(TEN_O_CLOCK + 2)),
            (2, &[999, 9999, 9999], at(99_999_999_999_000_000 + epoch)),
            (2, &[1000], at(100_000_000_000_000 + epoch)),
            (3, &[100], at(100_000_000_000_000 + epoch)),
            (4, &[10], at(100_000_000_000_000 + epoch)),
            (4, &[1000], None),
            (9, &[1], None),
        ] {
            assert_eq!(unix(weight, digits), expected, "{weight} {digits:?}");
        }
    }
}
