//! The window of a sensor, and the 3-sigma rule against it.

use crate::time::{MICROS_PER_HOUR, MICROS_PER_MINUTE, Timestamp};

/// Step in which the window moves, in microseconds: 30 minutes, aligned to UTC.
pub const SUB_BUCKET: i64 = 30 * MICROS_PER_MINUTE;

/// Length of the window before the sub-bucket of the high-water mark, in microseconds: 24 hours.
pub const WINDOW: i64 = 24 * MICROS_PER_HOUR;

/// Scores above this limit, in standard deviations, are anomalies.
pub const ANOMALY_LIMIT: f64 = 3.0;

/// Scores are capped here.
pub const MAXIMUM_SCORE: f64 = 5.0;

/// First time inside the window of a sensor whose newest reading is at `high_water`.
///
/// It moves in steps of [`SUB_BUCKET`], so the window holds 24 to 24.5 hours. Infinity stays infinity.
pub fn window_start(high_water: Timestamp) -> Timestamp {
    if !high_water.is_finite() {
        return high_water;
    }
    Timestamp(high_water.0.saturating_sub(high_water.0.rem_euclid(SUB_BUCKET)).saturating_sub(WINDOW))
}

/// Statistics of the readings in a window. All zero when there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WindowStatistics {
    /// Number of readings.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation (divisor n − 1); 0 for fewer than two readings.
    pub stddev_samp: f64,
    /// Smallest reading.
    pub minimum: f64,
    /// Largest reading.
    pub maximum: f64,
}

/// How unusual a reading is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AnomalyScore {
    /// Distance from the mean in standard deviations, 0 to [`MAXIMUM_SCORE`]. Never NaN.
    pub score: f64,
    /// Whether the score is above [`ANOMALY_LIMIT`].
    pub is_anomaly: bool,
}

impl AnomalyScore {
    const EXTREME: Self = Self { score: MAXIMUM_SCORE, is_anomaly: true };
}

/// Scores `value` against the readings before it.
///
/// - Fewer than two readings say nothing: 0.
/// - In a constant window any other value is an anomaly: 5. So is a value outside the extremes when the
///   standard deviation is too small for double precision.
/// - Else |value − mean| / standard deviation, capped at 5, and an anomaly when above 3.
pub fn score(value: f64, window: &WindowStatistics) -> AnomalyScore {
    if window.count < 2 {
        return AnomalyScore::default();
    }
    // The extremes of a constant window are exact, while a computed standard deviation may be rounding noise.
    if window.minimum == window.maximum || window.stddev_samp == 0.0 {
        let usual = (window.minimum..=window.maximum).contains(&value);
        return if usual { AnomalyScore::default() } else { AnomalyScore::EXTREME };
    }
    let distance = (value - window.mean).abs();
    let deviation = if distance.is_finite() {
        distance / window.stddev_samp
    } else {
        // The difference of two huge numbers overflows; that of their halves does not.
        (value / 2.0 - window.mean / 2.0).abs() / (window.stddev_samp / 2.0)
    };
    if deviation.is_nan() {
        return AnomalyScore::EXTREME;
    }
    AnomalyScore { score: deviation.min(MAXIMUM_SCORE), is_anomaly: deviation > ANOMALY_LIMIT }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Moments;

    const NOT_FLAGGED: AnomalyScore = AnomalyScore { score: 0.0, is_anomaly: false };

    /// Mean 10, standard deviation 2.
    const USUAL: WindowStatistics =
        WindowStatistics { count: 100, mean: 10.0, stddev_samp: 2.0, minimum: 5.0, maximum: 15.0 };

    #[test]
    fn the_window_moves_in_half_hours() {
        let nine = Timestamp::from_utc_civil(2026, 11, 19).unwrap().0 + 9 * MICROS_PER_HOUR;
        let day_before = nine - WINDOW;
        for (minutes, expected) in [(0, 0), (29, 0), (30, 30), (59, 30)] {
            let high_water = Timestamp(nine + minutes * MICROS_PER_MINUTE);
            assert_eq!(window_start(high_water), Timestamp(day_before + expected * MICROS_PER_MINUTE));
        }
        assert_eq!(window_start(Timestamp(-1)), Timestamp(-SUB_BUCKET - WINDOW));
    }

    #[test]
    fn the_window_of_extreme_times() {
        assert_eq!(window_start(Timestamp::INFINITY), Timestamp::INFINITY);
        assert_eq!(window_start(Timestamp::NEGATIVE_INFINITY), Timestamp::NEGATIVE_INFINITY);
        assert_eq!(window_start(Timestamp(i64::MIN + 1)), Timestamp::NEGATIVE_INFINITY);
    }

    #[test]
    fn fewer_than_two_readings_say_nothing() {
        for count in [0, 1] {
            assert_eq!(score(1e300, &WindowStatistics { count, ..USUAL }), NOT_FLAGGED);
        }
    }

    #[test]
    fn a_constant_window_flags_any_other_value() {
        // Summing 0.1 leaves rounding noise in the mean and in the standard deviation.
        for (mean, stddev_samp) in [(0.1, 0.0), (0.100_000_000_000_000_02, 1.7e-17)] {
            let constant = WindowStatistics { count: 3, mean, stddev_samp, minimum: 0.1, maximum: 0.1 };
            assert_eq!(score(0.1, &constant), NOT_FLAGGED);
            assert_eq!(score(0.100_000_1, &constant), AnomalyScore { score: 5.0, is_anomaly: true });
        }
    }

    #[test]
    fn a_deviation_too_small_for_double_precision() {
        let tiny: Moments = [1e-200, 3e-200].into_iter().collect();
        let window = tiny.statistics();
        assert_eq!(window.stddev_samp, 0.0);
        assert_eq!(score(2e-200, &window), NOT_FLAGGED);
        assert_eq!(score(4e-200, &window), AnomalyScore::EXTREME);
    }

    #[test]
    fn standard_deviations_from_the_mean() {
        for (value, expected, is_anomaly) in [
            (10.0, 0.0, false),
            (13.0, 1.5, false),
            (7.0, 1.5, false),
            (16.0, 3.0, false),
            (16.000_01, 3.000_005, true),
            (4.0, 3.0, false),
            (2.0, 4.0, true),
            (20.0, 5.0, true),
            (1e9, 5.0, true),
        ] {
            let found = score(value, &USUAL);
            assert!((found.score - expected).abs() < 1e-9, "{value}: {found:?}");
            assert_eq!(found.is_anomaly, is_anomaly, "{value}");
        }
    }

    #[test]
    fn huge_values_never_give_nan() {
        let huge = WindowStatistics {
            count: 9,
            mean: -1e308,
            stddev_samp: 1e308,
            minimum: -1.5e308,
            maximum: 1.5e308,
        };
        assert_eq!(score(1.5e308, &huge), AnomalyScore { score: 2.5, is_anomaly: false });
        for value in [f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            for window in [USUAL, huge, WindowStatistics { stddev_samp: f64::INFINITY, ..huge }] {
                assert_eq!(score(value, &window), AnomalyScore::EXTREME);
            }
        }
        let overflowed = WindowStatistics { stddev_samp: f64::INFINITY, ..huge };
        assert_eq!(score(1.5e308, &overflowed), NOT_FLAGGED);
        assert_eq!(score(1.0, &WindowStatistics { mean: f64::NAN, ..USUAL }), AnomalyScore::EXTREME);
        let least =
            WindowStatistics { count: 2, mean: 5e-324, stddev_samp: 5e-324, minimum: 0.0, maximum: 1e-323 };
        assert_eq!(score(5e-324, &least), NOT_FLAGGED);
    }
}
