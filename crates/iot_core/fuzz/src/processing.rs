//! Processing rules.

use iot_core::processing::{
    DeviceSensor, Expression, Memory, Operation, Per, ProcessingState, Reading, RuleSet, RuleSource,
    SeriesKey, Window,
};
use serde_json::Value as Json;

use super::input::Input;
use super::json::says_what_to_do;

/// Text that is compiled, and evaluated for numbers of which some are missing.
pub fn expressions(data: &[u8]) {
    let mut input = Input::new(data);
    let inputs = [0; 3].map(|_| (!input.flag()).then(|| input.any_f64()));
    let text = input.text();
    match Expression::compile(text, &["value", "raw", "t"]) {
        Ok(expression) => {
            let result = expression.evaluate(&inputs);
            match &result {
                Ok(Some(number)) => assert!(number.is_finite() && number.to_bits() != (-0.0_f64).to_bits()),
                Ok(None) => assert!(text.contains(['v', 'r', 't']) || !inputs.contains(&None)),
                Err(error) => says_what_to_do(error, error.hint()),
            }
            assert_eq!(expression.evaluate(&inputs), result);
            let _ = expression.evaluate(&[]);
        }
        Err(error) => {
            assert!((1..=text.chars().count() + 1).contains(&error.character));
            says_what_to_do(&error, &error.hint());
        }
    }
}

fn station() -> Vec<DeviceSensor> {
    let sensor = |key, name: &str, kind: &str| DeviceSensor {
        key,
        name: name.to_owned(),
        sensor_type: kind.to_owned(),
    };
    vec![sensor(0, "a", "t"), sensor(1, "b", "t"), sensor(2, "c", "h")]
}

/// Rules as JSON: an array of `[type, definition, name, order, sensors…]`, and readings that they are run for.
pub fn rules(data: &[u8]) {
    let mut input = Input::new(data);
    let readings = [0; 6].map(|_| Reading {
        sensor: u32::from(input.byte() % 4),
        time: input.timestamp(),
        raw: input.f64(),
        value: input.f64(),
    });
    let Ok(Json::Array(described)) = serde_json::from_str(input.text()) else { return };
    let sources: Vec<RuleSource> =
        (1..).zip(described.iter().take(12)).map(|(id, json)| source(id, json)).collect();
    if let Err(error) = RuleSet::build(&station(), &sources) {
        says_what_to_do(&error, &error.hint());
    }
    let (set, errors) = RuleSet::build_skipping(&station(), &sources);
    assert!(set.rules().len() + errors.len() >= sources.len().min(1));
    let mut memory = Memory::default();
    for reading in &readings {
        let needs = set.needs(reading.sensor);
        for output in set.run(reading, &mut memory) {
            assert!(output.result.as_ref().map_or(true, |value| value.is_finite()));
            assert_eq!(set.rules()[output.rule].id, output.series.rule);
        }
        for series in memory.take_changed() {
            assert!(needs.states.contains(&series) || needs.outputs.contains(&series));
            survives(&set, &memory, series);
        }
    }
}

fn source(id: u128, json: &Json) -> RuleSource {
    let field = |place: usize| json.get(place).unwrap_or(&Json::Null);
    let text = |place: usize| field(place).as_str().unwrap_or_default().to_owned();
    RuleSource {
        id,
        name: text(2),
        order: field(3).as_i64().and_then(|order| i32::try_from(order).ok()).unwrap_or_default(),
        version: 1,
        rule_type: text(0),
        definition: field(1).clone(),
        sensors: (4..8)
            .filter_map(|place| field(place).as_u64())
            .filter_map(|key| u32::try_from(key).ok())
            .collect(),
    }
}

/// What a rule remembers is the same after it was stored.
fn survives(set: &RuleSet, memory: &Memory, series: SeriesKey) {
    let Some(state) = memory.state(series) else { return };
    let rule = set.rules().iter().find(|rule| rule.id == series.rule);
    let decoded = rule.map(|rule| ProcessingState::decode(&rule.rule.operation, &state.encode()));
    assert_eq!(decoded, Some(Ok(state.clone())));
}

/// Bytes that nobody promised to be the state of a rule, and readings after them.
pub fn states(data: &[u8]) {
    let mut input = Input::new(data);
    let operation = match input.byte() % 4 {
        0 => Operation::Difference {
            per: [Per::None, Per::Second, Per::Minute, Per::Hour][usize::from(input.byte() % 4)],
        },
        1 => Operation::MovingAverage(Window::Readings(usize::from(input.byte()))),
        2 => Operation::MovingAverage(Window::Micros(i64::from(input.byte()) * 1_000)),
        _ => Operation::MovingAverage(Window::Micros(input.i64())),
    };
    let readings = [0; 3].map(|_| (input.timestamp(), input.any_f64()));
    let mut state = match ProcessingState::decode(&operation, input.rest()) {
        Ok(state) => {
            assert_eq!(state.encode(), input.rest());
            state
        }
        Err(error) => {
            says_what_to_do(&error, error.hint());
            let Some(state) = ProcessingState::new(&operation) else { return };
            state
        }
    };
    for (time, value) in readings {
        match state.observe(time, value) {
            Ok(result) => assert!(result.is_none_or(f64::is_finite)),
            Err(error) => says_what_to_do(&error, error.hint()),
        }
        assert_eq!(ProcessingState::decode(&operation, &state.encode()), Ok(state.clone()));
    }
}
