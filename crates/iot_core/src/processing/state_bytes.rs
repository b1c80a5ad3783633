//! The states of rules as bytes.
//!
//! Format 1, numbers little-endian: format (1 byte), operation (1), length of the window (8), whether there
//! is a newest time (1) and that (8), number of entries (2), entries. An entry is a value (8), or, for
//! windows of time, the number of a step (8), its count (8) and its mean (8).

use std::collections::VecDeque;

use super::rule::Operation;
use super::state::{Kept, MAXIMUM_ENTRIES, ProcessingState, StateError, Step, step_index};
use crate::time::Timestamp;

const FORMAT: u8 = 1;

impl Kept {
    /// The operation and the length of its window.
    fn identity(&self) -> (u8, u64) {
        match self {
            Self::Previous { .. } => (1, 0),
            Self::Readings { limit, .. } => (2, *limit as u64),
            Self::Steps { micros, .. } => (3, micros.cast_unsigned()),
        }
    }
}

impl ProcessingState {
    /// The state as bytes, for [`ProcessingState::decode`].
    pub fn encode(&self) -> Vec<u8> {
        let (operation, window) = self.kept.identity();
        let mut bytes = vec![FORMAT, operation];
        bytes.extend(window.to_le_bytes());
        bytes.push(u8::from(self.newest.is_some()));
        bytes.extend(self.newest.map_or(0, |newest| newest.0).to_le_bytes());
        // Never more than MAXIMUM_ENTRIES, which fits.
        let mut length = |entries: usize| bytes.extend((entries as u16).to_le_bytes());
        match &self.kept {
            Kept::Previous { value, .. } => {
                length(usize::from(value.is_some()));
                bytes.extend(value.iter().flat_map(|value| value.to_le_bytes()));
            }
            Kept::Readings { values, .. } => {
                length(values.len());
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
            Kept::Steps { steps, .. } => {
                length(steps.len());
                for step in steps {
                    bytes.extend(step.index.to_le_bytes());
                    bytes.extend(step.count.to_le_bytes());
                    bytes.extend(step.mean.to_le_bytes());
                }
            }
        }
        bytes
    }

    /// Reads the bytes of [`ProcessingState::encode`] as the state of `operation`. A difference may change
    /// what it is divided by; a moving average with another window is another operation.
    ///
    /// # Errors
    /// For bytes that are no state, or not one of this operation.
    pub fn decode(operation: &Operation, bytes: &[u8]) -> Result<Self, StateError> {
        let empty = Self::new(operation).ok_or(StateError::OtherOperation)?;
        let mut reader = Reader { bytes };
        if reader.take()? != [FORMAT] {
            return Err(StateError::Malformed);
        }
        let [found] = reader.take()?;
        if (found, u64::from_le_bytes(reader.take()?)) != empty.kept.identity() {
            return Err(StateError::OtherOperation);
        }
        let state = reader.state(empty)?;
        if reader.bytes.is_empty() { Ok(state) } else { Err(StateError::Malformed) }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

type Read<T> = Result<T, StateError>;

impl Reader<'_> {
    fn take<const SIZE: usize>(&mut self) -> Read<[u8; SIZE]> {
        let (first, rest) = self.bytes.split_first_chunk().ok_or(StateError::Malformed)?;
        self.bytes = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Read<f64> {
        let number = f64::from_le_bytes(self.take()?);
        if number.is_finite() { Ok(number) } else { Err(StateError::Malformed) }
    }

    /// The newest time and the entries, where `empty` is the same state without them.
    fn state(&mut self, empty: ProcessingState) -> Read<ProcessingState> {
        let flag = self.take()?;
        let time = Timestamp(i64::from_le_bytes(self.take()?));
        let newest = match flag {
            [0] if time.0 == 0 => None,
            [1] => Some(time),
            _ => return Err(StateError::Malformed),
        };
        let length = usize::from(u16::from_le_bytes(self.take()?));
        let limit = match empty.kept {
            Kept::Previous { .. } => 1,
            Kept::Readings { limit, .. } => limit,
            Kept::Steps { .. } => MAXIMUM_ENTRIES,
        };
        if length > limit || newest.is_some() != (length > 0) {
            return Err(StateError::Malformed);
        }
        let kept = match empty.kept {
            Kept::Previous { per, .. } => {
                let value = newest.map(|_| self.number()).transpose()?;
                Kept::Previous { per, value }
            }
            Kept::Readings { limit, .. } => {
                let values = (0..length).map(|_| self.number()).collect::<Read<VecDeque<_>>>()?;
                Kept::Readings { limit, values }
            }
            Kept::Steps { micros, .. } => {
                let steps = (0..length).map(|_| self.step()).collect::<Read<VecDeque<_>>>()?;
                if !are_of_one_window(&steps, newest.map(|newest| step_index(newest, micros))) {
                    return Err(StateError::Malformed);
                }
                Kept::Steps { micros, steps }
            }
        };
        Ok(ProcessingState { newest, kept })
    }

    fn step(&mut self) -> Read<Step> {
        let index = i64::from_le_bytes(self.take()?);
        let count = u64::from_le_bytes(self.take()?);
        let mean = self.number()?;
        if count == 0 { Err(StateError::Malformed) } else { Ok(Step { index, count, mean }) }
    }
}

/// Whether the steps are in order, end with that of the newest reading, and lie within one window.
fn are_of_one_window(steps: &VecDeque<Step>, newest: Option<i64>) -> bool {
    let in_order = steps.iter().zip(steps.iter().skip(1)).all(|(one, next)| one.index < next.index);
    let last = steps.back().map(|step| step.index);
    let fits = steps.front().zip(last).is_none_or(|(first, last)| {
        last.checked_sub(first.index).is_some_and(|span| span < MAXIMUM_ENTRIES as i64)
    });
    in_order && last == newest && fits
}
