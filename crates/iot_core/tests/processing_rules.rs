//! Sets of rules: their order, their loops, and what a run makes of readings.

#![allow(clippy::unwrap_used, clippy::panic)]

use iot_core::processing::{
    DeviceSensor, Memory, ProcessingState, Reading, RuleSet, RuleSetProblem, RuleSource, SeriesKey,
};
use iot_core::time::{MICROS_PER_SECOND, Timestamp};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn sensor(key: u32, name: &str, sensor_type: &str) -> DeviceSensor {
    DeviceSensor { key, name: name.to_owned(), sensor_type: sensor_type.to_owned() }
}

/// A weather station: two thermometers, a hygrometer and a barometer.
fn station() -> Vec<DeviceSensor> {
    vec![
        sensor(1, "inside", "temperature"),
        sensor(2, "outside", "temperature"),
        sensor(3, "humidity", "humidity"),
        sensor(4, "pressure", "pressure"),
    ]
}

fn rule(id: u128, name: &str, rule_type: &str, definition: Value, sensors: &[u32]) -> RuleSource {
    RuleSource {
        id,
        name: name.to_owned(),
        order: 0,
        version: 1,
        rule_type: rule_type.to_owned(),
        definition,
        sensors: sensors.to_vec(),
    }
}

/// Runs a reading whose raw value is ten times its value.
fn run(set: &RuleSet, memory: &mut Memory, sensor: u32, second: i64, value: f64) -> Vec<(String, String)> {
    let time = Timestamp(second * MICROS_PER_SECOND);
    let outputs = set.run(&Reading { sensor, time, raw: value * 10.0, value }, memory);
    let texts = outputs.into_iter().map(|output| {
        assert_eq!(set.rules()[output.rule].output, output.name);
        assert_eq!(set.rules()[output.rule].id, output.series.rule);
        let result = output.result.map_or_else(|error| error.to_string(), |value| value.to_string());
        (output.name.to_owned(), result)
    });
    texts.collect()
}

