//! What is remembered of a sensor between readings.

use crate::detect::{Episode, SUB_BUCKETS, SubBucket, WindowDelta, ZscoreWindow};
use crate::ingest::{Observation, QualityContext, QualityFlags, QualityLimits, assess_observation};
use crate::time::Timestamp;

/// State of one sensor after its readings so far. Fixed size and free of pointers, so that processes can share it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct SensorState {
    /// The last 24 hours; its high-water mark is the time of the newest reading.
    pub window: ZscoreWindow,
    /// Value of the newest reading; NaN for one that is not a number.
    pub latest_value: f64,
    /// When the newest arrival reached the server, in microseconds since 2000; [`NEVER`] before the first.
    pub last_received: i64,
    tail: Tail,
}

/// [`SensorState::last_received`] of a sensor that was never heard of.
pub const NEVER: i64 = i64::MIN;

/// What depends on the order of the readings: the session with the newest one decides it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Tail {
    quality: QualityContext,
    episode: Episode,
}

impl Default for SensorState {
    fn default() -> Self {
        Self {
            window: ZscoreWindow::default(),
            latest_value: f64::NAN,
            last_received: NEVER,
            tail: Tail::default(),
        }
    }
}

/// A stored reading, as far as the state is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// The calibrated value and its times.
    pub observation: Observation,
    /// Whether its value belongs into the window.
    pub counted: bool,
}

impl SensorState {
    /// Reasons to doubt a reading that is about to be stored.
    pub fn assess(&self, observation: &Observation, limits: &QualityLimits) -> QualityFlags {
        assess_observation(observation, limits, &self.tail.quality)
    }

    /// Whether `at` is newer than every reading so far.
    pub fn is_news(&self, at: Timestamp) -> bool {
        self.window.high_water().is_none_or(|newest| at > newest)
    }

    /// Whether an anomalous episode begins with a reading at `at` that is flagged, or not. To be asked once for each
    /// reading that is news, before it is observed.
    pub fn onset(&mut self, at: Timestamp, is_anomaly: bool) -> bool {
        self.tail.episode.observe(at, is_anomaly)
    }

    /// Takes in a stored reading.
    pub fn observe(&mut self, reading: &Stored, limits: &QualityLimits) {
        self.observe_judged(reading, self.is_news(reading.observation.measured_at), limits);
    }

    /// As [`observe`](Self::observe), for a reading of which it is known whether it was news: scoring it may have moved
    /// the window on to its time already, and then nobody could tell any more.
    pub fn observe_judged(&mut self, reading: &Stored, was_news: bool, limits: &QualityLimits) {
        let observation = &reading.observation;
        if was_news {
            self.latest_value = observation.value;
            if !observation.value.is_nan() {
                self.tail.quality.observe(observation, limits);
            }
        }
        self.last_received = self.last_received.max(observation.received_at.0);
        if reading.counted {
            self.window.add(observation.measured_at, observation.value);
        } else {
            self.window.advance(observation.measured_at);
        }
    }

    /// Takes in what another transaction did to an older version of this state.
    pub fn merge(&mut self, change: &SensorChange) {
        if let Some((at, value, tail)) = change.newest
            && self.is_news(at)
        {
            self.latest_value = value;
            self.tail = tail;
        }
        self.last_received = self.last_received.max(change.last_received);
        self.window.merge(&change.window);
    }

    /// Takes the order-dependent part from an `older` state, before the readings since are observed.
    pub fn continue_from(&mut self, older: &Self) {
        self.tail = older.tail;
    }
}

/// What one transaction adds to a [`SensorState`].
#[derive(Clone, Debug)]
pub struct SensorChange {
    window: WindowDelta,
    newest: Option<(Timestamp, f64, Tail)>,
    last_received: i64,
}

impl Default for SensorChange {
    fn default() -> Self {
        Self { window: WindowDelta::default(), newest: None, last_received: NEVER }
    }
}

impl SensorChange {
    /// As [`SensorState::observe`]; `after` is the state that has observed it.
    pub fn observe(&mut self, reading: &Stored, after: &SensorState) {
        let at = reading.observation.measured_at;
        if self.newest.is_none_or(|(newest, ..)| at > newest) {
            self.newest = Some((at, reading.observation.value, after.tail));
        }
        self.last_received = self.last_received.max(reading.observation.received_at.0);
        if reading.counted { self.window.add(at, reading.observation.value) } else { self.window.advance(at) }
    }

