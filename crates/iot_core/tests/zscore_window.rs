//! The window in fixed space against the readings themselves.

#![allow(clippy::unwrap_used)]

use iot_core::detect::{
    AnomalyScore, Moments, SUB_BUCKET, WindowCursor, WindowDelta, WindowStatistics, ZscoreWindow, score,
    window_start,
};
use iot_core::time::{MICROS_PER_MINUTE, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

/// Readings as (minutes after the one before, possibly negative, value): in order, late and after gaps.
fn arrivals() -> impl Strategy<Value = Vec<(Timestamp, f64)>> {
    let step = prop_oneof![
        10 => 0..20_i64,
        2 => -200..0_i64,
        1 => -2_000..-1_000_i64,
        1 => 500..2_500_i64,
    ];
    (-1e4..1e4, vec((step, -1.0..1.0_f64), 1..200)).prop_map(|(level, steps)| {
        let mut minutes = -5_000;
        steps
            .into_iter()
            .map(|(step, deviation)| {
                minutes += step;
                (Timestamp(minutes * MICROS_PER_MINUTE), level + deviation)
            })
            .collect()
    })
}

/// The readings kept as they are.
#[derive(Default)]
struct Naive {
    readings: Vec<(Timestamp, f64)>,
}

impl Naive {
    /// The window of a reading at `at`, before it is added.
    fn statistics(&self, at: Timestamp) -> WindowStatistics {
        let high_water = self.readings.iter().map(|(at, _)| *at).fold(at, Timestamp::max);
        let start = window_start(high_water);
        let inside = self.readings.iter().filter(|(at, _)| *at >= start);
        inside.map(|(_, value)| *value).collect::<Moments>().statistics()
    }
}

fn assert_equal_scores(found: AnomalyScore, expected: AnomalyScore) -> Result<(), TestCaseError> {
    let tolerance = 1e-9 * (1.0 + expected.score);
    prop_assert!((found.score - expected.score).abs() <= tolerance, "{found:?} is not {expected:?}");
    Ok(())
}

fn encoded(window: &ZscoreWindow) -> Vec<u8> {
    let mut bytes = vec![0; ZscoreWindow::ENCODED_LEN];
    assert!(window.encode(&mut bytes));
    bytes
}

proptest! {
    #[test]
    fn scores_are_those_of_the_raw_readings(arrivals in arrivals()) {
        let (mut naive, mut window, mut cursor) = (Naive::default(), ZscoreWindow::new(), WindowCursor::new());
        for (at, value) in arrivals {
            let expected = naive.statistics(at);
            let found = cursor.observe(&mut window, at, value);
            // With a deviation near the rounding of the values, the two sums of squares differ by more.
            if expected.count < 2 || expected.stddev_samp > 1e-2 {
                assert_equal_scores(found, score(value, &expected))?;
            }
            naive.readings.push((at, value));
            prop_assert_eq!(window.statistics().count, naive.statistics(at).count);
        }
    }

    #[test]
    fn the_cursor_says_bit_for_bit_what_the_window_says(arrivals in arrivals()) {
        let (mut window, mut cursor) = (ZscoreWindow::new(), WindowCursor::new());
        for (number, (at, value)) in arrivals.into_iter().enumerate() {
            if number % 3 == 0 {
                window.advance(at);
            }
            prop_assert_eq!(cursor.statistics(&window), window.statistics());
            cursor.add(&mut window, at, value);
            prop_assert_eq!(cursor.statistics(&window), window.statistics());
        }
    }

    #[test]
    fn equal_readings_deviate_by_exactly_zero(
        value in prop_oneof![Just(0.1), Just(1.0 / 3.0), Just(-1e150), Just(5e-324), -1e9..1e9],
        minutes in vec(0..2_000_i64, 2..300),
        other in -1e9..1e9,
    ) {
        let mut window = ZscoreWindow::new();
        let mut deltas = [WindowDelta::new(), WindowDelta::new()];
        for (number, minutes) in minutes.into_iter().enumerate() {
            let at = Timestamp(minutes * MICROS_PER_MINUTE);
            match number % 3 {
                0 => window.add(at, value),
                remainder => deltas[remainder - 1].add(at, value),
            }
        }
        deltas.iter().for_each(|delta| window.merge_delta(delta));
        let statistics = window.statistics();
        prop_assert_eq!((statistics.mean, statistics.stddev_samp), (value, 0.0));
        prop_assert_eq!((statistics.minimum, statistics.maximum), (value, value));
        prop_assert_eq!(window.score(value), AnomalyScore::default());
        if statistics.count >= 2 && other != value {
            prop_assert_eq!(window.score(other), AnomalyScore { score: 5.0, is_anomaly: true });
        }
    }

    #[test]
    fn deltas_of_two_sessions_add_up_in_any_order(
        base in arrivals(),
        left in arrivals(),
        right in arrivals(),
        shift in -3_000..3_000_i64,
    ) {
        let moved = |readings: &[(Timestamp, f64)]| -> Vec<(Timestamp, f64)> {
            readings.iter().map(|(at, value)| (Timestamp(at.0 + shift * MICROS_PER_MINUTE), *value)).collect()
        };
        let (left, right) = (moved(&left), moved(&right));
        let mut window = ZscoreWindow::new();
        base.iter().for_each(|(at, value)| window.add(*at, *value));
        let delta_of = |readings: &[(Timestamp, f64)]| {
            let mut delta = WindowDelta::new();
            readings.iter().for_each(|(at, value)| delta.add(*at, *value));
            delta
        };
        let (first, second) = (delta_of(&left), delta_of(&right));
        let mut expected = window.clone();
        left.iter().chain(&right).for_each(|(at, value)| expected.add(*at, *value));
        let mut forward = window.clone();
        forward.merge_delta(&first);
        forward.merge_delta(&second);
        window.merge_delta(&second);
        window.merge_delta(&first);
        let expected_statistics = expected.statistics();
        for merged in [forward, window] {
            prop_assert_eq!(merged.high_water(), expected.high_water());
            let found = merged.statistics();
            prop_assert_eq!(found.count, expected_statistics.count);
            prop_assert!((found.mean - expected_statistics.mean).abs() <= 1e-9 * 1e4);
            let difference = (found.stddev_samp - expected_statistics.stddev_samp).abs();
            prop_assert!(difference <= 1e-6 * (1.0 + expected_statistics.stddev_samp), "{difference}");
        }
    }

    #[test]
    fn the_byte_form_brings_the_window_back(arrivals in arrivals(), more in arrivals()) {
        let mut window = ZscoreWindow::new();
        arrivals.iter().for_each(|(at, value)| window.add(*at, *value));
        let mut decoded = ZscoreWindow::decode(&encoded(&window)).unwrap();
        for (at, value) in more {
            window.add(at, value);
            decoded.add(at, value);
            prop_assert_eq!(&decoded, &window);
        }
    }

    #[test]
    fn garbage_never_makes_nan(
        mut bytes in vec(any::<u8>(), ZscoreWindow::ENCODED_LEN),
        at in any::<i64>(),
        value in -1e308..1e308,
    ) {
        bytes[0] = 1;
        // Most random doubles are out of range: let some pass.
        for bucket in bytes[9..].chunks_exact_mut(20) {
            bucket[11] = 0x3f;
            bucket[19] = 0x3f;
        }
        let mut window = ZscoreWindow::decode(&bytes).unwrap();
        let mut cursor = WindowCursor::new();
        for step in 0..60 {
            let found = cursor.observe(&mut window, Timestamp(at.saturating_add(step * SUB_BUCKET)), value);
            prop_assert!((0.0..=5.0).contains(&found.score));
            prop_assert_eq!(cursor.statistics(&window), window.statistics());
        }
    }
}

#[test]
fn huge_readings_do_not_overflow_to_nan() {
    let mut window = ZscoreWindow::new();
    for number in 0..1_000 {
        let sign = if number % 2 == 0 { 1.0 } else { -1.0 };
        window.add(Timestamp(number * MICROS_PER_MINUTE), sign * 1e150);
    }
    assert!(window.statistics().stddev_samp.is_finite());
    assert!(window.score(1e150).score < 1.1);
    assert_eq!(ZscoreWindow::decode(&encoded(&window)), Some(window));
}
