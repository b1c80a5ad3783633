//! What a row of a table needs beyond the values that are given: defaults, generated columns, NOT NULL and CHECK.
//!
//! PostgreSQL reads and plans these expressions from their text at each INSERT. For one row at a time that is most of
//! the work, so they are planned once per backend and kept until the relation cache says that a table changed.

use std::cell::{Cell, RefCell};
use std::ffi::CStr;
use std::mem::ManuallyDrop;
use std::rc::Rc;

use pgrx::{pg_guard, pg_sys};

use super::Columns;
use super::compat::attribute;

/// Where the value of a column comes from.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// From the caller: the position in its row.
    Given(usize),
    /// Always the same; it lives as long as the layout.
    Constant(pg_sys::Datum, bool),
    /// Evaluated for each row.
    Default(*mut pg_sys::Expr),
    /// Evaluated for each row from its other columns.
    Generated(*mut pg_sys::Expr),
}

/// The columns of the partitioned table.
pub(super) struct ParentLayout {
    relation: pg_sys::Oid,
    columns: Columns,
    current: Cell<bool>,
    /// One for each attribute that was not dropped, with its name.
    sources: Vec<(pg_sys::NameData, Source)>,
    /// Position of the time in the caller's row.
    pub(super) time: usize,
    /// Home of the expressions above.
    _memory: Memory,
}

/// The columns of one partition, in its own order.
pub(super) struct LeafLayout {
    relation: pg_sys::Oid,
    parent: Rc<ParentLayout>,
    current: Cell<bool>,
    /// One for each attribute; a dropped one is a NULL.
    pub(super) sources: Vec<Source>,
    /// Attributes, from 0, that may not be NULL.
    pub(super) not_null: Vec<usize>,
    pub(super) checks: Vec<*mut pg_sys::Expr>,
    /// Home of the expressions above.
    _memory: Memory,
}

/// A context that holds planned expressions.
struct Memory(pg_sys::MemoryContext);

impl Drop for Memory {
    fn drop(&mut self) {
        // An ERROR that unwinds may have come from the middle of anything: leaking a few kilobytes is safer.
        if !std::thread::panicking() {
            // SAFETY: made by `planning`, deleted once, and whoever points into it holds a reference to its owner.
            unsafe { pg_sys::MemoryContextDelete(self.0) };
        }
    }
}

/// Layouts kept at a time; when there are more, all are made again.
const MOST_KEPT: usize = 64;

struct Kept {
    parents: Vec<Rc<ParentLayout>>,
    leaves: Vec<Rc<LeafLayout>>,
}

thread_local! {
    /// Never freed: at process exit there is nothing left to free it with.
    static KEPT: ManuallyDrop<RefCell<Kept>> =
        const { ManuallyDrop::new(RefCell::new(Kept { parents: Vec::new(), leaves: Vec::new() })) };
    static WATCHING: Cell<bool> = const { Cell::new(false) };
    /// Counts what PostgreSQL said so far: planning may itself receive the news that make its result an old one.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
}

/// The layout of `parent` for rows of `columns`; `None` when the executor must work them out.
pub(super) fn of_parent(
    parent: pg_sys::Relation,
    columns: Columns,
    time_column: i16,
) -> Option<Rc<ParentLayout>> {
    // SAFETY: the relation is open.
    let relation = unsafe { (*parent).rd_id };
    let is_it = |kept: &Rc<ParentLayout>| kept.relation == relation && std::ptr::eq(kept.columns, columns);
    let found = KEPT
        .with(|kept| kept.borrow().parents.iter().find(|kept| is_it(kept) && kept.current.get()).cloned());
    if found.is_some() {
        return found;
    }
    watch();
    let changes = CHANGES.get();
    let layout = Rc::new(ParentLayout::new(parent, columns, time_column)?);
    layout.current.set(CHANGES.get() == changes);
    keep(|kept| &mut kept.parents, is_it, &layout);
    Some(layout)
}