    /// Whether there is nothing to add.
    pub fn is_empty(&self) -> bool {
        self.newest.is_none()
    }
}

/// Version of the byte form.
const VERSION: u8 = 1;
/// Bytes before the sub-buckets.
const HEAD: usize = 1 + 8 + 8 + 8 + QualityContext::ENCODED_LENGTH + Episode::ENCODED_LEN;
/// Bytes of a sub-bucket: its place, count, mean and sum of squares.
const BUCKET: usize = 1 + 4 + 8 + 8;

impl SensorState {
    /// The byte form, little-endian: sub-buckets without readings are left out.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + SUB_BUCKETS * BUCKET);
        let newest = self.window.high_water().map_or(i64::MIN, |newest| newest.0);
        bytes.push(VERSION);
        bytes.extend_from_slice(&newest.to_le_bytes());
        bytes.extend_from_slice(&self.latest_value.to_le_bytes());
        bytes.extend_from_slice(&self.last_received.to_le_bytes());
        bytes.extend_from_slice(&self.tail.quality.encode());
        let mut episode = [0; Episode::ENCODED_LEN];
        self.tail.episode.encode(&mut episode);
        bytes.extend_from_slice(&episode);
        for (age, bucket) in self.window.sub_buckets() {
            bytes.push(age);
            bytes.extend_from_slice(&bucket.count.to_le_bytes());
            bytes.extend_from_slice(&bucket.mean.to_le_bytes());
            bytes.extend_from_slice(&bucket.m2.to_le_bytes());
        }
        bytes
    }

    /// Reads the byte form; `None` for anything that [`encode`](Self::encode) cannot have written.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        if take::<1>(&mut rest)? != [VERSION] {
            return None;
        }
        let newest = i64::from_le_bytes(take(&mut rest)?);
        let latest_value = f64::from_le_bytes(take(&mut rest)?);
        let last_received = i64::from_le_bytes(take(&mut rest)?);
        let quality = QualityContext::decode(&take::<{ QualityContext::ENCODED_LENGTH }>(&mut rest)?)?;
        let episode = Episode::decode(&take::<{ Episode::ENCODED_LEN }>(&mut rest)?)?;
        let mut window = ZscoreWindow::default();
        if newest != i64::MIN {
            window.advance(Timestamp(newest));
        }
        let mut newer = None;
        while !rest.is_empty() {
            let [age] = take(&mut rest)?;
            let bucket = SubBucket {
                count: u32::from_le_bytes(take(&mut rest)?),
                mean: f64::from_le_bytes(take(&mut rest)?),
                m2: f64::from_le_bytes(take(&mut rest)?),
            };
            let in_order = newer.replace(age).is_none_or(|newer| newer < age);
            if !in_order || !bucket.is_possible() || !window.set_sub_bucket(age, bucket) {
                return None;
            }
        }
        Some(Self { window, latest_value, last_received, tail: Tail { quality, episode } })
    }
}

