//! The functions and operators, applied to finite numbers.

use super::evaluation_error::EvaluationError;

/// A function that an expression can call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Absolute,
    Ceiling,
    Clamp,
    Coalesce,
    Cosine,
    Exponential,
    Floor,
    Hypotenuse,
    If,
    NaturalLogarithm,
    CommonLogarithm,
    Maximum,
    Minimum,
    Power,
    Round,
    Sign,
    Sine,
    SquareRoot,
    Tangent,
    ArcTangent,
    Truncate,
}

/// The names of the functions, in the order of [`FUNCTIONS`].
pub(super) const FUNCTION_NAMES: [&str; 21] = {
    let mut names = [""; 21];
    let mut index = 0;
    while index < names.len() {
        names[index] = FUNCTIONS[index].0;
        index += 1;
    }
    names
};

/// Name, function, least and greatest number of arguments.
type Entry = (&'static str, Function, usize, Option<usize>);

const FUNCTIONS: [Entry; 21] = [
    ("abs", Function::Absolute, 1, Some(1)),
    ("atan2", Function::ArcTangent, 2, Some(2)),
    ("ceil", Function::Ceiling, 1, Some(1)),
    ("clamp", Function::Clamp, 3, Some(3)),
    ("coalesce", Function::Coalesce, 1, None),
    ("cos", Function::Cosine, 1, Some(1)),
    ("exp", Function::Exponential, 1, Some(1)),
    ("floor", Function::Floor, 1, Some(1)),
    ("hypot", Function::Hypotenuse, 2, Some(2)),
    ("if", Function::If, 3, Some(3)),
    ("ln", Function::NaturalLogarithm, 1, Some(1)),
    ("log10", Function::CommonLogarithm, 1, Some(1)),
    ("max", Function::Maximum, 1, None),
    ("min", Function::Minimum, 1, None),
    ("pow", Function::Power, 2, Some(2)),
    ("round", Function::Round, 1, Some(2)),
    ("sign", Function::Sign, 1, Some(1)),
    ("sin", Function::Sine, 1, Some(1)),
    ("sqrt", Function::SquareRoot, 1, Some(1)),
    ("tan", Function::Tangent, 1, Some(1)),
    ("trunc", Function::Truncate, 1, Some(1)),
];

impl Function {
    /// The table's line of the function of this name, in any case.
    pub(super) fn named(name: &str) -> Option<Entry> {
        FUNCTIONS.into_iter().find(|entry| entry.0.eq_ignore_ascii_case(name))
    }
}

/// An operation on one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unary {
    Negate,
    Not,
    /// 1 for any number but zero.
    Truth,
    Call(Function),
}

impl Unary {
    pub(super) fn apply(self, number: f64) -> Result<f64, EvaluationError> {
        let checked = |operation, result| EvaluationError::check(operation, number, result);
        let positive = |operation, result| {
            if number > 0.0 {
                checked(operation, result)
            } else {
                Err(EvaluationError::OutOfDomain { operation, argument: number })
            }
        };
        match self {
            Self::Negate => Ok(-number),
            Self::Not => Ok(truth(number == 0.0)),
            Self::Truth => Ok(truth(number != 0.0)),
            Self::Call(function) => match function {
                Function::Absolute => Ok(number.abs()),
                Function::Ceiling => Ok(number.ceil()),
                Function::Floor => Ok(number.floor()),
                Function::Round => Ok(number.round()),
                Function::Truncate => Ok(number.trunc()),
                Function::Sign => Ok(if number == 0.0 { 0.0 } else { number.signum() }),
                Function::Sine => checked("sin", number.sin()),
                Function::Cosine => checked("cos", number.cos()),
                Function::Tangent => checked("tan", number.tan()),
                Function::Exponential => checked("exp", number.exp()),
                Function::SquareRoot => checked("sqrt", number.sqrt()),
                Function::NaturalLogarithm => positive("ln", number.ln()),
                Function::CommonLogarithm => positive("log10", number.log10()),
                // The minimum, maximum or first present one of a single argument is that argument; the rest
                // is never compiled to an operation on one number.
                _ => Ok(number),
            },
        }
    }
}

/// An operation on two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Minimum,
    Maximum,
    Hypotenuse,
    ArcTangent,
    RoundTo,
}

impl Binary {
    pub(super) fn apply(self, left: f64, right: f64) -> Result<f64, EvaluationError> {
        let checked = |operation, result| EvaluationError::check(operation, left, result);
        match self {
            Self::Add => checked("+", left + right),
            Self::Subtract => checked("-", left - right),
            Self::Multiply => checked("*", left * right),
            Self::Divide | Self::Remainder if right == 0.0 => Err(EvaluationError::DivisionByZero),
            Self::Divide => checked("/", left / right),
            Self::Remainder => checked("%", left % right),
            Self::Power => checked("pow", left.powf(right)),
            Self::Equal => Ok(truth(left == right)),
            Self::NotEqual => Ok(truth(left != right)),
            Self::Less => Ok(truth(left < right)),
            Self::LessOrEqual => Ok(truth(left <= right)),
            Self::Greater => Ok(truth(left > right)),
            Self::GreaterOrEqual => Ok(truth(left >= right)),
            Self::Minimum => Ok(left.min(right)),
            Self::Maximum => Ok(left.max(right)),
            Self::Hypotenuse => checked("hypot", left.hypot(right)),
            Self::ArcTangent => checked("atan2", left.atan2(right)),
            Self::RoundTo => round_to(left, right),
        }
    }
}

/// Limits `number` to a closed range.
pub(super) fn clamp(number: f64, minimum: f64, maximum: f64) -> Result<f64, EvaluationError> {
    // f64::clamp panics on a reversed range.
    if minimum > maximum {
        return Err(EvaluationError::OutOfDomain { operation: "clamp", argument: minimum });
    }
    Ok(number.max(minimum).min(maximum))
}

/// Rounds half away from zero to a number of decimals, which are places before the point when negative.
fn round_to(number: f64, decimals: f64) -> Result<f64, EvaluationError> {
    if decimals.fract() != 0.0 || decimals.abs() > 15.0 {
        return Err(EvaluationError::OutOfDomain { operation: "round", argument: decimals });
    }
    // A power of ten with a negative exponent is not exact, therefore always divide or multiply by a positive
    // one.
    let power = 10_f64.powf(decimals.abs());
    let rounded =
        if decimals < 0.0 { (number / power).round() * power } else { (number * power).round() / power };
    // A number too large to be scaled has no decimals to round.
    Ok(if rounded.is_finite() { rounded } else { number })
}

fn truth(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}
