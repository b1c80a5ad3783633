//! `create_hypertable()`: an empty plain table made anew as one that is partitioned by time.

use std::ffi::CStr;

use pgrx::datum::Interval;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_identifier, quote_literal, quote_qualified_identifier};
use pgrx::{PgLogLevel, PgSqlErrorCode, name, pg_extern};

use super::make::free_name;
use super::{manage, require_owner};
use crate::catalog::partition::column_type;
use crate::catalog::partition_policy;
use crate::catalog::plain_table::{self, PlainTable};
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::partition_bounds;
use crate::pg::relation::{self, Lock, OpenRelation};
use crate::pg::security::ActingAs;
use crate::pg::statement::{Session, with_session};

#[pg_extern(sql = false)]
fn create_hypertable(
    relation: Oid,
    time_column_name: &CStr,
    chunk_time_interval: Interval,
    if_not_exists: bool,
) -> TableIterator<'static, (name!(schema_name, String), name!(table_name, String), name!(created, bool))> {
    let column = time_column_name.to_string_lossy();
    let line = create(relation, &column, chunk_time_interval, if_not_exists).or_raise();
    TableIterator::once(line)
}

fn create(
    table: Oid,
    column: &str,
    interval: Interval,
    if_not_exists: bool,
) -> IotResult<(String, String, bool)> {
    let owner = require_owner(table)?;
    let (schema, name) = OpenRelation::look(table, |table| (table.schema(), table.name()));
    partition_policy::interval_argument("chunk_time_interval", &interval)?;
    if OpenRelation::look(table, partition_bounds::time_column).is_ok_and(|found| found == column) {
        if !if_not_exists {
            return Err(IotError::new(
                PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
                format!("table \"{name}\" is partitioned by \"{column}\" already"),
            )
            .hint("Use if_not_exists => true, or iot.manage_partitions() to change how it is managed."));
        }
        let is_managed = with_session(|session| Ok(partition_policy::load(session, table)?.is_some()))?;
        if !is_managed {
            manage::begin(table, interval)?;
        }
        pgrx::ereport!(
            PgLogLevel::NOTICE,
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            format!("table \"{name}\" is partitioned by \"{column}\" already, skipping"),
        );
        return Ok((schema, name, false));
    }
    with_session(|session| {
        let _owner = ActingAs::restricted(owner);
        // Nobody adds a row between the look and the change.
        drop(OpenRelation::open(table, Lock::AccessExclusive));
        let plain = plain_table::load(session, table)?;
        check(session, &schema, &name, &plain)?;
        check_column(session, table, &name, column)?;
        replace(session, &schema, &name, column, &plain)
    })?;
    let new = relation::named(&schema, &name)
        .ok_or_else(|| IotError::wrong_state(format!("table \"{name}\" is gone")))?;
    manage::begin(new, interval)?;
    Ok((schema, name, true))
}

/// Refuses what has rows, or more to it than is carried over here.
fn check(session: &mut Session<'_>, schema: &str, name: &str, plain: &PlainTable) -> IotResult<()> {
    if !plain.is_plain {
        return Err(IotError::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("\"{name}\" is not a plain table"),
        )
        .hint("Name a table that is neither partitioned, inherited, temporary nor unlogged."));
    }
    let table = quote_qualified_identifier(schema, name);
    if session.query(&format!("SELECT 1 FROM ONLY {table} LIMIT 1"))?.count() > 0 {
        return Err(IotError::wrong_state(format!("table \"{name}\" has rows"))
            .hint("Use iot.convert_to_partitioned() for a table with rows."));
    }
    if let Some(dependant) = &plain.dependant {
        return Err(IotError::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("table \"{name}\" has {dependant}, which would not be carried over"),
        )
        .hint("Add it after create_hypertable(), or create the table with PARTITION BY RANGE and call iot.manage_partitions()."));
    }
    Ok(())
}

/// Refuses what no table can be partitioned by in time.
fn check_column(session: &mut Session<'_>, table: Oid, name: &str, column: &str) -> IotResult<()> {
    const HINT: &str = "Name a timestamptz, timestamp or date column of the table.";
    match column_type(session, table, column)?.as_deref() {
        Some("timestamp with time zone" | "timestamp without time zone" | "date") => Ok(()),
        Some(other) => Err(IotError::new(
            PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            format!("time_column_name \"{column}\" is a column of type {other}"),
        )
        .hint(HINT)),
        None => Err(IotError::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            format!("time_column_name \"{column}\" is no column of table \"{name}\""),
        )
        .hint(HINT)),
    }
}

fn replace(
    session: &mut Session<'_>,
    schema: &str,
    name: &str,
    column: &str,
    plain: &PlainTable,
) -> IotResult<()> {
    let table = quote_qualified_identifier(schema, name);
    let column = quote_identifier(column);
    let aside = free_name(schema, &format!("{:.50}_before", name))?;
    let old = quote_qualified_identifier(schema, &aside);
    session.run(&format!("ALTER TABLE {table} RENAME TO {}", quote_identifier(&aside)))?;
    session.run(&format!(
        "CREATE TABLE {table} (LIKE {old} INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY) PARTITION BY RANGE ({column})"
    ))?;
    for (sequence, owner_column) in &plain.sequences {
        session
            .run(&format!("ALTER SEQUENCE {sequence} OWNED BY {table}.{}", quote_identifier(owner_column)))?;
    }
    if let Some(comment) = &plain.comment {
        session.run(&format!("COMMENT ON TABLE {table} IS {}", quote_literal(comment)))?;
    }
    session.run(&format!("DROP TABLE {old}"))?;
    session.run(&format!("ALTER TABLE {table} ALTER COLUMN {column} SET NOT NULL"))?;
    for statement in &plain.afterwards {
        session.run(statement)?;
    }
    Ok(())
}
