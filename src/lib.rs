//! The PostgreSQL shell of `iot_ext`: SQL values in, [`iot_core`] decisions, SQL values out.
//!
//! See `ARCHITECTURE.md` for the map. The dependency rule: capability files (`ingest`, `alert`, …) use `catalog`
//! (one file per table: its few SQL statements), which uses `pg` (the only home of hand-written `unsafe`).

// `#[pg_extern]` expands to `unsafe` wrappers, so the modules that declare SQL functions carry an allowance for
// generated code; `tests/house` checks that none of them contains the word in its own text.
#[allow(unsafe_code)]
mod alert;
#[allow(unsafe_code)]
mod bucket;
mod catalog;
#[allow(unsafe_code)]
mod command;
#[allow(unsafe_code)]
mod conversion;
#[allow(unsafe_code)]
mod detector;
#[allow(unsafe_code)]
mod device;
mod engine;
mod error;
mod guc;
#[allow(unsafe_code)]
mod ingest;
#[allow(unsafe_code)]
mod job;
#[allow(unsafe_code)]
mod partition;
mod pg;
#[allow(unsafe_code)]
mod processing;
#[allow(unsafe_code)]
mod recalibration;
#[allow(unsafe_code)]
mod schema;
#[allow(unsafe_code)]
mod setup;
#[allow(unsafe_code)]
mod state;
#[allow(unsafe_code)]
mod statistics;
#[allow(unsafe_code)]
mod stream;
#[allow(unsafe_code)]
mod unit;
mod worker;

#[allow(unsafe_code)]
mod module {
    pgrx::pg_module_magic!(name, version);

    /// Called once per process when the library is loaded: by the postmaster when preloaded, else by the first
    /// call of one of our functions in a backend.
    #[pgrx::pg_guard]
    extern "C-unwind" fn _PG_init() {
        crate::guc::define();
        if crate::pg::shared::is_preloading() {
            crate::pg::shared::install_hooks();
            crate::pg::utility_hook::install();
            crate::worker::register();
        }
    }
}

#[cfg(feature = "pg_test")]
#[allow(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod in_database_tests;

/// What `cargo pgrx test` asks of an extension. Preloaded, as in production; the tests on real clusters try both.
#[cfg(test)]
#[allow(missing_docs, clippy::missing_docs_in_private_items)]
pub mod pg_test {
    pub fn setup(_options: Vec<&str>) {}

    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec!["shared_preload_libraries = 'iot_ext'"]
    }
}
