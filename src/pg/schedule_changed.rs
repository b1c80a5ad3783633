//! The trigger function that tells the launcher of a changed schedule, once it is committed.

use std::cell::Cell;

use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};

use super::shared::schedule;
use crate::error::IotError;

function_info!(pg_finfo_iot_schedule_changed);

thread_local! {
    static LISTENS: Cell<bool> = const { Cell::new(false) };
    /// The current transaction has changed jobs.
    static CHANGED: Cell<bool> = const { Cell::new(false) };
}

/// # Safety
/// Called by PostgreSQL as declared in `sql/schema/80_job.sql`.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn iot_schedule_changed(_call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    if schedule::is_available() {
        CHANGED.set(true);
        if !LISTENS.replace(true) {
            // SAFETY: the callback lives as long as the process; the registration is for good.
            unsafe { pg_sys::RegisterXactCallback(Some(transaction_ended), std::ptr::null_mut()) };
        }
    }
    pg_sys::Datum::from(0)
}

/// What a subtransaction changed and took back has the launcher look once for nothing.
///
/// # Safety
/// Called by PostgreSQL, as registered.
#[pg_guard]
unsafe extern "C-unwind" fn transaction_ended(
    event: pg_sys::XactEvent::Type,
    _argument: *mut std::ffi::c_void,
) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PRE_PREPARE};
    if !CHANGED.get() {
        return;
    }
    match event {
        XACT_EVENT_COMMIT => {
            CHANGED.set(false);
            schedule::mark_current_database();
        }
        XACT_EVENT_ABORT => CHANGED.set(false),
        XACT_EVENT_PRE_PREPARE => IotError::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "cannot PREPARE a transaction that has changed jobs",
        )
        .hint("Use COMMIT: nobody would tell the launcher of a later COMMIT PREPARED.")
        .raise(),
        _ => (),
    }
}
