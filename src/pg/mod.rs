//! The only home of hand-written `unsafe`: small safe wrappers over the parts of PostgreSQL's C interface that pgrx
//! does not wrap. Every block states why it is sound.
#![allow(unsafe_code)]

/// Declares a function to PostgreSQL's function manager, as `PG_FUNCTION_INFO_V1` does.
macro_rules! function_info {
    ($($info:ident),*) => {$(
        #[doc(hidden)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $info() -> &'static pg_sys::Pg_finfo_record {
            const VERSION_1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &VERSION_1
        }
    )*};
}

pub mod array;
pub mod background;
mod background_entry;
pub mod bulk_insert;
pub mod clock;
mod conversion_log;
mod copy_out;
pub mod failure;
mod first_last;
pub mod foreign_insert;
pub mod input;
pub mod invalidation;
pub mod job_lock;
pub mod jsonb;
pub mod memory;
pub mod parse;
pub mod partition_bounds;
pub mod policy;
pub mod random;
pub mod relation;
mod schedule_changed;
pub mod security;
pub mod session_lock;
pub mod settings;
pub mod shared;
pub mod snapshots;
pub mod statement;
pub mod timer;
pub mod top_level;
pub mod transaction;
mod trigger;
pub mod utility_hook;
pub mod value;
