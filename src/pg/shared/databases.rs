//! The databases that have entries in shared memory, for the worker that writes these down.

use std::sync::atomic::{AtomicU32, Ordering};

use pgrx::pg_sys;

use super::flush::is_unflushed;
use super::table::{Entry, remove_database, visit_all};

/// Databases found by one look; the others are found once these have been served.
const MOST: usize = 64;

static mut FAILING: *mut [AtomicU32; MOST] = std::ptr::null_mut();

pub(super) fn request() {
    // SAFETY: called from the request hook.
    unsafe { pg_sys::RequestAddinShmemSpace(size_of::<[AtomicU32; MOST]>()) };
}

pub(super) fn startup() {
    // SAFETY: called from the startup hook; the memory has the size asked for. Zero is no database.
    unsafe {
        let mut found = false;
        let bytes = size_of::<[AtomicU32; MOST]>();
        let start = pg_sys::ShmemInitStruct(c"iot_ext failing databases".as_ptr(), bytes, &mut found);
        if !found {
            std::ptr::write_bytes(start.cast::<u8>(), 0, bytes);
        }
        FAILING = start.cast();
    }
}

/// Oids of databases with entries that `is_wanted`. Memory for them is taken before any lock is.
fn databases(is_wanted: impl Fn(&Entry) -> bool) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::with_capacity(MOST);
    visit_all(|entry| {
        if found.len() < MOST && !found.contains(&entry.key.database) && is_wanted(entry) {
            found.push(entry.key.database);
        }
    });
    found
}

/// Databases with states that are not written down.
pub fn with_changes() -> Vec<u32> {
    databases(is_unflushed)
}

/// Databases with entries, except `known` ones.
pub fn unknown(known: &[u32]) -> Vec<u32> {
    databases(|entry| !known.contains(&entry.key.database))
}

/// Gives up every entry of a database that no transaction holds.
pub fn forget(database: u32) {
    remove_database(database);
}

fn failing() -> &'static [AtomicU32] {
    // SAFETY: set by the postmaster before this process was forked; the fields are atomic.
    unsafe { if FAILING.is_null() { &[] } else { &*FAILING } }
}

/// Remembers that writing down failed; whether that is news.
pub fn note_failure(database: u32) -> bool {
    let is_known = failing().iter().any(|slot| slot.load(Ordering::Relaxed) == database);
    if !is_known {
        let take = |slot: &AtomicU32| {
            slot.compare_exchange(0, database, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        // Full: then this one is told every time.
        let _ = failing().iter().any(take);
    }
    !is_known
}

/// Writing down worked, or is not wanted any more.
pub fn note_success(database: u32) {
    for slot in failing() {
        let _ = slot.compare_exchange(database, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}
