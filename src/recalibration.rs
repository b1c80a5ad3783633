//! `recalibrate`: stored readings by the calibration history as it is now. The procedure itself is PL/pgSQL, because it
//! commits between batches; here is what it calls.

use std::collections::BTreeSet;

use iot_core::ingest::{Differences, RecalibrationTotals};
use iot_core::time::Timestamp;
use pgrx::datum::{TimestampWithTimeZone, Uuid};
use pgrx::iter::TableIterator;
use pgrx::{PgSqlErrorCode, name, pg_extern};

use crate::catalog::recalibration::{self, Changes};
use crate::catalog::{self, sensor, sensor_state};
use crate::engine::memory::has_detector;
use crate::engine::profile::{Profile, unknown_sensor};
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::relation::in_schema_iot;
use crate::pg::statement::{Session, with_session};
use crate::pg::{clock, transaction};
use crate::processing;

/// Readings per transaction: a second or two of locks, and few enough to hold in memory.
const BATCH: usize = 10_000;

#[pg_extern(sql = false)]
fn begin_recalibration(
    sensor: Option<Uuid>,
    range_start: Option<TimestampWithTimeZone>,
    range_end: Option<TimestampWithTimeZone>,
    dry_run: Option<bool>,
) -> Option<i64> {
    begin(sensor, range_start, range_end, dry_run).or_raise()
}

fn begin(
    sensor: Option<Uuid>,
    range_start: Option<TimestampWithTimeZone>,
    range_end: Option<TimestampWithTimeZone>,
    dry_run: Option<bool>,
) -> IotResult<Option<i64>> {
    let sensor_id = sensor.ok_or_else(|| IotError::null_argument("sensor"))?;
    let range = range(range_start, range_end)?;
    let dry_run = dry_run.ok_or_else(|| IotError::null_argument("dry_run"))?;
    require_tables()?;
    if !dry_run && transaction::is_in_block() {
        return Err(IotError::new(
            PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            "recalibrate() cannot run inside a transaction block",
        )
        .detail("It commits after each batch of readings.")
        .hint("Call it outside of BEGIN and COMMIT, with autocommit on; a dry run may be called anywhere."));
    }
    with_session(|session| {
        load(session, sensor_id)?;
        if dry_run { Ok(None) } else { recalibration::begin(session, sensor_id, range).map(Some) }
    })
}

#[pg_extern(sql = false)]
#[expect(clippy::too_many_arguments, clippy::type_complexity, reason = "the parameters of a SQL function")]
fn recalibrate_batch(
    sensor: Option<Uuid>,
    range_end: Option<TimestampWithTimeZone>,
    recalibration: Option<i64>,
    range_start: Option<TimestampWithTimeZone>,
    rows_examined: Option<i64>,
    rows_changed: Option<i64>,
    minimum_difference: Option<f64>,
    maximum_difference: Option<f64>,
    mean_difference: Option<f64>,
) -> TableIterator<
    'static,
    (
        name!(range_start, Option<TimestampWithTimeZone>),
        name!(rows_examined, i64),
        name!(rows_changed, i64),
        name!(minimum_difference, Option<f64>),
        name!(maximum_difference, Option<f64>),
        name!(mean_difference, Option<f64>),
    ),
> {
    let differences = minimum_difference.zip(maximum_difference).zip(mean_difference);
    let mut totals = RecalibrationTotals {
        examined: rows_examined.unwrap_or(0),
        changed: rows_changed.unwrap_or(0),
        differences: differences.map(|((minimum, maximum), mean)| Differences { minimum, maximum, mean }),
    };
    let next = sensor
        .ok_or_else(|| IotError::null_argument("sensor"))
        .and_then(|sensor_id| batch(sensor_id, range(range_start, range_end)?, recalibration, &mut totals))
        .or_raise();
    TableIterator::once((
        next.map(clock::to_pg),
        totals.examined,
        totals.changed,
        totals.differences.map(|differences| differences.minimum),
        totals.differences.map(|differences| differences.maximum),
        totals.differences.map(|differences| differences.mean),
    ))
}

