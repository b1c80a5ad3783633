//! The 24-hour window of a sensor in bounded memory: a ring of half-hour sub-buckets.

use super::{MAGNITUDE, MAXIMUM_VARIANCE, Moments, SUB_BUCKET, WINDOW, WindowStatistics};
use crate::time::Timestamp;

/// Sub-buckets in the ring: the 24 hours before that of the high-water mark, and that one.
pub const SUB_BUCKETS: usize = (WINDOW / SUB_BUCKET) as usize + 1;

/// Count, mean and sum of squared deviations of one sub-bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SubBucket {
    /// How many values.
    pub count: u32,
    /// Their mean.
    pub mean: f64,
    /// Sum of their squared deviations from the mean.
    pub m2: f64,
}

impl SubBucket {
    fn push(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        let before = value - self.mean;
        self.mean += before / f64::from(self.count);
        // Millions of values at the end of double precision would have a sum beyond it.
        self.m2 = (self.m2 + before * (value - self.mean)).min(f64::MAX);
    }

    /// Whether so many values of at most [`MAGNITUDE`] can have left this.
    pub(crate) fn is_possible(&self) -> bool {
        let most = MAXIMUM_VARIANCE * f64::from(self.count);
        self.count > 0 && self.mean.abs() <= 2.0 * MAGNITUDE && (0.0..=most.min(f64::MAX)).contains(&self.m2)
    }

    fn merge(self, other: Self) -> Self {
        let merged = Moments::from(self).merge(Moments::from(other));
        Self {
            count: u32::try_from(merged.count).unwrap_or(u32::MAX),
            mean: merged.mean,
            m2: merged.m2.min(f64::MAX),
        }
    }
}

impl From<SubBucket> for Moments {
    fn from(bucket: SubBucket) -> Self {
        Self { count: u64::from(bucket.count), mean: bucket.mean, m2: bucket.m2, ..Self::default() }
    }
}

/// The readings of the 24 hours before a sensor's newest one, as [`window_start`](super::window_start) cuts them.
///
/// Fixed size, no pointers: it is copied between processes as it stands. The order of the additions matters to the
/// last bits of the sums only.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct ZscoreWindow {
    high_water: i64,
    means: [f64; SUB_BUCKETS],
    m2: [f64; SUB_BUCKETS],
    counts: [u32; SUB_BUCKETS],
}

/// High-water mark of a window that has seen nothing.
const NOTHING: i64 = i64::MIN;

impl Default for ZscoreWindow {
    fn default() -> Self {
        Self {
            high_water: NOTHING,
            means: [0.0; SUB_BUCKETS],
            m2: [0.0; SUB_BUCKETS],
            counts: [0; SUB_BUCKETS],
        }
    }
}

/// Number of the sub-bucket that holds `at`, counted from PostgreSQL's epoch.
fn number_of(at: i64) -> i64 {
    at.div_euclid(SUB_BUCKET)
}

fn slot_of(number: i64) -> usize {
    number.rem_euclid(SUB_BUCKETS as i64) as usize
}

impl ZscoreWindow {
    /// Time of the newest reading, if there was one.
    pub fn high_water(&self) -> Option<Timestamp> {
        (self.high_water != NOTHING).then_some(Timestamp(self.high_water))
    }

    /// Moves the high-water mark to `at` when that is later, and drops what falls out of the window.
    pub fn advance(&mut self, at: Timestamp) {
        if at.0 <= self.high_water {
            return;
        }
        if self.high_water != NOTHING {
            let (from, to) = (number_of(self.high_water), number_of(at.0));
            let passed = to.saturating_sub(from).min(SUB_BUCKETS as i64);
            for number in to - passed + 1..=to {
                self.set(slot_of(number), SubBucket::default());
            }
        }
        self.high_water = at.0;
    }

    /// Adds the value of a reading at `at`, which may be late; what lies before the window is left out.
    pub fn add(&mut self, at: Timestamp, value: f64) {
        self.advance(at);
        if let Some(slot) = self.slot(number_of(at.0)) {
            let mut bucket = self.get(slot);
            bucket.push(value);
            self.set(slot, bucket);
        }
    }

    /// Adds a whole sub-bucket, named by a time inside it.
    pub fn add_bucket(&mut self, at: Timestamp, bucket: SubBucket) {
        if let Some(slot) = self.slot(number_of(at.0)) {
            self.set(slot, self.get(slot).merge(bucket));
        }
    }

