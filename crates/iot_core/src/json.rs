//! Reading values out of JSON, and quoting them in messages.

use serde_json::Value;

/// Longest quotation of a JSON value in an error message, in characters.
const EXCERPT_LENGTH: usize = 60;

/// The finite number that `value` stands for: a JSON number, or a string that holds one.
pub(crate) fn finite_number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

/// `value` as JSON text, cut to a length fit for a message.
pub(crate) fn excerpt(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(EXCERPT_LENGTH) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_may_be_strings() {
        assert_eq!(finite_number(&json!(1)), Some(1.0));
        assert_eq!(finite_number(&json!(-1.5e3)), Some(-1500.0));
        assert_eq!(finite_number(&json!("1.5")), Some(1.5));
        for refused in
            [json!("NaN"), json!("inf"), json!("1e999"), json!(""), json!(" 1"), json!(true), json!(null)]
        {
            assert_eq!(finite_number(&refused), None, "{refused}");
        }
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        assert_eq!(excerpt(&json!([1, "a"])), r#"[1,"a"]"#);
        let cut = excerpt(&json!("é".repeat(100)));
        assert_eq!(cut, format!("\"{}...", "é".repeat(59)));
    }
}
