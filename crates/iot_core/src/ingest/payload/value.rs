//! The value of a reading.

use super::error::{excerpt, quoted};
use super::field::Field;
use super::{OfferedValue, PayloadError};
use crate::ingest::number::{NumberError, parse_number};
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
            (Field::NumericValue, Value::String(text)) => {
                parse_number(text).map(Self::Number).map_err(|error| match error {
                    NumberError::Malformed { .. } => {
                        PayloadError::Malformed { key: quoted(key), found: excerpt(value) }
                    }
                    NumberError::OutOfRange { .. } => out_of_range(key, value),
                })
            }
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
