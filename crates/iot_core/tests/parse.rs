//! What comes from users is parsed or refused, never a panic; and each refusal can be shown to them.

use iot_core::alert::{CompiledCondition, MessageTemplate};
use iot_core::device::DeviceStatus;
use iot_core::ingest::Calibration;
use proptest::prelude::*;
use serde_json::Value;

const KEYS: [&str; 17] = [
    "threshold_high",
    "threshold_low",
    "between",
    "outside",
    "time_window",
    "metadata_check",
    "and",
    "or",
    "not",
    "low",
    "high",
    "start",
    "end",
    "timezone",
    "multiplier",
    "polynomial",
    "piecewise",
];

/// JSON of any shape, in which the keys of conditions and calibrations are frequent.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[0-9]{2}:[0-9]{2}".prop_map(Value::from),
        "-?[0-9.e]{0,6}".prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(8, 64, 6, |inner| {
        let key = prop_oneof![
            9 => proptest::sample::select(&KEYS[..]).prop_map(str::to_owned),
            1 => "\\PC{0,8}",
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((key, inner), 0..5).prop_map(Value::from_iter),
        ]
    })
}

fn assert_fit_to_be_shown(message: &str, hint: &str) -> Result<(), TestCaseError> {
    prop_assert!(message.starts_with(char::is_lowercase) && !message.is_empty(), "{message}");
    prop_assert!(hint.starts_with(char::is_uppercase) && hint.ends_with('.'), "{hint}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn conditions(json in json()) {
        if let Err(error) = CompiledCondition::parse(&json) {
            assert_fit_to_be_shown(&error.to_string(), &error.hint())?;
        }
    }

    #[test]
    fn calibrations(json in json(), raw in any::<f64>()) {
        match Calibration::from_json(&json) {
            Ok(calibration) => {
                let _ = calibration.apply(raw);
            }
            Err(error) => assert_fit_to_be_shown(&error.to_string(), &error.hint())?,
        }
    }

    #[test]
    fn templates(template in "([{}]{0,2}|value|threshold|\\PC){0,12}") {
        if let Err(error) = MessageTemplate::parse(&template) {
            assert_fit_to_be_shown(&error.to_string(), &error.hint())?;
        }
    }

    #[test]
    fn plain_text_is_its_own_template(text in "[^{}]{0,40}") {
        prop_assert!(MessageTemplate::parse(&text).is_ok());
    }

    #[test]
    fn device_statuses(name in "\\PC{0,16}") {
        if let Err(error) = name.parse::<DeviceStatus>() {
            assert_fit_to_be_shown(&error.to_string(), &error.hint())?;
        }
    }
}
