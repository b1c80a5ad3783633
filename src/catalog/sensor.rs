//! `iot.sensors` with devices and calibrations: what readings need to know of their sensors.

use iot_core::detect::DetectorKind;
use iot_core::ingest::{Calibration, PhysicalRange, QualityLimits};
use pgrx::Uuid;

use crate::engine::profile::{CalibrationPeriod, Profile};
use crate::error::{IotError, IotResult};
use crate::pg::clock;
use crate::pg::jsonb::Jsonb;
use crate::pg::statement::{Row, Session};
use crate::pg::value::TextImage;
use crate::statement;

statement!(LOAD: (UUIDARRAYOID)
    "SELECT s.sensor_id, s.device_id, d.device_type_id, d.organization_id, s.sensor_type, s.unit_of_measure,
            s.sensor_status, s.physical_minimum, s.physical_maximum, s.sensor_name, d.device_name, s.calibration_data,
            s.value_type, s.detector, s.quality_limits
       FROM iot.sensors s
       JOIN iot.devices d ON d.device_id OPERATOR(pg_catalog.=) s.device_id
      WHERE s.sensor_id OPERATOR(pg_catalog.=) ANY ($1)");

/// The registered ones among `sensor_ids`, in no order, without calibration history and rules.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn load(session: &mut Session<'_>, sensor_ids: Vec<Uuid>) -> IotResult<Vec<Profile>> {
    let rows = session.execute(&LOAD, &[sensor_ids.into()])?;
    let mut profiles = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        profiles.push(profile(row)?);
        Ok(())
    })?;
    Ok(profiles)
}

fn profile(row: &Row<'_>) -> IotResult<Profile> {
    let sensor_id: Uuid = row.get(1)?;
    let sensor_type: String = row.get(5)?;
    let unit: String = row.get(6)?;
    Ok(Profile {
        sensor_id,
        device_id: row.get(2)?,
        device_type_id: row.optional(3)?,
        organization_id: row.optional(4)?,
        images: (TextImage::new(&sensor_type), TextImage::new(&unit)),
        sensor_type,
        unit,
        status: row.get(7)?,
        value_type: row.get(13)?,
        limits: limits(row, sensor_id)?,
        detector: DetectorKind::from_name(&row.get::<String>(14)?).unwrap_or(DetectorKind::Zscore),
        sensor_name: row.get(10)?,
        device_name: row.get(11)?,
        calibration: parsed(row.jsonb(12)?, sensor_id),
        calibrations: Vec::new(),
        rules: Vec::new(),
    })
}

/// Limits that cannot be read (written while the trigger was away) must not cost the reading.
fn limits(row: &Row<'_>, sensor_id: Uuid) -> IotResult<QualityLimits> {
    let stored = row.jsonb(15)?.map_or(Ok(serde_json::Value::Null), |limits| limits.parse())?;
    let limits = QualityLimits::from_json(&stored).unwrap_or_else(|error| {
        IotError::from(error)
            .detail(format!("Quality limits of sensor \"{sensor_id}\" were left out."))
            .warn();
        QualityLimits::default()
    });
    Ok(QualityLimits {
        physical_range: PhysicalRange { minimum: row.optional(8)?, maximum: row.optional(9)? },
        ..limits
    })
}

fn parsed(calibration: Option<Jsonb<'_>>, sensor_id: Uuid) -> IotResult<Calibration> {
    let calibration = calibration.ok_or_else(|| {
        IotError::wrong_state(format!("sensor \"{sensor_id}\" has a NULL calibration"))
            .hint("Set iot.sensors.calibration_data to '{}'.")
    })?;
    Ok(Calibration::from_json(&calibration.parse()?)?)
}

statement!(
    /// From there on, and around the end to the beginning.
    FOLLOWING: (UUIDOID, INT8OID)
    "(SELECT s.sensor_id FROM iot.sensors s WHERE s.sensor_id OPERATOR(pg_catalog.>) $1 ORDER BY s.sensor_id LIMIT $2)
      UNION ALL
     (SELECT s.sensor_id FROM iot.sensors s WHERE s.sensor_id OPERATOR(pg_catalog.<) $1 ORDER BY s.sensor_id LIMIT $2)
      LIMIT $2");

/// The next `count` sensors after `sensor_id`, in order of their keys.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn following(session: &mut Session<'_>, sensor_id: Uuid, count: usize) -> IotResult<Vec<Uuid>> {
    let rows = session.execute(&FOLLOWING, &[sensor_id.into(), (count as i64).into()])?;
    let mut sensors = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        sensors.push(row.get(1)?);
        Ok(())
    })?;
    Ok(sensors)
}

statement!(LOAD_CALIBRATIONS: (UUIDARRAYOID)
    "SELECT c.sensor_id, c.valid_from, c.valid_to, c.calibration_data
       FROM iot.sensor_calibrations c
      WHERE c.sensor_id OPERATOR(pg_catalog.=) ANY ($1)
      ORDER BY c.sensor_id, c.valid_from");

/// The calibration histories of `sensor_ids`: each period with its sensor, by sensor and time.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn load_calibrations(
    session: &mut Session<'_>,
    sensor_ids: Vec<Uuid>,
) -> IotResult<Vec<(Uuid, CalibrationPeriod)>> {
    let rows = session.execute(&LOAD_CALIBRATIONS, &[sensor_ids.into()])?;
    let mut periods = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        let sensor_id = row.get(1)?;
        periods.push((
            sensor_id,
            CalibrationPeriod {
                from: clock::from_pg(row.get(2)?),
                to: clock::from_pg(row.get(3)?),
                calibration: parsed(row.jsonb(4)?, sensor_id),
            },
        ));
        Ok(())
    })?;
    Ok(periods)
}
