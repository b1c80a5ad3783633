//! The rules of one device, in the order in which they run.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::memory::SeriesKey;
use super::parse::is_reading;
use super::processing_error::ProcessingError;
use super::resolve::{Node, Source, resolve};
use super::rule::ProcessingRule;
use super::rule_set_error::{RuleSetError, RuleSetProblem};

/// A sensor of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSensor {
    /// What the shell calls it; unique.
    pub key: u32,
    /// Its name, unique on the device.
    pub name: String,
    /// What it measures.
    pub sensor_type: String,
}

/// A rule as it is stored, with the scope as the shell has found it.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSource {
    /// Its id; unique.
    pub id: u128,
    /// Its name.
    pub name: String,
    /// Rules of lower order run first, as far as they do not read each other; with equal order, the lower id
    /// decides.
    pub order: i32,
    /// The version of its definition, to be stored with its results.
    pub version: i32,
    /// Its type.
    pub rule_type: String,
    /// Its parameters.
    pub definition: Value,
    /// Keys of the sensors of the device to whose readings it is applied. Others are ignored.
    pub sensors: Vec<u32>,
}

/// A rule of a set.
#[derive(Clone, Debug, PartialEq)]
pub struct SetRule {
    /// Its id.
    pub id: u128,
    /// Its name.
    pub name: String,
    /// The version of its definition.
    pub version: i32,
    /// The name of its results.
    pub output: String,
    /// What it does.
    pub rule: ProcessingRule,
}

/// A rule whose definition has been read.
#[derive(Clone, Debug)]
pub(super) struct ScopedRule {
    pub rule: SetRule,
    pub order: i32,
    /// Sensors of the device only.
    pub scope: BTreeSet<u32>,
}

/// The rules of one device, checked and ordered once, ready to be run for any number of its readings.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleSet {
    pub(super) rules: Vec<SetRule>,
    /// Each after those that it reads.
    pub(super) nodes: Vec<Node>,
    /// The indices of the nodes that a reading of a sensor runs, in order.
    pub(super) runs: BTreeMap<u32, Vec<usize>>,
}

/// What must be in the [`super::Memory`] before a reading is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Keys of the other sensors whose newest values are read.
    pub sensors: BTreeSet<u32>,
    /// Outputs whose newest values are read, because readings of other sensors produce them, or kept for those.
    pub outputs: BTreeSet<SeriesKey>,
    /// Series whose states are used.
    pub states: BTreeSet<SeriesKey>,
    /// Series made of what other sensors have said last. Who changes that must not do so while they are computed.
    pub shared: BTreeSet<SeriesKey>,
}

impl RuleSet {
    /// Puts the active rules that apply to a device into order: each after those whose outputs it reads, and
    /// else by order and id.
    ///
    /// A rule is applied to the readings of each sensor in its scope separately, with a state and an output
    /// for each. An expression that mentions neither `value` nor `raw`, and whatever is applied to the output
    /// of such a one, is instead about the device: it has one state and one output, and runs for a reading of
    /// a sensor in its scope if it reads that sensor, directly or through the outputs of other rules.
    ///
    /// References mean:
    ///
    /// - `input`: the output of the same sensor or, if it is one about the device, that. A rule is not
    ///   applied to sensors without the output.
    /// - `sensor_type`: the sensor of the reading if it is of the type, else the only one of the type.
    /// - `output`: that of the sensor of the reading if there is one, else the only one on the device.
    ///
    /// # Errors
    /// For a malformed definition, a reference that nothing or too much fits, two outputs of the same name
    /// for the same readings, a rule that would never run, and a loop of rules, whether or not one reading
    /// would run it all.
    pub fn build(sensors: &[DeviceSensor], sources: &[RuleSource]) -> Result<Self, RuleSetError> {
        let rules = sources.iter().map(|source| read(sensors, source)).collect::<Result<Vec<_>, _>>()?;
        assemble(sensors, rules)
    }

