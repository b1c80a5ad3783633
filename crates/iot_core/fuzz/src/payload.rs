//! Readings as applications send them.

use iot_core::ingest::payload::{self, Metadata, OfferedReading, OfferedTime, OfferedValue};
use iot_core::ingest::text::timestamp;
use iot_core::jsonb::{Document, Value};
use iot_core::time::Timestamp;
use serde_json::Value as Json;

use super::input::Input;
use super::json::{says_what_to_do, walk};

#[path = "../../tests/encode/mod.rs"]
mod encode;

/// A message: as text, from which PostgreSQL would make `jsonb`, or as bytes that nobody promised to be that.
pub fn payload(data: &[u8]) {
    let mut input = Input::new(data);
    if input.byte() == 0 {
        readings(&Document::new(input.rest()));
        return;
    }
    let Ok(json) = serde_json::from_str::<Json>(input.text()) else { return };
    if !is_storable(&json) {
        return;
    }
    let image = encode::encode(&json);
    let document = Document::new(&image);
    let mut visited = 0;
    walk(document.root(), &mut visited);
    assert_eq!(visited, count(&json), "{json}");
    readings(&document);
}

fn readings(document: &Document<'_>) {
    let readings = match payload::readings(document) {
        Ok(readings) => readings,
        Err(error) => return refused(&error),
    };
    for value in readings {
        match OfferedReading::from_value(value) {
            Ok(reading) => accepted(&reading),
            Err(error) => refused(&error),
        }
    }
}

fn accepted(reading: &OfferedReading<'_>) {
    // A key that is no UTF-8 ends its object for whoever reads the pairs, not for the count.
    assert!(reading.extra().count() <= reading.extra_count());
    match reading.merged_metadata() {
        Metadata::Empty => {}
        Metadata::Image(image) => {
            assert!(matches!(Document::new(image).root(), Value::Array(_) | Value::Object(_)))
        }
        Metadata::Text(text) => {
            if let Err(error) = serde_json::from_str::<Json>(&text) {
                assert!(error.to_string().contains("recursion limit"), "{error}: {text}");
            }
        }
    }
    match reading.measured_at {
        OfferedTime::At(at) => assert!((Timestamp::EARLIEST..Timestamp::RANGE_END).contains(&at)),
        // Two readers of the same spellings: neither may know what the other reads differently.
        OfferedTime::Text(text) => assert_eq!(timestamp(text), None, "{text}"),
        OfferedTime::Missing => {}
    }
    match reading.value {
        OfferedValue::Json(value) => assert!(!value.is_null()),
        OfferedValue::Number(_)
        | OfferedValue::Text(_)
        | OfferedValue::Boolean(_)
        | OfferedValue::Missing => {}
    }
}

fn refused(error: &payload::PayloadError) {
    assert!(!error.reason().is_empty());
    says_what_to_do(error, error.hint());
}

/// Whether `jsonb` can hold it: its numbers are those of `numeric`, and the encoder here goes as deep as the stack.
fn is_storable(json: &Json) -> bool {
    match json {
        Json::Number(number) => {
            let text = number.to_string();
            let exponent = text.split_once(['e', 'E']).map_or("0", |(_, exponent)| exponent);
            text.len() < 1_000 && exponent.parse().is_ok_and(|exponent: i32| exponent.abs() < 1_000)
        }
        Json::Array(elements) => elements.iter().all(is_storable),
        Json::Object(pairs) => pairs.values().all(is_storable),
        Json::Null | Json::Bool(_) | Json::String(_) => true,
    }
}

fn count(json: &Json) -> usize {
    1 + match json {
        Json::Array(elements) => elements.iter().map(count).sum(),
        Json::Object(pairs) => pairs.values().map(count).sum(),
        _ => 0,
    }
}
