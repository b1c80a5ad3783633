//! Readings in the shapes that applications send, each reason to refuse one, and decoding that never panics.

#![allow(clippy::unwrap_used)]

mod encode;

use encode::encode;
use iot_core::ingest::payload::{
    DeviceReference, Metadata, OfferedReading, OfferedTime, OfferedValue, PayloadError, SensorName,
    SensorReference, readings,
};
use iot_core::jsonb::Document;
use iot_core::time::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

const ID: &str = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
const ID_BYTES: [u8; 16] =
    [0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38, 0x0a, 0x11];
/// 2025-06-13 10:00:00 UTC.
const TEN_O_CLOCK: Timestamp = Timestamp(803_124_000_000_000);

fn decode(value: Value, check: impl FnOnce(OfferedReading<'_>)) {
    let image = encode(&value);
    check(OfferedReading::from_value(Document::new(&image).root()).unwrap());
}

fn refusal(value: Value) -> PayloadError {
    let image = encode(&value);
    OfferedReading::from_value(Document::new(&image).root()).unwrap_err()
}

fn extra(reading: &OfferedReading<'_>) -> Vec<String> {
    reading.extra().map(|(key, value)| format!("{key}={value}")).collect()
}

fn metadata(reading: &OfferedReading<'_>) -> Value {
    match reading.merged_metadata() {
        Metadata::Empty => Value::Null,
        Metadata::Image(image) => serde_json::from_str(&Document::new(image).root().to_text()).unwrap(),
        Metadata::Text(text) => serde_json::from_str(&text).unwrap(),
    }
}

#[test]
fn columns_of_the_readings_table() {
    let reading = json!({
        "sensor_id": ID,
        "measurement_timestamp": "2025-06-13T10:00:00Z",
        "measurement_value": 21.5,
        "measurement_unit": "°C",
        "measurement_metadata": {"battery": 97},
    });
    decode(reading, |reading| {
        assert_eq!(reading.sensor, SensorReference::ById(ID_BYTES));
        assert_eq!(reading.measured_at, OfferedTime::At(TEN_O_CLOCK));
        assert_eq!(reading.value, OfferedValue::Number(21.5));
        assert_eq!(reading.unit, Some("°C"));
        assert_eq!((extra(&reading), reading.extra_count()), (vec![], 0));
        assert_eq!(reading.merged_metadata(), Metadata::Image(&encode(&json!({"battery": 97}))));
        assert_eq!(reading.object().len(), 5);
    });
}

#[test]
fn message_of_a_kafka_consumer() {
    let reading = json!({
        "deviceId": "device-001", "sensorType": "temperature", "value": 25.5, "unit": "°C",
        "timestamp": "2025-06-13T10:00:00Z", "location": "hall 3", "status": "normal",
    });
    decode(reading, |reading| {
        let device = DeviceReference::AnyKey("device-001");
        let sensor = SensorName { name: None, sensor_type: Some("temperature") };
        assert_eq!(reading.sensor, SensorReference::ByDevice { device, sensor });
        assert_eq!(reading.measured_at, OfferedTime::At(TEN_O_CLOCK));
        assert_eq!(reading.value, OfferedValue::Number(25.5));
        assert_eq!((reading.origin.location, reading.origin.status), (Some("hall 3"), Some("normal")));
        assert_eq!(extra(&reading), [r#"status="normal""#, r#"location="hall 3""#]);
        assert_eq!(metadata(&reading), json!({"location": "hall 3", "status": "normal"}));
    });
}

#[test]
fn row_of_batch_insert_sensor_readings() {
    let reading = json!({
        "id": 5, "device_id": "device-001", "timestamp": "2025-06-13T12:00:00.250+02:00", "sensor_type": "humidity",
        "value": "40.125", "unit": "%", "location": null, "status": "normal", "metadata": {"a": 1},
        "created_at": "2025-06-13T10:00:01Z",
    });
    decode(reading, |reading| {
        assert_eq!(reading.measured_at, OfferedTime::At(Timestamp(TEN_O_CLOCK.0 + 250_000)));
        assert_eq!(reading.value, OfferedValue::Text("40.125"));
        assert_eq!(
            metadata(&reading),
            json!({"a": 1, "id": 5, "status": "normal", "created_at": "2025-06-13T10:00:01Z"})
        );
    });
}

#[test]
fn row_of_telemetry_data() {
    let reading = |numeric: Value, text: Value, boolean: Value, json: Value| {
        json!({
            "id": 1, "device_id": 17, "user_id": 3, "timestamp": "2025-06-13 10:00:00", "measurement_name": "door",
            "numeric_value": numeric, "text_value": text, "boolean_value": boolean, "json_value": json,
            "metadata": null,
        })
    };
    decode(reading(json!(1.25), json!(null), json!(null), json!(null)), |reading| {
        let device = DeviceReference::AnyNumber(17);
        let sensor = SensorName { name: Some("door"), sensor_type: None };
        assert_eq!(reading.sensor, SensorReference::ByDevice { device, sensor });
        assert_eq!(reading.measured_at, OfferedTime::Text("2025-06-13 10:00:00"));
        assert_eq!(reading.value, OfferedValue::Number(1.25));
        assert_eq!(metadata(&reading), json!({"id": 1, "user_id": 3}));
    });
    decode(reading(json!("1.25"), json!(null), json!(null), json!(null)), |reading| {
        assert_eq!(reading.value, OfferedValue::Number(1.25));
    });
    decode(reading(json!(null), json!("open"), json!(null), json!(null)), |reading| {
        assert_eq!(reading.value, OfferedValue::Text("open"));
    });
    decode(reading(json!(null), json!(null), json!(false), json!(null)), |reading| {
        assert_eq!(reading.value, OfferedValue::Boolean(false));
    });
    decode(reading(json!(null), json!(null), json!(null), json!("x")), |reading| {
        assert!(matches!(reading.value, OfferedValue::Json(value) if value.to_text() == "\"x\""));
    });
    decode(reading(json!(null), json!(null), json!(null), json!(null)), |reading| {
        assert_eq!(reading.value, OfferedValue::Missing);
    });
    assert_eq!(
        refusal(reading(json!(1), json!("open"), json!(null), json!(null))).to_string(),
        "reading has two values, \"text_value\" and \"numeric_value\""
    );
}

#[test]
fn the_type_of_a_value_decides_what_it_is() {
    let value_of = |value: Value| json!({"sensor_id": ID, "value": value});
    decode(value_of(json!(-3)), |reading| assert_eq!(reading.value, OfferedValue::Number(-3.0)));
    decode(value_of(json!("21.5")), |reading| assert_eq!(reading.value, OfferedValue::Text("21.5")));
    decode(value_of(json!("")), |reading| assert_eq!(reading.value, OfferedValue::Text("")));
    decode(value_of(json!(true)), |reading| assert_eq!(reading.value, OfferedValue::Boolean(true)));
    decode(value_of(json!([1, 2])), |reading| {
        assert!(matches!(reading.value, OfferedValue::Json(value) if value.to_text() == "[1, 2]"));
    });
    decode(value_of(json!(null)), |reading| {
        assert_eq!((reading.value, reading.measured_at), (OfferedValue::Missing, OfferedTime::Missing));
    });
}

#[test]
fn devices() {
    for (keys, expected) in [
        (json!({"device_id": ID}), DeviceReference::ById(ID_BYTES)),
        (json!({"deviceId": ID.to_uppercase(), "external_id": "x"}), DeviceReference::ById(ID_BYTES)),
        (
            json!({"device_id": ID.replace('-', "")}),
            DeviceReference::AnyKey("a0eebc999c0b4ef8bb6d6bb9bd380a11"),
        ),
        (json!({"device_serial_number": "S-1", "device_id": "d"}), DeviceReference::BySerial("S-1")),
        (json!({"serialNumber": "S-1", "external_id": "x"}), DeviceReference::BySerial("S-1")),
        (json!({"externalId": "x", "device_id": "d"}), DeviceReference::ByExternalId("x")),
        (json!({"device_id": "", "external_id": "x"}), DeviceReference::ByExternalId("x")),
    ] {
        let mut reading = json!({"sensor_name": "t", "sensorType": "temperature", "value": 1});
        reading.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        decode(reading, |reading| {
            let sensor = SensorName { name: Some("t"), sensor_type: Some("temperature") };
            assert_eq!(reading.sensor, SensorReference::ByDevice { device: expected, sensor });
            assert_eq!((reading.origin.device, reading.origin.sensor), (Some(expected), sensor));
        });
    }
    for id in [format!("{{{ID}}}"), ID.replace('-', ""), ID.to_uppercase()] {
        decode(json!({"sensorId": id, "device_id": "d", "value": 1}), |reading| {
            assert_eq!(reading.sensor, SensorReference::ById(ID_BYTES));
            assert_eq!(reading.origin.device, Some(DeviceReference::AnyKey("d")));
        });
    }
}

#[test]
fn spellings_that_agree() {
    let reading = json!({
        "sensor_id": ID, "sensorId": ID.to_uppercase(), "value": 1, "numeric_value": "1.0", "measurement_value": 1.00,
        "timestamp": "2025-06-13T10:00:00Z", "time": 1_749_808_800, "metadata": {"rssi": 1.0}, "rssi": 1.0,
    });
    decode(reading, |reading| {
        assert_eq!(reading.value, OfferedValue::Number(1.0));
        assert_eq!(reading.measured_at, OfferedTime::At(TEN_O_CLOCK));
        assert_eq!(metadata(&reading), json!({"rssi": 1.0}));
    });
}

#[test]
fn metadata_loses_nothing() {
    for (metadata_offered, extra_offered, expected) in [
        (json!(null), json!({}), json!(null)),
        (json!([1]), json!({}), json!([1])),
        (json!("note"), json!({}), json!("note")),
        (json!("note"), json!({"x\"y": null}), json!({"metadata": "note", "x\"y": null})),
        (json!({"a": {"b": 1}}), json!({"c": [true]}), json!({"a": {"b": 1}, "c": [true]})),
        (json!(null), json!({"location": {"lat": 1.5}, "status": null}), json!({"location": {"lat": 1.5}})),
        (json!(null), json!({"raw_value": 1e300}), json!({"raw_value": 1e300})),
    ] {
        let mut reading = json!({"sensor_id": ID, "value": 1, "metadata": metadata_offered});
        reading.as_object_mut().unwrap().extend(extra_offered.as_object().unwrap().clone());
        decode(reading, |reading| {
            // By text: the numbers of an image have their digits written out.
            let same = |value: &Value| Document::new(&encode(value)).root().to_text();
            assert_eq!(same(&metadata(&reading)), same(&expected));
            assert_eq!(reading.extra_count(), reading.extra().count());
        });
    }
}

#[test]
fn refusals() {
    let long = "x".repeat(100);
    for (reading, reason, message) in [
        (json!(5), "not_an_object", "reading must be a JSON object, not 5"),
        (json!([[]]), "not_an_object", "reading must be a JSON object, not [[]]"),
        (json!({"value": 1}), "missing_sensor", "reading names no sensor"),
        (
            json!({"device_id": "d", "value": 1, "sensor_name": ""}),
            "missing_sensor",
            "reading names no sensor",
        ),
        (
            json!({"sensor_type": "t", "value": 1}),
            "missing_device",
            "reading names a sensor but not its device",
        ),
        (json!({"sensor_id": ID}), "missing_value", "reading has no value"),
        (
            json!({"sensor_id": "t-1", "value": 1}),
            "bad_identifier",
            "reading key \"sensor_id\" must be a UUID, not \"t-1\"",
        ),
        (
            json!({"sensor_id": ID.replace('-', "g"), "value": 1}),
            "bad_identifier",
            "reading key \"sensor_id\" must be a UUID, not \"a0eebc99g9c0bg4ef8gbb6dg6bb9bd380a11\"",
        ),
        (json!({"sensorId": 7}), "wrong_type", "reading key \"sensorId\" must be a string, not 7"),
        (
            json!({"device_id": 1.5}),
            "wrong_type",
            "reading key \"device_id\" must be a string or an integer, not 1.5",
        ),
        (json!({"unit": ["°C"]}), "wrong_type", "reading key \"unit\" must be a string, not [\"°C\"]"),
        (
            json!({"numeric_value": long}),
            "malformed",
            &format!("reading key \"numeric_value\" must be a number, not \"{}...", "x".repeat(59)),
        ),
        (json!({"text_value": 1}), "wrong_type", "reading key \"text_value\" must be a string, not 1"),
        (
            json!({"boolean_value": "yes"}),
            "wrong_type",
            "reading key \"boolean_value\" must be true or false, not \"yes\"",
        ),
        (
            json!({"timestamp": true}),
            "wrong_type",
            "reading key \"timestamp\" must be a string or a number, not true",
        ),
        (
            json!({"ts": 100_000_000_000_000_000_000_u128}),
            "bad_time",
            "reading key \"ts\" must be a point in time, not 100000000000000000000",
        ),
        (
            json!({"sensor_id": ID, "value": 1, "numeric_value": 2}),
            "ambiguous_value",
            "reading has two values, \"value\" and \"numeric_value\"",
        ),
        (
            json!({"deviceId": "a", "device_id": "b"}),
            "contradiction",
            "reading keys \"deviceId\" and \"device_id\" contradict each other",
        ),
        (
            json!({"sensor_id": ID, "value": 1, "rssi": 1, "metadata": {"rssi": 2}}),
            "contradiction",
            "reading keys \"rssi\" and \"metadata.rssi\" contradict each other",
        ),
    ] {
        let error = refusal(reading);
        assert_eq!((error.reason(), error.to_string().as_str()), (reason, message));
        assert!(error.hint().starts_with(char::is_uppercase) && error.hint().ends_with('.'));
    }
    for number in ["1e400", "-1e400", "1e-400"] {
        let error = refusal(serde_json::from_str(&format!("{{\"value\": {number}}}")).unwrap());
        assert_eq!(error.reason(), "out_of_range", "{number}");
        assert!(
            error.to_string().starts_with("reading key \"value\" is out of range for double precision: ")
        );
        assert!(error.hint().ends_with('.'));
    }
}

/// `jsonb` cannot hold them; whoever reads a value need not look again.
#[test]
fn numbers_that_are_not_finite_are_refused() {
    for header in [0xC000_u16, 0xD000, 0xF000] {
        let mut image = encode(&json!({"sensor_id": "00112233-4455-6677-8899-aabbccddeeff", "value": 1}));
        let number = 1_u16.to_ne_bytes();
        let at = image.windows(2).rposition(|pair| *pair == number).unwrap() - 2;
        image[at..at + 2].copy_from_slice(&header.to_ne_bytes());
        let value = readings(&Document::new(&image)).unwrap().next().unwrap();
        let error = OfferedReading::from_value(value).unwrap_err();
        assert!(matches!(error, PayloadError::OutOfRange { .. }), "{header:x}: {error}");
    }
}

#[test]
fn arrays_and_single_objects() {
    let count = |value: Value| {
        let image = encode(&value);
        readings(&Document::new(&image)).map(|readings| readings.count()).map_err(|error| error.reason())
    };
    assert_eq!(count(json!([])), Ok(0));
    assert_eq!(count(json!([{}, 1, null])), Ok(3));
    assert_eq!(count(json!({"value": 1})), Ok(1));
    assert_eq!(count(json!("x")), Err("not_an_object"));
}

fn reading() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        proptest::sample::select(
            &[
                "sensor_id",
                "sensorId",
                "device_id",
                "deviceId",
                "sensor_type",
                "measurement_name",
                "timestamp",
                "ts",
                "value",
                "measurement_value",
                "numeric_value",
                "text_value",
                "boolean_value",
                "json_value",
                "unit",
                "metadata",
                "location",
                "status",
                "external_id",
                "serial_number",
            ][..]
        )
        .prop_map(str::to_owned),
        "\\PC{0,8}",
    ];
    let leaf = prop_oneof![
        Just(json!(ID)),
        Just(json!("2025-06-13T10:00:00.5+02:00")),
        "[0-9T:. Z+-]{0,25}".prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(null)),
        Just(json!(true)),
        Just(json!({"a": [1, {"value": 2}], "unit": "x"})),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    proptest::collection::vec((key, leaf), 0..12).prop_map(Value::from_iter)
}

/// Takes or refuses; both can be shown.
fn offer(image: &[u8]) {
    for value in readings(&Document::new(image)).into_iter().flatten() {
        match OfferedReading::from_value(value) {
            Ok(reading) => {
                let _ = metadata(&reading);
            }
            Err(error) => {
                assert!(error.to_string().starts_with("reading ") && !error.reason().contains(' '));
                assert!(error.hint().ends_with('.'));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_reading_is_taken_or_refused(value in proptest::collection::vec(reading(), 0..4)) {
        offer(&encode(&Value::Array(value)));
    }

    #[test]
    fn so_is_every_damaged_one(
        value in reading(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut image = encode(&value);
        for (place, byte) in changes {
            let place = place.index(image.len());
            image[place] = byte;
        }
        offer(&image);
    }
}
