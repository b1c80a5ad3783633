//! What becomes of a reading of the stream road that cannot be accepted.

use iot_core::time::Timestamp;
use pgrx::datum::Uuid;
use serde_json::{Map, Value};

use crate::catalog::rejected_reading::{self, RejectedReading};
use crate::error::{IotError, IotResult};
use crate::pg::jsonb::{Jsonb, JsonbImage};
use crate::pg::statement::with_session;
use crate::{guc, ingest};

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
    /// The reading as it came, without the two documents.
    pub fields: Map<String, Value>,
    /// Its metadata.
    pub metadata: Option<Jsonb<'a>>,
    /// Its value, where that is a structure.
    pub json_value: Option<Jsonb<'a>>,
}

impl Rejection<'_> {
    /// Keeps the reading in `iot.rejected_readings`, or, with `iot_ext.strict`, ends the statement.
    ///
    /// # Errors
    /// `error` itself with `iot_ext.strict`; else only what PostgreSQL raises.
    pub fn keep_or_fail(self, error: IotError) -> IotResult<()> {
        if guc::strict() {
            return Err(error);
        }
        let rejection_id = ingest::next_data_id(self.received_at)?;
        let reading = Value::Object(self.fields);
        with_session(|session| {
            let reading = JsonbImage::from_value(&reading)?;
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
