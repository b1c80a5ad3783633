//! `iot.recalibrations`, and the stored readings that a recalibration looks at and changes.

use iot_core::ingest::{DataQuality, QualityFlags, RecalibrationTotals, StoredReading};
use iot_core::time::Timestamp;
use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;

use crate::error::{IotError, IotResult};
use crate::pg::clock;
use crate::pg::statement::Session;
use crate::statement;

/// The numeric readings of a sensor by time; the primary key gives the order. Those that share a time are not torn apart.
macro_rules! readings_of_sensor {
    ($lock:literal) => {
        concat!(
            "SELECT r.measurement_timestamp, r.measurement_value, r.raw_value, r.quality_flags, r.data_id
               FROM iot.sensor_data r
              WHERE r.sensor_id OPERATOR(pg_catalog.=) $1
                AND r.measurement_timestamp OPERATOR(pg_catalog.>=) $2
                AND r.measurement_timestamp OPERATOR(pg_catalog.<) $3
                AND r.measurement_value IS NOT NULL
              ORDER BY r.measurement_timestamp FETCH FIRST ($4) ROWS WITH TIES ",
            $lock
        )
    };
}

statement!(LOOK: (UUIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID) readings_of_sensor!(""));
statement!(
    /// Nobody changes them before we do, and policies for UPDATE hide what may not be changed.
    LOCK: (UUIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID)
    readings_of_sensor!("FOR NO KEY UPDATE"));

/// The first `limit` numeric readings of a sensor in [start, end), by time, with those of the last one's time; locked when they are `to_change`.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn readings(
    session: &mut Session<'_>,
    sensor_id: Uuid,
    (start, end): (Timestamp, Timestamp),
    limit: usize,
    to_change: bool,
) -> IotResult<Vec<(Timestamp, Uuid, StoredReading)>> {
    let statement = if to_change { &LOCK } else { &LOOK };
    let arguments =
        [sensor_id.into(), clock::to_pg(start).into(), clock::to_pg(end).into(), (limit as i64).into()];
    let rows = session.execute(statement, &arguments)?;
    let mut readings = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        readings.push((
            clock::from_pg(row.get(1)?),
            row.get(5)?,
            StoredReading {
                value: row.get(2)?,
                raw_value: row.optional(3)?,
                quality: QualityFlags(row.get(4)?),
            },
        ));
        Ok(())
    })?;
    Ok(readings)
}

statement!(
    /// A verdict is written where its reasons change; elsewhere one that was set by hand stays.
    CHANGE: (
        UUIDOID, TIMESTAMPTZARRAYOID, FLOAT8ARRAYOID, FLOAT8ARRAYOID, INT4ARRAYOID, TEXTARRAYOID, UUIDARRAYOID,
    )
    "UPDATE iot.sensor_data r
        SET measurement_value = o.value, raw_value = o.raw_value, quality_flags = o.quality_flags,
            data_quality = CASE WHEN r.quality_flags OPERATOR(pg_catalog.=) o.quality_flags THEN r.data_quality
                                ELSE o.data_quality END
       FROM ROWS FROM (
            pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5),
            pg_catalog.unnest($6), pg_catalog.unnest($7)) AS o (at, value, raw_value, quality_flags, data_quality, data_id)
      WHERE r.sensor_id OPERATOR(pg_catalog.=) $1 AND r.measurement_timestamp OPERATOR(pg_catalog.=) o.at
        AND r.data_id OPERATOR(pg_catalog.=) o.data_id");

/// New contents of readings, as columns.
#[derive(Default)]
pub struct Changes {
    at: Vec<TimestampWithTimeZone>,
    data_id: Vec<Uuid>,
    value: Vec<f64>,
    raw_value: Vec<Option<f64>>,
    quality_flags: Vec<i32>,
    data_quality: Vec<&'static str>,
}

impl Changes {
    /// Adds what the reading of that time and key becomes.
    pub fn push(&mut self, at: Timestamp, data_id: Uuid, reading: StoredReading) {
        let verdict: DataQuality = reading.quality.verdict();
        self.at.push(clock::to_pg(at));
        self.data_id.push(data_id);
        self.value.push(reading.value);
        self.raw_value.push(reading.raw_value);
        self.quality_flags.push(reading.quality.0);
        self.data_quality.push(verdict.as_str());
    }

    /// Writes them to the readings of a sensor.
    ///
    /// # Errors
    /// Only what PostgreSQL raises.
    pub fn write(self, session: &mut Session<'_>, sensor_id: Uuid) -> IotResult<()> {
        if self.at.is_empty() {
            return Ok(());
        }
        session.execute(
            &CHANGE,
            &[
                sensor_id.into(),
                self.at.into(),
                self.value.into(),
                self.raw_value.into(),
                self.quality_flags.into(),
                self.data_quality.into(),
                self.data_id.into(),
            ],
        )?;
        Ok(())
    }
}

statement!(BEGIN: (UUIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID)
    "INSERT INTO iot.recalibrations (sensor_id, range_start, range_end) VALUES ($1, $2, $3)
     RETURNING recalibration_id");

/// Notes that a recalibration begins; its number.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn begin(session: &mut Session<'_>, sensor_id: Uuid, range: (Timestamp, Timestamp)) -> IotResult<i64> {
    let arguments = [sensor_id.into(), clock::to_pg(range.0).into(), clock::to_pg(range.1).into()];
    match session.execute(&BEGIN, &arguments)?.first() {
        Some(row) => row.get(1),
        None => Err(IotError::wrong_state("a trigger on iot.recalibrations discarded the row")
            .hint("Look at your triggers on that table.")),
    }
}

statement!(PROGRESS: (INT8OID, UUIDOID, TIMESTAMPTZOID, BOOLOID, INT8OID, INT8OID, FLOAT8OID, FLOAT8OID, FLOAT8OID)
    "UPDATE iot.recalibrations c
        SET progressed_to = $3,
            finished_at = CASE WHEN $4 THEN pg_catalog.clock_timestamp() END,
            rows_examined = $5, rows_changed = $6,
            minimum_difference = $7, maximum_difference = $8, mean_difference = $9
      WHERE c.recalibration_id OPERATOR(pg_catalog.=) $1 AND c.sensor_id OPERATOR(pg_catalog.=) $2");

/// Notes how far a recalibration has come: readings before `progressed_to` are done.
///
/// # Errors
/// 42704 when there is no such recalibration of that sensor.
pub fn progress(
    session: &mut Session<'_>,
    (recalibration, sensor_id): (i64, Uuid),
    progressed_to: Timestamp,
    finished: bool,
    totals: &RecalibrationTotals,
) -> IotResult<()> {
    let differences = totals.differences.as_ref();
    let arguments = [
        recalibration.into(),
        sensor_id.into(),
        clock::to_pg(progressed_to).into(),
        finished.into(),
        totals.examined.into(),
        totals.changed.into(),
        differences.map(|differences| differences.minimum).into(),
        differences.map(|differences| differences.maximum).into(),
        differences.map(|differences| differences.mean).into(),
    ];
    if session.execute(&PROGRESS, &arguments)?.count() == 1 {
        return Ok(());
    }
    Err(IotError::unknown_object(format!(
        "recalibration {recalibration} of sensor \"{sensor_id}\" does not exist"
    ))
    .hint("Call iot.recalibrate(); and check that row security lets this role change iot.recalibrations."))
}
