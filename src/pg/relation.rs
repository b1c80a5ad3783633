//! Relations by name and oid, read from the relation cache.

use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

use pgrx::pg_sys;

/// The relation `iot.<name>`, if `setup()` (or the extension) made it.
pub fn in_schema_iot(name: &CStr) -> Option<pg_sys::Oid> {
    // SAFETY: catalogue cache look-ups with NUL-terminated names; a missing schema is reported by InvalidOid.
    let relation = unsafe {
        let schema = pg_sys::get_namespace_oid(c"iot".as_ptr(), true);
        if schema == pg_sys::InvalidOid {
            return None;
        }
        pg_sys::get_relname_relid(name.as_ptr(), schema)
    };
    (relation != pg_sys::InvalidOid).then_some(relation)
}

/// The table that `index` belongs to, if it is an index.
pub fn table_of_index(index: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a catalogue cache look-up; what is no index is reported by InvalidOid.
    let table = unsafe { pg_sys::IndexGetRelation(index, true) };
    (table != pg_sys::InvalidOid).then_some(table)
}

/// What kind of relation it is, as in `pg_class.relkind`, and its owner; `None` when there is none.
pub fn kind_and_owner(relation: pg_sys::Oid) -> Option<(u8, pg_sys::Oid)> {
    // SAFETY: reads a row of pg_class in the catalogue cache and gives it back.
    unsafe {
        let row =
            pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, pg_sys::Datum::from(relation));
        if row.is_null() {
            return None;
        }
        let header = (*row).t_data;
        let form: *const pg_sys::FormData_pg_class =
            header.cast::<u8>().add(usize::from((*header).t_hoff)).cast();
        let found = ((*form).relkind as u8, (*form).relowner);
        pg_sys::ReleaseSysCache(row);
        Some(found)
    }
}

/// `schema.name` of a relation, each part quoted where SQL needs it, without a lock on it; `None` when there is none.
pub fn qualified_name_of(relation: pg_sys::Oid) -> Option<String> {
    // SAFETY: catalogue cache look-ups; names come back as fresh copies, or NULL when the relation is gone.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        if name.is_null() {
            return None;
        }
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation));
        if schema.is_null() {
            return None;
        }
        let text = |pointer| CStr::from_ptr(pointer).to_string_lossy().into_owned();
        Some(pgrx::spi::quote_qualified_identifier(text(schema), text(name)))
    }
}

