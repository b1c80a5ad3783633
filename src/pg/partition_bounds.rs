//! The time ranges of a partitioned table, straight from PostgreSQL's relation cache: always current, no query.

use std::ffi::CStr;

use iot_core::partition::PartitionRange;
use iot_core::time::{MICROS_PER_DAY, Timestamp};
use pgrx::{PgSqlErrorCode, pg_sys};

use super::relation::OpenRelation;
use crate::error::{IotError, IotResult};

/// Type of a column by which a table can be partitioned. Times without a zone and dates count as UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeType {
    /// `timestamp with time zone`.
    TimestampTz,
    /// `timestamp without time zone`.
    Timestamp,
    /// `date`.
    Date,
}

impl TimeType {
    fn of(column_type: pg_sys::Oid) -> Option<Self> {
        match column_type {
            pg_sys::TIMESTAMPTZOID => Some(Self::TimestampTz),
            pg_sys::TIMESTAMPOID => Some(Self::Timestamp),
            pg_sys::DATEOID => Some(Self::Date),
            _ => None,
        }
    }

    /// `at` as the text of a literal of the type.
    pub fn literal(self, at: Timestamp) -> String {
        let text = at.to_utc_literal();
        // An era stays behind what is left out.
        match self {
            Self::TimestampTz => text,
            Self::Timestamp => text.replacen("+00", "", 1),
            Self::Date => match text.split_once(' ') {
                Some((date, _)) if text.ends_with(" BC") => format!("{date} BC"),
                Some((date, _)) => date.to_owned(),
                None => text,
            },
        }
    }

    /// A bound of the type.
    fn read(self, bound: pg_sys::Datum) -> Timestamp {
        match self {
            Self::TimestampTz | Self::Timestamp => Timestamp(bound.value() as i64),
            Self::Date => match bound.value() as i32 {
                i32::MIN => Timestamp::NEGATIVE_INFINITY,
                i32::MAX => Timestamp::INFINITY,
                days => Timestamp(i64::from(days).saturating_mul(MICROS_PER_DAY)),
            },
        }
    }
}

/// Ranges of the partitions of `parent`, in order of time.
///
/// # Errors
/// 42809 when it is not partitioned by range over one column of time.
pub fn ranges(parent: &OpenRelation) -> IotResult<Vec<PartitionRange>> {
    Ok(partitions(parent)?.into_iter().map(|(_, range)| range).collect())
}

/// The partitions of `parent` with their ranges, in order of time. Those that are being detached are left out.
///
/// # Errors
/// As [`ranges`].
pub fn partitions(parent: &OpenRelation) -> IotResult<Vec<(pg_sys::Oid, PartitionRange)>> {
    let (_, time_type) = check_partitioned_by_time(parent)?;
    let bounds = bounds(parent, time_type);
    Ok((0..bounds.len())
        .filter_map(|upper| Some((bounds.range_below(upper)?, upper)))
        .map(|(range, upper)| (bounds.partition_below(upper), range))
        .collect())
}

/// The default partition of `parent`, if it has one.
///
/// # Errors
/// As [`ranges`].
pub fn default_partition(parent: &OpenRelation) -> IotResult<Option<pg_sys::Oid>> {
    let (_, time_type) = check_partitioned_by_time(parent)?;
    Ok(bounds(parent, time_type).default_partition())
}

/// A time in each range that `times` need and no partition of `parent` has: usually none. A binary search per time, and
/// not even that while they stay in one partition.
///
/// # Errors
/// As [`ranges`].
pub fn uncovered(parent: &OpenRelation, times: impl Iterator<Item = Timestamp>) -> IotResult<Vec<Timestamp>> {
    let (_, time_type) = check_partitioned_by_time(parent)?;
    let bounds = bounds(parent, time_type);
    let mut missing = Vec::new();
    let mut last: Option<PartitionRange> = None;
    for at in times {
        if last.is_some_and(|range| range.contains(at)) {
            continue;
        }
        let upper = bounds.first_above(at);
        last = (upper < bounds.len()).then(|| bounds.range_below(upper)).flatten();
        if last.is_none() {
            missing.push(at);
        }
    }
    missing.sort_unstable();
    missing.dedup();
    Ok(missing)
}

