//! Alert rules: conditions on a reading, and the message when they hold.

mod condition;
mod condition_error;
mod evaluate;
mod message;
mod parse;

pub use condition::CompiledCondition;
pub use condition_error::{ConditionError, ConditionProblem, Expected};
pub use evaluate::{Environment, Verdict};
pub use message::{MessageFields, MessageTemplate, TemplateError, TemplateProblem};
