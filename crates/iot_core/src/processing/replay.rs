//! Running rules again after stored readings have changed.

use std::collections::{BTreeMap, BTreeSet};

use super::memory::{Memory, SeriesKey};
use super::resolve::{Node, Source};
use super::rule::{Operation, ProcessingRule, Window};
use super::rule_set::RuleSet;
use super::run::{Output, Reading};
use super::state::{MAXIMUM_ENTRIES, step_index};
use crate::time::Timestamp;

/// The rules of a device at work on its stored readings, some of which have changed.
///
/// The readings of [`Replay::sensors`] are given to [`Replay::observe`] in the order of their times, from where
/// [`Replay::begin`] says, until all readings of the time of the last changed one have been given and
/// [`Replay::is_settled`], or to the end. What follows from a changed reading is traced through windows, latest
/// values and the outputs of other rules, so that only such results come out.
///
/// Unlike readings as they arrive, none is late here.
#[derive(Clone, Debug)]
pub struct Replay<'a> {
    set: &'a RuleSet,
    /// Nodes whose results may follow from a changed reading.
    affected: BTreeSet<usize>,
    /// These, and those whose outputs they read.
    wanted: BTreeSet<usize>,
    memory: Memory,
    /// Sensors whose latest value is a changed one.
    changed_sensors: BTreeSet<u32>,
    /// Nodes whose latest output follows from a changed reading.
    changed_outputs: BTreeSet<usize>,
    /// Nodes that remember something which does.
    traces: BTreeMap<usize, Trace>,
    /// What nodes must have taken in or said before the first changed reading.
    wants: BTreeMap<usize, Want>,
    said: BTreeMap<usize, Said<'a>>,
    now: Timestamp,
}

/// What a node has said for the readings of a time.
#[derive(Clone, Copy, Debug, Default)]
struct Said<'a> {
    time: Option<Timestamp>,
    output: Option<Output<'a>>,
    is_replayed: bool,
}

/// What must be known of a node before the first changed reading.
#[derive(Clone, Copy, Debug)]
struct Want {
    /// From this time on its inputs are what they were.
    from: Timestamp,
    /// So many of them are still wanted.
    inputs: usize,
    /// A value before this time is still wanted.
    value_before: Option<Timestamp>,
}

/// How long a node remembers a reading.
#[derive(Clone, Copy, Debug)]
enum Trace {
    /// For so many readings, the present one included.
    Readings(usize),
    /// Until so many steps of this length after the step of this number.
    Steps { micros: i64, index: i64 },
}

/// What came of one affected rule for one reading: its output, or that it has none.
pub type Replayed<'a> = Result<Output<'a>, (usize, SeriesKey)>;

impl RuleSet {
    /// Prepares running the rules again after readings of the sensors `changed` have changed.
    pub fn replay(&self, changed: BTreeSet<u32>) -> Replay<'_> {
        let mut affected = BTreeSet::new();
        // Each node comes after those that it reads.
        for (index, node) in self.nodes.iter().enumerate() {
            let follows = |source: Source| match source {
                Source::Value | Source::Raw => !node.triggers.is_disjoint(&changed),
                Source::Sensor(sensor) => changed.contains(&sensor),
                Source::Output(output) => affected.contains(&output),
            };
            if node.sources().any(follows) {
                affected.insert(index);
            }
        }
        let mut wanted = affected.clone();
        for (index, node) in self.nodes.iter().enumerate().rev() {
            if wanted.contains(&index) {
                wanted.extend(node.sources().filter_map(|source| match source {
                    Source::Output(output) => Some(output),
                    _ => None,
                }));
            }
        }
        Replay {
            set: self,
            wants: BTreeMap::new(),
            affected,
            wanted,
            memory: Memory::default(),
            changed_sensors: BTreeSet::new(),
            changed_outputs: BTreeSet::new(),
            traces: BTreeMap::new(),
            said: BTreeMap::new(),
            now: Timestamp::NEGATIVE_INFINITY,
        }
    }
}

impl<'a> Replay<'a> {
    /// Whether nothing follows from readings of these sensors.
    pub fn is_empty(&self) -> bool {
        self.affected.is_empty()
    }

    /// Whether each result follows from nothing but the reading that it was computed for. Then no other has to be
    /// given, and [`RuleSet::run`] does as well.
    pub fn is_local(&self) -> bool {
        let local = |index: &usize| {
            let node = &self.set.nodes[*index];
            let is_own = |source: Source| match source {
                Source::Value | Source::Raw => true,
                Source::Sensor(sensor) => node.triggers.iter().all(|trigger| *trigger == sensor),
                Source::Output(output) => self.affected.contains(&output) && !self.set.nodes[output].is_kept,
            };
            !self.rule(*index).has_state() && !node.is_kept && node.sources().all(is_own)
        };
        self.affected.iter().all(local)
    }

