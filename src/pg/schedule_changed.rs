//! The trigger function that tells the launcher of a changed schedule.

use pgrx::{pg_guard, pg_sys};

function_info!(pg_finfo_iot_schedule_changed);

/// # Safety
/// Called by PostgreSQL as declared in `sql/schema/80_job.sql`.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn iot_schedule_changed(_call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    pg_sys::Datum::from(0)
}
