//! Readings as the roads hand them over.

use iot_core::ingest::parse_number;
use iot_core::time::Timestamp;

use crate::pg::jsonb::Jsonb;

/// A reading as offered.
#[derive(Clone, Copy)]
pub struct Offered<'a> {
    /// `iot.sensors.sensor_id`.
    pub sensor_id: [u8; 16],
    /// When it was measured; nothing means on arrival, and then it is never a duplicate.
    pub measured_at: Option<Timestamp>,
    /// When it first reached the server, for one without `measured_at` that was held up on its way.
    pub arrived_at: Option<Timestamp>,
    /// What was measured.
    pub value: Measured<'a>,
    /// Unit of a number, where the device says one; it is converted to the sensor's.
    pub unit: Option<&'a str>,
    /// What the device said beside it.
    pub metadata: Jsonb<'a>,
}

/// What was measured: a number, or what else the sensor declares.
#[derive(Clone, Copy)]
pub enum Measured<'a> {
    /// As the device sent it, before calibration.
    Number(f64),
    /// `text_value`.
    Text(&'a str),
    /// `boolean_value`.
    Boolean(bool),
    /// `json_value`.
    Json(Jsonb<'a>),
}

impl Measured<'_> {
    /// The number, if it is one, or a text that reads as one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Number(value) => Some(*value),
            Self::Text(text) => parse_number(text).ok(),
            _ => None,
        }
    }

    /// Name of its type, as in `sensors.value_type`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Number(_) => "numeric",
            Self::Text(_) => "text",
            Self::Boolean(_) => "boolean",
            Self::Json(_) => "json",
        }
    }
}
