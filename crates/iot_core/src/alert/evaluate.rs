//! Evaluating compiled conditions.

use super::CompiledCondition;
use super::condition::Node;
use crate::time::TimeOfDay;

/// What conditions ask about a reading beside its value. Asked only when the answer decides.
pub trait Environment {
    /// Whether the metadata contain the operand at this index of [`CompiledCondition::metadata_checks`].
    fn metadata_contains(&self, check: usize) -> bool;

    /// The time of day of the reading in the zone at this index of [`CompiledCondition::time_zones`], or in
    /// the default zone.
    fn time_of_day(&self, zone: Option<usize>) -> TimeOfDay;
}

/// The outcome of an evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Whether the conditions hold.
    pub matched: bool,
    /// The bound that the value crossed, if a comparison outside any `not` made the conditions hold. With
    /// several, the first that was evaluated.
    pub threshold: Option<f64>,
}

impl CompiledCondition {
    /// Evaluates the conditions for a reading of the given finite value, no further than needed to decide.
    ///
    /// Within an object the order is `threshold_high`, `threshold_low`, `between`, `outside`, `time_window`,
    /// `metadata_check`, `and`, `or`, `not`; within an array, that of the array.
    pub fn evaluate(&self, value: f64, environment: &impl Environment) -> Verdict {
        self.root.evaluate(value, environment)
    }
}

impl Node {
    fn evaluate(&self, value: f64, environment: &impl Environment) -> Verdict {
        match self {
            Self::ThresholdHigh(high) => crossed(value > *high, *high),
            Self::ThresholdLow(low) => crossed(value < *low, *low),
            Self::Between(bounds) => plain((bounds.low..=bounds.high).contains(&value)),
            Self::Outside(bounds) => {
                let bound = if value > bounds.high { bounds.high } else { bounds.low };
                crossed(!(bounds.low..=bounds.high).contains(&value), bound)
            }
            Self::TimeWindow { start, end, zone } => {
                plain(environment.time_of_day(*zone).is_within(*start, *end))
            }
            Self::MetadataCheck(check) => plain(environment.metadata_contains(*check)),
            Self::And(nodes) => all(nodes, value, environment),
            Self::Or(nodes) => any(nodes, value, environment),
            Self::Not(node) => plain(!node.evaluate(value, environment).matched),
        }
    }
}

fn crossed(matched: bool, bound: f64) -> Verdict {
    Verdict { matched, threshold: matched.then_some(bound) }
}

fn plain(matched: bool) -> Verdict {
    Verdict { matched, threshold: None }
}

fn all(nodes: &[Node], value: f64, environment: &impl Environment) -> Verdict {
    let mut threshold = None;
    for node in nodes {
        let verdict = node.evaluate(value, environment);
        if !verdict.matched {
            return plain(false);
        }
        threshold = threshold.or(verdict.threshold);
    }
    Verdict { matched: true, threshold }
}

