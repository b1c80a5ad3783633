//! Conversion of units: against published factors, and what holds for all of them.

#![allow(clippy::unwrap_used)]

use iot_core::unit::{
    KnownUnit, UnitError, UnitRegistry, convert, convert_difference, describe, known_units,
};
use proptest::prelude::*;

fn assert_close(found: f64, expected: f64, case: &str) {
    assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{case}: {found} is not {expected}");
}

#[test]
fn published_values() {
    for (value, from, to, expected) in [
        // Temperatures, with the fixed points to the last digit.
        (20.0, "degF", "degC", -20.0 / 3.0),
        (32.0, "degF", "degC", 0.0),
        (212.0, "\u{b0}F", "\u{b0}C", 100.0),
        (-40.0, "degC", "degF", -40.0),
        (20.0, "C", "K", 293.15),
        (-459.67, "degF", "K", 0.0),
        (671.67, "degR", "celsius", 100.0),
        (1.0, "K", "degR", 1.8),
        (300.0, "K", "mK", 300_000.0),
        (25_000.0, "mK", "degC", -248.15),
        // Lengths, areas, volumes.
        (1.0, "mi", "km", 1.609_344),
        (5.0, "mm", "m", 0.005),
        (1.0, "nmi", "m", 1852.0),
        (12.0, "inches", "ft", 1.0),
        (1.0, "acre", "m2", 4_046.856_422_4),
        (1.0, "ha", "m²", 1e4),
        (1.0, "ft3", "L", 28.316_846_592),
        (1.0, "gal", "mL", 3_785.411_784),
        (1.0, "gal_imp", "L", 4.546_09),
        (1.0, "m3", "litres", 1000.0),
        // Mass, time, frequency, speed, acceleration.
        (1.0, "lb", "kg", 0.453_592_37),
        (1.0, "t", "kilogram", 1000.0),
        (1.5, "h", "s", 5_400.0),
        (1.0, "d", "min", 1_440.0),
        (250.0, "ms", "s", 0.25),
        (3_000.0, "rpm", "Hz", 50.0),
        (36.0, "km/h", "m/s", 10.0),
        (1.0, "kn", "km/h", 1.852),
        (60.0, "mph", "m/s", 26.8224),
        (11.2, "mm/s", "m/s", 0.0112),
        (1.0, "g0", "m/s2", 9.806_65),
        (1.0, "mg0", "m/s^2", 0.009_806_65),
        // Flow.
        (60.0, "L/min", "m3/h", 3.6),
        (1.0, "gpm", "L/min", 3.785_411_784),
        (1.0, "cfm", "m3/h", 1.699_010_795_52),
        // Pressure: NIST SP 811 gives four to seven digits, the definitions the rest.
        (1.0, "atm", "Pa", 101_325.0),
        (1.0, "bar", "hPa", 1000.0),
        (1.0, "mbar", "hPa", 1.0),
        (1_013.25, "millibar", "kPa", 101.325),
        (1.0, "psi", "Pa", 6_894.757_293_168_361),
        (1.0, "inHg", "Pa", 3_386.388_640_341),
        (760.0, "Torr", "atm", 1.0),
        (1.0, "mmHg", "Pa", 133.322_387_415),
        (1.0, "inH2O", "Pa", 249.088_91),
        (2.0, "MPa", "bar", 20.0),
        (1.0, "N/mm2", "MPa", 1.0),
        // Energy and power.
        (1.0, "kWh", "MJ", 3.6),
        (1.0, "BTU", "J", 1_055.055_852_62),
        (1.0, "kcal", "kJ", 4.184),
        (1.0, "hp", "W", 745.699_871_582_270_2),
        (1.0, "kW*h", "Wh", 1000.0),
        (1.0, "ton_refrigeration", "BTU/h", 12_000.0),
        (1.0, "N.m", "J", 1.0),
        (1.0, "lbf.ft", "Nm", 1.355_817_948_331_400_4),
        (1.0, "kvarh", "var.s", 3_600_000.0),
        // Electricity and magnetism.
        (1.5, "kV", "V", 1500.0),
        (2.0, "A.V", "W", 2.0),
        (2_200.0, "mAh", "A.s", 7_920.0),
        (1.0, "kohm", "k\u{3a9}", 1.0),
        (1_413.0, "\u{b5}S/cm", "mS/cm", 1.413),
        (1.0, "uS/cm", "S/m", 1e-4),
        (1.0, "gauss", "mT", 0.1),
        // Light, radiation, amounts.
        (1.0, "fc", "lx", 10.763_910_416_709_722),
        (1.0, "lm/m2", "lx", 1.0),
        (1.0, "uSv/h", "mrem/h", 0.1),
        (4.0, "pCi/L", "Bq/m3", 148.0),
        (60.0, "cpm", "count/s", 1.0),
        (500.0, "\u{b5}mol/m\u{b2}/s", "umol.m-2.s-1", 500.0),
        (35.0, "\u{b5}g/m3", "ug/m\u{b3}", 35.0),
        (35.0, "\u{3bc}g/m3", "mg/m3", 0.035),
        (8.0, "mg/L", "g/m3", 8.0),
        // Ratios, angles, data.
        (42.0, "%", "ratio", 0.42),
        (55.0, "%RH", "%", 55.0),
        (400.0, "ppm", "%", 0.04),
        (1.0, "ppm", "ppb", 1000.0),
        (180.0, "deg", "rad", std::f64::consts::PI),
        (1.0, "KiB", "B", 1024.0),
        (1.0, "kB", "bit", 8000.0),
        (8.0, "Mbps", "MB/s", 1.0),
        (1.0, "1/min", "mHz", 1000.0 / 60.0),
        (-67.0, "dBm", "dBm", -67.0),
    ] {
        let found = convert(value, from, to).unwrap();
        assert_close(found, expected, &format!("{value} {from} in {to}"));
    }
}

