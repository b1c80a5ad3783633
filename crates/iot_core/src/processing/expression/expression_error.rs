//! What can be wrong with the text of an expression.

use std::fmt;

use super::compile::{MAXIMUM_LENGTH, MAXIMUM_NESTING, MAXIMUM_NODES};
use super::function::FUNCTION_NAMES;

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionError {
    /// Where, as the number of the character, from 1.
    pub character: usize,
    /// What is wrong there.
    pub problem: ExpressionProblem,
}

/// What is wrong at the place of an [`ExpressionError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpressionProblem {
    /// The text is longer than [`MAXIMUM_LENGTH`].
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// Parentheses, calls, prefix operators and right operands are nested more than [`MAXIMUM_NESTING`] deep.
    TooDeep,
    /// There are more than [`MAXIMUM_NODES`] numbers, names, operators and calls.
    TooManyNodes,
    /// A character that begins nothing.
    UnexpectedCharacter {
        /// The character.
        found: char,
    },
    /// A number that is not written as one, or not finite.
    MalformedNumber {
        /// Its text.
        found: String,
    },
    /// Something else should stand here.
    Unexpected {
        /// What should.
        expected: &'static str,
        /// What does.
        found: String,
    },
    /// A name that is not an input.
    UnknownName {
        /// The name.
        name: String,
        /// The names of the inputs.
        known: Vec<String>,
    },
    /// A call of what is not a function.
    UnknownFunction {
        /// The name.
        name: String,
    },
    /// A function has too few or too many arguments.
    ArgumentCount {
        /// The function.
        function: &'static str,
        /// How many it takes at least.
        minimum: usize,
        /// How many it takes at most; `None` for any number.
        maximum: Option<usize>,
        /// How many there are.
        found: usize,
    },
    /// A comparison of a comparison, such as `a < b < c`.
    ChainedComparison,
}

impl ExpressionError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match &self.problem {
            ExpressionProblem::TooLong { .. } => format!("Use at most {MAXIMUM_LENGTH} bytes."),
            ExpressionProblem::TooDeep => format!("Nest at most {MAXIMUM_NESTING} deep."),
            ExpressionProblem::TooManyNodes => {
                "Split the expression into several rules, of which one reads the outputs of the others."
                    .to_owned()
            }
            ExpressionProblem::UnexpectedCharacter { .. } => {
                "Use numbers, names, parentheses and the operators + - * / % ^ = <> < <= > >= and or not."
                    .to_owned()
            }
            ExpressionProblem::MalformedNumber { .. } => {
                "Use a finite number such as 12, 0.5 or 1.5e-3.".to_owned()
            }
            ExpressionProblem::Unexpected { expected, .. } => format!("Put {expected} there."),
            ExpressionProblem::UnknownName { known, .. } => {
                format!("Known names are {}.", known.join(", "))
            }
            ExpressionProblem::UnknownFunction { .. } => {
                format!("Known functions are {}.", FUNCTION_NAMES.join(", "))
            }
            ExpressionProblem::ArgumentCount { function, minimum, maximum, .. } => match maximum {
                Some(maximum) if maximum == minimum => {
                    format!("Give {function} exactly {minimum} arguments.")
                }
                Some(maximum) => format!("Give {function} {minimum} to {maximum} arguments."),
                None => format!("Give {function} at least {minimum} arguments."),
            },
            ExpressionProblem::ChainedComparison => {
                "Combine two comparisons, as in a < b and b < c.".to_owned()
            }
        }
    }
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            ExpressionProblem::TooLong { length } => {
                return write!(
                    formatter,
                    "expression must not be longer than {MAXIMUM_LENGTH} bytes, but has {length}"
                );
            }
            ExpressionProblem::TooDeep => {
                write!(formatter, "expression must not be nested more than {MAXIMUM_NESTING} deep")?;
            }
            ExpressionProblem::TooManyNodes => {
                write!(formatter, "expression must not have more than {MAXIMUM_NODES} parts")?;
            }
            ExpressionProblem::UnexpectedCharacter { found } => {
                write!(formatter, "expression must not contain {found:?}")?;
            }
            ExpressionProblem::MalformedNumber { found } => {
                write!(formatter, "expression has a malformed number \"{found}\"")?;
            }
            ExpressionProblem::Unexpected { expected, found } => {
                write!(formatter, "expression must have {expected}, not {found},")?;
            }
            ExpressionProblem::UnknownName { name, .. } => {
                write!(formatter, "expression has an unknown name \"{name}\"")?;
            }
            ExpressionProblem::UnknownFunction { name } => {
                write!(formatter, "expression has an unknown function \"{name}\"")?;
            }
            ExpressionProblem::ArgumentCount { function, found, .. } => {
                write!(formatter, "expression has a call of \"{function}\" with {found} arguments")?;
            }
            ExpressionProblem::ChainedComparison => {
                formatter.write_str("expression must not compare a comparison")?;
            }
        }
        write!(formatter, " at character {}", self.character)
    }
}

impl std::error::Error for ExpressionError {}
