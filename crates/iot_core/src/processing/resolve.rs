//! What the references of rules mean on a device.

use std::collections::{BTreeMap, BTreeSet};

use super::rule::{Input, NamedInput, Operation, Reference, VALUE};
use super::rule_set::{DeviceSensor, ScopedRule};
use super::rule_set_error::{RuleSetError, RuleSetProblem};
use super::sort::topological_order;

/// A rule applied to one sensor, or to the device as a whole.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// Index of the rule.
    pub rule: usize,
    /// The sensor; `None` for a rule about the device.
    pub sensor: Option<u32>,
    /// What the rule is applied to.
    pub input: Source,
    /// What the named inputs of an expression stand for.
    pub inputs: Vec<Source>,
    /// The sensors whose readings run the rule.
    pub triggers: BTreeSet<u32>,
    /// Whether readings that do not run this node run one that reads its output, so that it must be kept.
    pub is_kept: bool,
}

/// Where a number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Value,
    Raw,
    Sensor(u32),
    /// Index of the node.
    Output(usize),
}

impl Node {
    pub(super) fn sources(&self) -> impl Iterator<Item = Source> {
        std::iter::once(self.input).chain(self.inputs.iter().copied())
    }
}

type Resolved<T> = Result<T, RuleSetError>;

/// The nodes of the rules, each after those that it reads. The rules are in their order of execution.
pub(super) fn resolve(sensors: &[DeviceSensor], rules: &[ScopedRule]) -> Resolved<Vec<Node>> {
    let resolver = Resolver::new(sensors, rules)?;
    let nodes = (0..resolver.places.len()).map(|place| resolver.node(place)).collect::<Resolved<Vec<_>>>()?;
    let dependencies: Vec<Vec<usize>> = nodes
        .iter()
        .map(|node| {
            let outputs = node.sources().filter_map(|source| match source {
                Source::Output(index) => Some(index),
                _ => None,
            });
            outputs.collect()
        })
        .collect();
    let order = topological_order(&dependencies).map_err(|found| {
        let members = || found.iter().map(|node| &rules[nodes[*node].rule].rule);
        RuleSetError {
            rules: members().map(|rule| rule.id).collect(),
            problem: RuleSetProblem::Loop { rules: members().map(|rule| rule.name.clone()).collect() },
        }
    })?;
    finish(rules, nodes, &order)
}

/// Brings the nodes into order and finds out which readings run them.
fn finish(rules: &[ScopedRule], mut nodes: Vec<Node>, order: &[usize]) -> Resolved<Vec<Node>> {
    let mut new_index = vec![0; nodes.len()];
    for (index, node) in order.iter().enumerate() {
        new_index[*node] = index;
    }
    let mut ordered: Vec<Node> = Vec::with_capacity(nodes.len());
    for index in order {
        let node = &mut nodes[*index];
        let renumbered = |source: Source| match source {
            Source::Output(index) => Source::Output(new_index[index]),
            other => other,
        };
        let mut node = Node {
            input: renumbered(node.input),
            inputs: node.inputs.iter().copied().map(renumbered).collect(),
            triggers: std::mem::take(&mut node.triggers),
            ..*node
        };
        if node.sensor.is_none() {
            let scoped = &rules[node.rule];
            node.triggers = triggers(&ordered, &node).intersection(&scoped.scope).copied().collect();
            if node.triggers.is_empty() {
                return Err(never_runs(scoped));
            }
        }
        for source in node.sources() {
            if let Source::Output(index) = source {
                let together = node.triggers.is_subset(&ordered[index].triggers);
                ordered[index].is_kept |= !together;
            }
        }
        ordered.push(node);
    }
    Ok(ordered)
}

/// The sensors of which a rule about the device has something new to say.
fn triggers(ordered: &[Node], node: &Node) -> BTreeSet<u32> {
    let of = |source: Source| match source {
        Source::Sensor(sensor) => BTreeSet::from([sensor]),
        Source::Output(index) => ordered[index].triggers.clone(),
        Source::Value | Source::Raw => BTreeSet::new(),
    };
    match node.input {
        // What is applied to an output runs when that does.
        Source::Output(_) => of(node.input),
        _ => node.inputs.iter().flat_map(|source| of(*source)).collect(),
    }
}

