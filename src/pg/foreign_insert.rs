//! Foreign tables that only take rows: `INSERT` and `COPY … FROM` hand each row to a sink, everything else is refused.
//!
//! The sink belongs to one statement: it hangs on `ri_FdwState`, and PostgreSQL drops it together with the statement's
//! memory, however the statement ends. So no row of a failed statement can appear in a later one.

use std::ffi::CStr;
use std::marker::PhantomData;

use pgrx::datum::Internal;
use pgrx::pg_sys::panic::pgrx_extern_c_guard;
use pgrx::{FromDatum, IntoDatum, PgBox, PgList, PgMemoryContexts, PgSqlErrorCode, PgTupleDesc, pg_sys};

use super::jsonb::Jsonb;
use super::relation;
use crate::error::{IotError, IotResult, OrRaise};

/// Takes the rows of one statement.
///
/// It is dropped by PostgreSQL's memory management, in the midst of an abort too: what it holds must be Rust's own.
pub trait RowSink {
    /// Takes one row and copies what it keeps.
    ///
    /// # Errors
    /// Ends the statement.
    fn push(&mut self, row: &Row<'_>) -> IotResult<()>;

    /// The statement has no more rows. Not called when it failed.
    ///
    /// # Errors
    /// Ends the statement.
    fn finish(&mut self) -> IotResult<()>;
}

/// Makes the sink of a statement.
pub trait OpenSink {
    /// Called once per statement, not for a plain `EXPLAIN`.
    ///
    /// # Errors
    /// Ends the statement before its first row.
    fn open(table: &TargetTable<'_>) -> IotResult<Box<dyn RowSink>>;
}

/// The foreign table that a statement writes to.
pub struct TargetTable<'statement> {
    relation: pg_sys::Relation,
    memory: PhantomData<&'statement pg_sys::RelationData>,
}

impl TargetTable<'_> {
    /// Its oid.
    pub fn oid(&self) -> pg_sys::Oid {
        // SAFETY: the executor keeps the relation open while the statement runs.
        unsafe { (*self.relation).rd_id }
    }

    /// Its name without schema.
    pub fn name(&self) -> String {
        // SAFETY: as above.
        unsafe { name_of(self.relation) }
    }

    /// The table's option `name`, if it is set.
    pub fn option(&self, name: &str) -> Option<String> {
        // SAFETY: the executor asks us because the relation is a foreign table, so its catalogue row exists; its options
        // are DefElem nodes with NUL-terminated names, in memory of the current context.
        unsafe {
            let table = pg_sys::GetForeignTable(self.oid());
            PgList::<pg_sys::DefElem>::from_pg((*table).options)
                .iter_ptr()
                .find(|&option| CStr::from_ptr((*option).defname).to_bytes() == name.as_bytes())
                .map(|option| CStr::from_ptr(pg_sys::defGetString(option)).to_string_lossy().into_owned())
        }
    }

    /// Its columns, without those that were dropped.
    pub fn columns(&self) -> Vec<Column> {
        // SAFETY: the descriptor of an open relation lives as long as the relation is open; it is not kept.
        let descriptor = unsafe { PgTupleDesc::from_pg_unchecked((*self.relation).rd_att) };
        (0..descriptor.len())
            .filter_map(|index| descriptor.get(index).map(|attribute| (index, attribute)))
            .filter(|(_, attribute)| !attribute.attisdropped)
            .map(|(index, attribute)| Column {
                index,
                name: attribute.name().to_owned(),
                type_oid: attribute.atttypid,
            })
            .collect()
    }
}

/// A column of the foreign table, found once per statement.
#[derive(Clone)]
pub struct Column {
    index: usize,
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_oid: pg_sys::Oid,
}

/// One row on its way in, valid for the call that received it.
pub struct Row<'call> {
    values: &'call [pg_sys::Datum],
    nulls: &'call [bool],
    descriptor: PgTupleDesc<'call>,
}

impl<'call> Row<'call> {
    /// The value in `column`.
    ///
    /// # Errors
    /// XX000 when the column has another type.
    pub fn value<T: FromDatum + IntoDatum>(&self, column: &Column) -> IotResult<Option<T>> {
        let datum = self.datum(column, T::type_oid())?;
        // SAFETY: the datum is of the type that T reads, which was just checked, and T copies what it keeps.
        Ok(datum.and_then(|datum| unsafe { T::from_datum(datum, false) }))
    }

