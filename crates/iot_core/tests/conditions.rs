//! Compiled conditions against an interpreter that walks the JSON, knowing nothing of how they are compiled.

#![allow(clippy::unwrap_used)]

use iot_core::alert::{CompiledCondition, Environment, Verdict};
use iot_core::time::{MICROS_PER_MINUTE, TimeOfDay};
use proptest::prelude::*;
use serde_json::{Value, json};

const ZONES: [&str; 3] = ["UTC", "Europe/Berlin", "Asia/Kolkata"];

/// A reading's surroundings, decided by what an operand is, not by its index.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// Minutes since midnight in the default zone.
    minute: i64,
    /// Metadata contain an operand when the length of its text divides by this.
    divisor: usize,
}

impl Moment {
    fn contains(self, operand: &Value) -> bool {
        operand.to_string().len().is_multiple_of(self.divisor)
    }

    fn minute_in(self, zone: Option<&str>) -> i64 {
        let ahead = match zone {
            Some("Europe/Berlin") => 60,
            Some("Asia/Kolkata") => 330,
            _ => 0,
        };
        (self.minute + ahead) % 1440
    }
}

struct Compiled<'a> {
    moment: Moment,
    condition: &'a CompiledCondition,
}

impl Environment for Compiled<'_> {
    fn metadata_contains(&self, check: usize) -> bool {
        self.moment.contains(&self.condition.metadata_checks()[check])
    }

    fn time_of_day(&self, zone: Option<usize>) -> TimeOfDay {
        let name = zone.map(|index| self.condition.time_zones()[index].as_str());
        TimeOfDay(self.moment.minute_in(name) * MICROS_PER_MINUTE)
    }
}

/// Evaluates everything, without short cuts: whether the condition holds, and the bounds crossed in order.
fn interpret(condition: &Value, value: f64, moment: Moment) -> (bool, Vec<f64>) {
    let number = |json: &Value| json.as_f64().unwrap_or_else(|| json.as_str().unwrap().parse().unwrap());
    let range = |json: &Value| match json.get("low") {
        Some(low) => (number(low), number(&json["high"])),
        None => (number(&json[0]), number(&json[1])),
    };
    let minute = |json: &Value| {
        let (hours, minutes) = json.as_str().unwrap().split_once(':').unwrap();
        hours.parse::<i64>().unwrap() * 60 + minutes.parse::<i64>().unwrap()
    };
    let mut holds = true;
    let mut crossed = Vec::new();
    if let Some(limit) = condition.get("threshold_high") {
        holds &= value > number(limit);
        crossed.push(number(limit));
    }
    if let Some(limit) = condition.get("threshold_low") {
        holds &= value < number(limit);
        crossed.push(number(limit));
    }
    if let Some(operand) = condition.get("between") {
        let (low, high) = range(operand);
        holds &= low <= value && value <= high;
    }
    if let Some(operand) = condition.get("outside") {
        let (low, high) = range(operand);
        holds &= value < low || high < value;
        crossed.push(if value < low { low } else { high });
    }
    if let Some(window) = condition.get("time_window") {
        let (start, end) = (minute(&window["start"]), minute(&window["end"]));
        let now = moment.minute_in(window.get("timezone").and_then(Value::as_str));
        let overnight = start > end;
        holds &= if overnight { now >= start || now <= end } else { now >= start && now <= end };
    }
    if let Some(operand) = condition.get("metadata_check") {
        holds &= moment.contains(operand);
    }
    let branches = |key: &str| condition.get(key).and_then(Value::as_array);
    for branch in branches("and").into_iter().flatten() {
        let (branch_holds, mut branch_crossed) = interpret(branch, value, moment);
        holds &= branch_holds;
        crossed.append(&mut branch_crossed);
    }
    if let Some(branches) = branches("or") {
        let found = branches.iter().map(|branch| interpret(branch, value, moment)).find(|(holds, _)| *holds);
        holds &= found.is_some();
        crossed.extend(found.map(|(_, crossed)| crossed).unwrap_or_default());
    }
    if let Some(inner) = condition.get("not") {
        holds &= !interpret(inner, value, moment).0;
    }
    (holds, crossed)
}

