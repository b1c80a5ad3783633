//! An expert's memory of its own distances.

use super::constants::AdaptiveConstants;
use crate::detect::bytes::{Reader, Writer};
use crate::detect::calibration::{Histogram, Tail};

/// Distances of readings, which fade, and the greatest of each block, which do not.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Calibrator {
    rows: Histogram,
    blocks: Histogram,
    /// Greatest distance of the present block.
    greatest: f64,
    /// Readings in it.
    length: u32,
}

impl Default for Calibrator {
    fn default() -> Self {
        Self { rows: Histogram::default(), blocks: Histogram::default(), greatest: LOWEST, length: 0 }
    }
}

/// Below every logarithm of a distance.
const LOWEST: f64 = -1000.0;

impl Calibrator {
    pub(super) const ENCODED_LEN: usize = 2 * Histogram::ENCODED_LEN + 12;

    /// Surprise of the distance with this logarithm, in decimal digits.
    pub(super) fn surprise(&self, constants: &AdaptiveConstants, logarithm: f64) -> f64 {
        let tail = |share| Tail {
            share,
            minimum: constants.tail_minimum,
            maximum_exponent: constants.tail_exponent,
        };
        self.rows.surprise(logarithm, &tail(constants.row_tail))
            + self.blocks.surprise(logarithm, &tail(constants.block_tail))
    }

    pub(super) fn update(&mut self, constants: &AdaptiveConstants, decay: f32, logarithm: f64) {
        self.rows.add(logarithm, decay);
        self.greatest = self.greatest.max(logarithm);
        self.length += 1;
        if f64::from(self.length) >= constants.block_length {
            self.blocks.add(self.greatest, 1.0);
            (self.greatest, self.length) = (LOWEST, 0);
        }
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        self.rows.write(writer);
        self.blocks.write(writer);
        writer.f64(self.greatest);
        writer.u32(self.length);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            rows: Histogram::read(reader)?,
            blocks: Histogram::read(reader)?,
            greatest: reader.number(-LOWEST)?,
            length: reader.u32().filter(|length| *length < u32::MAX)?,
        })
    }
}
