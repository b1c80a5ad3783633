//! `iot.retention_guard`: what must have been brought up to date before rows of a table go. Roll-ups and archives write it.

use iot_core::partition::PartitionRange;
use iot_core::time::Timestamp;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_literal;

use crate::error::IotResult;
use crate::pg::clock;
use crate::pg::statement::Session;
use crate::statement;

/// Something that depends on the rows of a table.
pub struct Guard {
    /// What it is called.
    pub name: String,
    /// Rows before that time are not needed any more.
    pub complete_until: Timestamp,
    /// Function that knows more, quoted.
    pub check_function: Option<String>,
}

statement!(OF_PARENT: (OIDOID)
    "SELECT g.guard_name, g.complete_until, g.check_function::pg_catalog.oid::pg_catalog.regproc::pg_catalog.text
       FROM iot.retention_guard g WHERE g.parent::pg_catalog.oid OPERATOR(pg_catalog.=) $1 ORDER BY g.guard_name");

/// The guards of `parent`.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn of_parent(session: &mut Session<'_>, parent: Oid) -> IotResult<Vec<Guard>> {
    let mut guards = Vec::new();
    session.execute(&OF_PARENT, &[parent.into()])?.for_each(|row| {
        guards.push(Guard {
            name: row.get(1)?,
            complete_until: clock::from_pg(row.get::<TimestampWithTimeZone>(2)?),
            check_function: row.optional(3)?,
        });
        Ok(())
    })?;
    Ok(guards)
}

/// What stands against the loss of rows of `parent` in `range`.
///
/// # Errors
/// Only what PostgreSQL and the guards' functions raise.
pub fn objection(
    session: &mut Session<'_>,
    guards: &[Guard],
    parent: Oid,
    range: PartitionRange,
) -> IotResult<Option<String>> {
    for guard in guards {
        match &guard.check_function {
            None if guard.complete_until < range.end => {
                return Ok(Some(format!(
                    "{} has got only to {}",
                    guard.name,
                    guard.complete_until.to_utc_literal()
                )));
            }
            None => {}
            Some(function) => {
                let [from, until] = [range.start, range.end].map(|at| quote_literal(at.to_utc_literal()));
                let rows = session.query(&format!(
                    "SELECT {function}({}::pg_catalog.oid::pg_catalog.regclass, {from}::pg_catalog.timestamptz, \
                     {until}::pg_catalog.timestamptz)::pg_catalog.text",
                    parent.to_u32()
                ))?;
                if let Some(row) = rows.first()
                    && let Some(why) = row.optional::<String>(1)?
                {
                    return Ok(Some(format!("{}: {why}", guard.name)));
                }
            }
        }
    }
    Ok(None)
}
