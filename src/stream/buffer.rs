//! The sink of the stream road: holds readings back and takes them through the pipeline in batches.

use iot_core::time::Timestamp;
use pgrx::PgSqlErrorCode;
use pgrx::datum::Uuid;
use serde_json::{Map, Value};

use super::rejection::Rejection;
use super::{ReadingSink, StreamedReading};
use crate::error::{IotError, IotResult};
use crate::ingest::{self, Offered, Outcome};
use crate::pg::clock;
use crate::pg::jsonb::JsonbImage;
use crate::pg::statement::with_session;

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
    received_at: Timestamp,
    sensor_id: Option<Uuid>,
    measured_at: Option<Timestamp>,
    value: Option<f64>,
    text_value: Option<Box<str>>,
    boolean_value: Option<bool>,
    json_value: Option<JsonbImage>,
    metadata: Option<JsonbImage>,
}

impl ReadingSink for Buffer {
    fn push(&mut self, reading: &StreamedReading<'_>) -> IotResult<()> {
        let held = Held {
            received_at: clock::now(),
            sensor_id: reading.sensor_id,
            measured_at: reading.measured_at,
            value: reading.value,
            text_value: reading.text_value.map(Box::from),
            boolean_value: reading.boolean_value,
            json_value: reading.json_value.map(|value| value.to_image()),
            metadata: reading.metadata.map(|metadata| metadata.to_image()),
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

impl Buffer {
    fn flush(&mut self) -> IotResult<()> {
        self.bytes = 0;
        let no_metadata = JsonbImage::empty_object();
        self.readings.drain(..).try_for_each(|held| held.store(&no_metadata))
    }
}

impl Held {
    /// Bytes beyond the reading's own size.
    fn payload(&self) -> usize {
        self.text_value.as_ref().map_or(0, |text| text.len())
            + [&self.json_value, &self.metadata].into_iter().flatten().map(JsonbImage::size).sum::<usize>()
    }

    fn store(&self, no_metadata: &JsonbImage) -> IotResult<()> {
        let refusal = match self.offer(no_metadata) {
            // One connection each: what its statements return is freed with it.
            Ok(offered) => match with_session(|session| ingest::process(session, &offered))? {
                Outcome::Stored(_) => return Ok(()),
                Outcome::Refused(refusal) => refusal,
            },
            Err(refusal) => refusal,
        };
        self.rejection().keep_or_fail(refusal)
    }

    fn offer<'a>(&'a self, no_metadata: &'a JsonbImage) -> IotResult<Offered<'a>> {
        if self.text_value.is_some() || self.boolean_value.is_some() || self.json_value.is_some() {
            return Err(IotError::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "readings that are not numbers are not accepted",
            )
            .hint("Use measurement_value alone.")
            .because("not_a_number"));
        }
        let null = |column| IotError::null_argument(column).because("null");
        Ok(Offered {
            sensor_id: self.sensor_id.ok_or_else(|| null("sensor_id"))?,
            raw_value: self.value.ok_or_else(|| null("measurement_value"))?,
            metadata: self.metadata.as_ref().unwrap_or(no_metadata).as_jsonb(),
            measured_at: self.measured_at,
            received_at: self.received_at,
        })
    }

    fn rejection(&self) -> Rejection<'_> {
        Rejection {
            received_at: self.received_at,
            sensor_id: self.sensor_id,
            measured_at: self.measured_at,
            value: self.value,
            fields: self.fields(),
            metadata: self.metadata.as_ref().map(JsonbImage::as_jsonb),
            json_value: self.json_value.as_ref().map(JsonbImage::as_jsonb),
        }
    }

    fn fields(&self) -> Map<String, Value> {
        [
            ("sensor_id", self.sensor_id.map(|sensor_id| sensor_id.to_string().into())),
            ("measurement_timestamp", self.measured_at.map(|at| at.to_utc_literal().into())),
            ("measurement_value", self.value.map(number)),
            ("text_value", self.text_value.as_deref().map(Value::from)),
            ("boolean_value", self.boolean_value.map(Value::from)),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name.to_owned(), value)))
        .collect()
    }
}

/// JSON has no NaN and no infinities: those become the words that PostgreSQL reads.
fn number(value: f64) -> Value {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    value.into()
}
