//! The standard units.
//!
//! SI Brochure: tables 2, 4 and 8. NIST SP 811: appendix B. Where a name has several meanings, it has the one
//! below, or none: `C` is the degree Celsius and not the coulomb, `g` the gram and not the acceleration (`g0`),
//! `pH` the acidity and not the picohenry, `kt` the knot, `gal` and `gpm` are those of the US, `hp` is 550
//! foot pounds-force per second, `cal` the thermochemical and `BTU` the International Table one. Missing on
//! purpose, because too ambiguous: month, year, ton, ppt, KB.

use std::collections::HashMap;
use std::f64::consts::PI;
use std::sync::LazyLock;

use super::definition::{Definition, Prefixes, Unit};
use super::dimension::Dimension as D;
use super::prefix::{PREFIXES, Prefix};

const INCH: f64 = 0.0254;
const FOOT: f64 = 0.3048;
const MILE: f64 = 1609.344;
const NAUTICAL_MILE: f64 = 1852.0;
const POUND: f64 = 0.453_592_37;
const STANDARD_GRAVITY: f64 = 9.806_65;
const POUND_FORCE: f64 = POUND * STANDARD_GRAVITY;
const CUBIC_FOOT: f64 = FOOT * FOOT * FOOT;
const LITRE: f64 = 1e-3;
/// 231 cubic inches.
const GALLON: f64 = 3.785_411_784e-3;
const HOUR: f64 = 3600.0;
const BTU: f64 = 1_055.055_852_62;
/// Density of 13.5951 g/cm3 at standard gravity.
const MILLIMETRE_OF_MERCURY: f64 = 133.322_387_415;
/// Density of 1 g/cm3 at standard gravity.
const MILLIMETRE_OF_WATER: f64 = 9.806_65;
const ATMOSPHERE: f64 = 101_325.0;

