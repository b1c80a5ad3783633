//! `ingest(jsonb)`: messages as applications have them.

use std::collections::HashMap;

use iot_core::ingest::payload::{self, Metadata, OfferedReading, OfferedTime, OfferedValue, PayloadError};
use iot_core::jsonb::{Document, Value};
use iot_core::time::Timestamp;
use pgrx::datum::Uuid;
use pgrx::iter::TableIterator;
use pgrx::{PgSqlErrorCode, name, pg_extern};

use super::{CHUNK, row_of, sensors};
use crate::engine::batch::{self, Totals};
use crate::engine::offered::{Measured, Offered};
use crate::engine::rejection::Rejection;
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::jsonb::{Jsonb, JsonbImage};
use crate::pg::{clock, input};

#[pg_extern(sql = false)]
fn ingest_jsonb(
    readings: Option<Jsonb<'_>>,
    register_unknown: Option<bool>,
) -> TableIterator<
    'static,
    (
        name!(accepted, i64),
        name!(rejected, i64),
        name!(duplicates, i64),
        name!(anomalies, i64),
        name!(alerts, i64),
    ),
> {
    let readings = readings.ok_or_else(|| IotError::null_argument("readings")).or_raise();
    TableIterator::once(row_of(ingest(readings, register_unknown.unwrap_or(false)).or_raise()))
}

fn ingest(readings: Jsonb<'_>, register_unknown: bool) -> IotResult<Totals> {
    crate::catalog::require_setup()?;
    let document = Document::new(readings.body());
    let mut elements = payload::readings(&document)?;
    let mut totals = Totals::default();
    loop {
        let chunk: Vec<Value<'_>> = elements.by_ref().take(CHUNK).collect();
        if chunk.is_empty() {
            return Ok(totals);
        }
        let chunk: Vec<_> = chunk.into_iter().map(|value| Element { value, arrived_at: None }).collect();
        totals.add(offer(&chunk, register_unknown, |number, offered, error| {
            let rejection = rejection(chunk[number].value, offered, clock::now())?;
            if offered.is_some() { rejection.keep_or_fail(error) } else { rejection.keep_unoffered(error) }
        })?);
    }
}

/// A message that can be offered once its sensor is known, with what it borrows.
struct Message<'a> {
    reading: OfferedReading<'a>,
    measured_at: Option<Timestamp>,
    arrived_at: Option<Timestamp>,
    metadata: Option<JsonbImage>,
    json_value: Option<JsonbImage>,
}

/// What should be a message.
#[derive(Clone, Copy)]
pub(super) struct Element<'a> {
    pub value: Value<'a>,
    /// When it first reached the server, if that was not just now.
    pub arrived_at: Option<Timestamp>,
}

