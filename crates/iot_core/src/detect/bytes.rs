//! Little-endian fields one after another: the byte form of the detectors' states.

use crate::time::Timestamp;

/// Writes fields into a slice; remembers whether all of them fitted.
pub(super) struct Writer<'a> {
    rest: Option<&'a mut [u8]>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self { rest: Some(bytes) }
    }

    /// Whether every field fitted.
    pub(super) fn is_complete(&self) -> bool {
        self.rest.is_some()
    }

    fn put<const N: usize>(&mut self, field: [u8; N]) {
        let split = self.rest.take().and_then(|rest| rest.split_first_chunk_mut());
        self.rest = split.map(|(head, rest)| {
            *head = field;
            rest
        });
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.put([value]);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.put(value.to_le_bytes());
    }

    pub(super) fn f32(&mut self, value: f32) {
        self.put(value.to_le_bytes());
    }

    pub(super) fn f64(&mut self, value: f64) {
        self.put(value.to_le_bytes());
    }

    pub(super) fn timestamp(&mut self, value: Timestamp) {
        self.put(value.0.to_le_bytes());
    }
}

/// Reads the fields back; `None` at the end, and for numbers no state can hold.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[value]| value)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    /// A number between 0 and `maximum`.
    pub(super) fn weight(&mut self, maximum: f32) -> Option<f32> {
        self.take().map(f32::from_le_bytes).filter(|value| (0.0..=maximum).contains(value))
    }

    /// A number from `-magnitude` to `magnitude`.
    pub(super) fn number(&mut self, magnitude: f64) -> Option<f64> {
        self.take().map(f64::from_le_bytes).filter(|value| value.abs() <= magnitude)
    }

    /// A number from 0 to `maximum`.
    pub(super) fn not_negative(&mut self, maximum: f64) -> Option<f64> {
        self.number(maximum).filter(|value| *value >= 0.0)
    }

    pub(super) fn timestamp(&mut self) -> Option<Timestamp> {
        self.take().map(i64::from_le_bytes).map(Timestamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_in_order() {
        let mut bytes = [0; 33];
        let mut writer = Writer::new(&mut bytes);
        writer.u8(7);
        writer.u32(1_000_000);
        writer.f32(0.5);
        writer.f64(-2.5);
        writer.f64(2.5);
        writer.timestamp(Timestamp(-9));
        assert!(writer.is_complete());
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8(), Some(7));
        assert_eq!(reader.u32(), Some(1_000_000));
        assert_eq!(reader.weight(1.0), Some(0.5));
        assert_eq!(reader.number(3.0), Some(-2.5));
        assert_eq!(reader.not_negative(3.0), Some(2.5));
        assert_eq!(reader.timestamp(), Some(Timestamp(-9)));
        assert_eq!(reader.u8(), None);
    }

    #[test]
    fn too_short_a_slice_is_noticed() {
        let mut bytes = [0; 3];
        let mut writer = Writer::new(&mut bytes);
        writer.u32(1);
        writer.u8(1);
        assert!(!writer.is_complete());
        assert_eq!(Reader::new(&bytes).u32(), None);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for value in [f64::NAN, f64::INFINITY, -4.0, 4.0] {
            assert_eq!(Reader::new(&value.to_le_bytes()).number(3.0), None, "{value}");
        }
        assert_eq!(Reader::new(&(-1.0_f64).to_le_bytes()).not_negative(3.0), None);
        for value in [f32::NAN, f32::INFINITY, -1.0, 4.0] {
            assert_eq!(Reader::new(&value.to_le_bytes()).weight(3.0), None, "{value}");
        }
    }
}
