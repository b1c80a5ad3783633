//! Taking a conversion back.

use iot_core::conversion::Phase;
use pgrx::pg_sys::Oid;

use super::{begin, swap};
use crate::catalog::conversion;
use crate::catalog::conversion_source;
use crate::error::{IotError, IotResult};
use crate::partition::Patience;
use crate::pg::relation::OpenRelation;
use crate::pg::security::ActingAs;
use crate::pg::session_lock::Converter;
use crate::pg::statement::{Session, with_session};
use crate::statement;

/// Drops what a conversion of `table` has made so far; false when there is none.
///
/// # Errors
/// 55000 when the table is partitioned already; 55P03 when another session is converting it, or a lock is not to be had.
pub fn cancel(table: Oid, owner: Oid) -> IotResult<bool> {
    with_session(|session| {
        let Some(found) = conversion::of_table(session, table)? else {
            let _owner = ActingAs::restricted(owner);
            return cancel_restored(session, table);
        };
        let name = OpenRelation::look(table, OpenRelation::qualified_name);
        if found.state.phase == Phase::Finished {
            return Ok(false);
        }
        if !found.state.phase.is_before_swap() {
            return Err(IotError::wrong_state(format!("table {name} is partitioned already"))
                .hint("Call it again to let it finish. To go back, copy the rows into a plain table."));
        }
        if !Converter::of(found.id).try_hold() {
            return Err(begin::busy(&name));
        }
        {
            let _owner = ActingAs::restricted(owner);
            let (_patience, _settings) = Patience::begin();
            swap::drop_triggers(session, table)?;
            swap::drop_table(session, found.partitioned)?;
            swap::drop_table(session, found.change_log)?;
        }
        conversion::forget(session, found.id)?;
        Ok(true)
    })
}

statement!(
    /// Copy and log as the triggers name them, where they belong to the table's owner.
    LEFT_OVER: (OIDOID)
    "SELECT DISTINCT c.oid FROM pg_trigger t JOIN pg_class s ON s.oid = t.tgrelid,
            LATERAL (SELECT string_to_array(encode(t.tgargs, 'escape'), '\\000')) AS a (arguments),
            LATERAL unnest(a.arguments[4:5]) AS n (name)
       JOIN pg_class c ON c.oid = to_regclass(n.name)
      WHERE t.tgrelid = $1 AND t.tgname = ANY ('{iot_ext_conversion,iot_ext_conversion_truncate}') AND c.relowner = s.relowner");

/// In a database restored from a dump taken meanwhile there is no conversion, but what it had made.
fn cancel_restored(session: &mut Session<'_>, table: Oid) -> IotResult<bool> {
    let left = conversion_source::list(session, &LEFT_OVER, table, |row| row.get::<Oid>(1))?;
    if left.is_empty() {
        return Ok(false);
    }
    let (_patience, _settings) = Patience::begin();
    swap::drop_triggers(session, table)?;
    for each in left {
        swap::drop_table(session, each)?;
    }
    Ok(true)
}
