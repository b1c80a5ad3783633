//! From JSON to compiled conditions.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::condition::{Bounds, CompiledCondition, Node};
use super::condition_error::{ConditionError, ConditionProblem, Expected};
use crate::json::{excerpt, finite_number};
use crate::time::TimeOfDay;

/// Deepest nesting of condition objects, the top one included.
pub(super) const MAXIMUM_DEPTH: usize = 32;

const CONDITION_KEYS: [&str; 9] = [
    "threshold_high",
    "threshold_low",
    "between",
    "outside",
    "time_window",
    "metadata_check",
    "and",
    "or",
    "not",
];
const TIME_WINDOW_KEYS: [&str; 3] = ["start", "end", "timezone"];
const BOUND_KEYS: [&str; 2] = ["low", "high"];

pub(super) fn parse(json: &Value) -> Result<CompiledCondition, ConditionError> {
    let mut parser = Parser::default();
    let root = match json {
        Value::Object(object) if object.is_empty() => Node::And(Vec::new()),
        _ => parser.condition(json)?,
    };
    let Parser { metadata_checks, time_zones, uses_default_zone, .. } = parser;
    Ok(CompiledCondition { root, metadata_checks, time_zones, uses_default_zone })
}

#[derive(Default)]
struct Parser {
    /// Where in the JSON the parser is, such as `or[1].threshold_high`. Empty at the top.
    path: String,
    depth: usize,
    metadata_checks: Vec<Value>,
    time_zones: Vec<String>,
    uses_default_zone: bool,
}

type Parsed<T> = Result<T, ConditionError>;

impl Parser {
    fn condition(&mut self, json: &Value) -> Parsed<Node> {
        let object = json.as_object().ok_or_else(|| self.malformed(Expected::Condition, json))?;
        self.refuse_unknown_keys(object, &CONDITION_KEYS)?;
        if object.is_empty() {
            return Err(self.error(ConditionProblem::Empty));
        }
        if self.depth == MAXIMUM_DEPTH {
            return Err(self.error(ConditionProblem::TooDeep));
        }
        self.depth += 1;
        let nodes = self.members(object)?;
        self.depth -= 1;
        Ok(Node::And(nodes))
    }

    /// The members of a condition object, in the order of [`CONDITION_KEYS`], not in that of the JSON.
    fn members(&mut self, object: &Map<String, Value>) -> Parsed<Vec<Node>> {
        let present = CONDITION_KEYS.iter().filter_map(|key| Some((*key, object.get(*key)?)));
        present.map(|(key, operand)| self.within_key(key, |parser| parser.member(key, operand))).collect()
    }

    fn member(&mut self, key: &str, operand: &Value) -> Parsed<Node> {
        Ok(match key {
            "threshold_high" => Node::ThresholdHigh(self.number(operand)?),
            "threshold_low" => Node::ThresholdLow(self.number(operand)?),
            "between" => Node::Between(self.bounds(operand)?),
            "outside" => Node::Outside(self.bounds(operand)?),
            "time_window" => self.time_window(operand)?,
            "metadata_check" => self.metadata_check(operand)?,
            "and" => Node::And(self.conditions(operand)?),
            "or" => Node::Or(self.conditions(operand)?),
            // "not", the one key of CONDITION_KEYS that is left.
            _ => Node::Not(Box::new(self.condition(operand)?)),
        })
    }

    fn number(&self, operand: &Value) -> Parsed<f64> {
        finite_number(operand).ok_or_else(|| self.malformed(Expected::Number, operand))
    }

    fn bounds(&mut self, operand: &Value) -> Parsed<Bounds> {
        let (low, high) = match operand {
            Value::Array(items) => match items.as_slice() {
                [low, high] => (
                    self.within_index(0, |parser| parser.number(low))?,
                    self.within_index(1, |parser| parser.number(high))?,
                ),
                _ => return Err(self.malformed(Expected::Bounds, operand)),
            },
            Value::Object(object) => {
                self.refuse_unknown_keys(object, &BOUND_KEYS)?;
                let mut bound = |key| self.required(object, key, Self::number);
                (bound("low")?, bound("high")?)
            }
            _ => return Err(self.malformed(Expected::Bounds, operand)),
        };
        if low > high {
            return Err(self.error(ConditionProblem::Reversed { low, high }));
        }
        Ok(Bounds { low, high })
    }

    fn time_window(&mut self, operand: &Value) -> Parsed<Node> {
        let object = operand.as_object().ok_or_else(|| self.malformed(Expected::TimeWindow, operand))?;
        self.refuse_unknown_keys(object, &TIME_WINDOW_KEYS)?;
        let start = self.required(object, "start", Self::time_of_day)?;
        let end = self.required(object, "end", Self::time_of_day)?;
        let zone = match object.get("timezone") {
            None | Some(Value::Null) => {
                self.uses_default_zone = true;
                None
            }
            Some(zone) => Some(self.within_key("timezone", |parser| parser.time_zone(zone))?),
        };
        Ok(Node::TimeWindow { start, end, zone })
    }

    fn time_of_day(&self, operand: &Value) -> Parsed<TimeOfDay> {
        operand
            .as_str()
            .and_then(TimeOfDay::parse)
            .ok_or_else(|| self.malformed(Expected::TimeOfDay, operand))
    }

