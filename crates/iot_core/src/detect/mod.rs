//! Anomaly detection: how unusual a reading is for its sensor.
//!
//! The plain rule counts standard deviations from the mean of the last 24 hours ([`score`]; in fixed space with
//! [`ZscoreWindow`]). The other detectors keep a [`DetectorState`]. All of them look at a reading before they
//! learn from it, keep a state of fixed size, and report an episode of anomalous readings once ([`Episode`]).

mod adaptive;
mod bytes;
mod calibration;
mod episode;
mod ewma;
mod kind;
mod moments;
mod robust;
mod seasonal;
mod series;
mod sigma;
mod state;
mod surprise;
mod window;
mod zscore_window;

pub use adaptive::AdaptiveConstants;
pub use episode::{Episode, Refractory};
pub use kind::{DetectorKind, Verdict};
pub use moments::Moments;
pub use series::{observe_zscore, score_series, score_series_with};
pub use state::DetectorState;
pub use window::{
    ANOMALY_LIMIT, AnomalyScore, MAXIMUM_SCORE, SUB_BUCKET, WINDOW, WindowStatistics, score, window_start,
};
pub use zscore_window::{SUB_BUCKETS, SubBucket, WindowCursor, WindowDelta, ZscoreWindow};

/// Values beyond this magnitude count as this large, so that their squares stay finite.
const MAGNITUDE: f64 = 1e150;

/// No readings within the magnitude vary more.
const MAXIMUM_VARIANCE: f64 = 16.0 * MAGNITUDE * MAGNITUDE;

/// Smallest deviation that is told apart at this value: rounding noise stays below.
fn resolution(value: f64) -> f64 {
    1e-9 * (1.0 + value.abs())
}
