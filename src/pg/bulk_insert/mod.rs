//! Storing rows into a table partitioned by time, past the executor: as COPY does, but from values in memory.
//!
//! No statement, no text, no plan: rows are routed by a binary search, buffered per partition, and written many at a
//! time, their index entries after them. Whatever COPY would need the executor's machinery for (triggers, row security,
//! foreign partitions, …) is refused at the start, and the caller stores such rows by an INSERT.

mod compat;
mod free_keys;
mod key_probe;
mod layout;
mod leaf;
mod triggers;

use std::ffi::CStr;
use std::rc::Rc;

use iot_core::partition::PartitionRange;
use iot_core::time::Timestamp;
use pgrx::{PgSqlErrorCode, pg_sys};

pub use self::free_keys::free_keys;
use self::layout::ParentLayout;
use self::leaf::Leaf;
use super::partition_bounds::{self, Route};
use super::relation::OpenRelation;
use super::value::ColumnValue;
use crate::error::{IotError, IotResult};

/// Names and types of the columns that each row gives, in the order of its values. Name them once, in a `static`: what
/// is worked out for them is kept under its address.
pub type Columns = &'static [(&'static CStr, pg_sys::Oid)];

/// Rows buffered in all, before they are written (COPY has the same).
const MOST_ROWS: usize = 1000;
/// Their size in all.
const MOST_BYTES: usize = 256 * 1024;
/// Partitions open at a time (COPY has the same).
const MOST_LEAVES: usize = 32;

/// Rows on their way into a partitioned table.
///
/// Open, fill and finish it in the same (sub)transaction. One that is dropped without [`BulkInsert::finish`] must be
/// followed by an ERROR: what it holds is released at the end of the (sub)transaction, and rows still buffered are gone.
#[must_use]
pub struct BulkInsert<'parent> {
    parent: &'parent OpenRelation,
    layout: Rc<ParentLayout>,
    column_count: usize,
    ignored_triggers: &'parent [&'parent CStr],
    has_key: bool,
    leaves_traces: bool,
    /// Where partitions are opened: what was current at the start, and so lives until the end.
    memory: pg_sys::MemoryContext,
    /// In the order in which they were first used.
    leaves: Vec<Leaf>,
    /// Place in `leaves` of the last row's partition.
    last: usize,
    /// Times of partitions that ask for the executor.
    refused: Vec<PartitionRange>,
    next_row: u32,
    buffered_rows: usize,
    buffered_bytes: usize,
    conflicts: Vec<u32>,
}

/// Whether an INSERT into `parent` fires a trigger whose name is not in `ignored`.
pub fn fires_triggers(parent: &OpenRelation, ignored: &[&CStr]) -> bool {
    // SAFETY: the relation is open.
    unsafe { triggers::fire_on_insert(parent.cache_entry(), ignored, false) }
}

