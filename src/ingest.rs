//! `process_sensor_data`: one reading through the whole pipeline, in the caller's transaction.
//!
//! sensor → accepted time → calibration → quality → anomaly score → partition → row → alert rules.

use std::cell::RefCell;

use iot_core::detect;
use iot_core::ingest::{
    self as rules, Calibrated, Calibration, DataIdGenerator, QualityFlags, TimeVerdict, accept_time,
    accept_value,
};
use iot_core::time::{MICROS_PER_DAY, Timestamp};
use pgrx::datum::{Interval, TimestampWithTimeZone, Uuid};
use pgrx::{PgSqlErrorCode, pg_extern};

use crate::alert;
use crate::catalog::reading::{self, Reading};
use crate::catalog::sensor::{self, Sensor};
use crate::catalog::{self};
use crate::error::{IotError, IotResult, OrRaise};
use crate::partition;
use crate::pg::jsonb::{Jsonb, JsonbImage};
use crate::pg::statement::{Session, with_session};
use crate::pg::{clock, random};

/// Days between 1970-01-01 (Unix) and 2000-01-01 (PostgreSQL).
const UNIX_EPOCH_OFFSET_DAYS: i64 = 10_957;

/// How far back readings are accepted when `setup()` was not told: ten years.
const DEFAULT_RETENTION_DAYS: i64 = 3_653;

/// A reading offered without a time takes the clock's; when the sensor already has that microsecond, the next free one.
/// More than this many in a row are not a tie but a defect.
const MAXIMUM_TIES: u32 = 100_000;

/// A reading as offered by the caller.
pub struct Offered<'a> {
    /// The sensor it names.
    pub sensor_id: Uuid,
    /// The value as the device sent it.
    pub raw_value: f64,
    /// What the device said beside the value.
    pub metadata: Jsonb<'a>,
    /// When it was measured; `None` is when it was received.
    pub measured_at: Option<Timestamp>,
    /// When it reached the server.
    pub received_at: Timestamp,
}

/// What became of an offered reading.
pub enum Outcome {
    /// It is stored under this key, or was before.
    Stored(Uuid),
    /// It cannot be accepted; nothing was written.
    Refused(IotError),
}

#[pg_extern(sql = false)]
fn process_sensor_data(
    sensor_uuid: Option<Uuid>,
    measurement_value: Option<f64>,
    measurement_metadata: Option<Jsonb<'_>>,
    measurement_timestamp: Option<TimestampWithTimeZone>,
) -> Uuid {
    catalog::require_setup().or_raise();
    let no_metadata = JsonbImage::empty_object();
    let offered = Offered {
        sensor_id: sensor_uuid.ok_or_else(|| IotError::null_argument("sensor_uuid")).or_raise(),
        raw_value: measurement_value.ok_or_else(|| IotError::null_argument("measurement_value")).or_raise(),
        metadata: measurement_metadata.unwrap_or(no_metadata.as_jsonb()),
        measured_at: measurement_timestamp.map(clock::from_pg),
        received_at: clock::now(),
    };
    match with_session(|session| process(session, &offered)).or_raise() {
        Outcome::Stored(data_id) => data_id,
        Outcome::Refused(refusal) => refusal.raise(),
    }
}

/// Takes one reading through the pipeline.
///
/// # Errors
/// What is not the reading's own fault, and whatever happens after it was stored.
pub fn process(session: &mut Session<'_>, offered: &Offered<'_>) -> IotResult<Outcome> {
    let (sensor, reading) = match accept(session, offered) {
        Ok(Accepted::Fresh(accepted)) => *accepted,
        Ok(Accepted::Duplicate(stored)) => return Ok(Outcome::Stored(stored)),
        Err(error) if error.is_defect() => return Err(error),
        Err(refusal) => return Ok(Outcome::Refused(refusal)),
    };
    alert::check_reading(session, &sensor, &reading)?;
    Ok(Outcome::Stored(reading.data_id))
}

/// A reading that was not refused.
enum Accepted<'session, 'a> {
    /// It is stored now.
    Fresh(Box<(Sensor<'session>, Reading<'a>)>),
    /// The sensor already had one of that time, with this key.
    Duplicate(Uuid),
}

/// Everything up to and including the row; nothing is written when it fails.
fn accept<'session, 'a>(
    session: &mut Session<'session>,
    offered: &Offered<'a>,
) -> IotResult<Accepted<'session, 'a>> {
    accept_value(offered.raw_value)?;
    let now = offered.received_at;
    let measured_at = offered.measured_at.unwrap_or(now);

    let sensor = sensor::load(session, offered.sensor_id, measured_at)?;
    sensor.require_active()?;
    let verdict = accept_time(
        measured_at,
        now,
        oldest_accepted(now, sensor.retention),
        crate::guc::clock_skew_micros(),
    )?;
    let from_future = verdict == TimeVerdict::Future;

    let Calibrated { value, extrapolated } = calibrate(&sensor, offered.raw_value)?;
    let quality = rules::assess(value, &sensor.physical_range, from_future, extrapolated);
    let score = score(session, &sensor, value, measured_at, from_future)?;

    let mut reading = Reading {
        data_id: next_data_id(now)?,
        measured_at,
        received_at: now,
        value,
        raw_value: offered.raw_value,
        quality,
        anomaly_score: score.score,
        is_anomaly: score.is_anomaly,
        metadata: offered.metadata,
    };
    if let Some(stored) = store(session, &sensor, &mut reading, offered.measured_at.is_none())? {
        return Ok(Accepted::Duplicate(stored));
    }
    Ok(Accepted::Fresh(Box::new((sensor, reading))))
}

