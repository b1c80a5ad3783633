//! What can be wrong with the rules of a device as a whole.

use std::fmt;

use super::processing_error::ProcessingError;

/// Why a set of rules is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSetError {
    /// Ids of the rules without which the problem does not exist.
    pub rules: Vec<u128>,
    /// What is wrong.
    pub problem: RuleSetProblem,
}

/// What is wrong with a set of rules. Rules are named by their names.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleSetProblem {
    /// The definition of a rule is malformed.
    Definition {
        /// The rule.
        rule: String,
        /// How.
        error: ProcessingError,
    },
    /// Two rules give their results for the same readings the same name.
    DuplicateOutput {
        /// The name.
        output: String,
        /// The rule that comes first.
        first: String,
        /// The other.
        second: String,
    },
    /// A rule refers to a sensor or output that the device does not have.
    UnknownReference {
        /// The rule.
        rule: String,
        /// The key of the reference, with the path to it.
        key: String,
        /// What it refers to.
        reference: String,
    },
    /// A rule refers to what several sensors have.
    Ambiguous {
        /// The rule.
        rule: String,
        /// The key of the reference, with the path to it.
        key: String,
        /// What it refers to.
        reference: String,
        /// The names of the sensors.
        sensors: Vec<String>,
    },
    /// A rule is applied to no readings: none of the sensors in its scope is one that it reads.
    NeverRuns {
        /// The rule.
        rule: String,
    },
    /// Rules read each other's outputs in a circle.
    Loop {
        /// The rules, of which each reads the output of the next and the last that of the first.
        rules: Vec<String>,
    },
}

impl RuleSetError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match &self.problem {
            RuleSetProblem::Definition { error, .. } => error.hint(),
            RuleSetProblem::DuplicateOutput { .. } => {
                "Give one of the two rules another \"output\", or another scope.".to_owned()
            }
            RuleSetProblem::UnknownReference { .. } => {
                "Refer to a sensor of the same device, or to the output of an active rule for it.".to_owned()
            }
            RuleSetProblem::Ambiguous { sensors, .. } => {
                format!("Choose one with the key \"sensor_name\": {}.", sensors.join(", "))
            }
            RuleSetProblem::NeverRuns { .. } => {
                "Widen the scope of the rule to a sensor that it reads.".to_owned()
            }
            RuleSetProblem::Loop { .. } => "Let one of the rules read something else.".to_owned(),
        }
    }
}

impl fmt::Display for RuleSetError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            RuleSetProblem::Definition { rule, error } => {
                write!(formatter, "processing rule \"{rule}\" is malformed: {error}")
            }
            RuleSetProblem::DuplicateOutput { output, first, second } => write!(
                formatter,
                "processing rules \"{first}\" and \"{second}\" both have the output \"{output}\" for the same readings"
            ),
            RuleSetProblem::UnknownReference { rule, key, reference } => write!(
                formatter,
                "processing rule \"{rule}\" refers in \"{key}\" to {reference}, which does not exist"
            ),
            RuleSetProblem::Ambiguous { rule, key, reference, sensors } => write!(
                formatter,
                "processing rule \"{rule}\" refers in \"{key}\" to {reference}, which {} sensors have",
                sensors.len()
            ),
            RuleSetProblem::NeverRuns { rule } => {
                write!(formatter, "processing rule \"{rule}\" is applied to no sensor that it reads")
            }
            RuleSetProblem::Loop { rules } => {
                formatter.write_str("processing rules read each other in a loop: ")?;
                for rule in rules {
                    write!(formatter, "{rule} → ")?;
                }
                formatter.write_str(rules.first().map_or("", String::as_str))
            }
        }
    }
}

impl std::error::Error for RuleSetError {}