    /// Adds what another session added to its copy of this window.
    pub fn merge(&mut self, delta: &WindowDelta) {
        self.advance(Timestamp(delta.high_water));
        for &(number, bucket) in &delta.buckets {
            if let Some(slot) = self.slot(number) {
                self.set(slot, self.get(slot).merge(bucket));
            }
        }
    }

    /// The sub-buckets that hold readings, each with its age: 0 is the newest.
    pub fn sub_buckets(&self) -> impl Iterator<Item = (u8, SubBucket)> {
        let newest = (self.high_water != NOTHING).then(|| number_of(self.high_water));
        newest
            .into_iter()
            .flat_map(|newest| (0..SUB_BUCKETS as u8).map(move |age| (age, slot_of(newest - i64::from(age)))))
            .map(|(age, slot)| (age, self.get(slot)))
            .filter(|(_, bucket)| bucket.count > 0)
    }

    /// Puts a sub-bucket back to where [`sub_buckets`](Self::sub_buckets) found it. `false` when there is no such place.
    pub fn set_sub_bucket(&mut self, age: u8, bucket: SubBucket) -> bool {
        if self.high_water == NOTHING || usize::from(age) >= SUB_BUCKETS {
            return false;
        }
        self.set(slot_of(number_of(self.high_water) - i64::from(age)), bucket);
        true
    }

    /// What is in the window.
    pub fn statistics(&self) -> WindowStatistics {
        self.cursor().statistics(self)
    }

    /// All but the newest sub-bucket, merged: what stays as it is while readings arrive in order.
    pub fn cursor(&self) -> WindowCursor {
        let mut closed = Moments::default();
        if self.high_water != NOTHING {
            let newest = number_of(self.high_water);
            for number in newest - (SUB_BUCKETS as i64 - 1)..newest {
                let bucket = self.get(slot_of(number));
                if bucket.count > 0 {
                    closed = closed.merge(bucket.into());
                }
            }
        }
        WindowCursor { newest: number_of(self.high_water), closed }
    }

    /// The slot of sub-bucket `number`, if that lies in the window.
    fn slot(&self, number: i64) -> Option<usize> {
        if self.high_water == NOTHING {
            return None;
        }
        let age = number_of(self.high_water) - number;
        (0..SUB_BUCKETS as i64).contains(&age).then(|| slot_of(number))
    }

    fn get(&self, slot: usize) -> SubBucket {
        SubBucket { count: self.counts[slot], mean: self.means[slot], m2: self.m2[slot] }
    }

    fn set(&mut self, slot: usize, bucket: SubBucket) {
        self.counts[slot] = bucket.count;
        self.means[slot] = bucket.mean;
        self.m2[slot] = bucket.m2;
    }
}

/// Spares merging the whole ring for each of many readings of one sensor.
#[derive(Clone, Copy, Debug)]
pub struct WindowCursor {
    newest: i64,
    closed: Moments,
}

impl WindowCursor {
    /// Whether the newest sub-bucket of `window` is still the one that it was made with.
    pub fn is_current(&self, window: &ZscoreWindow) -> bool {
        number_of(window.high_water) == self.newest
    }

    /// Whether an addition at `at` leaves it valid; a late one, or one that opens a sub-bucket, does not.
    pub fn survives(&self, at: Timestamp) -> bool {
        number_of(at.0) == self.newest
    }

    /// As [`ZscoreWindow::statistics`] of the window that it was made from, and bit for bit the same.
    pub fn statistics(&self, window: &ZscoreWindow) -> WindowStatistics {
        if window.high_water == NOTHING {
            return WindowStatistics::default();
        }
        let newest: Moments = window.get(slot_of(self.newest)).into();
        let mut all = self.closed.merge(newest);
        // Equal numbers have a sum of squares of exactly zero, and their mean is exact.
        let constant = all.m2 == 0.0;
        (all.minimum, all.maximum) =
            if constant { (all.mean, all.mean) } else { (f64::NEG_INFINITY, f64::INFINITY) };
        all.statistics()
    }
}

/// What one transaction adds to a window, kept apart so that it can be added to a newer version of it.
#[derive(Clone, Debug)]
pub struct WindowDelta {
    high_water: i64,
    buckets: Vec<(i64, SubBucket)>,
}

impl Default for WindowDelta {
    fn default() -> Self {
        Self { high_water: NOTHING, buckets: Vec::new() }
    }
}

impl WindowDelta {
    /// As [`ZscoreWindow::advance`].
    pub fn advance(&mut self, at: Timestamp) {
        self.high_water = self.high_water.max(at.0);
    }

