//! Partition plans neither overlap nor leave gaps.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use iot_core::partition::{PartitionInterval, PartitionRange, partition_name, plan, range_for};
use iot_core::time::{MICROS_PER_DAY, MICROS_PER_HOUR, Timestamp};
use proptest::prelude::*;

const INTERVALS: [PartitionInterval; 6] = PartitionInterval::ALL;

const TWENTY_YEARS: i64 = 20 * 365 * MICROS_PER_DAY + 5 * MICROS_PER_DAY;

fn first_of_2020() -> Timestamp {
    Timestamp::from_utc_civil(2020, 1, 1).unwrap()
}

fn interval() -> impl Strategy<Value = PartitionInterval> {
    proptest::sample::select(&INTERVALS[..])
}

fn time() -> impl Strategy<Value = Timestamp> {
    (0..TWENTY_YEARS).prop_map(|micros| Timestamp(first_of_2020().0 + micros))
}

/// Partitions that do not overlap, in any order, of any lengths, cut at whole hours or anywhere, within the
/// first months of 2020.
fn existing() -> impl Strategy<Value = Vec<PartitionRange>> {
    let bound = prop_oneof![0..100 * MICROS_PER_DAY, (0..2_400_i64).prop_map(|hour| hour * MICROS_PER_HOUR)];
    proptest::collection::btree_set(bound, 0..20)
        .prop_map(|bounds| {
            let bounds: Vec<_> =
                bounds.into_iter().map(|micros| Timestamp(first_of_2020().0 + micros)).collect();
            bounds.windows(2).map(|pair| PartitionRange { start: pair[0], end: pair[1] }).collect::<Vec<_>>()
        })
        .prop_flat_map(|ranges| {
            let count = ranges.len();
            proptest::sample::subsequence(ranges, 0..=count).prop_shuffle()
        })
}

/// Puts the ranges in order, and checks that none is empty and none overlaps the next.
fn sorted_without_overlap(mut ranges: Vec<PartitionRange>) -> Vec<PartitionRange> {
    ranges.sort_by_key(|range| range.start);
    assert!(ranges.iter().all(|range| range.start < range.end));
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
    ranges
}

/// Whether the sorted ranges cover everything from `start` to `end`.
fn cover(sorted: &[PartitionRange], start: Timestamp, end: Timestamp) -> bool {
    let covered_to =
        sorted.iter().fold(start, |to, range| if range.start <= to { to.max(range.end) } else { to });
    covered_to >= end
}

fn assert_names_differ(interval: PartitionInterval, ranges: &[PartitionRange]) {
    let names: HashSet<_> =
        ranges.iter().map(|range| partition_name("sensor_data", interval, *range)).collect();
    assert_eq!(names.len(), ranges.len());
}

#[test]
fn twenty_years_at_once() {
    for (interval, count) in INTERVALS.into_iter().zip([175_320, 7_305, 1_043, 240, 80, 20]) {
        let planned = plan(&[], interval, first_of_2020(), count);
        assert_eq!(planned.len(), usize::try_from(count).unwrap() + 1, "{interval:?}");
        assert!(planned.windows(2).all(|pair| pair[0].end == pair[1].start), "{interval:?}");
        assert!(
            planned.last().unwrap().contains(Timestamp(first_of_2020().0 + TWENTY_YEARS)),
            "{interval:?}"
        );
        assert!(planned.iter().all(|range| interval.range_containing(range.start) == Some(*range)));
        assert_names_differ(interval, &planned);
    }
}

