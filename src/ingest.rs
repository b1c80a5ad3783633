//! The function roads into the engine: one reading, arrays, and jsonb.

use iot_core::ingest::{Calibration, QualityFlags};
use pgrx::datum::{TimestampWithTimeZone, Uuid};
use pgrx::pg_extern;

use crate::engine::batch::{self, Offered};
use crate::engine::judge::Fate;
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::clock;
use crate::pg::jsonb::{Jsonb, JsonbImage};

#[pg_extern(sql = false)]
fn process_sensor_data(
    sensor_uuid: Option<Uuid>,
    measurement_value: Option<f64>,
    measurement_metadata: Option<Jsonb<'_>>,
    measurement_timestamp: Option<TimestampWithTimeZone>,
) -> Uuid {
    let no_metadata = JsonbImage::empty_object();
    process(
        sensor_uuid,
        measurement_value,
        measurement_metadata.unwrap_or(no_metadata.as_jsonb()),
        measurement_timestamp,
    )
    .or_raise()
}

fn process(
    sensor_uuid: Option<Uuid>,
    measurement_value: Option<f64>,
    metadata: Jsonb<'_>,
    measurement_timestamp: Option<TimestampWithTimeZone>,
) -> IotResult<Uuid> {
    crate::catalog::require_setup()?;
    let offered = Offered {
        sensor_id: *sensor_uuid.ok_or_else(|| IotError::null_argument("sensor_uuid"))?.as_bytes(),
        value: measurement_value.ok_or_else(|| IotError::null_argument("measurement_value"))?,
        metadata,
        measured_at: measurement_timestamp.map(clock::from_pg),
    };
    let mut outcome = batch::run(&[offered])?;
    if let Some((_, error)) = outcome.rejections.pop() {
        return Err(error);
    }
    let judged = &outcome.judged[0];
    let data_id = match judged.fate {
        Fate::Duplicate(Some(stored)) => stored,
        _ => judged.data_id,
    };
    Ok(Uuid::from_bytes(data_id))
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
fn quality_reasons(quality_flags: i32) -> Vec<&'static str> {
    QualityFlags(quality_flags).reasons().collect()
}