    /// The text in `column`.
    ///
    /// # Errors
    /// As [`Row::value`].
    pub fn text(&self, column: &Column) -> IotResult<Option<&'call str>> {
        let datum = self.datum(column, pg_sys::TEXTOID)?;
        // SAFETY: a text datum, checked; it or its detoasted copy lives until the call ends.
        Ok(datum.and_then(|datum| unsafe { <&str>::from_datum(datum, false) }))
    }

    /// The `jsonb` in `column`.
    ///
    /// # Errors
    /// As [`Row::value`].
    pub fn jsonb(&self, column: &Column) -> IotResult<Option<Jsonb<'call>>> {
        let datum = self.datum(column, pg_sys::JSONBOID)?;
        // SAFETY: a jsonb datum, checked; it or its detoasted copy lives until the call ends.
        Ok(datum.and_then(|datum| unsafe { Jsonb::from_datum(datum, false) }))
    }

    fn datum(&self, column: &Column, type_oid: pg_sys::Oid) -> IotResult<Option<pg_sys::Datum>> {
        let same_type =
            self.descriptor.get(column.index).is_some_and(|attribute| attribute.atttypid == type_oid);
        match (self.values.get(column.index), self.nulls.get(column.index)) {
            (Some(_), Some(true)) => Ok(None),
            (Some(&datum), Some(false)) if same_type => Ok(Some(datum)),
            _ => Err(defect(format!("column \"{}\" is not of the type that was expected", column.name))),
        }
    }
}

/// What hangs on `ri_FdwState`.
struct Insertion {
    /// Gone once it has finished.
    sink: Option<Box<dyn RowSink>>,
    /// Memory of one row; a child of the statement's, which frees it.
    scratch: pg_sys::MemoryContext,
}

/// The answer of a foreign-data wrapper's handler function, with sinks made by `O`.
pub fn handler<O: OpenSink>() -> Internal {
    // SAFETY: the tag is that of the node; all callbacks that are not set are NULL, which means "not offered". Those
    // for scans are required.
    let mut routine = unsafe { PgBox::<pg_sys::FdwRoutine>::alloc_node(pg_sys::NodeTag::T_FdwRoutine) };
    routine.GetForeignRelSize = Some(relation_size);
    routine.GetForeignPaths = Some(paths);
    routine.GetForeignPlan = Some(plan);
    routine.BeginForeignScan = Some(begin_scan);
    routine.IterateForeignScan = Some(iterate_scan);
    routine.ReScanForeignScan = Some(rescan);
    routine.EndForeignScan = Some(end_scan);
    routine.AddForeignUpdateTargets = Some(add_update_targets);
    routine.PlanForeignModify = Some(plan_modify);
    routine.BeginForeignModify = Some(begin_modify::<O>);
    routine.ExecForeignInsert = Some(exec_insert);
    routine.EndForeignModify = Some(end_insert);
    routine.BeginForeignInsert = Some(begin_insert::<O>);
    routine.EndForeignInsert = Some(end_insert);
    routine.ExecForeignTruncate = Some(truncate);
    routine.IsForeignRelUpdatable = Some(updatable);
    routine.ExplainForeignModify = Some(explain_modify);
    Internal::from(Some(pg_sys::Datum::from(routine.into_pg())))
}

/// Called first when a scan is planned.
extern "C-unwind" fn relation_size(
    _root: *mut pg_sys::PlannerInfo,
    _relation: *mut pg_sys::RelOptInfo,
    table: pg_sys::Oid,
) {
    guarded(|| {
        let name = relation::name_of(table).unwrap_or_default();
        not_supported(format!("cannot read from foreign table \"{name}\""))
            .detail("It takes readings and keeps none.")
            .hint("Read iot.sensor_data.")
            .raise()
    })
}

/// The other callbacks of a scan: planning refused it before.
macro_rules! refuse_scan {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {$(
        extern "C-unwind" fn $name($(_: $argument),*) $(-> $result)? {
            guarded(|| defect("a foreign table of the stream road is scanned").raise())
        }
    )*};
}

refuse_scan! {
    paths(*mut pg_sys::PlannerInfo, *mut pg_sys::RelOptInfo, pg_sys::Oid);
    plan(*mut pg_sys::PlannerInfo, *mut pg_sys::RelOptInfo, pg_sys::Oid, *mut pg_sys::ForeignPath,
        *mut pg_sys::List, *mut pg_sys::List, *mut pg_sys::Plan) -> *mut pg_sys::ForeignScan;
    begin_scan(*mut pg_sys::ForeignScanState, i32);
    iterate_scan(*mut pg_sys::ForeignScanState) -> *mut pg_sys::TupleTableSlot;
    rescan(*mut pg_sys::ForeignScanState);
    end_scan(*mut pg_sys::ForeignScanState);
}

