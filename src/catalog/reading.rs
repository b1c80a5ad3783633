//! `iot.sensor_data`: the statistics window of a sensor, and storing a reading.

use iot_core::detect::WindowStatistics;
use iot_core::ingest::QualityFlags;
use iot_core::time::Timestamp;
use pgrx::Uuid;

use super::sensor::Sensor;
use crate::error::IotResult;
use crate::pg::clock;
use crate::pg::jsonb::Jsonb;
use crate::pg::statement::Session;
use crate::statement;

/// A finished reading, ready to be stored.
pub struct Reading<'a> {
    /// Key of the row.
    pub data_id: Uuid,
    /// When it was measured.
    pub measured_at: Timestamp,
    /// When it reached the server.
    pub received_at: Timestamp,
    /// Calibrated value.
    pub value: f64,
    /// Value as the device sent it.
    pub raw_value: f64,
    /// Reasons why it is not plainly valid.
    pub quality: QualityFlags,
    /// Deviation from the window, 0 to 5.
    pub anomaly_score: f64,
    /// Whether the score is above the limit.
    pub is_anomaly: bool,
    /// What the device said beside the value.
    pub metadata: Jsonb<'a>,
}

statement!(
    /// Backward scan of the primary key; partitions before `$2` are pruned when the plan starts.
    NEWEST_SINCE: (UUIDOID, TIMESTAMPTZOID, INT4OID)
    "SELECT r.measurement_timestamp FROM iot.sensor_data r
      WHERE r.sensor_id OPERATOR(pg_catalog.=) $1
        AND r.measurement_timestamp OPERATOR(pg_catalog.>=) $2
        AND (r.quality_flags OPERATOR(pg_catalog.&) $3) OPERATOR(pg_catalog.=) 0
      ORDER BY r.measurement_timestamp DESC LIMIT 1");

/// The sensor's newest accepted time that is not before `since`. Readings from the future do not count.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn newest_since(
    session: &mut Session<'_>,
    sensor_id: Uuid,
    since: Timestamp,
) -> IotResult<Option<Timestamp>> {
    let arguments = [sensor_id.into(), clock::to_pg(since).into(), QualityFlags::FUTURE.0.into()];
    match session.execute(&NEWEST_SINCE, &arguments)?.first() {
        Some(row) => Ok(Some(clock::from_pg(row.get(1)?))),
        None => Ok(None),
    }
}

statement!(
    /// Values whose squares leave double precision are left out: PostgreSQL's aggregates raise on them, and one absurd
    /// reading must not keep the sensor from storing the next ones. So are NaN and infinities of plain INSERTs.
    WINDOW: (UUIDOID, TIMESTAMPTZOID, INT4OID)
    "SELECT pg_catalog.count(r.measurement_value), pg_catalog.avg(r.measurement_value),
            pg_catalog.stddev_samp(r.measurement_value),
            pg_catalog.min(r.measurement_value), pg_catalog.max(r.measurement_value)
       FROM iot.sensor_data r
      WHERE r.sensor_id OPERATOR(pg_catalog.=) $1
        AND r.measurement_timestamp OPERATOR(pg_catalog.>=) $2
        AND (r.quality_flags OPERATOR(pg_catalog.&) $3) OPERATOR(pg_catalog.=) 0
        AND r.measurement_value OPERATOR(pg_catalog.>=) -1e150::pg_catalog.float8
        AND r.measurement_value OPERATOR(pg_catalog.<=) 1e150::pg_catalog.float8");

/// Statistics of the sensor's stored readings from `start` on. Readings from the future do not count.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn window(session: &mut Session<'_>, sensor_id: Uuid, start: Timestamp) -> IotResult<WindowStatistics> {
    let arguments = [sensor_id.into(), clock::to_pg(start).into(), QualityFlags::FUTURE.0.into()];
    let Some(row) = session.execute(&WINDOW, &arguments)?.first() else {
        return Ok(WindowStatistics::default());
    };
    Ok(WindowStatistics {
        count: u64::try_from(row.get::<i64>(1)?).unwrap_or(0),
        mean: row.optional(2)?.unwrap_or(0.0),
        stddev_samp: row.optional(3)?.unwrap_or(0.0),
        minimum: row.optional(4)?.unwrap_or(0.0),
        maximum: row.optional(5)?.unwrap_or(0.0),
    })
}

statement!(
    /// The primary key is the arbiter between sessions that offer the same reading.
    INSERT: (
        UUIDOID, UUIDOID, UUIDOID, UUIDOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, FLOAT8OID, FLOAT8OID, TEXTOID,
        TEXTOID, INT4OID, BOOLOID, FLOAT8OID, JSONBOID,
    )
    "INSERT INTO iot.sensor_data (
         data_id, sensor_id, device_id, organization_id, sensor_type, measurement_timestamp, received_at,
         measurement_value, raw_value, measurement_unit, data_quality, quality_flags, is_anomaly, anomaly_score,
         measurement_metadata)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
     ON CONFLICT (sensor_id, measurement_timestamp) DO NOTHING");

/// Stores `reading`; `false` when the sensor already has one of that time.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn insert(session: &mut Session<'_>, sensor: &Sensor<'_>, reading: &Reading<'_>) -> IotResult<bool> {
    let raw_value = (reading.raw_value != reading.value).then_some(reading.raw_value);
    let rows = session.execute(
        &INSERT,
        &[
            reading.data_id.into(),
            sensor.sensor_id.into(),
            sensor.device_id.into(),
            sensor.organization_id.into(),
            sensor.sensor_type.as_str().into(),
            clock::to_pg(reading.measured_at).into(),
            clock::to_pg(reading.received_at).into(),
            reading.value.into(),
            raw_value.into(),
            sensor.unit.as_str().into(),
            reading.quality.verdict().as_str().into(),
            reading.quality.0.into(),
            reading.is_anomaly.into(),
            reading.anomaly_score.into(),
            reading.metadata.into(),
        ],
    )?;
    Ok(rows.count() == 1)
}

statement!(FIND: (UUIDOID, TIMESTAMPTZOID)
    "SELECT r.data_id FROM iot.sensor_data r
      WHERE r.sensor_id OPERATOR(pg_catalog.=) $1 AND r.measurement_timestamp OPERATOR(pg_catalog.=) $2");

/// Key of the stored reading of that sensor and time, if the caller may see it.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn find(session: &mut Session<'_>, sensor_id: Uuid, measured_at: Timestamp) -> IotResult<Option<Uuid>> {
    match session.execute(&FIND, &[sensor_id.into(), clock::to_pg(measured_at).into()])?.first() {
        Some(row) => row.optional(1),
        None => Ok(None),
    }
}