fn never_runs(scoped: &ScopedRule) -> RuleSetError {
    RuleSetError {
        rules: vec![scoped.rule.id],
        problem: RuleSetProblem::NeverRuns { rule: scoped.rule.name.clone() },
    }
}

fn unknown(scoped: &ScopedRule, key: String, reference: String) -> RuleSetError {
    let problem = RuleSetProblem::UnknownReference { rule: scoped.rule.name.clone(), key, reference };
    RuleSetError { rules: vec![scoped.rule.id], problem }
}

/// A rule and the sensor that it is applied to, or `None` for the device.
type Place = (usize, Option<u32>);

struct Resolver<'a> {
    sensors: &'a [DeviceSensor],
    rules: &'a [ScopedRule],
    places: Vec<Place>,
    /// By name of the output, the places that produce it, by sensor. About the device there is at most one,
    /// and then no other.
    outputs: BTreeMap<&'a str, BTreeMap<Option<u32>, usize>>,
}

impl<'a> Resolver<'a> {
    fn new(sensors: &'a [DeviceSensor], rules: &'a [ScopedRule]) -> Resolved<Self> {
        let of_device = find_rules_of_device(rules);
        let mut places: Vec<Place> = Vec::new();
        for (index, scoped) in rules.iter().enumerate() {
            if scoped.scope.is_empty() {
                return Err(never_runs(scoped));
            }
            if of_device[index] {
                places.push((index, None));
            } else {
                places.extend(scoped.scope.iter().map(|sensor| (index, Some(*sensor))));
            }
        }
        // A rule is not applied to sensors that lack its input, and then they may lack its output too.
        loop {
            let outputs = find_outputs(rules, &places)?;
            let applicable = |place: &Place| match input_output(&rules[place.0]) {
                Some(input) => outputs.get(input).is_some_and(|by_sensor| by_sensor.contains_key(&place.1)),
                None => true,
            };
            let remaining: Vec<Place> = places.iter().copied().filter(applicable).collect();
            if remaining.len() == places.len() {
                return Ok(Self { sensors, rules, places, outputs });
            }
            for (index, scoped) in rules.iter().enumerate() {
                if let Some(input) =
                    input_output(scoped).filter(|_| !remaining.iter().any(|place| place.0 == index))
                {
                    return Err(unknown(scoped, "input".to_owned(), format!("output \"{input}\"")));
                }
            }
            places = remaining;
        }
    }

    fn node(&self, place: usize) -> Resolved<Node> {
        let (rule, sensor) = self.places[place];
        let scoped = &self.rules[rule];
        let input = match &scoped.rule.rule.input {
            Input::Value => Source::Value,
            Input::Raw => Source::Raw,
            Input::Output(output) => {
                let found = self.outputs.get(output.as_str()).and_then(|by_sensor| by_sensor.get(&sensor));
                Source::Output(
                    *found
                        .ok_or_else(|| unknown(scoped, "input".to_owned(), format!("output \"{output}\"")))?,
                )
            }
        };
        let inputs = match &scoped.rule.rule.operation {
            Operation::Expression { inputs, .. } => inputs
                .iter()
                .map(|input| self.reference(scoped, sensor, input))
                .collect::<Resolved<Vec<_>>>()?,
            _ => Vec::new(),
        };
        Ok(Node { rule, sensor, input, inputs, triggers: sensor.into_iter().collect(), is_kept: false })
    }