    /// As [`ZscoreWindow::add`].
    pub fn add(&mut self, at: Timestamp, value: f64) {
        self.advance(at);
        let number = number_of(at.0);
        // Readings of one sensor mostly follow each other: look at the newest bucket first.
        match self.buckets.iter_mut().rev().find(|(known, _)| *known == number) {
            Some((_, bucket)) => bucket.push(value),
            None => {
                let mut bucket = SubBucket::default();
                bucket.push(value);
                self.buckets.push((number, bucket));
            }
        }
        // More than a window's worth is history: the oldest cannot matter any more.
        if self.buckets.len() > 2 * SUB_BUCKETS {
            let oldest = number_of(self.high_water) - SUB_BUCKETS as i64;
            self.buckets.retain(|&(number, _)| number > oldest);
        }
    }

    /// Nothing to add.
    pub fn is_empty(&self) -> bool {
        self.high_water == NOTHING
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::window_start;

    const MINUTE: i64 = 60_000_000;

    fn naive(readings: &[(i64, f64)]) -> Moments {
        let newest = readings.iter().map(|&(at, _)| at).max().unwrap();
        let start = window_start(Timestamp(newest)).0;
        readings.iter().filter(|&&(at, _)| at >= start).map(|&(_, value)| value).collect()
    }

    fn assert_like(window: &ZscoreWindow, readings: &[(i64, f64)]) {
        let (found, expected) = (window.statistics(), naive(readings).statistics());
        assert_eq!(found.count, expected.count);
        assert!((found.mean - expected.mean).abs() <= 1e-9 * (1.0 + expected.mean.abs()));
        assert!((found.stddev_samp - expected.stddev_samp).abs() <= 1e-9 * (1.0 + expected.stddev_samp));
    }

    #[test]
    fn holds_what_a_scan_of_the_window_finds() {
        let mut window = ZscoreWindow::default();
        let mut readings = Vec::new();
        for step in 0..4000_i64 {
            // Irregular steps, gaps of hours, and every ninth reading three hours late.
            let gap = if step % 700 == 699 { 400 * MINUTE } else { 0 };
            let at = step * 7 * MINUTE / 3 + gap - if step % 9 == 8 { 180 * MINUTE } else { 0 };
            let value = ((step * 37) % 101) as f64 / 7.0;
            readings.push((at, value));
            window.add(Timestamp(at), value);
            if step % 50 == 0 {
                assert_like(&window, &readings);
            }
        }
        assert_like(&window, &readings);
    }

    #[test]
    fn a_cursor_gives_the_same_bits_while_it_survives() {
        let mut window = ZscoreWindow::default();
        for step in 0..3000 {
            window.add(Timestamp(step * MINUTE), (step % 13) as f64 * 0.1);
        }
        let cursor = window.cursor();
        for step in 3000..3030 {
            let at = Timestamp(step * MINUTE);
            if cursor.survives(at) {
                window.add(at, 3.7);
                assert_eq!(cursor.statistics(&window), window.statistics());
            }
        }
    }

    #[test]
    fn a_delta_merged_elsewhere_equals_adding_here() {
        let mut alone = ZscoreWindow::default();
        let mut shared = ZscoreWindow::default();
        let mut delta = WindowDelta::default();
        let mut readings = Vec::new();
        for step in 0..2000_i64 {
            let (at, value) = (Timestamp(step * MINUTE), (step % 17) as f64);
            readings.push((at.0, value));
            alone.add(at, value);
            if step % 3 == 0 { delta.add(at, value) } else { shared.add(at, value) }
        }
        shared.merge(&delta);
        assert_like(&alone, &readings);
        assert_like(&shared, &readings);
    }

    #[test]
    fn equal_numbers_are_a_constant_window() {
        let mut window = ZscoreWindow::default();
        for step in 0..500 {
            window.add(Timestamp(step * 3 * MINUTE), 0.1);
        }
        let statistics = window.statistics();
        assert_eq!((statistics.minimum, statistics.maximum, statistics.stddev_samp), (0.1, 0.1, 0.0));
    }

    #[test]
    fn nothing_is_in_an_empty_window() {
        assert_eq!(ZscoreWindow::default().statistics(), WindowStatistics::default());
        let mut advanced = ZscoreWindow::default();
        advanced.advance(Timestamp(0));
        assert_eq!(advanced.statistics(), WindowStatistics::default());
        assert_eq!(advanced.high_water(), Some(Timestamp(0)));
    }
}