/// Where a row of some time goes.
pub(super) enum Route {
    /// To this partition, which takes the times of the range.
    Partition(pg_sys::Oid, PartitionRange),
    /// To the default partition.
    Default,
    /// Nowhere.
    Missing,
}

/// The partition of `parent` for the time `at`. `parent` has a [`time_column_number`]: the caller made sure of it.
pub(super) fn route(parent: &OpenRelation, at: Timestamp) -> Route {
    let bounds = bounds(parent, TimeType::TimestampTz);
    let upper = bounds.first_above(at);
    if upper < bounds.len()
        && let Some(range) = bounds.range_below(upper)
    {
        return Route::Partition(bounds.partition_below(upper), range);
    }
    if bounds.has_default() { Route::Default } else { Route::Missing }
}

/// The number of the column by which `parent` is partitioned, if it is partitioned by range over one `timestamptz`.
pub(super) fn time_column_number(parent: &OpenRelation) -> Option<i16> {
    single_range_column(parent.oid())
        // SAFETY: the column exists.
        .filter(|&column| unsafe { pg_sys::get_atttype(parent.oid(), column) } == pg_sys::TIMESTAMPTZOID)
}

/// Name of the column by which `parent` is partitioned.
///
/// # Errors
/// As [`ranges`].
pub fn time_column(parent: &OpenRelation) -> IotResult<String> {
    let (column, _) = check_partitioned_by_time(parent)?;
    // SAFETY: the column exists; its name comes back as a fresh, NUL-terminated copy.
    let name = unsafe { CStr::from_ptr(pg_sys::get_attname(parent.oid(), column, false)) };
    Ok(name.to_string_lossy().into_owned())
}

/// Type of the column by which `parent` is partitioned.
///
/// # Errors
/// As [`ranges`].
pub fn time_type(parent: &OpenRelation) -> IotResult<TimeType> {
    check_partitioned_by_time(parent).map(|(_, time_type)| time_type)
}

/// Number and type of the partitioning column, when it is the only one, plain, and a time.
fn check_partitioned_by_time(parent: &OpenRelation) -> IotResult<(i16, TimeType)> {
    single_range_column(parent.oid())
        .and_then(|column| {
            // SAFETY: the column exists.
            let column_type = unsafe { pg_sys::get_atttype(parent.oid(), column) };
            Some((column, TimeType::of(column_type)?))
        })
        .ok_or_else(|| {
            IotError::new(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!(
                    "table \"{}\" is not partitioned by range over one timestamptz, timestamp or date column",
                    parent.name()
                ),
            )
            .hint("Name a table created with PARTITION BY RANGE (<timestamptz column>).")
        })
}

/// From the cached row of `pg_partitioned_table`; an expression has column number 0.
fn single_range_column(table: pg_sys::Oid) -> Option<i16> {
    const STRATEGY: i16 = 2;
    const COLUMN_COUNT: i16 = 3;
    const COLUMNS: i16 = 5;
    // SAFETY: attribute numbers and types are those of pg_partitioned_table in PostgreSQL 11 to 18; the three columns
    // are never NULL; the vector has at least one entry, read before the tuple is released.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PARTRELID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, table.into());
        if tuple.is_null() {
            return None;
        }
        let mut is_null = false;
        let strategy = pg_sys::SysCacheGetAttr(cache, tuple, STRATEGY, &mut is_null).value() as u8;
        let count = pg_sys::SysCacheGetAttr(cache, tuple, COLUMN_COUNT, &mut is_null).value() as i16;
        let columns: *const pg_sys::int2vector =
            pg_sys::SysCacheGetAttr(cache, tuple, COLUMNS, &mut is_null).cast_mut_ptr();
        let first = (*columns).values.as_slice(1)[0];
        pg_sys::ReleaseSysCache(tuple);
        (strategy == b'r' && count == 1 && first > 0).then_some(first)
    }
}

