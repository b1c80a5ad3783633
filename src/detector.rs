//! The detectors as SQL functions: a series scored without storing it, and which detectors there are.

use iot_core::detect::{self, DetectorKind, DetectorState, Episode, ZscoreWindow};
use iot_core::time::Timestamp;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::{PgSqlErrorCode, name, pg_extern};

use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::array::ArrayArgument;
use crate::pg::clock;

#[pg_extern(sql = false)]
fn score_series<'call>(
    detector: &str,
    timestamps: ArrayArgument<'call, i64>,
    measurement_values: ArrayArgument<'call, f64>,
) -> TableIterator<
    'static,
    (
        name!(measurement_timestamp, TimestampWithTimeZone),
        name!(measurement_value, f64),
        name!(anomaly_score, f64),
        name!(is_anomaly, bool),
        name!(is_onset, bool),
        name!(is_learning, bool),
    ),
> {
    let kind = kind_of(detector).or_raise();
    // The rows are asked for one by one after this call, when its arguments may be gone: so the iterator owns a copy.
    let readings = readings(&timestamps, &measurement_values).or_raise();
    TableIterator::new(detect::score_series(kind, readings).map(|(at, value, verdict)| {
        (clock::to_pg(at), value, verdict.score, verdict.is_anomaly, verdict.is_onset, verdict.learning)
    }))
}

#[pg_extern(sql = false)]
fn detector_kinds() -> TableIterator<
    'static,
    (name!(detector, &'static str), name!(description, &'static str), name!(state_bytes, i32)),
> {
    TableIterator::new(
        DetectorKind::ALL.into_iter().map(|kind| {
            (kind.as_str(), description(kind), i32::try_from(state_bytes(kind)).unwrap_or(i32::MAX))
        }),
    )
}

fn description(kind: DetectorKind) -> &'static str {
    match kind {
        DetectorKind::Zscore => "Standard deviations from the mean of the last 24 hours.",
        DetectorKind::Robust => "Distance from the median of the last 240 readings.",
        DetectorKind::Ewma => "Distance from an exponentially weighted mean.",
        DetectorKind::Seasonal => "Distance from what is usual at this hour of the day and of the week.",
        DetectorKind::Adaptive => {
            "Four slow experts, each calibrated to its own past, whose surprise adds up."
        }
    }
}

fn state_bytes(kind: DetectorKind) -> usize {
    match kind {
        DetectorKind::Zscore => size_of::<ZscoreWindow>() + Episode::ENCODED_LEN,
        kind => DetectorState::encoded_len(kind),
    }
}

fn kind_of(detector: &str) -> IotResult<DetectorKind> {
    DetectorKind::from_name(detector).ok_or_else(|| {
        let names = DetectorKind::ALL.map(DetectorKind::as_str).join(", ");
        IotError::invalid_argument(format!("there is no detector \"{detector}\""))
            .hint(format!("Use one of {names}."))
    })
}

/// The readings of the two arrays, in their order, once all of them can be scored.
fn readings(
    timestamps: &ArrayArgument<'_, i64>,
    values: &ArrayArgument<'_, f64>,
) -> IotResult<Vec<(Timestamp, f64)>> {
    let length = timestamps.require_length("timestamps", None)?;
    values.require_length("measurement_values", Some(("timestamps", length)))?;
    let mut readings = Vec::new();
    readings.try_reserve_exact(length).map_err(|_| {
        IotError::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, format!("no memory for {length} readings"))
            .hint("Pass fewer readings.")
    })?;
    for (number, (at, value)) in (1..).zip(timestamps.iter().zip(values.iter())) {
        let at = at.ok_or_else(|| null_element("timestamps", number))?;
        let value = value.ok_or_else(|| null_element("measurement_values", number))?;
        readings.push((finite_time(Timestamp(at), number)?, finite_value(value, number)?));
    }
    Ok(readings)
}

fn null_element(argument: &str, number: usize) -> IotError {
    IotError::new(
        PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
        format!("element {number} of argument \"{argument}\" must not be null"),
    )
    .hint("Leave out readings without a time or a value.")
}

fn finite_time(at: Timestamp, number: usize) -> IotResult<Timestamp> {
    if at.is_finite() {
        return Ok(at);
    }
    Err(IotError::new(
        PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
        format!("element {number} of argument \"timestamps\" is {}", at.to_utc_literal()),
    )
    .hint("Pass the time at which the value was measured."))
}

fn finite_value(value: f64, number: usize) -> IotResult<f64> {
    if value.is_finite() {
        return Ok(value);
    }
    let name = if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    Err(IotError::new(
        PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
        format!("element {number} of argument \"measurement_values\" is {name}"),
    )
    .hint("Leave out readings that are not finite numbers."))
}
