//! Writes the binary `jsonb` of PostgreSQL for tests, as its layout is documented in `utils/jsonb.h`.

use serde_json::Value;

const SCALAR_FLAG: u32 = 0x1000_0000;
const OBJECT_FLAG: u32 = 0x2000_0000;
const ARRAY_FLAG: u32 = 0x4000_0000;
const HAS_OFFSET: u32 = 0x8000_0000;
const STRIDE: usize = 32;

/// The bytes of the datum for `value` after its length word.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut image = Vec::new();
    match value {
        Value::Array(_) | Value::Object(_) => container(&mut image, value),
        scalar => {
            word(&mut image, SCALAR_FLAG | ARRAY_FLAG | 1);
            children(&mut image, &[scalar]);
        }
    }
    image
}

fn container(image: &mut Vec<u8>, value: &Value) {
    pad(image);
    match value {
        Value::Array(elements) => {
            word(image, ARRAY_FLAG | elements.len() as u32);
            children(image, &elements.iter().collect::<Vec<_>>());
        }
        Value::Object(pairs) => {
            let mut sorted: Vec<(&String, &Value)> = pairs.iter().collect();
            sorted.sort_by_key(|(key, _)| (key.len(), key.as_bytes()));
            let keys: Vec<Value> = sorted.iter().map(|(key, _)| Value::String((*key).clone())).collect();
            word(image, OBJECT_FLAG | sorted.len() as u32);
            children(image, &keys.iter().chain(sorted.iter().map(|(_, value)| *value)).collect::<Vec<_>>());
        }
        _ => unreachable!(),
    }
}

fn children(image: &mut Vec<u8>, values: &[&Value]) {
    let entries = image.len();
    image.resize(entries + 4 * values.len(), 0);
    let data = image.len();
    for (index, value) in values.iter().enumerate() {
        let start = image.len();
        let kind = match value {
            Value::String(text) => {
                image.extend_from_slice(text.as_bytes());
                0x0000_0000
            }
            Value::Number(number) => {
                pad(image);
                numeric(image, &number.to_string());
                0x1000_0000
            }
            Value::Bool(false) => 0x2000_0000,
            Value::Bool(true) => 0x3000_0000,
            Value::Null => 0x4000_0000,
            Value::Array(_) | Value::Object(_) => {
                container(image, value);
                0x5000_0000
            }
        };
        let entry = if index % STRIDE == 0 {
            HAS_OFFSET | (image.len() - data) as u32
        } else {
            (image.len() - start) as u32
        };
        image[entries + 4 * index..][..4].copy_from_slice(&(kind | entry).to_ne_bytes());
    }
}

/// A `numeric` with its length word, from JSON's decimal text.
fn numeric(image: &mut Vec<u8>, text: &str) {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (decimals, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().unwrap();
    let (whole, fraction) = decimals.split_once('.').unwrap_or((decimals, ""));
    let scale = (fraction.len() as i32 - exponent).max(0) as u16;

    // Decimal digits with the point after `point` of them, filled up so that groups of four meet the point.
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0').collect();
    let mut point = whole.len() as i32 + exponent;
    let fill = point.rem_euclid(4);
    if fill != 0 {
        digits.splice(0..0, vec![0; 4 - fill as usize]);
        point += 4 - fill;
    }
    while !digits.len().is_multiple_of(4) {
        digits.push(0);
    }
    let mut groups: Vec<u16> = digits
        .chunks(4)
        .map(|group| group.iter().fold(0, |sum, digit| sum * 10 + u16::from(*digit)))
        .collect();
    let mut weight = point / 4 - 1;
    while groups.first() == Some(&0) {
        groups.remove(0);
        weight -= 1;
    }
    while groups.last() == Some(&0) {
        groups.pop();
    }
    let is_zero = groups.is_empty();
    let (negative, weight) = (negative && !is_zero, if is_zero { 0 } else { weight });

    let is_short = scale <= 63 && (-64..=63).contains(&weight);
    word(image, ((4 + if is_short { 2 } else { 4 } + 2 * groups.len()) as u32) << 2);
    let weight = weight as i16;
    if is_short {
        let sign = if negative { 0x2000 } else { 0 };
        let header = 0x8000 | sign | scale << 7 | (weight.cast_unsigned() & 0x7F);
        image.extend_from_slice(&header.to_ne_bytes());
    } else {
        image.extend_from_slice(&(if negative { 0x4000 | scale } else { scale }).to_ne_bytes());
        image.extend_from_slice(&weight.to_ne_bytes());
    }
    groups.iter().for_each(|group| image.extend_from_slice(&group.to_ne_bytes()));
}

/// The root begins at a multiple of four bytes of the datum.
fn pad(image: &mut Vec<u8>) {
    image.resize(image.len().next_multiple_of(4), 0);
}

fn word(image: &mut Vec<u8>, word: u32) {
    image.extend_from_slice(&word.to_ne_bytes());
}
