//! Applying the rules of a device to a reading.

use super::expression::EvaluationError;
use super::memory::{Memory, Observation, SeriesKey};
use super::resolve::{Node, Source, reads_input};
use super::rule::{NamedInput, Operation};
use super::rule_set::RuleSet;
use super::state::ProcessingState;
use crate::time::Timestamp;

/// A reading of a sensor of the device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Key of the sensor.
    pub sensor: u32,
    /// When it was measured.
    pub time: Timestamp,
    /// The value as the device sent it.
    pub raw: f64,
    /// The calibrated value.
    pub value: f64,
}

/// What a rule makes of a reading. It carries the time of the reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Output<'a> {
    /// Index of the rule in [`RuleSet::rules`].
    pub rule: usize,
    /// The series that it belongs to.
    pub series: SeriesKey,
    /// The name of the output.
    pub name: &'a str,
    /// The finite value, or why there is none.
    pub result: Result<f64, EvaluationError>,
}

/// The results of the nodes that this reading has run so far; `None` at the end for one that is missing.
type Results = Vec<(usize, Option<f64>)>;

impl RuleSet {
    /// Runs the rules for a reading, in order, and brings the memory up to date.
    ///
    /// A rule whose result is missing has no output: because an input was never seen or is too old, because
    /// what it reads is missing or has an error, or because it needs the readings in order and this one is
    /// late. Late readings pass through `scale`, `clamp` and `expression` like others, where the latest
    /// values of other sensors may be newer than the reading; they never replace newer values in the memory.
    /// For `moving_average` and `difference` see [`ProcessingState`].
    pub fn run(&self, reading: &Reading, memory: &mut Memory) -> Vec<Output<'_>> {
        let mut outputs = Vec::new();
        self.run_nodes(reading, memory, |_| true, |_, result| outputs.extend(result));
        outputs
    }

    /// Runs the `wanted` nodes, and tells for each of them what came of it; `None` stands for a missing result.
    pub(super) fn run_nodes<'a>(
        &'a self,
        reading: &Reading,
        memory: &mut Memory,
        wanted: impl Fn(usize) -> bool,
        mut visit: impl FnMut(usize, Option<Output<'a>>),
    ) {
        let mut results = Results::new();
        if reading.value.is_finite() {
            let observation = Observation { time: reading.time, value: reading.value };
            memory.note_sensor(reading.sensor, observation);
        }
        for index in self.runs.get(&reading.sensor).into_iter().flatten().filter(|index| wanted(**index)) {
            let node = &self.nodes[*index];
            let rule = &self.rules[node.rule];
            let series = self.series(node);
            let mut run = Run { set: self, reading, memory: &mut *memory, results: &results };
            let result = run.apply(node, &rule.rule.operation, series);
            let value = match result {
                // Adding zero turns negative zero into zero.
                Ok(result) => result.map(|value| value + 0.0),
                Err(_) => None,
            };
            let output = value.map(Ok).or(result.err().map(Err));
            visit(
                *index,
                output.map(|result| Output { rule: node.rule, series, name: &rule.output, result }),
            );
            if let Some(value) = value.filter(|_| node.is_kept) {
                memory.note_output(series, Observation { time: reading.time, value });
                memory.mark_changed(series);
            }
            results.push((*index, value));
        }
    }
}

struct Run<'a> {
    set: &'a RuleSet,
    reading: &'a Reading,
    memory: &'a mut Memory,
    results: &'a Results,
}

impl Run<'_> {
    fn apply(
        &mut self,
        node: &Node,
        operation: &Operation,
        series: SeriesKey,
    ) -> Result<Option<f64>, EvaluationError> {
        let input = self.fetch(node.input, None);
        if input.is_none() && reads_input(operation) {
            return Ok(None);
        }
        if let Operation::Expression { expression, inputs } = operation {
            let mut values = Vec::with_capacity(inputs.len() + 2);
            values.extend([input, Some(self.reading.raw)]);
            let named = |(source, NamedInput { maximum_age, .. }): (&Source, &NamedInput)| {
                self.fetch(*source, *maximum_age)
            };
            values.extend(node.inputs.iter().zip(inputs).map(named));
            return expression.evaluate(&values);
        }
        let Some(input) = input else { return Ok(None) };
        let input = EvaluationError::check("input", input, input)?;
        match operation {
            Operation::Scale { factor, offset } => {
                EvaluationError::check("scale", input, input * factor + offset).map(Some)
            }
            Operation::Clamp { minimum, maximum } => {
                let raised = minimum.map_or(input, |minimum| input.max(minimum));
                Ok(Some(maximum.map_or(raised, |maximum| raised.min(maximum))))
            }
            _ => self.observe(operation, series, input),
        }
    }

    fn observe(
        &mut self,
        operation: &Operation,
        series: SeriesKey,
        input: f64,
    ) -> Result<Option<f64>, EvaluationError> {
        let time = self.reading.time;
        let Some(empty) = ProcessingState::new(operation) else { return Ok(None) };
        let state = self.memory.state_or_begin(series, || empty);
        if state.newest().is_none_or(|newest| newest <= time) {
            let result = state.observe(time, input);
            self.memory.mark_changed(series);
            return result;
        }
        Ok(None)
    }

    /// The number that a source stands for; `None` where it is missing or, at a distance from the reading of
    /// more than `maximum_age` microseconds, too old or too new.
    fn fetch(&self, source: Source, maximum_age: Option<i64>) -> Option<f64> {
        let latest = match source {
            Source::Value => return Some(self.reading.value),
            Source::Raw => return Some(self.reading.raw),
            Source::Sensor(sensor) if sensor == self.reading.sensor => return Some(self.reading.value),
            Source::Sensor(sensor) => self.memory.sensor(sensor)?,
            Source::Output(index) => {
                if let Some((_, result)) = self.results.iter().find(|(node, _)| *node == index) {
                    return *result;
                }
                self.memory.output(self.set.series(&self.set.nodes[index]))?
            }
        };
        let distance = self.reading.time.0.abs_diff(latest.time.0);
        let is_near = maximum_age.is_none_or(|maximum| distance <= maximum.unsigned_abs());
        is_near.then_some(latest.value)
    }
}
