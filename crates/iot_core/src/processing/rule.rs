//! A rule in its parsed form.

use super::expression::Expression;
use super::state::MAXIMUM_ENTRIES;
use crate::time::{MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND};

/// One processing rule: what it reads, what it does, and how its results are called.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessingRule {
    /// Name of the derived readings; `None` for the name of the rule.
    pub output: Option<String>,
    /// Unit of the derived readings, if one is given.
    pub unit: Option<String>,
    /// What the rule is applied to, and what `value` means in an expression.
    pub input: Input,
    /// What the rule does.
    pub operation: Operation,
}

/// What a rule is applied to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The value as the device sent it.
    Raw,
    /// The calibrated value. The default.
    Value,
    /// The output of this name, of the same sensor or of the device as a whole.
    Output(String),
}

/// What a rule does with its input.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Multiplies, then adds.
    Scale {
        /// The factor; 1 unless given.
        factor: f64,
        /// The number added; 0 unless given.
        offset: f64,
    },
    /// Limits to a closed range.
    Clamp {
        /// The lower end, if any.
        minimum: Option<f64>,
        /// The upper end, if any.
        maximum: Option<f64>,
    },
    /// The mean of the newest readings, this one included.
    MovingAverage(Window),
    /// The change since the previous reading.
    Difference {
        /// The time that the change is divided by.
        per: Per,
    },
    /// Computes from several numbers.
    Expression {
        /// The expression. Its names are `value`, `raw`, then those of `inputs`.
        expression: Expression,
        /// The numbers it reads beside the rule's own input.
        inputs: Vec<NamedInput>,
    },
}

/// Which readings a moving average covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The newest ones, this many at most; 1 to [`super::MAXIMUM_ENTRIES`].
    Readings(usize),
    /// Those of the last so many microseconds; at least a millisecond.
    Micros(i64),
}

/// The time that a difference is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// None: the plain difference.
    None,
    /// Change per second.
    Second,
    /// Change per minute.
    Minute,
    /// Change per hour.
    Hour,
}

/// An input of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedInput {
    /// Its name in the expression.
    pub name: String,
    /// What it stands for.
    pub reference: Reference,
    /// How far its time may lie from that of the reading, before or after, in microseconds. Farther is
    /// missing.
    pub maximum_age: Option<i64>,
}

/// What an input of an expression stands for: the latest value of a series of the same device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The sensor of this name.
    SensorName(String),
    /// The sensor of this type.
    SensorType(String),
    /// The output of a rule.
    Output {
        /// The name of the output.
        output: String,
        /// The sensor whose readings the rule is applied to, where several have such an output.
        sensor_name: Option<String>,
    },
}

/// Index of `value` among the names of an expression.
pub(super) const VALUE: usize = 0;
/// Index of `raw` among the names of an expression.
pub(super) const RAW: usize = 1;
/// Index of the first named input among the names of an expression.
pub(super) const FIRST_INPUT: usize = 2;

impl Per {
    /// The length in microseconds; `None` for the plain difference.
    pub fn micros(self) -> Option<i64> {
        match self {
            Self::None => None,
            Self::Second => Some(MICROS_PER_SECOND),
            Self::Minute => Some(MICROS_PER_MINUTE),
            Self::Hour => Some(MICROS_PER_HOUR),
        }
    }
}

impl ProcessingRule {
    /// Whether the rule must remember earlier readings.
    pub fn has_state(&self) -> bool {
        matches!(self.operation, Operation::MovingAverage(_) | Operation::Difference { .. })
    }

    /// Whether the rule is about the device rather than about one sensor: an expression that mentions neither
    /// `value` nor `raw`. A rule applied to the output of such a one is so too, which is known only within a
    /// set of rules.
    pub fn is_of_device(&self) -> bool {
        match &self.operation {
            Operation::Expression { expression, .. } => !expression.uses(VALUE) && !expression.uses(RAW),
            _ => false,
        }
    }
}

impl Window {
    /// Length of a step of a window of time, in microseconds: a thousandth, rounded up.
    pub(super) fn step(micros: i64) -> i64 {
        let entries = MAXIMUM_ENTRIES as i64;
        (micros / entries + i64::from(micros % entries != 0)).max(1)
    }
}

impl Reference {
    /// The reference as JSON text, for messages.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::SensorName(name) => format!("sensor_name \"{name}\""),
            Self::SensorType(name) => format!("sensor_type \"{name}\""),
            Self::Output { output, sensor_name: None } => format!("output \"{output}\""),
            Self::Output { output, sensor_name: Some(sensor) } => {
                format!("output \"{output}\" of sensor_name \"{sensor}\"")
            }
        }
    }
}
