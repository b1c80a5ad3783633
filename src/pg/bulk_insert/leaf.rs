//! One partition that takes rows: its open relation, its buffer, and how the buffer is written.

use std::rc::Rc;

use iot_core::partition::PartitionRange;
use pgrx::pg_sys;

use super::compat;
use super::key_probe::KeyProbe;
use super::layout::{self, LeafLayout, ParentLayout, Source};
use super::triggers;

/// From this many rows on, a write keeps the last page pinned and recycles a ring of buffers, as COPY does. It fills
/// 8 kB to set up, which a row or two would not earn back.
const ROWS_WORTH_A_RING: usize = 32;

/// How the rows of a partition are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Many at a time. What turns out to be a duplicate is deleted again.
    Together,
    /// One at a time as INSERT … ON CONFLICT does: looked up, inserted speculatively, confirmed or withdrawn.
    ///
    /// Needed with logical decoding: a subscriber would see the insertion of a duplicate, which fails there, before it
    /// sees the deletion. And where another index is unique: there a duplicate would be an error instead of a conflict.
    /// And where the transaction goes on with what it wrote: see [`BulkInsert::without_traces`](super::BulkInsert).
    Speculatively,
}

/// An open partition with its buffer of rows. PostgreSQL's part of it is freed by [`Leaf::close`], never on drop: after
/// an ERROR, the end of the (sub)transaction does that.
pub(super) struct Leaf {
    pub(super) range: PartitionRange,
    /// Owner of everything below that PostgreSQL allocated.
    state: *mut pg_sys::EState,
    /// For expressions; its memory is emptied after each row.
    expressions: *mut pg_sys::ExprContext,
    target: *mut pg_sys::ResultRelInfo,
    layout: Rc<LeafLayout>,
    defaults: Vec<(usize, *mut pg_sys::ExprState)>,
    generated: Vec<(usize, *mut pg_sys::ExprState)>,
    checks: Vec<*mut pg_sys::ExprState>,
    manner: Manner,
    /// The list of the primary key alone, and the key itself; null without one.
    arbiters: *mut pg_sys::List,
    key: pg_sys::Relation,
    probe: Option<KeyProbe>,
    /// Whether all rows of the next write are looked up first.
    expects_duplicates: bool,
    ring: pg_sys::BulkInsertState,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    /// Numbers of the buffered rows; row `i` is in slot `i`.
    rows: Vec<u32>,
}

