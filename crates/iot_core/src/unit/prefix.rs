//! Prefixes of units.

use super::definition::Prefixes;

/// A prefix, in front of a symbol and in front of a word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix {
    pub symbol: &'static str,
    pub word: &'static str,
    pub factor: f64,
    binary: bool,
}

impl Prefix {
    /// The symbol, one for all ways to write it: `u` for micro, so that descriptions are ASCII.
    pub fn canonical_symbol(&self) -> &'static str {
        if self.word == "micro" { "u" } else { self.symbol }
    }

    /// Whether units with `prefixes` may have this one.
    pub fn is_among(&self, prefixes: Prefixes) -> bool {
        match prefixes {
            Prefixes::None => false,
            Prefixes::Decimal => !self.binary,
            Prefixes::DataMultiples => self.factor >= 1e3,
        }
    }
}

const fn decimal(symbol: &'static str, word: &'static str, factor: f64) -> Prefix {
    Prefix { symbol, word, factor, binary: false }
}

const fn binary(symbol: &'static str, word: &'static str, factor: f64) -> Prefix {
    Prefix { symbol, word, factor, binary: true }
}

/// SI Brochure, table 7; ISO/IEC 80000-13. Micro is written in three ways.
pub(super) const PREFIXES: [Prefix; 32] = [
    decimal("da", "deca", 1e1),
    decimal("h", "hecto", 1e2),
    decimal("k", "kilo", 1e3),
    decimal("M", "mega", 1e6),
    decimal("G", "giga", 1e9),
    decimal("T", "tera", 1e12),
    decimal("P", "peta", 1e15),
    decimal("E", "exa", 1e18),
    decimal("Z", "zetta", 1e21),
    decimal("Y", "yotta", 1e24),
    decimal("R", "ronna", 1e27),
    decimal("Q", "quetta", 1e30),
    decimal("d", "deci", 1e-1),
    decimal("c", "centi", 1e-2),
    decimal("m", "milli", 1e-3),
    decimal("u", "micro", 1e-6),
    decimal("\u{b5}", "micro", 1e-6),
    decimal("\u{3bc}", "micro", 1e-6),
    decimal("n", "nano", 1e-9),
    decimal("p", "pico", 1e-12),
    decimal("f", "femto", 1e-15),
    decimal("a", "atto", 1e-18),
    decimal("z", "zepto", 1e-21),
    decimal("y", "yocto", 1e-24),
    decimal("r", "ronto", 1e-27),
    decimal("q", "quecto", 1e-30),
    binary("Ki", "kibi", 1024.0),
    binary("Mi", "mebi", 1_048_576.0),
    binary("Gi", "gibi", 1_073_741_824.0),
    binary("Ti", "tebi", 1_099_511_627_776.0),
    binary("Pi", "pebi", 1_125_899_906_842_624.0),
    binary("Ei", "exbi", 1_152_921_504_606_846_976.0),
];
