//! Text: readings of `iot.raw_readings`, and units.

use iot_core::ingest::payload::OfferedTime;
use iot_core::ingest::{parse_number, text as reader};
use iot_core::time::{TimeOfDay, Timestamp};
use iot_core::unit::{self, UnitRegistry};
use serde_json::Value as Json;

use super::input::Input;
use super::json::says_what_to_do;

/// One text for every reader.
pub fn text(data: &[u8]) {
    let text = Input::new(data).text();
    if let Some(uuid) = reader::uuid(text) {
        let digits: String = text.chars().filter(|character| *character != '-').collect();
        assert_eq!(u128::from_str_radix(&digits, 16), Ok(u128::from_be_bytes(uuid)));
    }
    match parse_number(text) {
        // What it takes beyond Rust's own grammar is white space.
        Ok(number) if number.is_finite() => {
            assert_eq!(
                text.trim_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']).parse(),
                Ok(number),
                "{text}"
            );
        }
        Ok(_) => assert!(text.to_ascii_lowercase().contains(['n', 'i']), "{text}"),
        Err(error) => says_what_to_do(&error, error.hint()),
    }
    let at = reader::timestamp(text);
    if let Some(at) = at {
        assert!((Timestamp::EARLIEST..Timestamp::RANGE_END).contains(&at));
        assert_eq!(OfferedTime::from_text(text), OfferedTime::At(at), "{text}");
    }
    if let Some(time) = TimeOfDay::parse(text) {
        assert_eq!(TimeOfDay::parse(&time.to_string()), Some(time));
    }
    if reader::is_plain_json(text) {
        assert!(serde_json::from_str::<Json>(text).is_ok());
    }
    let _ = reader::boolean(text);
}

/// A value, and units separated by line ends: from, to, and the symbol of a new one.
pub fn units(data: &[u8]) {
    let mut input = Input::new(data);
    let (value, factor, offset) = (input.any_f64(), input.any_f64(), input.any_f64());
    let mut lines = input.text().split('\n');
    let (from, to, symbol) =
        (lines.next().unwrap_or(""), lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let mut registry = UnitRegistry::new();
    if let Err(error) = registry.define(symbol, from, factor, offset) {
        says_what_to_do(&error, &error.hint());
    }
    for (from, to) in [(from, to), (from, symbol), (symbol, to), (from, from)] {
        match registry.conversion(from, to) {
            Ok(conversion) => {
                for result in [conversion.convert(value), conversion.convert_difference(value)] {
                    match result {
                        Ok(converted) => assert!(converted.is_finite()),
                        Err(error) => says_what_to_do(&error, &error.hint()),
                    }
                }
            }
            Err(error) => says_what_to_do(&error, &error.hint()),
        }
    }
    match unit::describe(from) {
        Ok(description) => {
            // The best way to write it means the same.
            assert_eq!(unit::describe(&description.symbol).as_ref(), Ok(&description), "{from}");
            assert!(unit::convert(1.0, from, &description.symbol).is_ok_and(|one| (one - 1.0).abs() < 1e-9));
        }
        Err(error) => says_what_to_do(&error, &error.hint()),
    }
}
