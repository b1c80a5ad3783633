//! Recalibration: what a stored reading becomes under another calibration.

use super::{Calibrated, PhysicalRange, QualityFlags, assess};

/// The reasons that follow from the calibrated value alone; all others stay as they were judged on the way in.
const RECOMPUTED: i32 = QualityFlags::OUT_OF_RANGE.0 | QualityFlags::OUTSIDE_CALIBRATION.0;

/// Differences count up to this, so that no sum of them can leave double precision.
const LARGEST_DIFFERENCE: f64 = 1e150;

/// What is stored of a numeric reading, as far as the calibration decides about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoredReading {
    /// Calibrated value.
    pub value: f64,
    /// Value as the device sent it, where calibration changed it.
    pub raw_value: Option<f64>,
    /// Reasons to doubt it.
    pub quality: QualityFlags,
}

impl StoredReading {
    /// The value as the device sent it.
    pub fn raw(&self) -> f64 {
        self.raw_value.unwrap_or(self.value)
    }

    /// What has to be stored now that its raw value is calibrated anew; `None` when that is there already.
    pub fn recalibrated(&self, calibrated: Calibrated, range: &PhysicalRange) -> Option<Self> {
        let recomputed = assess(calibrated.value, range, false, calibrated.extrapolated);
        let raw = self.raw();
        let new = Self {
            value: calibrated.value,
            raw_value: (raw != calibrated.value).then_some(raw),
            quality: QualityFlags(self.quality.0 & !RECOMPUTED | recomputed.0),
        };
        (new != *self).then_some(new)
    }
}

/// What a recalibration did, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RecalibrationTotals {
    /// Readings looked at.
    pub examined: i64,
    /// Readings that changed.
    pub changed: i64,
    /// New value minus old value, among those that changed.
    pub differences: Option<Differences>,
}

/// Statistics of differences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Differences {
    /// Least.
    pub minimum: f64,
    /// Greatest.
    pub maximum: f64,
    /// Arithmetic mean.
    pub mean: f64,
}

impl RecalibrationTotals {
    /// Counts a reading that stays as it is.
    pub fn count_unchanged(&mut self) {
        self.examined += 1;
    }

    /// Counts a reading that changes.
    pub fn count_changed(&mut self, from: f64, to: f64) {
        self.examined += 1;
        self.changed += 1;
        let difference = (to - from).clamp(-LARGEST_DIFFERENCE, LARGEST_DIFFERENCE);
        // A stored NaN, written by hand, has no distance to anything.
        let difference = if difference.is_nan() { 0.0 } else { difference };
        self.differences = Some(match self.differences {
            None => Differences { minimum: difference, maximum: difference, mean: difference },
            Some(before) => Differences {
                minimum: before.minimum.min(difference),
                maximum: before.maximum.max(difference),
                mean: before.mean + (difference - before.mean) / self.changed as f64,
            },
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ingest::Calibration;

    const RANGE: PhysicalRange = PhysicalRange { minimum: Some(0.0), maximum: Some(100.0) };

    fn stored(value: f64, raw_value: Option<f64>, flags: i32) -> StoredReading {
        StoredReading { value, raw_value, quality: QualityFlags(flags) }
    }

    fn recalibrated(reading: StoredReading, calibration: serde_json::Value) -> Option<StoredReading> {
        let calibration = Calibration::from_json(&calibration).unwrap();
        reading.recalibrated(calibration.apply(reading.raw()).unwrap(), &RANGE)
    }

    #[test]
    fn it_starts_from_the_raw_value_and_keeps_it() {
        let offset = json!({"offset": 5});
        assert_eq!(recalibrated(stored(10.0, None, 0), offset.clone()), Some(stored(15.0, Some(10.0), 0)));
        assert_eq!(
            recalibrated(stored(99.0, Some(10.0), 0), offset.clone()),
            Some(stored(15.0, Some(10.0), 0))
        );
        assert_eq!(recalibrated(stored(15.0, Some(10.0), 0), offset), None);
        // Back to where it came from: the raw value is kept only where it differs.
        assert_eq!(recalibrated(stored(15.0, Some(10.0), 0), json!({})), Some(stored(10.0, None, 0)));
    }

    #[test]
    fn only_what_follows_from_the_value_is_judged_again() {
        let others = QualityFlags::FUTURE.0 | QualityFlags::SPIKE.0;
        assert_eq!(
            recalibrated(stored(10.0, None, others), json!({"offset": 200})),
            Some(stored(210.0, Some(10.0), others | QualityFlags::OUT_OF_RANGE.0))
        );
        assert_eq!(
            recalibrated(stored(210.0, Some(10.0), others | 1), json!({})),
            Some(stored(10.0, None, others))
        );
        let table = json!({"piecewise": [[0, 0], [5, 10]]});
        assert_eq!(
            recalibrated(stored(10.0, None, 0), table.clone()),
            Some(stored(10.0, None, QualityFlags::OUTSIDE_CALIBRATION.0))
        );
        assert_eq!(recalibrated(stored(10.0, None, QualityFlags::OUTSIDE_CALIBRATION.0), table), None);
    }

    #[test]
    fn totals() {
        let mut totals = RecalibrationTotals::default();
        totals.count_unchanged();
        assert_eq!((totals.examined, totals.changed, totals.differences), (1, 0, None));
        for (from, to) in [(1.0, 2.0), (1.0, -3.0), (5.0, 5.0)] {
            totals.count_changed(from, to);
        }
        assert_eq!((totals.examined, totals.changed), (4, 3));
        assert_eq!(totals.differences, Some(Differences { minimum: -4.0, maximum: 1.0, mean: -1.0 }));
        totals.count_changed(f64::NAN, 1.0);
        totals.count_changed(-f64::MAX, f64::MAX);
        let differences = totals.differences.unwrap();
        assert_eq!((differences.minimum, differences.maximum), (-4.0, 1e150));
        assert!(differences.mean.is_finite());
    }
}
