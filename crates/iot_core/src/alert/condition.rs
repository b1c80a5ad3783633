//! The compiled form of a rule's conditions.

use serde_json::Value;

use super::ConditionError;
use super::parse::parse;
use crate::time::TimeOfDay;

/// The conditions of a rule, checked once and ready to be evaluated against any number of readings.
///
/// What only the shell can decide (jsonb containment, clocks in time zones) stands in two tables, to which
/// the conditions refer by index.
#[derive(Clone, Debug, PartialEq)]
pub struct CompiledCondition {
    pub(super) root: Node,
    pub(super) metadata_checks: Vec<Value>,
    pub(super) time_zones: Vec<String>,
    pub(super) uses_default_zone: bool,
}

/// One condition, in the order in which the members of an object are evaluated: comparisons before time
/// windows before metadata before groups, so that the cheap ones decide first.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    ThresholdHigh(f64),
    ThresholdLow(f64),
    Between(Bounds),
    Outside(Bounds),
    TimeWindow { start: TimeOfDay, end: TimeOfDay, zone: Option<usize> },
    MetadataCheck(usize),
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
}

/// A closed range of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds {
    pub low: f64,
    pub high: f64,
}

impl CompiledCondition {
    /// Compiles a JSON object, all of whose keys must hold:
    ///
    /// - `threshold_high`: the value is greater than the number. `threshold_low`: it is less.
    /// - `between`: the value lies in `[low, high]` or `{"low": …, "high": …}`, inclusive. `outside`: not so.
    /// - `time_window`: `{"start": "HH:MM", "end": "HH:MM", "timezone": …}`, inclusive. A start after the end
    ///   means overnight; without a zone, the default zone counts.
    /// - `metadata_check`: the reading's metadata contain this object or array, as jsonb `@>` decides.
    /// - `and`, `or`: all or any of a non-empty array of condition objects. `not`: an object that must fail.
    ///
    /// Numbers may also be JSON strings. The empty object, which always holds, is allowed at the top only.
    ///
    /// # Errors
    /// For anything else, with the path to it.
    pub fn parse(json: &Value) -> Result<Self, ConditionError> {
        parse(json)
    }

    /// Whether there is no condition at all, which always holds.
    pub fn is_empty(&self) -> bool {
        matches!(&self.root, Node::And(nodes) if nodes.is_empty())
    }

    /// The operands of `metadata_check`.
    pub fn metadata_checks(&self) -> &[Value] {
        &self.metadata_checks
    }

    /// The zones named by time windows, each once. Whether they exist is for the shell to check.
    pub fn time_zones(&self) -> &[String] {
        &self.time_zones
    }

    /// Whether some time window names no zone.
    pub fn uses_default_zone(&self) -> bool {
        self.uses_default_zone
    }
}
