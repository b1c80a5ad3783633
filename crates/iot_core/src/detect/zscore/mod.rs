//! The window of the 24-hour rule in fixed space: a ring of half hours.

mod cursor;
mod delta;
mod sub_bucket;

pub use cursor::WindowCursor;
pub use delta::WindowDelta;

use super::bytes::{Reader, Writer};
use super::{AnomalyScore, MAGNITUDE, SUB_BUCKET, WINDOW, WindowStatistics, score, window_start};
use crate::time::Timestamp;
use sub_bucket::SubBucket;

/// Sub-buckets of the window: those of 24 hours, and the one in progress.
const RING: usize = (WINDOW / SUB_BUCKET) as usize + 1;
/// Version of the byte form.
const VERSION: u8 = 1;

/// The readings from [`window_start`] of the newest one on, as count, mean and sum of squared deviations of each
/// half hour.
///
/// It says the same as [`super::Moments`] over the readings themselves, up to rounding, with one difference: it
/// does not know the extremes, see [`Self::statistics`].
#[derive(Clone, Debug, PartialEq)]
pub struct ZscoreWindow {
    /// Time of the newest reading; `-infinity` before the first.
    high_water: Timestamp,
    /// Sub-bucket number n, counted from 2000-01-01, is at n modulo [`RING`].
    ring: [SubBucket; RING],
}

impl Default for ZscoreWindow {
    fn default() -> Self {
        Self { high_water: Timestamp::NEGATIVE_INFINITY, ring: [SubBucket::EMPTY; RING] }
    }
}

/// Number of the sub-bucket of a time.
fn number_of(at: Timestamp) -> i64 {
    at.0.div_euclid(SUB_BUCKET)
}

fn place(number: i64) -> usize {
    number.rem_euclid(RING as i64) as usize
}

/// Whether the window can hold such a reading.
fn is_usable(at: Timestamp, value: f64) -> bool {
    at.is_finite() && value.abs() <= MAGNITUDE
}

impl ZscoreWindow {
    /// Bytes of [`Self::encode`].
    pub const ENCODED_LEN: usize = 1 + 8 + RING * SubBucket::ENCODED_LEN;

    /// A window without readings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Time up to which the window has moved; `-infinity` at first.
    pub fn high_water(&self) -> Timestamp {
        self.high_water
    }

    /// Moves the window on to a time; an earlier one than before changes nothing.
    pub fn advance(&mut self, to: Timestamp) {
        if !to.is_finite() || to <= self.high_water {
            return;
        }
        let newest = number_of(to);
        // Before the first reading this is far away, and all of the empty ring is cleared once more.
        let passed = newest.saturating_sub(number_of(self.high_water)).clamp(0, RING as i64);
        for back in 0..passed {
            self.ring[place(newest - back)] = SubBucket::EMPTY;
        }
        self.high_water = to;
    }

    /// Adds a reading, moving the window on to it if it is the newest. One older than the window is left out.
    ///
    /// So are values beyond ±10¹⁵⁰, whose squares double precision cannot hold.
    pub fn add(&mut self, at: Timestamp, value: f64) {
        if !is_usable(at, value) {
            return;
        }
        self.advance(at);
        if at >= window_start(self.high_water) {
            self.ring[place(number_of(at))].push(value);
        }
    }

    /// Statistics of the readings in the window.
    ///
    /// Of the extremes only what [`score`] needs is there. Whether all readings are equal is known exactly; then
    /// both extremes are that reading. When they differ but the computed deviation is 0 (they differ by a few
    /// units in the last place, or by less than 10⁻¹⁵⁴), the extremes are as far from the mean as readings can be
    /// then. Else they are infinite.
    pub fn statistics(&self) -> WindowStatistics {
        self.merge_older().merge(self.ring[place(number_of(self.high_water))]).statistics()
    }

    /// Scores a value by [`score`] against the window as it is.
    pub fn score(&self, value: f64) -> AnomalyScore {
        score(value, &self.statistics())
    }

    /// All sub-buckets but the newest, from the oldest on.
    fn merge_older(&self) -> SubBucket {
        let newest = place(number_of(self.high_water));
        let (after, before) = (&self.ring[newest + 1..], &self.ring[..newest]);
        after.iter().chain(before).fold(SubBucket::EMPTY, |merged, bucket| merged.merge(*bucket))
    }

    /// Adds what a transaction has gathered, whatever others have added meanwhile.
    pub fn merge_delta(&mut self, delta: &WindowDelta) {
        self.advance(delta.high_water());
        let oldest = number_of(window_start(self.high_water));
        for (number, bucket) in delta.buckets() {
            if *number >= oldest {
                let own = &mut self.ring[place(*number)];
                *own = own.merge(*bucket);
            }
        }
    }