#[test]
fn round_numbers_stay_round() {
    for (value, from, to, expected) in [
        (68.0, "degF", "degC", 20.0),
        (20.0, "degC", "degF", 68.0),
        (5.0, "mm", "m", 0.005),
        (1_500.0, "L/min", "m3/h", 90.0),
        (23.5, "degC", "K", 296.65),
        (1_013.25, "hPa", "kPa", 101.325),
    ] {
        assert_eq!(convert(value, from, to), Ok(expected), "{value} {from} in {to}");
    }
}

#[test]
fn differences_have_no_zero_point() {
    assert_close(convert_difference(9.0, "degF", "degC").unwrap(), 5.0, "degF");
    assert_close(convert_difference(1.0, "degC", "K").unwrap(), 1.0, "degC");
    assert_close(convert_difference(1.0, "bar", "kPa").unwrap(), 100.0, "bar");
}

#[test]
fn spaces_around_symbols_do_not_matter() {
    assert_eq!(convert(36.0, " km / h ", "m\u{b7}s-1"), convert(36.0, "km/h", "m*s^-1"));
}

#[test]
fn descriptions() {
    for (unit, symbol, dimension) in [
        ("celsius", "degC", "temperature"),
        ("kilometres", "km", "length"),
        ("\u{b5}Sv/h", "uSv/h", "dose rate"),
        ("m\u{b3} / h", "m3/h", "volume flow"),
        ("W\u{b7}m\u{207b}\u{b2}", "W.m-2", "irradiance"),
        ("kg", "kg", "mass"),
        ("dB", "dB", "level"),
        ("1", "1", "ratio"),
        ("m/m", "m/m", "ratio"),
        ("g0\u{b2}", "g0^2", "m2.s-4"),
        ("kg/m4", "kg/m4", "m-4.kg"),
    ] {
        let description = describe(unit).unwrap();
        assert_eq!((&description.symbol[..], &description.dimension[..]), (symbol, dimension), "{unit}");
        assert_eq!(describe(symbol), Ok(description));
    }
}

#[test]
fn refusals() {
    let long = "m".repeat(65);
    for (from, to, message) in [
        ("degC", "Pa", "cannot convert \"degC\" to \"Pa\": \"degC\" is a temperature, \"Pa\" is a pressure"),
        ("g", "m/s2", "cannot convert \"g\" to \"m/s2\": \"g\" is a mass, \"m/s2\" is an acceleration"),
        (
            "dBA",
            "dB",
            "cannot convert \"dBA\" to \"dB\": \"dBA\" is an A-weighted sound level, \"dB\" is a level",
        ),
        ("pH", "1", "cannot convert \"pH\" to \"1\": \"pH\" is a pH value, \"1\" is a ratio"),
        ("Bq", "Hz", "cannot convert \"Bq\" to \"Hz\": \"Bq\" is a radioactivity, \"Hz\" is a frequency"),
        ("furlong", "m", "unknown unit \"furlong\""),
        ("m/furlong", "m", "unknown unit \"furlong\" in \"m/furlong\""),
        ("", "m", "unit must not be empty"),
        (" ", "m", "unit must not be empty"),
        ("m//s", "m", "unit \"m//s\" has an operator without a unit beside it"),
        ("/s", "m", "unit \"/s\" has an operator without a unit beside it"),
        ("m.", "m", "unit \"m.\" has an operator without a unit beside it"),
        ("m0", "m", "invalid power \"0\" in unit \"m0\""),
        ("m^12/s", "m", "invalid power \"^12\" in unit \"m^12/s\""),
        ("W/m2.K", "m", "unit \"W/m2.K\" is ambiguous: a product follows a division"),
        ("W/\u{b0}C", "W/K", "unit \"degC\" has a zero point of its own and cannot be part of \"W/\u{b0}C\""),
        ("degC2", "K2", "unit \"degC\" has a zero point of its own and cannot be part of \"degC2\""),
        ("Ym9.Ym9.Ym9", "m", "unit \"Ym9.Ym9.Ym9\" is out of range"),
        (
            "m9.m9.m9.m9.m9.m9.m9.m9.m9.m9.m9.m9.m9.m9.m9",
            "m",
            "unit \"m9.m9.m9.m9.m9.m9.m9.m9.m9.m9.m9.m9.m9.m9.m9\" is out of range",
        ),
        (&long, "m", "unit \"mmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmmm...\" is too long"),
        ("KB", "B", "unknown unit \"KB\""),
        ("kmin", "s", "unknown unit \"kmin\""),
        ("mB", "B", "unknown unit \"mB\""),
    ] {
        let error = convert(1.0, from, to).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(error.hint().ends_with('.') && !error.is_out_of_range());
    }
    assert!(convert(1.0, "KPA", "Pa").unwrap_err().hint().contains("kPa"));
    assert!(convert(1.0, "g", "m/s2").unwrap_err().hint().contains("g0"));
}