/// The layout of the partition `leaf`; `None` when the executor must work its rows out.
pub(super) fn of_leaf(leaf: pg_sys::Relation, parent: &Rc<ParentLayout>) -> Option<Rc<LeafLayout>> {
    // SAFETY: the relation is open.
    let relation = unsafe { (*leaf).rd_id };
    let is_it = |kept: &Rc<LeafLayout>| kept.relation == relation && Rc::ptr_eq(&kept.parent, parent);
    let found =
        KEPT.with(|kept| kept.borrow().leaves.iter().find(|kept| is_it(kept) && kept.current.get()).cloned());
    if found.is_some() {
        return found;
    }
    let changes = CHANGES.get();
    let layout = Rc::new(LeafLayout::new(leaf, parent)?);
    layout.current.set(CHANGES.get() == changes);
    keep(|kept| &mut kept.leaves, is_it, &layout);
    Some(layout)
}

/// Keeps `layout` in place of an older one. What goes is dropped after the borrow ends, as dropping calls PostgreSQL.
fn keep<T>(list: impl Fn(&mut Kept) -> &mut Vec<Rc<T>>, is_it: impl Fn(&Rc<T>) -> bool, layout: &Rc<T>) {
    let _gone: Vec<Rc<T>> = KEPT.with(|kept| {
        let mut kept = kept.borrow_mut();
        let kept = list(&mut kept);
        let gone = if kept.len() < MOST_KEPT {
            kept.extract_if(.., |kept| is_it(kept)).collect()
        } else {
            std::mem::take(kept)
        };
        kept.push(Rc::clone(layout));
        gone
    });
}

/// Asks PostgreSQL, once per backend, to say when a table or a function changes (a function may be inlined in a plan).
fn watch() {
    if !WATCHING.replace(true) {
        // SAFETY: both callbacks are of the expected type, live as long as the process, and only set flags.
        unsafe {
            pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::null());
            pg_sys::CacheRegisterSyscacheCallback(
                pg_sys::SysCacheIdentifier::PROCOID as i32,
                Some(function_changed),
                pg_sys::Datum::null(),
            );
        }
    }
}

#[pg_guard]
// SAFETY: reads its arguments only.
unsafe extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    forget(|of| relation == pg_sys::InvalidOid || of == relation);
}

#[pg_guard]
// SAFETY: does not read its arguments.
unsafe extern "C-unwind" fn function_changed(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
    forget(|_| true);
}

fn forget(is_it: impl Fn(pg_sys::Oid) -> bool) {
    CHANGES.set(CHANGES.get() + 1);
    KEPT.with(|kept| {
        let kept = kept.borrow();
        kept.parents.iter().filter(|kept| is_it(kept.relation)).for_each(|kept| kept.current.set(false));
        kept.leaves.iter().filter(|kept| is_it(kept.relation)).for_each(|kept| kept.current.set(false));
    });
}

/// Runs `plan` in a fresh context that then outlives the call; an ERROR leaves it to the current one's end.
fn planning<T>(plan: impl FnOnce() -> Option<T>) -> Option<(T, Memory)> {
    // SAFETY: the context is a child of the current one until everything in it is made. `plan` returns or unwinds; when
    // it unwinds, PostgreSQL's error handling sets its own current context.
    unsafe {
        let memory = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"iot_ext row layout".as_ptr(),
            pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
            pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        let before = pg_sys::MemoryContextSwitchTo(memory);
        let planned = plan();
        pg_sys::MemoryContextSwitchTo(before);
        let memory = Memory(memory);
        let planned = planned?;
        pg_sys::MemoryContextSetParent(memory.0, pg_sys::TopMemoryContext);
        Some((planned, memory))
    }
}