/// Offers `elements` to the engine, at most [`CHUNK`] of them. Those that cannot be accepted go to `refuse` with their
/// number and what could be offered, in order.
pub(super) fn offer(
    elements: &[Element<'_>],
    register_unknown: bool,
    mut refuse: impl FnMut(usize, Option<&Offered<'_>>, IotError) -> IotResult<()>,
) -> IotResult<Totals> {
    let mut refused: Vec<(usize, IotError)> = Vec::new();
    let mut messages: Vec<(usize, Message<'_>)> = Vec::with_capacity(elements.len());
    for (number, element) in elements.iter().enumerate() {
        match read(element.value, element.arrived_at) {
            Ok(message) => messages.push((number, message)),
            Err(error) => refused.push((number, error)),
        }
    }
    let readings: Vec<&OfferedReading<'_>> = messages.iter().map(|(_, message)| &message.reading).collect();
    let sensors = sensors::find(&readings, register_unknown)?;
    let mut offered = Vec::with_capacity(messages.len());
    let mut numbers = Vec::with_capacity(messages.len());
    for ((number, message), sensor) in messages.iter().zip(sensors) {
        match sensor {
            Ok(sensor_id) => {
                offered.push(message.offer(sensor_id));
                numbers.push(*number);
            }
            Err(error) => refused.push((*number, error)),
        }
    }
    let outcome = batch::run(&offered)?;
    let mut totals = outcome.totals();
    totals.rejected += refused.len() as i64;
    refused.extend(outcome.rejections.into_iter().map(|(place, error)| (numbers[place as usize], error)));
    refused.sort_by_key(|&(number, _)| number);
    let offers: HashMap<usize, &Offered<'_>> = numbers.iter().copied().zip(&offered).collect();
    for (number, error) in refused {
        refuse(number, offers.get(&number).copied(), error)?;
    }
    Ok(totals)
}

fn read(element: Value<'_>, arrived_at: Option<Timestamp>) -> IotResult<Message<'_>> {
    let reading = OfferedReading::from_value(element)?;
    let measured_at = match reading.measured_at {
        OfferedTime::At(at) => Some(at),
        OfferedTime::Text(text) => {
            Some(clock::from_pg(input::timestamp(text).map_err(|error| error.because("bad_time"))?))
        }
        OfferedTime::Missing => None,
    };
    if reading.value == OfferedValue::Missing {
        return Err(PayloadError::MissingValue.into());
    }
    let metadata = match reading.merged_metadata() {
        Metadata::Empty => None,
        Metadata::Image(body) => Some(JsonbImage::from_body(body)),
        Metadata::Text(text) => Some(JsonbImage::from_json_text(&text)?),
    };
    let json_value = match reading.value {
        OfferedValue::Json(Value::Array(array)) => Some(JsonbImage::from_body(array.image())),
        OfferedValue::Json(Value::Object(object)) => Some(JsonbImage::from_body(object.image())),
        OfferedValue::Json(scalar) => Some(JsonbImage::from_json_text(&scalar.to_text())?),
        _ => None,
    };
    Ok(Message { reading, measured_at, arrived_at, metadata, json_value })
}

impl<'a> Message<'a> {
    fn offer(&self, sensor_id: [u8; 16]) -> Offered<'_> {
        Offered {
            sensor_id,
            measured_at: self.measured_at,
            arrived_at: self.arrived_at,
            value: match self.reading.value {
                OfferedValue::Number(value) => Measured::Number(value),
                OfferedValue::Text(text) => Measured::Text(text),
                OfferedValue::Boolean(value) => Measured::Boolean(value),
                OfferedValue::Json(_) | OfferedValue::Missing => Measured::Json(or_empty(&self.json_value)),
            },
            unit: self.reading.unit,
            metadata: or_empty(&self.metadata),
        }
    }
}

fn or_empty(image: &Option<JsonbImage>) -> Jsonb<'_> {
    image.as_ref().map_or(Jsonb::empty_object(), JsonbImage::as_jsonb)
}

/// The message as it came, whatever it holds and however deeply that is nested.
fn rejection(
    element: Value<'_>,
    offered: Option<&Offered<'_>>,
    received_at: Timestamp,
) -> IotResult<Rejection<'static>> {
    let message = match element {
        Value::Object(object) => {
            let message = JsonbImage::from_body(object.image());
            match (object.get("measurement_metadata"), object.get("metadata")) {
                // A text under the other name is what rows of `iot.raw_readings` have.
                (Some(Value::String(text)), None) => {
                    let renamed = JsonbImage::from_value(&serde_json::json!({ "metadata": text }))?;
                    message.as_jsonb().without("measurement_metadata").as_jsonb().with(renamed.as_jsonb())
                }
                _ => message,
            }
        }
        Value::Array(array) => JsonbImage::from_body(array.image()),
        scalar => JsonbImage::from_json_text(&scalar.to_text())?,
    };
    Ok(Rejection {
        received_at,
        sensor_id: offered.map(|offered| Uuid::from_bytes(offered.sensor_id)),
        measured_at: offered.and_then(|offered| offered.measured_at),
        value: offered.and_then(|offered| offered.value.number()),
        message: Some(message),
        fields: serde_json::Map::new(),
        metadata: None,
        json_value: None,
    })
}

impl From<PayloadError> for IotError {
    fn from(error: PayloadError) -> Self {
        let code = match error {
            PayloadError::BadTime { .. } => PgSqlErrorCode::ERRCODE_INVALID_DATETIME_FORMAT,
            PayloadError::OutOfRange { .. } => PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            PayloadError::MissingSensor | PayloadError::MissingDevice | PayloadError::MissingValue => {
                PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED
            }
            PayloadError::BadIdentifier { .. } | PayloadError::Malformed { .. } => {
                PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION
            }
            PayloadError::WrongType { .. } | PayloadError::NotAnObject { .. } => {
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH
            }
            PayloadError::AmbiguousValue { .. } | PayloadError::Contradiction { .. } => {
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE
            }
        };
        Self::new(code, error.to_string()).hint(error.hint()).because(error.reason())
    }
}
