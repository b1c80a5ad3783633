//! Calibration against naive implementations.

#![allow(clippy::unwrap_used)]

use iot_core::ingest::Calibration;
use proptest::prelude::*;
use serde_json::json;

fn number() -> impl Strategy<Value = f64> {
    -1e6..1e6
}

/// Points in strictly increasing order of raw value.
fn points() -> impl Strategy<Value = Vec<(f64, f64)>> {
    proptest::collection::vec((0.001..1e3, number()), 2..20).prop_map(|steps| {
        let mut raw = -1e3;
        steps
            .into_iter()
            .map(|(step, value)| {
                raw += step;
                (raw, value)
            })
            .collect()
    })
}

/// Looks at every segment in turn.
fn naive_table(points: &[(f64, f64)], raw: f64) -> (f64, bool) {
    let (first, last) = (points[0], points[points.len() - 1]);
    if raw < first.0 {
        return (first.1, true);
    }
    for pair in points.windows(2) {
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        if (x0..=x1).contains(&raw) {
            return ((y0 * (x1 - raw) + y1 * (raw - x0)) / (x1 - x0), false);
        }
    }
    (last.1, true)
}

fn assert_close(found: f64, expected: f64, scale: f64) -> Result<(), TestCaseError> {
    prop_assert!((found - expected).abs() <= 1e-9 * (1.0 + scale), "{found} is not {expected}");
    Ok(())
}

proptest! {
    #[test]
    fn straight(multiplier in number(), offset in number(), raw in number()) {
        let json = json!({"multiplier": multiplier, "offset": offset});
        let calibrated = Calibration::from_json(&json).unwrap().apply(raw).unwrap();
        prop_assert_eq!(calibrated.value, raw * multiplier + offset);
        prop_assert!(!calibrated.extrapolated);
    }

    #[test]
    fn numbers_and_strings_are_the_same(multiplier in any::<f64>(), offset in any::<f64>()) {
        prop_assume!(multiplier.is_finite() && offset.is_finite());
        let numbers = Calibration::from_json(&json!({"multiplier": multiplier, "offset": offset}));
        let strings = json!({"multiplier": multiplier.to_string(), "offset": offset.to_string()});
        prop_assert_eq!(numbers, Calibration::from_json(&strings));
    }

    #[test]
    fn polynomial(coefficients in proptest::collection::vec(-1e3..1e3, 1..8_usize), raw in -10.0..10.0) {
        let coefficients: Vec<f64> = coefficients;
        let calibration = Calibration::from_json(&json!({"polynomial": coefficients})).unwrap();
        let terms = || (0_i32..).zip(&coefficients).map(|(power, coefficient)| coefficient * f64::powi(raw, power));
        let naive: f64 = terms().sum();
        let scale = terms().map(f64::abs).sum();
        assert_close(calibration.apply(raw).unwrap().value, naive, scale)?;
    }

    #[test]
    fn piecewise(points in points(), raw in -2e3..2e4) {
        let calibration = Calibration::from_json(&json!({"piecewise": points})).unwrap();
        let calibrated = calibration.apply(raw).unwrap();
        let (value, extrapolated) = naive_table(&points, raw);
        assert_close(calibrated.value, value, 1e6)?;
        prop_assert_eq!(calibrated.extrapolated, extrapolated);
    }

    #[test]
    fn the_points_of_a_table_are_exact(points in points()) {
        let calibration = Calibration::from_json(&json!({"piecewise": points})).unwrap();
        for (raw, value) in points {
            let calibrated = calibration.apply(raw).unwrap();
            prop_assert_eq!((calibrated.value, calibrated.extrapolated), (value, false));
        }
    }

    #[test]
    fn what_is_applied_is_finite_or_refused(
        multiplier in any::<f64>(),
        offset in any::<f64>(),
        coefficients in proptest::collection::vec(any::<f64>(), 1..5),
        raw in any::<f64>(),
    ) {
        let json = json!({"multiplier": multiplier, "offset": offset, "polynomial": coefficients});
        if let Ok(calibration) = Calibration::from_json(&json)
            && let Ok(calibrated) = calibration.apply(raw)
        {
            prop_assert!(calibrated.value.is_finite());
        }
    }
}
