//! Anomaly detection: how far a reading lies from the sensor's last 24 hours, in standard deviations.

mod moments;
mod window;
mod zscore_window;

pub use moments::Moments;
pub use window::{
    ANOMALY_LIMIT, AnomalyScore, MAXIMUM_SCORE, SUB_BUCKET, WINDOW, WindowStatistics, score, window_start,
};
pub use zscore_window::{SUB_BUCKETS, SubBucket, WindowCursor, WindowDelta, ZscoreWindow};
