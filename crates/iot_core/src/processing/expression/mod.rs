//! The language of `expression` rules: generic mathematics over named numbers, any of which may be missing.

mod compile;
mod evaluate;
mod evaluation_error;
mod expression_error;
mod function;
mod token;

pub use compile::{Expression, MAXIMUM_LENGTH, MAXIMUM_NESTING, MAXIMUM_NODES};
pub use evaluation_error::EvaluationError;
pub use expression_error::{ExpressionError, ExpressionProblem};
pub(super) use token::{is_identifier, is_reserved};
