//! What a rule with a memory keeps of a series: bounded, and storable as bytes.

use std::collections::VecDeque;
use std::fmt;

use super::expression::EvaluationError;
use super::rule::{Operation, Per, Window};
use crate::time::Timestamp;

/// Most readings, or sub-buckets of time, that a moving average keeps.
pub const MAXIMUM_ENTRIES: usize = 1000;

/// What `moving_average` and `difference` remember of the readings so far; at most 24 KB.
///
/// A reading that is older than the newest one so far is late: it has no result and changes nothing, so that
/// results do not depend on when late readings arrive. Readings of the same time are in order.
///
/// A window of time moves in steps of a thousandth of its length, aligned to 2000-01-01 UTC: it covers the
/// step of the reading and the 999 before, whose readings are kept as a count and a mean each.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessingState {
    pub(super) newest: Option<Timestamp>,
    pub(super) kept: Kept,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kept {
    Previous { per: Per, value: Option<f64> },
    Readings { limit: usize, values: VecDeque<f64> },
    Steps { micros: i64, steps: VecDeque<Step> },
}

/// The readings of one step of a window of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    /// Number of the step since 2000-01-01 UTC.
    pub index: i64,
    /// Number of readings; at least one.
    pub count: u64,
    pub mean: f64,
}

impl ProcessingState {
    /// The state before any reading; `None` for operations that remember nothing.
    pub fn new(operation: &Operation) -> Option<Self> {
        let kept = match operation {
            Operation::Difference { per } => Kept::Previous { per: *per, value: None },
            Operation::MovingAverage(Window::Readings(limit)) => {
                Kept::Readings { limit: (*limit).clamp(1, MAXIMUM_ENTRIES), values: VecDeque::new() }
            }
            Operation::MovingAverage(Window::Micros(micros)) => {
                Kept::Steps { micros: (*micros).max(1), steps: VecDeque::new() }
            }
            Operation::Scale { .. } | Operation::Clamp { .. } | Operation::Expression { .. } => return None,
        };
        Some(Self { newest: None, kept })
    }

    /// The time of the newest reading so far.
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// Takes a reading in and returns the result for it, in units of the value, or of the value per unit of
    /// time.
    ///
    /// There is none for a late reading, for the difference of the first reading, and for a rate between two
    /// readings of the same time.
    ///
    /// # Errors
    /// When the value or the result is not finite. Only in the second case is the reading remembered.
    pub fn observe(&mut self, time: Timestamp, value: f64) -> Result<Option<f64>, EvaluationError> {
        if !value.is_finite() {
            return Err(EvaluationError::NotFinite { operation: "input" });
        }
        if self.newest.is_some_and(|newest| time < newest) {
            return Ok(None);
        }
        let before = self.newest.replace(time);
        match &mut self.kept {
            Kept::Previous { per, value: previous } => match (before, previous.replace(value)) {
                (Some(before), Some(previous)) => {
                    difference(*per, time.0.saturating_sub(before.0), previous, value)
                }
                _ => Ok(None),
            },
            Kept::Readings { limit, values } => {
                if values.len() >= *limit {
                    values.pop_front();
                }
                values.push_back(value);
                Ok(Some(mean(values)))
            }
            Kept::Steps { micros, steps } => {
                take_in(steps, step_index(time, *micros), value);
                Ok(Some(weighted_mean(steps)))
            }
        }
    }
}

fn difference(per: Per, elapsed: i64, previous: f64, value: f64) -> Result<Option<f64>, EvaluationError> {
    let change = EvaluationError::check("difference", value, value - previous)?;
    match per.micros() {
        None => Ok(Some(change)),
        Some(_) if elapsed == 0 => Ok(None),
        Some(unit) => {
            // Multiplied first: a change that is an exact multiple of the rate then gives the exact rate.
            let rate = change * unit as f64 / elapsed as f64;
            let rate = if rate.is_finite() { rate } else { change / elapsed as f64 * unit as f64 };
            EvaluationError::check("difference", value, rate).map(Some)
        }
    }
}

/// The mean, computed anew: a running sum would drift.
fn mean(values: &VecDeque<f64>) -> f64 {
    let count = values.len() as f64;
    let sum: f64 = values.iter().sum();
    // The sum of huge numbers overflows where that of their shares does not.
    let mean = if sum.is_finite() { sum / count } else { values.iter().map(|value| value / count).sum() };
    without_overflow(mean)
}

/// The mean of finite numbers is finite, but rounding may carry it past the end of double precision.
fn without_overflow(mean: f64) -> f64 {
    mean.clamp(f64::MIN, f64::MAX)
}

/// Number of the step of a window of this length in which `time` lies.
pub(super) fn step_index(time: Timestamp, micros: i64) -> i64 {
    time.0.div_euclid(Window::step(micros))
}

fn take_in(steps: &mut VecDeque<Step>, index: i64, value: f64) {
    while steps.front().is_some_and(|first| index.saturating_sub(first.index) >= MAXIMUM_ENTRIES as i64) {
        steps.pop_front();
    }
    match steps.back_mut() {
        Some(last) if last.index == index => {
            last.count = last.count.saturating_add(1);
            let count = last.count as f64;
            // Each term on its own, because the difference of two huge numbers can overflow.
            last.mean = without_overflow(last.mean + (value / count - last.mean / count));
        }
        _ => steps.push_back(Step { index, count: 1, mean: value }),
    }
}

fn weighted_mean(steps: &VecDeque<Step>) -> f64 {
    let count: f64 = steps.iter().map(|step| step.count as f64).sum();
    let sum: f64 = steps.iter().map(|step| step.mean * step.count as f64).sum();
    let mean = if sum.is_finite() {
        sum / count
    } else {
        steps.iter().map(|step| step.mean * (step.count as f64 / count)).sum()
    };
    without_overflow(mean)
}

/// Why stored bytes are not the state of a rule. The state then begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// The bytes are damaged, or of another format.
    Malformed,
    /// They belong to another operation, or to one with another window.
    OtherOperation,
}

impl StateError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Malformed => "Delete the stored state; the rule then begins anew.",
            Self::OtherOperation => "Delete the stored state after a change of the rule.",
        }
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Malformed => "stored state of a processing rule is malformed",
            Self::OtherOperation => "stored state of a processing rule belongs to another operation",
        })
    }
}

impl std::error::Error for StateError {}
