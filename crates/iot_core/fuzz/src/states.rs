//! Stored states of sensors and detectors: bytes that nobody promised to be such.

use iot_core::detect::{DetectorKind, DetectorState, MAXIMUM_SCORE, score};
use iot_core::ingest::{Observation, PhysicalRange, QualityLimits};
use iot_core::sensor_state::{SensorChange, SensorState, Stored};

use super::input::Input;

/// A reading as its quality is judged.
pub fn observation(input: &mut Input<'_>) -> Observation {
    Observation {
        value: input.f64(),
        measured_at: input.finite_timestamp(),
        received_at: input.finite_timestamp(),
        future: input.byte() > 250,
        outside_calibration: input.flag(),
        calibrated_since: input.flag().then(|| input.timestamp()),
    }
}

/// Readings, then the bytes of a sensor's state that they are added to.
pub fn sensor(data: &[u8]) {
    let mut input = Input::new(data);
    let readings = [0; 4].map(|_| Stored { observation: observation(&mut input), counted: input.flag() });
    let limits = QualityLimits {
        physical_range: PhysicalRange { minimum: Some(-100.0), maximum: None },
        maximum_rate: Some(input.f64().abs()),
        spike_threshold: Some(input.f64().abs()),
        flatline_after: Some(input.i64().saturating_abs()),
        flatline_tolerance: Some(0.5),
        gap_after: Some(input.i64().saturating_abs()),
        late_after: Some(input.i64().saturating_abs()),
        calibration_due: input.flag().then(|| input.timestamp()),
        calibration_valid_for: Some(input.i64().saturating_abs()),
    };
    let mut state = SensorState::decode(input.rest()).unwrap_or_default();
    let elsewhere = state;
    let mut change = SensorChange::default();
    for mut reading in readings {
        // As the engine decides it.
        reading.counted &= reading.observation.value.abs() <= 1e150;
        works(&state);
        let flags = state.assess(&reading.observation, &limits);
        let _ = flags.verdict();
        let at = reading.observation.measured_at;
        if state.is_news(at) {
            let _ = state.onset(at, reading.counted);
        }
        state.observe(&reading, &limits);
        change.observe(&reading, &state);
        assert!(!state.is_news(at));
    }
    works(&state);
    let mut merged = elsewhere;
    merged.merge(&change);
    works(&merged);
    assert_eq!(merged.window.high_water(), state.window.high_water());
    let mut continued = SensorState::default();
    continued.continue_from(&state);
    works(&continued);
}

/// Whether a reading can be scored against it, and whether it survives being stored.
fn works(state: &SensorState) {
    let statistics = state.window.statistics();
    assert_eq!(state.window.cursor().statistics(&state.window), statistics);
    for value in [0.0, 21.5, -1e150] {
        let scored = score(value, &statistics);
        assert!((0.0..=MAXIMUM_SCORE).contains(&scored.score), "{scored:?} {statistics:?}");
    }
    let bytes = state.encode();
    let decoded = SensorState::decode(&bytes);
    assert!(decoded.is_some(), "{state:?}");
    // Compared as bytes, because NaN is not equal to itself.
    assert_eq!(decoded.map(|decoded| decoded.encode()), Some(bytes));
}

/// The bytes of a detector's state, and readings after it.
pub fn detector(data: &[u8]) {
    let mut input = Input::new(data);
    let readings = [0; 4].map(|_| (input.timestamp(), input.f64()));
    let Some(mut state) = DetectorState::decode(input.rest()) else { return };
    let mut bytes = vec![0; DetectorState::encoded_len(state.kind())];
    assert!(state.encode(&mut bytes));
    assert_eq!(bytes, input.rest()[..bytes.len()]);
    for (at, value) in readings {
        for verdict in [state.score_late(at, value), state.observe(at, value)] {
            assert!((0.0..=MAXIMUM_SCORE).contains(&verdict.score), "{verdict:?}");
        }
        survives(&state);
    }
}

/// What a detector knows is the same after it was stored.
pub fn survives(state: &DetectorState) {
    let mut bytes = vec![0; DetectorState::encoded_len(state.kind())];
    assert!(state.encode(&mut bytes));
    assert!(DetectorState::decode(&bytes).as_ref() == Some(state), "{:?} {state:?}", state.kind());
    assert_ne!(state.kind(), DetectorKind::Zscore);
}
