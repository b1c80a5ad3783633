//! What can be wrong with units and their conversion.

use std::fmt;

use super::Dimension;
use super::expression::MAXIMUM_LENGTH;
use crate::number::Shortest;

/// Longest quotation of a unit in an error message, in characters.
const EXCERPT_LENGTH: usize = 60;

/// `text`, cut to a length fit for a message.
pub(super) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT_LENGTH) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Why a unit cannot be read or defined, or a value cannot be converted.
#[derive(Clone, Debug, PartialEq)]
pub enum UnitError {
    /// The unit has no characters but spaces.
    Empty,
    /// The unit has too many bytes.
    TooLong {
        /// How it begins.
        expression: String,
    },
    /// There is no such unit.
    Unknown {
        /// The symbol.
        unit: String,
        /// Where it stands.
        expression: String,
        /// Known names that are similar, at most three.
        near: Vec<String>,
    },
    /// There is nothing before or after an operator.
    MissingFactor {
        /// The unit.
        expression: String,
    },
    /// A power is not a whole number from 1 to 9 or −9 to −1.
    BadPower {
        /// The power as written.
        power: String,
        /// The unit.
        expression: String,
    },
    /// A product follows a quotient, so that it is not clear what is divided.
    ProductAfterDivision {
        /// The unit.
        expression: String,
    },
    /// A unit with a zero point of its own is part of an expression.
    IntervalInExpression {
        /// Its symbol.
        unit: String,
        /// The whole unit.
        expression: String,
    },
    /// The unit is larger or smaller than any number.
    OutOfRange {
        /// The unit.
        expression: String,
    },
    /// The two units measure different things.
    DifferentDimension {
        /// The unit of the value.
        from: String,
        /// What it measures.
        from_dimension: Dimension,
        /// The unit asked for.
        to: String,
        /// What it measures.
        to_dimension: Dimension,
    },
    /// The value to convert is NaN or infinite.
    ValueNotFinite {
        /// The value.
        value: f64,
    },
    /// The converted value is beyond all numbers.
    ResultNotFinite {
        /// The value.
        value: f64,
        /// Its unit.
        from: String,
        /// The unit asked for.
        to: String,
    },
    /// A symbol to define is not one that can be read.
    BadSymbol {
        /// The symbol.
        symbol: String,
    },
    /// A symbol to define has a meaning already.
    AlreadyDefined {
        /// The symbol.
        symbol: String,
    },
    /// The factor of a definition is 0 or not finite, or too small or large together with its base unit.
    BadFactor {
        /// The symbol.
        symbol: String,
        /// The factor.
        factor: f64,
    },
    /// The offset of a definition is not finite, or too large for its factor.
    BadOffset {
        /// The symbol.
        symbol: String,
        /// The offset.
        offset: f64,
    },
}

impl UnitError {
    /// Whether the value is at fault, which is out of range, rather than a unit.
    pub fn is_out_of_range(&self) -> bool {
        matches!(self, Self::ValueNotFinite { .. } | Self::ResultNotFinite { .. })
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Empty => "Use a unit such as degC or m3/h; 1 is the unit of a plain ratio.".to_owned(),
            Self::TooLong { .. } => format!("Use at most {MAXIMUM_LENGTH} bytes."),
            Self::Unknown { near, .. } if near.is_empty() => {
                "Look it up in the list of known units. Symbols are case-sensitive.".to_owned()
            }
            Self::Unknown { near, .. } => {
                format!("Similar units are {}. Symbols are case-sensitive.", near.join(", "))
            }
            Self::MissingFactor { .. } => "Put a unit on both sides of each operator; 1/s is one.".to_owned(),
            Self::BadPower { .. } => {
                "Use a power from 1 to 9 or -9 to -1, such as m2, m^2 or m-2.".to_owned()
            }
            Self::ProductAfterDivision { .. } => {
                "Put all products first, or divide again: W/m2/K or W.m-2.K-1.".to_owned()
            }
            Self::IntervalInExpression { .. } => {
                "Use a unit that starts at zero: K for differences of degC, degR for those of degF."
                    .to_owned()
            }
            Self::OutOfRange { .. } => "Use smaller powers and prefixes.".to_owned(),
            Self::DifferentDimension { from, from_dimension, to, to_dimension } => {
                let gram_for_gravity = [(from, to_dimension), (to, from_dimension)]
                    .iter()
                    .any(|(unit, other)| unit.ends_with('g') && **other == Dimension::ACCELERATION);
                if gram_for_gravity {
                    "The symbol g is the gram; standard gravity is g0.".to_owned()
                } else {
                    "Convert between units of the same dimension.".to_owned()
                }
            }
            Self::ValueNotFinite { .. } | Self::ResultNotFinite { .. } => {
                "Check the value and its unit.".to_owned()
            }
            Self::BadSymbol { .. } => format!(
                "Use at most {MAXIMUM_LENGTH} bytes that begin with a letter, without spaces and / . * ^ \"."
            ),
            Self::AlreadyDefined { .. } => {
                "Choose another symbol, so that stored units keep their meaning.".to_owned()
            }
            Self::BadFactor { .. } => {
                "Use a finite number other than 0: how many base units one such unit is.".to_owned()
            }
            Self::BadOffset { .. } => {
                "Use a finite number: what 0 of such units is in the base unit.".to_owned()
            }
        }
    }
}

impl fmt::Display for UnitError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => formatter.write_str("unit must not be empty"),
            Self::TooLong { expression } => write!(formatter, "unit \"{expression}\" is too long"),
            Self::Unknown { unit, expression, .. } if unit == expression => {
                write!(formatter, "unknown unit \"{unit}\"")
            }
            Self::Unknown { unit, expression, .. } => {
                write!(formatter, "unknown unit \"{unit}\" in \"{expression}\"")
            }
            Self::MissingFactor { expression } => {
                write!(formatter, "unit \"{expression}\" has an operator without a unit beside it")
            }
            Self::BadPower { power, expression } => {
                write!(formatter, "invalid power \"{power}\" in unit \"{expression}\"")
            }
            Self::ProductAfterDivision { expression } => {
                write!(formatter, "unit \"{expression}\" is ambiguous: a product follows a division")
            }
            Self::IntervalInExpression { unit, expression } => write!(
                formatter,
                "unit \"{unit}\" has a zero point of its own and cannot be part of \"{expression}\""
            ),
            Self::OutOfRange { expression } => write!(formatter, "unit \"{expression}\" is out of range"),
            Self::DifferentDimension { from, from_dimension, to, to_dimension } => write!(
                formatter,
                "cannot convert \"{from}\" to \"{to}\": \"{from}\" is {}, \"{to}\" is {}",
                from_dimension.noun_phrase(),
                to_dimension.noun_phrase()
            ),
            Self::ValueNotFinite { value } => {
                write!(formatter, "value to convert must be a finite number, not {}", Shortest(*value))
            }
            Self::ResultNotFinite { value, from, to } => write!(
                formatter,
                "conversion of {} from \"{from}\" to \"{to}\" is not a finite number",
                Shortest(*value)
            ),
            Self::BadSymbol { symbol } => write!(formatter, "invalid unit symbol \"{symbol}\""),
            Self::AlreadyDefined { symbol } => write!(formatter, "unit \"{symbol}\" has a meaning already"),
            Self::BadFactor { symbol, factor } => {
                write!(formatter, "factor of unit \"{symbol}\" must not be {}", Shortest(*factor))
            }
            Self::BadOffset { symbol, offset } => {
                write!(formatter, "offset of unit \"{symbol}\" must not be {}", Shortest(*offset))
            }
        }
    }
}

impl std::error::Error for UnitError {}