    /// As [`RuleSet::build`], but leaves out the rules that have errors, those in loops included, and tells
    /// which. In this way a device keeps the rules that do hold for it.
    pub fn build_skipping(sensors: &[DeviceSensor], sources: &[RuleSource]) -> (Self, Vec<RuleSetError>) {
        let mut errors = Vec::new();
        let mut rules = Vec::new();
        for source in sources {
            match read(sensors, source) {
                Ok(rule) => rules.push(rule),
                Err(error) => errors.push(error),
            }
        }
        loop {
            match assemble(sensors, rules.clone()) {
                Ok(set) => return (set, errors),
                Err(error) => {
                    // Every error names a rule of the set, so that this ends.
                    rules.retain(|scoped| !error.rules.contains(&scoped.rule.id));
                    errors.push(error);
                }
            }
        }
    }

    /// The rules, by order and id.
    pub fn rules(&self) -> &[SetRule] {
        &self.rules
    }

    /// The rules that a reading of this sensor runs, in order.
    pub fn rules_for(&self, sensor: u32) -> impl Iterator<Item = &SetRule> {
        self.nodes_for(sensor).map(|node| &self.rules[node.rule])
    }

    /// What must be loaded before a reading of this sensor is run.
    pub fn needs(&self, sensor: u32) -> Needs {
        let mut needs = Needs::default();
        for node in self.nodes_for(sensor) {
            if self.rules[node.rule].rule.has_state() {
                needs.states.insert(self.series(node));
            }
            if node.is_kept {
                // So that a late reading does not pass for the newest.
                needs.outputs.insert(self.series(node));
            }
            for source in node.sources() {
                match source {
                    Source::Sensor(other) if other != sensor => {
                        needs.sensors.insert(other);
                        needs.shared.insert(self.series(node));
                    }
                    Source::Output(index) if !self.nodes[index].triggers.contains(&sensor) => {
                        needs.outputs.insert(self.series(&self.nodes[index]));
                        needs.shared.insert(self.series(node));
                    }
                    _ => {}
                }
            }
        }
        needs
    }

    /// The series that a node produces.
    pub(super) fn series(&self, node: &Node) -> SeriesKey {
        SeriesKey { rule: self.rules[node.rule].id, sensor: node.sensor }
    }

    fn nodes_for(&self, sensor: u32) -> impl Iterator<Item = &Node> {
        self.runs.get(&sensor).into_iter().flatten().map(|index| &self.nodes[*index])
    }
}

fn read(sensors: &[DeviceSensor], source: &RuleSource) -> Result<ScopedRule, RuleSetError> {
    let malformed = |error| RuleSetError {
        rules: vec![source.id],
        problem: RuleSetProblem::Definition { rule: source.name.clone(), error },
    };
    let rule = ProcessingRule::parse(&source.rule_type, &source.definition).map_err(malformed)?;
    let output = rule.output.clone().unwrap_or_else(|| source.name.clone());
    if is_reading(&output) {
        return Err(malformed(ProcessingError::Reserved { key: "output".to_owned(), name: output }));
    }
    let scope = sensors.iter().map(|sensor| sensor.key).filter(|key| source.sensors.contains(key)).collect();
    let rule = SetRule { id: source.id, name: source.name.clone(), version: source.version, output, rule };
    Ok(ScopedRule { rule, order: source.order, scope })
}

fn assemble(sensors: &[DeviceSensor], mut rules: Vec<ScopedRule>) -> Result<RuleSet, RuleSetError> {
    rules.sort_by_key(|scoped| (scoped.order, scoped.rule.id));
    let nodes = resolve(sensors, &rules)?;
    let mut runs: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        for sensor in &node.triggers {
            runs.entry(*sensor).or_default().push(index);
        }
    }
    Ok(RuleSet { rules: rules.into_iter().map(|scoped| scoped.rule).collect(), nodes, runs })
}
