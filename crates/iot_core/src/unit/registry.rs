//! The units that can be used.

use std::collections::BTreeMap;

use super::UnitError;
use super::conversion::Conversion;
use super::definition::{Definition, Unit};
use super::error::excerpt;
use super::expression::{Known, MAXIMUM_LENGTH, read};
use super::suggestion::near;
use super::table::{TABLE, find, takes_prefixes};

/// The units that can be used: the standard ones, and those that were defined.
///
/// A unit is a symbol or an expression of symbols, at most 64 bytes:
///
/// - Symbols are case-sensitive and may have a prefix of the SI where that is usual: `hPa`, `mA`, `kWh`. Names
///   in words may have one in words: `kilowatt`, `millibar`. Data units also have binary
///   prefixes: `KiB`. What is a symbol as it stands is that, and no combination: `min` is a minute.
/// - Products are written with `.`, `*` or `·`, quotients with `/`, powers as in `m2`, `m^2`, `m²` or `m-2`.
///   Each `/` divides by the one factor after it; a product after it is refused as ambiguous.
/// - Units with a zero point of their own, such as `degC`, stand alone.
#[derive(Clone, Debug, Default)]
pub struct UnitRegistry {
    defined: BTreeMap<String, Unit>,
}

/// What a unit is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitDescription {
    /// How it is best written: the same for all ways to write a symbol.
    pub symbol: String,
    /// The name of what it measures, such as `temperature`; base units for what has no name.
    pub dimension: String,
}

/// A unit in the list of known units. SI value = value × `factor` + `offset`.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownUnit<'a> {
    /// How it is best written.
    pub symbol: &'a str,
    /// Other ways to write it.
    pub aliases: Vec<&'a str>,
    /// The name of what it measures.
    pub dimension: String,
    /// How many SI units a difference of 1 is.
    pub factor: f64,
    /// The SI value of 0 of this unit.
    pub offset: f64,
    /// Whether it may have prefixes.
    pub takes_prefixes: bool,
}

impl UnitRegistry {
    /// The standard units.
    pub const fn new() -> Self {
        Self { defined: BTreeMap::new() }
    }

    /// Adds a unit: a value of it is value × `factor` + `offset` of the unit `base`.
    ///
    /// It takes no prefixes, and can be part of expressions when its zero is that of the SI unit.
    ///
    /// # Errors
    /// When the symbol cannot be read or has a meaning already, the base unit cannot be read, the factor is 0,
    /// or a number is not finite.
    pub fn define(&mut self, symbol: &str, base: &str, factor: f64, offset: f64) -> Result<(), UnitError> {
        if !is_definable(symbol) {
            return Err(UnitError::BadSymbol { symbol: excerpt(symbol) });
        }
        if self.read(symbol).is_ok() {
            return Err(UnitError::AlreadyDefined { symbol: symbol.to_owned() });
        }
        let base = self.read(base)?.unit;
        let unit = Unit { factor: base.factor * factor, ..base };
        if !unit.factor.is_normal() || !factor.is_finite() {
            return Err(UnitError::BadFactor { symbol: symbol.to_owned(), factor });
        }
        let reading_at_reference = if base.is_interval() || offset != 0.0 {
            Some((base.reference_reading() - offset) / factor)
        } else {
            None
        };
        if reading_at_reference.is_some_and(|reading| !reading.is_finite()) {
            return Err(UnitError::BadOffset { symbol: symbol.to_owned(), offset });
        }
        self.defined.insert(symbol.to_owned(), Unit { reading_at_reference, ..unit });
        Ok(())
    }

    /// `value` in unit `from` as a number of the unit `to`.
    ///
    /// # Errors
    /// When a unit cannot be read, the two measure different things, or `value` or the result is not finite.
    pub fn convert(&self, value: f64, from: &str, to: &str) -> Result<f64, UnitError> {
        self.conversion(from, to)?.convert(value)
    }

    /// A difference of `value` in unit `from` as a number of the unit `to`, whatever their zero points.
    ///
    /// # Errors
    /// As for [`convert`](Self::convert).
    pub fn convert_difference(&self, value: f64, from: &str, to: &str) -> Result<f64, UnitError> {
        self.conversion(from, to)?.convert_difference(value)
    }

    /// What converts from one unit to another, for many values.
    ///
    /// # Errors
    /// When a unit cannot be read, or the two measure different things.
    pub fn conversion(&self, from: &str, to: &str) -> Result<Conversion, UnitError> {
        Conversion::new(from, self.read(from)?.unit, to, self.read(to)?.unit)
    }

    /// What `unit` is.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn describe(&self, unit: &str) -> Result<UnitDescription, UnitError> {
        let Known { symbol, unit } = self.read(unit)?;
        Ok(UnitDescription { symbol, dimension: unit.dimension.name() })
    }

    /// The standard units in the order of what they measure, then the defined ones by symbol; without their
    /// combinations with prefixes and each other.
    pub fn known_units(&self) -> impl Iterator<Item = KnownUnit<'_>> {
        let standard = TABLE.iter().map(|definition| KnownUnit {
            aliases: definition.names().skip(1).collect(),
            takes_prefixes: takes_prefixes(definition),
            ..listed(definition.symbol, &definition.unit)
        });
        standard.chain(self.defined.iter().map(|(symbol, unit)| listed(symbol, unit)))
    }

    fn read(&self, text: &str) -> Result<Known, UnitError> {
        read(text, |symbol| self.find(symbol)).map_err(|error| match error {
            UnitError::Unknown { unit, expression, .. } => {
                let near = near(&unit, self.defined.keys().map(String::as_str));
                UnitError::Unknown { unit, expression, near }
            }
            other => other,
        })
    }

    fn find(&self, symbol: &str) -> Option<Known> {
        if let Some(unit) = self.defined.get(symbol) {
            return Some(Known { symbol: symbol.to_owned(), unit: *unit });
        }
        let found = find(symbol)?;
        let Definition { symbol, .. } = found.definition;
        let prefix = found.prefix.map_or("", |prefix| prefix.canonical_symbol());
        Some(Known { symbol: format!("{prefix}{symbol}"), unit: found.unit() })
    }
}

fn listed<'a>(symbol: &'a str, unit: &Unit) -> KnownUnit<'a> {
    KnownUnit {
        symbol,
        aliases: Vec::new(),
        dimension: unit.dimension.name(),
        factor: unit.factor,
        offset: unit.offset(),
        takes_prefixes: false,
    }
}

/// Whether `symbol` begins with a letter and has no character with a meaning in expressions.
fn is_definable(symbol: &str) -> bool {
    let forbidden = |character: char| {
        character.is_whitespace() || character.is_control() || "/.*\u{b7}\u{22c5}^\"\\".contains(character)
    };
    symbol.len() <= MAXIMUM_LENGTH && symbol.starts_with(char::is_alphabetic) && !symbol.contains(forbidden)
}
