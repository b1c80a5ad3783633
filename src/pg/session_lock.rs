//! Locks that a session keeps from one transaction to the next. They are PostgreSQL's standard ones: the abort of a
//! transaction gives them back, so an error leaves none behind.

use pgrx::pg_sys;

use super::relation::{Lock, in_schema_iot};

/// Who converts a table, so that no two sessions do. No SQL asks for this lock.
pub struct Converter(pg_sys::LOCKTAG);

impl Converter {
    const MODE: pg_sys::LOCKMODE = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;

    /// The lock of the conversion of that number; nothing is taken yet.
    pub fn of(conversion: i64) -> Self {
        Self(pg_sys::LOCKTAG {
            // SAFETY: set when the session connected.
            locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
            locktag_field2: in_schema_iot(c"conversion").unwrap_or(pg_sys::InvalidOid).to_u32(),
            locktag_field3: conversion as u32,
            locktag_field4: (conversion >> 32) as u16,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        })
    }

    /// Whether this session has it.
    pub fn is_held(&self) -> bool {
        // SAFETY: looks into the session's own table of locks; the tag lives during the call.
        unsafe { held_by_me(&self.0, Self::MODE) }
    }

    /// Takes it for the session, if it is free.
    pub fn try_keep(&self) -> bool {
        self.is_held() || self.try_take(true)
    }

    /// Takes it for the transaction, if it is free.
    pub fn try_hold(&self) -> bool {
        self.try_take(false)
    }

    fn try_take(&self, for_session: bool) -> bool {
        // SAFETY: asks for the lock without waiting; the tag lives during the call.
        let result = unsafe { pg_sys::LockAcquire(&self.0, Self::MODE, for_session, true) };
        result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
    }

    /// Gives back what [`Converter::try_keep`] took.
    pub fn give_back(&self) {
        if self.is_held() {
            // SAFETY: the session holds it.
            unsafe { pg_sys::LockRelease(&self.0, Self::MODE, true) };
        }
    }
}

/// A lock on a table that outlives the transaction. Nobody may drop the table meanwhile, and nobody can.
pub struct Kept {
    table: pg_sys::LockRelId,
    mode: pg_sys::LOCKMODE,
}

impl Kept {
    /// Keeps a lock that the transaction holds already.
    pub fn keep(table: pg_sys::Oid, lock: Lock) -> Self {
        // SAFETY: set when the session connected.
        let table = pg_sys::LockRelId { relId: table, dbId: unsafe { pg_sys::MyDatabaseId } };
        let mut kept = Self { table, mode: lock as pg_sys::LOCKMODE };
        // SAFETY: the transaction holds it, so there is nothing to wait for.
        unsafe { pg_sys::LockRelationIdForSession(&mut kept.table, kept.mode) };
        kept
    }

    /// Whether it is held still: an abort gives it back.
    pub fn is_held(&self) -> bool {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: self.table.dbId.to_u32(),
            locktag_field2: self.table.relId.to_u32(),
            locktag_field3: 0,
            locktag_field4: 0,
            locktag_type: pg_sys::LockTagType::LOCKTAG_RELATION as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        // SAFETY: looks into the session's own table of locks; the tag lives during the call.
        unsafe { held_by_me(&tag, self.mode) }
    }

    /// Gives it back, if it is held still.
    pub fn give_back(mut self) {
        if self.is_held() {
            // SAFETY: the session holds it.
            unsafe { pg_sys::UnlockRelationIdForSession(&mut self.table, self.mode) };
        }
    }
}

/// # Safety
/// As `LockHeldByMe`.
unsafe fn held_by_me(tag: &pg_sys::LOCKTAG, mode: pg_sys::LOCKMODE) -> bool {
    // SAFETY: passed on. From PostgreSQL 17 on, one function answers for stronger locks too when told to.
    unsafe {
        #[cfg(not(any(feature = "pg17", feature = "pg18")))]
        return pg_sys::LockHeldByMe(tag, mode);
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        return pg_sys::LockHeldByMe(tag, mode, false);
    }
}
