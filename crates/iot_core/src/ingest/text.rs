//! Readings that arrive as text: the spellings that need no database to be understood.
//!
//! Each function answers `Some` only where PostgreSQL's own input function would give the very same value, and `None`
//! where PostgreSQL has to be asked. So the usual spellings cost no call, and no unusual one is read differently.

use serde::de::IgnoredAny;

use crate::time::{MICROS_PER_HOUR, MICROS_PER_MINUTE, TimeOfDay, Timestamp};

/// Beyond this length (in bytes) a document is PostgreSQL's to judge.
const LONGEST_PLAIN_JSON: usize = 65_536;

/// A UUID in its standard form of 36 characters.
pub fn uuid(text: &str) -> Option<[u8; 16]> {
    let text = text.as_bytes();
    if text.len() != 36 || [8, 13, 18, 23].iter().any(|&at| text[at] != b'-') {
        return None;
    }
    let mut digits = text.iter().filter(|&&byte| byte != b'-').map(|&byte| char::from(byte).to_digit(16));
    let mut bytes = [0_u8; 16];
    for byte in &mut bytes {
        let (high, low) = (digits.next()??, digits.next()??);
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    digits.next().is_none().then_some(bytes)
}

/// An ISO 8601 time with its zone, such as `2026-01-05T12:00:00.5Z` or `2026-01-05 12:00+02:00`.
pub fn timestamp(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', ' '])?;
    let zone_at = rest.find(['Z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone_at);
    let (year, month_and_day) = date.split_at_checked(4)?;
    let (month, day) = month_and_day.strip_prefix('-')?.split_once('-')?;
    let (year, month, day) = (digits(year, 4)?, digits(month, 2)?, digits(day, 2)?);
    if year == 0 {
        return None;
    }
    let time = TimeOfDay::parse(time).filter(|time| time.0 < 24 * MICROS_PER_HOUR)?;
    let midnight = Timestamp::from_utc_civil(i32::try_from(year).ok()?, month, day)?;
    midnight.checked_add(time.0 - zone_offset(zone)?)
}

/// A truth value in one of its short or full spellings.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "t" | "true" => Some(true),
        "f" | "false" => Some(false),
        _ => None,
    }
}

/// Whether `text` is JSON that PostgreSQL takes as `jsonb`: no escaped code points, which it may not be able to store,
/// and no exponents, which may lead out of its range.
pub fn is_plain_json(text: &str) -> bool {
    text.len() <= LONGEST_PLAIN_JSON
        && !text.contains("\\u")
        && !text.as_bytes().windows(2).any(|pair| pair[0].is_ascii_digit() && matches!(pair[1], b'e' | b'E'))
        && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn digits(text: &str, length: usize) -> Option<u32> {
    (text.len() == length && all_digits(text)).then(|| text.parse().ok())?
}

/// Microseconds east of Greenwich: `Z`, `+02`, `+0200` or `+02:00`.
fn zone_offset(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, zone) = match zone.split_at_checked(1)? {
        ("+", zone) => (1, zone),
        ("-", zone) => (-1, zone),
        _ => return None,
    };
    let (hours, minutes) = zone.split_at_checked(2)?;
    let minutes = match minutes {
        "" => 0,
        minutes => digits(minutes.strip_prefix(':').unwrap_or(minutes), 2)?,
    };
    let hours = digits(hours, 2)?;
    if hours > 15 || minutes > 59 {
        return None;
    }
    Some(sign * (i64::from(hours) * MICROS_PER_HOUR + i64::from(minutes) * MICROS_PER_MINUTE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_in_standard_form_are_read_and_others_left() {
        let bytes = uuid("00112233-4455-6677-8899-aAbBcCdDeEfF").unwrap();
        assert_eq!(bytes[0], 0);
        assert_eq!(bytes[15], 0xff);
        for left in [
            "",
            "00112233445566778899aabbccddeeff",
            "{00112233-4455-6677-8899-aabbccddeeff}",
            "00112233-4455-6677-8899-aabbccddeefg",
            "0-112233-4455-6677-8899-aabbccddeeff",
            "00112233-4455-6677-8899-aabbccddeéf",
        ] {
            assert_eq!(uuid(left), None, "{left}");
        }
    }

    #[test]
    fn times_with_a_zone_are_read() {
        let noon = Timestamp::from_utc_civil(2026, 1, 5).unwrap().checked_add(12 * MICROS_PER_HOUR).unwrap();
        for text in [
            "2026-01-05T12:00:00Z",
            "2026-01-05 12:00Z",
            "2026-01-05 12:00:00.000000+00",
            "2026-01-05T14:00:00+02:00",
            "2026-01-05T06:30-0530",
        ] {
            assert_eq!(timestamp(text), Some(noon), "{text}");
        }
        assert_eq!(timestamp("2026-01-05T12:00:00.5Z").unwrap().0 - noon.0, 500_000);
        for left in [
            "",
            "now",
            "infinity",
            "2026-01-05",
            "2026-01-05 12:00",
            "2026-13-05 12:00Z",
            "2026-02-29 12:00Z",
            "0000-01-01 00:00Z",
            "2026-01-05 24:00Z",
            "2026-01-05 12:00+16",
            "2026-01-05 12:00+1:00",
            "2026-01-05 12:00 Z",
            "2026-01-05 12:00é+02",
            "20260105T120000Z",
        ] {
            assert_eq!(timestamp(left), None, "{left}");
        }
    }

    #[test]
    fn only_harmless_json_is_plain() {
        for plain in ["{}", "{\"a\": [1, 2.5, null, \"é\\n\"]}", "1", "\"tree 3 e\""] {
            assert!(is_plain_json(plain), "{plain}");
        }
        for other in ["", "{", "{'a': 1}", "\"\\u0000\"", "1e400000", "[1,]", "NaN", "{} {}"] {
            assert!(!is_plain_json(other), "{other}");
        }
        assert!(!is_plain_json(&"[".repeat(LONGEST_PLAIN_JSON + 1)));
    }

    #[test]
    fn truth_values_have_their_usual_spellings() {
        assert_eq!([boolean("t"), boolean("false"), boolean("yes")], [Some(true), Some(false), None]);
    }
}
