//! Putting away what a conversion leaves behind.

use iot_core::conversion::{Phase, suffixed};
use pgrx::PgSqlErrorCode;
use pgrx::spi::quote_identifier;

use super::{carry, swap};
use crate::catalog::conversion::Conversion;
use crate::catalog::conversion_source;
use crate::error::{IotError, IotResult};
use crate::pg::relation::{self, Lock, OpenRelation};
use crate::pg::statement::Session;

/// Drops the log, then foreign keys of the table before (kept, it would stand in the way of changes of the tables that they
/// reference), one in each transaction, then that table, if so ordered.
///
/// # Errors
/// What PostgreSQL raises: 55P03 where referenced tables are in use.
pub fn clean(session: &mut Session<'_>, conversion: &Conversion) -> IotResult<Phase> {
    swap::release();
    swap::drop_table(session, conversion.change_log)?;
    // Of an import, the copy has given its partitions away.
    if conversion.parent.is_some() {
        swap::drop_table(session, conversion.partitioned)?;
    }
    let kept = conversion.original.filter(|&original| relation::exists(original));
    if let Some(original) = kept
        && let Some(key) = conversion_source::foreign_keys(session, original)?.first()
    {
        drop(OpenRelation::open(key.referenced, Lock::AccessExclusive));
        session.run(&format!(
            "ALTER TABLE {} DROP CONSTRAINT {}",
            carry::qualified(original),
            quote_identifier(&key.name)
        ))?;
        return Ok(Phase::Cleaning);
    }
    let name = carry::qualified(conversion.parent.unwrap_or(conversion.relation));
    match kept {
        Some(original) if conversion.order.keep_original => {
            let before = carry::qualified(original);
            tell(format!("table {name} is partitioned; its rows as they were are kept in {before}"))
                .detail("Foreign keys of the kept table are dropped. It gets no new rows.")
                .hint(format!("When you are satisfied: DROP TABLE {before};"))
                .notice();
        }
        Some(original) => {
            swap::drop_table(session, original)?;
            tell(format!("table {name} is partitioned")).notice();
        }
        None => tell(format!("table {name} is partitioned")).notice(),
    }
    if conversion.parent.is_none() {
        tell(format!(
            "partitions of {name} are made by iot.partition_upkeep(), which has to run now and then"
        ))
        .detail("A row for which there is no partition is refused.")
        .hint(
            "Add a job for it, or call it from pg_cron. iot.manage_partitions() sets premake and retention.",
        )
        .notice();
    }
    Ok(Phase::Finished)
}

fn tell(message: String) -> IotError {
    IotError::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message)
}

/// The name under which a default partition is kept.
pub fn kept_default(name: &str) -> String {
    suffixed(name, "_before_import")
}