fn texts(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn names(set: &RuleSet, sensor: u32) -> Vec<&str> {
    set.rules_for(sensor).map(|rule| rule.name.as_str()).collect()
}

fn refusal(rules: &[RuleSource]) -> (Vec<u128>, String) {
    let error = RuleSet::build(&station(), rules).unwrap_err();
    assert!(error.hint().ends_with('.'), "{}", error.hint());
    (error.rules.clone(), error.to_string())
}

#[test]
fn chains_of_one_sensor() {
    let set = RuleSet::build(
        &station(),
        &[
            rule(1, "rate", "difference", json!({"input": "fahrenheit", "per": "minute"}), &[1, 2, 3]),
            rule(2, "smooth", "moving_average", json!({"input": "fahrenheit", "readings": 2}), &[1]),
            rule(
                3,
                "to fahrenheit",
                "scale",
                json!({"factor": 2, "offset": 32, "output": "fahrenheit"}),
                &[1, 2],
            ),
            rule(4, "limited", "clamp", json!({"input": "raw", "maximum": 50}), &[1]),
            rule(5, "both", "expression", json!({"expression": "value + raw", "input": "smooth"}), &[1]),
        ],
    )
    .unwrap();
    assert_eq!(names(&set, 1), ["to fahrenheit", "rate", "smooth", "limited", "both"]);
    assert_eq!(names(&set, 2), ["to fahrenheit", "rate"]);
    assert_eq!(names(&set, 3), [""; 0], "not applied to sensors without the input");
    let mut memory = Memory::default();
    let first = run(&set, &mut memory, 1, 0, 10.0);
    assert_eq!(first, texts(&[("fahrenheit", "52"), ("smooth", "52"), ("limited", "50"), ("both", "152")]));
    let changed: Vec<u128> = memory.take_changed().into_iter().map(|series| series.rule).collect();
    assert_eq!(changed, [1, 2], "outputs that are read at once need not be kept");
    let second = run(&set, &mut memory, 1, 30, 4.0);
    assert_eq!(
        second,
        texts(&[("fahrenheit", "40"), ("rate", "-24"), ("smooth", "46"), ("limited", "40"), ("both", "86")])
    );
    let late = run(&set, &mut memory, 1, 29, 0.0);
    assert_eq!(late, texts(&[("fahrenheit", "32"), ("limited", "0")]), "what needs order has no result");
    assert_eq!(
        run(&set, &mut memory, 2, 0, 0.0),
        texts(&[("fahrenheit", "32")]),
        "each sensor has its own state"
    );
}

#[test]
fn expressions_over_a_device() {
    let difference = json!({
        "expression": "out - wet",
        "output": "gap",
        "inputs": {"out": {"sensor_name": "outside"}, "wet": {"sensor_type": "humidity", "max_age_seconds": 60}},
    });
    let set = RuleSet::build(
        &station(),
        &[
            rule(1, "mean gap", "moving_average", json!({"input": "gap", "readings": 10}), &[1, 2, 3, 4]),
            rule(2, "gap", "expression", difference, &[1, 2, 3, 4]),
            rule(
                3,
                "index",
                "expression",
                json!({
                    "expression": "value + coalesce(gap, 1000)", "inputs": {"gap": {"output": "gap"}},
                }),
                &[4],
            ),
        ],
    )
    .unwrap();
    assert_eq!(names(&set, 1), [""; 0]);
    assert_eq!(names(&set, 2), ["gap", "mean gap"]);
    assert_eq!(names(&set, 3), ["gap", "mean gap"]);
    assert_eq!(names(&set, 4), ["index"]);
    assert_eq!(set.needs(2).sensors.into_iter().collect::<Vec<_>>(), [3]);
    assert_eq!(set.needs(2).states.into_iter().collect::<Vec<_>>(), [SeriesKey { rule: 1, sensor: None }]);
    assert_eq!(
        set.needs(2).outputs,
        set.needs(4).outputs,
        "what is kept must not be replaced by what is late"
    );
    assert_eq!(set.needs(4).outputs.into_iter().collect::<Vec<_>>(), [SeriesKey { rule: 2, sensor: None }]);
    let mut memory = Memory::default();
    assert_eq!(run(&set, &mut memory, 2, 0, 20.0), [], "the humidity was never seen");
    assert_eq!(run(&set, &mut memory, 4, 0, 1.0), texts(&[("index", "1001")]));
    assert_eq!(run(&set, &mut memory, 3, 10, 5.0), texts(&[("gap", "15"), ("mean gap", "15")]));
    assert_eq!(run(&set, &mut memory, 2, 70, 7.0), texts(&[("gap", "2"), ("mean gap", "8.5")]));
    assert_eq!(run(&set, &mut memory, 2, 71, 7.0), [], "the humidity is too old");
    assert_eq!(run(&set, &mut memory, 2, 65, 6.0), texts(&[("gap", "1")]), "late: late for the mean too");
    assert_eq!(
        run(&set, &mut memory, 4, 72, 1.0),
        texts(&[("index", "3")]),
        "a late output is not the newest"
    );
    let series = |rule, sensor| SeriesKey { rule, sensor };
    assert_eq!(memory.take_changed().into_iter().collect::<Vec<_>>(), [series(1, None), series(2, None)]);
    assert!(memory.take_changed().is_empty());
    // The same from what was stored.
    let stored = memory.state(series(1, None)).unwrap().encode();
    let mut restored = Memory::default();
    let operation = &set.rules()[0].rule.operation;
    restored.set_state(series(1, None), ProcessingState::decode(operation, &stored).unwrap());
    restored.note_sensor(2, memory.sensor(2).unwrap());
    restored.note_output(series(2, None), memory.output(series(2, None)).unwrap());
    assert_eq!(run(&set, &mut restored, 3, 80, 1.0), run(&set, &mut memory, 3, 80, 1.0));
}

#[test]
fn errors_stay_with_the_rule() {
    let set = RuleSet::build(
        &station(),
        &[
            rule(1, "inverse", "expression", json!({"expression": "1 / value"}), &[1]),
            rule(2, "after", "scale", json!({"factor": 2, "input": "inverse"}), &[1]),
            rule(3, "huge", "scale", json!({"factor": "1e308"}), &[1]),
            rule(4, "double", "scale", json!({"factor": -2}), &[1]),
        ],
    )
    .unwrap();
    let mut memory = Memory::default();
    assert_eq!(
        run(&set, &mut memory, 1, 0, 0.0),
        texts(&[("inverse", "division by zero"), ("huge", "0"), ("double", "0")])
    );
    assert_eq!(
        run(&set, &mut memory, 1, 0, 10.0),
        texts(&[
            ("inverse", "0.1"),
            ("after", "0.2"),
            ("huge", "result of \"scale\" is not a finite number"),
            ("double", "-20")
        ])
    );
    assert!(
        run(&set, &mut memory, 1, 1, f64::NAN)
            .iter()
            .all(|(_, text)| text.ends_with("not a finite number") || text.contains("not defined for NaN"))
    );
}

#[test]
fn order_decides_where_dependencies_do_not() {
    let mut rules: Vec<_> =
        (1..=4).map(|id| rule(id, &format!("r{id}"), "scale", json!({"factor": 1}), &[1])).collect();
    rules[0].order = 9;
    rules[1].order = -1;
    rules[2].definition = json!({"factor": 1, "input": "r1"});
    rules.reverse();
    let set = RuleSet::build(&station(), &rules).unwrap();
    assert_eq!(names(&set, 1), ["r2", "r4", "r1", "r3"]);
}

#[test]
fn loops_are_named() {
    let reading = |name: &str| json!({"expression": "value + x", "inputs": {"x": {"output": name}}});
    let rules = [
        rule(1, "a", "expression", reading("b"), &[1]),
        rule(2, "b", "expression", reading("c"), &[1]),
        rule(3, "c", "scale", json!({"factor": 1, "input": "a"}), &[1]),
        rule(4, "d", "scale", json!({"factor": 1, "input": "a"}), &[1]),
        rule(5, "e", "scale", json!({"factor": 1}), &[1]),
    ];
    let (ids, message) = refusal(&rules);
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!(message, "processing rules read each other in a loop: a → b → c → a");
    let (set, errors) = RuleSet::build_skipping(&station(), &rules);
    assert_eq!(names(&set, 1), ["e"]);
    assert_eq!(errors.len(), 2, "{errors:?}");
    let own = rule(1, "a", "scale", json!({"factor": 1, "input": "a"}), &[1]);
    assert!(refusal(&[own]).1.ends_with("a → a"));
    // A circle through two sensors, of which no reading runs the whole.
    let across = |name: &str, sensor: u32| {
        rule(
            sensor.into(),
            name,
            "expression",
            json!({
                "expression": "value + x", "inputs": {"x": {"output": if sensor == 1 { "two" } else { "one" }}},
            }),
            &[sensor],
        )
    };
    assert!(refusal(&[across("one", 1), across("two", 2)]).1.ends_with("one → two → one"));
}

#[test]
fn refused_sets_name_rule_and_reference() {
    let over = |name: &str, reference: Value, sensors: &[u32]| {
        rule(1, name, "expression", json!({"expression": "x", "inputs": {"x": reference}}), sensors)
    };
    let scale = |id, sensors: &[u32]| {
        rule(id, &format!("s{id}"), "scale", json!({"factor": 1, "output": "o"}), sensors)
    };
    let cases = [
        (
            vec![rule(1, "r", "scale", json!({}), &[1])],
            "processing rule \"r\" is malformed: definition of a processing rule must have the key \"factor\" or \"offset\"",
        ),
        (
            vec![rule(1, "value", "scale", json!({"factor": 1}), &[1])],
            "processing rule \"value\" is malformed: processing rule key \"output\" must not use the reserved name \"value\"",
        ),
        (
            vec![rule(1, "r", "scale", json!({"factor": 1, "input": "o"}), &[1])],
            "processing rule \"r\" refers in \"input\" to output \"o\", which does not exist",
        ),
        (
            vec![over("r", json!({"sensor_name": "attic"}), &[1])],
            "processing rule \"r\" refers in \"inputs.x\" to sensor_name \"attic\", which does not exist",
        ),
        (
            vec![over("r", json!({"sensor_type": "wind"}), &[1])],
            "processing rule \"r\" refers in \"inputs.x\" to sensor_type \"wind\", which does not exist",
        ),
        (
            vec![over("r", json!({"output": "o", "sensor_name": "inside"}), &[1]), scale(2, &[2])],
            "processing rule \"r\" refers in \"inputs.x\" to output \"o\" of sensor_name \"inside\", which does not exist",
        ),
        (
            vec![over("r", json!({"sensor_type": "temperature"}), &[1])],
            "processing rule \"r\" refers in \"inputs.x\" to sensor_type \"temperature\", which 2 sensors have",
        ),
        (
            vec![over("r", json!({"output": "o"}), &[1]), scale(2, &[1, 2])],
            "processing rule \"r\" refers in \"inputs.x\" to output \"o\", which 2 sensors have",
        ),
        (
            vec![scale(1, &[1, 2]), scale(2, &[2, 3])],
            "processing rules \"s1\" and \"s2\" both have the output \"o\" for the same readings",
        ),
        (
            vec![over("r", json!({"sensor_name": "outside"}), &[1])],
            "processing rule \"r\" is applied to no sensor that it reads",
        ),
        (vec![scale(1, &[99])], "processing rule \"s1\" is applied to no sensor that it reads"),
    ];
    for (rules, message) in cases {
        let (ids, found) = refusal(&rules);
        assert_eq!(found, message);
        assert_eq!(ids.len(), 1);
    }
    assert_eq!(RuleSet::build(&station(), &[]).unwrap().rules(), []);
}

/// Rules named by their numbers, of which each reads the outputs of those listed.
fn graph(edges: &[Vec<usize>]) -> Vec<RuleSource> {
    let one = |(index, reads): (usize, &Vec<usize>)| {
        let inputs: Map<String, Value> =
            reads.iter().map(|read| (format!("x{read}"), json!({"output": read.to_string()}))).collect();
        let terms: String = inputs.keys().map(|name| format!(" + {name}")).collect();
        let definition = json!({"expression": format!("value{terms}"), "inputs": inputs});
        rule(index as u128, &index.to_string(), "expression", definition, &[1])
    };
    edges.iter().enumerate().map(one).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn loops_are_found_exactly(
        edges in (1..8_usize).prop_flat_map(|count| {
            proptest::collection::vec(proptest::collection::vec(0..count, 0..3), count)
        }),
        orders in proptest::collection::vec(-2..3_i32, 8),
    ) {
        let count = edges.len();
        let mut reaches = vec![vec![false; count]; count];
        for (from, reads) in edges.iter().enumerate() {
            for to in reads {
                reaches[from][*to] = true;
            }
        }
        for (middle, from, to) in (0..count * count * count).map(|n| (n / count / count, n / count % count, n % count)) {
            reaches[from][to] |= reaches[from][middle] && reaches[middle][to];
        }
        let has_loop = (0..count).any(|node| reaches[node][node]);
        let mut rules = graph(&edges);
        for (rule, order) in rules.iter_mut().zip(orders) {
            rule.order = order;
        }
        match RuleSet::build(&station(), &rules) {
            Ok(set) => {
                prop_assert!(!has_loop);
                let order: Vec<usize> = set.rules_for(1).map(|rule| rule.name.parse().unwrap()).collect();
                prop_assert_eq!(order.len(), count);
                for (place, node) in order.iter().enumerate() {
                    prop_assert!(edges[*node].iter().all(|read| order[..place].contains(read)));
                    // What could have run at an earlier place has a higher order or id than what ran there.
                    for (earlier, other) in order[..place].iter().enumerate() {
                        if edges[*node].iter().all(|read| order[..earlier].contains(read)) {
                            prop_assert!((rules[*other].order, *other) < (rules[*node].order, *node));
                        }
                    }
                }
            }
            Err(error) => {
                prop_assert!(has_loop);
                let RuleSetProblem::Loop { rules: names } = &error.problem else { panic!("{error}") };
                let found: Vec<usize> = names.iter().map(|name| name.parse().unwrap()).collect();
                for (place, node) in found.iter().enumerate() {
                    prop_assert!(edges[*node].contains(&found[(place + 1) % found.len()]));
                }
                let (set, errors) = RuleSet::build_skipping(&station(), &rules);
                prop_assert!(!errors.is_empty() && set.rules().len() < count);
            }
        }
    }
}
