//! What the engine remembers of sensors, found again: from what was written down, and from the readings since.

use std::rc::Rc;

use iot_core::detect::{DetectorKind, DetectorState};
use iot_core::ingest::Observation;
use iot_core::sensor_state::{SensorState, Stored};
use iot_core::time::Timestamp;
use pgrx::Uuid;

use super::directory::KeyMap;
use super::profile::Profile;
use crate::catalog::reading::{self, LARGEST_COUNTED, Since};
use crate::catalog::sensor_state;
use crate::error::IotResult;
use crate::pg::statement::{Session, with_session};

/// Stored readings with which a detector that is new to its sensor begins, at most.
const WARM_UP: i64 = 2_000;

/// Sensors whose last readings are in memory at once.
const WARMED_UP_AT_ONCE: usize = 16;

/// Stored readings from which the order-dependent part of a state is found again: an episode mutes at most 200.
const TAIL: i64 = 250;

/// What has to be found of a sensor.
pub struct Wanted {
    /// The sensor.
    pub profile: Rc<Profile>,
    /// Whether its state is wanted.
    pub state: bool,
    /// Whether that of its detector is, and from what.
    pub detector: Option<Basis>,
}

/// What the state of a detector is found from; the readings since are added.
pub enum Basis {
    /// The last stored readings: what was written down is of another detector, or was given up.
    Stored,
    /// What was written down.
    Written,
    /// This one, which may have missed readings.
    Known(Rc<DetectorState>),
}

/// What was found.
#[derive(Default)]
pub struct Rebuilt {
    /// States of sensors.
    pub states: KeyMap<SensorState>,
    /// States of detectors.
    pub detectors: KeyMap<Found>,
}

/// The state of a detector.
pub struct Found {
    /// After all that is stored of the sensor.
    pub state: Rc<DetectorState>,
    /// It is not just the one that was known.
    pub is_new: bool,
    /// Newest reading seen.
    newest: Timestamp,
}

impl Found {
    fn new(state: Rc<DetectorState>, is_new: bool) -> Self {
        let newest = state.newest();
        Self { state, is_new, newest }
    }

    /// The next reading in order of arrival. What is no news was not learned from when it came either.
    fn replay(&mut self, at: Timestamp, value: f64) {
        if at <= self.newest {
            return;
        }
        self.newest = at;
        if !value.is_nan() {
            Rc::make_mut(&mut self.state).observe(at, value);
            self.is_new = true;
        }
    }
}