impl ParentLayout {
    fn new(parent: pg_sys::Relation, columns: Columns, time_column: i16) -> Option<Self> {
        let mut time = None;
        let mut given = 0;
        // SAFETY: the relation is open, so its descriptor, attributes and names are valid.
        let (sources, memory) = planning(|| unsafe {
            let descriptor = (*parent).rd_att;
            let mut sources = Vec::new();
            for index in 0..(*descriptor).natts {
                let attribute = attribute(descriptor, index);
                if (*attribute).attisdropped {
                    continue;
                }
                let name = CStr::from_ptr((*attribute).attname.data.as_ptr());
                let position = columns.iter().position(|&(column, _)| column == name);
                let is_plain = (*attribute).attgenerated == 0 && (*attribute).attidentity == 0;
                let source = match position {
                    // A type modifier asks for a conversion, as does any other type.
                    Some(position)
                        if is_plain
                            && (*attribute).atttypid == columns[position].1
                            && (*attribute).atttypmod == -1 =>
                    {
                        given += 1;
                        if (*attribute).attnum == time_column {
                            time = Some(position);
                        }
                        Source::Given(position)
                    }
                    Some(_) => return None,
                    // Computed by the partition. Virtual columns are not stored, but may be checked.
                    None if (*attribute).attgenerated == b's' as std::ffi::c_char => {
                        Source::Constant(pg_sys::Datum::null(), true)
                    }
                    None if !is_plain => return None,
                    // A domain may refuse the NULL of a missing value.
                    None if pg_sys::get_typtype((*attribute).atttypid)
                        == pg_sys::TYPTYPE_DOMAIN as std::ffi::c_char =>
                    {
                        return None;
                    }
                    None => default(pg_sys::build_column_default(parent, index + 1).cast()),
                };
                sources.push(((*attribute).attname, source));
            }
            Some(sources)
        })?;
        // SAFETY: the relation is open.
        let relation = unsafe { (*parent).rd_id };
        (given == columns.len()).then_some(())?;
        Some(Self { relation, columns, current: Cell::new(true), sources, time: time?, _memory: memory })
    }
}

impl LeafLayout {
    fn new(leaf: pg_sys::Relation, parent: &Rc<ParentLayout>) -> Option<Self> {
        // SAFETY: the relation is open, so its descriptor, attributes, names and constraints are valid.
        let ((sources, not_null, checks), memory) = planning(|| unsafe {
            let descriptor = (*leaf).rd_att;
            let (mut sources, mut not_null, mut checks) = (Vec::new(), Vec::new(), Vec::new());
            for index in 0..(*descriptor).natts {
                let attribute = attribute(descriptor, index);
                if (*attribute).attisdropped {
                    sources.push(Source::Constant(pg_sys::Datum::null(), true));
                    continue;
                }
                let name = CStr::from_ptr((*attribute).attname.data.as_ptr());
                let (_, of_parent) =
                    parent.sources.iter().find(|(column, _)| CStr::from_ptr(column.data.as_ptr()) == name)?;
                sources.push(match (*attribute).attgenerated as u8 {
                    0 => *of_parent,
                    b's' => {
                        let expression = pg_sys::build_column_default(leaf, index + 1);
                        Source::Generated(pg_sys::expression_planner(expression.cast()))
                    }
                    _ => return None,
                });
                if (*attribute).attnotnull {
                    not_null.push(index as usize);
                }
            }
            let constraints = (*descriptor).constr;
            if !constraints.is_null() {
                for index in 0..(*constraints).num_check {
                    let check = (*constraints).check.add(usize::from(index));
                    #[cfg(feature = "pg18")]
                    if !(*check).ccenforced {
                        continue;
                    }
                    checks.push(pg_sys::expression_planner(pg_sys::stringToNode((*check).ccbin).cast()));
                }
            }
            Some((sources, not_null, checks))
        })?;
        // SAFETY: the relation is open.
        let relation = unsafe { (*leaf).rd_id };
        let parent = Rc::clone(parent);
        Some(Self { relation, parent, current: Cell::new(true), sources, not_null, checks, _memory: memory })
    }
}

/// The source of a column that is not given; null stands for no default.
///
/// # Safety
/// `expression` is null or a column's default as the catalogue has it.
unsafe fn default(expression: *mut pg_sys::Expr) -> Source {
    if expression.is_null() {
        return Source::Constant(pg_sys::Datum::null(), true);
    }
    // SAFETY: as the caller promises; a node says by its tag what it is.
    unsafe {
        let planned = pg_sys::expression_planner(expression);
        if (*planned).type_ == pg_sys::NodeTag::T_Const {
            let constant: *mut pg_sys::Const = planned.cast();
            Source::Constant((*constant).constvalue, (*constant).constisnull)
        } else {
            Source::Default(planned)
        }
    }
}
