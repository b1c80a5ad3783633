//! Episodes: an anomaly that lasts is reported once.

use super::bytes::{Reader, Writer};
use crate::time::{MICROS_PER_HOUR, Timestamp};

/// After an onset this many readings cannot start another episode.
const REFRACTORY_READINGS: u32 = 40;
/// So many cannot while [`REFRACTORY_TIME`] has not passed either: sensors that report often.
const REFRACTORY_READINGS_MAXIMUM: u32 = 200;
/// See [`REFRACTORY_READINGS_MAXIMUM`], in microseconds: 18 hours.
const REFRACTORY_TIME: i64 = 18 * MICROS_PER_HOUR;

/// How long an episode keeps others from starting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refractory {
    /// Readings after an onset that cannot start another episode.
    pub readings: u32,
    /// Readings that cannot while `time` has not passed since the onset.
    pub readings_maximum: u32,
    /// In microseconds.
    pub time: i64,
}

impl Refractory {
    /// The period of all detectors.
    pub const DEFAULT: Self = Self {
        readings: REFRACTORY_READINGS,
        readings_maximum: REFRACTORY_READINGS_MAXIMUM,
        time: REFRACTORY_TIME,
    };
}

/// The time since the last onset of one sensor.
///
/// A refractory period after each onset, as alerting systems have it: the anomalous readings that follow within
/// it belong to the same episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Episode {
    /// Readings since the onset, the onset itself excluded.
    readings: u32,
    /// When the last episode started; `-infinity` before the first.
    onset: Timestamp,
}

impl Default for Episode {
    fn default() -> Self {
        Self { readings: 0, onset: Timestamp::NEGATIVE_INFINITY }
    }
}

impl Episode {
    /// Bytes of [`Self::encode`].
    pub const ENCODED_LEN: usize = 12;

    /// Takes note of the next reading in order of time, and says whether an episode starts with it.
    pub fn observe(&mut self, at: Timestamp, is_anomaly: bool) -> bool {
        self.observe_within(&Refractory::DEFAULT, at, is_anomaly)
    }

    /// As [`Self::observe`], with another refractory period.
    pub fn observe_within(&mut self, refractory: &Refractory, at: Timestamp, is_anomaly: bool) -> bool {
        self.readings = self.readings.saturating_add(1);
        let starts = is_anomaly && !self.is_muted(refractory, at);
        if starts {
            *self = Self { readings: 0, onset: at };
        }
        starts
    }

    fn is_muted(&self, refractory: &Refractory, at: Timestamp) -> bool {
        if self.onset == Timestamp::NEGATIVE_INFINITY {
            return false;
        }
        let readings = self.readings;
        readings < refractory.readings
            || readings < refractory.readings_maximum && at.0.saturating_sub(self.onset.0) < refractory.time
    }

    /// Writes the byte form into the first [`Self::ENCODED_LEN`] bytes; false when there are fewer.
    pub fn encode(&self, bytes: &mut [u8]) -> bool {
        let mut writer = Writer::new(bytes);
        self.write(&mut writer);
        writer.is_complete()
    }

    /// Reads the byte form back. Every one is valid.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Self::read(&mut Reader::new(bytes))
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        writer.u32(self.readings);
        writer.timestamp(self.onset);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { readings: reader.u32()?, onset: reader.timestamp()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::MICROS_PER_MINUTE;

    /// The numbers of the readings that start an episode when all are anomalous.
    fn onsets(step: i64, readings: i64) -> Vec<i64> {
        let mut episode = Episode::default();
        (0..readings).filter(|number| episode.observe(Timestamp(number * step), true)).collect()
    }

    #[test]
    fn one_onset_in_a_refractory_period() {
        // 18 hours are 216 steps of 5 minutes, but 200 readings are enough; 36 of 30 minutes, but 40 are needed.
        assert_eq!(onsets(5 * MICROS_PER_MINUTE, 401), [0, 200, 400]);
        assert_eq!(onsets(30 * MICROS_PER_MINUTE, 81), [0, 40, 80]);
        assert_eq!(onsets(10 * MICROS_PER_MINUTE, 217), [0, 108, 216]);
        assert_eq!(onsets(0, 201), [0, 200]);
    }

    #[test]
    fn usual_readings_start_nothing() {
        let mut episode = Episode::default();
        assert!((0..500).all(|number| !episode.observe(Timestamp(number), false)));
        assert!(episode.observe(Timestamp(500), true));
    }

    #[test]
    fn extreme_times_and_counts() {
        let mut episode = Episode { readings: u32::MAX, onset: Timestamp(i64::MIN + 1) };
        assert!(episode.observe(Timestamp(i64::MAX), true));
        assert_eq!(episode, Episode { readings: 0, onset: Timestamp(i64::MAX) });
    }

    #[test]
    fn byte_form() {
        let episode = Episode { readings: 17, onset: Timestamp(-5) };
        let mut bytes = [0; Episode::ENCODED_LEN];
        assert!(episode.encode(&mut bytes));
        assert_eq!(Episode::decode(&bytes), Some(episode));
        assert_eq!(Episode::decode(&bytes[1..]), None);
        assert!(!episode.encode(&mut bytes[1..]));
    }
}