    /// The sensors whose readings are to be given.
    pub fn sensors(&self) -> BTreeSet<u32> {
        let mut sensors = BTreeSet::new();
        for node in self.wanted.iter().map(|index| &self.set.nodes[*index]) {
            sensors.extend(&node.triggers);
            sensors.extend(node.sources().filter_map(|source| match source {
                Source::Sensor(sensor) => Some(sensor),
                _ => None,
            }));
        }
        sensors
    }

    /// The series that nobody else may compute or change meanwhile.
    pub fn series(&self) -> BTreeSet<SeriesKey> {
        let mut series = BTreeSet::new();
        for index in &self.affected {
            let node = &self.set.nodes[*index];
            let is_shared = |trigger: &u32| self.set.needs(*trigger).shared.contains(&self.set.series(node));
            if self.rule(*index).has_state() || node.is_kept || node.triggers.iter().any(is_shared) {
                series.insert(self.set.series(node));
            }
        }
        series
    }

    /// Where to begin so that everything is known when the readings reach `first`, the time of the first changed one:
    /// for each sensor the time of its first reading.
    ///
    /// `earlier` finds the time of the n-th last reading before a time of the given sensors together; of the first
    /// one where there are fewer, and the time itself where there is none. `more` times as many readings are taken as
    /// needed if rules have results for all of them; see [`Replay::is_warm`].
    ///
    /// # Errors
    /// Those of `earlier`.
    pub fn begin<E>(
        &mut self,
        first: Timestamp,
        more: usize,
        mut earlier: impl FnMut(&BTreeSet<u32>, Timestamp, usize) -> Result<Timestamp, E>,
    ) -> Result<BTreeMap<u32, Timestamp>, E> {
        let mut sensors: BTreeMap<u32, Timestamp> = BTreeMap::new();
        let mut exact_from: BTreeMap<usize, Timestamp> =
            self.affected.iter().map(|index| (*index, first)).collect();
        self.wants.clear();
        // From the readers to what they read.
        for index in self.wanted.iter().rev() {
            let node = &self.set.nodes[*index];
            let exact = exact_from.get(index).copied().unwrap_or(first);
            let (from, inputs) = match &self.rule(*index).operation {
                Operation::MovingAverage(Window::Readings(limit)) => {
                    // All of them, since the changed reading may have no result that takes the place of one.
                    (earlier(&node.triggers, exact, limit * more)?, *limit)
                }
                Operation::Difference { .. } => (earlier(&node.triggers, exact, more)?, 1),
                Operation::MovingAverage(Window::Micros(micros)) => {
                    let window = Window::step(*micros).saturating_mul(MAXIMUM_ENTRIES as i64);
                    (Timestamp(exact.0.saturating_sub(window)).max(Timestamp::EARLIEST), 0)
                }
                _ => (exact, 0),
            };
            let want = self.wants.entry(*index).or_insert(Want { from, inputs, value_before: None });
            (want.from, want.inputs) = (from, inputs);
            for sensor in &node.triggers {
                note_earliest(&mut sensors, *sensor, from);
            }
            for source in node.sources() {
                match source {
                    Source::Sensor(sensor) => {
                        let latest = earlier(&BTreeSet::from([sensor]), from, 1)?;
                        note_earliest(&mut sensors, sensor, latest);
                    }
                    Source::Output(output) => {
                        let read = &self.set.nodes[output];
                        if node.triggers.is_subset(&read.triggers) {
                            note_earliest(&mut exact_from, output, from);
                            continue;
                        }
                        note_earliest(&mut exact_from, output, earlier(&read.triggers, from, more)?);
                        let nothing = Want { from, inputs: 0, value_before: None };
                        let before = &mut self.wants.entry(output).or_insert(nothing).value_before;
                        *before = Some(before.map_or(from, |before| before.min(from)));
                    }
                    Source::Value | Source::Raw => {}
                }
            }
        }
        Ok(sensors)
    }

    /// Whether the readings before the first changed one were enough. Rules leave out readings on which they fail or
    /// lack an input, so that more of them may be wanted.
    pub fn is_warm(&self) -> bool {
        self.wants.values().all(|want| want.inputs == 0 && want.value_before.is_none())
    }