/// The units, in the order in which they are listed.
#[rustfmt::skip]
pub(super) static TABLE: &[Definition] = &[
    Definition::new("1", &[], &["ratio", "fraction"], D::NONE, 1.0),
    Definition::new("%", &[], &["percent"], D::NONE, 1e-2),
    Definition::new("%RH", &["%rh"], &[], D::NONE, 1e-2),
    Definition::new("\u{2030}", &[], &["permille"], D::NONE, 1e-3),
    Definition::new("ppm", &["ppmv"], &[], D::NONE, 1e-6),
    Definition::new("ppb", &["ppbv"], &[], D::NONE, 1e-9),

    Definition::new("m", &[], &["metre", "metres", "meter", "meters"], D::LENGTH, 1.0).decimal(),
    Definition::new("in", &["\u{2033}"], &["inch", "inches"], D::LENGTH, INCH),
    Definition::new("ft", &[], &["foot", "feet"], D::LENGTH, FOOT),
    Definition::new("yd", &[], &["yard", "yards"], D::LENGTH, 0.9144),
    Definition::new("mi", &[], &["mile", "miles"], D::LENGTH, MILE),
    Definition::new("nmi", &["NM"], &["nautical_mile", "nautical_miles"], D::LENGTH, NAUTICAL_MILE),
    Definition::new("ha", &[], &["hectare", "hectares"], D::AREA, 1e4),
    Definition::new("acre", &[], &["acres"], D::AREA, 43_560.0 * FOOT * FOOT),
    Definition::new("L", &["l"], &["litre", "litres", "liter", "liters"], D::VOLUME, LITRE).decimal(),
    Definition::new("gal", &["gal_us"], &["gallon", "gallons"], D::VOLUME, GALLON),
    Definition::new("gal_imp", &["gal_uk"], &[], D::VOLUME, 4.546_09e-3),
    Definition::new("fl_oz", &[], &[], D::VOLUME, GALLON / 128.0),
    Definition::new("bbl", &[], &["barrel", "barrels"], D::VOLUME, 42.0 * GALLON),

    Definition::new("g", &[], &["gram", "grams", "gramme", "grammes"], D::MASS, 1e-3).decimal(),
    Definition::new("t", &[], &["tonne", "tonnes"], D::MASS, 1e3),
    Definition::new("lb", &["lbs"], &["pound", "pounds"], D::MASS, POUND),
    Definition::new("oz", &[], &["ounce", "ounces"], D::MASS, POUND / 16.0),

    Definition::new("s", &["sec"], &["second", "seconds"], D::TIME, 1.0).decimal(),
    Definition::new("min", &[], &["minute", "minutes"], D::TIME, 60.0),
    Definition::new("h", &["hr"], &["hour", "hours"], D::TIME, HOUR),
    Definition::new("d", &[], &["day", "days"], D::TIME, 24.0 * HOUR),
    Definition::new("wk", &[], &["week", "weeks"], D::TIME, 168.0 * HOUR),
    Definition::new("Hz", &[], &["hertz"], D::FREQUENCY, 1.0).decimal(),
    Definition::new("rpm", &["RPM", "r/min"], &[], D::FREQUENCY, 1.0 / 60.0),
    Definition::new("bpm", &[], &[], D::FREQUENCY, 1.0 / 60.0),

    Definition::new("K", &[], &["kelvin", "kelvins"], D::TEMPERATURE, 1.0).decimal(),
    Definition::new("degC", &["\u{b0}C", "\u{ba}C", "\u{2103}", "C"], &["celsius", "Celsius"], D::TEMPERATURE, 1.0)
        .showing(0.0),
    Definition::new("degF", &["\u{b0}F", "\u{ba}F", "\u{2109}"], &["fahrenheit", "Fahrenheit"], D::TEMPERATURE, 5.0 / 9.0)
        .showing(32.0),
    Definition::new("degR", &["\u{b0}R"], &["rankine", "Rankine"], D::TEMPERATURE, 5.0 / 9.0),

    Definition::new("kn", &["kt", "kts"], &["knot", "knots"], D::SPEED, NAUTICAL_MILE / HOUR),
    Definition::new("mph", &[], &[], D::SPEED, MILE / HOUR),
    Definition::new("kph", &["kmh"], &[], D::SPEED, 1000.0 / HOUR),
    Definition::new("g0", &["gn", "g_n", "gee"], &[], D::ACCELERATION, STANDARD_GRAVITY).decimal(),
    Definition::new("lpm", &["LPM"], &[], D::VOLUME_FLOW, LITRE / 60.0),
    Definition::new("gpm", &["GPM"], &[], D::VOLUME_FLOW, GALLON / 60.0),
    Definition::new("cfm", &["CFM"], &[], D::VOLUME_FLOW, CUBIC_FOOT / 60.0),

    Definition::new("N", &[], &["newton", "newtons"], D::FORCE, 1.0).decimal(),
    Definition::new("kgf", &["kp"], &[], D::FORCE, STANDARD_GRAVITY),
    Definition::new("lbf", &[], &[], D::FORCE, POUND_FORCE),
    Definition::new("Pa", &[], &["pascal", "pascals"], D::PRESSURE, 1.0).decimal(),
    Definition::new("bar", &[], &["bars"], D::PRESSURE, 1e5).decimal(),
    Definition::new("atm", &[], &["atmosphere", "atmospheres"], D::PRESSURE, ATMOSPHERE),
    Definition::new("psi", &["lbf/in2"], &[], D::PRESSURE, POUND_FORCE / (INCH * INCH)),
    Definition::new("Torr", &["torr"], &[], D::PRESSURE, ATMOSPHERE / 760.0).decimal(),
    Definition::new("mmHg", &[], &[], D::PRESSURE, MILLIMETRE_OF_MERCURY),
    Definition::new("inHg", &[], &[], D::PRESSURE, 25.4 * MILLIMETRE_OF_MERCURY),
    Definition::new("mmH2O", &[], &[], D::PRESSURE, MILLIMETRE_OF_WATER),
    Definition::new("cmH2O", &[], &[], D::PRESSURE, 10.0 * MILLIMETRE_OF_WATER),
    Definition::new("inH2O", &["inWC"], &[], D::PRESSURE, 25.4 * MILLIMETRE_OF_WATER),

    Definition::new("J", &[], &["joule", "joules"], D::ENERGY, 1.0).decimal(),
    Definition::new("Wh", &[], &[], D::ENERGY, HOUR).decimal(),
    Definition::new("Nm", &[], &[], D::ENERGY, 1.0).decimal(),
    Definition::new("cal", &[], &["calorie", "calories"], D::ENERGY, 4.184).decimal(),
    Definition::new("BTU", &["Btu", "BTU_IT"], &[], D::ENERGY, BTU),
    Definition::new("therm", &[], &["therms"], D::ENERGY, 1e5 * BTU),
    Definition::new("eV", &[], &["electronvolt", "electronvolts"], D::ENERGY, 1.602_176_634e-19).decimal(),
    Definition::new("W", &[], &["watt", "watts"], D::POWER, 1.0).decimal(),
    Definition::new("hp", &["HP"], &["horsepower"], D::POWER, 550.0 * FOOT * POUND_FORCE),
    Definition::new("hp_metric", &[], &[], D::POWER, 75.0 * STANDARD_GRAVITY),
    Definition::new("ton_refrigeration", &[], &[], D::POWER, 12_000.0 * BTU / HOUR),
    Definition::new("VA", &[], &["voltampere", "voltamperes"], D::APPARENT_POWER, 1.0).decimal(),
    Definition::new("var", &["VAr", "VAR"], &[], D::REACTIVE_POWER, 1.0).decimal(),
    Definition::new("VAh", &[], &[], D::APPARENT_ENERGY, HOUR).decimal(),
    Definition::new("varh", &["VArh", "VARh"], &[], D::REACTIVE_ENERGY, HOUR).decimal(),
    Definition::new("P", &[], &["poise"], D::VISCOSITY, 0.1).decimal(),
    Definition::new("St", &[], &["stokes"], D::KINEMATIC_VISCOSITY, 1e-4).decimal(),

    Definition::new("A", &[], &["ampere", "amperes", "amp", "amps"], D::CURRENT, 1.0).decimal(),
    Definition::new("Ah", &[], &[], D::CHARGE, HOUR).decimal(),
    Definition::new("coulomb", &[], &["coulombs"], D::CHARGE, 1.0),
    Definition::new("V", &[], &["volt", "volts"], D::VOLTAGE, 1.0).decimal(),
    Definition::new("ohm", &["\u{3a9}", "\u{2126}", "Ohm"], &["ohms"], D::RESISTANCE, 1.0).decimal(),
    Definition::new("S", &[], &["siemens"], D::CONDUCTANCE, 1.0).decimal(),
    Definition::new("F", &[], &["farad", "farads"], D::CAPACITANCE, 1.0).decimal(),
    Definition::new("H", &[], &["henry", "henries"], D::INDUCTANCE, 1.0).decimal(),
    Definition::new("Wb", &[], &["weber", "webers"], D::MAGNETIC_FLUX, 1.0).decimal(),
    Definition::new("T", &[], &["tesla", "teslas"], D::FLUX_DENSITY, 1.0).decimal(),
    Definition::new("gauss", &[], &[], D::FLUX_DENSITY, 1e-4),

    Definition::new("cd", &[], &["candela", "candelas"], D::LUMINOUS_INTENSITY, 1.0).decimal(),
    Definition::new("lm", &[], &["lumen", "lumens"], D::LUMINOUS_FLUX, 1.0).decimal(),
    Definition::new("lx", &[], &["lux"], D::ILLUMINANCE, 1.0).decimal(),
    Definition::new("fc", &[], &["footcandle", "footcandles"], D::ILLUMINANCE, 1.0 / (FOOT * FOOT)),

    Definition::new("mol", &[], &["mole", "moles"], D::AMOUNT, 1.0).decimal(),
    Definition::new("rad", &[], &["radian", "radians"], D::ANGLE, 1.0).decimal(),
    Definition::new("deg", &["\u{b0}"], &["degree", "degrees"], D::ANGLE, PI / 180.0),
    Definition::new("arcmin", &["\u{2032}"], &[], D::ANGLE, PI / 10_800.0),
    Definition::new("arcsec", &[], &[], D::ANGLE, PI / 648_000.0),
    Definition::new("gon", &[], &[], D::ANGLE, PI / 200.0),
    Definition::new("sr", &[], &["steradian", "steradians"], D::SOLID_ANGLE, 1.0),

    Definition::new("Bq", &[], &["becquerel", "becquerels"], D::RADIOACTIVITY, 1.0).decimal(),
    Definition::new("Ci", &[], &["curie", "curies"], D::RADIOACTIVITY, 3.7e10).decimal(),
    Definition::new("Gy", &[], &["gray", "grays"], D::ABSORBED_DOSE, 1.0).decimal(),
    Definition::new("Sv", &[], &["sievert", "sieverts"], D::DOSE_EQUIVALENT, 1.0).decimal(),
    Definition::new("rem", &[], &[], D::DOSE_EQUIVALENT, 1e-2).decimal(),
    Definition::new("count", &["cnt", "pcs"], &["counts", "pulse", "pulses"], D::COUNT, 1.0),
    Definition::new("cps", &[], &[], D::COUNT_RATE, 1.0),
    Definition::new("cpm", &[], &[], D::COUNT_RATE, 1.0 / 60.0),

    Definition::new("bit", &["b"], &["bits"], D::INFORMATION, 1.0).data_multiples(),
    Definition::new("B", &[], &["byte", "bytes"], D::INFORMATION, 8.0).data_multiples(),
    Definition::new("bps", &[], &[], D::DATA_RATE, 1.0).data_multiples(),

    Definition::new("dB", &[], &["decibel", "decibels"], D::LEVEL, 1.0),
    Definition::new("dBA", &["dB(A)"], &[], D::SOUND_LEVEL_A, 1.0),
    Definition::new("dBC", &["dB(C)"], &[], D::SOUND_LEVEL_C, 1.0),
    Definition::new("dBm", &[], &[], D::SIGNAL_LEVEL, 1.0),
    Definition::new("pH", &[], &[], D::ACIDITY, 1.0),
];

