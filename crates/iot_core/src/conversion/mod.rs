//! A plain table that becomes partitioned while it is in use: the steps, their pace, and the texts that change on the way.

mod definition;
mod phase;

pub use definition::{Definition, with_column};
pub use phase::Phase;

use std::time::Duration;

use crate::partition::{PartitionInterval, PartitionRange};
use crate::time::Timestamp;

/// More partitions than that are not made for the rows that are there: planning a query would take too long.
pub const MOST_PARTITIONS: u32 = 2_000;

/// Longest name in PostgreSQL, in bytes (NAMEDATALEN − 1).
const MAXIMUM_NAME_LENGTH: usize = 63;

/// How many ranges of the grid there are from the one of `from` to the one of `to`; at most one more than
/// [`MOST_PARTITIONS`]. `None` when one of the two is in no range.
pub fn ranges_between(interval: PartitionInterval, from: Timestamp, to: Timestamp) -> Option<u32> {
    let last = interval.range_containing(to)?;
    let first = interval.range_containing(from)?;
    let upto = |range: &PartitionRange| range.start <= last.start;
    let ranges = std::iter::successors(Some(first), |range| interval.next(*range));
    Some(ranges.take_while(upto).zip(0..=MOST_PARTITIONS).count() as u32)
}

/// How long to wait before something is tried again that failed `attempts` times in a row.
pub fn pause_before(attempts: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(10);
    match attempts {
        0 => Duration::ZERO,
        failed => FIRST.saturating_mul(1 << (failed - 1).min(10)).min(LONGEST),
    }
}

/// How long writers may be kept waiting for the swap: shorter than the time after which PostgreSQL looks for deadlocks, so
/// that it is never one of them who pays for one.
pub fn longest_hold(deadlock_timeout: Duration) -> Duration {
    deadlock_timeout * 4 / 5
}

/// `name` with a suffix, within 63 bytes.
pub fn suffixed(name: &str, suffix: &str) -> String {
    let room = MAXIMUM_NAME_LENGTH.saturating_sub(suffix.len());
    format!("{}{suffix}", &name[..name.floor_char_boundary(room)])
}

/// What an index or the like is called until it takes over the name of the one that it is made after. A number made of that
/// name keeps apart what was cut.
pub fn staged_name(name: &str) -> String {
    // FNV-1a: the same for ever, as a conversion may be finished by a later version.
    let number =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    suffixed(name, &format!("_{number:08x}_partitioned"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(year: i32, month: u32, day: u32) -> Timestamp {
        Timestamp::from_utc_civil(year, month, day).unwrap()
    }

    #[test]
    fn ranges_are_counted() {
        let month = PartitionInterval::Month;
        assert_eq!(ranges_between(month, day(2026, 1, 31), day(2026, 1, 1)), Some(1));
        assert_eq!(ranges_between(month, day(2026, 1, 31), day(2026, 3, 1)), Some(3));
        assert_eq!(ranges_between(month, day(2026, 3, 1), day(2026, 1, 31)), Some(0));
        assert_eq!(ranges_between(PartitionInterval::Day, day(2020, 1, 1), day(2021, 1, 1)), Some(367));
        assert_eq!(
            ranges_between(PartitionInterval::Hour, day(1, 1, 1), day(9999, 1, 1)),
            Some(MOST_PARTITIONS + 1)
        );
        assert_eq!(ranges_between(month, Timestamp::NEGATIVE_INFINITY, day(2026, 1, 1)), None);
        assert_eq!(ranges_between(month, day(2026, 1, 1), Timestamp::INFINITY), None);
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let seconds: Vec<f64> = (0..12).map(|attempts| pause_before(attempts).as_secs_f64()).collect();
        assert_eq!(seconds, [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]);
        assert_eq!(pause_before(u32::MAX), Duration::from_secs(10));
    }

    #[test]
    fn writers_never_wait_until_deadlocks_are_looked_for() {
        let second = Duration::from_secs(1);
        assert_eq!(longest_hold(second), Duration::from_millis(800));
    }

    #[test]
    fn names_fit() {
        assert_eq!(suffixed("readings", "_partitioned"), "readings_partitioned");
        assert_eq!(suffixed(&"é".repeat(31), "_before_conversion").len(), 62);
        assert_eq!(staged_name("readings_pkey"), "readings_pkey_f16e8c76_partitioned");
        let [one, other] = ["1", "2"].map(|end| staged_name(&format!("{}{end}", "x".repeat(62))));
        assert_eq!((one.len(), other.len(), one == other), (63, 63, false));
    }
}
