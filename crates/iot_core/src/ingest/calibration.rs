//! Calibration: from the raw value of a device to the physical value.

use serde_json::{Map, Value};

use super::CalibrationError;
use crate::json::{excerpt, finite_number};

/// The keys of a calibration.
pub(super) const KNOWN_KEYS: [&str; 5] = ["multiplier", "offset", "polynomial", "piecewise", "info"];

/// How raw values become physical values: raw × multiplier + offset, then a curve if there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    multiplier: f64,
    offset: f64,
    curve: Curve,
}

/// A calibrated value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibrated {
    /// The physical value; finite.
    pub value: f64,
    /// Whether the scaled value lay outside the piecewise table, whose end value was taken.
    pub extrapolated: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Curve {
    Straight,
    /// Coefficients c0, c1, … of the powers of the scaled value; at least one.
    Polynomial(Vec<f64>),
    /// At least two points in increasing order of `raw`.
    Piecewise(Vec<Point>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    raw: f64,
    value: f64,
}

impl Calibration {
    /// Reads a JSON object. All keys are optional, null counts as absent; numbers may also be JSON strings.
    ///
    /// - `multiplier` (1) and `offset` (0): numbers.
    /// - `polynomial`: array of coefficients c0, c1, … of the scaled value.
    /// - `piecewise`: array of at least two pairs `[scaled, value]`, the scaled values strictly increasing.
    /// - `info`: anything, ignored.
    ///
    /// # Errors
    /// For anything else, naming the key and the value.
    pub fn from_json(json: &Value) -> Result<Self, CalibrationError> {
        let Value::Object(object) = json else {
            return Err(CalibrationError::NotAnObject { found: excerpt(json) });
        };
        if let Some(key) = object.keys().find(|key| !KNOWN_KEYS.contains(&key.as_str())) {
            return Err(CalibrationError::UnknownKey { key: key.clone() });
        }
        let curve = match (present(object, "polynomial"), present(object, "piecewise")) {
            (None, None) => Curve::Straight,
            (Some(coefficients), None) => Curve::Polynomial(parse_coefficients(coefficients)?),
            (None, Some(points)) => Curve::Piecewise(parse_points(points)?),
            (Some(_), Some(_)) => return Err(CalibrationError::TwoCurves),
        };
        Ok(Self {
            multiplier: number_or(object, "multiplier", 1.0)?,
            offset: number_or(object, "offset", 0.0)?,
            curve,
        })
    }

    /// The physical value for `raw`.
    ///
    /// # Errors
    /// When the result, or the scaled value before the curve, is not a finite number.
    pub fn apply(&self, raw: f64) -> Result<Calibrated, CalibrationError> {
        let scaled = raw * self.multiplier + self.offset;
        if !scaled.is_finite() {
            return Err(CalibrationError::NotFinite { raw });
        }
        let calibrated = match &self.curve {
            Curve::Straight => Calibrated { value: scaled, extrapolated: false },
            Curve::Polynomial(coefficients) => {
                // Horner's rule.
                let value =
                    coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * scaled + coefficient);
                Calibrated { value, extrapolated: false }
            }
            Curve::Piecewise(points) => interpolate(points, scaled),
        };
        if calibrated.value.is_finite() { Ok(calibrated) } else { Err(CalibrationError::NotFinite { raw }) }
    }

    /// Whether every value stays as it is.
    pub fn is_identity(&self) -> bool {
        self.multiplier == 1.0 && self.offset == 0.0 && self.curve == Curve::Straight
    }
}

fn interpolate(points: &[Point], scaled: f64) -> Calibrated {
    let end_value = |end: Point| Calibrated { value: end.value, extrapolated: scaled != end.raw };
    match points.binary_search_by(|point| point.raw.total_cmp(&scaled)) {
        Ok(index) => Calibrated { value: points[index].value, extrapolated: false },
        Err(0) => end_value(points[0]),
        Err(index) if index == points.len() => end_value(points[index - 1]),
        Err(index) => {
            let (low, high) = (points[index - 1], points[index]);
            // Halves, because the distance between two huge numbers can overflow.
            let fraction = (scaled / 2.0 - low.raw / 2.0) / (high.raw / 2.0 - low.raw / 2.0);
            Calibrated { value: low.value + fraction * (high.value - low.value), extrapolated: false }
        }
    }
}