    /// Writes the byte form into the first [`Self::ENCODED_LEN`] bytes; false when there are fewer.
    pub fn encode(&self, bytes: &mut [u8]) -> bool {
        let mut writer = Writer::new(bytes);
        writer.u8(VERSION);
        writer.timestamp(self.high_water);
        self.ring.iter().for_each(|bucket| bucket.write(&mut writer));
        writer.is_complete()
    }

    /// Reads the byte form back; bytes after it are ignored. `None` for another version, and for what no window
    /// can have written.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return None;
        }
        let mut window = Self { high_water: reader.timestamp()?, ..Self::default() };
        if window.high_water == Timestamp::INFINITY {
            return None;
        }
        for bucket in &mut window.ring {
            *bucket = SubBucket::read(&mut reader)?;
        }
        Some(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{MICROS_PER_HOUR, MICROS_PER_MINUTE};

    fn at(minutes: i64) -> Timestamp {
        Timestamp(minutes * MICROS_PER_MINUTE)
    }

    #[test]
    fn an_empty_window_says_nothing() {
        let window = ZscoreWindow::new();
        assert_eq!(window.statistics(), WindowStatistics::default());
        assert_eq!(window.score(7.0), AnomalyScore::default());
    }

    #[test]
    fn a_constant_window_flags_any_other_value() {
        let mut window = ZscoreWindow::new();
        for minute in 0..5_000 {
            window.add(at(minute), 0.1);
        }
        let statistics = window.statistics();
        assert_eq!((statistics.stddev_samp, statistics.minimum, statistics.maximum), (0.0, 0.1, 0.1));
        assert_eq!(window.score(0.1), AnomalyScore::default());
        assert_eq!(window.score(0.1_f64.next_up()).score, 5.0);
    }

    #[test]
    fn readings_that_differ_by_less_than_their_deviation_can_say() {
        let one = 1.0_f64.next_up();
        let mut window = ZscoreWindow::new();
        window.add(at(0), one);
        window.add(at(1), one.next_up());
        assert_eq!(window.statistics().stddev_samp, 0.0);
        for usual in [one, one.next_up()] {
            assert_eq!(window.score(usual), AnomalyScore::default());
        }
        assert_eq!(window.score(1.000_001).score, 5.0);
        let mut tiny = ZscoreWindow::new();
        tiny.add(at(0), 1e-200);
        tiny.add(at(40), 3e-200);
        assert_eq!(tiny.score(2e-200), AnomalyScore::default());
        assert_eq!(tiny.score(1.0).score, 5.0);
    }

    #[test]
    fn what_falls_out_of_the_window_is_forgotten() {
        let mut window = ZscoreWindow::new();
        window.add(at(0), 100.0);
        window.add(at(30), 1.0);
        window.add(at(24 * 60 + 29), 2.0);
        assert_eq!(window.statistics().count, 3);
        window.advance(at(24 * 60 + 30));
        assert_eq!((window.statistics().count, window.statistics().mean), (2, 1.5));
        window.add(at(0), 100.0);
        window.add(at(29), 100.0);
        assert_eq!(window.statistics().count, 2);
        window.add(at(31), 3.0);
        assert_eq!((window.statistics().count, window.statistics().mean), (3, 2.0));
        window.advance(Timestamp(i64::MAX - 1));
        assert_eq!(window.statistics().count, 0);
    }

    #[test]
    fn what_no_window_holds_is_left_out() {
        let mut window = ZscoreWindow::new();
        for value in [f64::NAN, f64::INFINITY, 1.1e150, -1.1e150] {
            window.add(at(0), value);
        }
        window.add(Timestamp::INFINITY, 1.0);
        window.add(Timestamp::NEGATIVE_INFINITY, 1.0);
        assert_eq!(window, ZscoreWindow::new());
    }

    #[test]
    fn the_earliest_times() {
        let mut window = ZscoreWindow::new();
        for micros in [i64::MIN + 1, i64::MIN + 2, i64::MIN + 3 * MICROS_PER_HOUR] {
            window.add(Timestamp(micros), 1.0);
        }
        assert_eq!(window.statistics().count, 3);
    }

    #[test]
    fn bytes_of_another_version_are_refused() {
        let mut bytes = [0; ZscoreWindow::ENCODED_LEN];
        assert!(ZscoreWindow::new().encode(&mut bytes));
        assert_eq!(ZscoreWindow::decode(&bytes), Some(ZscoreWindow::new()));
        assert!(!ZscoreWindow::new().encode(&mut bytes[1..]));
        assert_eq!(ZscoreWindow::decode(&bytes[..100]), None);
        bytes[0] = 0;
        assert_eq!(ZscoreWindow::decode(&bytes), None);
    }
}
