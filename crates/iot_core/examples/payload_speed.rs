//! How long a reading takes from binary `jsonb` to its parts: `cargo run --release --example payload_speed`.

use std::hint::black_box;
use std::time::Instant;

use iot_core::ingest::payload::{OfferedReading, readings};
use iot_core::jsonb::Document;
use serde_json::{Value, json};

#[path = "../tests/encode/mod.rs"]
#[allow(clippy::unwrap_used)]
mod encode;

const READINGS: i32 = 1_000;
const ROUNDS: u32 = 2_000;

fn measure(name: &str, reading: impl Fn(i32) -> Value) {
    let image = encode::encode(&(0..READINGS).map(reading).collect());
    let mut fastest = f64::INFINITY;
    for _ in 0..10 {
        let start = Instant::now();
        for _ in 0..ROUNDS / 10 {
            let document = Document::new(black_box(&image));
            let taken = readings(&document)
                .into_iter()
                .flatten()
                .filter(|value| black_box(OfferedReading::from_value(*value)).is_ok())
                .count();
            assert_eq!(taken, READINGS as usize);
        }
        let nanoseconds = start.elapsed().as_nanos() as f64;
        fastest = fastest.min(nanoseconds / f64::from(ROUNDS / 10) / f64::from(READINGS));
    }
    println!("{name}: {fastest:.0} ns per reading");
}

fn main() {
    measure("columns", |index| {
        json!({
            "sensor_id": format!("a0eebc99-9c0b-4ef8-bb6d-6bb9{index:08x}"),
            "measurement_timestamp": "2025-06-13T10:00:00.123Z",
            "measurement_value": f64::from(index) / 100.0,
        })
    });
    measure("columns with metadata", |index| {
        json!({
            "sensor_id": format!("a0eebc99-9c0b-4ef8-bb6d-6bb9{index:08x}"),
            "measurement_timestamp": "2025-06-13T10:00:00.123Z",
            "measurement_value": f64::from(index) / 100.0,
            "measurement_metadata": {"battery": 97, "rssi": -71},
        })
    });
    measure("kafka message", |index| {
        json!({
            "deviceId": format!("device-{index}"), "sensorType": "temperature", "value": f64::from(index) / 10.0,
            "unit": "°C", "timestamp": "2025-06-13T10:00:00Z", "location": "hall 3", "status": "normal",
        })
    });
    measure("telemetry row", |index| {
        json!({
            "device_id": index, "timestamp": 1_749_808_800_000_i64 + i64::from(index), "measurement_name": "door",
            "numeric_value": f64::from(index) / 7.0, "text_value": null, "boolean_value": null, "json_value": null,
            "metadata": {"a": 1},
        })
    });
}
