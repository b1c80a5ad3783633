//! From characters to tokens.

use super::expression_error::{ExpressionError, ExpressionProblem};
use super::function::Function;

/// Words that are neither inputs nor functions.
const KEYWORDS: [&str; 6] = ["and", "or", "not", "true", "false", "pi"];

/// The smallest unit of an expression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Number(f64),
    Name(&'a str),
    /// An operator, a parenthesis, a comma or, as spelled in lower case, a keyword.
    Symbol(&'static str),
    End,
}

impl Token<'_> {
    /// The token as it should appear in a message.
    pub(super) fn describe(self, text: &str) -> String {
        if self == Token::End { "its end".to_owned() } else { format!("\"{text}\"") }
    }
}

/// A token and where it stands, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed<'a> {
    pub token: Token<'a>,
    pub start: usize,
    pub end: usize,
}

const SYMBOLS: [&str; 17] =
    ["<=", ">=", "<>", "!=", "==", "<", ">", "=", "+", "-", "*", "/", "%", "^", "(", ")", ","];

/// Whether `name` can stand for an input: ASCII letters, digits and `_`, not beginning with a digit.
pub(in super::super) fn is_identifier(name: &str) -> bool {
    name.starts_with(begins_name) && name.chars().all(continues_name)
}

/// Whether `name` means something already, in any case.
pub(in super::super) fn is_reserved(name: &str) -> bool {
    keyword(name).is_some() || Function::named(name).is_some()
}

fn keyword(name: &str) -> Option<&'static str> {
    KEYWORDS.into_iter().find(|keyword| keyword.eq_ignore_ascii_case(name))
}

fn begins_name(character: char) -> bool {
    character.is_ascii_alphabetic() || character == '_'
}

fn continues_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// The token at or after byte `from`, which is the end of a token or the start of the text.
pub(super) fn next_token(text: &str, from: usize) -> Result<Placed<'_>, ExpressionError> {
    let rest = text[from..].trim_start();
    let start = text.len() - rest.len();
    let placed = |token, length: usize| Placed { token, start, end: start + length };
    let Some(first) = rest.chars().next() else { return Ok(placed(Token::End, 0)) };
    if begins_name(first) {
        let word = &rest[..leading(rest, continues_name)];
        let token = keyword(word).map_or(Token::Name(word), Token::Symbol);
        return Ok(placed(token, word.len()));
    }
    if first.is_ascii_digit() || first == '.' {
        let digits = &rest[..number_length(rest)];
        // What touches a number belongs to it: `1.2.3` and `2x` are mistakes.
        let tail = leading(&rest[digits.len()..], |character| continues_name(character) || character == '.');
        let found = &rest[..digits.len() + tail];
        return match digits.parse::<f64>() {
            Ok(number) if tail == 0 && number.is_finite() => Ok(placed(Token::Number(number), digits.len())),
            _ => {
                let problem = ExpressionProblem::MalformedNumber { found: found.chars().take(40).collect() };
                Err(error_at(text, start, problem))
            }
        };
    }
    match SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
        Some(symbol) => Ok(placed(Token::Symbol(symbol), symbol.len())),
        None => Err(error_at(text, start, ExpressionProblem::UnexpectedCharacter { found: first })),
    }
}

/// The error at a byte of the text.
pub(super) fn error_at(text: &str, byte: usize, problem: ExpressionProblem) -> ExpressionError {
    ExpressionError { character: text[..byte].chars().count() + 1, problem }
}

/// How many bytes at the start of `text` are characters of the given kind.
fn leading(text: &str, kind: impl Fn(char) -> bool) -> usize {
    text.find(|character| !kind(character)).unwrap_or(text.len())
}

/// How many bytes of `text` are digits, a fraction and an exponent.
fn number_length(text: &str) -> usize {
    let digits = |from: usize| from + leading(&text[from..], |character| character.is_ascii_digit());
    let mut end = digits(0);
    if text[end..].starts_with('.') {
        end = digits(end + 1);
    }
    if text[end..].starts_with(['e', 'E']) {
        let sign = usize::from(text[end + 1..].starts_with(['+', '-']));
        let exponent = digits(end + 1 + sign);
        if exponent > end + 1 + sign {
            end = exponent;
        }
    }
    end
}
