//! Readings as applications offer them: JSON objects with the keys of our columns or of their own messages.
//!
//! Every key has a fixed meaning (see [`OfferedReading`]) or none. What has none is not lost: it belongs to the
//! metadata of the reading. `null` under a key with a meaning is the same as no such key, and so is the empty
//! string where something is to be identified.

mod decode;
mod error;
mod field;
mod metadata;
mod time;
mod value;

pub use error::PayloadError;
pub use metadata::{Extra, Metadata};
pub use time::OfferedTime;

use crate::jsonb::{ArrayIter, Document, Object, Value};

/// The readings of `document`: the elements of an array, or the document itself if it is an object.
///
/// # Errors
/// When it is neither. Elements that are no objects come out as they are, to be refused one by one.
pub fn readings<'a>(document: &Document<'a>) -> Result<Readings<'a>, PayloadError> {
    match document.root() {
        Value::Array(array) => Ok(Readings { single: None, elements: Some(array.iter()) }),
        object @ Value::Object(_) => Ok(Readings { single: Some(object), elements: None }),
        other => Err(PayloadError::NotAnObject { found: error::excerpt(other) }),
    }
}

/// The values of a document that should be readings, in their order.
#[derive(Clone, Debug)]
pub struct Readings<'a> {
    single: Option<Value<'a>>,
    elements: Option<ArrayIter<'a>>,
}

impl<'a> Iterator for Readings<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        match &mut self.elements {
            Some(elements) => elements.next(),
            None => self.single.take(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.elements {
            Some(elements) => elements.size_hint(),
            None => (0, Some(usize::from(self.single.is_some()))),
        }
    }
}

/// A reading, borrowed from the document that holds it.
///
/// Where two keys mean the same, both may be given if they agree. Keys in `snake_case` may also be written in
/// `camelCase`, except those of one word:
///
/// | keys | meaning |
/// |---|---|
/// | `sensor_id` | the sensor's UUID |
/// | `sensor_name`, `measurement_name` | its name on the device |
/// | `sensor_type` | what it measures |
/// | `device_id` | the device's UUID, or any key of the device, text or integer |
/// | `device_serial_number`, `serial_number` | the device's serial number |
/// | `external_id` | the device's key in the application |
/// | `measurement_timestamp`, `timestamp`, `recorded_at`, `measured_at`, `time`, `ts` | [`OfferedTime`] |
/// | `measurement_value`, `value` | the value; its JSON type decides what it is |
/// | `numeric_value`, `text_value`, `boolean_value`, `json_value` | the value, of the type that the key says |
/// | `measurement_unit`, `unit`, `unit_of_measure` | the unit of the value |
/// | `measurement_metadata`, `metadata` | metadata |
/// | `device_name`, `device_type`, `location`, `status` | about the device; kept in the metadata too |
#[derive(Clone, Debug, PartialEq)]
pub struct OfferedReading<'a> {
    /// Whose reading it is.
    pub sensor: SensorReference<'a>,
    /// When it was measured.
    pub measured_at: OfferedTime<'a>,
    /// What was measured.
    pub value: OfferedValue<'a>,
    /// Unit of the value.
    pub unit: Option<&'a str>,
    /// What stands under `metadata`, without what belongs to it besides; see [`Self::merged_metadata`].
    pub metadata: Option<Value<'a>>,
    /// All that it says about its sensor and device, to check them or to register them.
    pub origin: Origin<'a>,
    object: Object<'a>,
    extra_count: usize,
}

/// How a reading names its sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SensorReference<'a> {
    /// By its UUID, which needs no device.
    ById([u8; 16]),
    /// By what it is on a device.
    ByDevice {
        /// The device.
        device: DeviceReference<'a>,
        /// The sensor there.
        sensor: SensorName<'a>,
    },
}

/// How a reading names its device. Of several keys, the first in this order counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceReference<'a> {
    /// By its UUID: `device_id` in the usual form of a UUID, 36 characters.
    ById([u8; 16]),
    /// By its serial number.
    BySerial(&'a str),
    /// By its key in the application.
    ByExternalId(&'a str),
    /// By another text in `device_id`: an external id, or else a serial number.
    AnyKey(&'a str),
    /// By an integer in `device_id`, whose decimal digits are an external id, or else a serial number.
    AnyNumber(i64),
}

/// The sensor of a device by name, type or both; at least one is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SensorName<'a> {
    /// Name, unique on the device.
    pub name: Option<&'a str>,
    /// What it measures, such as `temperature`.
    pub sensor_type: Option<&'a str>,
}

/// What a reading says about where it comes from, used to find the sensor or not. No text is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The device, if any is named.
    pub device: Option<DeviceReference<'a>>,
    /// The sensor's name and type; both may be missing here.
    pub sensor: SensorName<'a>,
    /// `device_serial_number`.
    pub serial_number: Option<&'a str>,
    /// `external_id`.
    pub external_id: Option<&'a str>,
    /// `device_name`, if it is text.
    pub device_name: Option<&'a str>,
    /// `device_type`, if it is text.
    pub device_type: Option<&'a str>,
    /// `location`, if it is text.
    pub location: Option<&'a str>,
    /// `status`, if it is text. Whether of the device or of the reading is for the application to say.
    pub status: Option<&'a str>,
}

/// The value of a reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OfferedValue<'a> {
    /// A number; finite, unless text said otherwise.
    Number(f64),
    /// Text. Under `value` or `measurement_value` it may stand for a number if the sensor's values are numbers;
    /// see [`parse_number`](crate::ingest::parse_number).
    Text(&'a str),
    /// Yes or no.
    Boolean(bool),
    /// A structure; under `json_value` any JSON but null.
    Json(Value<'a>),
    /// A key of a value is there, but it is null: the device reports, without a value.
    Missing,
}
