//! Retention rules and legal holds.

use std::ffi::CStr;

use iot_core::partition::PartitionRange;
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_identifier, quote_literal};
use pgrx::{PgSqlErrorCode, pg_extern};

use super::make::Workshop;
use super::require_owner;
use super::survey::age;
use crate::catalog::partition::{self, Column};
use crate::catalog::retention_rule::{self, NewRule, RetentionRule};
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::relation::{Lock, OpenRelation};
use crate::pg::security::ActingAs;
use crate::pg::statement::{Session, with_session};
use crate::pg::{clock, input, partition_bounds};

#[pg_extern(sql = false)]
fn add_retention_rule(
    parent: Option<Oid>,
    column_name: Option<&CStr>,
    column_value: Option<String>,
    keep_for: Option<Interval>,
    reason: Option<String>,
) -> i64 {
    let add = || {
        let parent = parent.ok_or_else(|| IotError::null_argument("parent"))?;
        let column = column_name.ok_or_else(|| IotError::null_argument("column_name"))?;
        let keep_for = keep_for.ok_or_else(|| IotError::null_argument("keep_for"))?;
        if age(&keep_for).is_none() {
            return Err(IotError::invalid_argument(format!("keep_for {keep_for} is not positive"))
                .hint("Give how long these rows are kept, such as '1 year'."));
        }
        let rows = Some((column.to_string_lossy().into_owned(), column_value));
        add(parent, NewRule { rows, keep_for: Some(keep_for), held_from: None, held_until: None, reason })
    };
    add().or_raise()
}

#[pg_extern(sql = false)]
fn add_legal_hold(
    parent: Option<Oid>,
    reason: Option<String>,
    column_name: Option<&CStr>,
    column_value: Option<String>,
    held_from: Option<TimestampWithTimeZone>,
    held_until: Option<TimestampWithTimeZone>,
) -> i64 {
    let add = || {
        let parent = parent.ok_or_else(|| IotError::null_argument("parent"))?;
        let reason = reason.ok_or_else(|| IotError::null_argument("reason"))?;
        if column_name.is_none() && column_value.is_some() {
            return Err(IotError::null_argument("column_name"));
        }
        if let (Some(from), Some(until)) = (&held_from, &held_until)
            && from >= until
        {
            return Err(IotError::invalid_argument("held_until is not after held_from")
                .hint("Give the first time of the rows that are held, and the first time after them."));
        }
        let rows = column_name.map(|column| (column.to_string_lossy().into_owned(), column_value));
        add(parent, NewRule { rows, keep_for: None, held_from, held_until, reason: Some(reason) })
    };
    add().or_raise()
}

fn add(parent: Oid, mut rule: NewRule) -> IotResult<i64> {
    let owner = require_owner(parent)?;
    // Whoever drops partitions meanwhile ends first, or sees the rule: see [`new_holds`].
    let open = OpenRelation::open(parent, Lock::ShareUpdateExclusive);
    partition_bounds::time_type(&open)?;
    drop(open);
    with_session(|session| {
        if let Some((column, value)) = &mut rule.rows {
            // Code of the type's may run.
            let _owner = ActingAs::restricted(owner);
            let found = comparable(session, parent, column)?;
            if let Some(text) = value {
                *text = canonical(&found, column, text)?;
            }
        }
        retention_rule::add(session, parent, rule)
    })
}

/// The column of `table`, if rows can be told by its value.
fn comparable(session: &mut Session<'_>, table: Oid, name: &str) -> IotResult<Comparable> {
    let Some(column) = partition::column(session, table, name)? else {
        return Err(IotError::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            format!("column \"{name}\" of the table does not exist"),
        )
        .hint("Name a column of the partitioned table."));
    };
    let operator = match input::equality_operator(column.type_oid) {
        Some(operator) => partition::operator(session, operator)?,
        None => None,
    };
    operator.map(|equals| Comparable { column, equals }).ok_or_else(|| {
        IotError::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
            format!("column_name \"{name}\": values of its type cannot be compared"),
        )
        .hint("Name a column of a type with an equality operator, such as jsonb where it is json.")
    })
}

/// A column and its equality.
struct Comparable {
    column: Column,
    equals: String,
}

/// A value in the one form in which it is kept: what the caller wrote means the same to every session.
fn canonical(column: &Comparable, name: &str, text: &str) -> IotResult<String> {
    let Column { type_oid, type_name } = &column.column;
    input::canonical(*type_oid, text).map_err(|error| {
        IotError::new(
            error.code(),
            format!("column_value \"{text}\" is no value of column \"{name}\": {}", error.message()),
        )
        .hint(format!("Give a value of type {type_name}."))
    })
}

/// The rows of a rule, as a condition in SQL; under [`Scoped::canonical`](crate::pg::settings::Scoped::canonical).
///
/// # Errors
/// 42703 and 42883 when the table has changed since the rule was made.
pub fn rows_of(
    session: &mut Session<'_>,
    table: Oid,
    workshop: &Workshop,
    rule: &RetentionRule,
) -> IotResult<String> {
    let rows = match &rule.rows {
        None => "true".to_owned(),
        Some((column, None)) => format!("{} IS NULL", quote_identifier(column)),
        Some((column, Some(value))) => {
            let Comparable { column: Column { type_name, .. }, equals } = comparable(session, table, column)?;
            format!("{} {equals} {}::{type_name}", quote_identifier(column), quote_literal(value))
        }
    };
    if rule.keep_for.is_some() {
        return Ok(format!("({rows})"));
    }
    Ok(format!("({rows} AND {})", workshop.condition(held_range(rule))))
}

fn held_range(rule: &RetentionRule) -> PartitionRange {
    PartitionRange { start: clock::from_pg(rule.held_from), end: clock::from_pg(rule.held_until) }
}

/// Times of `table` that are under legal hold, of holds that are not among the `known` rules. To be asked with the table
/// locked at least in SHARE UPDATE EXCLUSIVE mode: nobody makes another one then.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn new_holds(
    session: &mut Session<'_>,
    table: Oid,
    known: &[RetentionRule],
) -> IotResult<Vec<PartitionRange>> {
    let is_known = |rule: &RetentionRule| known.iter().any(|other| other.id == rule.id);
    Ok(retention_rule::of_parent(session, table)?
        .iter()
        .filter(|rule| rule.keep_for.is_none() && !is_known(rule))
        .map(held_range)
        .collect())
}

#[pg_extern(sql = false)]
fn remove_retention_rule(rule_id: i64) -> bool {
    with_session(|session| {
        let Some(parent) = retention_rule::parent(session, rule_id)? else { return Ok(false) };
        require_owner(parent)?;
        retention_rule::remove(session, rule_id)?;
        Ok(true)
    })
    .or_raise()
}
