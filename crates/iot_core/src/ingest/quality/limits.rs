//! What a sensor's readings are held against.

use serde_json::{Map, Value};

use super::QualityLimitsError;
use crate::json::{excerpt, finite_number};
use crate::time::{MICROS_PER_DAY, MICROS_PER_SECOND, Timestamp};

const MAXIMUM_RATE: &str = "maximum_rate";
const SPIKE_THRESHOLD: &str = "spike_threshold";
const FLATLINE_AFTER_SECONDS: &str = "flatline_after_seconds";
const FLATLINE_TOLERANCE: &str = "flatline_tolerance";
const GAP_AFTER_SECONDS: &str = "gap_after_seconds";
const LATE_AFTER_SECONDS: &str = "late_after_seconds";
const CALIBRATION_VALID_DAYS: &str = "calibration_valid_days";

/// The keys of quality limits.
pub(super) const KNOWN_KEYS: [&str; 7] = [
    MAXIMUM_RATE,
    SPIKE_THRESHOLD,
    FLATLINE_AFTER_SECONDS,
    FLATLINE_TOLERANCE,
    GAP_AFTER_SECONDS,
    LATE_AFTER_SECONDS,
    CALIBRATION_VALID_DAYS,
];

/// The values that a sensor can physically have, in its unit. A missing bound is open.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PhysicalRange {
    /// Smallest possible value.
    pub minimum: Option<f64>,
    /// Largest possible value.
    pub maximum: Option<f64>,
}

impl PhysicalRange {
    /// Whether `value` is possible; the bounds themselves are.
    pub fn contains(&self, value: f64) -> bool {
        self.minimum.is_none_or(|minimum| value >= minimum)
            && self.maximum.is_none_or(|maximum| value <= maximum)
    }
}

/// What the readings of a sensor are held against. What is `None` is not checked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QualityLimits {
    /// The values that are possible, in the unit of the sensor.
    pub physical_range: PhysicalRange,
    /// Largest credible change, in units of the sensor per second.
    pub maximum_rate: Option<f64>,
    /// Largest credible distance from two previous readings that agree, in the unit of the sensor.
    pub spike_threshold: Option<f64>,
    /// How long a value may stay unchanged, in microseconds.
    pub flatline_after: Option<i64>,
    /// Which change counts as none, in the unit of the sensor; `None` is 0.
    pub flatline_tolerance: Option<f64>,
    /// Longest silence between two readings that is no gap, in microseconds.
    pub gap_after: Option<i64>,
    /// Longest time between measurement and receipt that is not late, in microseconds.
    pub late_after: Option<i64>,
    /// From when on the calibration is stale, whatever its age.
    pub calibration_due: Option<Timestamp>,
    /// At which age the calibration becomes stale, in microseconds.
    pub calibration_valid_for: Option<i64>,
}

impl QualityLimits {
    /// Reads a JSON object. All keys are optional, null counts as absent; numbers may also be JSON strings.
    ///
    /// - `maximum_rate`: units of the sensor per second.
    /// - `spike_threshold` and `flatline_tolerance`: in the unit of the sensor.
    /// - `flatline_after_seconds`, `gap_after_seconds`, `late_after_seconds`: seconds, rounded to microseconds.
    /// - `calibration_valid_days`: days of 24 hours since the calibration, rounded to microseconds.
    ///
    /// Times beyond what an `i64` of microseconds holds are never exceeded. The physical range and
    /// `calibration_due` have no key; they stay open.
    ///
    /// # Errors
    /// For anything else, a negative number included, naming the key and the value.
    pub fn from_json(json: &Value) -> Result<Self, QualityLimitsError> {
        let Value::Object(object) = json else {
            return Err(QualityLimitsError::NotAnObject { found: excerpt(json) });
        };
        if let Some(key) = object.keys().find(|key| !KNOWN_KEYS.contains(&key.as_str())) {
            return Err(QualityLimitsError::UnknownKey { key: key.clone() });
        }
        Ok(Self {
            physical_range: PhysicalRange::default(),
            maximum_rate: limit(object, MAXIMUM_RATE)?,
            spike_threshold: limit(object, SPIKE_THRESHOLD)?,
            flatline_after: duration(object, FLATLINE_AFTER_SECONDS, MICROS_PER_SECOND)?,
            flatline_tolerance: limit(object, FLATLINE_TOLERANCE)?,
            gap_after: duration(object, GAP_AFTER_SECONDS, MICROS_PER_SECOND)?,
            late_after: duration(object, LATE_AFTER_SECONDS, MICROS_PER_SECOND)?,
            calibration_due: None,
            calibration_valid_for: duration(object, CALIBRATION_VALID_DAYS, MICROS_PER_DAY)?,
        })
    }
}