/// A table that is maintained for twenty years, while its interval is changed again and again.
#[test]
fn twenty_years_of_maintenance_with_changing_intervals() {
    let mut partitions = Vec::new();
    let mut now = first_of_2020();
    let intervals = [
        PartitionInterval::Month,
        PartitionInterval::Day,
        PartitionInterval::Week,
        PartitionInterval::Day,
        PartitionInterval::Quarter,
    ];
    let mut last_end = now;
    for interval in intervals.into_iter().cycle() {
        if now.0 - first_of_2020().0 > TWENTY_YEARS {
            break;
        }
        let created = plan(&partitions, interval, now, 3);
        last_end = created.last().map_or(last_end, |range| range.end);
        partitions.extend(created);
        now = Timestamp(now.0 + 3 * MICROS_PER_DAY + MICROS_PER_HOUR);
        // Each round covers what comes before the next one.
        assert!(range_for(&partitions, interval, now).is_none());
    }
    let partitions = sorted_without_overlap(partitions);
    assert!(cover(&partitions, first_of_2020(), last_end));
    assert!(partitions.windows(2).all(|pair| pair[0].end == pair[1].start));
    assert_names_differ(PartitionInterval::Week, &partitions);
}

proptest! {
    #[test]
    fn a_plan_fills_the_gaps(
        existing in existing(),
        interval in interval(),
        day in 0..100_i64,
        premake in 0..30_u32,
    ) {
        let now = Timestamp(first_of_2020().0 + day * MICROS_PER_DAY);
        let planned = plan(&existing, interval, now, premake);
        let first = interval.range_containing(now).unwrap();
        let last = (0..premake).fold(first, |range, _| interval.next(range).unwrap());

        prop_assert!(planned.iter().all(|range| first.start <= range.start && range.end <= last.end));
        prop_assert!(planned.is_sorted_by_key(|range| range.start));
        let all = sorted_without_overlap([existing, planned].concat());
        prop_assert!(cover(&all, first.start, last.end));
        prop_assert_eq!(plan(&all, interval, now, premake), []);
        assert_names_differ(interval, &all);
    }

    #[test]
    fn each_planned_range_stays_in_the_grid(existing in existing(), interval in interval(), at in time()) {
        for range in plan(&existing, interval, at, 5) {
            let wanted = interval.range_containing(range.start).unwrap();
            prop_assert!(wanted.start <= range.start && range.end <= wanted.end);
        }
    }

    #[test]
    fn one_time_gets_one_range(existing in existing(), interval in interval(), hour in 0..2_400_i64) {
        let at = Timestamp(first_of_2020().0 + hour * MICROS_PER_HOUR);
        let covered = existing.iter().any(|range| range.contains(at));
        match range_for(&existing, interval, at) {
            None => prop_assert!(covered),
            Some(range) => {
                prop_assert!(!covered && range.contains(at));
                let wanted = interval.range_containing(at).unwrap();
                prop_assert!(wanted.start <= range.start && range.end <= wanted.end);
                // It is the whole gap: it cannot be made longer within the grid.
                let ends_at = |at| existing.iter().any(|other| other.end == at);
                let starts_at = |at| existing.iter().any(|other| other.start == at);
                prop_assert!(range.start == wanted.start || ends_at(range.start));
                prop_assert!(range.end == wanted.end || starts_at(range.end));
                let all = sorted_without_overlap([existing, vec![range]].concat());
                prop_assert_eq!(range_for(&all, interval, at), None);
            }
        }
    }

    #[test]
    fn names_fit(parent in "\\PC{0,80}", interval in interval(), at in time()) {
        let range = PartitionRange { start: at, end: Timestamp::INFINITY };
        let name = partition_name(&parent, interval, range);
        prop_assert!(name.len() <= 63 && name.contains("_20"));
    }

    #[test]
    fn no_input_panics(
        bounds in proptest::collection::vec(any::<(i64, i64)>(), 0..8),
        at in any::<i64>(),
        premake in 0..9_u32,
    ) {
        let existing: Vec<_> = bounds
            .into_iter()
            .map(|(one, other)| (Timestamp(one.min(other)), Timestamp(one.max(other))))
            .map(|(start, end)| PartitionRange { start, end })
            .collect();
        for interval in INTERVALS {
            for range in plan(&existing, interval, Timestamp(at), premake) {
                partition_name("t", interval, range);
            }
            let _ = range_for(&existing, interval, Timestamp(at));
        }
    }
}