/// A unit found by its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub prefix: Option<&'static Prefix>,
    pub definition: &'static Definition,
}

impl Found {
    /// The unit with its prefix.
    pub fn unit(&self) -> Unit {
        let unit = self.definition.unit;
        Unit { factor: unit.factor * self.prefix.map_or(1.0, |prefix| prefix.factor), ..unit }
    }
}

static BY_SYMBOL: LazyLock<HashMap<&'static str, &'static Definition>> = LazyLock::new(|| {
    TABLE.iter().flat_map(|definition| definition.symbols().map(move |symbol| (symbol, definition))).collect()
});

static BY_WORD: LazyLock<HashMap<&'static str, &'static Definition>> = LazyLock::new(|| {
    TABLE.iter().flat_map(|definition| definition.words.iter().map(move |word| (*word, definition))).collect()
});

/// The unit with this symbol or name. What is in the table as it stands is that, else it may have a prefix.
pub(super) fn find(name: &str) -> Option<Found> {
    let plain = BY_SYMBOL.get(name).or_else(|| BY_WORD.get(name));
    if let Some(definition) = plain {
        return Some(Found { prefix: None, definition });
    }
    PREFIXES.iter().find_map(|prefix| {
        let by_symbol = name.strip_prefix(prefix.symbol).and_then(|rest| BY_SYMBOL.get(rest));
        // Some symbols are words: millibar, kilobit, kiloohm.
        let by_word = || {
            let rest = name.strip_prefix(prefix.word)?;
            BY_WORD.get(rest).or_else(|| BY_SYMBOL.get(rest).filter(|_| rest.len() >= 3))
        };
        let definition = by_symbol.or_else(by_word).filter(|found| prefix.is_among(found.prefixes))?;
        Some(Found { prefix: Some(prefix), definition })
    })
}

/// Whether a unit with these prefixes takes any.
pub(super) fn takes_prefixes(definition: &Definition) -> bool {
    definition.prefixes != Prefixes::None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_there_once() {
        let mut names: Vec<_> = TABLE.iter().flat_map(Definition::names).collect();
        names.sort_unstable();
        let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }

    /// What can be read as a prefix and a unit, but is something else.
    #[test]
    fn names_that_hide_others() {
        let mut hidden = Vec::new();
        for definition in TABLE {
            for prefix in PREFIXES.iter().filter(|prefix| prefix.is_among(definition.prefixes)) {
                for symbol in definition.symbols() {
                    let name = format!("{}{symbol}", prefix.symbol);
                    let found = find(&name).unwrap();
                    let same_prefix = found.prefix.is_some_and(|found| found.word == prefix.word);
                    if !same_prefix || found.definition.symbol != definition.symbol {
                        hidden.push(name);
                    }
                }
            }
        }
        hidden.sort_unstable();
        assert_eq!(hidden, ["pH"]);
    }

    #[test]
    fn factors_are_usable() {
        for definition in TABLE {
            let Unit { factor, .. } = definition.unit;
            assert!(factor.is_normal() && factor > 0.0, "{}", definition.symbol);
        }
    }
}
