//! `iot.retention_guard`: what must have been brought up to date before rows of a table go. Roll-ups and archives write it.

use iot_core::partition::PartitionRange;
use iot_core::time::Timestamp;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_literal;

use crate::error::IotResult;
use crate::pg::clock;
use crate::pg::statement::Session;
use crate::pg::transaction::{self, Attempt};
use crate::statement;

/// Something that depends on the rows of a table.
pub struct Guard {
    /// What it is called.
    pub name: String,
    /// Rows before that time are not needed any more.
    pub complete_until: Timestamp,
    /// Function that knows more, quoted; the number of one that was dropped.
    pub check_function: Option<String>,
}

impl Guard {
    /// Why the rows of `range` are still needed. A guard that cannot say so must be taken for one that needs them.
    fn ask(
        &self,
        session: &mut Session<'_>,
        function: &str,
        parent: Oid,
        range: PartitionRange,
    ) -> IotResult<Option<String>> {
        if function.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Some("its function does not exist any more".to_owned()));
        }
        let [from, until] = [range.start, range.end].map(|at| quote_literal(at.to_utc_literal()));
        let question = format!(
            "SELECT {function}({}::pg_catalog.oid::pg_catalog.regclass, {from}::pg_catalog.timestamptz, \
             {until}::pg_catalog.timestamptz)::pg_catalog.text",
            parent.to_u32()
        );
        let asked = transaction::attempt(|| match session.query(&question)?.first() {
            Some(row) => row.optional(1),
            None => Ok(None),
        })?;
        Ok(match asked {
            Attempt::Done(why) => why,
            Attempt::Locked => Some("its function waits for a lock".to_owned()),
            Attempt::Failed(error) => Some(format!("its function failed: {error}")),
        })
    }
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
/// Only what PostgreSQL raises; an error of a guard's function is an objection.
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
                if let Some(why) = guard.ask(session, function, parent, range)? {
                    return Ok(Some(format!("{}: {why}", guard.name)));
                }
            }
        }
    }
    Ok(None)
}
