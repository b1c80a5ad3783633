//! What `pg_partman` was told of a table.

use pgrx::PgSqlErrorCode;
use pgrx::datum::Interval;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_literal;

use crate::error::{IotError, IotResult};
use crate::pg::relation::OpenRelation;
use crate::pg::security::ActingAs;
use crate::pg::statement::Session;
use crate::statement;

/// A row of its table `part_config`.
pub struct Configuration {
    /// That table, quoted.
    table: String,
    /// Name of the parent as it stands there.
    parent: String,
    /// Width of partitions.
    pub interval: Interval,
    /// Partitions kept ready.
    pub premake: i32,
    /// Age at which partitions are dropped.
    pub retention: Option<Interval>,
    /// Age at which it only detaches them, which is not carried over.
    detached_after: Option<Interval>,
}

statement!(
    /// The extension's own table, or one of that name whose owner could do to the table what it says.
    TABLE: (OIDOID)
    "SELECT c.oid, c.relowner FROM pg_class c LEFT JOIN pg_extension e ON e.extname = 'pg_partman'
      WHERE c.relname = 'part_config' AND c.relkind = 'r'
        AND c.relnamespace = coalesce(e.extnamespace, to_regnamespace('partman')::oid)
        AND (e.oid IS NOT NULL OR pg_has_role(c.relowner, (SELECT t.relowner FROM pg_class t WHERE t.oid = $1), 'USAGE'))");

/// What is configured for `parent`, if `pg_partman` has it.
///
/// # Errors
/// What PostgreSQL raises, for example 22007 for an interval that is none (a table partitioned by a number).
pub fn configuration(session: &mut Session<'_>, parent: Oid) -> IotResult<Option<Configuration>> {
    let Some(row) = session.execute(&TABLE, &[parent.into()])?.first() else { return Ok(None) };
    let (table, owner): (Oid, Oid) = (row.get(1)?, row.get(2)?);
    let table = OpenRelation::look(table, OpenRelation::qualified_name);
    let (schema, name) = OpenRelation::look(parent, |table| (table.schema(), table.name()));
    let called = format!("{schema}.{name}");
    // As its owner: whatever hangs on that table is his, and no business of the caller.
    let _owner = ActingAs::restricted(owner);
    let found = session.query(&format!(
        "SELECT p.partition_interval::interval, p.premake, p.retention::interval, p.retention_keep_table
           FROM {table} p WHERE p.parent_table = {}",
        quote_literal(&called)
    ))?;
    let Some(row) = found.first() else { return Ok(None) };
    let age: Option<Interval> = row.optional(3)?;
    let keeps = row.optional::<bool>(4)?.unwrap_or(false);
    Ok(Some(Configuration {
        table,
        parent: called,
        interval: row.get(1)?,
        premake: row.get(2)?,
        retention: age.filter(|_| !keeps),
        detached_after: age.filter(|_| keeps),
    }))
}

impl Configuration {
    /// Says what the user must switch off.
    pub fn tell(&self, name: &str) {
        let Self { table, parent, .. } = self;
        if let Some(age) = self.detached_after {
            super::notice(&format!(
                "pg_partman detaches partitions of {name} after {age} and keeps them; they stay attached unless you give a retention, by which they are dropped"
            ));
        }
        IotError::new(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!("pg_partman still has {name} in its configuration and goes on making and dropping partitions"),
        )
        .detail("Existing partitions keep their names; new ones are called as docs/partitions.md says.")
        .hint(format!(
            "Switch it off: DELETE FROM {table} WHERE parent_table = {}; and take the table out of scheduled calls of run_maintenance() for single tables.",
            quote_literal(parent)
        ))
        .warn();
    }
}
