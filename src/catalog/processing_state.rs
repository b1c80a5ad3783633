//! `iot.processing_states`: what processing rules remember between readings.

use std::collections::BTreeSet;

use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;

use crate::error::IotResult;
use crate::pg::statement::{Row, Session};
use crate::statement;

/// Which series: a rule applied to a sensor, or to a device as a whole. In the order in which rows are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// The rule.
    pub rule_id: [u8; 16],
    /// The device.
    pub device_id: [u8; 16],
    /// The sensor, unless the series is about the device.
    pub sensor_id: Option<[u8; 16]>,
}

/// A row.
pub struct StoredState {
    /// The series.
    pub series: Series,
    /// Version of the rule that wrote it.
    pub rule_version: i32,
    /// State of the rule, if it has one.
    pub state: Option<Vec<u8>>,
    /// Time and value of the newest result, where it is kept.
    pub last_output: Option<(TimestampWithTimeZone, f64)>,
}

/// The three columns of the key as arrays.
fn key_columns(series: &[Series]) -> (Vec<Uuid>, Vec<Uuid>, Vec<Option<Uuid>>) {
    (
        series.iter().map(|one| Uuid::from_bytes(one.rule_id)).collect(),
        series.iter().map(|one| Uuid::from_bytes(one.device_id)).collect(),
        series.iter().map(|one| one.sensor_id.map(Uuid::from_bytes)).collect(),
    )
}

fn stored(row: &Row<'_>) -> IotResult<StoredState> {
    let sensor_id: Option<Uuid> = row.optional(3)?;
    let at: Option<TimestampWithTimeZone> = row.optional(6)?;
    Ok(StoredState {
        series: Series {
            rule_id: *row.get::<Uuid>(1)?.as_bytes(),
            device_id: *row.get::<Uuid>(2)?.as_bytes(),
            sensor_id: sensor_id.map(|id| *id.as_bytes()),
        },
        rule_version: row.get(4)?,
        state: row.optional(5)?,
        last_output: at.zip(row.optional(7)?),
    })
}

statement!(READ: (UUIDARRAYOID, UUIDARRAYOID, UUIDARRAYOID)
    "SELECT s.processing_rule_id, s.device_id, s.sensor_id, s.rule_version, s.state, s.last_output_at, s.last_output_value
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3))
            AS w (processing_rule_id, device_id, sensor_id)
       JOIN iot.processing_states s
         ON s.processing_rule_id OPERATOR(pg_catalog.=) w.processing_rule_id
        AND s.device_id OPERATOR(pg_catalog.=) w.device_id
        AND s.series_id OPERATOR(pg_catalog.=) COALESCE(w.sensor_id, w.device_id)");

/// What is stored of `series`, without locking it.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn read(session: &mut Session<'_>, series: &[Series]) -> IotResult<Vec<StoredState>> {
    let (rules, devices, sensors) = key_columns(series);
    let rows = session.execute(&READ, &[rules.into(), devices.into(), sensors.into()])?;
    let mut found = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        found.push(stored(row)?);
        Ok(())
    })?;
    Ok(found)
}

statement!(
    /// Sorted below the locks, so that rows are locked in that order; each row as the last transaction left it.
    LOCK: (UUIDARRAYOID, UUIDARRAYOID, UUIDARRAYOID)
    "SELECT s.processing_rule_id, s.device_id, s.sensor_id, s.rule_version, s.state, s.last_output_at, s.last_output_value
       FROM iot.processing_states s
       JOIN ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3))
            AS w (processing_rule_id, device_id, sensor_id)
         ON s.processing_rule_id OPERATOR(pg_catalog.=) w.processing_rule_id
        AND s.device_id OPERATOR(pg_catalog.=) w.device_id
        AND s.series_id OPERATOR(pg_catalog.=) COALESCE(w.sensor_id, w.device_id)
      ORDER BY s.processing_rule_id, s.device_id, s.series_id
        FOR NO KEY UPDATE OF s");

