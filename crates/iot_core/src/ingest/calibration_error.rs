//! What can be wrong with a calibration.

use std::fmt;

use super::calibration::KNOWN_KEYS;
use crate::number::Shortest;

/// Why a calibration is refused, or cannot be applied to a value.
#[derive(Clone, Debug, PartialEq)]
pub enum CalibrationError {
    /// The calibration is not a JSON object.
    NotAnObject {
        /// What it is.
        found: String,
    },
    /// There is no such key.
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A number was expected.
    NotANumber {
        /// Where, such as `polynomial[2]`.
        key: String,
        /// What is there.
        found: String,
    },
    /// `polynomial` is not an array with at least one element.
    NotCoefficients {
        /// What it is.
        found: String,
    },
    /// `piecewise` is not an array with at least two elements.
    NotPoints {
        /// What it is.
        found: String,
    },
    /// An element of `piecewise` is not a pair.
    NotAPair {
        /// Position in the array, from 0.
        index: usize,
        /// What is there.
        found: String,
    },
    /// A point of `piecewise` does not lie after the one before.
    NotIncreasing {
        /// Position in the array, from 0.
        index: usize,
        /// Raw value of the point before.
        previous: f64,
        /// Raw value of the point.
        raw: f64,
    },
    /// Both `polynomial` and `piecewise` are present.
    TwoCurves,
    /// The calibrated value is not a finite number.
    NotFinite {
        /// The raw value.
        raw: f64,
    },
}

impl CalibrationError {
    /// Whether the value is at fault, which is out of range, rather than the calibration itself.
    pub fn is_out_of_range(&self) -> bool {
        matches!(self, Self::NotFinite { .. })
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NotAnObject { .. } => {
                "Use a JSON object such as {\"multiplier\": 1.8, \"offset\": 32}.".to_owned()
            }
            Self::UnknownKey { .. } => format!("Known keys are {}.", KNOWN_KEYS.join(", ")),
            Self::NotANumber { .. } => "Use a finite number, as a JSON number or string.".to_owned(),
            Self::NotCoefficients { .. } => {
                "Use an array of coefficients [c0, c1, ...] with at least one element.".to_owned()
            }
            Self::NotPoints { .. } | Self::NotAPair { .. } => {
                "Use an array of at least two pairs, [[raw, value], [raw, value], ...].".to_owned()
            }
            Self::NotIncreasing { .. } => "Order the pairs by raw value, each raw value once.".to_owned(),
            Self::TwoCurves => "Use polynomial or piecewise, not both.".to_owned(),
            Self::NotFinite { .. } => "Check the raw value against the calibration of the sensor.".to_owned(),
        }
    }
}

impl fmt::Display for CalibrationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnObject { found } => {
                write!(formatter, "calibration must be a JSON object, not {found}")
            }
            Self::UnknownKey { key } => write!(formatter, "unknown calibration key \"{key}\""),
            Self::NotANumber { key, found } => {
                write!(formatter, "calibration key \"{key}\" must be a finite number, not {found}")
            }
            Self::NotCoefficients { found } => {
                write!(
                    formatter,
                    "calibration key \"polynomial\" must be a non-empty array of numbers, not {found}"
                )
            }
            Self::NotPoints { found } => {
                write!(
                    formatter,
                    "calibration key \"piecewise\" must be an array of at least two pairs, not {found}"
                )
            }
            Self::NotAPair { index, found } => {
                write!(
                    formatter,
                    "calibration key \"piecewise[{index}]\" must be a pair [raw, value], not {found}"
                )
            }
            Self::NotIncreasing { index, previous, raw } => write!(
                formatter,
                "calibration key \"piecewise[{index}]\" has raw value {}, which is not greater than {} before it",
                Shortest(*raw),
                Shortest(*previous)
            ),
            Self::TwoCurves => formatter.write_str("calibration has both \"polynomial\" and \"piecewise\""),
            Self::NotFinite { raw } => {
                write!(formatter, "calibration of raw value {} is not a finite number", Shortest(*raw))
            }
        }
    }
}

impl std::error::Error for CalibrationError {}