/// The value of `key`, unless it is missing or null.
fn present<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

fn number_or(object: &Map<String, Value>, key: &str, neutral: f64) -> Result<f64, CalibrationError> {
    present(object, key).map_or(Ok(neutral), |value| number(key, value))
}

fn number(key: impl Into<String>, value: &Value) -> Result<f64, CalibrationError> {
    finite_number(value)
        .ok_or_else(|| CalibrationError::NotANumber { key: key.into(), found: excerpt(value) })
}

fn parse_coefficients(json: &Value) -> Result<Vec<f64>, CalibrationError> {
    match json.as_array() {
        Some(items) if !items.is_empty() => items
            .iter()
            .enumerate()
            .map(|(index, item)| number(format!("polynomial[{index}]"), item))
            .collect(),
        _ => Err(CalibrationError::NotCoefficients { found: excerpt(json) }),
    }
}

fn parse_points(json: &Value) -> Result<Vec<Point>, CalibrationError> {
    let items = match json.as_array() {
        Some(items) if items.len() >= 2 => items,
        _ => return Err(CalibrationError::NotPoints { found: excerpt(json) }),
    };
    let points = items.iter().enumerate().map(parse_point).collect::<Result<Vec<_>, _>>()?;
    match points.windows(2).position(|pair| pair[0].raw >= pair[1].raw) {
        Some(index) => Err(CalibrationError::NotIncreasing {
            index: index + 1,
            previous: points[index].raw,
            raw: points[index + 1].raw,
        }),
        None => Ok(points),
    }
}

