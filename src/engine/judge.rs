//! One reading of a batch, and what was decided about it.

use iot_core::detect::{self, WindowCursor};
use iot_core::ingest::{Observation, QualityFlags, QualityLimits};
use iot_core::sensor_state::Stored;
use iot_core::time::Timestamp;

use super::learned::Learned;
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
    /// Stored in place of the one that the sensor had of that time, under its key.
    Replaced,
    /// Not accepted; why stands with the batch.
    Rejected,
}

impl Fate {
    /// Whether its values are in the table.
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Stored | Self::Replaced)
    }

    /// Whether no row was added because the sensor has one of that time.
    pub fn is_duplicate(self) -> bool {
        matches!(self, Self::Duplicate(_) | Self::Replaced)
    }
}

/// The place of a reading among those of its sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// No other of its time is known.
    Free,
    /// Another of its time is kept as well.
    Shared,
    /// The stored one of its time gives way.
    Taken,
}

/// What was decided about a reading.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    /// What becomes of it.
    pub fate: Fate,
    /// Whether its time is taken.
    pub place: Place,
    /// Key of the row.
    pub data_id: [u8; 16],
    /// When it was measured.
    pub at: Timestamp,
    /// Calibrated value; NaN for a reading that is not a number.
    pub value: f64,
    /// Value as the device sent it, in the sensor's unit.
    pub raw: f64,
    /// Measured later than the server's clock allows.
    pub from_future: bool,
    /// The raw value lay outside the calibration's table.
    pub outside_calibration: bool,
    /// When the sensor was calibrated.
    pub calibrated_since: Option<Timestamp>,
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
        place: Place::Free,
        data_id: [0; 16],
        at: Timestamp(0),
        value: 0.0,
        raw: 0.0,
        from_future: false,
        outside_calibration: false,
        calibrated_since: None,
        quality: QualityFlags(0),
        score: 0.0,
        is_anomaly: false,
        is_onset: false,
    };
}

/// Judges the readings of one sensor, one after the other, and adds each to the state.
pub struct Scorer<'a> {
    kept: &'a mut Kept,
    cursor: WindowCursor,
    limits: &'a QualityLimits,
    /// Where the sensor has one of its own.
    detector: Option<&'a mut Learned>,
    received_at: Timestamp,
    /// Readings older than the sensor's newest.
    pub late: u64,
}

impl<'a> Scorer<'a> {
    /// Begins with the state as it is.
    pub fn new(
        kept: &'a mut Kept,
        limits: &'a QualityLimits,
        detector: Option<&'a mut Learned>,
        received_at: Timestamp,
    ) -> Self {
        let cursor = kept.state.window.cursor();
        Self { kept, cursor, limits, detector, received_at, late: 0 }
    }

    /// Judges `reading`, which will be stored, against the readings before it: its quality, its score, and whether an
    /// anomalous episode begins with it.
    ///
    /// The window hangs on the sensor's newest accepted time. A reading from the future is scored, but moves nothing.
    pub fn judge(&mut self, reading: &mut Judged) {
        let observation = Observation {
            value: reading.value,
            measured_at: reading.at,
            received_at: self.received_at,
            future: reading.from_future,
            outside_calibration: reading.outside_calibration,
            calibrated_since: reading.calibrated_since,
        };
        let is_news = self.kept.state.is_news(reading.at) && !reading.from_future;
        let replaces = reading.place == Place::Taken;
        self.late += u64::from(!is_news && !reading.from_future && !replaces);
        if reading.value.is_nan() {
            reading.quality =
                if reading.from_future { QualityFlags::FUTURE } else { QualityFlags::default() };
        } else {
            reading.quality = self.kept.state.assess(&observation, self.limits);
            self.score(reading, is_news);
        }
        if reading.place == Place::Shared {
            reading.quality |= QualityFlags::DUPLICATE;
        }
        // What replaces a reading is not one more of them: the state is read anew without the one that went.
        if reading.from_future || replaces {
            return;
        }
        let stored = Stored { observation, counted: reading.value.abs() <= LARGEST_COUNTED };
        self.kept.state.observe_judged(&stored, is_news, self.limits);
        self.kept.change.observe(&stored, &self.kept.state);
        if !self.cursor.survives(reading.at) {
            self.cursor = self.kept.state.window.cursor();
        }
    }

    fn score(&mut self, reading: &mut Judged, is_news: bool) {
        if let Some(detector) = &mut self.detector {
            let verdict = if is_news {
                detector.observe(reading.at, reading.value)
            } else {
                detector.score_late(reading.at, reading.value)
            };
            (reading.score, reading.is_anomaly, reading.is_onset) =
                (verdict.score, verdict.is_anomaly, verdict.is_onset);
            return;
        }
        if !reading.from_future {
            self.kept.state.window.advance(reading.at);
            if !self.cursor.is_current(&self.kept.state.window) {
                self.cursor = self.kept.state.window.cursor();
            }
        }
        let verdict = detect::score(reading.value, &self.cursor.statistics(&self.kept.state.window));
        reading.score = verdict.score;
        reading.is_anomaly = verdict.is_anomaly;
        if is_news {
            reading.is_onset = self.kept.state.onset(reading.at, verdict.is_anomaly);
        }
    }
}
