//! What one transaction adds to a window that others may change meanwhile.

use super::sub_bucket::SubBucket;
use super::{is_usable, number_of};
use crate::detect::window_start;
use crate::time::Timestamp;

/// The readings of one transaction by sub-bucket; at most as many sub-buckets as the window has.
///
/// Deltas of several sessions can be merged into one [`super::ZscoreWindow`] in any order.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowDelta {
    high_water: Timestamp,
    buckets: Vec<(i64, SubBucket)>,
}

impl Default for WindowDelta {
    fn default() -> Self {
        Self { high_water: Timestamp::NEGATIVE_INFINITY, buckets: Vec::new() }
    }
}

impl WindowDelta {
    /// A delta without readings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it adds nothing to a window.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty() && self.high_water == Timestamp::NEGATIVE_INFINITY
    }

    /// Time up to which its readings move a window; `-infinity` at first.
    pub fn high_water(&self) -> Timestamp {
        self.high_water
    }

    /// Moves on to a time, forgetting what is older than the window then.
    pub fn advance(&mut self, to: Timestamp) {
        if !to.is_finite() || to <= self.high_water {
            return;
        }
        self.high_water = to;
        let oldest = number_of(window_start(to));
        self.buckets.retain(|(number, _)| *number >= oldest);
    }

    /// Adds a reading, as [`super::ZscoreWindow::add`].
    pub fn add(&mut self, at: Timestamp, value: f64) {
        if !is_usable(at, value) {
            return;
        }
        self.advance(at);
        if at < window_start(self.high_water) {
            return;
        }
        let number = number_of(at);
        // From the end, where the newest are.
        match self.buckets.iter_mut().rev().find(|(own, _)| *own == number) {
            Some((_, bucket)) => bucket.push(value),
            None => {
                let mut bucket = SubBucket::EMPTY;
                bucket.push(value);
                self.buckets.push((number, bucket));
            }
        }
    }

    pub(super) fn buckets(&self) -> &[(i64, SubBucket)] {
        &self.buckets
    }
}
