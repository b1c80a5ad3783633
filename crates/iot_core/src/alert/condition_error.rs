//! What can be wrong with the conditions of a rule.

use std::fmt;

use super::parse::MAXIMUM_DEPTH;
use crate::number::Shortest;

/// Why conditions are refused.
#[derive(Clone, Debug, PartialEq)]
pub struct ConditionError {
    /// Where, such as `or[1].threshold_high`. Empty for the whole.
    pub path: String,
    /// What is wrong there.
    pub problem: ConditionProblem,
}

/// What is wrong at the path of a [`ConditionError`].
#[derive(Clone, Debug, PartialEq)]
pub enum ConditionProblem {
    /// The last key of the path means nothing.
    UnknownKey {
        /// The keys that do.
        known: &'static [&'static str],
    },
    /// A key is missing from the object at the path.
    MissingKey {
        /// The key.
        key: &'static str,
    },
    /// The value is not what it should be.
    Malformed {
        /// What it should be.
        expected: Expected,
        /// What it is, shortened.
        found: String,
    },
    /// The lower bound is greater than the upper one.
    Reversed {
        /// The lower bound.
        low: f64,
        /// The upper bound.
        high: f64,
    },
    /// A nested condition object has no keys.
    Empty,
    /// Condition objects are nested too deep.
    TooDeep,
}

/// What a value of a condition should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A condition object.
    Condition,
    /// A non-empty array of condition objects.
    Conditions,
    /// A finite number.
    Number,
    /// A pair of numbers.
    Bounds,
    /// An object with start and end.
    TimeWindow,
    /// A time of day.
    TimeOfDay,
    /// The name of a time zone.
    TimeZone,
    /// An object or array.
    Metadata,
}

impl Expected {
    fn description(self) -> &'static str {
        match self {
            Self::Condition => "a condition object",
            Self::Conditions => "a non-empty array of condition objects",
            Self::Number => "a finite number",
            Self::Bounds => "a pair of numbers",
            Self::TimeWindow => "an object with start and end",
            Self::TimeOfDay => "a time of day",
            Self::TimeZone => "the name of a time zone",
            Self::Metadata => "an object or an array",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Condition => "Use a JSON object such as {\"threshold_high\": 30}.",
            Self::Conditions => "Use an array such as [{\"threshold_high\": 30}, {\"threshold_low\": 5}].",
            Self::Number => "Use a finite number, as a JSON number or string.",
            Self::Bounds => "Use [low, high] or {\"low\": 5, \"high\": 30}.",
            Self::TimeWindow => "Use an object such as {\"start\": \"22:00\", \"end\": \"06:00\"}.",
            Self::TimeOfDay => "Use a string HH:MM or HH:MM:SS, from 00:00 to 24:00.",
            Self::TimeZone => "Use a string such as \"Europe/Berlin\", or leave the key out.",
            Self::Metadata => "Use the object or array that the metadata of the reading must contain.",
        }
    }
}

impl ConditionError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match &self.problem {
            ConditionProblem::UnknownKey { known } => format!("Known keys are {}.", known.join(", ")),
            ConditionProblem::MissingKey { key } => format!("Add the key \"{key}\"."),
            ConditionProblem::Malformed { expected, .. } => expected.hint().to_owned(),
            ConditionProblem::Reversed { .. } => "Put the lower bound first.".to_owned(),
            ConditionProblem::Empty => "Add a condition, or leave the object out.".to_owned(),
            ConditionProblem::TooDeep => format!("Nest condition objects at most {MAXIMUM_DEPTH} deep."),
        }
    }
}

impl fmt::Display for ConditionError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let ConditionProblem::UnknownKey { .. } = self.problem {
            return write!(formatter, "unknown key \"{}\" in rule conditions", self.path);
        }
        match self.path.as_str() {
            "" => formatter.write_str("rule conditions ")?,
            path => write!(formatter, "rule condition \"{path}\" ")?,
        }
        match &self.problem {
            ConditionProblem::UnknownKey { .. } => Ok(()),
            ConditionProblem::MissingKey { key } => write!(formatter, "must have the key \"{key}\""),
            ConditionProblem::Malformed { expected, found } => {
                write!(formatter, "must be {}, not {found}", expected.description())
            }
            ConditionProblem::Reversed { low, high } => {
                write!(
                    formatter,
                    "must not have a low of {} above its high of {}",
                    Shortest(*low),
                    Shortest(*high)
                )
            }
            ConditionProblem::Empty => formatter.write_str("must not be an empty object"),
            ConditionProblem::TooDeep => {
                write!(formatter, "must not be nested more than {MAXIMUM_DEPTH} deep")
            }
        }
    }
}

impl std::error::Error for ConditionError {}
