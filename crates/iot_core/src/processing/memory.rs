//! What the rules of a device remember between readings.

use std::collections::{BTreeMap, BTreeSet};

use super::state::ProcessingState;
use crate::time::Timestamp;

/// A series of derived readings: what one rule makes of one sensor, or of the device as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesKey {
    /// Id of the rule.
    pub rule: u128,
    /// Key of the sensor; `None` for a rule about the device.
    pub sensor: Option<u32>,
}

/// A value and its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// When it was measured.
    pub time: Timestamp,
    /// The value; finite.
    pub value: f64,
}

/// What the rules of a device know: the newest values of sensors and outputs, and the states of rules.
///
/// The shell loads into it what [`super::RuleSet::needs`] lists, runs any number of readings, and stores what
/// has changed. What is not loaded counts as never seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    sensors: BTreeMap<u32, Observation>,
    outputs: BTreeMap<SeriesKey, Observation>,
    states: BTreeMap<SeriesKey, ProcessingState>,
    changed: BTreeSet<SeriesKey>,
}

impl Memory {
    /// The newest value of a sensor.
    pub fn sensor(&self, sensor: u32) -> Option<Observation> {
        self.sensors.get(&sensor).copied()
    }

    /// The newest value of an output. Kept only for outputs that are read when other sensors have readings.
    pub fn output(&self, series: SeriesKey) -> Option<Observation> {
        self.outputs.get(&series).copied()
    }

    /// The state of a rule.
    pub fn state(&self, series: SeriesKey) -> Option<&ProcessingState> {
        self.states.get(&series)
    }

    /// Takes note of a value of a sensor, unless a newer one is known.
    pub fn note_sensor(&mut self, sensor: u32, observation: Observation) {
        let known = self.sensors.entry(sensor).or_insert(observation);
        if known.time <= observation.time {
            *known = observation;
        }
    }

    /// Takes note of a value of an output, unless a newer one is known.
    pub fn note_output(&mut self, series: SeriesKey, observation: Observation) {
        let known = self.outputs.entry(series).or_insert(observation);
        if known.time <= observation.time {
            *known = observation;
        }
    }

    /// Puts a stored state back.
    pub fn set_state(&mut self, series: SeriesKey, state: ProcessingState) {
        self.states.insert(series, state);
    }

    /// The series whose state or newest output readings have touched since the last call, in order.
    pub fn take_changed(&mut self) -> BTreeSet<SeriesKey> {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn mark_changed(&mut self, series: SeriesKey) {
        self.changed.insert(series);
    }

    /// The state of a rule, or what `begin` makes where there is none.
    pub(super) fn state_or_begin(
        &mut self,
        series: SeriesKey,
        begin: impl FnOnce() -> ProcessingState,
    ) -> &mut ProcessingState {
        self.states.entry(series).or_insert_with(begin)
    }
}