/// Name of a relation without its schema, without a lock on it; `None` when there is none.
pub fn name_of(relation: pg_sys::Oid) -> Option<String> {
    // SAFETY: a catalogue cache look-up; the name comes back as a fresh copy, or NULL when the relation is gone.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}

/// Waits until every transaction that has written to `relation` so far has ended. Nothing stays locked.
pub fn await_writers(relation: pg_sys::Oid) {
    let lock = pg_sys::ShareLock as pg_sys::LOCKMODE;
    // SAFETY: takes and gives back a lock; an ERROR while waiting leaves none behind.
    unsafe {
        pg_sys::LockRelationOid(relation, lock);
        pg_sys::UnlockRelationOid(relation, lock);
    }
}

/// Takes `lock` on `relation` if that is free within `patience`. Nobody queues behind us meanwhile: we look again now and
/// then instead of waiting in line.
pub fn try_lock(relation: pg_sys::Oid, lock: Lock, patience: Duration) -> bool {
    const PAUSE: Duration = Duration::from_millis(10);
    let begin = Instant::now();
    loop {
        // SAFETY: asks for a lock without waiting; the transaction's end releases it.
        if unsafe { pg_sys::ConditionalLockRelationOid(relation, lock as pg_sys::LOCKMODE) } {
            return true;
        }
        if begin.elapsed() >= patience {
            return false;
        }
        pause(PAUSE);
    }
}

/// Waits, unless something happens. Raises when the statement is cancelled.
pub fn pause(length: Duration) {
    if length.is_zero() {
        return;
    }
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: the latch of this process, which it alone waits for and resets.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as i32,
            length.as_millis() as std::ffi::c_long,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}

/// The relation `name` in `schema`.
pub fn named(schema: &str, name: &str) -> Option<pg_sys::Oid> {
    let (schema, name) = (CString::new(schema).ok()?, CString::new(name).ok()?);
    // SAFETY: catalogue cache look-ups with NUL-terminated names; a missing schema is reported by InvalidOid.
    let relation = unsafe {
        match pg_sys::get_namespace_oid(schema.as_ptr(), true) {
            pg_sys::InvalidOid => return None,
            schema => pg_sys::get_relname_relid(name.as_ptr(), schema),
        }
    };
    (relation != pg_sys::InvalidOid).then_some(relation)
}

/// Whether it exists.
pub fn exists(relation: pg_sys::Oid) -> bool {
    // SAFETY: a catalogue cache look-up; a missing relation has kind 0.
    unsafe { pg_sys::get_rel_relkind(relation) != 0 }
}

/// Whether it goes with its session.
pub fn is_temporary(relation: pg_sys::Oid) -> bool {
    // SAFETY: a catalogue cache look-up of what exists.
    exists(relation) && unsafe { pg_sys::get_rel_persistence(relation) } as u8 == pg_sys::RELPERSISTENCE_TEMP
}

/// Whether it is a partition of something.
pub fn is_partition(relation: pg_sys::Oid) -> bool {
    // SAFETY: a catalogue cache look-up; what does not exist is none.
    unsafe { pg_sys::get_rel_relispartition(relation) }
}

/// An open relation; closed on drop, its lock kept until the transaction ends.
pub struct OpenRelation(pg_sys::Relation);

impl OpenRelation {
    /// Opens `relation`, taking `lock` (at least ACCESS SHARE). Raises 42P01 when it was dropped meanwhile.
    pub fn open(relation: pg_sys::Oid, lock: Lock) -> Self {
        // SAFETY: raises an ERROR when the relation does not exist; else the pointer is valid until closed.
        Self(unsafe { pg_sys::relation_open(relation, lock as pg_sys::LOCKMODE) })
    }

    /// The relation cache entry, valid while `self` lives.
    pub(super) fn cache_entry(&self) -> pg_sys::Relation {
        self.0
    }

    /// Opens `relation` as [`OpenRelation::open`], with a cache entry read anew under the lock.
    pub fn open_fresh(relation: pg_sys::Oid, lock: Lock) -> Self {
        // SAFETY: the lock is taken first, then the entry is thrown away; an entry in use would be rebuilt instead.
        unsafe {
            pg_sys::LockRelationOid(relation, lock as pg_sys::LOCKMODE);
            pg_sys::RelationCacheInvalidateEntry(relation);
        }
        Self::open(relation, lock)
    }

    /// Opens `relation` for a look, and has `look` at it; lock and all are given back after it. What was seen may be
    /// outdated then.
    pub fn look<T>(relation: pg_sys::Oid, look: impl FnOnce(&Self) -> T) -> T {
        let lock = Lock::AccessShare as pg_sys::LOCKMODE;
        // SAFETY: raises when it does not exist. After an ERROR in `look` the abort gives reference and lock back.
        let open = Self(unsafe { pg_sys::relation_open(relation, lock) });
        let seen = look(&open);
        // SAFETY: opened above, closed once: the drop is skipped.
        unsafe { pg_sys::relation_close(open.0, lock) };
        std::mem::forget(open);
        seen
    }

    /// Its oid.
    pub fn oid(&self) -> pg_sys::Oid {
        // SAFETY: the cache entry of an open relation is valid.
        unsafe { (*self.0).rd_id }
    }

    /// Name without schema.
    pub fn name(&self) -> String {
        // SAFETY: an open relation has its pg_class row, whose name is NUL-terminated.
        unsafe { CStr::from_ptr((*(*self.0).rd_rel).relname.data.as_ptr()) }.to_string_lossy().into_owned()
    }

    /// Name of its schema.
    pub fn schema(&self) -> String {
        // SAFETY: as above; the schema of an open relation exists, and its name comes back as a fresh copy.
        unsafe { CStr::from_ptr(pg_sys::get_namespace_name((*(*self.0).rd_rel).relnamespace)) }
            .to_string_lossy()
            .into_owned()
    }

    /// `schema.name`, each part quoted where SQL needs it.
    pub fn qualified_name(&self) -> String {
        pgrx::spi::quote_qualified_identifier(self.schema(), self.name())
    }

    /// Role that owns it.
    pub fn owner(&self) -> pg_sys::Oid {
        // SAFETY: an open relation has its pg_class row.
        unsafe { (*(*self.0).rd_rel).relowner }
    }

    /// Whether row security is enabled, and whether it is forced on the owner too.
    pub fn row_security(&self) -> (bool, bool) {
        // SAFETY: an open relation has its pg_class row.
        unsafe { ((*(*self.0).rd_rel).relrowsecurity, (*(*self.0).rd_rel).relforcerowsecurity) }
    }
}

impl Drop for OpenRelation {
    fn drop(&mut self) {
        // While an ERROR unwinds, the transaction's abort releases the reference itself.
        if !std::thread::panicking() {
            // SAFETY: opened by `open`, closed once.
            unsafe { pg_sys::relation_close(self.0, pg_sys::NoLock as pg_sys::LOCKMODE) };
        }
    }
}

/// Table locks the extension takes itself.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Lock {
    /// Reading the catalogue entry.
    AccessShare = pg_sys::AccessShareLock,
    /// What an INSERT takes: nobody can drop the table afterwards.
    RowExclusive = pg_sys::RowExclusiveLock,
    /// What ATTACH PARTITION takes: no one else attaches, readers and writers go on.
    ShareUpdateExclusive = pg_sys::ShareUpdateExclusiveLock,
    /// Readers go on, writers wait.
    ShareRowExclusive = pg_sys::ShareRowExclusiveLock,
    /// What DROP and DETACH take: nobody else does anything with it.
    AccessExclusive = pg_sys::AccessExclusiveLock,
}
