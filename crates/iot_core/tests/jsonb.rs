//! Binary `jsonb` is read as PostgreSQL wrote it, and bytes that it did not write do no harm.

#![allow(clippy::unwrap_used, clippy::panic)]

mod encode;

use encode::encode;
use iot_core::jsonb::{Document, Numeric, Value as Read};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Datums of PostgreSQL 15 on x86-64 after their length words, each with the text that it writes for them.
const IMAGES: &str = include_str!("images/postgresql15.txt");

fn images() -> impl Iterator<Item = (Vec<u8>, &'static str)> {
    IMAGES.lines().map(|line| {
        let (hex, text) = line.split_once(' ').unwrap();
        let bytes = hex
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
        (bytes.collect(), text)
    })
}

#[test]
#[cfg(target_endian = "little")]
fn images_of_postgresql_read_as_its_text() {
    for (image, text) in images() {
        assert_eq!(Document::new(&image).root().to_text(), text);
    }
}

/// The encoder of these tests writes what PostgreSQL writes, so that they speak of the real layout.
#[test]
#[cfg(target_endian = "little")]
fn the_encoder_agrees_with_postgresql() {
    for (image, text) in images() {
        assert_eq!(encode(&serde_json::from_str(text).unwrap()), image, "{text}");
    }
}

fn number(text: &str, check: impl Fn(Numeric<'_>)) {
    match Document::new(&encode(&serde_json::from_str(text).unwrap())).root() {
        Read::Number(number) => check(number),
        other => panic!("{other:?}"),
    }
}

#[test]
fn numbers_are_rounded_once() {
    let middle = "1.00000000000000011102230246251565404236316680908203125";
    let digits = "9".repeat(900);
    for text in [
        "0",
        "21.5",
        "-21.5",
        "0.1",
        "1e22",
        "1e23",
        "1e-22",
        "1e-23",
        "9007199254740993",
        "90071992547409930",
        "1e308",
        "1e309",
        "-1e309",
        "5e-324",
        "2e-324",
        "2.4703282292062328e-324",
        "1e-400",
        "123456789012345678901234567890",
        "0.30000000000000004",
        "21.489999999999998",
        "314159265358979e-14",
        middle,
        &format!("{middle}1"),
        &format!("{middle}{}1", "0".repeat(900)),
        &format!("0.{digits}"),
        &digits,
        "1e6000",
        "1e-6000",
        &format!("1{}", "0".repeat(400)),
    ] {
        number(text, |number| {
            let expected: f64 = text.parse().unwrap();
            assert_eq!(number.to_f64().to_bits(), expected.to_bits(), "{text}");
        });
    }
}

#[test]
fn integers() {
    for (text, integer) in [
        ("0", Some(0)),
        ("0.00", Some(0)),
        ("7", Some(7)),
        ("-10000", Some(-10_000)),
        ("12.00", Some(12)),
        ("12.5", None),
        ("0.5", None),
        ("1e18", Some(1_000_000_000_000_000_000)),
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("1e30", None),
        ("1e6000", None),
    ] {
        number(text, |number| assert_eq!(number.to_i64(), integer, "{text}"));
    }
}

#[test]
fn numbers_that_json_does_not_know() {
    for (header, float, text) in [
        (0xC000_u16, f64::NAN, "\"NaN\""),
        (0xD000, f64::INFINITY, "\"Infinity\""),
        (0xF000, f64::NEG_INFINITY, "\"-Infinity\""),
    ] {
        let mut image = encode(&json!(1));
        let at = image.len() - 4;
        image[at..at + 2].copy_from_slice(&header.to_ne_bytes());
        let root = Document::new(&image).root();
        let Read::Number(number) = root else { panic!("{root:?}") };
        assert!(!number.is_finite() && number.to_i64().is_none());
        assert_eq!(number.to_f64().to_string(), float.to_string());
        assert_eq!(root.to_text(), text);
    }
}

/// PostgreSQL writes zero with the weight 0.
#[test]
fn a_zero_with_a_weight_is_zero() {
    let mut image = encode(&json!(0));
    let at = image.len() - 2;
    for weight in [1_u16, 6, 63, 0x40] {
        image[at..].copy_from_slice(&(0x8000 | weight).to_ne_bytes());
        let root = Document::new(&image).root();
        let Read::Number(number) = root else { panic!("{root:?}") };
        assert_eq!((number.to_f64(), number.to_i64(), number.is_zero()), (0.0, Some(0), true), "{weight}");
    }
}

#[test]
fn numbers_compare_by_value() {
    let texts = [
        "-1e30", "-10000", "-1.5", "-0.001", "0", "1e-9", "0.999", "1", "1.0001", "10000", "10000.5", "1e30",
    ];
    for (place, left) in texts.iter().enumerate() {
        for (other_place, right) in texts.iter().enumerate() {
            number(left, |left| number(right, |right| assert_eq!(left.cmp(&right), place.cmp(&other_place))));
        }
    }
    number("1.500", |left| number("1.5", |right| assert_eq!(left, right)));
    number("0.00", |left| number("0", |right| assert_eq!(left, right)));
}

#[test]
fn nested_containers_are_documents_of_their_own() {
    let image = encode(&json!({"a": "x", "b": {"c": [1, "y", {"d": 2.5}]}, "e": [true]}));
    let Read::Object(object) = Document::new(&image).root() else { panic!() };
    let Some(Read::Object(inner)) = object.get("b") else { panic!() };
    assert_eq!(inner.image(), encode(&json!({"c": [1, "y", {"d": 2.5}]})));
    assert_eq!(Document::new(inner.image()).root(), Read::Object(inner));
    let Some(Read::Array(array)) = inner.get("c") else { panic!() };
    assert_eq!(
        (array.len(), array.is_empty(), array.image()),
        (3, false, &encode(&json!([1, "y", {"d": 2.5}]))[..])
    );
    assert_eq!((object.len(), object.is_empty(), object.get("d"), object.get("")), (3, false, None, None));
}

/// Deeper than the call stack of a test would bear.
#[test]
fn deep_nesting() {
    let mut image = Vec::new();
    let depth = 200_000_u32;
    for level in (0..depth).rev() {
        image.extend_from_slice(&(0x4000_0001_u32).to_ne_bytes());
        image.extend_from_slice(&(0xD000_0000 | (level * 8)).to_ne_bytes());
    }
    assert!(Document::new(&image).root().to_text().starts_with("[[[["));
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?(e-?[0-9]{1,3})?"
            .prop_map(|text| serde_json::from_str(&text).unwrap()),
        "\\PC{0,8}".prop_map(Value::from),
        "[\\x01-\\x1f\"\\\\a]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 200, 70, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..70).prop_map(Value::from),
            proptest::collection::vec(("\\PC{0,8}", inner), 0..70).prop_map(Value::from_iter),
        ]
    })
}