fn any(nodes: &[Node], value: f64, environment: &impl Environment) -> Verdict {
    nodes
        .iter()
        .map(|node| node.evaluate(value, environment))
        .find(|verdict| verdict.matched)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use serde_json::{Value, json};

    use super::*;

    /// Noon everywhere; metadata contain the operands with an even index. Remembers what it was asked.
    #[derive(Default)]
    struct Noon {
        asked: RefCell<Vec<String>>,
    }

    impl Environment for Noon {
        fn metadata_contains(&self, check: usize) -> bool {
            self.asked.borrow_mut().push(format!("metadata {check}"));
            check.is_multiple_of(2)
        }

        fn time_of_day(&self, zone: Option<usize>) -> TimeOfDay {
            self.asked.borrow_mut().push(format!("zone {zone:?}"));
            TimeOfDay::parse("12:00").unwrap()
        }
    }

    fn evaluate(json: Value, value: f64) -> Verdict {
        CompiledCondition::parse(&json).unwrap().evaluate(value, &Noon::default())
    }

    fn matched(threshold: f64) -> Verdict {
        Verdict { matched: true, threshold: Some(threshold) }
    }

    const PLAIN: Verdict = Verdict { matched: true, threshold: None };
    const FAILED: Verdict = Verdict { matched: false, threshold: None };

    #[test]
    fn no_condition_always_holds() {
        assert_eq!(evaluate(json!({}), 1.0), PLAIN);
    }

    #[test]
    fn thresholds_are_strict() {
        for (value, high, low) in
            [(29.0, FAILED, matched(30.0)), (30.0, FAILED, FAILED), (31.0, matched(30.0), FAILED)]
        {
            assert_eq!(evaluate(json!({"threshold_high": 30}), value), high);
            assert_eq!(evaluate(json!({"threshold_low": 30}), value), low);
        }
    }

    #[test]
    fn outside_is_the_complement_of_between() {
        for (value, between, outside) in [
            (0.9, FAILED, matched(1.0)),
            (1.0, PLAIN, FAILED),
            (2.0, PLAIN, FAILED),
            (2.1, FAILED, matched(2.0)),
        ] {
            assert_eq!(evaluate(json!({"between": [1, 2]}), value), between);
            assert_eq!(evaluate(json!({"outside": [1, 2]}), value), outside);
        }
    }

    #[test]
    fn time_windows() {
        for (start, end, verdict) in [
            ("12:00", "18:00", PLAIN),
            ("06:00", "12:00", PLAIN),
            ("12:01", "18:00", FAILED),
            ("22:00", "06:00", FAILED),
            ("22:00", "12:00", PLAIN),
        ] {
            assert_eq!(evaluate(json!({"time_window": {"start": start, "end": end}}), 0.0), verdict);
        }
    }

    #[test]
    fn all_members_must_hold() {
        assert_eq!(evaluate(json!({"threshold_high": 1, "threshold_low": 3}), 2.0), matched(1.0));
        assert_eq!(evaluate(json!({"threshold_high": 1, "threshold_low": 2}), 2.0), FAILED);
    }

    #[test]
    fn groups() {
        let high_or_low = json!({"or": [{"threshold_high": 30}, {"threshold_low": 5}]});
        assert_eq!(evaluate(high_or_low.clone(), 31.0), matched(30.0));
        assert_eq!(evaluate(high_or_low.clone(), 4.0), matched(5.0));
        assert_eq!(evaluate(high_or_low.clone(), 20.0), FAILED);
        assert_eq!(evaluate(json!({"not": high_or_low}), 20.0), PLAIN);
        let both = json!({"and": [{"between": [0, 100]}, {"threshold_high": 50}]});
        assert_eq!(evaluate(both.clone(), 60.0), matched(50.0));
        assert_eq!(evaluate(both, 40.0), FAILED);
    }

    #[test]
    fn no_threshold_under_not() {
        assert_eq!(evaluate(json!({"not": {"not": {"threshold_high": 1}}}), 2.0), PLAIN);
        assert_eq!(evaluate(json!({"not": {"threshold_low": 1}, "outside": [0, 1]}), 2.0), matched(1.0));
    }

    #[test]
    fn asks_no_more_than_needed() {
        let asked = |json: Value, value: f64| {
            let noon = Noon::default();
            CompiledCondition::parse(&json).unwrap().evaluate(value, &noon);
            noon.asked.into_inner()
        };
        let all = json!({
            "metadata_check": {"a": 1},
            "threshold_high": 1,
            "time_window": {"start": "00:00", "end": "24:00", "timezone": "UTC"},
        });
        assert!(asked(all.clone(), 1.0).is_empty());
        assert_eq!(asked(all, 2.0), ["zone Some(0)", "metadata 0"]);
        let any = json!({"or": [{"metadata_check": {"a": 1}}, {"metadata_check": {"b": 1}}]});
        assert_eq!(asked(any, 0.0), ["metadata 0"]);
        assert_eq!(asked(json!({"time_window": {"start": "00:00", "end": "24:00"}}), 0.0), ["zone None"]);
    }
}
