//! The window in fixed space against the readings themselves.

use iot_core::detect::{AnomalyScore, Moments, WindowStatistics, ZscoreWindow, score, window_start};
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

proptest! {
    #[test]
    fn scores_are_those_of_the_raw_readings(arrivals in arrivals()) {
        let (mut naive, mut window) = (Naive::default(), ZscoreWindow::default());
        for (at, value) in arrivals {
            let expected = naive.statistics(at);
            window.advance(at);
            let found = score(value, &window.statistics());
            window.add(at, value);
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
        let mut window = ZscoreWindow::default();
        let mut cursor = window.cursor();
        for (at, value) in arrivals {
            window.advance(at);
            if !cursor.is_current(&window) {
                cursor = window.cursor();
            }
            prop_assert_eq!(cursor.statistics(&window), window.statistics());
            window.add(at, value);
            if !cursor.survives(at) {
                cursor = window.cursor();
            }
            prop_assert_eq!(cursor.statistics(&window), window.statistics());
        }
    }

    #[test]
    fn equal_readings_deviate_by_exactly_zero(
        value in prop_oneof![Just(0.1), Just(1.0 / 3.0), Just(-1e150), Just(5e-324), -1e9..1e9],
        minutes in vec(0..2_000_i64, 2..300),
    ) {
        let mut window = ZscoreWindow::default();
        minutes.into_iter().for_each(|minutes| window.add(Timestamp(minutes * MICROS_PER_MINUTE), value));
        let statistics = window.statistics();
        prop_assert_eq!((statistics.mean, statistics.stddev_samp), (value, 0.0));
        prop_assert_eq!(score(value, &statistics), AnomalyScore::default());
    }
}
