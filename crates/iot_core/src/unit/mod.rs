//! Units of measurement: what they measure, and conversion between those that measure the same.
//!
//! A unit is written as one symbol, such as `degC`, `kWh` or `millibar`, or as an expression of them:
//! `m3/h`, `W/m²`, `kg.m-3`, `umol/m2/s`. See [`UnitRegistry`] for the rules.
//!
//! Definitions and names follow the International Bureau of Weights and Measures, *The International System of
//! Units (SI)*, 9th edition (2019, version 2.01 of 2022 for the prefixes ronna to quecto). Factors of other
//! units are those of A. Thompson and B. N. Taylor, *Guide for the Use of the International System of Units*,
//! NIST Special Publication 811 (2008), appendix B, with all digits of the exact definition where one exists.

mod conversion;
mod definition;
mod dimension;
mod error;
mod expression;
mod prefix;
mod registry;
mod suggestion;
mod table;

pub use conversion::Conversion;
pub use dimension::Dimension;
pub use error::UnitError;
pub use registry::{KnownUnit, UnitDescription, UnitRegistry};

static STANDARD: UnitRegistry = UnitRegistry::new();

/// `value` in unit `from` as a number of the unit `to`, with the standard units.
///
/// # Errors
/// When a unit is unknown, the two measure different things, or `value` or the result is not finite.
pub fn convert(value: f64, from: &str, to: &str) -> Result<f64, UnitError> {
    STANDARD.convert(value, from, to)
}

/// A difference of `value` in unit `from` as a number of the unit `to`, with the standard units.
///
/// It differs from [`convert`] for temperatures: a difference of 9 °F is one of 5 °C.
///
/// # Errors
/// As for [`convert`].
pub fn convert_difference(value: f64, from: &str, to: &str) -> Result<f64, UnitError> {
    STANDARD.convert_difference(value, from, to)
}

/// What converts from one unit to another, with the standard units, for many values.
///
/// # Errors
/// When a unit is unknown, or the two measure different things.
pub fn conversion(from: &str, to: &str) -> Result<Conversion, UnitError> {
    STANDARD.conversion(from, to)
}

/// What a unit is, among the standard units.
///
/// # Errors
/// When the unit is unknown or cannot be read.
pub fn describe(unit: &str) -> Result<UnitDescription, UnitError> {
    STANDARD.describe(unit)
}

/// The standard units, without their combinations with prefixes and each other.
pub fn known_units() -> impl Iterator<Item = KnownUnit<'static>> {
    STANDARD.known_units()
}
