//! Times: buckets, partitions, acceptance, keys.

use iot_core::bucket::{BucketWidth, bucket_start, bucket_start_with_offset};
use iot_core::ingest::text::timestamp;
use iot_core::ingest::{DataIdGenerator, TimeVerdict, accept_time};
use iot_core::partition::{PartitionInterval, PartitionRange, partition_name, plan, range_for};
use iot_core::time::Timestamp;

use super::input::Input;
use super::json::says_what_to_do;

/// Times and lengths, mostly near the ends of their ranges.
pub fn time(data: &[u8]) {
    let mut input = Input::new(data);
    let (at, other, micros) = (input.timestamp(), input.timestamp(), input.micros());
    calendar(at, micros);
    buckets(&mut input, at, other);
    partitions(&mut input, at, other);
    match accept_time(at, other, input.timestamp(), input.micros()) {
        Ok(verdict) => {
            assert!(at.is_finite() && (verdict == TimeVerdict::OnTime || verdict == TimeVerdict::Future))
        }
        Err(error) => says_what_to_do(&error, error.hint()),
    }
    let mut keys = DataIdGenerator::default();
    let (one, next) = (keys.next(at.0, input.bytes8()), keys.next(micros, input.bytes8()));
    assert!(one[..8] <= next[..8]);
}

fn calendar(at: Timestamp, micros: i64) {
    let literal = at.to_utc_literal();
    if at.is_finite() {
        let date = at.utc_civil();
        let midnight = Timestamp::from_utc_civil(date.year, date.month, date.day);
        assert_eq!(
            midnight.and_then(|midnight| midnight.checked_add(at.utc_time_of_day().0)),
            Some(at),
            "{literal}"
        );
        if (1..=9999).contains(&date.year) {
            assert_eq!(timestamp(&literal), Some(at), "{literal}");
        }
    }
    if let Some(sum) = at.checked_add(micros) {
        assert!(!sum.is_finite() || (Timestamp::EARLIEST..Timestamp::RANGE_END).contains(&sum));
    }
}

fn buckets(input: &mut Input<'_>, at: Timestamp, origin: Timestamp) {
    let width = match BucketWidth::from_interval(input.i32(), input.i32(), input.micros()) {
        Ok(width) => width,
        Err(error) => {
            says_what_to_do(&error, error.hint());
            if input.flag() { BucketWidth::Months(input.i32()) } else { BucketWidth::Micros(input.micros()) }
        }
    };
    let offset = input.micros();
    let origin = input.flag().then_some(origin);
    for start in [bucket_start(width, at, origin), bucket_start_with_offset(width, at, offset)] {
        match start {
            Ok(start) => {
                assert!(start <= at && (start.is_finite() == at.is_finite()), "{width:?} {at:?} {start:?}")
            }
            Err(error) => says_what_to_do(&error, error.hint()),
        }
    }
    if let Ok(start) = bucket_start(width, at, origin) {
        assert_eq!(bucket_start(width, start, origin), Ok(start), "{width:?} {at:?}");
    }
}

fn partitions(input: &mut Input<'_>, at: Timestamp, other: Timestamp) {
    let interval = PartitionInterval::ALL[usize::from(input.byte()) % PartitionInterval::ALL.len()];
    let mut existing: Vec<PartitionRange> = Vec::new();
    for _ in 0..input.byte() % 5 {
        let (one, two) = (input.timestamp(), input.timestamp());
        let range = PartitionRange { start: one.min(two), end: one.max(two) };
        // PostgreSQL has no partitions that overlap, and none that is empty.
        let overlaps = |known: &PartitionRange| known.start < range.end && range.start < known.end;
        if range.start < range.end && !existing.iter().any(overlaps) {
            existing.push(range);
        }
    }
    if let Some(range) = range_for(&existing, interval, at) {
        assert!(range.contains(at) && range.start.is_finite() && range.end.is_finite());
        free(&existing, range);
        let name = partition_name(
            "äöü_a_table_with_a_long_name_that_leaves_little_room_for_more_é",
            interval,
            range,
        );
        assert!(name.len() <= 63);
    }
    let planned = plan(&existing, interval, other, u32::from(input.byte()));
    for (number, range) in planned.iter().enumerate() {
        assert!(range.start < range.end);
        free(&existing, *range);
        assert!(planned[number + 1..].iter().all(|later| range.end <= later.start));
    }
}

fn free(existing: &[PartitionRange], range: PartitionRange) {
    let overlaps = |known: &PartitionRange| known.start < range.end && range.start < known.end;
    assert!(!existing.iter().any(overlaps), "{range:?} {existing:?}");
}