/// That `read` is `written`, by every way to read it.
fn same(read: Read<'_>, written: &Value) -> bool {
    match (read, written) {
        (Read::Null, Value::Null) => true,
        (Read::Bool(left), Value::Bool(right)) => left == *right,
        (Read::String(left), Value::String(right)) => left == right,
        (Read::Number(left), Value::Number(right)) => {
            let expected: f64 = right.to_string().parse().unwrap();
            left.to_f64() == expected && left.to_i64().is_none_or(|integer| integer as f64 == expected)
        }
        (Read::Array(left), Value::Array(right)) => {
            left.len() == right.len()
                && left.iter().count() == right.len()
                && left.into_iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Read::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().count() == right.len()
                && left.into_iter().all(|(key, value)| same(value, &right[key]))
                && right.iter().all(|(key, value)| left.get(key).is_some_and(|found| same(found, value)))
        }
        _ => false,
    }
}

/// Reads everything there is. What comes out is JSON text in any case.
fn read_all(image: &[u8]) {
    fn walk(value: Read<'_>) {
        match value {
            Read::Number(number) => {
                let _ = (number.to_f64(), number.to_i64(), number.cmp(&number));
            }
            Read::Array(array) => array.iter().for_each(walk),
            Read::Object(object) => object.iter().for_each(|(key, value)| {
                let _ = object.get(key);
                walk(value);
            }),
            _ => {}
        }
    }
    let root = Document::new(image).root();
    walk(root);
    serde_json::from_str::<Value>(&root.to_text()).unwrap();
}

proptest! {
    #[test]
    fn documents_there_and_back(value in json()) {
        let image = encode(&value);
        let root = Document::new(&image).root();
        prop_assert!(same(root, &value), "{}", value);
        let text: Value = serde_json::from_str(&root.to_text()).unwrap();
        prop_assert!(same(root, &text));
        prop_assert!(value.is_number() || encode(&text).len() == image.len());
    }

    #[test]
    fn numbers_as_their_text(text in "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?(e-?[0-9]{1,2})?") {
        number(&text, |number| {
            assert_eq!(number.to_f64(), text.parse::<f64>().unwrap());
            assert_eq!(number.to_f64(), number.to_string().parse::<f64>().unwrap());
        });
    }

    #[test]
    fn arbitrary_bytes(image in proptest::collection::vec(any::<u8>(), 0..200)) {
        read_all(&image);
    }

    #[test]
    fn damaged_documents(
        value in json(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        length in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut image = encode(&value);
        for (place, byte) in changes {
            let place = place.index(image.len());
            image[place] = byte;
        }
        if is_cut {
            image.truncate(length.index(image.len()));
        }
        read_all(&image);
    }
}