    fn time_zone(&mut self, operand: &Value) -> Parsed<usize> {
        let name = operand
            .as_str()
            .filter(|name| !name.is_empty())
            .ok_or_else(|| self.malformed(Expected::TimeZone, operand))?;
        if let Some(known) = self.time_zones.iter().position(|zone| zone == name) {
            return Ok(known);
        }
        self.time_zones.push(name.to_owned());
        Ok(self.time_zones.len() - 1)
    }

    fn metadata_check(&mut self, operand: &Value) -> Parsed<Node> {
        if !operand.is_object() && !operand.is_array() {
            return Err(self.malformed(Expected::Metadata, operand));
        }
        self.metadata_checks.push(operand.clone());
        Ok(Node::MetadataCheck(self.metadata_checks.len() - 1))
    }

    fn conditions(&mut self, operand: &Value) -> Parsed<Vec<Node>> {
        match operand.as_array() {
            Some(items) if !items.is_empty() => items
                .iter()
                .enumerate()
                .map(|(index, item)| self.within_index(index, |parser| parser.condition(item)))
                .collect(),
            _ => Err(self.malformed(Expected::Conditions, operand)),
        }
    }

    fn required<T>(
        &mut self,
        object: &Map<String, Value>,
        key: &'static str,
        read: fn(&Self, &Value) -> Parsed<T>,
    ) -> Parsed<T> {
        let operand = object.get(key).ok_or_else(|| self.error(ConditionProblem::MissingKey { key }))?;
        self.within_key(key, |parser| read(parser, operand))
    }

    fn refuse_unknown_keys(
        &mut self,
        object: &Map<String, Value>,
        known: &'static [&'static str],
    ) -> Parsed<()> {
        match object.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => {
                self.within_key(key, |parser| Err(parser.error(ConditionProblem::UnknownKey { known })))
            }
            None => Ok(()),
        }
    }

    fn within_key<T>(&mut self, key: &str, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let outer = self.path.len();
        if outer > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        let result = read(self);
        self.path.truncate(outer);
        result
    }

    fn within_index<T>(&mut self, index: usize, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let outer = self.path.len();
        // Writing to a string does not fail.
        let _ = write!(self.path, "[{index}]");
        let result = read(self);
        self.path.truncate(outer);
        result
    }

    fn malformed(&self, expected: Expected, found: &Value) -> ConditionError {
        self.error(ConditionProblem::Malformed { expected, found: excerpt(found) })
    }

    fn error(&self, problem: ConditionProblem) -> ConditionError {
        ConditionError { path: self.path.clone(), problem }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn compiled(json: Value) -> CompiledCondition {
        parse(&json).unwrap()
    }

    fn nested(depth: usize) -> Value {
        (1..depth).fold(json!({"threshold_high": 1}), |inner, _| json!({"not": inner}))
    }

    #[test]
    fn only_the_top_may_be_empty() {
        assert!(compiled(json!({})).is_empty());
        assert!(!compiled(json!({"threshold_high": 1})).is_empty());
        for nested in [json!({"not": {}}), json!({"and": [{}]}), json!({"or": [{"threshold_low": 1}, {}]})] {
            assert_eq!(parse(&nested).unwrap_err().problem, ConditionProblem::Empty, "{nested}");
        }
    }

    #[test]
    fn shapes_of_bounds_are_equal() {
        let pair = compiled(json!({"between": [1, 2]}));
        assert_eq!(pair, compiled(json!({"between": {"low": "1", "high": 2.0}})));
        assert_eq!(pair, compiled(json!({"between": ["1", "2e0"]})));
        assert!(parse(&json!({"outside": [1, 1]})).is_ok());
    }

    #[test]
    fn tables_for_the_shell() {
        let condition = compiled(json!({
            "metadata_check": {"site": "north"},
            "time_window": {"start": "06:00", "end": "18:00", "timezone": "Europe/Berlin"},
            "or": [
                {"time_window": {"start": "22:00", "end": "06:00", "timezone": "UTC"}},
                {"time_window": {"start": "22:00", "end": "06:00", "timezone": "Europe/Berlin"}},
                {"metadata_check": ["a"]},
            ],
        }));
        assert_eq!(condition.time_zones(), ["Europe/Berlin", "UTC"]);
        assert_eq!(condition.metadata_checks(), [json!({"site": "north"}), json!(["a"])]);
        assert!(!condition.uses_default_zone());
        for zone in [
            json!({"start": "22:00", "end": "06:00"}),
            json!({"start": "22:00", "end": "06:00", "timezone": null}),
        ] {
            let condition = compiled(json!({"not": {"time_window": zone}}));
            assert!(condition.uses_default_zone() && condition.time_zones().is_empty());
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        assert!(parse(&nested(MAXIMUM_DEPTH)).is_ok());
        let error = parse(&nested(MAXIMUM_DEPTH + 1)).unwrap_err();
        assert_eq!(error.problem, ConditionProblem::TooDeep);
        assert!(error.to_string().ends_with("\" must not be nested more than 32 deep"), "{error}");
        assert_eq!(error.hint(), "Nest condition objects at most 32 deep.");
        let wide: Vec<_> = (0..100).map(|_| nested(MAXIMUM_DEPTH - 1)).collect();
        assert!(parse(&json!({"or": wide})).is_ok(), "depth counts nesting, not siblings");
    }
}
