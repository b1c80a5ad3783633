//! Retention rules and legal holds.

use std::ffi::CStr;

use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::pg_sys::Oid;
use pgrx::{PgSqlErrorCode, pg_extern};

use super::require_owner;
use super::survey::age;
use crate::catalog::partition::column_type;
use crate::catalog::retention_rule::{self, NewRule};
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::partition_bounds;
use crate::pg::relation::OpenRelation;
use crate::pg::statement::with_session;

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

fn add(parent: Oid, rule: NewRule) -> IotResult<i64> {
    require_owner(parent)?;
    OpenRelation::look(parent, partition_bounds::time_type)?;
    with_session(|session| {
        if let Some((column, _)) = &rule.rows
            && column_type(session, parent, column)?.is_none()
        {
            return Err(IotError::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("column \"{column}\" of the table does not exist"),
            )
            .hint("Name a column of the partitioned table."));
        }
        retention_rule::add(session, parent, rule)
    })
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