#[test]
fn numbers_out_of_range() {
    for (value, from, to, message) in [
        (f64::NAN, "m", "km", "value to convert must be a finite number, not NaN"),
        (f64::INFINITY, "m", "m", "value to convert must be a finite number, not inf"),
        (1e308, "km", "mm", "conversion of 1e308 from \"km\" to \"mm\" is not a finite number"),
    ] {
        let error = convert(value, from, to).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(error.hint().ends_with('.') && error.is_out_of_range());
    }
}

#[test]
fn defined_units() {
    let mut registry = UnitRegistry::new();
    registry.define("tank", "L", 1_250.0, 0.0).unwrap();
    registry.define("degRe", "degC", 1.25, 0.0).unwrap();
    // 4 to 20 mA stand for 0 to 10 bar.
    registry.define("loop_mA", "bar", 0.625, -2.5).unwrap();
    registry.define("half_tank", "tank", 0.5, 0.0).unwrap();
    for (value, from, to, expected) in [
        (2.0, "tank", "m3", 2.5),
        (2.0, "half_tank/h", "L/h", 1_250.0),
        (80.0, "degRe", "degC", 100.0),
        (0.0, "degRe", "degF", 32.0),
        (4.0, "loop_mA", "bar", 0.0),
        (20.0, "loop_mA", "kPa", 1000.0),
        (10.0, "bar", "loop_mA", 20.0),
    ] {
        assert_close(registry.convert(value, from, to).unwrap(), expected, from);
    }
    assert_close(registry.convert_difference(16.0, "loop_mA", "bar").unwrap(), 10.0, "difference");
    assert_eq!(registry.describe("half_tank").unwrap().dimension, "volume");
    assert!(convert(1.0, "tank", "L").is_err());
    let listed: Vec<_> = registry.known_units().filter(|unit| unit.symbol.contains('_')).collect();
    let loop_unit = listed.iter().find(|unit| unit.symbol == "loop_mA").unwrap();
    assert_close(loop_unit.factor, 62_500.0, "factor");
    assert_close(loop_unit.offset, -250_000.0, "offset");

    for (symbol, base, factor, offset, message) in [
        ("tank", "L", 1.0, 0.0, "unit \"tank\" has a meaning already"),
        ("tank2", "m6", 1.0, 0.0, "unit \"tank2\" has a meaning already"),
        ("km", "m", 1.0, 0.0, "unit \"km\" has a meaning already"),
        ("m/s", "m", 1.0, 0.0, "invalid unit symbol \"m/s\""),
        ("", "m", 1.0, 0.0, "invalid unit symbol \"\""),
        ("2x", "m", 1.0, 0.0, "invalid unit symbol \"2x\""),
        ("a b", "m", 1.0, 0.0, "invalid unit symbol \"a b\""),
        ("foo", "bar_", 1.0, 0.0, "unknown unit \"bar_\""),
        ("foo", "m", 0.0, 0.0, "factor of unit \"foo\" must not be 0"),
        ("foo", "m", f64::NAN, 0.0, "factor of unit \"foo\" must not be NaN"),
        ("foo", "m", 1.0, f64::INFINITY, "offset of unit \"foo\" must not be inf"),
        ("foo", "m", 1e-300, 1e300, "offset of unit \"foo\" must not be 1e300"),
    ] {
        let error = registry.define(symbol, base, factor, offset).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(error.hint().ends_with('.'));
    }
    let UnitError::Unknown { near, .. } = registry.describe("tnak").unwrap_err() else { unreachable!() };
    assert_eq!(near, ["tank"; 0]);
    let UnitError::Unknown { near, .. } = registry.describe("tankk").unwrap_err() else { unreachable!() };
    assert_eq!(near, ["tank"]);
}

