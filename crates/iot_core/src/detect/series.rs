//! A whole series of readings through a detector.

use super::state::LEARNING;
use super::{
    AdaptiveConstants, DetectorKind, DetectorState, Episode, MAGNITUDE, Verdict, WindowCursor, ZscoreWindow,
};
use crate::time::Timestamp;

/// Any detector, with the state it needs.
// The largest is used most, and there is one of them per series.
#[allow(clippy::large_enum_variant)]
enum Detector {
    Zscore { window: ZscoreWindow, cursor: Option<WindowCursor>, episode: Episode },
    Stateful(DetectorState),
}

impl Detector {
    fn new(kind: DetectorKind) -> Self {
        match DetectorState::new(kind) {
            Some(state) => Self::Stateful(state),
            None => {
                Self::Zscore { window: ZscoreWindow::default(), cursor: None, episode: Episode::default() }
            }
        }
    }

    fn observe(&mut self, constants: &AdaptiveConstants, at: Timestamp, value: f64) -> Verdict {
        match self {
            Self::Zscore { window, cursor, episode } => observe_zscore(window, cursor, episode, at, value),
            Self::Stateful(state) => state.observe_with(constants, at, value),
        }
    }
}

/// The next reading through the 24-hour rule: scores it, then adds it to the window. A reading older than the
/// newest takes its place in the window, but starts no episode. `cursor` is that of the window after the reading
/// before, if there was one.
pub fn observe_zscore(
    window: &mut ZscoreWindow,
    cursor: &mut Option<WindowCursor>,
    episode: &mut Episode,
    at: Timestamp,
    value: f64,
) -> Verdict {
    let is_late = window.high_water().is_some_and(|newest| at < newest);
    window.advance(at);
    let current = match cursor {
        Some(current) if current.is_current(window) => *current,
        _ => window.cursor(),
    };
    let statistics = current.statistics(window);
    let found = super::score(value, &statistics);
    // The square of a greater one is beyond double precision.
    if value.abs() <= MAGNITUDE {
        window.add(at, value);
    }
    *cursor = current.survives(at).then_some(current);
    Verdict {
        score: found.score,
        is_anomaly: found.is_anomaly,
        is_onset: !is_late && episode.observe(at, found.is_anomaly),
        learning: statistics.count < u64::from(LEARNING),
    }
}

/// Scores a series, reading by reading, each by what came before it. Values must be finite.
pub fn score_series(
    kind: DetectorKind,
    readings: impl IntoIterator<Item = (Timestamp, f64)>,
) -> impl Iterator<Item = (Timestamp, f64, Verdict)> {
    score_series_with(&AdaptiveConstants::DEFAULT, kind, readings)
}

/// As [`score_series`], with other constants of the adaptive detector: for tuning it.
pub fn score_series_with(
    constants: &AdaptiveConstants,
    kind: DetectorKind,
    readings: impl IntoIterator<Item = (Timestamp, f64)>,
) -> impl Iterator<Item = (Timestamp, f64, Verdict)> {
    let mut detector = Detector::new(kind);
    readings.into_iter().map(move |(at, value)| (at, value, detector.observe(constants, at, value)))
}
