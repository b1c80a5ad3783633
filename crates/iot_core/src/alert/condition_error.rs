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
        match self.path.as_str() {
            "" => formatter.write_str("rule conditions ")?,
            path => write!(formatter, "rule condition \"{path}\" ")?,
        }
        match &self.problem {
            ConditionProblem::UnknownKey { .. } => formatter.write_str("is unknown"),
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::parse::parse;

    #[test]
    fn malformed_conditions_name_path_and_value() {
        for (json, message) in [
            (json!(7), "rule conditions must be a condition object, not 7"),
            (json!({"treshold_high": 1}), "rule condition \"treshold_high\" is unknown"),
            (
                json!({"or": [{"threshold_low": 1}, {"threshold_high": "warm"}]}),
                "rule condition \"or[1].threshold_high\" must be a finite number, not \"warm\"",
            ),
            (
                json!({"threshold_low": null}),
                "rule condition \"threshold_low\" must be a finite number, not null",
            ),
            (
                json!({"threshold_low": "-inf"}),
                "rule condition \"threshold_low\" must be a finite number, not \"-inf\"",
            ),
            (json!({"not": {"and": [{"x": 1}]}}), "rule condition \"not.and[0].x\" is unknown"),
            (json!({"not": []}), "rule condition \"not\" must be a condition object, not []"),
            (json!({"not": {}}), "rule condition \"not\" must not be an empty object"),
            (
                json!({"and": []}),
                "rule condition \"and\" must be a non-empty array of condition objects, not []",
            ),
            (
                json!({"or": {}}),
                "rule condition \"or\" must be a non-empty array of condition objects, not {}",
            ),
            (json!({"or": [1]}), "rule condition \"or[0]\" must be a condition object, not 1"),
            (json!({"between": 5}), "rule condition \"between\" must be a pair of numbers, not 5"),
            (json!({"between": [5]}), "rule condition \"between\" must be a pair of numbers, not [5]"),
            (
                json!({"between": [1, true]}),
                "rule condition \"between[1]\" must be a finite number, not true",
            ),
            (
                json!({"between": [2, 1.5]}),
                "rule condition \"between\" must not have a low of 2 above its high of 1.5",
            ),
            (json!({"outside": {"low": 1}}), "rule condition \"outside\" must have the key \"high\""),
            (
                json!({"outside": {"low": "a", "high": 1}}),
                "rule condition \"outside.low\" must be a finite number, not \"a\"",
            ),
            (
                json!({"outside": {"low": 1, "high": 2, "mid": 1}}),
                "rule condition \"outside.mid\" is unknown",
            ),
            (
                json!({"metadata_check": "a"}),
                "rule condition \"metadata_check\" must be an object or an array, not \"a\"",
            ),
            (
                json!({"time_window": "night"}),
                "rule condition \"time_window\" must be an object with start and end, not \"night\"",
            ),
            (
                json!({"time_window": {"start": "06:00"}}),
                "rule condition \"time_window\" must have the key \"end\"",
            ),
            (
                json!({"time_window": {"start": "6am", "end": "18:00"}}),
                "rule condition \"time_window.start\" must be a time of day, not \"6am\"",
            ),
            (
                json!({"time_window": {"start": "06:00", "end": 18}}),
                "rule condition \"time_window.end\" must be a time of day, not 18",
            ),
            (
                json!({"time_window": {"start": "06:00", "end": "18:00", "timezone": ""}}),
                "rule condition \"time_window.timezone\" must be the name of a time zone, not \"\"",
            ),
            (
                json!({"time_window": {"start": "06:00", "end": "18:00", "tz": "UTC"}}),
                "rule condition \"time_window.tz\" is unknown",
            ),
        ] {
            let error = parse(&json).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert!(error.hint().ends_with('.'), "{}", error.hint());
        }
    }

    #[test]
    fn hints_list_the_keys_known_there() {
        let hint = |json: Value| parse(&json).unwrap_err().hint();
        assert_eq!(
            hint(json!({"x": 1})),
            "Known keys are threshold_high, threshold_low, between, outside, time_window, metadata_check, and, or, not."
        );
        assert_eq!(hint(json!({"time_window": {"x": 1}})), "Known keys are start, end, timezone.");
        assert_eq!(hint(json!({"between": {"x": 1}})), "Known keys are low, high.");
        assert_eq!(hint(json!({"between": {"low": 1}})), "Add the key \"high\".");
    }
}