impl Leaf {
    /// Opens the partition `relation`; `None` when the executor must do it.
    pub(super) fn open(
        relation: pg_sys::Oid,
        range: PartitionRange,
        parent: &Rc<ParentLayout>,
        has_key: bool,
        leaves_traces: bool,
        ignored_triggers: &[&std::ffi::CStr],
    ) -> Option<Self> {
        // SAFETY: the partition exists as long as the lock on its parent is held, and so does what its cache entry
        // points to while it is open. A partition that is refused is closed again and keeps its lock, as in core.
        let (table, layout) = unsafe {
            let table = pg_sys::table_open(relation, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
            let form = (*table).rd_rel;
            let is_plain = (*form).relkind as u8 == pg_sys::RELKIND_RELATION
                && (*form).relam == pg_sys::HEAP_TABLE_AM_OID
                && (*form).relpersistence as u8 != pg_sys::RELPERSISTENCE_TEMP
                // Statement triggers of a partition do not fire for rows that come through its parent.
                && !triggers::fire_on_insert(table, ignored_triggers, true);
            let layout = if is_plain { layout::of_leaf(table, parent) } else { None };
            let Some(layout) = layout else {
                pg_sys::table_close(table, pg_sys::NoLock as pg_sys::LOCKMODE);
                return None;
            };
            (table, layout)
        };
        // SAFETY: everything allocated here goes into the memory of the state, which lives until `close`; the planned
        // expressions live in the layout, which this leaf keeps a reference to.
        unsafe {
            let state = pg_sys::CreateExecutorState();
            let before = pg_sys::MemoryContextSwitchTo((*state).es_query_cxt);
            let target: *mut pg_sys::ResultRelInfo =
                pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast();
            (*target).type_ = pg_sys::NodeTag::T_ResultRelInfo;
            pg_sys::InitResultRelInfo(target, table, 0, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(target, false);
            let mut leaf = Self {
                range,
                state,
                expressions: pg_sys::MakePerTupleExprContext(state),
                target,
                defaults: Vec::new(),
                generated: Vec::new(),
                checks: Vec::with_capacity(layout.checks.len()),
                manner: Manner::Together,
                arbiters: std::ptr::null_mut(),
                key: std::ptr::null_mut(),
                probe: None,
                expects_duplicates: false,
                ring: std::ptr::null_mut(),
                slots: Vec::new(),
                rows: Vec::new(),
                layout,
            };
            for (attribute, source) in leaf.layout.sources.iter().enumerate() {
                match *source {
                    Source::Default(expression) => leaf.defaults.push((attribute, initialize(expression))),
                    Source::Generated(expression) => leaf.generated.push((attribute, initialize(expression))),
                    Source::Given(_) | Source::Constant(..) => {}
                }
            }
            leaf.checks.extend(leaf.layout.checks.iter().map(|&expression| initialize(expression)));
            let usable = !has_key || leaf.find_key();
            if has_key && !leaves_traces {
                leaf.manner = Manner::Speculatively;
            }
            pg_sys::MemoryContextSwitchTo(before);
            if usable {
                Some(leaf)
            } else {
                leaf.close();
                None
            }
        }
    }

    /// Finds the primary key among the open indexes. `false` when there is none that this module can look up.
    fn find_key(&mut self) -> bool {
        // SAFETY: the target's arrays have `ri_NumIndices` open indexes; `wal_level` never changes in a running server.
        unsafe {
            let Some(key) = compat::primary_key((*self.target).ri_RelationDesc) else { return false };
            let mut has_other_unique = false;
            for number in 0..(*self.target).ri_NumIndices as usize {
                let index = *(*self.target).ri_IndexRelationDescs.add(number);
                let form = (*index).rd_index;
                if (*index).rd_id == key {
                    if (*(*index).rd_rel).relam != pg_sys::BTREE_AM_OID || !(*form).indimmediate {
                        return false;
                    }
                    self.key = index;
                } else {
                    has_other_unique |= (*form).indisunique || (*form).indisexclusion;
                }
            }
            if self.key.is_null() {
                return false;
            }
            self.arbiters = pg_sys::lappend_oid(std::ptr::null_mut(), key);
            let persistence = (*(*(*self.target).ri_RelationDesc).rd_rel).relpersistence as u8;
            let is_decoded = pg_sys::wal_level >= pg_sys::WalLevel::WAL_LEVEL_LOGICAL as i32
                && persistence == pg_sys::RELPERSISTENCE_PERMANENT;
            if is_decoded || has_other_unique {
                self.manner = Manner::Speculatively;
            }
            true
        }
    }

    /// Buffers one row and returns its size in bytes.
    pub(super) fn append(&mut self, number: u32, values: &[pg_sys::Datum], nulls: &[bool]) -> usize {
        let slot = self.empty_slot();
        // SAFETY: the slot is empty and has the partition's descriptor, as many places as the layout has sources, and
        // the layout's positions lie within the caller's row (checked by the caller). Values that are only borrowed are
        // copied by ExecMaterializeSlot before this returns. The slot is a heap slot, so then it has a tuple.
        unsafe {
            let (slot_values, slot_nulls) = ((*slot).tts_values, (*slot).tts_isnull);
            for (attribute, source) in self.layout.sources.iter().enumerate() {
                let (value, is_null) = match *source {
                    Source::Given(position) => (values[position], nulls[position]),
                    Source::Constant(value, is_null) => (value, is_null),
                    Source::Default(_) | Source::Generated(_) => (pg_sys::Datum::null(), true),
                };
                slot_values.add(attribute).write(value);
                slot_nulls.add(attribute).write(is_null);
            }
            (*self.expressions).ecxt_scantuple = slot;
            for &(attribute, default) in &self.defaults {
                self.evaluate(slot, attribute, default);
            }
            pg_sys::ExecStoreVirtualTuple(slot);
            for &(attribute, generated) in &self.generated {
                self.evaluate(slot, attribute, generated);
            }
            let is_complete = self.layout.not_null.iter().all(|&attribute| !*slot_nulls.add(attribute));
            if !is_complete || !self.checks.iter().all(|&check| pg_sys::ExecCheck(check, self.expressions)) {
                // Finds the same fault again, and words it.
                pg_sys::ExecConstraints(self.target, slot, self.state);
            }
            pg_sys::ExecMaterializeSlot(slot);
            if !(self.defaults.is_empty() && self.generated.is_empty() && self.checks.is_empty()) {
                pg_sys::MemoryContextReset((*self.expressions).ecxt_per_tuple_memory);
            }
            self.rows.push(number);
            (*(*slot.cast::<pg_sys::HeapTupleTableSlot>()).tuple).t_len as usize
        }
    }

    /// The first slot that holds no row.
    fn empty_slot(&mut self) -> *mut pg_sys::TupleTableSlot {
        if let Some(&slot) = self.slots.get(self.rows.len()) {
            return slot;
        }
        // SAFETY: the relation is open; the slot goes into the state's memory.
        let slot = unsafe {
            let before = pg_sys::MemoryContextSwitchTo((*self.state).es_query_cxt);
            let slot = pg_sys::table_slot_create((*self.target).ri_RelationDesc, std::ptr::null_mut());
            pg_sys::MemoryContextSwitchTo(before);
            slot
        };
        self.slots.push(slot);
        slot
    }

    /// Writes an expression's value into the slot. It lives until the row's memory is emptied.
    ///
    /// # Safety
    /// `slot` has the attribute, and the expression was initialized for this leaf.
    unsafe fn evaluate(
        &self,
        slot: *mut pg_sys::TupleTableSlot,
        attribute: usize,
        expression: *mut pg_sys::ExprState,
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            let mut is_null = false;
            let value = pg_sys::ExecEvalExprSwitchContext(expression, self.expressions, &mut is_null);
            (*slot).tts_values.add(attribute).write(value);
            (*slot).tts_isnull.add(attribute).write(is_null);
        }
    }

    /// Writes the buffered rows; numbers of those whose key is taken go to `conflicts`.
    pub(super) fn flush(&mut self, conflicts: &mut Vec<u32>) {
        if self.rows.is_empty() {
            return;
        }
        // SAFETY: what the writers allocate for the moment goes into the memory that is emptied per row.
        let before = unsafe { pg_sys::MemoryContextSwitchTo((*self.expressions).ecxt_per_tuple_memory) };
        match self.manner {
            Manner::Together => self.write_together(conflicts),
            Manner::Speculatively => self.write_speculatively(conflicts),
        }
        // SAFETY: the first slots hold the buffered rows; clearing one frees its copy.
        unsafe {
            pg_sys::MemoryContextSwitchTo(before);
            for &slot in &self.slots[..self.rows.len()] {
                pg_sys::ExecClearTuple(slot);
            }
            pg_sys::MemoryContextReset((*self.expressions).ecxt_per_tuple_memory);
        }
        self.rows.clear();
    }

    /// Stores the rows, then makes their index entries; the primary key reports duplicates instead of raising.
    ///
    /// The index adds the entry in any case, and looks for others of the same key under the same page lock. Of two
    /// sessions that store a key at the same time, the second to add its entry hence sees the first, which does not see
    /// the second: exactly one of them finds a conflict. It deletes its row in its own transaction, so that no snapshot
    /// of another session can ever show it, and nobody sees both.
    ///
    /// The row cannot be withdrawn as a speculative one is: that takes a token that only single insertions can carry. Until
    /// this (sub)transaction ends, whoever stores the same key takes the deleted row for one that may yet be there, and waits.
    fn write_together(&mut self, conflicts: &mut Vec<u32>) {
        let (offered, conflicts_before) = (self.rows.len(), conflicts.len());
        self.drop_taken(conflicts);
        let count = self.rows.len();
        let mut unwanted: Vec<pg_sys::ItemPointerData> = Vec::new();
        // SAFETY: the first `count` slots hold rows of this partition; the command id is one for writing.
        unsafe {
            let table = (*self.target).ri_RelationDesc;
            let command = pg_sys::GetCurrentCommandId(true);
            if count >= ROWS_WORTH_A_RING && self.ring.is_null() {
                let before = pg_sys::MemoryContextSwitchTo((*self.state).es_query_cxt);
                self.ring = pg_sys::GetBulkInsertState();
                pg_sys::MemoryContextSwitchTo(before);
            }
            match count {
                0 => {}
                1 => pg_sys::table_tuple_insert(table, self.slots[0], command, 0, self.ring),
                _ => pg_sys::table_multi_insert(
                    table,
                    self.slots.as_mut_ptr(),
                    count as i32,
                    command,
                    0,
                    self.ring,
                ),
            }
            for (&slot, &row) in self.slots[..count].iter().zip(&self.rows) {
                pg_sys::MemoryContextReset((*self.expressions).ecxt_per_tuple_memory);
                if compat::insert_index_entries(self.target, slot, self.state, self.arbiters) {
                    conflicts.push(row);
                    unwanted.push((*slot).tts_tid);
                }
            }
            if !unwanted.is_empty() {
                // A command cannot delete what it inserted itself.
                pg_sys::CommandCounterIncrement();
                for row in &mut unwanted {
                    pg_sys::simple_heap_delete(table, row);
                }
            }
        }
        // Deleted rows are dead weight: where duplicates are frequent, looking them up first is cheaper.
        self.expects_duplicates = (conflicts.len() - conflicts_before) * 8 >= offered;
    }

    /// Takes rows out of the buffer whose key is known to be taken: the first ones until one is free, or all of them
    /// when the last write met many. So a batch that is sent again leaves no dead rows, and a fresh one costs one
    /// look-up.
    fn drop_taken(&mut self, conflicts: &mut Vec<u32>) {
        if self.key.is_null() {
            return;
        }
        let (mut kept, total) = (0, self.rows.len());
        for position in 0..total {
            if self.is_taken(self.slots[position]) {
                conflicts.push(self.rows[position]);
                // SAFETY: the slot is one of this leaf; its row is not wanted any more.
                unsafe { pg_sys::ExecClearTuple(self.slots[position]) };
                continue;
            }
            self.slots.swap(kept, position);
            self.rows.swap(kept, position);
            kept += 1;
            if !self.expects_duplicates {
                // What follows moves up, in its order.
                self.slots[kept..total].rotate_left(position + 1 - kept);
                self.rows.drain(kept..=position);
                kept = self.rows.len();
                break;
            }
        }
        self.rows.truncate(kept);
        if let Some(probe) = &mut self.probe {
            probe.rest();
        }
    }

    /// Looks the row's key up. In a write of many, rows of the same write are not seen.
    fn is_taken(&mut self, slot: *mut pg_sys::TupleTableSlot) -> bool {
        // SAFETY: the key is an open index of the open table; the probe goes into the state's memory, and is closed
        // before them. Columns of a primary key are NOT NULL, which `append` checked.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo((*self.state).es_query_cxt);
            let (table, key) = ((*self.target).ri_RelationDesc, self.key);
            let probe = self.probe.get_or_insert_with(|| KeyProbe::new(table, key));
            pg_sys::MemoryContextSwitchTo(before);
            probe.is_taken(slot)
        }
    }