    /// Runs the rules for the next reading. What comes out follows from a changed reading.
    pub fn observe(&mut self, reading: &Reading, is_changed: bool) -> Vec<Replayed<'a>> {
        let mut replayed = Vec::new();
        let (set, changed_sensors) = (self.set, &mut self.changed_sensors);
        self.now = reading.time;
        if is_changed {
            changed_sensors.insert(reading.sensor);
        } else {
            changed_sensors.remove(&reading.sensor);
        }
        let wanted = &self.wanted;
        let mut results = Vec::new();
        set.run_nodes(
            reading,
            &mut self.memory,
            |index| wanted.contains(&index),
            |index, output| {
                results.push((index, output));
            },
        );
        let taken_in = self.memory.take_changed();
        // Nodes that this reading has run, and whether their results follow from a changed one.
        let mut run: BTreeMap<usize, bool> = BTreeMap::new();
        for (index, output) in results {
            let node = &set.nodes[index];
            let follows = |source: Source| match source {
                Source::Value | Source::Raw => is_changed,
                Source::Sensor(sensor) => self.changed_sensors.contains(&sensor),
                Source::Output(output) => {
                    run.get(&output).copied().unwrap_or_else(|| self.changed_outputs.contains(&output))
                }
            };
            let follows = node.sources().any(follows);
            let is_counted = taken_in.contains(&set.series(node));
            let follows = self.trace(index, follows, is_counted, reading.time);
            run.insert(index, follows);
            let has_value = output.as_ref().is_some_and(|output| output.result.is_ok());
            if let Some(want) = self.wants.get_mut(&index) {
                want.inputs -= usize::from(is_counted && want.inputs > 0 && want.from <= reading.time);
                want.value_before = want.value_before.filter(|before| !has_value || *before <= reading.time);
            }
            // Of readings of the same time the last result stays, whether or not it is a new one.
            let said = self.said.entry(index).or_default();
            if said.time != Some(reading.time) {
                *said = Said { time: Some(reading.time), ..Said::default() };
            }
            said.output = output.or(said.output);
            said.is_replayed |= follows;
            if said.is_replayed {
                replayed.push(said.output.ok_or((node.rule, set.series(node))));
            }
            match (node.is_kept, follows, has_value) {
                // Without a value, an older one has come to be the latest.
                (true, true, _) => drop(self.changed_outputs.insert(index)),
                (true, false, true) => drop(self.changed_outputs.remove(&index)),
                _ => {}
            }
        }
        replayed
    }

    /// Whether the result of a node follows from a changed reading, through its input or through what it remembers.
    fn trace(&mut self, index: usize, input_follows: bool, is_counted: bool, time: Timestamp) -> bool {
        let begun = match &self.rule(index).operation {
            Operation::MovingAverage(Window::Readings(limit)) => Trace::Readings(*limit),
            Operation::Difference { .. } => Trace::Readings(2),
            Operation::MovingAverage(Window::Micros(micros)) => {
                Trace::Steps { micros: *micros, index: step_index(time, *micros) }
            }
            _ => return input_follows,
        };
        if input_follows {
            self.traces.insert(index, begun);
            return true;
        }
        let Some(trace) = self.traces.get_mut(&index) else { return false };
        if let (Trace::Readings(left), true) = (&mut *trace, is_counted) {
            *left = left.saturating_sub(1);
        }
        let lasts = trace.lasts(time);
        if !lasts {
            self.traces.remove(&index);
        }
        lasts
    }

    /// Whether nothing that a further reading would give follows from the changed readings so far.
    pub fn is_settled(&self) -> bool {
        let reads_changed = |node: &Node| {
            node.sources().any(|source| match source {
                Source::Sensor(sensor) => {
                    self.changed_sensors.contains(&sensor)
                        && node.triggers.iter().any(|trigger| *trigger != sensor)
                }
                Source::Output(output) => self.changed_outputs.contains(&output),
                Source::Value | Source::Raw => false,
            })
        };
        !self.affected.iter().any(|index| reads_changed(&self.set.nodes[*index]))
            && !self.traces.values().any(|trace| trace.lasts(self.now))
    }

    /// The memory after the readings so far. Only what [`Replay::series`] names is meant to be kept, and only when
    /// there are no more readings.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    fn rule(&self, index: usize) -> &ProcessingRule {
        &self.set.rules()[self.set.nodes[index].rule].rule
    }
}

fn note_earliest<K: Ord>(times: &mut BTreeMap<K, Timestamp>, key: K, time: Timestamp) {
    let known = times.entry(key).or_insert(time);
    *known = (*known).min(time);
}

impl Trace {
    /// Whether a reading at `time` would meet it.
    fn lasts(self, time: Timestamp) -> bool {
        match self {
            Self::Readings(left) => left > 0,
            Self::Steps { micros, index } => {
                step_index(time, micros).saturating_sub(index) < MAXIMUM_ENTRIES as i64
            }
        }
    }
}
