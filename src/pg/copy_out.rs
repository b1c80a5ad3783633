//! COPY from the foreign tables of the stream road to a client: PostgreSQL refuses it before it asks the foreign-data
//! wrapper, and advises a query that the wrapper then refuses.

use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};

use super::relation::in_schema_iot;
use crate::error::IotError;

/// Raises 42809 for a COPY out of `iot.readings` or `iot.raw_readings`.
///
/// # Safety
/// `statement` is a COPY about to be executed.
#[pg_guard]
pub(super) unsafe extern "C-unwind" fn refuse(statement: *mut pg_sys::CopyStmt) {
    // SAFETY: promised by the caller; COPY of a query has no relation. A relation that is missing is for PostgreSQL to report.
    let relation = unsafe {
        if (*statement).is_from || (*statement).relation.is_null() {
            return;
        }
        pg_sys::RangeVarGetRelidExtended(
            (*statement).relation,
            pg_sys::NoLock as pg_sys::LOCKMODE,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    };
    if let Some(name) =
        [c"readings", c"raw_readings"].into_iter().find(|name| in_schema_iot(name) == Some(relation))
    {
        IotError::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("cannot copy from foreign table \"{}\"", name.to_string_lossy()),
        )
        .detail("It takes readings and keeps none.")
        .hint("Use COPY (SELECT ... FROM iot.sensor_data) TO.")
        .raise();
    }
}