/// The bounds as of now.
///
/// PostgreSQL keeps a stale descriptor when another session's ATTACH commits while it builds one: the invalidation
/// arrives in the middle, and the result, already behind, is stored after it. So a build during which messages arrived
/// is thrown away and done again.
fn bounds(parent: &OpenRelation, time_type: TimeType) -> Bounds {
    loop {
        // SAFETY: the relation is open and partitioned (checked by the callers); the descriptor lives in the relation
        // cache as long as the relation is open, and no partition being detached is wanted (`omit_detached`). The
        // counter belongs to this backend. Flushing the entry of an open relation keeps what is in use.
        unsafe {
            let before = pg_sys::SharedInvalidMessageCounter;
            let descriptor = pg_sys::RelationGetPartitionDesc(parent.cache_entry(), true);
            if pg_sys::SharedInvalidMessageCounter == before {
                return Bounds { descriptor, bounds: (*descriptor).boundinfo, time_type };
            }
            pg_sys::RelationCacheInvalidateEntry(parent.oid());
        }
    }
}

/// PostgreSQL's sorted list of range bounds. Null when there is no partition at all.
///
/// For a range-partitioned table, `indexes[i]` is the partition whose upper bound is `datums[i]`, or −1 for a gap.
struct Bounds {
    descriptor: pg_sys::PartitionDesc,
    bounds: pg_sys::PartitionBoundInfo,
    time_type: TimeType,
}

impl Bounds {
    fn len(&self) -> usize {
        if self.bounds.is_null() {
            return 0;
        }
        // SAFETY: not null, and valid while the relation is open.
        usize::try_from(unsafe { (*self.bounds).ndatums }).unwrap_or(0)
    }

    /// The bound at `index`; MINVALUE and MAXVALUE read as the infinities.
    fn value(&self, index: usize) -> Timestamp {
        debug_assert!(index < self.len());
        // SAFETY: `index` is below `ndatums`; both arrays have that many rows of one column each.
        unsafe {
            let kind = **(*self.bounds).kind.add(index);
            match kind {
                pg_sys::PartitionRangeDatumKind::PARTITION_RANGE_DATUM_MINVALUE => Timestamp(i64::MIN),
                pg_sys::PartitionRangeDatumKind::PARTITION_RANGE_DATUM_MAXVALUE => Timestamp(i64::MAX),
                _ => self.time_type.read(**(*self.bounds).datums.add(index)),
            }
        }
    }

    /// The first bound above `at`: the upper bound of the range that would hold it.
    fn first_above(&self, at: Timestamp) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.value(middle) <= at { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn has_default(&self) -> bool {
        // SAFETY: not null, and valid while the relation is open; −1 says that there is none.
        !self.bounds.is_null() && unsafe { (*self.bounds).default_index } >= 0
    }

    fn default_partition(&self) -> Option<pg_sys::Oid> {
        // SAFETY: the place of the default partition, where there is one, is within `oids` of the same descriptor.
        self.has_default()
            .then(|| unsafe { *(*self.descriptor).oids.add((*self.bounds).default_index as usize) })
    }

    /// The partition below `upper`, which has one.
    fn partition_below(&self, upper: usize) -> pg_sys::Oid {
        debug_assert!(self.has_partition_below(upper));
        // SAFETY: a number in `indexes` that is not negative is one of a partition in `oids` of the same descriptor.
        unsafe { *(*self.descriptor).oids.add(*(*self.bounds).indexes.add(upper) as usize) }
    }

    fn has_partition_below(&self, upper: usize) -> bool {
        debug_assert!(upper < self.len());
        // SAFETY: `indexes` has `ndatums + 1` entries.
        unsafe { *(*self.bounds).indexes.add(upper) >= 0 }
    }

    fn range_below(&self, upper: usize) -> Option<PartitionRange> {
        (upper > 0 && self.has_partition_below(upper))
            .then(|| PartitionRange { start: self.value(upper - 1), end: self.value(upper) })
    }
}
