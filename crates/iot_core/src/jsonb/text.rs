//! JSON text of values.

use std::fmt::{self, Write};

use super::{Array, ArrayIter, Object, ObjectIter, Value};

/// A container that is being written.
enum Open<'a> {
    Array(ArrayIter<'a>),
    Object(ObjectIter<'a>),
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_value(formatter, *self)
    }
}

impl fmt::Display for Array<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_value(formatter, Value::Array(*self))
    }
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_value(formatter, Value::Object(*self))
    }
}

/// A document may be nested more deeply than the call stack is: what is open is kept on the heap.
fn write_value<'a>(output: &mut impl Write, value: Value<'a>) -> fmt::Result {
    let mut open: Vec<Open<'a>> = Vec::new();
    let mut value = value;
    loop {
        let mut first = false;
        match value {
            Value::Array(array) => {
                output.write_char('[')?;
                open.push(Open::Array(array.iter()));
                first = true;
            }
            Value::Object(object) => {
                output.write_char('{')?;
                open.push(Open::Object(object.iter()));
                first = true;
            }
            scalar => write_scalar(output, scalar)?,
        }
        value = loop {
            let Some(container) = open.last_mut() else { return Ok(()) };
            let next = match container {
                Open::Array(elements) => elements.next().map(|element| (None, element)),
                Open::Object(pairs) => pairs.next().map(|(key, element)| (Some(key), element)),
            };
            if let Some((key, element)) = next {
                if !first {
                    output.write_str(", ")?;
                }
                if let Some(key) = key {
                    write_string(output, key)?;
                    output.write_str(": ")?;
                }
                break element;
            }
            output.write_char(if matches!(container, Open::Array(_)) { ']' } else { '}' })?;
            open.pop();
            first = false;
        };
    }
}

fn write_scalar(output: &mut impl Write, value: Value<'_>) -> fmt::Result {
    match value {
        Value::Bool(truth) => write!(output, "{truth}"),
        Value::String(text) => write_string(output, text),
        // JSON has no such numbers; PostgreSQL too makes strings of them.
        Value::Number(number) if !number.is_finite() => write!(output, "\"{number}\""),
        Value::Number(number) => write!(output, "{number}"),
        _ => output.write_str("null"),
    }
}

/// `text` as a JSON string.
fn write_string(output: &mut impl Write, text: &str) -> fmt::Result {
    output.write_char('"')?;
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        let (plain, escaped) = rest.split_at(at);
        output.write_str(plain)?;
        match escaped.as_bytes().first() {
            Some(b'\n') => output.write_str("\\n")?,
            Some(b'\r') => output.write_str("\\r")?,
            Some(b'\t') => output.write_str("\\t")?,
            Some(byte @ (b'"' | b'\\')) => write!(output, "\\{}", char::from(*byte))?,
            Some(control) => write!(output, "\\u{control:04x}")?,
            None => {}
        }
        // What is escaped is ASCII, one byte.
        rest = escaped.get(1..).unwrap_or("");
    }
    output.write_str(rest)?;
    output.write_char('"')
}
