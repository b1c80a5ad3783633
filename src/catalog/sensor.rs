//! `iot.sensors` with its device and calibration: what a reading needs to know of its sensor.

use iot_core::ingest::PhysicalRange;
use iot_core::time::Timestamp;
use pgrx::Uuid;
use pgrx::datum::Interval;

use crate::error::{IotError, IotResult};
use crate::pg::clock;
use crate::pg::jsonb::Jsonb;
use crate::pg::statement::Session;
use crate::statement;

/// A sensor as registered, and the calibration that holds at the reading's time.
pub struct Sensor<'session> {
    /// The sensor's key.
    pub sensor_id: Uuid,
    /// The device that carries it.
    pub device_id: Uuid,
    /// The device's type, if known.
    pub device_type_id: Option<Uuid>,
    /// The device's organization, if any.
    pub organization_id: Option<Uuid>,
    /// What it measures, such as `temperature`.
    pub sensor_type: String,
    /// Unit of the calibrated value.
    pub unit: String,
    /// Lifecycle state; only `active` sensors are read.
    pub status: String,
    /// Physical limits of the calibrated value.
    pub physical_range: PhysicalRange,
    /// Display name.
    pub sensor_name: String,
    /// Display name of the device.
    pub device_name: String,
    /// Calibration valid at the reading's time.
    pub calibration: Jsonb<'session>,
    /// How far back readings are accepted, when `setup()` was told.
    pub retention: Option<Interval>,
}

statement!(LOAD: (UUIDOID, TIMESTAMPTZOID)
    "SELECT s.device_id, d.device_type_id, d.organization_id, s.sensor_type, s.unit_of_measure, s.sensor_status,
            s.physical_minimum, s.physical_maximum, s.sensor_name, d.device_name,
            COALESCE(c.calibration_data, s.calibration_data),
            (SELECT p.retention FROM iot.partition_policy p
              WHERE p.parent OPERATOR(pg_catalog.=) 'iot.sensor_data'::pg_catalog.regclass)
       FROM iot.sensors s
       JOIN iot.devices d ON d.device_id OPERATOR(pg_catalog.=) s.device_id
       LEFT JOIN iot.sensor_calibrations c
         ON c.sensor_id OPERATOR(pg_catalog.=) s.sensor_id
        AND c.valid_from OPERATOR(pg_catalog.<=) $2 AND c.valid_to OPERATOR(pg_catalog.>) $2
      WHERE s.sensor_id OPERATOR(pg_catalog.=) $1");

/// The sensor `sensor_id` as it stood at the time `at`, whatever its state.
///
/// # Errors
/// 42704 when it does not exist or is hidden from the caller by row security.
pub fn load<'session>(
    session: &mut Session<'session>,
    sensor_id: Uuid,
    at: Timestamp,
) -> IotResult<Sensor<'session>> {
    let Some(row) = session.execute(&LOAD, &[sensor_id.into(), clock::to_pg(at).into()])?.first() else {
        return Err(IotError::unknown_object(format!("sensor \"{sensor_id}\" does not exist"))
            .hint("Register it in iot.sensors first, and check that row security lets this role see it.")
            .because("unknown_sensor"));
    };
    let calibration = row.jsonb(11)?.ok_or_else(|| {
        IotError::wrong_state(format!("sensor \"{sensor_id}\" has a NULL calibration"))
            .hint("Set iot.sensors.calibration_data to '{}'.")
    })?;
    Ok(Sensor {
        sensor_id,
        device_id: row.get(1)?,
        device_type_id: row.optional(2)?,
        organization_id: row.optional(3)?,
        sensor_type: row.get(4)?,
        unit: row.get(5)?,
        status: row.get(6)?,
        physical_range: PhysicalRange { minimum: row.optional(7)?, maximum: row.optional(8)? },
        sensor_name: row.get(9)?,
        device_name: row.get(10)?,
        calibration,
        retention: row.optional(12)?,
    })
}

impl Sensor<'_> {
    /// Refuses a sensor that is not in service.
    ///
    /// # Errors
    /// 55000.
    pub fn require_active(&self) -> IotResult<()> {
        if self.status == "active" {
            return Ok(());
        }
        Err(IotError::wrong_state(format!("sensor \"{}\" is not active", self.sensor_id))
            .detail(format!("Its sensor_status is \"{}\".", self.status))
            .hint("Set iot.sensors.sensor_status to 'active' to accept its readings.")
            .because("inactive_sensor"))
    }
}
