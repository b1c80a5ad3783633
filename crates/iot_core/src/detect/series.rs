//! A whole series of readings through a detector.

use super::{AdaptiveConstants, DetectorKind, DetectorState, Verdict};
use crate::time::Timestamp;

/// TODO
pub fn score_series_with(
    constants: &AdaptiveConstants,
    kind: DetectorKind,
    timestamps: &[Timestamp],
    values: &[f64],
) -> Vec<Verdict> {
    let mut state = DetectorState::new(kind);
    timestamps
        .iter()
        .zip(values)
        .map(|(at, value)| state.as_mut().map(|s| s.observe_with(constants, *at, *value)).unwrap_or_default())
        .collect()
}
