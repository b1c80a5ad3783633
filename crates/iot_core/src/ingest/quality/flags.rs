//! The reasons to doubt a reading, and the verdict from them.

use std::ops::{BitOr, BitOrAssign};

/// Reasons to doubt a reading, as a bit mask; none set means valid.
///
/// Masks are stored: a bit keeps its meaning for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct QualityFlags(pub i32);

impl QualityFlags {
    /// Outside the physical range of the sensor.
    pub const OUT_OF_RANGE: Self = Self(1);
    /// Changed faster than the sensor can.
    pub const RATE_OF_CHANGE: Self = Self(2);
    /// Far from the two readings before it, which agreed.
    pub const SPIKE: Self = Self(4);
    /// Constant for longer than is plausible.
    pub const FLATLINE: Self = Self(8);
    /// First reading after a gap.
    pub const GAP: Self = Self(16);
    /// Repeats another reading that is kept as well. Whoever stores readings sets it; no assessment does.
    pub const DUPLICATE: Self = Self(32);
    /// Measured later than the server's clock plus the allowed skew.
    pub const FUTURE: Self = Self(64);
    /// Arrived long after it was measured.
    pub const LATE: Self = Self(128);
    /// The calibration is past its due date.
    pub const STALE_CALIBRATION: Self = Self(256);
    /// Outside the piecewise table of the calibration.
    pub const OUTSIDE_CALIBRATION: Self = Self(512);

    const NAMES: [(Self, &str); 10] = [
        (Self::OUT_OF_RANGE, "out_of_range"),
        (Self::RATE_OF_CHANGE, "rate_of_change"),
        (Self::SPIKE, "spike"),
        (Self::FLATLINE, "flatline"),
        (Self::GAP, "gap"),
        (Self::DUPLICATE, "duplicate"),
        (Self::FUTURE, "future"),
        (Self::LATE, "late"),
        (Self::STALE_CALIBRATION, "stale_calibration"),
        (Self::OUTSIDE_CALIBRATION, "outside_calibration"),
    ];

    /// Whether all flags of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Invalid when out of range, suspect for any other reason, else valid.
    pub fn verdict(self) -> DataQuality {
        if self.contains(Self::OUT_OF_RANGE) {
            DataQuality::Invalid
        } else if self == Self::default() {
            DataQuality::Valid
        } else {
            DataQuality::Suspect
        }
    }

    /// Names of the flags that are set, in order of their bits.
    pub fn reasons(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, name)| name)
    }
}

impl BitOr for QualityFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for QualityFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// How far a reading can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataQuality {
    /// No reason for doubt.
    Valid,
    /// Plausible, but with a reason for doubt.
    Suspect,
    /// Physically impossible.
    Invalid,
}

impl DataQuality {
    /// The name under which it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Suspect => "suspect",
            Self::Invalid => "invalid",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_what_is_stored() {
        let bits = QualityFlags::NAMES.map(|(flag, _)| flag.0);
        assert_eq!(bits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
    }

    #[test]
    fn the_worst_reason_decides() {
        assert_eq!(QualityFlags::default().verdict().as_str(), "valid");
        for (flag, name) in QualityFlags::NAMES {
            let expected = if flag == QualityFlags::OUT_OF_RANGE { "invalid" } else { "suspect" };
            assert_eq!(flag.verdict().as_str(), expected, "{name}");
        }
        assert_eq!((QualityFlags::FUTURE | QualityFlags::OUT_OF_RANGE).verdict(), DataQuality::Invalid);
    }

    #[test]
    fn reasons_in_order_of_bits() {
        let flags = QualityFlags::OUTSIDE_CALIBRATION | QualityFlags::OUT_OF_RANGE;
        assert_eq!(flags.reasons().collect::<Vec<_>>(), ["out_of_range", "outside_calibration"]);
        assert_eq!(QualityFlags::default().reasons().count(), 0);
        assert_eq!(QualityFlags(-1).reasons().count(), QualityFlags::NAMES.len());
    }
}
