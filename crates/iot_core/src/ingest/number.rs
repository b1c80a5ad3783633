//! Numbers in text, wherever a reading brings one.

use std::fmt;

/// Longest quotation of a text in a message, in characters.
const EXCERPT_LENGTH: usize = 60;

/// The number that `text` is: decimal, with a point, a sign and an exponent where wanted, white space around it; or `NaN`,
/// `inf` or `infinity`, the latter two with a sign where wanted, in any case of letters.
///
/// That is what PostgreSQL reads as `double precision`, without the hexadecimal numbers that it takes on some platforms: a
/// device that sends `0x1F` does not mean a measured value.
///
/// # Errors
/// For other text, and for numbers that double precision cannot hold: so large that they would become infinite, or so small
/// that they would become 0.
pub fn parse_number(text: &str) -> Result<f64, NumberError> {
    let trimmed =
        text.trim_matches(|character: char| character.is_ascii_whitespace() || character == '\u{b}');
    let unsigned = trimmed.strip_prefix(['+', '-']).unwrap_or(trimmed);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.strip_prefix(['+', '-']).unwrap_or(exponent)),
        None => (unsigned, "0"),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_decimal = all_digits(whole)
        && all_digits(fraction)
        && all_digits(exponent)
        && !exponent.is_empty()
        && whole.len() + fraction.len() > 0;
    if !is_decimal {
        return word(trimmed, unsigned).ok_or_else(|| NumberError::malformed(text));
    }
    let value: f64 = trimmed.parse().map_err(|_| NumberError::malformed(text))?;
    let is_zero = || mantissa.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    if value.is_finite() && (value != 0.0 || is_zero()) {
        Ok(value)
    } else {
        Err(NumberError::OutOfRange { found: excerpt(text) })
    }
}

/// What is no number, but has a place among them.
fn word(text: &str, unsigned: &str) -> Option<f64> {
    if text.eq_ignore_ascii_case("nan") {
        return Some(f64::NAN);
    }
    let is_infinite = ["inf", "infinity"].iter().any(|word| unsigned.eq_ignore_ascii_case(word));
    let infinity = if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY };
    is_infinite.then_some(infinity)
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT_LENGTH) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Why a text is not taken as a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NumberError {
    /// It is none.
    Malformed {
        /// The text, or its beginning.
        found: String,
    },
    /// Double precision has no such number.
    OutOfRange {
        /// The text, or its beginning.
        found: String,
    },
}

impl NumberError {
    fn malformed(text: &str) -> Self {
        Self::Malformed { found: excerpt(text) }
    }

    /// It in one word, as `rejected_readings` records it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::OutOfRange { .. } => "out_of_range",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "Write a decimal number with a point, such as 21.5 or -1.5e3.",
            Self::OutOfRange { .. } => "Send 0, or a number between about 5e-324 and 1.7e308.",
        }
    }
}

impl fmt::Display for NumberError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { found } => {
                write!(formatter, "invalid input syntax for type double precision: \"{found}\"")
            }
            Self::OutOfRange { found } => {
                write!(formatter, "\"{found}\" is out of range for type double precision")
            }
        }
    }
}

impl std::error::Error for NumberError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_written() {
        for (text, value) in [
            ("1", 1.0),
            ("-0.5", -0.5),
            ("+5", 5.0),
            ("+1e3", 1000.0),
            ("2E+2", 200.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("007", 7.0),
            ("0e999", 0.0),
            ("1E-3", 0.001),
            ("5e-324", 5e-324),
            (" 5 ", 5.0),
            ("\t5\r\n\u{b}\u{c}", 5.0),
            ("inf", f64::INFINITY),
            ("+Infinity", f64::INFINITY),
            ("-INF", f64::NEG_INFINITY),
        ] {
            assert_eq!(parse_number(text), Ok(value), "{text}");
        }
        assert!(parse_number("-0").unwrap().is_sign_negative());
        assert!(parse_number(" nAn ").unwrap().is_nan());
    }

    #[test]
    fn other_text_is_none() {
        for text in [
            "", " ", ".", "-", "e5", "1e", "1e+", "1e1.5", "1e5e5", "--1", "+-1", "- 1", "1 0", "1,5",
            "1.2.3", "1_000", "0x1F", "0x1p3", "0b1", "1f", "five", "-NaN", "+NaN", "infinite", "\u{661}",
            "\u{a0}5",
        ] {
            assert_eq!(parse_number(text), Err(NumberError::malformed(text)), "{text}");
        }
        for text in ["1e999", "-1e999", "1e-999", " 1e400 "] {
            assert_eq!(parse_number(text), Err(NumberError::OutOfRange { found: text.to_owned() }), "{text}");
        }
    }

    #[test]
    fn messages_quote_the_beginning() {
        let error = parse_number(&"é".repeat(100)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("invalid input syntax for type double precision: \"{}...\"", "é".repeat(EXCERPT_LENGTH))
        );
        assert_eq!(
            parse_number("1e999").unwrap_err().to_string(),
            "\"1e999\" is out of range for type double precision"
        );
    }
}
