//! Putting away what a conversion leaves behind.

use iot_core::conversion::suffixed;
use pgrx::PgSqlErrorCode;
use pgrx::spi::quote_identifier;

use super::{carry, swap};
use crate::catalog::conversion::Conversion;
use crate::catalog::conversion_source;
use crate::error::{IotError, IotResult};
use crate::pg::relation;
use crate::pg::statement::Session;

/// Drops the log and, if so ordered, the table before. Kept, it loses its foreign keys: they would stand in the way of
/// changes of the tables that they reference.
///
/// # Errors
/// What PostgreSQL raises: 55P03 where referenced tables are in use.
pub fn clean(session: &mut Session<'_>, conversion: &Conversion) -> IotResult<()> {
    swap::release();
    swap::drop_table(session, conversion.change_log)?;
    // Of an import, the copy has given its partitions away.
    if conversion.parent.is_some() {
        swap::drop_table(session, conversion.partitioned)?;
    }
    let name = carry::qualified(conversion.parent.unwrap_or(conversion.relation));
    let kept = conversion.original.filter(|&original| relation::exists(original));
    let told = match kept {
        Some(original) if conversion.order.keep_original => {
            let before = carry::qualified(original);
            for (key, _) in conversion_source::foreign_keys(session, original)? {
                session.run(&format!("ALTER TABLE {before} DROP CONSTRAINT {}", quote_identifier(&key)))?;
            }
            tell(format!("table {name} is partitioned; its rows as they were are kept in {before}"))
                .detail("Foreign keys of the kept table are dropped. It gets no new rows.")
                .hint(format!("When you are satisfied: DROP TABLE {before};"))
        }
        Some(original) => {
            swap::drop_table(session, original)?;
            tell(format!("table {name} is partitioned"))
        }
        None => tell(format!("table {name} is partitioned")),
    };
    told.tell();
    if conversion.parent.is_none() {
        tell(format!(
            "partitions of {name} are made by iot.partition_upkeep(), which has to run now and then"
        ))
        .detail("A row for which there is no partition is refused.")
        .hint(
            "Add a job for it, or call it from pg_cron. iot.manage_partitions() sets premake and retention.",
        )
        .tell();
    }
    Ok(())
}

fn tell(message: String) -> IotError {
    IotError::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message)
}

/// The name under which a default partition is kept.
pub fn kept_default(name: &str) -> String {
    suffixed(name, "_before_import")
}
