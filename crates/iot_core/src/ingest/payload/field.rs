//! What the keys of a reading mean.

/// What a key tells of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    SensorId,
    SensorName,
    SensorType,
    DeviceId,
    SerialNumber,
    ExternalId,
    DeviceName,
    DeviceType,
    Location,
    Status,
    Time,
    /// A value whose JSON type decides what it is.
    Value,
    NumericValue,
    TextValue,
    BooleanValue,
    JsonValue,
    Unit,
    Metadata,
}

impl Field {
    /// The meaning of `key`: a column of the readings, of their sensor or device, or the same in the spelling of
    /// JavaScript. `None` for a key that is kept with the metadata.
    #[inline]
    pub(super) fn of(key: &[u8]) -> Option<Self> {
        // The length alone tells most of them apart, so a key is compared with two or three others at most.
        Some(match key {
            b"sensor_id" | b"sensorId" => Self::SensorId,
            b"sensor_name" | b"sensorName" | b"measurement_name" | b"measurementName" => Self::SensorName,
            b"sensor_type" | b"sensorType" => Self::SensorType,
            b"device_id" | b"deviceId" => Self::DeviceId,
            b"device_serial_number" | b"deviceSerialNumber" | b"serial_number" | b"serialNumber" => {
                Self::SerialNumber
            }
            b"external_id" | b"externalId" => Self::ExternalId,
            b"device_name" | b"deviceName" => Self::DeviceName,
            b"device_type" | b"deviceType" => Self::DeviceType,
            b"location" => Self::Location,
            b"status" => Self::Status,
            b"measurement_timestamp"
            | b"measurementTimestamp"
            | b"timestamp"
            | b"recorded_at"
            | b"recordedAt"
            | b"measured_at"
            | b"measuredAt"
            | b"time"
            | b"ts" => Self::Time,
            b"value" | b"measurement_value" | b"measurementValue" => Self::Value,
            b"numeric_value" | b"numericValue" => Self::NumericValue,
            b"text_value" | b"textValue" => Self::TextValue,
            b"boolean_value" | b"booleanValue" => Self::BooleanValue,
            b"json_value" | b"jsonValue" => Self::JsonValue,
            b"unit" | b"measurement_unit" | b"measurementUnit" | b"unit_of_measure" | b"unitOfMeasure" => {
                Self::Unit
            }
            b"metadata" | b"measurement_metadata" | b"measurementMetadata" => Self::Metadata,
            _ => return None,
        })
    }

    /// Whether the reading keeps it in its metadata too: it describes the device at that time, and no column of
    /// the reading takes it.
    pub(super) fn is_kept(self) -> bool {
        matches!(self, Self::DeviceName | Self::DeviceType | Self::Location | Self::Status)
    }
}
