//! `convert_unit`: values from one unit of measurement to another, and the list of known units.

use std::cell::RefCell;

use iot_core::unit::{self, Conversion, UnitError};
use pgrx::iter::TableIterator;
use pgrx::{name, pg_extern};

use crate::error::{IotResult, OrRaise};

/// Conversions kept per backend. A query asks for one or two; more than this are looked up again.
const KEPT_CONVERSIONS: usize = 32;

thread_local! {
    /// The last used one stands first. The registry never changes, so nothing here goes stale.
    static CONVERSIONS: RefCell<Vec<Conversion>> = const { RefCell::new(Vec::new()) };
}

/// `value` in unit `from` as a number of the unit `to`.
///
/// # Errors
/// 22023 for an unknown unit, 42804 when the two measure different things, 22003 when `value` or the result is not
/// finite; the reason for a rejected reading is `unit`.
pub fn to_unit(value: f64, from: &str, to: &str) -> IotResult<f64> {
    Ok(with_conversion(from, to, |conversion| conversion.convert(value))?)
}

fn with_conversion(
    from: &str,
    to: &str,
    work: impl Fn(&Conversion) -> Result<f64, UnitError>,
) -> Result<f64, UnitError> {
    CONVERSIONS.with_borrow_mut(|kept| {
        match kept.iter().position(|conversion| conversion.is_between(from, to)) {
            Some(0) => {}
            Some(place) => kept.swap(0, place),
            None => {
                let conversion = unit::conversion(from, to)?;
                kept.truncate(KEPT_CONVERSIONS - 1);
                kept.push(conversion);
                let last = kept.len() - 1;
                kept.swap(0, last);
            }
        }
        work(&kept[0])
    })
}

#[pg_extern(sql = false)]
fn convert_unit(value: f64, from_unit: &str, to_unit: &str) -> f64 {
    self::to_unit(value, from_unit, to_unit).or_raise()
}

#[pg_extern(sql = false)]
fn convert_unit_difference(difference: f64, from_unit: &str, to_unit: &str) -> f64 {
    with_conversion(from_unit, to_unit, |conversion| conversion.convert_difference(difference)).or_raise()
}

#[pg_extern(sql = false)]
#[expect(clippy::type_complexity, reason = "the columns of a SQL function")]
fn known_units() -> TableIterator<
    'static,
    (
        name!(symbol, &'static str),
        name!(aliases, Vec<&'static str>),
        name!(dimension, String),
        name!(factor, f64),
        name!(offset_value, f64),
        name!(takes_prefixes, bool),
    ),
> {
    TableIterator::new(unit::known_units().map(|known| {
        (known.symbol, known.aliases, known.dimension, known.factor, known.offset, known.takes_prefixes)
    }))
}