fn take<const LENGTH: usize>(rest: &mut &[u8]) -> Option<[u8; LENGTH]> {
    let (taken, left) = rest.split_first_chunk::<LENGTH>()?;
    *rest = left;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_LIMITS: fn() -> QualityLimits = QualityLimits::default;

    fn reading(at: i64, value: f64, received_at: i64, counted: bool) -> Stored {
        let observation =
            Observation { received_at: Timestamp(received_at), ..Observation::new(value, Timestamp(at)) };
        Stored { observation, counted }
    }

    fn observe(state: &mut SensorState, change: Option<&mut SensorChange>, reading: &Stored) {
        state.observe(reading, &NO_LIMITS());
        if let Some(change) = change {
            change.observe(reading, state);
        }
    }

    #[test]
    fn news_stays_news_when_the_window_was_moved_first() {
        let (mut state, mut moved) = (SensorState::default(), SensorState::default());
        for (at, value) in [(10, 1.0), (20, 2.0), (15, 3.0)] {
            let reading = reading(at, value, at, true);
            let was_news = moved.is_news(Timestamp(at));
            moved.window.advance(Timestamp(at));
            moved.observe_judged(&reading, was_news, &NO_LIMITS());
            state.observe(&reading, &NO_LIMITS());
        }
        assert_eq!(moved, state);
        assert_eq!(moved.latest_value, 2.0);
    }

    #[test]
    fn the_latest_value_is_that_of_the_newest_time() {
        let mut state = SensorState::default();
        observe(&mut state, None, &reading(20, 2.0, 100, true));
        observe(&mut state, None, &reading(10, 1.0, 101, true));
        assert_eq!((state.latest_value, state.last_received), (2.0, 101));
        let mut change = SensorChange::default();
        assert!(change.is_empty());
        let mut elsewhere = SensorState::default();
        observe(&mut elsewhere, Some(&mut change), &reading(15, 1.5, 90, true));
        assert!(!change.is_empty());
        state.merge(&change);
        assert_eq!((state.latest_value, state.last_received), (2.0, 101));
        observe(&mut elsewhere, Some(&mut change), &reading(30, 3.0, 120, false));
        state.merge(&change);
        assert_eq!((state.latest_value, state.last_received), (3.0, 120));
        assert_eq!(state.window.high_water(), Some(Timestamp(30)));
    }

    #[test]
    fn the_byte_form_continues_as_the_state_does() {
        let mut state = SensorState::default();
        for step in 0..3_000_i64 {
            let value = (step % 17) as f64 + if step % 500 == 0 { 90.0 } else { 0.0 };
            state.onset(Timestamp(step * 60_000_000), step % 500 == 0);
            observe(&mut state, None, &reading(step * 60_000_000, value, step, true));
        }
        let bytes = state.encode();
        assert!(bytes.len() <= HEAD + SUB_BUCKETS * BUCKET);
        let mut decoded = SensorState::decode(&bytes).unwrap();
        assert_eq!(decoded, state);
        assert_eq!(decoded.onset(Timestamp(i64::MAX), true), state.onset(Timestamp(i64::MAX), true));
        for end in 0..bytes.len() {
            // Cut anywhere but between sub-buckets it is refused; there it has fewer of them.
            assert_eq!(
                SensorState::decode(&bytes[..end]).is_some(),
                end >= HEAD && (end - HEAD).is_multiple_of(BUCKET)
            );
        }
        assert_eq!(SensorState::decode(&[2; 400]), None);
    }

    #[test]
    fn bytes_that_no_state_has_are_refused() {
        let mut state = SensorState::default();
        for step in 0..3 {
            observe(&mut state, None, &reading(step * 3_600_000_000, 1e150, step, true));
        }
        let (bytes, bucket) = (state.encode(), |number: usize| HEAD + number * BUCKET);
        assert_eq!(SensorState::decode(&bytes), Some(state));
        let changed = |at: usize, new: &[u8]| {
            let mut changed = bytes.clone();
            changed[at..at + new.len()].copy_from_slice(new);
            SensorState::decode(&changed)
        };
        // A mean and a sum of squares that would overflow with the next reading.
        assert_eq!(changed(bucket(1) + 5, &1e200_f64.to_le_bytes()), None);
        assert_eq!(changed(bucket(1) + 13, &1e303_f64.to_le_bytes()), None);
        assert_eq!(changed(bucket(1) + 1, &[0; 4]), None, "a sub-bucket of nothing");
        assert_eq!(changed(bucket(1), &[bytes[bucket(2)]]), None, "the same one twice");
    }

    #[test]
    fn sums_of_squares_stay_finite() {
        let mut state = SensorState::default();
        observe(&mut state, None, &reading(0, 1e150, 0, true));
        let mut bytes = state.encode();
        bytes[HEAD + 1..HEAD + 5].copy_from_slice(&u32::MAX.to_le_bytes());
        bytes[HEAD + 13..].copy_from_slice(&f64::MAX.to_le_bytes());
        let mut state = SensorState::decode(&bytes).unwrap();
        let mut change = SensorChange::default();
        let elsewhere = state;
        observe(&mut state, Some(&mut change), &reading(1, -1e150, 1, true));
        let mut merged = elsewhere;
        merged.merge(&change);
        for state in [state, merged] {
            assert!(SensorState::decode(&state.encode()).is_some());
        }
    }

    #[test]
    fn an_entry_leaves_room_for_the_bookkeeping() {
        assert!(size_of::<SensorState>() <= 1200, "{}", size_of::<SensorState>());
    }
}
