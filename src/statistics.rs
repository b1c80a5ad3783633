//! What the engine counts of itself, as SQL functions; the views over them are in `sql/schema/52_statistics.sql`.

use iot_core::time::Timestamp;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::{name, pg_extern};

use crate::pg::clock;
use crate::pg::shared::counters::{self, Counter};
use crate::pg::shared::sensors::{self, Occupancy};
use crate::pg::shared::slabs::{self, SlabOccupancy};

/// Names of the counters, in the order of [`Counter`].
const NAMES: [&str; counters::COUNTERS] = [
    "batches",
    "offered",
    "stored",
    "duplicates",
    "rejected",
    "anomalies",
    "onsets",
    "late",
    "alerts",
    "window_reads",
    "conflicts",
    "largest_batch",
    "look_up_nanoseconds",
    "score_nanoseconds",
    "store_nanoseconds",
    "alert_nanoseconds",
];

#[pg_extern(sql = false)]
fn ingest_counters() -> TableIterator<'static, (name!(counter_name, &'static str), name!(counter_value, i64))>
{
    let (counts, _) = counters::read();
    TableIterator::new(
        NAMES.into_iter().zip(counts).map(|(name, count)| (name, i64::try_from(count).unwrap_or(i64::MAX))),
    )
}

#[pg_extern(sql = false)]
fn ingest_counters_reset_at() -> Option<TimestampWithTimeZone> {
    let (_, reset_at) = counters::read();
    (reset_at != 0).then(|| clock::to_pg(Timestamp(reset_at)))
}

#[pg_extern(sql = false)]
fn ingest_counters_are_shared() -> bool {
    counters::are_shared()
}

#[pg_extern(sql = false)]
fn iot_stat_reset() {
    counters::reset(clock::now().0);
}

/// A count as SQL has it.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[pg_extern(sql = false)]
fn tracked_sensors_occupancy() -> TableIterator<
    'static,
    (
        name!(capacity, i64),
        name!(tracked, i64),
        name!(evicted, i64),
        name!(refused, i64),
        name!(rebuilt, i64),
        name!(merged, i64),
        name!(entry_bytes, i64),
    ),
> {
    let Occupancy { capacity, tracked, evicted, refused, rebuilt, merged, entry_bytes } =
        if sensors::is_available() { sensors::occupancy() } else { Occupancy::default() };
    TableIterator::once((
        signed(capacity),
        signed(tracked),
        signed(evicted),
        signed(refused),
        signed(rebuilt),
        signed(merged),
        signed(entry_bytes),
    ))
}

#[pg_extern(sql = false)]
fn tracked_detectors_occupancy() -> TableIterator<
    'static,
    (
        name!(detector_capacity, i64),
        name!(detectors, i64),
        name!(detectors_evicted, i64),
        name!(detectors_refused, i64),
        name!(detectors_overruled, i64),
        name!(detector_bytes, i64),
    ),
> {
    let SlabOccupancy { capacity, in_use, evicted, refused, overruled, slab_bytes } =
        if sensors::is_available() { slabs::slab_occupancy() } else { SlabOccupancy::default() };
    TableIterator::once((
        signed(capacity),
        signed(in_use),
        signed(evicted),
        signed(refused),
        signed(overruled),
        signed(slab_bytes),
    ))
}

/// Compile-time reminder that [`NAMES`] ends with the last counter.
const _: () = assert!(Counter::AlertNanoseconds as usize + 1 == NAMES.len());