    /// As INSERT … ON CONFLICT DO NOTHING, save that it does not wait for a row in progress but reports it.
    fn write_speculatively(&mut self, conflicts: &mut Vec<u32>) {
        for position in 0..self.rows.len() {
            let slot = self.slots[position];
            let mut is_taken = self.is_taken(slot);
            if let Some(probe) = &mut self.probe {
                probe.rest();
            }
            if !is_taken {
                // SAFETY: the slot holds a row of this partition; the token is that of the lock taken just before,
                // which the end of the (sub)transaction releases after an ERROR.
                unsafe {
                    let table = (*self.target).ri_RelationDesc;
                    let command = pg_sys::GetCurrentCommandId(true);
                    let transaction = pg_sys::GetCurrentTransactionId();
                    let token = pg_sys::SpeculativeInsertionLockAcquire(transaction);
                    pg_sys::table_tuple_insert_speculative(
                        table,
                        slot,
                        command,
                        0,
                        std::ptr::null_mut(),
                        token,
                    );
                    is_taken = compat::insert_index_entries(self.target, slot, self.state, self.arbiters);
                    pg_sys::table_tuple_complete_speculative(table, slot, token, !is_taken);
                    pg_sys::SpeculativeInsertionLockRelease(transaction);
                    pg_sys::MemoryContextReset((*self.expressions).ecxt_per_tuple_memory);
                }
            }
            if is_taken {
                conflicts.push(self.rows[position]);
            }
        }
    }

    /// Closes the partition; its buffer is empty.
    pub(super) fn close(mut self) {
        if let Some(probe) = self.probe.take() {
            probe.close();
        }
        // SAFETY: each thing was made by this leaf and is freed once; the lock stays until the transaction ends.
        unsafe {
            // The last ones first: so PostgreSQL finds them at once in its list of references.
            for &slot in self.slots.iter().rev() {
                pg_sys::ExecDropSingleTupleTableSlot(slot);
            }
            if !self.ring.is_null() {
                pg_sys::FreeBulkInsertState(self.ring);
            }
            let table = (*self.target).ri_RelationDesc;
            pg_sys::ExecCloseIndices(self.target);
            pg_sys::table_close(table, pg_sys::NoLock as pg_sys::LOCKMODE);
            pg_sys::FreeExecutorState(self.state);
        }
    }
}

/// Makes a planned expression ready to run, in the current memory context.
///
/// # Safety
/// The expression outlives what is returned, and so does the context.
unsafe fn initialize(expression: *mut pg_sys::Expr) -> *mut pg_sys::ExprState {
    // SAFETY: as the caller promises; without a plan node there is no parent.
    unsafe { pg_sys::ExecInitExpr(expression, std::ptr::null_mut()) }
}
