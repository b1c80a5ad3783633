//! Column values on their way into a row: Rust on one side, datums on the other, nothing copied between.

use iot_core::time::Timestamp;
use pgrx::pg_sys;

use super::jsonb::Jsonb;

/// A `text` value in PostgreSQL's form, owned by Rust, for values that many rows share.
#[derive(Clone, Debug)]
pub struct TextImage(Box<[u32]>);

impl TextImage {
    const HEADER: usize = size_of::<u32>();

    /// `text` with its length header.
    pub fn new(text: &str) -> Self {
        let mut words = vec![0_u32; 1 + text.len().div_ceil(Self::HEADER)];
        // The four-byte header of an uncompressed value holds its whole length in bytes, shifted.
        let length = ((Self::HEADER + text.len()) as u32) << 2;
        words[0] = if cfg!(target_endian = "little") { length } else { length >> 2 };
        for (word, chunk) in words[1..].iter_mut().zip(text.as_bytes().chunks(Self::HEADER)) {
            let mut bytes = [0_u8; Self::HEADER];
            bytes[..chunk.len()].copy_from_slice(chunk);
            *word = u32::from_ne_bytes(bytes);
        }
        Self(words.into())
    }
}

/// One column of a row.
#[derive(Clone, Copy)]
pub enum ColumnValue<'a> {
    /// NULL.
    Null,
    /// `timestamptz`.
    Timestamp(Timestamp),
    /// `double precision`.
    Float(f64),
    /// `uuid`.
    Uuid(&'a [u8; 16]),
    /// `integer`.
    Integer(i32),
    /// `boolean`.
    Boolean(bool),
    /// `text`.
    Text(&'a TextImage),
    /// `jsonb`.
    Jsonb(Jsonb<'a>),
}

impl ColumnValue<'_> {
    /// The datum, and whether it is NULL. It points into `self`'s borrows.
    pub(super) fn to_datum(self) -> (pg_sys::Datum, bool) {
        let datum = match self {
            Self::Null => return (pg_sys::Datum::from(0), true),
            Self::Timestamp(at) => pg_sys::Datum::from(at.0),
            Self::Float(value) => pg_sys::Datum::from(value.to_bits()),
            Self::Uuid(bytes) => pg_sys::Datum::from(bytes.as_ptr()),
            Self::Integer(value) => pg_sys::Datum::from(value),
            Self::Boolean(value) => pg_sys::Datum::from(value),
            Self::Text(text) => pg_sys::Datum::from(text.0.as_ptr()),
            Self::Jsonb(document) => document.as_datum(),
        };
        (datum, false)
    }
}
