//! Laws of bucket arithmetic.

#![allow(clippy::unwrap_used)]

use iot_core::bucket::{BucketWidth, FIXED_ORIGIN, bucket_start, bucket_start_with_offset};
use iot_core::time::{MICROS_PER_DAY, MICROS_PER_HOUR, Timestamp};
use proptest::prelude::*;

/// A thousand years around the epoch.
const SPAN: i64 = 500 * 366 * MICROS_PER_DAY;

fn width() -> impl Strategy<Value = BucketWidth> {
    prop_oneof![
        (1..=1000 * MICROS_PER_DAY).prop_map(BucketWidth::Micros),
        (1..=500_i64).prop_map(|hours| BucketWidth::Micros(hours * MICROS_PER_HOUR)),
        (1..=240_i32).prop_map(BucketWidth::Months),
    ]
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (-SPAN..SPAN).prop_map(Timestamp)
}

/// An origin that both kinds of width accept.
fn origin() -> impl Strategy<Value = Option<Timestamp>> {
    let early_in_month =
        (1600..2400, 1..=12_u32, 1..=28_u32, 0..MICROS_PER_DAY).prop_map(|(year, month, day, time)| {
            Timestamp::from_utc_civil(year, month, day).unwrap().checked_add(time).unwrap()
        });
    proptest::option::of(early_in_month)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Midnight of the first day of each month from 1900 to 2100, counted day by day from 2000.
fn first_days() -> Vec<i64> {
    let lengths = |year| [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut day: i64 = -(1900..2000).map(|year| lengths(year).iter().sum::<i64>()).sum::<i64>();
    let mut first_days = Vec::new();
    for length in (1900..=2100).flat_map(lengths) {
        first_days.push(day * MICROS_PER_DAY);
        day += length;
    }
    first_days
}

proptest! {
    #[test]
    fn a_bucket_holds_its_timestamp(width in width(), at in timestamp(), origin in origin()) {
        let start = bucket_start(width, at, origin).unwrap();
        prop_assert!(start <= at);
        let longest = match width {
            BucketWidth::Micros(micros) => micros,
            BucketWidth::Months(months) => i64::from(months) * 31 * MICROS_PER_DAY,
        };
        prop_assert!(at.0 - start.0 < longest);
        prop_assert_eq!(bucket_start(width, start, origin), Ok(start));
    }

    #[test]
    fn buckets_keep_the_order_of_time(width in width(), times in [timestamp(), timestamp()], origin in origin()) {
        let start = |at| bucket_start(width, at, origin).unwrap();
        let [one, other] = times;
        prop_assert!(start(one.min(other)) <= start(one.max(other)));
    }

    /// The last microsecond before a start belongs to another bucket.
    #[test]
    fn buckets_meet(width in width(), at in timestamp(), origin in origin()) {
        let start = bucket_start(width, at, origin).unwrap();
        let before = bucket_start(width, Timestamp(start.0 - 1), origin).unwrap();
        prop_assert!(before < start);
        if let BucketWidth::Micros(micros) = width {
            prop_assert_eq!(before.0 + micros, start.0);
        }
    }

    #[test]
    fn fixed_widths_against_wide_integers(
        width in 1..i64::MAX,
        at in Timestamp::EARLIEST.0..Timestamp::RANGE_END.0,
        origin in proptest::option::of(Timestamp::EARLIEST.0..Timestamp::RANGE_END.0),
    ) {
        let from = i128::from(origin.unwrap_or(FIXED_ORIGIN.0));
        let expected = from + (i128::from(at) - from).div_euclid(i128::from(width)) * i128::from(width);
        let found = bucket_start(BucketWidth::Micros(width), Timestamp(at), origin.map(Timestamp));
        if expected < i128::from(Timestamp::EARLIEST.0) {
            prop_assert!(found.is_err());
        } else {
            prop_assert_eq!(found.map(|start| i128::from(start.0)), Ok(expected));
        }
    }

    #[test]
    fn months_against_a_calendar_counted_by_hand(months in 1..=60_i32, at in 0..200 * 365 * MICROS_PER_DAY) {
        let first_days = first_days();
        let at = first_days[0] + at;
        let width = usize::try_from(months).unwrap();
        // Starts are the months whose distance from January 2000, number 1200, divides by the width.
        let expected = (0..first_days.len())
            .filter(|month| month.abs_diff(1200).is_multiple_of(width) && first_days[*month] <= at)
            .map(|month| Timestamp(first_days[month]))
            .next_back();
        let found = bucket_start(BucketWidth::Months(months), Timestamp(at), None).unwrap();
        match expected {
            Some(start) => prop_assert_eq!(found, start),
            None => prop_assert!(found.0 < first_days[0]),
        }
    }

    #[test]
    fn an_offset_is_a_moved_origin(width in width(), at in timestamp(), offset in -SPAN..SPAN) {
        let found = bucket_start_with_offset(width, at, offset).unwrap();
        let back = bucket_start(width, Timestamp(at.0 - offset), None).unwrap();
        prop_assert_eq!(found.0, back.0 + offset);
        if let BucketWidth::Micros(_) = width {
            prop_assert_eq!(Ok(found), bucket_start(width, at, Some(Timestamp(FIXED_ORIGIN.0 + offset))));
        }
    }

    #[test]
    fn no_input_panics(
        width in prop_oneof![
            any::<i64>().prop_map(BucketWidth::Micros),
            any::<i32>().prop_map(BucketWidth::Months),
        ],
        interval in any::<(i32, i32, i64)>(),
        at in any::<i64>(),
        origin in proptest::option::of(any::<i64>()),
        offset in any::<i64>(),
    ) {
        let _ = BucketWidth::from_interval(interval.0, interval.1, interval.2);
        let _ = bucket_start(width, Timestamp(at), origin.map(Timestamp));
        let _ = bucket_start_with_offset(width, Timestamp(at), offset);
    }
}
