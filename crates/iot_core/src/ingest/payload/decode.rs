//! From the pairs of an object to a reading, in one pass.

use super::error::{excerpt, quoted};
use super::field::Field;
use super::{
    DeviceReference, OfferedReading, OfferedTime, OfferedValue, Origin, PayloadError, SensorName,
    SensorReference,
};
use crate::jsonb::{Object, Value};

/// What a key said first, and which.
struct Slot<'a, T> {
    said: Option<(&'a [u8], T)>,
}

impl<T> Default for Slot<'_, T> {
    fn default() -> Self {
        Self { said: None }
    }
}

impl<'a, T: Copy + PartialEq> Slot<'a, T> {
    /// The keys are given back if they disagree.
    #[inline]
    fn set(&mut self, key: &'a [u8], value: T) -> Result<(), (&'a [u8], &'a [u8])> {
        match self.said {
            Some((first, said)) if said != value => Err((first, key)),
            Some(_) => Ok(()),
            None => {
                self.said = Some((key, value));
                Ok(())
            }
        }
    }

    fn get(&self) -> Option<T> {
        self.said.map(|(_, value)| value)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum DeviceKey<'a> {
    Id([u8; 16]),
    Text(&'a str),
    Number(i64),
}

#[derive(Default)]
struct Slots<'a> {
    sensor_id: Slot<'a, [u8; 16]>,
    sensor_name: Slot<'a, &'a str>,
    sensor_type: Slot<'a, &'a str>,
    device_id: Slot<'a, DeviceKey<'a>>,
    serial_number: Slot<'a, &'a str>,
    external_id: Slot<'a, &'a str>,
    device_name: Slot<'a, &'a str>,
    device_type: Slot<'a, &'a str>,
    location: Option<&'a str>,
    status: Option<&'a str>,
    time: Slot<'a, OfferedTime<'a>>,
    value: Slot<'a, OfferedValue<'a>>,
    has_null_value: bool,
    unit: Slot<'a, &'a str>,
    metadata: Slot<'a, Value<'a>>,
    extra_count: usize,
}

impl<'a> OfferedReading<'a> {
    /// Reads `value`, an element of the offered array.
    ///
    /// # Errors
    /// When it is not an object, and those of [`Self::from_object`].
    pub fn from_value(value: Value<'a>) -> Result<Self, PayloadError> {
        match value {
            Value::Object(object) => Self::from_object(object),
            other => Err(PayloadError::NotAnObject { found: excerpt(other) }),
        }
    }

    /// Reads a reading from its pairs.
    ///
    /// # Errors
    /// When it names no sensor or has no key of a value, when something has the wrong type or cannot be read, and
    /// when two keys disagree.
    pub fn from_object(object: Object<'a>) -> Result<Self, PayloadError> {
        let mut slots = Slots::default();
        for (key, child) in object.children() {
            match Field::of(key) {
                Some(field) => slots.take(field, key, child.value())?,
                None => slots.extra_count += 1,
            }
        }
        slots.finish(object)
    }
}

impl<'a> Slots<'a> {
    #[inline]
    fn take(&mut self, field: Field, key: &'a [u8], value: Value<'a>) -> Result<(), PayloadError> {
        if value.is_null() {
            self.has_null_value |= matches!(
                field,
                Field::Value
                    | Field::NumericValue
                    | Field::TextValue
                    | Field::BooleanValue
                    | Field::JsonValue
            );
            return Ok(());
        }
        self.extra_count += usize::from(field.is_kept());
        let outcome = match field {
            Field::SensorId => match text(key, value)? {
                "" => Ok(()),
                id => self.sensor_id.set(key, parse_uuid(id).ok_or_else(|| bad_identifier(key, value))?),
            },
            Field::DeviceId => match device_key(key, value)? {
                Some(device) => self.device_id.set(key, device),
                None => Ok(()),
            },
            Field::SensorName => set_name(&mut self.sensor_name, key, text(key, value)?),
            Field::SensorType => set_name(&mut self.sensor_type, key, text(key, value)?),
            Field::SerialNumber => set_name(&mut self.serial_number, key, text(key, value)?),
            Field::ExternalId => set_name(&mut self.external_id, key, text(key, value)?),
            Field::DeviceName => set_name(&mut self.device_name, key, plain_text(value)),
            Field::DeviceType => set_name(&mut self.device_type, key, plain_text(value)),
            Field::Location => {
                self.location = Some(plain_text(value)).filter(|text| !text.is_empty());
                Ok(())
            }
            Field::Status => {
                self.status = Some(plain_text(value)).filter(|text| !text.is_empty());
                Ok(())
            }
            Field::Time => self.time.set(key, offered_time(key, value)?),
            Field::Unit => self.unit.set(key, text(key, value)?),
            Field::Metadata => self.metadata.set(key, value),
            Field::Value
            | Field::NumericValue
            | Field::TextValue
            | Field::BooleanValue
            | Field::JsonValue => {
                return self.value.set(key, OfferedValue::new(field, key, value)?).map_err(
                    |(first, second)| PayloadError::AmbiguousValue {
                        first: quoted(first),
                        second: quoted(second),
                    },
                );
            }
        };
        outcome.map_err(|(first, second)| PayloadError::Contradiction {
            first: quoted(first),
            second: quoted(second),
        })
    }

