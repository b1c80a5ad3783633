//! Binary and textual JSON, and what is read from it: rule conditions, calibrations, quality limits, message templates.

use iot_core::alert::{CompiledCondition, Environment, MessageFields, MessageTemplate};
use iot_core::ingest::{Calibration, QualityContext, QualityLimits, assess_observation};
use iot_core::jsonb::{Document, Value};
use iot_core::time::{MICROS_PER_DAY, TimeOfDay};
use serde_json::Value as Json;

use super::input::Input;
use super::states::observation;

/// Bytes that nobody promised to be `jsonb`.
pub fn jsonb(data: &[u8]) {
    let root = Document::new(data).root();
    walk(root, &mut 0);
    let text = root.to_text();
    if let Err(error) = serde_json::from_str::<Json>(&text) {
        // The parser here goes 128 deep; PostgreSQL's follows max_stack_depth.
        assert!(error.to_string().contains("recursion limit"), "{error}: {text}");
    }
}

/// Visits all values of a document.
pub fn walk(root: Value<'_>, visited: &mut usize) {
    let mut open = vec![root];
    while let Some(value) = open.pop() {
        *visited += 1;
        let _ = (value.type_name(), value.is_null());
        match value {
            Value::Array(array) => {
                assert!(array.iter().count() <= array.len());
                assert_eq!(Document::new(array.image()).root(), value);
                open.extend(array);
            }
            Value::Object(object) => {
                assert!(object.iter().count() <= object.len());
                assert_eq!(Document::new(object.image()).root(), value);
                for (key, _) in object.iter().take(8) {
                    // Malformed objects may be unsorted, where a search finds what it finds.
                    let _ = object.get(key);
                }
                let _ = (object.get(""), object.get("metadata"));
                open.extend(object.iter().map(|(_, value)| value));
            }
            Value::Number(number) => {
                let float = number.to_f64();
                assert_eq!(number.cmp(&number), std::cmp::Ordering::Equal);
                assert!(!float.is_nan() || !number.is_finite());
                if number.is_zero() {
                    assert_eq!(float, 0.0);
                }
                if let Some(integer) = number.to_i64() {
                    assert_eq!(float, integer as f64);
                }
            }
            Value::Null | Value::Bool(_) | Value::String(_) => {}
        }
    }
}

/// Answers by the bits of a number.
struct Answers(u8);

impl Environment for Answers {
    fn metadata_contains(&self, check: usize) -> bool {
        self.0 >> (check % 8) & 1 == 1
    }

    fn time_of_day(&self, zone: Option<usize>) -> TimeOfDay {
        TimeOfDay(MICROS_PER_DAY / 256 * i64::from(self.0) + zone.map_or(0, |zone| zone as i64))
    }
}

/// Conditions of a rule, and the template of its message.
pub fn conditions(data: &[u8]) {
    let mut input = Input::new(data);
    let (value, answers) = (input.f64(), Answers(input.byte()));
    let text = input.text();
    template(text, value);
    let Ok(json) = serde_json::from_str::<Json>(text) else { return };
    match CompiledCondition::parse(&json) {
        Ok(condition) => {
            let verdict = condition.evaluate(value, &answers);
            assert!(verdict.matched || verdict.threshold.is_none());
            assert!(verdict.threshold.is_none_or(f64::is_finite));
            assert_eq!(condition.evaluate(value, &answers), verdict);
            assert!(!condition.is_empty() || verdict.matched);
            // What PostgreSQL stores of it means the same.
            let stored = serde_json::from_str(&json.to_string());
            assert_eq!(
                stored.ok().and_then(|json: Json| CompiledCondition::parse(&json).ok()),
                Some(condition)
            );
        }
        Err(error) => says_what_to_do(&error, &error.hint()),
    }
}

fn template(text: &str, value: f64) {
    match MessageTemplate::parse(text) {
        Ok(template) => {
            let fields = MessageFields {
                rule_name: "{value}",
                sensor_name: "s",
                sensor_type: "t",
                device_name: "d",
                value,
                unit: "°C",
                threshold: Some(value),
                severity: "high",
                time: iot_core::time::Timestamp(0),
            };
            let _ = template.render(&fields);
        }
        Err(error) => {
            assert!((1..=text.chars().count()).contains(&error.position));
            says_what_to_do(&error, &error.hint());
        }
    }
}

/// A calibration or quality limits, and values that they meet.
pub fn calibration(data: &[u8]) {
    let mut input = Input::new(data);
    let raw = input.f64();
    let observations = [observation(&mut input), observation(&mut input), observation(&mut input)];
    let Ok(json) = serde_json::from_str::<Json>(input.text()) else { return };
    match Calibration::from_json(&json) {
        Ok(calibration) => match calibration.apply(raw) {
            Ok(calibrated) => {
                assert!(calibrated.value.is_finite());
                assert!(!calibration.is_identity() || calibrated.value == raw);
            }
            Err(error) => says_what_to_do(&error, &error.hint()),
        },
        Err(error) => says_what_to_do(&error, &error.hint()),
    }
    match QualityLimits::from_json(&json) {
        Ok(limits) => {
            let mut context = QualityContext::default();
            for observation in &observations {
                let flags = assess_observation(observation, &limits, &context);
                let _ = (flags.verdict().as_str(), flags.reasons().count());
                context.observe(observation, &limits);
                assert_eq!(QualityContext::decode(&context.encode()), Some(context));
            }
        }
        Err(error) => says_what_to_do(&error, &error.hint()),
    }
}

/// Every refusal has a message and a hint.
pub fn says_what_to_do(error: &impl std::fmt::Display, hint: &str) {
    assert!(!error.to_string().is_empty());
    assert!(hint.ends_with(['.', '…']), "{hint}");
}