fn calibrate(sensor: &Sensor<'_>, raw: f64) -> IotResult<Calibrated> {
    Calibration::from_json(&sensor.calibration.parse()?)
        .and_then(|calibration| calibration.apply(raw))
        .map_err(|error| {
            IotError::from(error).detail(format!("Calibration of sensor \"{}\".", sensor.sensor_id))
        })
}

/// Start of the accepted past: the retention that `setup()` was told, else ten years.
fn oldest_accepted(now: Timestamp, retention: Option<Interval>) -> Timestamp {
    let micros = retention.map_or(DEFAULT_RETENTION_DAYS * MICROS_PER_DAY, |retention| {
        // Months count as 31 days here: a horizon that is a little generous rejects nothing that should be kept.
        (i64::from(retention.months()) * 31 + i64::from(retention.days()))
            .saturating_mul(MICROS_PER_DAY)
            .saturating_add(retention.micros())
    });
    Timestamp(now.0.saturating_sub(micros))
}

/// Scores `value` against the sensor's 24-hour window, before the reading itself becomes part of it.
///
/// The window hangs on the sensor's newest accepted time; a reading from the future does not move it.
fn score(
    session: &mut Session<'_>,
    sensor: &Sensor<'_>,
    value: f64,
    measured_at: Timestamp,
    from_future: bool,
) -> IotResult<detect::AnomalyScore> {
    let since = if from_future { Timestamp(i64::MIN) } else { measured_at };
    let newest = reading::newest_since(session, sensor.sensor_id, since)?;
    let high_water = match (newest, from_future) {
        (Some(newest), _) => newest,
        (None, false) => measured_at,
        (None, true) => return Ok(detect::AnomalyScore::default()),
    };
    let window = reading::window(session, sensor.sensor_id, detect::window_start(high_water))?;
    Ok(detect::score(value, &window))
}

/// Stores the reading, making its partition first if need be. Returns the key of the stored reading of the same
/// sensor and time when there is one already: the first wins. A reading without a time of its own is never a
/// duplicate: it moves on by a microsecond.
fn store(
    session: &mut Session<'_>,
    sensor: &Sensor<'_>,
    reading: &mut Reading<'_>,
    clock_time: bool,
) -> IotResult<Option<Uuid>> {
    for _ in 0..MAXIMUM_TIES {
        partition::ensure_for_reading(session, reading.measured_at)?;
        if reading::insert(session, sensor, reading)? {
            return Ok(None);
        }
        let stored = reading::find(session, sensor.sensor_id, reading.measured_at)?
            .ok_or_else(|| neither_stored_nor_found(sensor, reading))?;
        if !clock_time {
            return Ok(Some(stored));
        }
        reading.measured_at = Timestamp(reading.measured_at.0 + 1);
    }
    Err(IotError::new(
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        format!("sensor \"{}\" has a reading for every microsecond around now", sensor.sensor_id),
    )
    .hint("Pass measurement_timestamp."))
}

fn neither_stored_nor_found(sensor: &Sensor<'_>, reading: &Reading<'_>) -> IotError {
    IotError::new(
        PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
        format!(
            "reading of sensor \"{}\" at {} was not stored, and none of that time is visible",
            sensor.sensor_id,
            reading.measured_at.to_utc_literal()
        ),
    )
    .detail("Either row security hides a stored one, or a trigger on iot.sensor_data discarded it.")
    .hint("Let the role's SELECT policies on iot.sensor_data show the readings it stores, and look at your triggers.")
    .because("not_stored")
}

#[pg_extern(sql = false)]
fn generate_data_id() -> Uuid {
    next_data_id(clock::now()).or_raise()
}

/// The next key, of the time `now`.
///
/// # Errors
/// XX000 when the server has no randomness.
pub fn next_data_id(now: Timestamp) -> IotResult<Uuid> {
    thread_local! {
        static GENERATOR: RefCell<DataIdGenerator> = RefCell::new(DataIdGenerator::default());
    }
    let unix_micros = now.0 + UNIX_EPOCH_OFFSET_DAYS * MICROS_PER_DAY;
    let random = random::bytes()?;
    Ok(Uuid::from_bytes(GENERATOR.with_borrow_mut(|generator| generator.next(unix_micros, random))))
}

#[pg_extern(sql = false)]
fn validate_calibration(calibration_data: Option<Jsonb<'_>>) {
    let calibration = calibration_data.ok_or_else(|| IotError::null_argument("calibration_data")).or_raise();
    Calibration::from_json(&calibration.parse().or_raise()).or_raise();
}

#[pg_extern(sql = false)]
fn quality_reasons(quality_flags: i32) -> Vec<&'static str> {
    QualityFlags(quality_flags).reasons().collect()
}
