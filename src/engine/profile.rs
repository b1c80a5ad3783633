//! What a reading needs to know of its sensor: everything that the registry, the calibration history and the alert
//! rules say, prepared for use.

use std::rc::Rc;

use iot_core::detect::DetectorKind;
use iot_core::ingest::{Calibrated, Calibration, QualityLimits, accept_value, parse_number};
use iot_core::time::Timestamp;
use pgrx::{PgSqlErrorCode, Uuid};

use super::offered::Measured;
use crate::alert::Rule;
use crate::error::{IotError, IotResult};
use crate::pg::value::TextImage;
use crate::unit;

/// A sensor as registered.
pub struct Profile {
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
    /// The same two as stored with each reading.
    pub images: (TextImage, TextImage),
    /// Lifecycle state; only `active` sensors are read.
    pub status: String,
    /// Type of its readings: `numeric`, `text`, `boolean` or `json`.
    pub value_type: String,
    /// Physical range of the calibrated value, and the other limits of its quality.
    pub limits: QualityLimits,
    /// How its readings are scored.
    pub detector: DetectorKind,
    /// Display name.
    pub sensor_name: String,
    /// Display name of the device.
    pub device_name: String,
    /// The current calibration, for times that the history does not cover.
    pub calibration: IotResult<Calibration>,
    /// The calibration history, oldest first.
    pub calibrations: Vec<CalibrationPeriod>,
    /// Active alert rules that cover it, by rule id.
    pub rules: Vec<Rc<Rule>>,
}

/// A calibration and when it holds.
pub struct CalibrationPeriod {
    /// First time.
    pub from: Timestamp,
    /// First time after.
    pub to: Timestamp,
    /// What holds; an error when it was written while the triggers were away and cannot be used.
    pub calibration: IotResult<Calibration>,
}

impl Profile {
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

    /// The number to calibrate, in the sensor's unit; `None` for a sensor whose readings are no numbers.
    ///
    /// # Errors
    /// 42804 for a value of another type than the sensor declares; text that should be a number is read as one, with the
    /// errors of [`parse_number`] and [`accept_value`]; 22023 for a unit that is not known or of another dimension.
    pub fn number(&self, value: &Measured<'_>, unit: Option<&str>) -> IotResult<Option<f64>> {
        let number = match value {
            Measured::Number(number) if self.value_type == "numeric" => Some(*number),
            Measured::Text(text) if self.value_type == "numeric" => {
                let number = parse_number(text).map_err(|error| {
                    IotError::from(error).detail(format!("Sensor \"{}\" takes numbers.", self.sensor_id))
                })?;
                Some(accept_value(number)?)
            }
            other if self.value_type == other.type_name() => return Ok(None),
            _ => None,
        };
        let Some(number) = number else {
            return Err(IotError::new(
                PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                format!(
                    "sensor \"{}\" takes {} values, not {}",
                    self.sensor_id,
                    self.value_type,
                    value.type_name()
                ),
            )
            .hint("Send the type that iot.sensors.value_type declares, or change it there.")
            .because("wrong_type"));
        };
        match unit {
            Some(unit) if unit != self.unit && !self.unit.is_empty() => {
                unit::to_unit(number, unit, &self.unit).map(Some)
            }
            _ => Ok(Some(number)),
        }
    }

    /// The physical value of `raw`, by the calibration that held at `at`, and since when that one holds.
    ///
    /// # Errors
    /// 22003 when the result is not finite; 22023 when the calibration cannot be used.
    pub fn calibrate(&self, raw: f64, at: Timestamp) -> IotResult<(Calibrated, Option<Timestamp>)> {
        // Most readings are new, and the current calibration stands last.
        let period = self.calibrations.iter().rev().find(|period| period.from <= at && at < period.to);
        period
            .map_or(&self.calibration, |period| &period.calibration)
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|calibration| calibration.apply(raw).map_err(IotError::from))
            .map(|calibrated| (calibrated, period.map(|period| period.from)))
            .map_err(|error| {
                error.detail(format!("Calibration of sensor \"{}\".", self.sensor_id)).because("calibration")
            })
    }
}

/// A sensor that is not there, or hidden.
pub fn unknown_sensor(sensor_id: Uuid) -> IotError {
    IotError::unknown_object(format!("sensor \"{sensor_id}\" does not exist"))
        .hint("Register it in iot.sensors first, and check that row security lets this role see it.")
        .because("unknown_sensor")
}
