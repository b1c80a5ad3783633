//! Detectors that are fed whatever is finite.

use iot_core::detect::{
    DetectorKind, DetectorState, Episode, MAXIMUM_SCORE, Verdict, ZscoreWindow, observe_zscore,
};
use iot_core::time::{MICROS_PER_MINUTE, Timestamp};

use super::input::Input;
use super::states::survives;

/// A series of readings: steps of time and values, of which some repeat themselves so that the detectors learn.
pub fn detectors(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = DetectorKind::ALL[usize::from(input.byte()) % DetectorKind::ALL.len()];
    let mut detector = DetectorState::new(kind);
    let (mut window, mut cursor, mut episode) = (ZscoreWindow::default(), None, Episode::default());
    let mut at = input.finite_timestamp();
    let mut readings = 0;
    while !input.is_empty() && readings < 600 {
        let (step, value, times) = (step(&mut input), input.f64(), 1 + input.byte() % 64);
        for number in 0..times {
            at =
                Timestamp(at.0.saturating_add(step).clamp(Timestamp::EARLIEST.0, Timestamp::RANGE_END.0 - 1));
            // Not quite the same each time.
            let value = value + f64::from(number % 7) * value.abs() * 1e-3;
            let value = if value.is_finite() { value } else { f64::MAX };
            let verdict = match &mut detector {
                Some(detector) => {
                    check(&detector.score_late(at, value));
                    let verdict = detector.observe(at, value);
                    assert!(!verdict.learning || !verdict.is_anomaly, "{verdict:?}");
                    verdict
                }
                None => observe_zscore(&mut window, &mut cursor, &mut episode, at, value),
            };
            check(&verdict);
            readings += 1;
        }
        if let Some(detector) = &detector {
            survives(detector);
        }
    }
}

fn step(input: &mut Input<'_>) -> i64 {
    match input.byte() {
        small @ 0..=127 => i64::from(small) * MICROS_PER_MINUTE,
        back @ 128..=159 => -i64::from(back) * MICROS_PER_MINUTE,
        _ => input.micros(),
    }
}

fn check(verdict: &Verdict) {
    assert!((0.0..=MAXIMUM_SCORE).contains(&verdict.score), "{verdict:?}");
    assert!(verdict.is_anomaly || !verdict.is_onset, "{verdict:?}");
}
