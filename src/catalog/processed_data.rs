//! `iot.processed_data`: what processing rules made of readings.

use pgrx::Uuid;
use pgrx::datum::{DatumWithOid, TimestampWithTimeZone};

use crate::error::IotResult;
use crate::pg::statement::Session;
use crate::statement;

/// Results as columns; no two of the same key.
#[derive(Default)]
pub struct Columns {
    /// `measurement_timestamp`.
    pub measured_at: Vec<TimestampWithTimeZone>,
    /// `processed_value`.
    pub value: Vec<Option<f64>>,
    /// `device_id`.
    pub device_id: Vec<Uuid>,
    /// `sensor_id`.
    pub sensor_id: Vec<Option<Uuid>>,
    /// `processing_rule_id`.
    pub rule_id: Vec<Uuid>,
    /// `rule_version`.
    pub rule_version: Vec<i32>,
    /// `data_id`.
    pub data_id: Vec<Uuid>,
    /// `output_name`.
    pub output_name: Vec<String>,
    /// `organization_id`.
    pub organization_id: Vec<Option<Uuid>>,
    /// `unit`.
    pub unit: Vec<Option<String>>,
    /// `evaluation_error`.
    pub error: Vec<Option<String>>,
}

statement!(
    /// Of several results for the same time of a series the last one counts.
    INSERT: (
        TIMESTAMPTZARRAYOID, FLOAT8ARRAYOID, UUIDARRAYOID, UUIDARRAYOID, UUIDARRAYOID, INT4ARRAYOID, UUIDARRAYOID,
        TEXTARRAYOID, UUIDARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
    )
    "INSERT INTO iot.processed_data (
         measurement_timestamp, processed_value, device_id, sensor_id, processing_rule_id, rule_version, data_id,
         output_name, organization_id, unit, evaluation_error)
     SELECT o.at, o.value, o.device_id, o.sensor_id, o.processing_rule_id, o.rule_version, o.data_id,
            o.output_name, o.organization_id, o.unit, o.error
       FROM ROWS FROM (
            pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),
            pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8),
            pg_catalog.unnest($9), pg_catalog.unnest($10), pg_catalog.unnest($11)) WITH ORDINALITY
         AS o (at, value, device_id, sensor_id, processing_rule_id, rule_version, data_id, output_name,
               organization_id, unit, error, number)
      ORDER BY o.number
         ON CONFLICT (device_id, output_name, measurement_timestamp, series_id) DO UPDATE
        SET processed_at = EXCLUDED.processed_at, processed_value = EXCLUDED.processed_value,
            processing_rule_id = EXCLUDED.processing_rule_id, rule_version = EXCLUDED.rule_version,
            data_id = EXCLUDED.data_id, organization_id = EXCLUDED.organization_id, unit = EXCLUDED.unit,
            evaluation_error = EXCLUDED.evaluation_error");

/// Stores results, in their order.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn insert(session: &mut Session<'_>, columns: Columns) -> IotResult<()> {
    session.execute(&INSERT, &columns.arguments())?;
    Ok(())
}

statement!(
    /// A result that the rule never had is not made up: what was stored before the rule was written has none.
    CORRECT: (
        TIMESTAMPTZARRAYOID, FLOAT8ARRAYOID, UUIDARRAYOID, UUIDARRAYOID, UUIDARRAYOID, INT4ARRAYOID, UUIDARRAYOID,
        TEXTARRAYOID, UUIDARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
    )
    "UPDATE iot.processed_data p
        SET processed_at = pg_catalog.clock_timestamp(), processed_value = o.value,
            processing_rule_id = o.processing_rule_id, rule_version = o.rule_version, data_id = o.data_id,
            organization_id = o.organization_id, unit = o.unit, evaluation_error = o.error
       FROM ROWS FROM (
            pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),
            pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8),
            pg_catalog.unnest($9), pg_catalog.unnest($10), pg_catalog.unnest($11))
         AS o (at, value, device_id, sensor_id, processing_rule_id, rule_version, data_id, output_name,
               organization_id, unit, error)
      WHERE p.device_id OPERATOR(pg_catalog.=) o.device_id
        AND p.output_name OPERATOR(pg_catalog.=) o.output_name
        AND p.measurement_timestamp OPERATOR(pg_catalog.=) o.at
        AND p.series_id OPERATOR(pg_catalog.=) COALESCE(o.sensor_id, o.device_id)");

/// Stores results in place of those that are there; others are left out.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn correct(session: &mut Session<'_>, columns: Columns) -> IotResult<()> {
    session.execute(&CORRECT, &columns.arguments())?;
    Ok(())
}

impl Columns {
    fn arguments(self) -> [DatumWithOid<'static>; 11] {
        [
            self.measured_at.into(),
            self.value.into(),
            self.device_id.into(),
            self.sensor_id.into(),
            self.rule_id.into(),
            self.rule_version.into(),
            self.data_id.into(),
            self.output_name.into(),
            self.organization_id.into(),
            self.unit.into(),
            self.error.into(),
        ]
    }
}
