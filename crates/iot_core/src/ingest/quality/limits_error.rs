//! What can be wrong with quality limits.

use std::fmt;

use super::limits::KNOWN_KEYS;
use crate::number::Shortest;

/// Why quality limits are refused.
#[derive(Clone, Debug, PartialEq)]
pub enum QualityLimitsError {
    /// The limits are not a JSON object.
    NotAnObject {
        /// What they are.
        found: String,
    },
    /// There is no such key.
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A finite number was expected.
    NotANumber {
        /// The key.
        key: &'static str,
        /// What is there.
        found: String,
    },
    /// The number is below zero.
    Negative {
        /// The key.
        key: &'static str,
        /// The number.
        value: f64,
    },
}

impl QualityLimitsError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NotAnObject { .. } => {
                "Use a JSON object such as {\"maximum_rate\": 0.5, \"flatline_after_seconds\": 3600}."
                    .to_owned()
            }
            Self::UnknownKey { .. } => format!("Known keys are {}.", KNOWN_KEYS.join(", ")),
            Self::NotANumber { .. } => "Use a finite number, as a JSON number or string.".to_owned(),
            Self::Negative { key, .. } => {
                format!("Use a number from 0 on, or leave \"{key}\" out to turn its check off.")
            }
        }
    }
}

impl fmt::Display for QualityLimitsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject { found } => {
                write!(formatter, "quality limits must be a JSON object, not {found}")
            }
            Self::UnknownKey { key } => write!(formatter, "unknown quality limit \"{key}\""),
            Self::NotANumber { key, found } => {
                write!(formatter, "quality limit \"{key}\" must be a finite number, not {found}")
            }
            Self::Negative { key, value } => {
                write!(formatter, "quality limit \"{key}\" must not be negative, but is {}", Shortest(*value))
            }
        }
    }
}

impl std::error::Error for QualityLimitsError {}
