//! Relations by name and oid, read from the relation cache.

use std::ffi::CStr;

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

    /// Whether subscribers are sent whole rows, for want of a key.
    pub fn has_full_replica_identity(&self) -> bool {
        // SAFETY: an open relation has its pg_class row.
        unsafe { (*(*self.0).rd_rel).relreplident as u8 == pg_sys::REPLICA_IDENTITY_FULL }
    }

    /// Whether `name` is taken in the relation's schema.
    pub fn sibling_exists(&self, name: &CStr) -> bool {
        // SAFETY: a catalogue cache look-up with a NUL-terminated name.
        unsafe {
            pg_sys::get_relname_relid(name.as_ptr(), (*(*self.0).rd_rel).relnamespace) != pg_sys::InvalidOid
        }
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
}
