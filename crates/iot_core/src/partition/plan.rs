//! Which partitions to create, given those that exist.

use super::{PartitionInterval, PartitionRange};
use crate::time::Timestamp;

/// The ranges to create so that the range of `now` and the `premake` after it are covered, in order of time.
///
/// What `existing` partitions cover is left out, so nothing overlaps; a range that is covered in part yields
/// its gaps. `existing` may be in any order, of any lengths, and reach to infinity. The plan ends early at
/// the end of the range of `timestamptz`.
pub fn plan(
    existing: &[PartitionRange],
    interval: PartitionInterval,
    now: Timestamp,
    premake: u32,
) -> Vec<PartitionRange> {
    std::iter::successors(interval.range_containing(now), |range| interval.next(*range))
        .zip(0..=premake)
        .flat_map(|(wanted, _)| gaps(wanted, existing))
        .collect()
}

/// The range to create so that `at` is covered: its range of the grid, cut to the gap in `existing`.
///
/// `None` when `at` is covered already, or no partition can cover it.
pub fn range_for(
    existing: &[PartitionRange],
    interval: PartitionInterval,
    at: Timestamp,
) -> Option<PartitionRange> {
    if existing.iter().any(|range| range.contains(at)) {
        return None;
    }
    interval.range_containing(at).map(|wanted| gap_around(at, wanted, existing))
}

fn gaps(wanted: PartitionRange, existing: &[PartitionRange]) -> Vec<PartitionRange> {
    let mut gaps = Vec::new();
    let mut covered_to = wanted.start;
    while covered_to < wanted.end {
        covered_to = match existing.iter().find(|range| range.contains(covered_to)) {
            Some(range) => range.end,
            None => {
                let gap = gap_around(covered_to, wanted, existing);
                gaps.push(gap);
                gap.end
            }
        };
    }
    gaps
}

/// The part of `wanted` around the uncovered time `at` that no existing partition covers.
fn gap_around(at: Timestamp, wanted: PartitionRange, existing: &[PartitionRange]) -> PartitionRange {
    let before = existing.iter().map(|range| range.end).filter(|end| *end <= at).max();
    let after = existing.iter().map(|range| range.start).filter(|start| *start > at).min();
    PartitionRange {
        start: before.map_or(wanted.start, |end| end.max(wanted.start)),
        end: after.map_or(wanted.end, |start| start.min(wanted.end)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(year: i32, month: u32, day: u32) -> Timestamp {
        Timestamp::from_utc_civil(year, month, day).unwrap()
    }

    fn range(start: Timestamp, end: Timestamp) -> PartitionRange {
        PartitionRange { start, end }
    }

    fn month(year: i32, month: u32) -> PartitionRange {
        PartitionInterval::Month.range_containing(day(year, month, 1)).unwrap()
    }

    #[test]
    fn the_current_range_and_those_after_it() {
        let now = day(2026, 11, 19);
        let all = plan(&[], PartitionInterval::Month, now, 2);
        assert_eq!(all, [month(2026, 11), month(2026, 12), month(2027, 1)]);
        assert_eq!(plan(&[], PartitionInterval::Month, now, 0), [month(2026, 11)]);
        assert_eq!(plan(&all, PartitionInterval::Month, now, 2), []);
        assert_eq!(plan(&all, PartitionInterval::Month, now, 3), [month(2027, 2)]);
    }

    #[test]
    fn what_exists_is_left_out() {
        let existing = [
            range(day(2026, 12, 10), day(2026, 12, 20)),
            range(day(2026, 10, 1), day(2026, 11, 5)),
            range(day(2026, 12, 20), day(2026, 12, 21)),
        ];
        assert_eq!(
            plan(&existing, PartitionInterval::Month, day(2026, 11, 1), 1),
            [
                range(day(2026, 11, 5), day(2026, 12, 1)),
                range(day(2026, 12, 1), day(2026, 12, 10)),
                range(day(2026, 12, 21), day(2027, 1, 1)),
            ]
        );
    }

    #[test]
    fn partitions_that_reach_to_infinity() {
        let past = range(Timestamp::NEGATIVE_INFINITY, day(2026, 11, 5));
        let future = range(day(2026, 12, 5), Timestamp::INFINITY);
        assert_eq!(
            plan(&[future, past], PartitionInterval::Month, day(2026, 11, 1), 12),
            [range(day(2026, 11, 5), day(2026, 12, 1)), range(day(2026, 12, 1), day(2026, 12, 5))]
        );
        let everything = range(Timestamp::NEGATIVE_INFINITY, Timestamp::INFINITY);
        assert_eq!(plan(&[everything], PartitionInterval::Month, day(2026, 11, 1), 3), []);
    }

    #[test]
    fn a_plan_ends_with_the_calendar() {
        let planned = plan(&[], PartitionInterval::Month, day(294_276, 10, 1), u32::MAX);
        assert_eq!(planned, [month(294_276, 10), month(294_276, 11)]);
        assert_eq!(plan(&[], PartitionInterval::Day, Timestamp::INFINITY, 1), []);
    }

    #[test]
    fn the_range_for_one_time() {
        let interval = PartitionInterval::Month;
        let existing =
            [range(day(2026, 11, 1), day(2026, 11, 8)), range(day(2026, 11, 20), day(2026, 11, 25))];
        for (at, expected) in [
            (day(2026, 11, 7), None),
            (day(2026, 11, 20), None),
            (day(2026, 11, 8), Some(range(day(2026, 11, 8), day(2026, 11, 20)))),
            (day(2026, 11, 25), Some(range(day(2026, 11, 25), day(2026, 12, 1)))),
            (day(2026, 10, 31), Some(month(2026, 10))),
            (day(2026, 12, 1), Some(month(2026, 12))),
            (Timestamp::INFINITY, None),
        ] {
            assert_eq!(range_for(&existing, interval, at), expected, "{}", at.to_utc_literal());
        }
    }
}
