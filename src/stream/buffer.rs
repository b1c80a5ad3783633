//! The sink of the stream road: holds readings back and takes them through the engine in batches.

use iot_core::time::Timestamp;
use pgrx::datum::Uuid;

use super::{ReadingSink, StreamedReading};
use crate::engine::batch;
use crate::engine::offered::{Measured, Offered};
use crate::engine::rejection::Rejection;
use crate::error::{IotError, IotResult};
use crate::pg::clock;
use crate::pg::jsonb::{Jsonb, JsonbImage};

/// Readings held back at most.
const MOST_READINGS: usize = 10_000;

/// Bytes of text and documents held back at most: 10,000 readings may each carry a large document.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// Readings held back until there are enough of them, or no more.
#[derive(Default)]
pub struct Buffer {
    readings: Vec<Held>,
    bytes: usize,
}

/// A reading with copies of what the client gave.
struct Held {
    sensor_id: [u8; 16],
    measured_at: Option<Timestamp>,
    value: HeldValue,
    metadata: Option<JsonbImage>,
}

enum HeldValue {
    Number(f64),
    Text(Box<str>),
    Boolean(bool),
    Json(JsonbImage),
}

impl ReadingSink for Buffer {
    fn push(&mut self, reading: &StreamedReading<'_>) -> IotResult<()> {
        let (sensor_id, value) = match (reading.sensor_id, value_of(reading)) {
            (Some(sensor_id), Ok(value)) => (*sensor_id.as_bytes(), value),
            (None, _) => {
                return refuse(reading, IotError::null_argument("sensor_id").because("missing_sensor"));
            }
            (_, Err(error)) => return refuse(reading, error),
        };
        let metadata = reading.metadata.filter(|metadata| !metadata.is_empty_object());
        let held = Held {
            sensor_id,
            measured_at: reading.measured_at,
            value,
            metadata: metadata.map(|metadata| metadata.to_image()),
        };
        self.bytes += held.payload();
        self.readings.push(held);
        if self.readings.len() >= MOST_READINGS || self.bytes >= MOST_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> IotResult<()> {
        self.flush()
    }
}

/// The one value of a reading.
fn value_of(reading: &StreamedReading<'_>) -> IotResult<HeldValue> {
    let mut values = [
        reading.value.map(HeldValue::Number),
        reading.text_value.map(|text| HeldValue::Text(text.into())),
        reading.boolean_value.map(HeldValue::Boolean),
        reading.json_value.map(|value| HeldValue::Json(value.to_image())),
    ]
    .into_iter()
    .flatten();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err(IotError::null_argument("measurement_value").because("missing_value")),
        (Some(_), Some(_)) => Err(IotError::invalid_argument("a reading with more than one value")
            .hint("Give one of measurement_value, text_value, boolean_value and json_value.")
            .because("ambiguous_value")),
    }
}

fn refuse(reading: &StreamedReading<'_>, error: IotError) -> IotResult<()> {
    let received_at = clock::now();
    // An offered reading has a sensor; this one may not.
    let nobody = Uuid::from_bytes([0; 16]);
    let no_metadata = Jsonb::empty_object();
    let offered = Offered {
        sensor_id: *reading.sensor_id.unwrap_or(nobody).as_bytes(),
        measured_at: reading.measured_at,
        value: Measured::Number(reading.value.unwrap_or(f64::NAN)),
        arrived_at: None,
        unit: None,
        metadata: reading.metadata.unwrap_or(no_metadata),
    };
    let mut rejection = Rejection::of(&offered, received_at);
    rejection.sensor_id = reading.sensor_id;
    rejection.value = reading.value;
    if reading.sensor_id.is_none() {
        rejection.fields.remove("sensor_id");
    }
    if reading.value.is_none() {
        rejection.fields.remove("measurement_value");
    }
    if let Some(text) = reading.text_value {
        rejection.fields.insert("text_value".to_owned(), text.into());
    }
    if let Some(value) = reading.boolean_value {
        rejection.fields.insert("boolean_value".to_owned(), value.into());
    }
    rejection.json_value = reading.json_value;
    rejection.keep_unoffered(error)
}

impl Buffer {
    fn flush(&mut self) -> IotResult<()> {
        self.bytes = 0;
        let offered: Vec<Offered<'_>> = self.readings.iter().map(|held| held.offer()).collect();
        batch::run_and_keep_rejections(&offered)?;
        drop(offered);
        self.readings.clear();
        Ok(())
    }
}

impl Held {
    /// Bytes beyond the reading's own size.
    fn payload(&self) -> usize {
        let value = match &self.value {
            HeldValue::Text(text) => text.len(),
            HeldValue::Json(value) => value.size(),
            HeldValue::Number(_) | HeldValue::Boolean(_) => 0,
        };
        value + self.metadata.as_ref().map_or(0, JsonbImage::size)
    }

    fn offer(&self) -> Offered<'_> {
        Offered {
            sensor_id: self.sensor_id,
            measured_at: self.measured_at,
            value: match &self.value {
                HeldValue::Number(value) => Measured::Number(*value),
                HeldValue::Text(text) => Measured::Text(text),
                HeldValue::Boolean(value) => Measured::Boolean(*value),
                HeldValue::Json(value) => Measured::Json(value.as_jsonb()),
            },
            arrived_at: None,
            unit: None,
            metadata: self.metadata.as_ref().map_or(Jsonb::empty_object(), JsonbImage::as_jsonb),
        }
    }
}
