//! Distance from the median in median absolute deviations.

use super::bytes::{Reader, Writer};
use super::surprise::Surprise;
use super::{MAGNITUDE, resolution};

/// Readings the median is taken of.
const READINGS: usize = 240;
/// The median absolute deviation of a normal distribution, in standard deviations.
const NORMAL: f64 = 0.6745;
/// Fewer readings have no median worth the name.
const SILENT: usize = 10;

/// The modified z-score of Iglewicz and Hoaglin, "How to Detect and Handle Outliers" (1993), against the last
/// 240 readings.
///
/// Up to half of them may be anomalous before the median gives way; after that a lasting shift of level is
/// learned.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Robust {
    /// The readings by age; the oldest at `next` once all places are taken.
    values: [f64; READINGS],
    /// The same in ascending order.
    sorted: [f64; READINGS],
    count: usize,
    next: usize,
    surprise: Surprise,
}

impl Default for Robust {
    fn default() -> Self {
        Self {
            values: [0.0; READINGS],
            sorted: [0.0; READINGS],
            count: 0,
            next: 0,
            surprise: Surprise::default(),
        }
    }
}

impl Robust {
    pub(super) const ENCODED_LEN: usize = READINGS * 8 + 8 + Surprise::ENCODED_LEN;

    /// Score, and the distance it came from; `None` when too little is known.
    pub(super) fn evaluate(&self, value: f64) -> Option<(f64, f64)> {
        if self.count < SILENT {
            return None;
        }
        let sorted = &self.sorted[..self.count];
        let median = middle(sorted);
        let deviation = median_absolute_deviation(sorted, median);
        let distance = NORMAL * (value - median).abs() / (deviation + resolution(value));
        Some((self.surprise.score(distance), distance))
    }

    pub(super) fn update(&mut self, value: f64, distance: Option<f64>) {
        if self.count == READINGS {
            let oldest = self.sorted.partition_point(|sorted| *sorted < self.values[self.next]);
            self.sorted.copy_within(oldest + 1.., oldest);
            self.count -= 1;
        }
        let place = self.sorted[..self.count].partition_point(|sorted| *sorted < value);
        self.sorted.copy_within(place..self.count, place + 1);
        self.sorted[place] = value;
        self.count += 1;
        self.values[self.next] = value;
        self.next = (self.next + 1) % READINGS;
        if let Some(distance) = distance {
            self.surprise.update(distance);
        }
    }

    pub(super) fn write(&self, writer: &mut Writer<'_>) {
        self.values.iter().for_each(|value| writer.f64(*value));
        writer.u32(self.count as u32);
        writer.u32(self.next as u32);
        self.surprise.write(writer);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let mut robust = Self::default();
        for value in &mut robust.values {
            *value = reader.number(2.0 * MAGNITUDE)?;
        }
        (robust.count, robust.next) = (reader.u32()? as usize, reader.u32()? as usize);
        let is_possible = match robust.count {
            READINGS => robust.next < READINGS,
            count => count < READINGS && robust.next == count,
        };
        if !is_possible {
            return None;
        }
        robust.sorted = robust.values;
        robust.sorted[..robust.count].sort_by(f64::total_cmp);
        robust.surprise = Surprise::read(reader)?;
        Some(robust)
    }
}

/// Median of at least one ascending number.
fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { sorted[half - 1] / 2.0 + sorted[half] / 2.0 }
}

/// Median of the distances of ascending numbers from their median, by walking outwards from it.
fn median_absolute_deviation(sorted: &[f64], median: f64) -> f64 {
    let mut right = sorted.len() / 2;
    let mut left = right;
    let (mut nearest, mut before) = (0.0, 0.0);
    for _ in 0..=sorted.len() / 2 {
        let below = if left > 0 { median - sorted[left - 1] } else { f64::INFINITY };
        let above = if right < sorted.len() { sorted[right] - median } else { f64::INFINITY };
        before = nearest;
        if below < above {
            left -= 1;
            nearest = below;
        } else {
            right += 1;
            nearest = above;
        }
    }
    if sorted.len() % 2 == 1 { nearest } else { before / 2.0 + nearest / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_few_numbers() {
        for (sorted, median, deviation) in [
            (&[1.0][..], 1.0, 0.0),
            (&[1.0, 3.0], 2.0, 1.0),
            (&[1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0], 2.0, 1.0),
            (&[5.0; 8], 5.0, 0.0),
            (&[0.0, 0.0, 0.0, 8.0], 0.0, 0.0),
            (&[0.0, 1.0, 9.0, 10.0], 5.0, 4.5),
        ] {
            assert_eq!(middle(sorted), median, "{sorted:?}");
            assert_eq!(median_absolute_deviation(sorted, median), deviation, "{sorted:?}");
        }
    }

    #[test]
    fn the_sorted_readings_are_the_last_ones() {
        let mut robust = Robust::default();
        let mut all = Vec::new();
        for number in 0..1_000_u32 {
            // Equal values, and a hash of the number.
            let value = f64::from(number.wrapping_mul(2_654_435_761) >> 26) - 20.0;
            all.push(value);
            robust.update(value, None);
            let mut last = all[all.len().saturating_sub(READINGS)..].to_vec();
            last.sort_by(f64::total_cmp);
            assert_eq!(&robust.sorted[..robust.count], last);
        }
    }
}
