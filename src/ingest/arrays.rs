//! `ingest(uuid[], timestamptz[], double precision[], jsonb[])`: the fast function road.

use iot_core::time::Timestamp;
use pgrx::iter::TableIterator;
use pgrx::{name, pg_extern};

use super::{CHUNK, row_of};
use crate::engine::batch::{self, Totals};
use crate::engine::offered::{Measured, Offered};
use crate::engine::rejection::Rejection;
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::array::ArrayArgument;
use crate::pg::jsonb::Jsonb;

#[pg_extern(sql = false)]
fn ingest_arrays<'call>(
    sensor_ids: Option<ArrayArgument<'call, [u8; 16]>>,
    timestamps: Option<ArrayArgument<'call, i64>>,
    measurement_values: Option<ArrayArgument<'call, f64>>,
    metadata: Option<ArrayArgument<'call, Jsonb<'call>>>,
) -> TableIterator<
    'static,
    (
        name!(accepted, i64),
        name!(rejected, i64),
        name!(duplicates, i64),
        name!(anomalies, i64),
        name!(alerts, i64),
    ),
> {
    TableIterator::once(row_of(
        ingest(
            &sensor_ids.ok_or_else(|| IotError::null_argument("sensor_ids")).or_raise(),
            &timestamps.ok_or_else(|| IotError::null_argument("timestamps")).or_raise(),
            &measurement_values.ok_or_else(|| IotError::null_argument("measurement_values")).or_raise(),
            metadata.as_ref(),
        )
        .or_raise(),
    ))
}

fn ingest(
    sensor_ids: &ArrayArgument<'_, [u8; 16]>,
    timestamps: &ArrayArgument<'_, i64>,
    values: &ArrayArgument<'_, f64>,
    metadata: Option<&ArrayArgument<'_, Jsonb<'_>>>,
) -> IotResult<Totals> {
    crate::catalog::require_setup()?;
    let length = sensor_ids.require_length("sensor_ids", None)?;
    let like = Some(("sensor_ids", length));
    timestamps.require_length("timestamps", like)?;
    values.require_length("measurement_values", like)?;
    if let Some(metadata) = metadata {
        metadata.require_length("metadata", like)?;
    }
    let no_metadata = Jsonb::empty_object();
    let mut sensor_ids = sensor_ids.iter();
    let mut timestamps = timestamps.iter();
    let mut values = values.iter();
    let mut metadata = metadata.map(ArrayArgument::iter);
    let mut totals = Totals::default();
    let mut chunk = Vec::with_capacity(length.min(CHUNK));
    for number in 1..=length {
        let (sensor_id, value) = (sensor_ids.next().flatten(), values.next().flatten());
        let offered = Offered {
            sensor_id: sensor_id.unwrap_or_default(),
            measured_at: timestamps.next().flatten().map(Timestamp),
            value: Measured::Number(value.unwrap_or(f64::NAN)),
            arrived_at: None,
            unit: None,
            metadata: metadata.as_mut().and_then(|elements| elements.next().flatten()).unwrap_or(no_metadata),
        };
        if sensor_id.is_some() && value.is_some() {
            chunk.push(offered);
        } else {
            Rejection::incomplete(&offered, sensor_id, value)?;
            totals.rejected += 1;
        }
        if chunk.len() == CHUNK || number == length {
            totals.add(batch::run_and_keep_rejections(&chunk)?);
            chunk.clear();
        }
    }
    Ok(totals)
}
