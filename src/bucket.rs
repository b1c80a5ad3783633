//! `time_bucket`: the start of the bucket that holds a moment.

use iot_core::bucket::{self, BucketWidth};
use iot_core::time::Timestamp;
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::pg_extern;

use crate::error::{IotError, OrRaise};
use crate::pg::clock;

#[pg_extern(sql = false)]
fn time_bucket(bucket_width: Interval, ts: TimestampWithTimeZone) -> TimestampWithTimeZone {
    start(bucket::bucket_start(width(&bucket_width), clock::from_pg(ts), None).or_raise())
}

#[pg_extern(sql = false)]
fn time_bucket_origin(
    bucket_width: Interval,
    ts: TimestampWithTimeZone,
    origin: TimestampWithTimeZone,
) -> TimestampWithTimeZone {
    let origin = Some(clock::from_pg(origin));
    start(bucket::bucket_start(width(&bucket_width), clock::from_pg(ts), origin).or_raise())
}

#[pg_extern(sql = false)]
fn time_bucket_offset(
    bucket_width: Interval,
    ts: TimestampWithTimeZone,
    bucket_offset: Interval,
) -> TimestampWithTimeZone {
    if bucket_offset.months() != 0 {
        IotError::invalid_argument(format!(
            "offset of {} months is not a fixed length",
            bucket_offset.months()
        ))
        .hint("Give the offset in days, hours or smaller units, or use origin.")
        .raise();
    }
    let day = iot_core::time::MICROS_PER_DAY;
    let offset = i64::from(bucket_offset.days()).saturating_mul(day).saturating_add(bucket_offset.micros());
    start(bucket::bucket_start_with_offset(width(&bucket_width), clock::from_pg(ts), offset).or_raise())
}

fn width(interval: &Interval) -> BucketWidth {
    BucketWidth::from_interval(interval.months(), interval.days(), interval.micros()).or_raise()
}

fn start(bucket: Timestamp) -> TimestampWithTimeZone {
    clock::to_pg(bucket)
}
