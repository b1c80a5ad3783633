//! Moving averages and differences against the definition, over all readings so far.

#![allow(clippy::unwrap_used)]

use iot_core::processing::{Operation, Per, ProcessingState, StateError, Window};
use iot_core::time::Timestamp;
use proptest::prelude::*;

/// Readings of which some are late and some are of the same time.
fn readings() -> impl Strategy<Value = Vec<(Timestamp, f64)>> {
    let reading = (-3_000..40_000_i64, -1e3..1e3_f64);
    proptest::collection::vec(reading, 0..200).prop_map(|readings| {
        let mut time = -1_000_000;
        let mut next = |step: i64| {
            time += step / 1000 * 1000;
            Timestamp(time)
        };
        readings.into_iter().map(|(step, value)| (next(step), value)).collect()
    })
}

/// The readings in order, each with the result that `result` gives for those so far.
fn expected(
    readings: &[(Timestamp, f64)],
    result: impl Fn(&[(Timestamp, f64)]) -> Option<f64>,
) -> Vec<Option<f64>> {
    let mut in_order: Vec<(Timestamp, f64)> = Vec::new();
    let results = readings.iter().map(|reading| {
        if in_order.last().is_some_and(|newest| reading.0 < newest.0) {
            return None;
        }
        in_order.push(*reading);
        result(&in_order)
    });
    results.collect()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<f64> = values.collect();
    Some(values.iter().sum::<f64>() / values.len() as f64)
}

/// Runs the readings, the state going through bytes after each.
fn found(operation: &Operation, readings: &[(Timestamp, f64)]) -> Vec<Option<f64>> {
    let mut state = ProcessingState::new(operation).unwrap();
    let results = readings.iter().map(|(time, value)| {
        let result = state.observe(*time, *value).unwrap();
        let bytes = state.encode();
        assert!(bytes.len() <= 24 * 1024);
        let decoded = ProcessingState::decode(operation, &bytes).unwrap();
        assert_eq!(decoded, state);
        state = decoded;
        result
    });
    results.collect()
}

fn assert_close(found: &[Option<f64>], expected: &[Option<f64>]) -> Result<(), TestCaseError> {
    prop_assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        match (found, expected) {
            (Some(found), Some(expected)) => prop_assert!((found - expected).abs() < 1e-9 * 1e3),
            _ => prop_assert_eq!(found, expected),
        }
    }
    Ok(())
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (1..=8_usize).prop_map(|limit| Operation::MovingAverage(Window::Readings(limit))),
        (1..=200_000_i64).prop_map(|micros| Operation::MovingAverage(Window::Micros(micros))),
        proptest::sample::select(&[Per::None, Per::Second, Per::Hour][..])
            .prop_map(|per| Operation::Difference { per }),
    ]
}

