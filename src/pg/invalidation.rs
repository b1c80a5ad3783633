//! PostgreSQL's invalidation messages, as news for our own caches.

use std::cell::{Cell, RefCell};

use pgrx::{pg_guard, pg_sys};

thread_local! {
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
    static WATCHED: RefCell<Vec<pg_sys::Oid>> = const { RefCell::new(Vec::new()) };
    static GENERATION: Cell<u64> = const { Cell::new(0) };
}

/// Tables whose invalidation matters to us.
pub fn watch(tables: Vec<pg_sys::Oid>) {
    WATCHED.set(tables);
    if !REGISTERED.replace(true) {
        // SAFETY: the callback lives as long as the process, and so does the registration.
        unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::from(0)) };
    }
}

/// May be called at almost any point of other code: only counts.
///
/// # Safety
/// Called by PostgreSQL, as registered.
#[pg_guard]
unsafe extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    let concerns_us = relation == pg_sys::InvalidOid
        || WATCHED.try_with(|watched| {
            watched.try_borrow().map_or(true, |watched| watched.is_empty() || watched.contains(&relation))
        }) != Ok(false);
    if concerns_us {
        let _ = GENERATION.try_with(|generation| generation.set(generation.get() + 1));
    }
}

/// Grows whenever something in a watched table may have changed. What was read before it grew must be read again.
pub fn generation() -> u64 {
    GENERATION.get()
}

/// Takes in what other sessions have committed.
pub fn accept_messages() {
    // SAFETY: called inside a transaction, where no cache entry is being read.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// Tells every session, ours included, that rows of `table` changed: sent with the commit, at once to ourselves.
pub fn announce_change(table: pg_sys::Oid) {
    // SAFETY: queues a message for the end of the command and of the transaction; raises if the table is gone.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(table) };
}