/// Called while an UPDATE or a DELETE is planned, before any scan.
///
/// # Safety
/// Called by the planner with the open table.
unsafe extern "C-unwind" fn add_update_targets(
    _root: *mut pg_sys::PlannerInfo,
    _target: pg_sys::Index,
    _entry: *mut pg_sys::RangeTblEntry,
    relation: pg_sys::Relation,
) {
    guarded(|| {
        // SAFETY: the planner keeps the relation open.
        let name = unsafe { name_of(relation) };
        not_supported(format!("cannot update or delete in foreign table \"{name}\""))
            .hint("Change iot.sensor_data.")
            .raise()
    })
}

/// # Safety
/// Called by TRUNCATE with a list of open tables.
unsafe extern "C-unwind" fn truncate(
    tables: *mut pg_sys::List,
    _: pg_sys::DropBehavior::Type,
    _restarts_sequences: bool,
) {
    guarded(|| {
        // SAFETY: the list holds open relations, one at least.
        let names: Vec<String> = unsafe {
            PgList::<pg_sys::RelationData>::from_pg(tables)
                .iter_ptr()
                .map(|table| format!("\"{}\"", name_of(table)))
                .collect()
        };
        not_supported(format!("cannot truncate foreign table {}", names.join(", ")))
            .detail("It takes readings and keeps none.")
            .hint("Truncate iot.sensor_data.")
            .raise()
    })
}

extern "C-unwind" fn updatable(_relation: pg_sys::Relation) -> i32 {
    1 << pg_sys::CmdType::CMD_INSERT
}

/// # Safety
/// Called by the planner with the ModifyTable node it makes, and the table's place in its range table.
unsafe extern "C-unwind" fn plan_modify(
    root: *mut pg_sys::PlannerInfo,
    plan: *mut pg_sys::ModifyTable,
    result_relation: pg_sys::Index,
    _subplan: i32,
) -> *mut pg_sys::List {
    guarded(|| {
        // SAFETY: the planner passes a valid node, which is only read; the range table has the entry.
        let (plan, table) = unsafe {
            let entry = pg_sys::rt_fetch(result_relation, (*(*root).parse).rtable);
            (&*plan, (*entry).relid)
        };
        let refuse = |what: &str| {
            let name = relation::name_of(table).unwrap_or_default();
            not_supported(what.replace("{}", &format!("\"{name}\"")))
        };
        if plan.operation != pg_sys::CmdType::CMD_INSERT {
            refuse("foreign table {} takes new rows only").hint("Change iot.sensor_data.").raise();
        }
        if !plan.returningLists.is_null() {
            refuse("RETURNING is not supported for foreign table {}")
                .hint("Rows are stored in batches; read iot.sensor_data afterwards.")
                .raise();
        }
        if plan.onConflictAction != pg_sys::OnConflictAction::ONCONFLICT_NONE {
            refuse("ON CONFLICT is not supported for foreign table {}")
                .hint("Leave it out: duplicates are handled by the duplicates policy.")
                .raise();
        }
        std::ptr::null_mut()
    })
}

/// # Safety
/// Called by the executor when an INSERT starts.
unsafe extern "C-unwind" fn begin_modify<O: OpenSink>(
    state: *mut pg_sys::ModifyTableState,
    result: *mut pg_sys::ResultRelInfo,
    _private: *mut pg_sys::List,
    _subplan: i32,
    flags: i32,
) {
    guarded(|| {
        if flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as i32 == 0 {
            // SAFETY: passed on from the executor.
            unsafe { begin::<O>(state, result) };
        }
    })
}

/// # Safety
/// Called when a COPY starts, and when a row is routed to a partition for the first time.
unsafe extern "C-unwind" fn begin_insert<O: OpenSink>(
    state: *mut pg_sys::ModifyTableState,
    result: *mut pg_sys::ResultRelInfo,
) {
    guarded(|| {
        // SAFETY: passed on from the executor; a partition that rows are routed to has a root relation.
        unsafe {
            if !(*result).ri_RootResultRelInfo.is_null() {
                let name = name_of((*result).ri_RelationDesc);
                not_supported(format!("foreign table \"{name}\" cannot take rows as a partition"))
                    .hint("Insert into iot.readings itself.")
                    .raise();
            }
            begin::<O>(state, result);
        }
    })
}

