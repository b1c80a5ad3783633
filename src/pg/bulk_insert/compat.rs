//! Calls that differ between PostgreSQL 15 and 18.

use pgrx::pg_sys;

/// The attribute at `index`, from 0.
///
/// # Safety
/// `descriptor` is valid and has such an attribute.
pub(super) unsafe fn attribute(
    descriptor: pg_sys::TupleDesc,
    index: std::ffi::c_int,
) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: as the caller promises.
    unsafe {
        #[cfg(feature = "pg18")]
        return pg_sys::TupleDescAttr(descriptor, index);
        #[cfg(not(feature = "pg18"))]
        return (*descriptor).attrs.as_ptr().add(index as usize);
    }
}

/// The primary key of an open relation, if it is one that an INSERT checks at once.
///
/// # Safety
/// `relation` is open.
pub(super) unsafe fn primary_key(relation: pg_sys::Relation) -> Option<pg_sys::Oid> {
    // SAFETY: as the caller promises.
    let index = unsafe {
        #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
        let index = pg_sys::RelationGetPrimaryKeyIndex(relation);
        #[cfg(feature = "pg18")]
        let index = pg_sys::RelationGetPrimaryKeyIndex(relation, false);
        index
    };
    (index != pg_sys::InvalidOid).then_some(index)
}

/// Makes the index entries of the row in `slot`. `true` when an index of `arbiters` already has its key; the entries
/// are there all the same.
///
/// # Safety
/// `target` has its indexes open, `slot` holds a row stored in it, `arbiters` is a list of oids of such indexes.
pub(super) unsafe fn insert_index_entries(
    target: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    state: *mut pg_sys::EState,
    arbiters: *mut pg_sys::List,
) -> bool {
    let mut conflict = false;
    // Without a list the check would apply to every unique index.
    let defer = !arbiters.is_null();
    // SAFETY: as the caller promises.
    unsafe {
        #[cfg(feature = "pg15")]
        pg_sys::ExecInsertIndexTuples(target, slot, state, false, defer, &mut conflict, arbiters);
        #[cfg(not(feature = "pg15"))]
        pg_sys::ExecInsertIndexTuples(target, slot, state, false, defer, &mut conflict, arbiters, false);
    }
    conflict
}

/// Begins to look `count` keys up in `index`.
///
/// # Safety
/// Both relations are open, and `index` is one of `table`; `snapshot` outlives the scan.
pub(super) unsafe fn begin_index_scan(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    count: i32,
) -> pg_sys::IndexScanDesc {
    // SAFETY: as the caller promises.
    unsafe {
        #[cfg(feature = "pg18")]
        return pg_sys::index_beginscan(table, index, snapshot, std::ptr::null_mut(), count, 0);
        #[cfg(not(feature = "pg18"))]
        return pg_sys::index_beginscan(table, index, snapshot, count, 0);
    }
}