/// The states of sensors and of their detectors, after all that is stored of them.
///
/// A checkpoint needs only the readings since. Without one the window is read; the rest of the state goes on from what
/// was written down last. So does a detector: readings that came late, and changes of stored ones, are nothing to it.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn rebuild(session: &mut Session<'_>, wanted: &[Wanted]) -> IotResult<Rebuilt> {
    let all: Vec<Uuid> = wanted.iter().filter(|w| w.state).map(|w| w.profile.sensor_id).collect();
    let limits: KeyMap<&Profile> =
        wanted.iter().map(|w| (*w.profile.sensor_id.as_bytes(), &*w.profile)).collect();
    let mut older: KeyMap<SensorState> = KeyMap::default();
    let mut states: KeyMap<SensorState> = KeyMap::default();
    if !all.is_empty() {
        for kept in sensor_state::load(session, all.clone())? {
            let key = *kept.sensor_id.as_bytes();
            if kept.is_checkpoint {
                states.insert(key, kept.state);
            } else {
                older.insert(key, kept.state);
            }
        }
    }
    let (mut detectors, new) = detectors(session, wanted)?;
    let without: Vec<Uuid> = all.into_iter().filter(|id| !states.contains_key(id.as_bytes())).collect();
    // Readings since what was written down: those of a checkpoint are counted, of the others only their order matters.
    let written = states.iter().chain(&older);
    let state_after: KeyMap<Timestamp> =
        written.filter_map(|(key, state)| Some((*key, state.window.high_water()?))).collect();
    let mut after = state_after.clone();
    for (key, found) in &detectors {
        let newest = after.entry(*key).or_insert(found.newest);
        *newest = found.newest.min(*newest);
    }
    let since: Vec<Since> =
        after.iter().map(|(key, &after)| Since { sensor_id: Uuid::from_bytes(*key), after }).collect();
    reading::visit_since(session, &since, |sensor_id, reading| {
        let key = sensor_id.as_bytes();
        let at = reading.observation.measured_at;
        if let Some(found) = detectors.get_mut(key) {
            found.replay(at, reading.observation.value);
        }
        if state_after.get(key).is_none_or(|&after| at <= after) {
            return;
        }
        let Some(state) = states.get_mut(key).or_else(|| older.get_mut(key)) else { return };
        let Some(profile) = limits.get(key) else { return };
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
    warm_up(&new, &mut detectors)?;
    Ok(Rebuilt { states, detectors })
}

/// The detectors that are known or were written down, and the profiles of those that begin anew.
fn detectors<'a>(
    session: &mut Session<'_>,
    wanted: &'a [Wanted],
) -> IotResult<(KeyMap<Found>, Vec<&'a Profile>)> {
    let mut detectors: KeyMap<Found> = KeyMap::default();
    let (mut unknown, mut new) = (Vec::new(), Vec::new());
    for wanted in wanted {
        match &wanted.detector {
            None => (),
            Some(Basis::Known(state)) => {
                detectors.insert(*wanted.profile.sensor_id.as_bytes(), Found::new(Rc::clone(state), false));
            }
            Some(Basis::Written) => unknown.push(&*wanted.profile),
            Some(Basis::Stored) => new.push(&*wanted.profile),
        }
    }
    if unknown.is_empty() {
        return Ok((detectors, new));
    }
    let sensor_ids = unknown.iter().map(|profile| profile.sensor_id).collect();
    let mut written: KeyMap<DetectorState> = KeyMap::default();
    for (sensor_id, bytes) in sensor_state::load_detectors(session, sensor_ids)? {
        // One that has seen nothing does not tell where to go on.
        if let Some(state) = DetectorState::decode(&bytes).filter(|state| state.newest().is_finite()) {
            written.insert(*sensor_id.as_bytes(), state);
        }
    }
    unknown.retain(|profile| {
        let key = *profile.sensor_id.as_bytes();
        let found = written.remove(&key).filter(|state| state.kind() == profile.detector);
        found.map(|state| detectors.insert(key, Found::new(Rc::new(state), true))).is_none()
    });
    new.extend(unknown);
    Ok((detectors, new))
}

/// Detectors that are new to their sensors begin with the last stored readings.
fn warm_up(new: &[&Profile], detectors: &mut KeyMap<Found>) -> IotResult<()> {
    for profiles in new.chunks(WARMED_UP_AT_ONCE) {
        let mut readings: KeyMap<Vec<(Timestamp, f64)>> = KeyMap::default();
        let sensor_ids: Vec<Uuid> = profiles.iter().map(|profile| profile.sensor_id).collect();
        // A session of its own: what it has read is freed with it.
        with_session(|session| {
            reading::visit_last(session, &sensor_ids, WARM_UP, |sensor_id, at, value| {
                readings.entry(*sensor_id.as_bytes()).or_default().push((at, value));
            })
        })?;
        for profile in profiles {
            let key = *profile.sensor_id.as_bytes();
            let stored = readings.remove(&key).unwrap_or_default();
            if let Some(state) = DetectorState::warmed_up(profile.detector, stored) {
                detectors.insert(key, Found::new(Rc::new(state), true));
            }
        }
    }
    Ok(())
}

/// A stored reading, as far as states are concerned.
pub struct Replayed {
    /// Value and times.
    pub observation: Observation,
    /// Whether it was flagged.
    pub is_anomaly: bool,
}

/// Whether a sensor's readings are scored by a detector with a state of its own.
pub fn has_detector(profile: &Profile) -> bool {
    profile.detector != DetectorKind::Zscore
}
