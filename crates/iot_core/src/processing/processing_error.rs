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
            Self::Reference => {
                "Use an object such as {\"sensor_name\": \"inlet\"} or {\"output\": \"smooth\"}."
            }
        }
    }
}

impl ProcessingError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::UnknownType { .. } => format!("Known types are {}.", RULE_TYPES.join(", ")),
            Self::NotAnObject { .. } => {
                "Use a JSON object such as {\"factor\": 1.8, \"offset\": 32}.".to_owned()
            }
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
                write!(
                    formatter,
                    "processing rule key \"{key}\" must be {}, not {found}",
                    expected.description()
                )
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
                write!(
                    formatter,
                    "processing rule has the input \"{name}\", which its expression does not use"
                )
            }
            Self::Expression { error } => write!(formatter, "processing rule key \"expression\": {error}"),
        }
    }
}

impl std::error::Error for ProcessingError {}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::rule::{Input, Operation, Per, ProcessingRule, Window};

    fn parsed(rule_type: &str, definition: Value) -> ProcessingRule {
        ProcessingRule::parse(rule_type, &definition).unwrap()
    }

    #[test]
    fn definitions() {
        let rule = parsed(
            "scale",
            json!({"factor": "2", "output": "o", "unit": "K", "input": "raw", "offset": null}),
        );
        assert_eq!(rule.operation, Operation::Scale { factor: 2.0, offset: 0.0 });
        assert_eq!((rule.output.as_deref(), rule.unit.as_deref()), (Some("o"), Some("K")));
        assert_eq!(rule.input, Input::Raw);
        let rule = parsed("clamp", json!({"minimum": 1, "maximum": 1, "input": "o"}));
        assert_eq!(rule.operation, Operation::Clamp { minimum: Some(1.0), maximum: Some(1.0) });
        assert_eq!(rule.input, Input::Output("o".to_owned()));
        for (definition, window) in [
            (json!({"readings": 1000}), Window::Readings(1000)),
            (json!({"seconds": 0.5}), Window::Micros(500_000)),
        ] {
            assert_eq!(parsed("moving_average", definition).operation, Operation::MovingAverage(window));
        }
        for (definition, per) in [(json!({}), Per::None), (json!({"per": "hour"}), Per::Hour)] {
            assert_eq!(parsed("difference", definition).operation, Operation::Difference { per });
        }
        assert!(parsed("difference", json!({})).has_state());
        let over_device = json!({"expression": "t", "inputs": {"t": {"sensor_type": "temperature"}}});
        assert!(parsed("expression", over_device).is_of_device());
        assert!(!parsed("expression", json!({"expression": "raw + value", "input": "o"})).is_of_device());
    }

    #[test]
    fn malformed_definitions_name_key_and_value() {
        let input = |name: &str, reference: Value| json!({"expression": "1", "inputs": {name: reference}});
        for (rule_type, definition, message) in [
            ("sql", json!({}), "unknown processing rule type \"sql\""),
            ("scale", json!([1]), "definition of a processing rule must be a JSON object, not [1]"),
            ("scale", json!({"faktor": 1}), "unknown processing rule key \"faktor\""),
            ("clamp", json!({"factor": 1}), "unknown processing rule key \"factor\""),
            (
                "clamp",
                json!({"unit": "K"}),
                "definition of a processing rule must have the key \"minimum\" or \"maximum\"",
            ),
            (
                "scale",
                json!({"factor": "inf"}),
                "processing rule key \"factor\" must be a finite number, not \"inf\"",
            ),
            (
                "clamp",
                json!({"minimum": 2, "maximum": 1.5}),
                "processing rule must not have a minimum of 2 above its maximum of 1.5",
            ),
            (
                "moving_average",
                json!({"readings": 3, "seconds": 3}),
                "processing rule has both \"readings\" and \"seconds\"",
            ),
            (
                "moving_average",
                json!({"readings": 1001}),
                "processing rule key \"readings\" must be a whole number from 1 to 1000, not 1001",
            ),
            (
                "moving_average",
                json!({"readings": 1.5}),
                "processing rule key \"readings\" must be a whole number from 1 to 1000, not 1.5",
            ),
            (
                "moving_average",
                json!({"seconds": 0}),
                "processing rule key \"seconds\" must be a number of seconds from 0.001 to 31622400, not 0",
            ),
            (
                "difference",
                json!({"per": "day"}),
                "processing rule key \"per\" must be none, second, minute or hour, not \"day\"",
            ),
            (
                "difference",
                json!({"output": ""}),
                "processing rule key \"output\" must be a string of 1 to 255 characters, not \"\"",
            ),
            (
                "difference",
                json!({"output": "raw"}),
                "processing rule key \"output\" must not use the reserved name \"raw\"",
            ),
            (
                "expression",
                json!({"inputs": {}}),
                "definition of a processing rule must have the key \"expression\"",
            ),
            (
                "expression",
                json!({"expression": 1}),
                "processing rule key \"expression\" must be a string with an expression, not 1",
            ),
            (
                "expression",
                json!({"expression": "value +"}),
                "processing rule key \"expression\": expression must have a number, a name or \"(\", not its end, at character 8",
            ),
            (
                "expression",
                json!({"expression": "raw", "input": "o"}),
                "processing rule has the input \"value\", which its expression does not use",
            ),
            (
                "expression",
                input("t", json!({"sensor_name": "n"})),
                "processing rule has the input \"t\", which its expression does not use",
            ),
            (
                "expression",
                json!({"expression": "1", "inputs": [1]}),
                "processing rule key \"inputs\" must be an object of sensor references, not [1]",
            ),
            (
                "expression",
                input("2t", json!({"sensor_name": "n"})),
                "processing rule key \"inputs.2t\" must be named with ASCII letters, digits and _, not \"2t\"",
            ),
            (
                "expression",
                input("Min", json!({"sensor_name": "n"})),
                "processing rule key \"inputs.Min\" must not use the reserved name \"Min\"",
            ),
            (
                "expression",
                input("t", json!("n")),
                "processing rule key \"inputs.t\" must be an object that refers to a sensor or an output, not \"n\"",
            ),
            (
                "expression",
                input("t", json!({"max_age_seconds": 1})),
                "processing rule key \"inputs.t\" must have the key \"sensor_name\" or \"sensor_type\" or \"output\"",
            ),
            (
                "expression",
                input("t", json!({"sensor_name": "n", "sensor_type": "t"})),
                "processing rule has both \"inputs.t.sensor_name\" and \"inputs.t.sensor_type\"",
            ),
            (
                "expression",
                input("t", json!({"sensor": "n"})),
                "unknown processing rule key \"inputs.t.sensor\"",
            ),
            (
                "expression",
                input("t", json!({"output": "value"})),
                "processing rule key \"inputs.t.output\" must not use the reserved name \"value\"",
            ),
        ] {
            let error = ProcessingRule::parse(rule_type, &definition).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert!(error.hint().ends_with('.'), "{}", error.hint());
        }
    }

    #[test]
    fn hints_list_what_is_known() {
        let hint = |rule_type: &str, definition: Value| {
            ProcessingRule::parse(rule_type, &definition).unwrap_err().hint()
        };
        assert_eq!(
            hint("sql", json!({})),
            "Known types are scale, clamp, moving_average, difference, expression."
        );
        assert_eq!(hint("scale", json!({"x": 1})), "Known keys are factor, offset, input, output, unit.");
        assert_eq!(hint("scale", json!({})), "Add one of the keys factor, offset.");
        assert_eq!(hint("expression", json!({})), "Add the key \"expression\".");
    }
}