/// # Safety
/// Both nodes belong to a running statement that is about to write to a table of ours.
unsafe fn begin<O: OpenSink>(state: *mut pg_sys::ModifyTableState, result: *mut pg_sys::ResultRelInfo) {
    // SAFETY: the nodes are valid, guaranteed by the caller; the statement's memory outlives every later callback, and
    // what is allocated here is a part of it.
    unsafe {
        let table = TargetTable { relation: (*result).ri_RelationDesc, memory: PhantomData };
        let sink = O::open(&table).or_raise();
        let statement = (*(*state).ps.state).es_query_cxt;
        let scratch = pg_sys::AllocSetContextCreateInternal(
            statement,
            c"iot_ext row".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        (*result).ri_FdwState = PgMemoryContexts::For(statement)
            .leak_and_drop_on_delete(Insertion { sink: Some(sink), scratch })
            .cast();
    }
}

/// # Safety
/// Called by the executor, between begin and end, with a row of the table.
unsafe extern "C-unwind" fn exec_insert(
    _executor: *mut pg_sys::EState,
    result: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    _plan_slot: *mut pg_sys::TupleTableSlot,
) -> *mut pg_sys::TupleTableSlot {
    guarded(|| {
        // SAFETY: `ri_FdwState` is what `begin` put there, and nobody else refers to it during the call: a nested
        // statement has a state of its own. The slot's arrays hold all its attributes after slot_getallattrs.
        unsafe {
            let Some(insertion) = (*result).ri_FdwState.cast::<Insertion>().as_mut() else {
                defect("row without a statement").raise();
            };
            pg_sys::slot_getallattrs(slot);
            let count = usize::try_from((*slot).tts_nvalid).unwrap_or(0);
            let row = Row {
                values: std::slice::from_raw_parts((*slot).tts_values, count),
                nulls: std::slice::from_raw_parts((*slot).tts_isnull, count),
                descriptor: PgTupleDesc::from_pg_unchecked((*slot).tts_tupleDescriptor),
            };
            in_scratch(insertion, |sink| sink.push(&row)).or_raise();
        }
        slot
    })
}

/// # Safety
/// Called by the executor when a statement that did not fail has no more rows.
unsafe extern "C-unwind" fn end_insert(_executor: *mut pg_sys::EState, result: *mut pg_sys::ResultRelInfo) {
    guarded(|| {
        // SAFETY: as in `exec_insert`; after an EXPLAIN the state is null. The executor may end a statement without an
        // active snapshot, which a statement of ours needs; what is pushed is popped.
        unsafe {
            let Some(insertion) = (*result).ri_FdwState.cast::<Insertion>().as_mut() else { return };
            let needs_snapshot = !pg_sys::ActiveSnapshotSet();
            if needs_snapshot {
                pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            }
            in_scratch(insertion, |sink| sink.finish()).or_raise();
            if needs_snapshot {
                pg_sys::PopActiveSnapshot();
            }
            insertion.sink = None;
        }
    })
}

/// Runs `work` with memory that is freed afterwards: the executor calls with memory that lives as long as the statement.
///
/// # Safety
/// `insertion` belongs to the running statement.
unsafe fn in_scratch(
    insertion: &mut Insertion,
    work: impl FnOnce(&mut dyn RowSink) -> IotResult<()>,
) -> IotResult<()> {
    let Some(sink) = insertion.sink.as_mut() else {
        return Err(defect("row after the end of the statement"));
    };
    // SAFETY: the context lives as long as the statement; results of `work` are Rust's own. An ERROR leaves the switch to
    // the abort.
    unsafe {
        let previous = pg_sys::MemoryContextSwitchTo(insertion.scratch);
        let done = work(sink.as_mut());
        pg_sys::MemoryContextSwitchTo(previous);
        pg_sys::MemoryContextReset(insertion.scratch);
        done
    }
}

/// # Safety
/// Called by EXPLAIN with its own state.
unsafe extern "C-unwind" fn explain_modify(
    _state: *mut pg_sys::ModifyTableState,
    _result: *mut pg_sys::ResultRelInfo,
    _private: *mut pg_sys::List,
    _subplan: i32,
    explain: *mut pg_sys::ExplainState,
) {
    guarded(|| {
        // SAFETY: both strings are NUL-terminated, and EXPLAIN copies them.
        unsafe { pg_sys::ExplainPropertyText(c"Stores in".as_ptr(), c"iot.sensor_data".as_ptr(), explain) }
    })
}

/// Every callback runs in this: a panic becomes an ERROR, an ERROR unwinds Rust's frames.
fn guarded<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: called at the outermost frame of a function that PostgreSQL called.
    unsafe { pgrx_extern_c_guard(work) }
}

/// Name of a relation, without schema.
///
/// # Safety
/// It is open.
unsafe fn name_of(relation: pg_sys::Relation) -> String {
    // SAFETY: as the caller promises; the name is NUL-terminated.
    unsafe { CStr::from_ptr((*(*relation).rd_rel).relname.data.as_ptr()) }.to_string_lossy().into_owned()
}

fn not_supported(message: impl Into<String>) -> IotError {
    IotError::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
}

fn defect(message: impl Into<String>) -> IotError {
    IotError::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, message)
}
