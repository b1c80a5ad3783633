//! One-pass statistics against two passes and against statrs, and laws of the score.

use iot_core::detect::{ANOMALY_LIMIT, MAXIMUM_SCORE, Moments, WindowStatistics, score};
use proptest::prelude::*;
use statrs::statistics::Statistics;

/// Readings around a level, as sensors give them: the level may be large against the deviations.
fn readings() -> impl Strategy<Value = Vec<f64>> {
    (-1e6..1e6, 1e-3..1e3, proptest::collection::vec(-1.0..1.0, 2..200)).prop_map(|(level, spread, shape)| {
        let shape: Vec<f64> = shape;
        shape.into_iter().map(|deviation| level + spread * deviation).collect()
    })
}

fn two_passes(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, (squares / (count - 1.0)).sqrt())
}

fn assert_close(found: f64, expected: f64, scale: f64) -> Result<(), TestCaseError> {
    prop_assert!((found - expected).abs() <= 1e-12 * scale, "{found} is not {expected}");
    Ok(())
}

fn assert_statistics_of(found: &WindowStatistics, values: &[f64]) -> Result<(), TestCaseError> {
    let (mean, stddev_samp) = two_passes(values);
    let magnitude = values.iter().fold(1.0_f64, |magnitude, value| magnitude.max(value.abs()));
    // Rounding of n values of this magnitude reaches the deviation through the mean.
    let scale = magnitude * values.len() as f64;
    prop_assert_eq!(found.count, values.len() as u64);
    assert_close(found.mean, mean, scale)?;
    assert_close(found.mean, Statistics::mean(values), scale)?;
    assert_close(found.stddev_samp, stddev_samp, scale)?;
    assert_close(found.stddev_samp, Statistics::std_dev(values), scale)?;
    prop_assert_eq!(found.minimum, Statistics::min(values));
    prop_assert_eq!(found.maximum, Statistics::max(values));
    Ok(())
}

proptest! {
    #[test]
    fn one_pass_equals_two(values in readings()) {
        let moments: Moments = values.iter().copied().collect();
        assert_statistics_of(&moments.statistics(), &values)?;
    }

    #[test]
    fn merged_parts_equal_the_whole(
        values in readings(),
        cuts in proptest::collection::vec(0..200_usize, 0..6),
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(values.len())).collect();
        cuts.extend([0, values.len()]);
        cuts.sort_unstable();
        let parts = || cuts.windows(2).map(|cut| values[cut[0]..cut[1]].iter().copied().collect::<Moments>());
        let forward = parts().fold(Moments::default(), Moments::merge);
        let backward = parts().rev().fold(Moments::default(), |merged, part| part.merge(merged));
        assert_statistics_of(&forward.statistics(), &values)?;
        assert_statistics_of(&backward.statistics(), &values)?;
    }

    #[test]
    fn merging_is_symmetric(left in readings(), right in readings()) {
        let [left, right] = [left, right].map(|values| values.into_iter().collect::<Moments>());
        prop_assume!(left.count != right.count);
        prop_assert_eq!(left.merge(right), right.merge(left));
    }

    #[test]
    fn no_finite_numbers_make_nan(
        values in proptest::collection::vec(any::<f64>(), 0..50),
        value in any::<f64>(),
    ) {
        let finite = values.iter().copied().filter(|value| value.is_finite());
        let (left, right) = finite.clone().partition::<Vec<_>, _>(|value| value.to_bits() % 2 == 0);
        let merged = left.into_iter().collect::<Moments>().merge(right.into_iter().collect());
        for moments in [finite.collect(), merged] {
            let window = moments.statistics();
            prop_assert!(window.mean.is_finite() && !window.stddev_samp.is_nan(), "{window:?}");
            let found = score(value, &window);
            prop_assert!((0.0..=MAXIMUM_SCORE).contains(&found.score));
            prop_assert_eq!(found.is_anomaly, found.score > ANOMALY_LIMIT);
        }
    }

    #[test]
    fn the_score_counts_standard_deviations(values in readings(), sigmas in -10.0..10.0) {
        let window = values.iter().copied().collect::<Moments>().statistics();
        prop_assume!(window.stddev_samp > 1e-3);
        let found = score(window.mean + sigmas * window.stddev_samp, &window);
        let expected = f64::abs(sigmas).min(MAXIMUM_SCORE);
        // The value itself is rounded at the level of the readings.
        let tolerance = 1e-9 * (1.0 + window.mean.abs() / window.stddev_samp);
        prop_assert!((found.score - expected).abs() < tolerance, "{found:?} is not {expected}");
    }

    #[test]
    fn farther_is_never_less_unusual(values in readings(), near in 0.0..1e4, farther in 0.0..1e4) {
        let window = values.iter().copied().collect::<Moments>().statistics();
        let at = |distance: f64| score(window.mean + distance, &window).score;
        prop_assert!(at(near) <= at(near + farther));
    }
}
