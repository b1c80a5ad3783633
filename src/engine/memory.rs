//! What the engine remembers of sensors, found again: from what was written down, and from the readings since.

use iot_core::detect::{DetectorKind, DetectorState};
use iot_core::ingest::Observation;
use iot_core::sensor_state::{SensorState, Stored};
use pgrx::Uuid;

use super::directory::KeyMap;
use super::profile::Profile;
use crate::catalog::reading::{self, LARGEST_COUNTED, Since};
use crate::catalog::sensor_state;
use crate::error::IotResult;
use crate::pg::statement::Session;

/// Stored readings with which a detector that is new to its sensor begins, at most.
const WARM_UP: i64 = 2_000;

/// Stored readings from which the order-dependent part of a state is found again: an episode mutes at most 200.
const TAIL: i64 = 250;

/// The states of sensors, after all that is stored of them.
///
/// A checkpoint needs only the readings since. Without one the window is read; the rest of the state goes on from what
/// was written down last.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn rebuild(session: &mut Session<'_>, profiles: &[&Profile]) -> IotResult<KeyMap<SensorState>> {
    let all: Vec<Uuid> = profiles.iter().map(|profile| profile.sensor_id).collect();
    let limits: KeyMap<&Profile> = profiles.iter().map(|&p| (*p.sensor_id.as_bytes(), p)).collect();
    let mut older: KeyMap<SensorState> = KeyMap::default();
    let mut states: KeyMap<SensorState> = KeyMap::default();
    for kept in sensor_state::load(session, all.clone())? {
        let key = *kept.sensor_id.as_bytes();
        if kept.is_checkpoint {
            states.insert(key, kept.state);
        } else {
            older.insert(key, kept.state);
        }
    }
    let without: Vec<Uuid> = all.into_iter().filter(|id| !states.contains_key(id.as_bytes())).collect();
    // Readings since what was written down: those of a checkpoint are counted, of the others only their order matters.
    let mut since: Vec<Since> = Vec::new();
    for (key, state) in states.iter().chain(&older) {
        if let Some(newest) = state.window.high_water() {
            since.push(Since { sensor_id: Uuid::from_bytes(*key), after: newest });
        }
    }
    reading::visit_since(session, &since, |sensor_id, reading| {
        let key = sensor_id.as_bytes();
        let Some(state) = states.get_mut(key).or_else(|| older.get_mut(key)) else { return };
        let Some(profile) = limits.get(key) else { return };
        let at = reading.observation.measured_at;
        if state.is_news(at) {
            state.onset(at, reading.is_anomaly);
        }
        let counted = reading.observation.value.abs() <= LARGEST_COUNTED;
        state.observe(&Stored { observation: reading.observation, counted }, &profile.limits);
    })?;
    if !without.is_empty() {
        // Nothing was written down of these: what depends on the order of the readings follows from the last of them. An
        // episode is over after so many readings; one that goes on began with a reading that is marked.
        let unwritten: Vec<Uuid> =
            without.iter().filter(|id| !older.contains_key(id.as_bytes())).copied().collect();
        let mut in_episode: KeyMap<bool> = KeyMap::default();
        reading::visit_tails(session, unwritten, TAIL, |sensor_id, reading, is_onset| {
            let key = *sensor_id.as_bytes();
            let Some(profile) = limits.get(&key) else { return };
            let state = older.entry(key).or_default();
            let has_begun = in_episode.entry(key).or_default();
            *has_begun |= is_onset;
            if state.is_news(reading.observation.measured_at) {
                state.onset(reading.observation.measured_at, reading.is_anomaly && *has_begun);
            }
            state.observe(&Stored { observation: reading.observation, counted: false }, &profile.limits);
        })?;
        for (key, mut state) in reading::windows(session, without)? {
            if let Some(older) = older.get(&key) {
                state.continue_from(older);
            }
            states.insert(key, state);
        }
    }
    Ok(states)
}

/// A stored reading, as far as states are concerned.
pub struct Replayed {
    /// Value and times.
    pub observation: Observation,
    /// Whether it was flagged.
    pub is_anomaly: bool,
}

/// The detectors of those `profiles` that have one of their own, locked until the transaction ends. One that is new to
/// its sensor begins with the sensor's last stored readings.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn detectors(session: &mut Session<'_>, profiles: &[&Profile]) -> IotResult<KeyMap<DetectorState>> {
    let mut detectors: KeyMap<DetectorState> = KeyMap::default();
    let sensor_ids: Vec<Uuid> = profiles.iter().map(|profile| profile.sensor_id).collect();
    let kept: KeyMap<Vec<u8>> = sensor_state::load_detectors(session, sensor_ids)?
        .into_iter()
        .map(|(sensor_id, bytes)| (*sensor_id.as_bytes(), bytes))
        .collect();
    for profile in profiles {
        let key = *profile.sensor_id.as_bytes();
        let found = kept.get(&key).and_then(|bytes| DetectorState::decode(bytes));
        if let Some(found) = found.filter(|found| found.kind() == profile.detector) {
            detectors.insert(key, found);
        } else if let Some(mut new) = DetectorState::new(profile.detector) {
            reading::visit_last(session, profile.sensor_id, WARM_UP, |at, value| {
                new.observe(at, value);
            })?;
            detectors.insert(key, new);
        }
    }
    Ok(detectors)
}

/// Writes the detectors down that [`detectors`] gave out.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn keep_detectors(
    session: &mut Session<'_>,
    profiles: &[&Profile],
    detectors: &KeyMap<DetectorState>,
) -> IotResult<()> {
    let mut states = Vec::with_capacity(detectors.len());
    for profile in profiles {
        if let Some(detector) = detectors.get(profile.sensor_id.as_bytes()) {
            let mut bytes = vec![0; DetectorState::encoded_len(detector.kind())];
            if detector.encode(&mut bytes) {
                states.push((profile.sensor_id, profile.device_id, bytes));
            }
        }
    }
    sensor_state::store_detectors(session, states)
}

/// Whether a sensor's readings are scored by a detector with a state of its own.
pub fn has_detector(profile: &Profile) -> bool {
    profile.detector != DetectorKind::Zscore
}
