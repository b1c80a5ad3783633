//! Bytes of a fuzzer as numbers and text. What is missing at the end is zero.

use iot_core::time::{MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_SECOND, Timestamp};

/// Takes values off the front.
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The text that is left, up to what is no UTF-8.
    pub fn text(&self) -> &'a str {
        match std::str::from_utf8(self.rest) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&self.rest[..error.valid_up_to()]).unwrap_or(""),
        }
    }

    fn take<const LENGTH: usize>(&mut self) -> [u8; LENGTH] {
        let mut taken = [0; LENGTH];
        let length = LENGTH.min(self.rest.len());
        let (first, rest) = self.rest.split_at(length);
        taken[..length].copy_from_slice(first);
        self.rest = rest;
        taken
    }

    pub fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub fn bytes8(&mut self) -> [u8; 8] {
        self.take()
    }

    pub fn i32(&mut self) -> i32 {
        i32::from_le_bytes(self.take())
    }

    pub fn i64(&mut self) -> i64 {
        i64::from_le_bytes(self.take())
    }

    /// Often one near which arithmetic goes wrong.
    pub fn micros(&mut self) -> i64 {
        let choice = self.byte();
        let near = i64::from(self.byte().cast_signed());
        match choice % 10 {
            0 => i64::MAX.saturating_add(near.min(0)),
            1 => i64::MIN.saturating_add(near.max(0)),
            2 => Timestamp::EARLIEST.0 + near,
            3 => Timestamp::RANGE_END.0 + near,
            4 => near,
            5 => near * MICROS_PER_SECOND,
            6 => near * MICROS_PER_HOUR,
            7 => near * MICROS_PER_DAY,
            8 => Timestamp::RANGE_END.0 - i64::from(self.i32().unsigned_abs()) * MICROS_PER_HOUR / 2,
            _ => self.i64(),
        }
    }

    /// A value that a `timestamptz` can have: infinite, or within its range.
    pub fn timestamp(&mut self) -> Timestamp {
        match self.micros() {
            i64::MIN => Timestamp::NEGATIVE_INFINITY,
            i64::MAX => Timestamp::INFINITY,
            micros => Timestamp(micros.clamp(Timestamp::EARLIEST.0, Timestamp::RANGE_END.0 - 1)),
        }
    }

    /// A finite one.
    pub fn finite_timestamp(&mut self) -> Timestamp {
        Timestamp(self.micros().clamp(Timestamp::EARLIEST.0, Timestamp::RANGE_END.0 - 1))
    }

    /// Any number, NaN and the infinities included.
    pub fn any_f64(&mut self) -> f64 {
        match self.byte() {
            0 => f64::MAX,
            1 => f64::MIN,
            2 => f64::MIN_POSITIVE,
            3 => -0.0,
            4 => 5e-324,
            5 => 1e150,
            6 => -1.000_001e150,
            7 => f64::NAN,
            8 => f64::INFINITY,
            9 => f64::NEG_INFINITY,
            small @ 10..=127 => f64::from(small) / 8.0,
            128..=191 => f64::from(self.i32()) / 1000.0,
            _ => f64::from_bits(self.i64().cast_unsigned()),
        }
    }

    /// A number.
    pub fn f64(&mut self) -> f64 {
        let number = self.any_f64();
        if number.is_finite() { number } else { 0.0 }
    }
}