proptest! {
    #[test]
    fn averages_of_readings(readings in readings(), limit in 1..=30_usize) {
        let expected = expected(&readings, |so_far| {
            mean(so_far.iter().rev().take(limit).map(|reading| reading.1))
        });
        assert_close(&found(&Operation::MovingAverage(Window::Readings(limit)), &readings), &expected)?;
    }

    #[test]
    fn averages_of_time(readings in readings(), micros in 1_000..=300_000_i64) {
        // The window moves in thousandths of its length.
        let step = (micros + 999) / 1000;
        let expected = expected(&readings, |so_far| {
            let start = so_far.last().unwrap().0.0.div_euclid(step) - 999;
            let in_window = so_far.iter().filter(|reading| reading.0.0.div_euclid(step) >= start);
            mean(in_window.map(|reading| reading.1))
        });
        assert_close(&found(&Operation::MovingAverage(Window::Micros(micros)), &readings), &expected)?;
    }

    #[test]
    fn differences(readings in readings()) {
        let of_last_two = |so_far: &[(Timestamp, f64)]| match so_far {
            [.., (before, previous), (time, value)] => Some((time.0 - before.0, value - previous)),
            _ => None,
        };
        let plain = expected(&readings, |so_far| Some(of_last_two(so_far)?.1));
        assert_close(&found(&Operation::Difference { per: Per::None }, &readings), &plain)?;
        let found = found(&Operation::Difference { per: Per::Minute }, &readings);
        let rates = expected(&readings, |so_far| {
            let (elapsed, change) = of_last_two(so_far)?;
            (elapsed > 0).then(|| change / (elapsed as f64 / 60e6))
        });
        prop_assert_eq!(found.len(), rates.len());
        for (found, expected) in found.into_iter().zip(rates) {
            match (found, expected) {
                (Some(found), Some(expected)) => {
                    prop_assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{} {}", found, expected);
                }
                _ => prop_assert_eq!(found, expected),
            }
        }
    }

    #[test]
    fn garbage_is_refused_or_a_state(operation in operation(), bytes in any::<Vec<u8>>()) {
        check_decoded(&operation, &bytes);
    }

    #[test]
    fn damaged_states_are_refused_or_a_state(
        operation in operation(),
        readings in readings(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        length in any::<prop::sample::Index>(),
    ) {
        let mut state = ProcessingState::new(&operation).unwrap();
        for (time, value) in readings {
            state.observe(time, value).unwrap();
        }
        let mut bytes = state.encode();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        check_decoded(&operation, &bytes);
        bytes.truncate(length.index(bytes.len()));
        assert!(ProcessingState::decode(&operation, &bytes).is_err());
    }
}

/// What can be decoded is a state like any other.
fn check_decoded(operation: &Operation, bytes: &[u8]) {
    if let Ok(mut state) = ProcessingState::decode(operation, bytes) {
        assert_eq!(state.encode(), bytes);
        for time in [i64::MIN, -1, 0, i64::MAX] {
            if let Ok(Some(value)) = state.observe(Timestamp(time), 1.0) {
                assert!(value.is_finite());
            }
        }
        assert_eq!(ProcessingState::decode(operation, &state.encode()), Ok(state));
    }
}

#[test]
fn states_of_other_operations() {
    let ten = Operation::MovingAverage(Window::Readings(10));
    let bytes = ProcessingState::new(&ten).unwrap().encode();
    for other in [
        Operation::MovingAverage(Window::Readings(11)),
        Operation::MovingAverage(Window::Micros(10)),
        Operation::Difference { per: Per::None },
        Operation::Clamp { minimum: None, maximum: Some(1.0) },
    ] {
        assert_eq!(ProcessingState::decode(&other, &bytes), Err(StateError::OtherOperation));
    }
    let mut plain = ProcessingState::new(&Operation::Difference { per: Per::None }).unwrap();
    plain.observe(Timestamp(0), 1.0).unwrap();
    let mut rate =
        ProcessingState::decode(&Operation::Difference { per: Per::Second }, &plain.encode()).unwrap();
    assert_eq!(rate.observe(Timestamp(500_000), 2.0), Ok(Some(2.0)));
    assert_eq!(ProcessingState::decode(&ten, &[]), Err(StateError::Malformed));
}

#[test]
fn huge_values() {
    for window in [Window::Readings(10), Window::Micros(10_000)] {
        let mut state = ProcessingState::new(&Operation::MovingAverage(window)).unwrap();
        for time in 0..5 {
            let mean = state.observe(Timestamp(time / 2), f64::MAX).unwrap().unwrap();
            assert!((mean / f64::MAX - 1.0).abs() < 1e-12);
        }
        assert!(state.observe(Timestamp(5), f64::NAN).is_err());
        let mean = state.observe(Timestamp(5), -f64::MAX).unwrap().unwrap();
        assert!((mean / f64::MAX - 4.0 / 6.0).abs() < 1e-12);
    }
    let mut state = ProcessingState::new(&Operation::Difference { per: Per::Hour }).unwrap();
    assert_eq!(state.observe(Timestamp(0), f64::MAX), Ok(None));
    assert!(state.observe(Timestamp(1), -f64::MAX).is_err());
    assert_eq!(state.observe(Timestamp(2), -f64::MAX), Ok(Some(0.0)), "the reading in error was remembered");
}
