//! What is done with the bytes that a fuzzer makes up: one function for each target, which panics where the core breaks
//! a promise. `make fuzz` lets libFuzzer call them; `tests/fuzz.rs` calls them with the corpus and with random bytes.

#![forbid(unsafe_code)]

mod detectors;
mod input;
mod json;
mod payload;
mod processing;
mod states;
mod text;
mod time;

/// A target by its name, which is also that of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 13] = [
    ("calibration", json::calibration),
    ("conditions", json::conditions),
    ("detector_states", states::detector),
    ("detectors", detectors::detectors),
    ("expressions", processing::expressions),
    ("jsonb", json::jsonb),
    ("payload", payload::payload),
    ("processing_rules", processing::rules),
    ("processing_states", processing::states),
    ("sensor_states", states::sensor),
    ("text", text::text),
    ("time", time::time),
    ("units", text::units),
];

/// Runs the target of this name.
///
/// # Panics
/// When there is none, and when the core breaks a promise.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    assert!(target.is_some(), "there is no target {name}");
    if let Some((_, target)) = target {
        target(data);
    }
}
