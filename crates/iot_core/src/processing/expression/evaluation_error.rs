//! Why a rule has no value for a reading.

use std::fmt;

use crate::number::Shortest;

/// What went wrong while a rule was evaluated. The reading itself is not at fault and is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EvaluationError {
    /// The right operand of `/` or `%` is zero.
    DivisionByZero,
    /// A function is not defined for its argument, such as the square root for −1.
    OutOfDomain {
        /// The function or operator.
        operation: &'static str,
        /// The first of its arguments.
        argument: f64,
    },
    /// A result, or an input, is outside the range of double precision.
    NotFinite {
        /// The function or operator.
        operation: &'static str,
    },
}

impl EvaluationError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::DivisionByZero => "Guard the division, as in if(b = 0, 0, a / b).",
            Self::OutOfDomain { .. } => "Limit the argument, as in sqrt(max(a, 0)).",
            Self::NotFinite { .. } => "Limit the operands, as in clamp(a, 0, 100).",
        }
    }

    /// `result` as the value of `operation` for finite arguments, of which `argument` is the first.
    pub(crate) fn check(operation: &'static str, argument: f64, result: f64) -> Result<f64, Self> {
        if result.is_finite() {
            Ok(result)
        } else if result.is_nan() {
            Err(Self::OutOfDomain { operation, argument })
        } else {
            Err(Self::NotFinite { operation })
        }
    }
}

impl fmt::Display for EvaluationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DivisionByZero => formatter.write_str("division by zero"),
            Self::OutOfDomain { operation, argument } => {
                write!(formatter, "\"{operation}\" is not defined for {}", Shortest(*argument))
            }
            Self::NotFinite { operation } => {
                write!(formatter, "result of \"{operation}\" is not a finite number")
            }
        }
    }
}

impl std::error::Error for EvaluationError {}