impl<'parent> BulkInsert<'parent> {
    /// Begins to store rows of `columns` into `parent`, which is partitioned by range over one `timestamptz` column,
    /// one of `columns`. Triggers whose name is in `ignored_triggers` do not fire.
    ///
    /// `None` when an INSERT must do it: because of other triggers, rules, row security, a privilege that is missing on
    /// the table (perhaps it is there on the columns), or columns of another kind than expected.
    ///
    /// Raises 25006 in a read-only transaction, and during recovery.
    pub fn open(
        parent: &'parent OpenRelation,
        columns: Columns,
        ignored_triggers: &'parent [&'parent CStr],
    ) -> Option<Self> {
        let relation = parent.cache_entry();
        // SAFETY: the relation is open, and so its pg_class row valid; the rest reads backend variables and the
        // catalogue cache, or raises. The lock is what an INSERT takes: no partition goes away while it is held.
        unsafe {
            if pg_sys::XactReadOnly {
                pg_sys::PreventCommandIfReadOnly(c"INSERT".as_ptr());
            }
            pg_sys::PreventCommandIfParallelMode(c"INSERT".as_ptr());
            pg_sys::LockRelationOid(parent.oid(), pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
            let form = (*relation).rd_rel;
            let hook = pg_sys::ExecutorCheckPerms_hook;
            let is_plain = (*form).relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE
                && (*form).relpersistence as u8 == pg_sys::RELPERSISTENCE_PERMANENT
                // A partition itself: its own bounds would have to be checked.
                && !(*form).relispartition
                // Something that wants to see every access, as sepgsql does.
                && hook.is_none()
                && !triggers::has_insert_rule(relation)
                && !triggers::fire_on_insert(relation, ignored_triggers, false);
            let may_insert = is_plain
                && pg_sys::pg_class_aclcheck(
                    parent.oid(),
                    pg_sys::GetUserId(),
                    pg_sys::ACL_INSERT as pg_sys::AclMode,
                ) == pg_sys::AclResult::ACLCHECK_OK
                && pg_sys::check_enable_rls(parent.oid(), pg_sys::InvalidOid, true)
                    != pg_sys::CheckEnableRlsResult::RLS_ENABLED as std::ffi::c_int;
            if !may_insert {
                return None;
            }
        }
        let layout = layout::of_parent(relation, columns, partition_bounds::time_column_number(parent)?)?;
        // SAFETY: the relation is open; the current context outlives this call's work.
        let (has_key, memory) =
            unsafe { (compat::primary_key(relation).is_some(), pg_sys::CurrentMemoryContext) };
        Some(Self {
            parent,
            layout,
            column_count: columns.len(),
            ignored_triggers,
            has_key,
            leaves_traces: true,
            memory,
            leaves: Vec::new(),
            last: 0,
            refused: Vec::new(),
            next_row: 0,
            buffered_rows: 0,
            buffered_bytes: 0,
            conflicts: Vec::new(),
        })
    }

    /// Rows that turn out to be duplicates leave nothing behind, at the price of storing one at a time.
    ///
    /// Otherwise such a row is there for other sessions until the (sub)transaction ends, and they wait for it. A caller who
    /// neither rolls that back nor is alone with his keys needs this: two sessions that each left such a row, and then wait
    /// for the one that has the key, would be waiting for each other when that one rolls back.
    pub fn without_traces(mut self) -> Self {
        self.leaves_traces = false;
        self
    }

    /// Adds one row, whose values need to live only during the call. Rows are numbered from 0 in the order of the calls
    /// that took them or refused them.
    ///
    /// `false` when the row was not taken, because its partition asks for the executor: then an INSERT must store it.
    ///
    /// # Errors
    /// 23514 when there is no partition for its time. NOT NULL and CHECK raise as in an INSERT.
    pub fn append(&mut self, values: &[pg_sys::Datum], nulls: &[bool]) -> IotResult<bool> {
        if values.len() != self.column_count || nulls.len() != self.column_count {
            return Err(IotError::new(
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                format!("a row of {} values for {} columns", values.len(), self.column_count),
            ));
        }
        let number = self.next_row;
        self.next_row += 1;
        let at = Timestamp(values[self.layout.time].value() as i64);
        // The infinities stand for open bounds in the search, so let the executor find their place.
        if nulls[self.layout.time] || at.0 == i64::MIN || at.0 == i64::MAX {
            return Ok(false);
        }
        let Some(place) = self.place_of(at)? else { return Ok(false) };
        let Some(leaf) = self.leaves.get_mut(place) else { return Ok(false) };
        self.last = place;
        self.buffered_bytes += leaf.append(number, values, nulls);
        self.buffered_rows += 1;
        if self.buffered_rows >= MOST_ROWS || self.buffered_bytes >= MOST_BYTES {
            self.flush();
        }
        Ok(true)
    }

    /// As [`BulkInsert::append`], from typed values.
    ///
    /// # Errors
    /// As [`BulkInsert::append`].
    pub fn append_values<const COLUMNS: usize>(
        &mut self,
        values: &[ColumnValue<'_>; COLUMNS],
    ) -> IotResult<bool> {
        let pairs = values.map(ColumnValue::to_datum);
        self.append(&pairs.map(|(datum, _)| datum), &pairs.map(|(_, is_null)| is_null))
    }

    /// Writes what is buffered, and makes it visible to the rest of the transaction.
    ///
    /// Returns the numbers of the rows that were not stored, in order: their primary key is taken by a committed row,
    /// by one in progress in another session, or by an earlier one of this bulk insert. As the other session may yet
    /// abort, the last word on such a row is an INSERT … ON CONFLICT DO NOTHING, which waits for it.
    pub fn finish(mut self) -> Vec<u32> {
        self.flush();
        for leaf in self.leaves.drain(..) {
            leaf.close();
        }
        // SAFETY: ends a command of the current transaction; nothing of it is open any more.
        unsafe { pg_sys::CommandCounterIncrement() };
        self.conflicts.sort_unstable();
        self.conflicts
    }

    fn flush(&mut self) {
        for leaf in &mut self.leaves {
            leaf.flush(&mut self.conflicts);
        }
        self.buffered_rows = 0;
        self.buffered_bytes = 0;
    }

    /// The place in `leaves` of the partition for `at`; `None` when the executor must store the row.
    fn place_of(&mut self, at: Timestamp) -> IotResult<Option<usize>> {
        if self.leaves.get(self.last).is_some_and(|leaf| leaf.range.contains(at)) {
            return Ok(Some(self.last));
        }
        if let Some(place) = self.leaves.iter().position(|leaf| leaf.range.contains(at)) {
            return Ok(Some(place));
        }
        if self.refused.iter().any(|range| range.contains(at)) {
            return Ok(None);
        }
        match partition_bounds::route(self.parent, at) {
            Route::Partition(relation, range) => Ok(self.open_leaf(relation, range)),
            Route::Default => Ok(None),
            Route::Missing => Err(IotError::new(
                PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
                format!("no partition of relation \"{}\" found for row", self.parent.name()),
            )),
        }
    }

    fn open_leaf(&mut self, relation: pg_sys::Oid, range: PartitionRange) -> Option<usize> {
        if self.leaves.len() >= MOST_LEAVES {
            self.flush();
            self.leaves.remove(0).close();
        }
        // SAFETY: the context that was current at the start is alive, as this value does not outlive its call.
        let before = unsafe { pg_sys::MemoryContextSwitchTo(self.memory) };
        let leaf = Leaf::open(
            relation,
            range,
            &self.layout,
            self.has_key,
            self.leaves_traces,
            self.ignored_triggers,
        );
        // SAFETY: back to what was current.
        unsafe { pg_sys::MemoryContextSwitchTo(before) };
        match leaf {
            Some(leaf) => {
                self.leaves.push(leaf);
                Some(self.leaves.len() - 1)
            }
            None => {
                self.refused.push(range);
                None
            }
        }
    }
}
