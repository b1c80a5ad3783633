//! Which detectors there are, and what each says of a reading.

use super::{ANOMALY_LIMIT, MAXIMUM_SCORE};

/// A way of telling unusual readings from usual ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DetectorKind {
    /// Standard deviations from the mean of the last 24 hours.
    Zscore,
    /// Distance from the median in median absolute deviations of the last readings.
    Robust,
    /// Distance from an exponentially weighted mean.
    Ewma,
    /// Distance from what is usual at this hour of the day and of the week.
    Seasonal,
    /// Several slow experts, each calibrated to its own past, whose surprise adds up.
    Adaptive,
}

impl DetectorKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Zscore, Self::Robust, Self::Ewma, Self::Seasonal, Self::Adaptive];

    /// The kind of this name; names are lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Zscore => "zscore",
            Self::Robust => "robust",
            Self::Ewma => "ewma",
            Self::Seasonal => "seasonal",
            Self::Adaptive => "adaptive",
        }
    }
}

/// What a detector says of one reading.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Verdict {
    /// How unusual the reading is, in sigma equivalents, 0 to [`MAXIMUM_SCORE`]. Never NaN.
    ///
    /// A score of s is as improbable as a distance of s standard deviations is in a normal distribution.
    pub score: f64,
    /// Whether the score is above [`ANOMALY_LIMIT`].
    pub is_anomaly: bool,
    /// Whether an anomalous episode starts here: worth an alert, unlike the rest of the episode.
    pub is_onset: bool,
    /// Whether the detector has seen too little to be useful.
    pub learning: bool,
}

impl Verdict {
    /// Nothing to say yet.
    pub(super) const LEARNING: Self = Self { score: 0.0, is_anomaly: false, is_onset: false, learning: true };

    /// The verdict for a score, apart from the episode.
    pub(super) fn of_score(score: f64) -> Self {
        // A comparison with NaN would keep it; `clamp` does too, so it is taken out first.
        let score = if score.is_nan() { MAXIMUM_SCORE } else { score.clamp(0.0, MAXIMUM_SCORE) };
        Self { score, is_anomaly: score > ANOMALY_LIMIT, is_onset: false, learning: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_kind() {
        for kind in DetectorKind::ALL {
            assert_eq!(DetectorKind::from_name(kind.as_str()), Some(kind));
        }
        for name in ["", "Zscore", "zscore ", "none"] {
            assert_eq!(DetectorKind::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_score_is_never_nan_and_never_out_of_range() {
        for (score, expected, is_anomaly) in [
            (-1.0, 0.0, false),
            (3.0, 3.0, false),
            (3.1, 3.1, true),
            (9.0, 5.0, true),
            (f64::NAN, 5.0, true),
            (f64::INFINITY, 5.0, true),
        ] {
            let verdict = Verdict::of_score(score);
            assert_eq!((verdict.score, verdict.is_anomaly), (expected, is_anomaly), "{score}");
        }
    }
}