    fn finish(self, object: Object<'a>) -> Result<OfferedReading<'a>, PayloadError> {
        let origin = Origin {
            device: self.device(),
            sensor: SensorName { name: self.sensor_name.get(), sensor_type: self.sensor_type.get() },
            serial_number: self.serial_number.get(),
            external_id: self.external_id.get(),
            device_name: self.device_name.get(),
            device_type: self.device_type.get(),
            location: self.location,
            status: self.status,
        };
        let sensor = match (self.sensor_id.get(), origin.device, origin.sensor) {
            (Some(id), _, _) => SensorReference::ById(id),
            (None, _, SensorName { name: None, sensor_type: None }) => {
                return Err(PayloadError::MissingSensor);
            }
            (None, None, _) => return Err(PayloadError::MissingDevice),
            (None, Some(device), sensor) => SensorReference::ByDevice { device, sensor },
        };
        let value = match self.value.get() {
            Some(value) => value,
            None if self.has_null_value => OfferedValue::Missing,
            None => return Err(PayloadError::MissingValue),
        };
        let reading = OfferedReading {
            sensor,
            measured_at: self.time.get().unwrap_or(OfferedTime::Missing),
            value,
            unit: self.unit.get(),
            metadata: self.metadata.get(),
            origin,
            object,
            extra_count: self.extra_count,
        };
        reading.check_metadata()?;
        Ok(reading)
    }

    fn device(&self) -> Option<DeviceReference<'a>> {
        let serial = self.serial_number.get().map(DeviceReference::BySerial);
        let external = self.external_id.get().map(DeviceReference::ByExternalId);
        match self.device_id.get() {
            Some(DeviceKey::Id(id)) => Some(DeviceReference::ById(id)),
            Some(DeviceKey::Text(text)) => serial.or(external).or(Some(DeviceReference::AnyKey(text))),
            Some(DeviceKey::Number(number)) => {
                serial.or(external).or(Some(DeviceReference::AnyNumber(number)))
            }
            None => serial.or(external),
        }
    }
}

/// An empty name is none.
fn set_name<'a>(
    slot: &mut Slot<'a, &'a str>,
    key: &'a [u8],
    name: &'a str,
) -> Result<(), (&'a [u8], &'a [u8])> {
    if name.is_empty() { Ok(()) } else { slot.set(key, name) }
}

fn text<'a>(key: &[u8], value: Value<'a>) -> Result<&'a str, PayloadError> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(PayloadError::wrong_type(key, "a string", other)),
    }
}

/// What is not text says nothing here; it is kept with the metadata.
fn plain_text(value: Value<'_>) -> &str {
    if let Value::String(text) = value { text } else { "" }
}

fn device_key<'a>(key: &[u8], value: Value<'a>) -> Result<Option<DeviceKey<'a>>, PayloadError> {
    let device = match value {
        Value::String("") => return Ok(None),
        Value::String(text) => {
            Some(parse_canonical_uuid(text.as_bytes()).map_or(DeviceKey::Text(text), DeviceKey::Id))
        }
        Value::Number(number) => number.to_i64().map(DeviceKey::Number),
        _ => None,
    };
    device.map(Some).ok_or_else(|| PayloadError::wrong_type(key, "a string or an integer", value))
}

fn offered_time<'a>(key: &[u8], value: Value<'a>) -> Result<OfferedTime<'a>, PayloadError> {
    match value {
        Value::String(text) => Ok(OfferedTime::from_text(text)),
        Value::Number(number) => OfferedTime::from_unix(number)
            .ok_or_else(|| PayloadError::BadTime { key: quoted(key), found: excerpt(value) }),
        other => Err(PayloadError::wrong_type(key, "a string or a number", other)),
    }
}

fn bad_identifier(key: &[u8], value: Value<'_>) -> PayloadError {
    PayloadError::BadIdentifier { key: quoted(key), found: excerpt(value) }
}

/// The forms of a UUID in use: 36 characters, the same in braces, or 32 digits.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    match bytes {
        [b'{', inner @ .., b'}'] => parse_canonical_uuid(inner),
        _ if bytes.len() == 32 => parse_hex(bytes.as_chunks::<2>().0.iter()),
        _ => parse_canonical_uuid(bytes),
    }
}

#[inline]
fn parse_canonical_uuid(text: &[u8]) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.try_into().ok()?;
    if [text[8], text[13], text[18], text[23]] != [b'-'; 4] {
        return None;
    }
    // Each run between the hyphens has an even number of digits.
    let runs = [&text[..8], &text[9..13], &text[14..18], &text[19..23], &text[24..]];
    parse_hex(runs.into_iter().flat_map(|run| run.as_chunks::<2>().0))
}

#[inline]
fn parse_hex<'a>(pairs: impl Iterator<Item = &'a [u8; 2]>) -> Option<[u8; 16]> {
    let mut id = [0; 16];
    // One test at the end is faster than one for each digit.
    let mut seen = 0;
    for (byte, [high, low]) in id.iter_mut().zip(pairs) {
        let (high, low) = (HEX_DIGITS[usize::from(*high)], HEX_DIGITS[usize::from(*low)]);
        seen |= high | low;
        *byte = high << 4 | low & 0xF;
    }
    (seen <= 0xF).then_some(id)
}

/// The value of each hexadecimal digit; more than 15 for other bytes.
static HEX_DIGITS: [u8; 256] = {
    let mut values = [0xFF; 256];
    let mut digit = 0;
    while digit < 16 {
        values[b"0123456789abcdef"[digit] as usize] = digit as u8;
        values[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    values
};
