//! One reading of a batch, and what was decided about it.

use iot_core::detect::{self, WindowCursor};
use iot_core::ingest::QualityFlags;
use iot_core::time::Timestamp;

use super::overlay::Kept;
use crate::catalog::reading::LARGEST_COUNTED;

/// What becomes of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not decided yet: accepted so far.
    Open,
    /// Stored.
    Stored,
    /// The sensor has a reading of that time; its key where it is known.
    Duplicate(Option<[u8; 16]>),
    /// Not accepted; why stands with the batch.
    Rejected,
}

/// What was decided about a reading.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    /// What becomes of it.
    pub fate: Fate,
    /// Key of the row.
    pub data_id: [u8; 16],
    /// When it was measured.
    pub at: Timestamp,
    /// Calibrated value; NaN for a reading that is not a number.
    pub value: f64,
    /// Value as the device sent it, in the sensor's unit.
    pub raw: f64,
    /// Reasons why it is not plainly valid.
    pub quality: QualityFlags,
    /// Deviation from the window, 0 to 5.
    pub score: f64,
    /// Whether the score is above the limit.
    pub is_anomaly: bool,
    /// Whether an anomalous episode begins here.
    pub is_onset: bool,
}

impl Judged {
    /// The value as the device sent it, where calibration changed it.
    pub fn raw_value(&self) -> Option<f64> {
        (self.raw != self.value && !self.value.is_nan()).then_some(self.raw)
    }

    /// A reading about which nothing is known yet.
    pub const UNDECIDED: Self = Self {
        fate: Fate::Open,
        data_id: [0; 16],
        at: Timestamp(0),
        value: 0.0,
        raw: 0.0,
        quality: QualityFlags(0),
        score: 0.0,
        is_anomaly: false,
        is_onset: false,
    };
}

/// Scores the readings of one sensor, one after the other, and adds each to the state.
pub struct Scorer<'a> {
    kept: &'a mut Kept,
    cursor: WindowCursor,
    received_at: Timestamp,
}

impl<'a> Scorer<'a> {
    /// Begins with the state as it is.
    pub fn new(kept: &'a mut Kept, received_at: Timestamp) -> Self {
        let cursor = kept.state.window.cursor();
        Self { kept, cursor, received_at }
    }

    /// Scores `reading`, which will be stored, against the readings before it.
    ///
    /// The window hangs on the sensor's newest accepted time. A reading from the future is scored, but moves nothing.
    pub fn score(&mut self, reading: &mut Judged) {
        let from_future = reading.quality.contains(QualityFlags::FUTURE);
        if !from_future {
            self.kept.state.window.advance(reading.at);
            if !self.cursor.is_current(&self.kept.state.window) {
                self.cursor = self.kept.state.window.cursor();
            }
        }
        if reading.value.is_nan() {
            self.observe(reading, from_future, false);
            return;
        }
        let verdict = detect::score(reading.value, &self.cursor.statistics(&self.kept.state.window));
        reading.score = verdict.score;
        reading.is_anomaly = verdict.is_anomaly;
        self.observe(reading, from_future, reading.value.abs() <= LARGEST_COUNTED);
    }

    fn observe(&mut self, reading: &Judged, from_future: bool, counted: bool) {
        if from_future {
            return;
        }
        self.kept.state.observe(reading.at, reading.value, self.received_at, counted);
        self.kept.change.observe(reading.at, reading.value, self.received_at, counted);
        if !self.cursor.survives(reading.at) {
            self.cursor = self.kept.state.window.cursor();
        }
    }
}
