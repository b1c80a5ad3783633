//! `iot.rejected_readings`: readings that could not be accepted, kept so that they can be mended and offered again.

use iot_core::time::Timestamp;
use pgrx::Uuid;

use crate::error::{IotError, IotResult};
use crate::pg::clock;
use crate::pg::jsonb::Jsonb;
use crate::pg::statement::Session;
use crate::statement;

/// A reading that could not be accepted: what could be read of it, and all of it as it came.
pub struct RejectedReading<'a> {
    /// Key of the row.
    pub rejection_id: Uuid,
    /// When it reached the server.
    pub received_at: Timestamp,
    /// The sensor it named, registered or not.
    pub sensor_id: Option<Uuid>,
    /// The time it named.
    pub measured_at: Option<Timestamp>,
    /// The value it named.
    pub value: Option<f64>,
    /// The reading as it came, without the two documents below.
    pub reading: Jsonb<'a>,
    /// Its metadata: kept apart so that they need not be taken to pieces.
    pub metadata: Option<Jsonb<'a>>,
    /// Its value, where that is a structure.
    pub json_value: Option<Jsonb<'a>>,
}

statement!(INSERT: (
        UUIDOID, TIMESTAMPTZOID, UUIDOID, TIMESTAMPTZOID, FLOAT8OID, JSONBOID, JSONBOID, JSONBOID, TEXTOID, TEXTOID,
        TEXTOID,
    )
    "INSERT INTO iot.rejected_readings (
         rejection_id, received_at, sensor_id, device_id, measurement_timestamp, measurement_value, reading,
         reason, sqlstate, message)
     VALUES ($1, $2, $3,
         (SELECT s.device_id FROM iot.sensors s WHERE s.sensor_id OPERATOR(pg_catalog.=) $3),
         $4, $5,
         $6 OPERATOR(pg_catalog.||)
             CASE WHEN $7 IS NULL THEN '{}' ELSE pg_catalog.jsonb_build_object('measurement_metadata', $7) END
         OPERATOR(pg_catalog.||)
             CASE WHEN $8 IS NULL THEN '{}' ELSE pg_catalog.jsonb_build_object('json_value', $8) END,
         $9, $10, $11)");

/// Keeps `rejected` with the `error` that a single call would have raised.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn insert(session: &mut Session<'_>, rejected: &RejectedReading<'_>, error: &IotError) -> IotResult<()> {
    session.execute(
        &INSERT,
        &[
            rejected.rejection_id.into(),
            clock::to_pg(rejected.received_at).into(),
            rejected.sensor_id.into(),
            rejected.measured_at.map(clock::to_pg).into(),
            rejected.value.into(),
            rejected.reading.into(),
            rejected.metadata.into(),
            rejected.json_value.into(),
            error.reason().into(),
            error.sqlstate().into(),
            error.message().into(),
        ],
    )?;
    Ok(())
}