/// A coarse grid, so that values meet bounds exactly.
fn number() -> impl Strategy<Value = f64> {
    (-8..=8_i32).prop_map(|step| f64::from(step) / 2.0)
}

fn number_operand() -> impl Strategy<Value = Value> {
    prop_oneof![
        number().prop_map(|number| json!(number)),
        number().prop_map(|number| json!(number.to_string()))
    ]
}

fn range_operand() -> impl Strategy<Value = Value> {
    (number(), number(), any::<bool>()).prop_map(|(one, other, pair)| {
        let (low, high) = (one.min(other), one.max(other));
        if pair { json!([low, high]) } else { json!({"low": low, "high": high}) }
    })
}

fn time_window() -> impl Strategy<Value = Value> {
    let clock = || (0..24, 0..60).prop_map(|(hour, minute)| format!("{hour:02}:{minute:02}"));
    (clock(), clock(), proptest::option::of(proptest::sample::select(&ZONES[..]))).prop_map(
        |(start, end, zone)| match zone {
            Some(zone) => json!({"start": start, "end": end, "timezone": zone}),
            None => json!({"start": start, "end": end}),
        },
    )
}

fn member() -> impl Strategy<Value = (String, Value)> {
    prop_oneof![
        4 => number_operand().prop_map(|operand| ("threshold_high".to_owned(), operand)),
        4 => number_operand().prop_map(|operand| ("threshold_low".to_owned(), operand)),
        2 => range_operand().prop_map(|operand| ("between".to_owned(), operand)),
        2 => range_operand().prop_map(|operand| ("outside".to_owned(), operand)),
        2 => time_window().prop_map(|operand| ("time_window".to_owned(), operand)),
        2 => "[a-d]{1,4}".prop_map(|name| ("metadata_check".to_owned(), json!({name: 1}))),
    ]
}

fn condition() -> impl Strategy<Value = Value> {
    let leaf = proptest::collection::vec(member(), 1..4).prop_map(Value::from_iter);
    leaf.prop_recursive(5, 40, 4, |inner| {
        let group = || proptest::collection::vec(inner.clone(), 1..4).prop_map(Value::from);
        let nested = prop_oneof![
            group().prop_map(|operand| ("and".to_owned(), operand)),
            group().prop_map(|operand| ("or".to_owned(), operand)),
            inner.clone().prop_map(|operand| ("not".to_owned(), operand)),
        ];
        (proptest::collection::vec(nested, 1..3), proptest::option::of(member()))
            .prop_map(|(groups, leaf)| groups.into_iter().chain(leaf).collect())
    })
}

fn moment() -> impl Strategy<Value = Moment> {
    (0..1440_i64, 1..4_usize).prop_map(|(minute, divisor)| Moment { minute, divisor })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn compiled_equals_interpreted(json in condition(), value in number(), moment in moment()) {
        let condition = CompiledCondition::parse(&json).unwrap();
        let found = condition.evaluate(value, &Compiled { moment, condition: &condition });
        let (matched, crossed) = interpret(&json, value, moment);
        let threshold = if matched { crossed.first().copied() } else { None };
        prop_assert_eq!(found, Verdict { matched, threshold });
    }

    #[test]
    fn not_negates(json in condition(), value in number(), moment in moment()) {
        let evaluate = |json: &Value| {
            let condition = CompiledCondition::parse(json).unwrap();
            condition.evaluate(value, &Compiled { moment, condition: &condition }).matched
        };
        prop_assert_ne!(evaluate(&json), evaluate(&json!({"not": json})));
        let operand = json!([-1.5, 2]);
        prop_assert_ne!(evaluate(&json!({"between": operand})), evaluate(&json!({"outside": operand})));
    }

    #[test]
    fn the_default_zone_is_known_to_be_used(json in condition()) {
        let condition = CompiledCondition::parse(&json).unwrap();
        let windows = json.to_string().matches("\"time_window\"").count();
        let zoned = json.to_string().matches("\"timezone\"").count();
        prop_assert_eq!(condition.uses_default_zone(), windows > zoned);
    }
}
