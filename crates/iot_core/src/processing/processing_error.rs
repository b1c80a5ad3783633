//! What can be wrong with the definition of a processing rule.

use std::fmt;

use super::expression::ExpressionError;
use super::parse::{MAXIMUM_NAME_LENGTH, RULE_TYPES};
use super::state::MAXIMUM_ENTRIES;
use crate::number::Shortest;

/// Why a definition is refused.
#[derive(Clone, Debug, PartialEq)]
pub enum ProcessingError {
    /// There is no such type of rule.
    UnknownType {
        /// The type.
        found: String,
    },
    /// The definition is not a JSON object.
    NotAnObject {
        /// What it is, shortened.
        found: String,
    },
    /// A key means nothing for this type of rule.
    UnknownKey {
        /// The key, with the path to it.
        key: String,
        /// The keys that do.
        known: Vec<&'static str>,
    },
    /// None of the keys that are needed is there.
    MissingKey {
        /// Where: empty for the definition itself, else the key of an object in it.
        within: String,
        /// The keys of which one is needed.
        keys: &'static [&'static str],
    },
    /// Two keys exclude each other.
    Conflict {
        /// The first.
        first: String,
        /// The second.
        second: String,
    },
    /// The value of a key is not what it should be.
    Malformed {
        /// The key, with the path to it.
        key: String,
        /// What its value should be.
        expected: ExpectedDefinition,
        /// What it is, shortened.
        found: String,
    },
    /// The minimum is greater than the maximum.
    Reversed {
        /// The minimum.
        minimum: f64,
        /// The maximum.
        maximum: f64,
    },
    /// A name already means something else.
    Reserved {
        /// The key, with the path to it.
        key: String,
        /// The name.
        name: String,
    },
    /// The expression does not use an input.
    UnusedInput {
        /// The name of the input.
        name: String,
    },
    /// The expression is malformed.
    Expression {
        /// How.
        error: ExpressionError,
    },
}

/// What the value of a key should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedDefinition {
    /// A finite number.
    Number,
    /// A whole number of readings.
    Readings,
    /// A length of time in seconds.
    Seconds,
    /// The unit of time of a difference.
    Per,
    /// A name.
    Name,
    /// The text of an expression.
    Expression,
    /// An object of sensor references.
    Inputs,
    /// The name of an input.
    InputName,
    /// A sensor reference.
    Reference,
}

impl ExpectedDefinition {
    fn description(self) -> String {
        match self {
            Self::Number => "a finite number".to_owned(),
            Self::Readings => format!("a whole number from 1 to {MAXIMUM_ENTRIES}"),
            Self::Seconds => "a number of seconds from 0.001 to 31622400".to_owned(),
            Self::Per => "none, second, minute or hour".to_owned(),
            Self::Name => format!("a string of 1 to {MAXIMUM_NAME_LENGTH} characters"),
            Self::Expression => "a string with an expression".to_owned(),
            Self::Inputs => "an object of sensor references".to_owned(),
            Self::InputName => "named with ASCII letters, digits and _".to_owned(),
            Self::Reference => "an object that refers to a sensor or an output".to_owned(),
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Number => "Use a finite number, as a JSON number or string.",
            Self::Readings => "Use the number of readings to average, such as 10.",
            Self::Seconds => "Use a length of time in seconds, such as 60; the longest is 366 days.",
            Self::Per => "Use one of the strings \"none\", \"second\", \"minute\", \"hour\".",
            Self::Name => "Use a non-empty string, or leave the key out.",
            Self::Expression => "Use a string such as \"value * 1.8 + 32\".",
            Self::Inputs => "Use an object such as {\"t\": {\"sensor_type\": \"temperature\"}}.",
            Self::InputName => "Use a name such as t or outside_2, not beginning with a digit.",
            Self::Reference => "Use an object such as {\"sensor_name\": \"inlet\"} or {\"output\": \"smooth\"}.",
        }
    }
}

impl ProcessingError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::UnknownType { .. } => format!("Known types are {}.", RULE_TYPES.join(", ")),
            Self::NotAnObject { .. } => "Use a JSON object such as {\"factor\": 1.8, \"offset\": 32}.".to_owned(),
            Self::UnknownKey { known, .. } => format!("Known keys are {}.", known.join(", ")),
            Self::MissingKey { keys: [key], .. } => format!("Add the key \"{key}\"."),
            Self::MissingKey { keys, .. } => format!("Add one of the keys {}.", keys.join(", ")),
            Self::Conflict { .. } => "Leave one of the two keys out.".to_owned(),
            Self::Malformed { expected, .. } => expected.hint().to_owned(),
            Self::Reversed { .. } => "Swap minimum and maximum.".to_owned(),
            Self::Reserved { .. } => "Choose another name.".to_owned(),
            Self::UnusedInput { .. } => "Use the input in the expression, or leave it out.".to_owned(),
            Self::Expression { error } => error.hint(),
        }
    }
}

impl fmt::Display for ProcessingError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownType { found } => write!(formatter, "unknown processing rule type \"{found}\""),
            Self::NotAnObject { found } => {
                write!(formatter, "definition of a processing rule must be a JSON object, not {found}")
            }
            Self::UnknownKey { key, .. } => write!(formatter, "unknown processing rule key \"{key}\""),
            Self::MissingKey { within, keys } => {
                match within.as_str() {
                    "" => formatter.write_str("definition of a processing rule")?,
                    key => write!(formatter, "processing rule key \"{key}\"")?,
                }
                write!(formatter, " must have the key \"{}\"", keys.join("\" or \""))
            }
            Self::Conflict { first, second } => {
                write!(formatter, "processing rule has both \"{first}\" and \"{second}\"")
            }
            Self::Malformed { key, expected, found } => {
                write!(formatter, "processing rule key \"{key}\" must be {}, not {found}", expected.description())
            }
            Self::Reversed { minimum, maximum } => write!(
                formatter,
                "processing rule must not have a minimum of {} above its maximum of {}",
                Shortest(*minimum),
                Shortest(*maximum)
            ),
            Self::Reserved { key, name } => {
                write!(formatter, "processing rule key \"{key}\" must not use the reserved name \"{name}\"")
            }
            Self::UnusedInput { name } => {
                write!(formatter, "processing rule has the input \"{name}\", which its expression does not use")
            }
            Self::Expression { error } => write!(formatter, "processing rule key \"expression\": {error}"),
        }
    }
}

impl std::error::Error for ProcessingError {}
