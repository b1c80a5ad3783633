//! Processing rules: from readings to derived readings, in the transaction that takes them in.
//!
//! A rule is data, not code: [`ProcessingRule::parse`] reads its kind and parameters. [`RuleSet::build`] puts
//! the rules of one device into an order in which each comes after what it reads, and refuses loops.
//! [`RuleSet::run`] applies them to one reading, with what it must remember in a [`Memory`]; a [`Replay`] does so
//! again after stored readings have changed.

mod expression;
mod memory;
mod parse;
mod processing_error;
mod replay;
mod resolve;
mod rule;
mod rule_set;
mod rule_set_error;
mod run;
mod sort;
mod state;
mod state_bytes;

pub use expression::{
    EvaluationError, Expression, ExpressionError, ExpressionProblem, MAXIMUM_LENGTH, MAXIMUM_NESTING,
    MAXIMUM_NODES,
};
pub use memory::{Memory, Observation, SeriesKey};
pub use parse::MAXIMUM_NAME_LENGTH;
pub use processing_error::{ExpectedDefinition, ProcessingError};
pub use replay::{Replay, Replayed};
pub use rule::{Input, NamedInput, Operation, Per, ProcessingRule, Reference, Window};
pub use rule_set::{DeviceSensor, Needs, RuleSet, RuleSource, SetRule};
pub use rule_set_error::{RuleSetError, RuleSetProblem};
pub use run::{Output, Reading};
pub use state::{MAXIMUM_ENTRIES, ProcessingState, StateError};