/// The next batch; where to go on, `None` at the end. Without a `recalibration` nothing is written.
fn batch(
    sensor_id: Uuid,
    range: (Timestamp, Timestamp),
    recalibration: Option<i64>,
    totals: &mut RecalibrationTotals,
) -> IotResult<Option<Timestamp>> {
    require_tables()?;
    let profile = with_session(|session| load(session, sensor_id))?;
    // Results of rules go with the readings: whoever runs rules that read these waits from here on.
    let rules = if recalibration.is_some() { processing::rules_of(profile.device_id)? } else { None };
    let mut changed = processing::Changed::new();
    let next = with_session(|session| {
        let key = rules.as_ref().and_then(|rules| rules.key(sensor_id.as_bytes()));
        if recalibration.is_some() && has_detector(&profile) {
            // As batches of readings do: before anything else.
            sensor_state::lock(session, vec![sensor_id])?;
        }
        if let Some((rules, key)) = rules.as_ref().zip(key) {
            processing::lock(session, rules, BTreeSet::from([key]))?;
        }
        let readings = recalibration::readings(session, sensor_id, range, BATCH, recalibration.is_some())?;
        let next = readings.last().filter(|_| readings.len() >= BATCH).map(|(at, ..)| Timestamp(at.0 + 1));
        let mut changes = Changes::default();
        for (at, data_id, reading) in readings {
            // What is no number, written by hand, has no calibrated value either.
            if !reading.raw().is_finite() {
                totals.count_unchanged();
                continue;
            }
            let calibrated = profile.calibrate(reading.raw(), at).map_err(|error| {
                error.detail(format!("Reading of sensor \"{sensor_id}\" at {}.", at.to_utc_literal()))
            })?;
            match reading.recalibrated(calibrated.0, &profile.limits.physical_range) {
                Some(new) => {
                    if let Some(key) = key.filter(|_| new.value != reading.value) {
                        changed.insert((key, at));
                    }
                    totals.count_changed(reading.value, new.value);
                    changes.push(at, data_id, new);
                }
                None => totals.count_unchanged(),
            }
        }
        if let Some(number) = recalibration {
            changes.write(session, sensor_id)?;
            let progressed_to = next.unwrap_or(range.1);
            recalibration::progress(session, (number, sensor_id), progressed_to, next.is_none(), totals)?;
        }
        Ok(next)
    })?;
    if let Some(rules) = rules {
        processing::run_again(&rules, profile.organization_id, &changed, false)?;
    }
    Ok(next)
}

/// The sensor with its calibration history as the caller sees it now, whatever is cached.
fn load(session: &mut Session<'_>, sensor_id: Uuid) -> IotResult<Profile> {
    let mut profile =
        sensor::load(session, vec![sensor_id])?.pop().ok_or_else(|| unknown_sensor(sensor_id))?;
    profile.calibrations =
        sensor::load_calibrations(session, vec![sensor_id])?.into_iter().map(|(_, period)| period).collect();
    Ok(profile)
}

fn range(
    start: Option<TimestampWithTimeZone>,
    end: Option<TimestampWithTimeZone>,
) -> IotResult<(Timestamp, Timestamp)> {
    let start = start.map(clock::from_pg).ok_or_else(|| IotError::null_argument("range_start"))?;
    let end = end.map(clock::from_pg).ok_or_else(|| IotError::null_argument("range_end"))?;
    if start < end {
        return Ok((start, end));
    }
    Err(IotError::invalid_argument(format!(
        "range_start {} must be before range_end {}",
        start.to_utc_literal(),
        end.to_utc_literal()
    ))
    .hint("The range holds range_start and not range_end; without either all readings are meant."))
}

fn require_tables() -> IotResult<()> {
    catalog::require_setup()?;
    if in_schema_iot(c"recalibrations").is_some() {
        return Ok(());
    }
    Err(IotError::wrong_state("table iot.recalibrations does not exist in this database yet")
        .hint("Bring the tables forward with: SELECT iot.setup();"))
}