#[test]
fn every_known_unit_is_what_it_says() {
    let units: Vec<KnownUnit<'_>> = known_units().collect();
    assert!(units.len() > 100);
    for unit in &units {
        for name in unit.aliases.iter().chain([&unit.symbol]) {
            let description = describe(name).unwrap();
            assert_eq!(
                (&description.symbol[..], description.dimension),
                (unit.symbol, unit.dimension.clone())
            );
        }
        assert_eq!(convert(5.0, unit.symbol, unit.symbol), Ok(5.0));
    }
    let fahrenheit = units.iter().find(|unit| unit.symbol == "degF").unwrap();
    assert_close(fahrenheit.offset, 459.67 * 5.0 / 9.0, "degF");
}

fn symbol() -> impl Strategy<Value = String> {
    let symbols: Vec<String> = known_units()
        .filter(|unit| !["degC", "degF"].contains(&unit.symbol))
        .map(|unit| unit.symbol.to_owned())
        .collect();
    proptest::sample::select(symbols)
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,80}", value in any::<f64>()) {
        let _ = convert(value, &text, "m");
        if let Err(error) = describe(&text) {
            prop_assert!(error.hint().ends_with('.') && error.to_string().len() < 1_000);
        }
    }

    #[test]
    fn any_mixture_of_symbols_and_operators_is_read_or_refused(
        parts in proptest::collection::vec(
            prop_oneof![
                symbol(),
                "[0-9]",
                proptest::sample::select(vec![
                    "/", ".", "*", "^", "-", "+", "\u{b7}", "\u{b2}", "\u{207b}", "\u{b5}", "k", " ", "degC", "\u{2126}"
                ]).prop_map(str::to_owned),
            ],
            0..12,
        ),
    ) {
        let text = parts.concat();
        if let Ok(description) = describe(&text) {
            // What describes a unit is that unit.
            prop_assert_eq!(describe(&description.symbol).map(|again| again.dimension), Ok(description.dimension));
            let same = convert(1.0, &text, &description.symbol);
            prop_assert!(same.as_ref().is_ok_and(|one| (one - 1.0).abs() < 1e-9), "{} {:?}", text, same);
        }
    }

    #[test]
    fn any_definition_is_taken_or_refused(
        symbol in ".{0,8}",
        base in symbol(),
        factor in any::<f64>(),
        offset in any::<f64>(),
        value in any::<f64>(),
    ) {
        let mut registry = UnitRegistry::new();
        if registry.define(&symbol, &base, factor, offset).is_ok() {
            prop_assert!(registry.describe(&symbol).is_ok());
            if let Ok(converted) = registry.convert(value, &symbol, &base) {
                prop_assert!(converted.is_finite());
            }
        }
    }

    #[test]
    fn there_and_back(index in 0..1000_usize, other in 0..1000_usize, value in -1e6..1e6) {
        let units: Vec<KnownUnit<'_>> = known_units().collect();
        let from = &units[index % units.len()];
        let same: Vec<_> = units.iter().filter(|unit| unit.dimension == from.dimension).collect();
        let to = same[other % same.len()];
        let there = convert(value, from.symbol, to.symbol).unwrap();
        let back = convert(there, to.symbol, from.symbol).unwrap();
        // Near a zero point digits cancel, as many as the other unit's numbers are larger.
        let scale = value.abs() + (from.offset / from.factor).abs() + (to.offset / from.factor).abs();
        prop_assert!((back - value).abs() <= 1e-12 * scale, "{} {} {back}", from.symbol, to.symbol);
        let listed = (value * from.factor + from.offset - to.offset) / to.factor;
        let scale = there.abs() + ((from.offset.abs() + to.offset.abs()) / to.factor).abs();
        prop_assert!((there - listed).abs() <= 1e-12 * scale, "{} {}", from.symbol, to.symbol);
    }

    #[test]
    fn quotients_convert_like_their_parts(left in symbol(), right in symbol(), value in -1e6..1e6) {
        let quotient = describe(&format!("{left}/{right}")).unwrap();
        let squared = format!("{left}^2/{left}/{right}");
        let found = convert(value, &quotient.symbol, &squared).unwrap();
        prop_assert!((found - value).abs() <= 1e-12 * value.abs());
    }
}
