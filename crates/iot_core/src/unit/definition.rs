//! What a unit is, and how it is defined in the table.

use super::dimension::Dimension;

/// A unit: what it measures, and how its numbers relate to those of the SI unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Unit {
    pub dimension: Dimension,
    /// How many SI units a difference of 1 is; finite, not 0.
    pub factor: f64,
    /// For units that do not start where the SI unit does, such as degC: the number that they show at the
    /// reference point of their dimension.
    pub reading_at_reference: Option<f64>,
}

impl Unit {
    pub const ONE: Self = Self { dimension: Dimension::NONE, factor: 1.0, reading_at_reference: None };

    /// Whether 0 of this unit is something else than 0 of the SI unit.
    pub fn is_interval(&self) -> bool {
        self.reading_at_reference.is_some()
    }

    /// What the unit shows at the reference point of its dimension.
    pub fn reference_reading(&self) -> f64 {
        self.reading_at_reference.unwrap_or_else(|| self.dimension.reference_point() / self.factor)
    }

    /// The SI value of 0 in this unit.
    pub fn offset(&self) -> f64 {
        self.reading_at_reference
            .map_or(0.0, |reading| self.dimension.reference_point() - reading * self.factor)
    }

    /// The product with `other` to the power of `power`; `None` when it is beyond all numbers.
    pub fn checked_times_power(&self, other: &Self, power: i8) -> Option<Self> {
        let factor = if power < 0 {
            self.factor / other.factor.powi(-i32::from(power))
        } else {
            self.factor * other.factor.powi(i32::from(power))
        };
        let dimension = self.dimension.checked_times_power(other.dimension, power)?;
        factor.is_normal().then_some(Self { dimension, factor, reading_at_reference: None })
    }

    /// `value` in this unit as a number of the unit `to`, which measures the same.
    pub fn convert(&self, value: f64, to: &Self) -> f64 {
        if self.is_interval() || to.is_interval() {
            let from_reference = self.convert_difference(value - self.reference_reading(), to);
            let sum = from_reference + to.reference_reading();
            // What is left of two terms that cancel is a rounding error: absolute zero is 0 K, not -6e-14 K.
            if sum.abs() <= 4.0 * f64::EPSILON * to.reference_reading().abs() { 0.0 } else { sum }
        } else {
            self.convert_difference(value, to)
        }
    }

    /// A difference of `value` in this unit as a number of the unit `to`, which measures the same.
    pub fn convert_difference(&self, value: f64, to: &Self) -> f64 {
        // A whole number is exact, so that 5 mm are 0.005 m to the last digit; its reciprocal rarely is.
        let reciprocal = to.factor / self.factor;
        if reciprocal.fract() == 0.0 && reciprocal != 0.0 {
            value / reciprocal
        } else {
            value * (self.factor / to.factor)
        }
    }
}

/// With which prefixes a unit may be combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prefixes {
    None,
    /// Those of the SI.
    Decimal,
    /// Those of the SI from kilo on, and the binary ones of ISO/IEC 80000-13.
    DataMultiples,
}

/// A unit of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Definition {
    pub symbol: &'static str,
    /// Other symbols, which take the same prefixes.
    pub aliases: &'static [&'static str],
    /// Names in words, which take the prefixes in words.
    pub words: &'static [&'static str],
    pub unit: Unit,
    pub prefixes: Prefixes,
}

impl Definition {
    /// A unit without prefixes, that is `factor` SI units.
    pub const fn new(
        symbol: &'static str,
        aliases: &'static [&'static str],
        words: &'static [&'static str],
        dimension: Dimension,
        factor: f64,
    ) -> Self {
        let unit = Unit { dimension, factor, reading_at_reference: None };
        Self { symbol, aliases, words, unit, prefixes: Prefixes::None }
    }

    pub const fn decimal(self) -> Self {
        Self { prefixes: Prefixes::Decimal, ..self }
    }

    pub const fn data_multiples(self) -> Self {
        Self { prefixes: Prefixes::DataMultiples, ..self }
    }

    /// A unit that shows `reading` at the reference point of its dimension.
    pub const fn showing(mut self, reading: f64) -> Self {
        self.unit.reading_at_reference = Some(reading);
        self
    }

    /// All symbols and names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        [self.symbol].into_iter().chain(self.aliases.iter().copied()).chain(self.words.iter().copied())
    }

    /// All symbols.
    pub fn symbols(&self) -> impl Iterator<Item = &'static str> + use<> {
        [self.symbol].into_iter().chain(self.aliases.iter().copied())
    }
}
