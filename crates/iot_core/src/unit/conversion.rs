//! A conversion that was looked up once, for many values.

use super::UnitError;
use super::definition::Unit;

/// How to convert between two units that measure the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversion {
    from: Box<str>,
    to: Box<str>,
    from_unit: Unit,
    to_unit: Unit,
}

impl Conversion {
    pub(super) fn new(from: &str, from_unit: Unit, to: &str, to_unit: Unit) -> Result<Self, UnitError> {
        if from_unit.dimension == to_unit.dimension {
            return Ok(Self { from: from.into(), to: to.into(), from_unit, to_unit });
        }
        Err(UnitError::DifferentDimension {
            from: from.trim().to_owned(),
            from_dimension: from_unit.dimension,
            to: to.trim().to_owned(),
            to_dimension: to_unit.dimension,
        })
    }

    /// Whether it was looked up with these two texts.
    pub fn is_between(&self, from: &str, to: &str) -> bool {
        *self.from == *from && *self.to == *to
    }

    /// `value` as a number of the other unit.
    ///
    /// # Errors
    /// When `value` or the result is not finite.
    pub fn convert(&self, value: f64) -> Result<f64, UnitError> {
        self.checked(Unit::convert, value)
    }

    /// A difference of `value` as a number of the other unit, whatever their zero points.
    ///
    /// # Errors
    /// As for [`convert`](Self::convert).
    pub fn convert_difference(&self, value: f64) -> Result<f64, UnitError> {
        self.checked(Unit::convert_difference, value)
    }

    fn checked(&self, operation: impl Fn(&Unit, f64, &Unit) -> f64, value: f64) -> Result<f64, UnitError> {
        if !value.is_finite() {
            return Err(UnitError::ValueNotFinite { value });
        }
        let result = if self.from_unit == self.to_unit {
            value
        } else {
            operation(&self.from_unit, value, &self.to_unit)
        };
        if result.is_finite() {
            return Ok(result);
        }
        let name = |unit: &str| unit.trim().to_owned();
        Err(UnitError::ResultNotFinite { value, from: name(&self.from), to: name(&self.to) })
    }
}

#[cfg(test)]
mod tests {
    use crate::unit::{conversion, convert, convert_difference};

    #[test]
    fn it_converts_as_the_functions_do() {
        for (from, to) in [("degF", "degC"), ("mm", "m"), (" kWh", "J"), ("degC", "degC")] {
            let looked_up = conversion(from, to).unwrap();
            for value in [-40.0, 0.0, 5.0, 1e300, f64::NAN] {
                assert_eq!(looked_up.convert(value).ok(), convert(value, from, to).ok());
                assert_eq!(
                    looked_up.convert_difference(value).ok(),
                    convert_difference(value, from, to).ok()
                );
            }
        }
    }

    #[test]
    fn it_is_known_by_the_texts_of_its_look_up() {
        let looked_up = conversion("degC", "K ").unwrap();
        assert!(looked_up.is_between("degC", "K "));
        assert!(!looked_up.is_between("degC", "K") && !looked_up.is_between("K ", "degC"));
    }
}
