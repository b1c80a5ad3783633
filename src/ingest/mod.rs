//! The function roads into the engine: one reading, arrays, and jsonb.

mod arrays;
mod json;
mod replay;
mod sensors;
mod single;

use iot_core::ingest::{Calibration, QualityFlags, QualityLimits};
use pgrx::datum::Uuid;
use pgrx::pg_extern;

use crate::engine::batch::{self, Totals};
use crate::error::{IotError, OrRaise};
use crate::pg::clock;
use crate::pg::jsonb::Jsonb;

/// Readings that are in memory at a time: enough for bulk speed, and memory stays flat.
const CHUNK: usize = 10_000;

/// The row that `ingest` returns.
type TotalsRow = (i64, i64, i64, i64, i64);

fn row_of(totals: Totals) -> TotalsRow {
    let Totals { accepted, rejected, duplicates, anomalies, alerts } = totals;
    (accepted, rejected, duplicates, anomalies, alerts)
}

#[pg_extern(sql = false)]
fn generate_data_id() -> Uuid {
    batch::next_data_id(clock::now()).map(Uuid::from_bytes).or_raise()
}

#[pg_extern(sql = false)]
fn validate_calibration(calibration_data: Option<Jsonb<'_>>) {
    let calibration = calibration_data.ok_or_else(|| IotError::null_argument("calibration_data")).or_raise();
    Calibration::from_json(&calibration.parse().or_raise()).or_raise();
}

#[pg_extern(sql = false)]
fn validate_quality_limits(quality_limits: Option<Jsonb<'_>>) {
    let limits = quality_limits.ok_or_else(|| IotError::null_argument("quality_limits")).or_raise();
    QualityLimits::from_json(&limits.parse().or_raise()).or_raise();
}

#[pg_extern(sql = false)]
fn quality_reasons(quality_flags: i32) -> Vec<&'static str> {
    QualityFlags(quality_flags).reasons().collect()
}
