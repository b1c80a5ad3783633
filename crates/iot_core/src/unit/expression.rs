//! Reading units: products and quotients of powers.

use super::definition::Unit;
use super::error::{UnitError, excerpt};

/// Longest unit that is read, in bytes.
pub(super) const MAXIMUM_LENGTH: usize = 64;

/// Largest power of a symbol, and with a minus sign the smallest.
const MAXIMUM_POWER: i8 = 9;

/// A symbol that the caller knows: how it is to be written, and its unit.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub symbol: String,
    pub unit: Unit,
}

/// Reads a unit; `find` looks up the symbols.
///
/// All of it may be one symbol, whatever its characters. Else it is cut at `/`, `.`, `*`, `·` and `⋅` into
/// factors: symbols, each with an optional power such as `2`, `-1`, `^2`, `²` or `⁻¹`. A slash divides by the
/// one factor after it, and no product may follow, because `W/m2.K` is read both ways by different people.
pub(super) fn read(text: &str, find: impl Fn(&str) -> Option<Known>) -> Result<Known, UnitError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(UnitError::Empty);
    }
    if text.len() > MAXIMUM_LENGTH {
        return Err(UnitError::TooLong { expression: excerpt(text) });
    }
    if let Some(known) = find(text) {
        return Ok(known);
    }
    let mut product = Known { symbol: String::new(), unit: Unit::ONE };
    let mut divided = false;
    for (operator, factor) in factors(text) {
        let divides = operator == Some('/');
        if divided && !divides {
            return Err(UnitError::ProductAfterDivision { expression: text.to_owned() });
        }
        divided |= divides;
        let (known, power) = read_factor(text, factor.trim(), &find)?;
        if known.unit.is_interval() {
            return Err(UnitError::IntervalInExpression { unit: known.symbol, expression: text.to_owned() });
        }
        product.unit = product
            .unit
            .checked_times_power(&known.unit, if divides { -power } else { power })
            .ok_or_else(|| UnitError::OutOfRange { expression: text.to_owned() })?;
        match operator {
            None => {}
            Some('/') => product.symbol.push('/'),
            Some(_) => product.symbol.push('.'),
        }
        product.symbol.push_str(&written(&known.symbol, power, &find));
    }
    Ok(product)
}

/// A power as it is read again: with `^` where the digits would be taken for a part of the symbol.
fn written(symbol: &str, power: i8, find: &impl Fn(&str) -> Option<Known>) -> String {
    if power == 1 {
        return symbol.to_owned();
    }
    let plain = format!("{symbol}{power}");
    let is_clear = !symbol.ends_with(|character| digit(character).is_some()) && find(&plain).is_none();
    if is_clear { plain } else { format!("{symbol}^{power}") }
}

/// The factors of `text`, each with the operator before it.
fn factors(text: &str) -> impl Iterator<Item = (Option<char>, &str)> {
    let is_operator = |character: char| matches!(character, '/' | '.' | '*' | '\u{b7}' | '\u{22c5}');
    let operators = text.chars().filter(move |character| is_operator(*character)).map(Some);
    [None].into_iter().chain(operators).zip(text.split(is_operator))
}

fn read_factor(
    text: &str,
    factor: &str,
    find: &impl Fn(&str) -> Option<Known>,
) -> Result<(Known, i8), UnitError> {
    if factor.is_empty() {
        return Err(UnitError::MissingFactor { expression: text.to_owned() });
    }
    if let Some(known) = find(factor) {
        return Ok((known, 1));
    }
    let (symbol, power) = split_power(factor);
    let known = find(symbol).ok_or_else(|| UnitError::Unknown {
        unit: symbol.to_owned(),
        expression: text.to_owned(),
        near: Vec::new(),
    })?;
    let power = power_of(power)
        .ok_or_else(|| UnitError::BadPower { power: power.to_owned(), expression: text.to_owned() })?;
    Ok((known, power))
}

/// Cuts a factor into a symbol and its power, which is empty when there is none.
fn split_power(factor: &str) -> (&str, &str) {
    let symbol = match factor.split_once('^') {
        Some((symbol, _)) => symbol,
        None => {
            // Raised digits end where plain ones begin: g0² is the square of g0.
            let without_raised = factor
                .trim_end_matches(|character: char| !character.is_ascii() && digit(character).is_some());
            let symbol = if without_raised.len() < factor.len() {
                without_raised
            } else {
                factor.trim_end_matches(|character: char| character.is_ascii_digit())
            };
            let has_digits = symbol.len() < factor.len();
            let is_sign = |character| matches!(character, '+' | '-' | '\u{2212}' | '\u{207a}' | '\u{207b}');
            symbol.strip_suffix(is_sign).filter(|_| has_digits).unwrap_or(symbol)
        }
    };
    // The symbol is a prefix of the factor, cut between characters.
    if symbol.is_empty() { (factor, "") } else { (symbol, &factor[symbol.len()..]) }
}

/// The number that a power such as `^-2` stands for. `None` for 0 and what is too large.
fn power_of(power: &str) -> Option<i8> {
    if power.is_empty() {
        return Some(1);
    }
    let power = power.strip_prefix('^').unwrap_or(power);
    let negative = power.starts_with(['-', '\u{2212}', '\u{207b}']);
    let digits = power.strip_prefix(['-', '\u{2212}', '\u{207b}', '+', '\u{207a}']).unwrap_or(power);
    let mut characters = digits.chars();
    let magnitude = digit(characters.next()?).filter(|magnitude| (1..=MAXIMUM_POWER).contains(magnitude))?;
    match characters.next() {
        Some(_) => None,
        None => Some(if negative { -magnitude } else { magnitude }),
    }
}

/// The digit that a plain or raised character stands for.
fn digit(character: char) -> Option<i8> {
    Some(match character {
        '0' | '\u{2070}' => 0,
        '1' | '\u{b9}' => 1,
        '2' | '\u{b2}' => 2,
        '3' | '\u{b3}' => 3,
        '4' | '\u{2074}' => 4,
        '5' | '\u{2075}' => 5,
        '6' | '\u{2076}' => 6,
        '7' | '\u{2077}' => 7,
        '8' | '\u{2078}' => 8,
        '9' | '\u{2079}' => 9,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers() {
        for (factor, symbol, power) in [
            ("m", "m", Some(1)),
            ("m2", "m", Some(2)),
            ("m^2", "m", Some(2)),
            ("m-2", "m", Some(-2)),
            ("m^-2", "m", Some(-2)),
            ("m^+2", "m", Some(2)),
            ("m²", "m", Some(2)),
            ("m⁻³", "m", Some(-3)),
            ("m−1", "m", Some(-1)),
            ("g0²", "g0", Some(2)),
            ("g0⁻²", "g0", Some(-2)),
            ("m²3", "m²", Some(3)),
            ("m0", "m", None),
            ("m10", "m", None),
            ("m^", "m", None),
            ("m^x", "m", None),
            ("m^-", "m", None),
            ("m^2^2", "m", None),
            ("m-", "m-", Some(1)),
            ("10", "10", Some(1)),
            ("^2", "^2", Some(1)),
        ] {
            let (found_symbol, found_power) = split_power(factor);
            assert_eq!((found_symbol, power_of(found_power)), (symbol, power), "{factor}");
        }
    }
}
