//! Configuration parameters beyond what pgrx's registry offers.

use std::ffi::CStr;

use pgrx::pg_sys;

/// Makes PostgreSQL refuse unknown parameters below `prefix.`, so that a typing error does not pass silently.
pub fn reserve_prefix(prefix: &'static CStr) {
    // SAFETY: `prefix` is NUL-terminated and lives for ever; called from `_PG_init` only.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) }
}
