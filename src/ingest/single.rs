//! `process_sensor_data`: one reading.

use pgrx::datum::{TimestampWithTimeZone, Uuid};
use pgrx::iter::TableIterator;
use pgrx::{name, pg_extern};

use crate::engine::batch;
use crate::engine::judge::{Fate, Judged};
use crate::engine::offered::{Measured, Offered};
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::clock;
use crate::pg::jsonb::Jsonb;
use crate::pg::shared::counters;

#[pg_extern(sql = false)]
fn process_sensor_data(
    sensor_uuid: Option<Uuid>,
    measurement_value: Option<f64>,
    measurement_metadata: Option<Jsonb<'_>>,
    measurement_timestamp: Option<TimestampWithTimeZone>,
) -> Uuid {
    let no_metadata = Jsonb::empty_object();
    let (judged, _) = process(
        sensor_uuid,
        measurement_value,
        measurement_metadata.unwrap_or(no_metadata),
        measurement_timestamp,
    )
    .or_raise();
    data_id_of(&judged)
}

/// Takes one reading through the pipeline; what cannot be accepted is an error.
fn process(
    sensor_uuid: Option<Uuid>,
    measurement_value: Option<f64>,
    metadata: Jsonb<'_>,
    measurement_timestamp: Option<TimestampWithTimeZone>,
) -> IotResult<(Judged, Vec<Uuid>)> {
    crate::catalog::require_setup()?;
    let missing = |argument| {
        counters::add_refused();
        IotError::null_argument(argument)
    };
    let offered = Offered {
        sensor_id: *sensor_uuid.ok_or_else(|| missing("sensor_uuid"))?.as_bytes(),
        value: Measured::Number(measurement_value.ok_or_else(|| missing("measurement_value"))?),
        arrived_at: None,
        unit: None,
        metadata,
        measured_at: measurement_timestamp.map(clock::from_pg),
    };
    let mut outcome = batch::run(&[offered])?;
    if let Some((_, error)) = outcome.rejections.pop() {
        return Err(error);
    }
    Ok((outcome.judged[0], outcome.alerts))
}

fn data_id_of(judged: &Judged) -> Uuid {
    Uuid::from_bytes(match judged.fate {
        Fate::Duplicate(Some(stored)) => stored,
        _ => judged.data_id,
    })
}

// The row is spelled out because pgrx reads its types from here.
#[allow(clippy::type_complexity)]
#[pg_extern(sql = false)]
fn process_sensor_data_ex(
    sensor_uuid: Option<Uuid>,
    measurement_value: Option<f64>,
    measurement_metadata: Option<Jsonb<'_>>,
    measurement_timestamp: Option<TimestampWithTimeZone>,
) -> TableIterator<
    'static,
    (
        name!(data_id, Uuid),
        name!(measurement_timestamp, TimestampWithTimeZone),
        name!(measurement_value, f64),
        name!(data_quality, &'static str),
        name!(quality_reasons, Vec<&'static str>),
        name!(anomaly_score, f64),
        name!(is_anomaly, bool),
        name!(is_onset, bool),
        name!(is_duplicate, bool),
        name!(alert_ids, Vec<Uuid>),
    ),
> {
    let no_metadata = Jsonb::empty_object();
    let (judged, alerts) = process(
        sensor_uuid,
        measurement_value,
        measurement_metadata.unwrap_or(no_metadata),
        measurement_timestamp,
    )
    .or_raise();
    TableIterator::once((
        data_id_of(&judged),
        clock::to_pg(judged.at),
        judged.value,
        judged.quality.verdict().as_str(),
        judged.quality.reasons().collect(),
        judged.score,
        judged.is_anomaly,
        judged.is_onset,
        judged.fate.is_duplicate(),
        alerts,
    ))
}