statement!(
    /// A row to lock for each series that has none. Another session that makes the same one is waited for.
    MAKE: (UUIDARRAYOID, UUIDARRAYOID, UUIDARRAYOID)
    "INSERT INTO iot.processing_states (processing_rule_id, device_id, sensor_id, rule_version)
     SELECT w.processing_rule_id, w.device_id, w.sensor_id, 0
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3))
            AS w (processing_rule_id, device_id, sensor_id)
      ORDER BY w.processing_rule_id, w.device_id, COALESCE(w.sensor_id, w.device_id)
         ON CONFLICT (processing_rule_id, device_id, series_id) DO NOTHING");

/// What is stored of `series`, which from here to the end of the transaction belong to the caller.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn lock(session: &mut Session<'_>, series: &[Series]) -> IotResult<Vec<StoredState>> {
    let found = lock_existing(session, series)?;
    if found.len() == series.len() {
        return Ok(found);
    }
    let known: BTreeSet<Series> = found.iter().map(|state| state.series).collect();
    let missing: Vec<Series> = series.iter().filter(|one| !known.contains(one)).copied().collect();
    let (rules, devices, sensors) = key_columns(&missing);
    session.execute(&MAKE, &[rules.into(), devices.into(), sensors.into()])?;
    // Rows that another session has made meanwhile, and committed, are not empty.
    lock_existing(session, series)
}

fn lock_existing(session: &mut Session<'_>, series: &[Series]) -> IotResult<Vec<StoredState>> {
    let (rules, devices, sensors) = key_columns(series);
    let rows = session.execute(&LOCK, &[rules.into(), devices.into(), sensors.into()])?;
    let mut found = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        found.push(stored(row)?);
        Ok(())
    })?;
    Ok(found)
}

statement!(
    /// By insertion, so that a row that somebody has deleted meanwhile comes back.
    WRITE: (
        UUIDARRAYOID, UUIDARRAYOID, UUIDARRAYOID, INT4ARRAYOID, BYTEAARRAYOID, TIMESTAMPTZARRAYOID, FLOAT8ARRAYOID,
    )
    "INSERT INTO iot.processing_states AS s (
         processing_rule_id, device_id, sensor_id, rule_version, state, last_output_at, last_output_value)
     SELECT w.processing_rule_id, w.device_id, w.sensor_id, w.rule_version, w.state, w.at, w.value
       FROM ROWS FROM (
            pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),
            pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7))
            AS w (processing_rule_id, device_id, sensor_id, rule_version, state, at, value)
      ORDER BY w.processing_rule_id, w.device_id, COALESCE(w.sensor_id, w.device_id)
         ON CONFLICT (processing_rule_id, device_id, series_id) DO UPDATE
        SET rule_version = EXCLUDED.rule_version, state = EXCLUDED.state, last_output_at = EXCLUDED.last_output_at,
            last_output_value = EXCLUDED.last_output_value, updated_at = pg_catalog.clock_timestamp()");

/// Stores `states`.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn write(session: &mut Session<'_>, states: Vec<StoredState>) -> IotResult<()> {
    let series: Vec<Series> = states.iter().map(|state| state.series).collect();
    let (rules, devices, sensors) = key_columns(&series);
    let versions: Vec<i32> = states.iter().map(|state| state.rule_version).collect();
    let times: Vec<_> = states.iter().map(|state| state.last_output.map(|output| output.0)).collect();
    let values: Vec<_> = states.iter().map(|state| state.last_output.map(|output| output.1)).collect();
    let bytes: Vec<_> = states.into_iter().map(|state| state.state).collect();
    session.execute(
        &WRITE,
        &[
            rules.into(),
            devices.into(),
            sensors.into(),
            versions.into(),
            bytes.into(),
            times.into(),
            values.into(),
        ],
    )?;
    Ok(())
}
