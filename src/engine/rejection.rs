//! What becomes of a reading that cannot be accepted.

use iot_core::time::Timestamp;
use pgrx::datum::Uuid;
use serde_json::{Map, Value};

use super::batch::next_data_id;
use super::offered::{Measured, Offered};
use crate::catalog::rejected_reading::{self, RejectedReading};
use crate::error::{IotError, IotResult};
use crate::guc;
use crate::pg::clock;
use crate::pg::jsonb::{Jsonb, JsonbImage};
use crate::pg::shared::counters;
use crate::pg::statement::with_session;

/// A reading that cannot be accepted.
pub struct Rejection<'a> {
    /// When it reached the server.
    pub received_at: Timestamp,
    /// The sensor it names, where that could be read.
    pub sensor_id: Option<Uuid>,
    /// The time it names, where that could be read.
    pub measured_at: Option<Timestamp>,
    /// The value it names, where that could be read.
    pub value: Option<f64>,
    /// The reading as it came, where it came as a document.
    pub message: Option<JsonbImage>,
    /// The reading as it came otherwise, without the two documents.
    pub fields: Map<String, Value>,
    /// Its metadata.
    pub metadata: Option<Jsonb<'a>>,
    /// Its value, where that is a structure.
    pub json_value: Option<Jsonb<'a>>,
}

impl<'a> Rejection<'a> {
    /// The reading that a road handed over at `received_at`.
    pub fn of(offered: &Offered<'a>, received_at: Timestamp) -> Self {
        let sensor_id = Uuid::from_bytes(offered.sensor_id);
        let mut rejection = Self {
            received_at,
            sensor_id: Some(sensor_id),
            measured_at: offered.measured_at,
            value: offered.value.number(),
            metadata: (!offered.metadata.is_empty_object()).then_some(offered.metadata),
            message: None,
            fields: Map::new(),
            json_value: None,
        };
        let mut field = |name: &str, value: Value| rejection.fields.insert(name.to_owned(), value);
        field("sensor_id", sensor_id.to_string().into());
        if let Some(at) = offered.measured_at {
            field("measurement_timestamp", at.to_utc_literal().into());
        }
        match offered.value {
            Measured::Number(value) => drop(field("measurement_value", number(value))),
            Measured::Text(text) => drop(field("text_value", text.into())),
            Measured::Boolean(value) => drop(field("boolean_value", value.into())),
            Measured::Json(value) => rejection.json_value = Some(value),
        }
        rejection
    }

    /// Keeps a reading that lacks its sensor or its value: what `offered` has in their places does not count.
    ///
    /// # Errors
    /// As [`keep_or_fail`](Self::keep_or_fail).
    pub fn incomplete(
        offered: &Offered<'a>,
        sensor_id: Option<[u8; 16]>,
        value: Option<f64>,
    ) -> IotResult<()> {
        let mut rejection = Self::of(offered, clock::now());
        if value.is_none() {
            rejection.value = None;
            rejection.fields.remove("measurement_value");
        }
        if sensor_id.is_none() {
            rejection.sensor_id = None;
            rejection.fields.remove("sensor_id");
            return rejection.keep_unoffered(IotError::null_argument("sensor_ids").because("missing_sensor"));
        }
        rejection.keep_unoffered(IotError::null_argument("measurement_values").because("missing_value"))
    }

    /// As [`keep_or_fail`](Self::keep_or_fail), for a reading that no batch had: it is counted here.
    ///
    /// # Errors
    /// As there.
    pub fn keep_unoffered(self, error: IotError) -> IotResult<()> {
        counters::add_refused();
        self.keep_or_fail(error)
    }

    /// Keeps the reading in `iot.rejected_readings`, or, with `iot_ext.strict`, ends the statement.
    ///
    /// # Errors
    /// `error` itself with `iot_ext.strict`; else only what PostgreSQL raises.
    pub fn keep_or_fail(self, error: IotError) -> IotResult<()> {
        // A defect of ours is no fault of the reading's.
        if guc::strict() || error.is_defect() {
            return Err(error);
        }
        let rejection_id = Uuid::from_bytes(next_data_id(self.received_at)?);
        let reading = match self.message {
            Some(message) => message,
            None => JsonbImage::from_value(&Value::Object(self.fields))?,
        };
        with_session(|session| {
            let rejected = RejectedReading {
                rejection_id,
                received_at: self.received_at,
                sensor_id: self.sensor_id,
                measured_at: self.measured_at,
                value: self.value,
                reading: reading.as_jsonb(),
                metadata: self.metadata,
                json_value: self.json_value,
            };
            rejected_reading::insert(session, &rejected, &error)
        })
    }
}

/// JSON has no NaN and no infinities: those become the words that PostgreSQL reads.
pub fn number(value: f64) -> Value {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    value.into()
}