fn parse_point((index, json): (usize, &Value)) -> Result<Point, CalibrationError> {
    match json.as_array().map(Vec::as_slice) {
        Some([raw, value]) => Ok(Point {
            raw: number(format!("piecewise[{index}][0]"), raw)?,
            value: number(format!("piecewise[{index}][1]"), value)?,
        }),
        _ => Err(CalibrationError::NotAPair { index, found: excerpt(json) }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn calibration(json: Value) -> Calibration {
        Calibration::from_json(&json).unwrap()
    }

    fn value(json: Value, raw: f64) -> f64 {
        calibration(json).apply(raw).unwrap().value
    }

    fn refusal(json: Value) -> CalibrationError {
        Calibration::from_json(&json).unwrap_err()
    }

    #[test]
    fn missing_and_null_keys_are_neutral() {
        let nulls =
            json!({"multiplier": null, "offset": null, "polynomial": null, "piecewise": null, "info": null});
        for neutral in
            [json!({}), nulls, json!({"info": {"by": ["lab", 7]}}), json!({"multiplier": "1", "offset": 0})]
        {
            let calibration = calibration(neutral);
            assert!(calibration.is_identity());
            assert_eq!(calibration.apply(-3.25), Ok(Calibrated { value: -3.25, extrapolated: false }));
        }
        for other in [json!({"multiplier": 2}), json!({"offset": 1}), json!({"polynomial": [0, 1]})] {
            assert!(!calibration(other).is_identity());
        }
    }

    #[test]
    fn multiplier_then_offset_then_curve() {
        assert_eq!(value(json!({"multiplier": 1.8, "offset": 32}), 100.0), 212.0);
        assert_eq!(value(json!({"multiplier": "2", "offset": "1", "polynomial": ["1", 0, 3]}), 1.0), 28.0);
        assert_eq!(value(json!({"multiplier": 10, "offset": 5, "piecewise": [[0, 0], [100, 1]]}), 2.0), 0.25);
    }

    #[test]
    fn polynomials_of_any_degree() {
        assert_eq!(value(json!({"polynomial": [7]}), 100.0), 7.0);
        assert_eq!(value(json!({"polynomial": [1, 2, 3]}), 2.0), 17.0);
    }

    #[test]
    fn piecewise_tables() {
        let table = calibration(json!({"piecewise": [[0, 10], [10, 20], ["20", "0"]]}));
        for (raw, value, extrapolated) in [
            (-1.0, 10.0, true),
            (0.0, 10.0, false),
            (-0.0, 10.0, false),
            (5.0, 15.0, false),
            (10.0, 20.0, false),
            (15.0, 10.0, false),
            (20.0, 0.0, false),
            (20.5, 0.0, true),
        ] {
            assert_eq!(table.apply(raw), Ok(Calibrated { value, extrapolated }), "{raw}");
        }
    }

    #[test]
    fn negative_zero_is_the_end_of_a_table_that_starts_at_zero() {
        let table = calibration(json!({"offset": "-0", "piecewise": [[0, 1], [1, 2]]}));
        assert_eq!(table.apply(-0.0), Ok(Calibrated { value: 1.0, extrapolated: false }));
    }

    #[test]
    fn a_table_over_the_whole_of_double_precision() {
        let table = calibration(json!({"piecewise": [[-1.5e308, 0], [1.5e308, 1]]}));
        assert_eq!(table.apply(0.0), Ok(Calibrated { value: 0.5, extrapolated: false }));
    }

    #[test]
    fn results_that_are_not_finite() {
        for (json, raw) in [
            (json!({"multiplier": 1e300}), 1e300),
            (json!({"polynomial": [0, 0, 1]}), 1e200),
            // The end value of the table must not hide that the scaled value overflowed.
            (json!({"multiplier": 1e300, "piecewise": [[0, 0], [1, 1]]}), 1e300),
            (json!({"multiplier": 1e300, "polynomial": [5]}), 1e300),
            (json!({"piecewise": [[0, -1.5e308], [1, 1.5e308]]}), 0.5),
            (json!({}), f64::INFINITY),
        ] {
            let error = calibration(json).apply(raw).unwrap_err();
            assert_eq!(error, CalibrationError::NotFinite { raw });
            assert!(error.is_out_of_range());
        }
        assert!(calibration(json!({})).apply(f64::NAN).is_err());
    }

    #[test]
    fn malformed_calibrations_name_key_and_value() {
        for (json, message) in [
            (json!([1]), "calibration must be a JSON object, not [1]"),
            (json!({"multiplyer": 1}), "unknown calibration key \"multiplyer\""),
            (json!({"multiplier": "x"}), "calibration key \"multiplier\" must be a finite number, not \"x\""),
            (json!({"offset": "NaN"}), "calibration key \"offset\" must be a finite number, not \"NaN\""),
            (json!({"offset": true}), "calibration key \"offset\" must be a finite number, not true"),
            (
                json!({"polynomial": 3}),
                "calibration key \"polynomial\" must be a non-empty array of numbers, not 3",
            ),
            (
                json!({"polynomial": []}),
                "calibration key \"polynomial\" must be a non-empty array of numbers, not []",
            ),
            (
                json!({"polynomial": [1, null]}),
                "calibration key \"polynomial[1]\" must be a finite number, not null",
            ),
            (
                json!({"piecewise": [[1, 2]]}),
                "calibration key \"piecewise\" must be an array of at least two pairs, not [[1,2]]",
            ),
            (
                json!({"piecewise": {}}),
                "calibration key \"piecewise\" must be an array of at least two pairs, not {}",
            ),
            (
                json!({"piecewise": [[1, 2], [3]]}),
                "calibration key \"piecewise[1]\" must be a pair [raw, value], not [3]",
            ),
            (
                json!({"piecewise": [[1, 2], [3, "inf"]]}),
                "calibration key \"piecewise[1][1]\" must be a finite number, not \"inf\"",
            ),
            (
                json!({"piecewise": [[1, 2], [3, 4], [3, 5]]}),
                "calibration key \"piecewise[2]\" has raw value 3, which is not greater than 3 before it",
            ),
            (
                json!({"polynomial": [1], "piecewise": [[1, 2], [3, 4]]}),
                "calibration has both \"polynomial\" and \"piecewise\"",
            ),
        ] {
            let error = refusal(json);
            assert_eq!(error.to_string(), message);
            assert!(error.hint().ends_with('.') && !error.is_out_of_range());
        }
        let not_finite = CalibrationError::NotFinite { raw: 1e300 };
        assert_eq!(not_finite.to_string(), "calibration of raw value 1e300 is not a finite number");
        assert!(not_finite.hint().ends_with('.'));
        let hint = refusal(json!({"gain": 1})).hint();
        assert_eq!(hint, "Known keys are multiplier, offset, polynomial, piecewise, info.");
    }
}