fn limit(object: &Map<String, Value>, key: &'static str) -> Result<Option<f64>, QualityLimitsError> {
    let Some(json) = object.get(key).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    match finite_number(json) {
        None => Err(QualityLimitsError::NotANumber { key, found: excerpt(json) }),
        Some(value) if value < 0.0 => Err(QualityLimitsError::Negative { key, value }),
        Some(value) => Ok(Some(value)),
    }
}

/// The value of `key` in microseconds; the cast takes what is too large to the largest `i64`.
fn duration(
    object: &Map<String, Value>,
    key: &'static str,
    micros_per_unit: i64,
) -> Result<Option<i64>, QualityLimitsError> {
    Ok(limit(object, key)?.map(|value| (value * micros_per_unit as f64).round() as i64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ranges_include_their_bounds() {
        let open = PhysicalRange::default();
        let room = PhysicalRange { minimum: Some(-40.0), maximum: Some(85.0) };
        for (value, inside) in [(-40.0, true), (85.0, true), (20.0, true), (-40.1, false), (85.1, false)] {
            assert_eq!(room.contains(value), inside, "{value}");
        }
        assert!(open.contains(f64::MAX));
        assert!(PhysicalRange { minimum: Some(0.0), maximum: None }.contains(1e300));
        assert!(!PhysicalRange { minimum: None, maximum: Some(0.0) }.contains(1.0));
        assert!(!room.contains(f64::NAN));
    }

    #[test]
    fn every_key_sets_its_limit() {
        let limits = QualityLimits::from_json(&json!({
            "maximum_rate": 0.5,
            "spike_threshold": "5",
            "flatline_after_seconds": 3600,
            "flatline_tolerance": 0.01,
            "gap_after_seconds": 0.000_001_4,
            "late_after_seconds": 1e300,
            "calibration_valid_days": 365,
        }));
        let expected = QualityLimits {
            physical_range: PhysicalRange::default(),
            maximum_rate: Some(0.5),
            spike_threshold: Some(5.0),
            flatline_after: Some(3_600_000_000),
            flatline_tolerance: Some(0.01),
            gap_after: Some(1),
            late_after: Some(i64::MAX),
            calibration_due: None,
            calibration_valid_for: Some(365 * MICROS_PER_DAY),
        };
        assert_eq!(limits, Ok(expected));
    }

    #[test]
    fn nothing_is_limited_without_keys() {
        for json in [json!({}), json!({"maximum_rate": null, "gap_after_seconds": null})] {
            assert_eq!(QualityLimits::from_json(&json), Ok(QualityLimits::default()));
        }
    }

    #[test]
    fn refusals_name_key_and_value() {
        for (json, message) in [
            (json!(3), "quality limits must be a JSON object, not 3"),
            (json!({"max_rate": 1}), "unknown quality limit \"max_rate\""),
            (
                json!({"maximum_rate": true}),
                "quality limit \"maximum_rate\" must be a finite number, not true",
            ),
            (
                json!({"spike_threshold": "NaN"}),
                "quality limit \"spike_threshold\" must be a finite number, not \"NaN\"",
            ),
            (
                json!({"gap_after_seconds": [1]}),
                "quality limit \"gap_after_seconds\" must be a finite number, not [1]",
            ),
            (
                json!({"flatline_tolerance": "1e999"}),
                "quality limit \"flatline_tolerance\" must be a finite number, not \"1e999\"",
            ),
            (
                json!({"late_after_seconds": -0.5}),
                "quality limit \"late_after_seconds\" must not be negative, but is -0.5",
            ),
        ] {
            let error = QualityLimits::from_json(&json).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert!(error.hint().ends_with('.'));
        }
        let hint = QualityLimits::from_json(&json!({"rate": 1})).unwrap_err().hint();
        assert!(KNOWN_KEYS.iter().all(|key| hint.contains(key)), "{hint}");
    }
}
