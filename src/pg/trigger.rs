//! Trigger functions in Rust: what a changed row means for the caches and for the state of sensors.

use pgrx::{pg_guard, pg_sys};

use super::invalidation;
use super::relation::in_schema_iot;
use crate::catalog;
use crate::engine::{self, overlay};
use crate::error::{IotError, OrRaise};

function_info!(
    pg_finfo_iot_registry_changed,
    pg_finfo_iot_readings_changed,
    pg_finfo_iot_all_readings_changed,
    pg_finfo_iot_partitions_changed
);

/// Row or statement trigger on a table whose rows are cached: tells every session.
///
/// # Safety
/// Called by PostgreSQL as declared in `sql/schema/51_ingest_triggers.sql`.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn iot_registry_changed(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: passed on from the caller; the relation of a trigger call is open.
    let table = unsafe { (*(*trigger_data(call)).tg_relation).rd_id };
    invalidation::announce_change(table);
    // What is kept of rules is kept with the policy: not everybody may read them, and so not watch them either.
    if in_schema_iot(c"retention_rule") == Some(table)
        && let Some(policy) = in_schema_iot(c"partition_policy")
    {
        invalidation::announce_change(policy);
    }
    pg_sys::Datum::from(0)
}

/// Row and TRUNCATE trigger on `iot.sensor_data`: rows that the engine did not write make their sensor's state stale.
///
/// # Safety
/// Called by PostgreSQL as declared in `sql/schema/51_ingest_triggers.sql`.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn iot_readings_changed(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    if engine::is_writing() {
        return pg_sys::Datum::from(0);
    }
    // SAFETY: passed on from the caller.
    let data = unsafe { &*trigger_data(call) };
    if data.tg_event & pg_sys::TRIGGER_EVENT_ROW == 0 {
        overlay::mark_all_stale().or_raise();
        return pg_sys::Datum::from(0);
    }
    // SAFETY: a row trigger has its relation open and its row, and for UPDATE the new one too; all live during the call.
    unsafe {
        let descriptor = (*data.tg_relation).rd_att;
        let column = pg_sys::SPI_fnumber(descriptor, c"sensor_id".as_ptr());
        for row in [data.tg_trigtuple, data.tg_newtuple] {
            if row.is_null() || column <= 0 {
                continue;
            }
            let mut is_null = false;
            let datum = pg_sys::SPI_getbinval(row, descriptor, column, &mut is_null);
            if !is_null {
                overlay::mark_stale(*datum.cast_mut_ptr::<[u8; 16]>()).or_raise();
            }
        }
    }
    pg_sys::Datum::from(0)
}

/// Called by the event trigger that sees partitions come and go: which sensors had readings there is not known.
///
/// # Safety
/// Called by PostgreSQL as declared in `sql/schema/51_ingest_triggers.sql`.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn iot_all_readings_changed(_call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // A partition that the engine makes is empty.
    if !engine::is_writing() && catalog::require_setup().is_ok() {
        overlay::mark_all_stale().or_raise();
    }
    pg_sys::Datum::from(0)
}

/// Event trigger after ALTER TABLE: readings may have come or gone with a partition of `iot.sensor_data`.
///
/// Looks at the statement alone: it runs after every ALTER TABLE of everybody, also of those who may not look into our schema.
///
/// # Safety
/// Called by PostgreSQL as declared in `sql/schema/51_ingest_triggers.sql`.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn iot_partitions_changed(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // What the engine changes itself brings and takes no reading.
    if engine::is_writing() {
        return pg_sys::Datum::from(0);
    }
    // SAFETY: the context of a call is null or a node, and an EventTriggerData when its tag says so; its statement lives
    // during the call, and is of the kind that its own tag names. The name is looked up without a lock.
    let changed = unsafe {
        let context: *const pg_sys::EventTriggerData = (*call).context.cast();
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_EventTriggerData {
            None
        } else {
            let statement = (*context).parsetree;
            ((*statement).type_ == pg_sys::NodeTag::T_AlterTableStmt).then(|| {
                pg_sys::RangeVarGetRelidExtended(
                    (*statement.cast::<pg_sys::AlterTableStmt>()).relation,
                    pg_sys::NoLock as pg_sys::LOCKMODE,
                    pg_sys::RVROption::RVR_MISSING_OK,
                    None,
                    std::ptr::null_mut(),
                )
            })
        }
    };
    if changed.is_some() && changed == in_schema_iot(c"sensor_data") && catalog::require_setup().is_ok() {
        overlay::mark_all_stale().or_raise();
    }
    pg_sys::Datum::from(0)
}

/// # Safety
/// `call` comes from PostgreSQL.
pub(super) unsafe fn trigger_data(call: pg_sys::FunctionCallInfo) -> *const pg_sys::TriggerData {
    // SAFETY: the context of a call is null or a node, and a TriggerData when its tag says so.
    unsafe {
        let context = (*call).context;
        if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
            IotError::new(
                pgrx::PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                "function was not called by a trigger",
            )
            .hint("It is attached by iot.setup().")
            .raise();
        }
        context.cast()
    }
}