    fn reference(&self, scoped: &ScopedRule, own: Option<u32>, input: &NamedInput) -> Resolved<Source> {
        let fail = || unknown(scoped, format!("inputs.{}", input.name), input.reference.describe());
        let named = |name: &str| {
            let sensor = self.sensors.iter().find(|sensor| sensor.name == name);
            sensor.map(|sensor| sensor.key).ok_or_else(fail)
        };
        match &input.reference {
            Reference::SensorName(name) => Ok(Source::Sensor(named(name)?)),
            Reference::SensorType(sensor_type) => {
                let of_type = self.sensors.iter().filter(|sensor| sensor.sensor_type == *sensor_type);
                let candidates: Vec<u32> = of_type.map(|sensor| sensor.key).collect();
                match (own.filter(|own| candidates.contains(own)), candidates.as_slice()) {
                    (Some(own), _) => Ok(Source::Sensor(own)),
                    (None, []) => Err(fail()),
                    (None, [only]) => Ok(Source::Sensor(*only)),
                    (None, _) => Err(self.ambiguous(scoped, input, &candidates)),
                }
            }
            Reference::Output { output, sensor_name } => {
                let by_sensor = self.outputs.get(output.as_str()).ok_or_else(fail)?;
                if let Some(name) = sensor_name {
                    let sensor = named(name)?;
                    return by_sensor.get(&Some(sensor)).copied().map(Source::Output).ok_or_else(fail);
                }
                match (by_sensor.get(&own).or_else(|| by_sensor.get(&None)), by_sensor.len()) {
                    (Some(found), _) => Ok(Source::Output(*found)),
                    (None, 1) => by_sensor.values().next().copied().map(Source::Output).ok_or_else(fail),
                    (None, _) => {
                        let candidates: Vec<u32> = by_sensor.keys().copied().flatten().collect();
                        Err(self.ambiguous(scoped, input, &candidates))
                    }
                }
            }
        }
    }

    fn ambiguous(&self, scoped: &ScopedRule, input: &NamedInput, candidates: &[u32]) -> RuleSetError {
        let among = self.sensors.iter().filter(|sensor| candidates.contains(&sensor.key));
        RuleSetError {
            rules: vec![scoped.rule.id],
            problem: RuleSetProblem::Ambiguous {
                rule: scoped.rule.name.clone(),
                key: format!("inputs.{}", input.name),
                reference: input.reference.describe(),
                sensors: among.map(|sensor| sensor.name.clone()).collect(),
            },
        }
    }
}

/// The output that a rule is applied to, if it is not applied to the reading itself.
fn input_output(scoped: &ScopedRule) -> Option<&str> {
    match &scoped.rule.rule.input {
        Input::Output(output) => Some(output),
        Input::Value | Input::Raw => None,
    }
}

/// Which rules are about the device: those that say so, and those applied to the output of such a one.
fn find_rules_of_device(rules: &[ScopedRule]) -> Vec<bool> {
    let mut of_device: Vec<bool> = rules.iter().map(|scoped| scoped.rule.rule.is_of_device()).collect();
    loop {
        let outputs: BTreeSet<&str> = rules
            .iter()
            .zip(&of_device)
            .filter_map(|(scoped, of_device)| of_device.then_some(scoped.rule.output.as_str()))
            .collect();
        let mut changed = false;
        for (scoped, of_device) in rules.iter().zip(&mut of_device) {
            if !*of_device && input_output(scoped).is_some_and(|input| outputs.contains(input)) {
                *of_device = true;
                changed = true;
            }
        }
        if !changed {
            return of_device;
        }
    }
}

/// Which place produces which output.
fn find_outputs<'a>(
    rules: &'a [ScopedRule],
    places: &[Place],
) -> Resolved<BTreeMap<&'a str, BTreeMap<Option<u32>, usize>>> {
    let mut outputs: BTreeMap<&str, BTreeMap<Option<u32>, usize>> = BTreeMap::new();
    for (index, (rule, sensor)) in places.iter().enumerate() {
        let scoped = &rules[*rule];
        let by_sensor = outputs.entry(scoped.rule.output.as_str()).or_default();
        // An output about the device would hide, or be hidden by, that of a sensor.
        let other = match sensor {
            Some(_) => by_sensor.get(sensor).or_else(|| by_sensor.get(&None)),
            None => by_sensor.values().next(),
        };
        if let Some(other) = other {
            let problem = RuleSetProblem::DuplicateOutput {
                output: scoped.rule.output.clone(),
                first: rules[places[*other].0].rule.name.clone(),
                second: scoped.rule.name.clone(),
            };
            return Err(RuleSetError { rules: vec![scoped.rule.id], problem });
        }
        by_sensor.insert(*sensor, index);
    }
    Ok(outputs)
}

/// Whether a rule makes any use of what it is applied to.
pub(super) fn reads_input(operation: &Operation) -> bool {
    match operation {
        Operation::Expression { expression, .. } => expression.uses(VALUE),
        _ => true,
    }
}
