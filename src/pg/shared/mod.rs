//! Shared memory: the state of tracked sensors, and counters. Present only when the library is preloaded.

pub mod counters;
pub mod databases;
pub mod flush;
mod lock;
pub mod schedule;
pub mod sensors;
pub mod slabs;
mod table;

use pgrx::{pg_guard, pg_sys};

static mut PREVIOUS_REQUEST_HOOK: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP_HOOK: pg_sys::shmem_startup_hook_type = None;

/// Whether the postmaster is loading the library now.
pub fn is_preloading() -> bool {
    // SAFETY: a flag of the postmaster, read while it loads libraries.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Asks for shared memory. Called from `_PG_init` while preloading, after the settings are defined.
pub fn install_hooks() {
    // SAFETY: the postmaster is single-threaded; earlier hooks are kept and called first.
    unsafe {
        PREVIOUS_REQUEST_HOOK = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(request);
        PREVIOUS_STARTUP_HOOK = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(startup);
    }
}

#[pg_guard]
extern "C-unwind" fn request() {
    // SAFETY: called by the postmaster at the one point where memory can be asked for.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST_HOOK {
            previous();
        }
    }
    table::request();
    slabs::request();
    counters::request();
    databases::request();
    schedule::request();
}

#[pg_guard]
extern "C-unwind" fn startup() {
    // SAFETY: called by the postmaster after shared memory exists, before any child does.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP_HOOK {
            previous();
        }
    }
    table::startup();
    slabs::startup();
    counters::startup();
    databases::startup();
    schedule::startup();
}
