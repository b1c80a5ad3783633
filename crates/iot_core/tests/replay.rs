//! Rules run again after readings have changed come to what they would have come to at first.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use iot_core::processing::{DeviceSensor, Memory, Reading, RuleSet, RuleSource, SeriesKey};
use iot_core::time::{MICROS_PER_SECOND, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

fn station() -> Vec<DeviceSensor> {
    let sensor = |key, name: &str| DeviceSensor { key, name: name.to_owned(), sensor_type: name.to_owned() };
    vec![sensor(0, "a"), sensor(1, "b"), sensor(2, "c")]
}

/// Rules: type, definition, name, sensors.
fn sets() -> Vec<RuleSet> {
    let own = json!([
        ["scale", {"factor": 2}, "double", [0, 1]],
        ["clamp", {"input": "double", "maximum": 10}, "limited", [0]],
        ["expression", {"expression": "100 / (limited - value)", "inputs": {"limited": {"output": "limited"}}}, "failing", [0]],
    ]);
    let windows = json!([
        ["moving_average", {"readings": 3}, "smooth", [0, 1]],
        ["moving_average", {"readings": 4, "input": "smooth"}, "smoother", [0]],
        ["difference", {"input": "smoother", "per": "second"}, "trend", [0]],
        ["difference", {"input": "trend"}, "bend", [0]],
        ["moving_average", {"seconds": 7.5, "input": "bend"}, "recent bend", [0]],
        ["moving_average", {"seconds": 20}, "recent", [0, 1, 2]],
        ["moving_average", {"readings": 2, "input": "recent"}, "recent pair", [0, 1, 2]],
    ]);
    let device = json!([
        ["expression", {"expression": "x - y", "inputs": {"x": {"sensor_name": "a"}, "y": {"sensor_name": "b"}}}, "both", [0, 1]],
        ["moving_average", {"input": "both", "readings": 3}, "smooth", [0, 1]],
        ["scale", {"factor": 3}, "kept", [1]],
        ["expression", {"expression": "value + coalesce(k, 0)",
                        "inputs": {"k": {"output": "kept", "max_age_seconds": 9}}}, "mixed", [2]],
        ["difference", {"input": "mixed"}, "change", [2]],
        ["expression", {"expression": "value * s", "inputs": {"s": {"output": "smooth"}}}, "far", [2]],
    ]);
    // A result only for some values, so that readings come and go from what is remembered.
    let gaps = json!([
        ["expression", {"expression": "1 / (value % 3)"}, "inverse", [0, 1]],
        ["moving_average", {"input": "inverse", "readings": 3}, "smooth", [0]],
        ["difference", {"input": "inverse"}, "change", [0, 1]],
        ["expression", {"expression": "x + y", "inputs": {"x": {"output": "change", "sensor_name": "a"},
                        "y": {"output": "change", "sensor_name": "b"}}}, "sum", [0, 1]],
        ["moving_average", {"input": "sum", "readings": 2}, "pair", [0, 1]],
    ]);
    [own, windows, device, gaps].iter().map(set).collect()
}

fn set(rules: &Value) -> RuleSet {
    let source = |(id, rule): (u128, &Value)| RuleSource {
        id,
        name: rule[2].as_str().unwrap().to_owned(),
        order: 0,
        version: 1,
        rule_type: rule[0].as_str().unwrap().to_owned(),
        definition: rule[1].clone(),
        sensors: rule[3].as_array().unwrap().iter().map(|key| key.as_u64().unwrap() as u32).collect(),
    };
    let sources: Vec<RuleSource> = (1..).zip(rules.as_array().unwrap()).map(source).collect();
    RuleSet::build(&station(), &sources).unwrap()
}

type Rows = BTreeMap<(Timestamp, SeriesKey), Result<f64, String>>;

fn reading(sensor: u32, second: i64, value: f64) -> Reading {
    Reading { sensor, time: Timestamp(second * MICROS_PER_SECOND), raw: value * 10.0, value }
}

fn run(set: &RuleSet, readings: &[Reading]) -> (Rows, Memory) {
    let (mut rows, mut memory) = (Rows::new(), Memory::default());
    for reading in readings {
        for output in set.run(reading, &mut memory) {
            rows.insert((reading.time, output.series), output.result.map_err(|error| error.to_string()));
        }
    }
    memory.take_changed();
    (rows, memory)
}

/// The n-th last time before another, as the shell finds it in the table.
fn earlier(readings: &[Reading], sensors: &BTreeSet<u32>, before: Timestamp, number: usize) -> Timestamp {
    let found =
        readings.iter().rev().filter(|reading| sensors.contains(&reading.sensor) && reading.time < before);
    found.take(number).last().map_or(before, |reading| reading.time)
}

/// The rows after a replay, where it ended, and the memory then.
fn replay(set: &RuleSet, before: &Rows, readings: &[Reading], changed: &[usize]) -> (Rows, bool, Memory) {
    let sensors: BTreeSet<u32> = changed.iter().map(|place| readings[*place].sensor).collect();
    let (first, last) = (readings[changed[0]].time, readings[*changed.last().unwrap()].time);
    if set.replay(sensors.clone()).is_empty() {
        return (before.clone(), true, Memory::default());
    }
    let mut more = 1;
    loop {
        let mut replay = set.replay(sensors.clone());
        let wanted = replay.sensors();
        let begin = replay
            .begin(first, more, |sensors, before, number| {
                Ok::<_, std::convert::Infallible>(earlier(readings, sensors, before, number))
            })
            .unwrap();
        let (mut rows, mut is_warm, mut settled) = (before.clone(), false, false);
        for (place, reading) in readings.iter().enumerate() {
            if !wanted.contains(&reading.sensor) || reading.time < begin[&reading.sensor] {
                continue;
            }
            if reading.time >= first && !is_warm {
                is_warm = replay.is_warm() || more > readings.len();
                if !is_warm {
                    break;
                }
            }
            for row in replay.observe(reading, changed.contains(&place)) {
                match row {
                    Ok(output) => {
                        let result = output.result.map_err(|error| error.to_string());
                        rows.insert((reading.time, output.series), result);
                    }
                    Err((_, series)) => drop(rows.remove(&(reading.time, series))),
                }
            }
            let is_torn = readings.get(place + 1).is_some_and(|next| next.time == reading.time);
            if reading.time >= last && !is_torn && replay.is_settled() {
                settled = true;
                break;
            }
        }
        if is_warm {
            return (rows, settled, replay.memory().clone());
        }
        more *= 4;
    }
}

fn check(set: &RuleSet, readings: &[Reading], changes: &[(usize, f64)]) {
    let (before, _) = run(set, readings);
    let mut now = readings.to_vec();
    for (place, value) in changes {
        now[*place] = Reading { value: *value, raw: value * 10.0, ..now[*place] };
    }
    let mut changed: Vec<usize> = changes.iter().map(|(place, _)| *place).collect();
    changed.sort_unstable();
    changed.dedup();
    let (expected, memory) = run(set, &now);
    let (rows, settled, replayed) = replay(set, &before, &now, &changed);
    assert_eq!(rows, expected, "{changes:?} {readings:?}");
    let sensors = changed.iter().map(|place| now[*place].sensor).collect();
    if !settled {
        for series in set.replay(sensors).series() {
            assert_eq!(replayed.state(series), memory.state(series));
            assert_eq!(replayed.output(series), memory.output(series));
        }
    }
}

#[test]
fn it_ends_when_nothing_follows_any_more() {
    let sets = sets();
    let readings: Vec<Reading> =
        (0..500).map(|second| reading((second % 2) as u32, second, (second % 7) as f64)).collect();
    let (before, _) = run(&sets[1], &readings);
    let mut now = readings.clone();
    now[100].value = 1e6;
    let mut replay = sets[1].replay(BTreeSet::from([0]));
    assert_eq!(replay.sensors(), BTreeSet::from([0]), "the other sensor does not matter");
    let mut affected = 0;
    let mut last = None;
    for (place, reading) in now.iter().enumerate().filter(|(_, reading)| reading.sensor == 0) {
        affected += replay.observe(reading, place == 100).len();
        if place >= 100 && replay.is_settled() {
            last = Some(place);
            break;
        }
    }
    assert!(last.is_some_and(|last| last < 140), "{last:?}");
    let expected =
        run(&sets[1], &now).0.into_iter().filter(|(key, value)| before.get(key) != Some(value)).count();
    assert!(affected >= expected && affected < 2 * expected, "{affected} {expected}");
}

#[test]
fn rules_about_the_reading_alone_need_no_other() {
    let sets = sets();
    for (number, expected) in
        [[true, true, true], [false; 3], [false; 3], [false, false, true]].iter().enumerate()
    {
        for sensor in 0..3 {
            let replay = sets[number].replay(BTreeSet::from([sensor]));
            assert_eq!(replay.is_local(), expected[sensor as usize], "set {number}, sensor {sensor}");
            assert!(!replay.is_local() || replay.series().is_empty());
        }
    }
}

#[test]
fn what_reads_other_sensors_is_named() {
    let device = &sets()[2];
    assert_eq!(device.needs(0).shared.len(), 1);
    assert_eq!(device.needs(2).shared.len(), 2);
    assert_eq!(device.replay(BTreeSet::from([1])).series().len(), 6);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn as_if_they_had_been_so_from_the_start(
        steps in proptest::collection::vec((0..3_u32, 0..6_i64, -6..9_i32), 1..70),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), -6..9_i32), 1..4),
    ) {
        let mut second = 0;
        let readings: Vec<Reading> = steps.into_iter().map(|(sensor, step, value)| {
            second += step;
            reading(sensor, second, f64::from(value))
        }).collect();
        let changes: Vec<(usize, f64)> =
            changes.into_iter().map(|(place, value)| (place.index(readings.len()), f64::from(value))).collect();
        for set in sets() {
            check(&set, &readings, &changes);
        }
    }
}
