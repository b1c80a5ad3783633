//! What can be wrong with an offered reading.

use std::fmt::{self, Write};

use crate::jsonb::Value;

/// Longest quotation of a value in a message, in characters.
const EXCERPT_LENGTH: usize = 60;

/// Why a reading cannot be taken as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PayloadError {
    /// It is not a JSON object.
    NotAnObject {
        /// What it is.
        found: String,
    },
    /// It names neither a sensor, nor the name or type of one.
    MissingSensor,
    /// It names a sensor by name or type, but no device.
    MissingDevice,
    /// None of its keys is one of a value.
    MissingValue,
    /// The value of a key has the wrong JSON type.
    WrongType {
        /// The key.
        key: String,
        /// What is expected, such as `a string`.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The text should be a number, and is none.
    Malformed {
        /// The key.
        key: String,
        /// What is there.
        found: String,
    },
    /// The sensor's key is not a UUID.
    BadIdentifier {
        /// The JSON key.
        key: String,
        /// What is there.
        found: String,
    },
    /// The number is not a point in time.
    BadTime {
        /// The key.
        key: String,
        /// What is there.
        found: String,
    },
    /// The number is too large or too small for `double precision`.
    OutOfRange {
        /// The key.
        key: String,
        /// What is there.
        found: String,
    },
    /// Two keys give values that are not the same.
    AmbiguousValue {
        /// One key.
        first: String,
        /// The other.
        second: String,
    },
    /// Two keys say different things about the same.
    Contradiction {
        /// One key.
        first: String,
        /// The other; `metadata.` and a key for one inside of the metadata.
        second: String,
    },
}

impl PayloadError {
    /// The reason in one word, as `rejected_readings` records it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotAnObject { .. } => "not_an_object",
            Self::MissingSensor => "missing_sensor",
            Self::MissingDevice => "missing_device",
            Self::MissingValue => "missing_value",
            Self::WrongType { .. } => "wrong_type",
            Self::Malformed { .. } => "malformed",
            Self::BadIdentifier { .. } => "bad_identifier",
            Self::BadTime { .. } => "bad_time",
            Self::OutOfRange { .. } => "out_of_range",
            Self::AmbiguousValue { .. } => "ambiguous_value",
            Self::Contradiction { .. } => "contradiction",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotAnObject { .. } => {
                "Use a JSON object such as {\"sensor_id\": \"...\", \"measurement_value\": 21.5}, or an array of them."
            }
            Self::MissingSensor | Self::MissingDevice => {
                "Give sensor_id, or device_id, device_serial_number or external_id with sensor_name or sensor_type."
            }
            Self::MissingValue => {
                "Give measurement_value, or one of numeric_value, text_value, boolean_value and json_value."
            }
            Self::WrongType { .. } => "Give the value as this type, or leave the key out.",
            Self::Malformed { .. } => "Write a decimal number with a point, such as 21.5 or -1.5e3.",
            Self::BadIdentifier { .. } => {
                "Use the UUID of a registered sensor, or sensor_name together with the device."
            }
            Self::BadTime { .. } => {
                "Use ISO 8601 with a time zone, such as \"2025-06-13T10:00:00Z\", or a Unix time in seconds, \
                 milliseconds, microseconds or nanoseconds."
            }
            Self::OutOfRange { .. } => "Use a number within the range of double precision.",
            Self::AmbiguousValue { .. } => "Give each reading one value.",
            Self::Contradiction { .. } => "Leave one of the two out.",
        }
    }

    pub(super) fn wrong_type(key: &[u8], expected: &'static str, found: Value<'_>) -> Self {
        Self::WrongType { key: quoted(key), expected, found: excerpt(found) }
    }
}

impl fmt::Display for PayloadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject { found } => write!(formatter, "reading must be a JSON object, not {found}"),
            Self::MissingSensor => formatter.write_str("reading names no sensor"),
            Self::MissingDevice => formatter.write_str("reading names a sensor but not its device"),
            Self::MissingValue => formatter.write_str("reading has no value"),
            Self::WrongType { key, expected, found } => {
                write!(formatter, "reading key \"{key}\" must be {expected}, not {found}")
            }
            Self::Malformed { key, found } => {
                write!(formatter, "reading key \"{key}\" must be a number, not {found}")
            }
            Self::BadIdentifier { key, found } => {
                write!(formatter, "reading key \"{key}\" must be a UUID, not {found}")
            }
            Self::BadTime { key, found } => {
                write!(formatter, "reading key \"{key}\" must be a point in time, not {found}")
            }
            Self::OutOfRange { key, found } => {
                write!(formatter, "reading key \"{key}\" is out of range for double precision: {found}")
            }
            Self::AmbiguousValue { first, second } => {
                write!(formatter, "reading has two values, \"{first}\" and \"{second}\"")
            }
            Self::Contradiction { first, second } => {
                write!(formatter, "reading keys \"{first}\" and \"{second}\" contradict each other")
            }
        }
    }
}

impl std::error::Error for PayloadError {}

/// A key for a message.
pub(super) fn quoted(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

/// `value` as JSON text, cut to a length fit for a message. Of a large one, no more is written than is shown.
pub(super) fn excerpt(value: Value<'_>) -> String {
    let mut excerpt = Excerpt { text: String::new(), left: EXCERPT_LENGTH };
    if write!(excerpt, "{value}").is_err() {
        excerpt.text.push_str("...");
    }
    excerpt.text
}

/// Takes no more characters than are left, and refuses to go on then.
struct Excerpt {
    text: String,
    left: usize,
}

impl Write for Excerpt {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match text.char_indices().nth(self.left) {
            Some((end, _)) => {
                self.text.push_str(&text[..end]);
                self.left = 0;
                Err(fmt::Error)
            }
            None => {
                self.left -= text.chars().count();
                self.text.push_str(text);
                Ok(())
            }
        }
    }
}
