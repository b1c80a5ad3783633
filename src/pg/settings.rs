//! Configuration parameters beyond what pgrx's registry offers.

use std::ffi::CStr;

use pgrx::pg_sys;

/// Makes PostgreSQL refuse unknown parameters below `prefix.`, so that a typing error does not pass silently.
pub fn reserve_prefix(prefix: &'static CStr) {
    // SAFETY: `prefix` is NUL-terminated and lives for ever; called from `_PG_init` only.
    unsafe { pg_sys::MarkGUCPrefixReserved(prefix.as_ptr()) }
}

/// Settings that hold for a piece of work: back to what they were on drop, or with the (sub)transaction's abort.
pub struct Scoped(i32);

impl Scoped {
    /// Nothing is set yet.
    pub fn new() -> Self {
        // SAFETY: opens a level that is closed on drop; after an ERROR, by the abort.
        Self(unsafe { pg_sys::NewGUCNestLevel() })
    }

    /// Those under which the text of a value means the same in every session.
    pub fn canonical() -> Self {
        let settings = Self::new();
        for (name, value) in [
            (c"TimeZone", c"UTC"),
            (c"DateStyle", c"ISO, YMD"),
            (c"IntervalStyle", c"postgres"),
            (c"extra_float_digits", c"1"),
            (c"bytea_output", c"hex"),
        ] {
            settings.set(name, value);
        }
        settings
    }

    /// Those under which plans follow indexes. What costs more than a plan can is compiled before it runs, hence `jit`.
    pub fn by_index() -> Self {
        let settings = Self::new();
        for name in [c"enable_seqscan", c"enable_bitmapscan", c"jit"] {
            settings.set(name, c"off");
        }
        settings
    }

    /// Sets one that any session may set.
    pub fn set(&self, name: &CStr, value: &CStr) {
        // SAFETY: both strings are NUL-terminated and copied.
        unsafe {
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
    }
}

impl Drop for Scoped {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: closes the level that `new` opened.
            unsafe { pg_sys::AtEOXact_GUC(false, self.0) };
        }
    }
}

/// `max_locks_per_transaction` × `max_connections`: how many locks the whole server has room for, roughly.
pub fn lock_table_size() -> i64 {
    // SAFETY: reads two settings that never change in a running server.
    let (locks, connections) = unsafe { (pg_sys::max_locks_per_xact, pg_sys::MaxConnections) };
    i64::from(locks) * i64::from(connections)
}

/// How long PostgreSQL waits for a lock before it looks for a deadlock.
pub fn deadlock_timeout() -> std::time::Duration {
    // SAFETY: reads a setting.
    std::time::Duration::from_millis(u64::try_from(unsafe { pg_sys::DeadlockTimeout }).unwrap_or(0))
}

/// Shows `text` as what this session is doing, in `pg_stat_activity`.
pub fn show_activity(text: &str) {
    if let Ok(text) = std::ffi::CString::new(text) {
        // SAFETY: the text is copied, and cut to its place.
        unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr()) };
    }
}
