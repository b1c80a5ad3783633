//! Many readings of one sensor in a row.

use super::sub_bucket::SubBucket;
use super::{ZscoreWindow, number_of};
use crate::detect::{AnomalyScore, WindowStatistics, score};
use crate::time::Timestamp;

/// Remembers the merge of all sub-buckets of one [`ZscoreWindow`] but the newest, so that a reading in order costs
/// the same however long the window is.
///
/// What it says is bit for bit what the window itself says. It belongs to one window, and every change of that
/// window must go through it, or be followed by [`Self::invalidate`].
#[derive(Clone, Debug, Default)]
pub struct WindowCursor {
    /// Number of the newest sub-bucket and the merge of the others; `None` when not known.
    older: Option<(i64, SubBucket)>,
}

impl WindowCursor {
    /// A cursor that remembers nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets what it remembers: the window has been changed by other means, or is another one.
    pub fn invalidate(&mut self) {
        self.older = None;
    }

    /// As [`ZscoreWindow::add`].
    pub fn add(&mut self, window: &mut ZscoreWindow, at: Timestamp, value: f64) {
        window.add(at, value);
        // A late reading changes an older sub-bucket; one that moved the window on is noticed when asked.
        if number_of(at) < number_of(window.high_water()) {
            self.invalidate();
        }
    }

    /// As [`ZscoreWindow::statistics`].
    pub fn statistics(&mut self, window: &ZscoreWindow) -> WindowStatistics {
        let newest = number_of(window.high_water());
        let older = match self.older {
            Some((number, older)) if number == newest => older,
            _ => window.merge_older(),
        };
        self.older = Some((newest, older));
        older.merge(window.ring[super::place(newest)]).statistics()
    }

    /// Moves the window on to the reading, scores the reading against it, and adds it.
    pub fn observe(&mut self, window: &mut ZscoreWindow, at: Timestamp, value: f64) -> AnomalyScore {
        window.advance(at);
        let found = score(value, &self.statistics(window));
        self.add(window, at, value);
        found
    }
}
