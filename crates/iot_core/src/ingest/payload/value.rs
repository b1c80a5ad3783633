//! The value of a reading, and numbers in text.

use super::error::{excerpt, quoted};
use super::field::Field;
use super::{OfferedValue, PayloadError};
use crate::jsonb::{Numeric, Value};

impl<'a> OfferedValue<'a> {
    /// The value of `field`, which is one of the value fields; `value` is not null.
    #[inline]
    pub(super) fn new(field: Field, key: &[u8], value: Value<'a>) -> Result<Self, PayloadError> {
        match (field, value) {
            (Field::Value | Field::NumericValue, Value::Number(number)) => {
                finite(number).map(Self::Number).ok_or_else(|| out_of_range(key, value))
            }
            // The key says that this is a number, so that its text may be read as one. Under a key that leaves the
            // type open, only the sensor knows.
            (Field::NumericValue, Value::String(text)) => parse_number(text)
                .map(Self::Number)
                .ok_or_else(|| PayloadError::wrong_type(key, "a number", value)),
            (Field::NumericValue, _) => Err(PayloadError::wrong_type(key, "a number", value)),
            (Field::Value | Field::TextValue, Value::String(text)) => Ok(Self::Text(text)),
            (Field::TextValue, _) => Err(PayloadError::wrong_type(key, "a string", value)),
            (Field::Value | Field::BooleanValue, Value::Bool(truth)) => Ok(Self::Boolean(truth)),
            (Field::BooleanValue, _) => Err(PayloadError::wrong_type(key, "true or false", value)),
            _ => Ok(Self::Json(value)),
        }
    }
}

fn out_of_range(key: &[u8], value: Value<'_>) -> PayloadError {
    PayloadError::OutOfRange { key: quoted(key), found: excerpt(value) }
}

/// The nearest `f64`. `None` for what PostgreSQL refuses to convert: a number so large that it would become
/// infinite, or so small that it would become 0; and for NaN and the infinities, which `jsonb` cannot hold.
fn finite(number: Numeric<'_>) -> Option<f64> {
    let float = number.to_f64();
    (float.is_finite() && (float != 0.0 || number.is_zero())).then_some(float)
}

/// The number that `text` is in JSON's grammar, such as `-21.5e3`: no white space, plus sign, NaN or infinity.
///
/// `None` for other text, and for numbers beyond the range of `f64`.
pub fn parse_number(text: &str) -> Option<f64> {
    let rest = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (rest, None),
    };
    let (whole, decimals) = match mantissa.split_once('.') {
        Some((whole, decimals)) => (whole, Some(decimals)),
        None => (mantissa, None),
    };
    let is_whole = is_digits(whole) && (whole.len() == 1 || !whole.starts_with('0'));
    let is_exponent = |text: &str| is_digits(text.strip_prefix(['+', '-']).unwrap_or(text));
    if !is_whole || !decimals.is_none_or(is_digits) || !exponent.is_none_or(is_exponent) {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    let is_zero = || mantissa.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    (number.is_finite() && (number != 0.0 || is_zero())).then_some(number)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_text() {
        for (text, number) in [
            ("0", 0.0),
            ("-0.0", 0.0),
            ("21.5", 21.5),
            ("-3", -3.0),
            ("1e3", 1000.0),
            ("1.5E-3", 0.0015),
            ("2e+2", 200.0),
            ("0e999", 0.0),
        ] {
            assert_eq!(parse_number(text), Some(number), "{text}");
        }
        for text in [
            "", "-", "+1", " 1", "1 ", "1.", ".5", "007", "1e", "1e+", "1e1.5", "1_0", "0x10", "NaN", "inf",
            "1e999", "1e-999", "1,5", "--1", "1e5e5", "\u{661}",
        ] {
            assert_eq!(parse_number(text), None, "{text}");
        }
    }
}
