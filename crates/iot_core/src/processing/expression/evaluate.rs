//! Running a compiled expression.

use super::compile::{Expression, MAXIMUM_STACK};
use super::evaluation_error::EvaluationError;
use super::function::{Binary, Unary, clamp};

/// A step of a compiled expression. Targets of jumps are indices of steps, always further on, so that every
/// run ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    Number(f64),
    Input(usize),
    Unary(Unary),
    Binary(Binary),
    Clamp,
    /// Takes the condition of `if` off the stack; goes on when it holds, to `otherwise` when not, and to
    /// `end` with a missing result when it is missing.
    Branch {
        otherwise: usize,
        end: usize,
    },
    Jump(usize),
    /// After the left operand of `and` (`decisive` is false) or `or` (true): leaves the result and jumps to
    /// `end` when the operand is missing or decides, else takes it off the stack.
    ShortCircuit {
        decisive: bool,
        end: usize,
    },
    /// After an argument of `coalesce`: jumps to `end` when it is present, else takes it off the stack.
    KeepPresent {
        end: usize,
    },
}

/// Most expressions need no more than this, and so a run clears only a small stack.
const SMALL_STACK: usize = 16;

/// A stack of numbers that may be missing. What is taken from an empty one is missing.
struct Stack<const SIZE: usize> {
    values: [Option<f64>; SIZE],
    length: usize,
}

impl<const SIZE: usize> Stack<SIZE> {
    fn push(&mut self, value: Option<f64>) {
        if let Some(slot) = self.values.get_mut(self.length) {
            *slot = value;
            self.length += 1;
        }
    }

    fn pop(&mut self) -> Option<f64> {
        self.length = self.length.saturating_sub(1);
        self.values.get(self.length).copied().flatten()
    }
}

impl Expression {
    /// The value for `inputs`, in the order of the names that the expression was compiled with; `None` stands
    /// for a missing input, as does one beyond the end of the slice. Without allocation.
    ///
    /// What depends on a missing input is missing (`None`), except through `coalesce`, `and`, `or` and `if`
    /// when they are decided without it. Comparisons and logic yield 1 or 0; any number but 0 counts as true.
    /// Only the branch of `if` that is taken, and no more arguments of `coalesce`, `and`, `or` than decide,
    /// are evaluated. The result is finite and never negative zero.
    ///
    /// # Errors
    /// When an evaluated operation is undefined for its operands, or an input or result is not finite.
    pub fn evaluate(&self, inputs: &[Option<f64>]) -> Result<Option<f64>, EvaluationError> {
        if self.stack <= SMALL_STACK {
            self.run::<SMALL_STACK>(inputs)
        } else {
            self.run::<MAXIMUM_STACK>(inputs)
        }
    }

    fn run<const SIZE: usize>(&self, inputs: &[Option<f64>]) -> Result<Option<f64>, EvaluationError> {
        let mut stack = Stack { values: [None; SIZE], length: 0 };
        let mut next = 0;
        while let Some(step) = self.steps.get(next) {
            next += 1;
            match *step {
                Step::Number(number) => stack.push(Some(number)),
                Step::Input(index) => stack.push(finite_input(inputs, index)?),
                Step::Unary(operation) => {
                    let operand = stack.pop();
                    stack.push(operand.map(|number| operation.apply(number)).transpose()?);
                }
                Step::Binary(operation) => {
                    let (right, left) = (stack.pop(), stack.pop());
                    let result = left.zip(right).map(|(left, right)| operation.apply(left, right));
                    stack.push(result.transpose()?);
                }
                Step::Clamp => {
                    let (maximum, minimum, number) = (stack.pop(), stack.pop(), stack.pop());
                    let result = number
                        .zip(minimum.zip(maximum))
                        .map(|(number, (minimum, maximum))| clamp(number, minimum, maximum));
                    stack.push(result.transpose()?);
                }
                Step::Branch { otherwise, end } => match stack.pop() {
                    Some(0.0) => next = otherwise,
                    Some(_) => {}
                    None => {
                        stack.push(None);
                        next = end;
                    }
                },
                Step::Jump(target) => next = target,
                Step::ShortCircuit { decisive, end } => {
                    let left = stack.pop();
                    match left.map(|number| number != 0.0) {
                        Some(truth) if truth != decisive => {}
                        decided => {
                            stack.push(decided.map(f64::from));
                            next = end;
                        }
                    }
                }
                Step::KeepPresent { end } => {
                    if let Some(present) = stack.pop() {
                        stack.push(Some(present));
                        next = end;
                    }
                }
            }
        }
        // Adding zero turns negative zero into zero.
        Ok(stack.pop().map(|number| number + 0.0))
    }
}

fn finite_input(inputs: &[Option<f64>], index: usize) -> Result<Option<f64>, EvaluationError> {
    match inputs.get(index).copied().flatten() {
        Some(number) if !number.is_finite() => Err(EvaluationError::NotFinite { operation: "input" }),
        input => Ok(input),
    }
}
