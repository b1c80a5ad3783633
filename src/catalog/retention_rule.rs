//! `iot.retention_rule`: rows that live longer or shorter than the others of their table. Belongs to the extension.

use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::pg_sys::Oid;

use super::partition_policy::as_owner_of;
use crate::error::IotResult;
use crate::pg::statement::Session;
use crate::statement;

/// A rule, or a legal hold.
pub struct RetentionRule {
    /// Key.
    pub id: i64,
    /// Column and value of its rows; `None` for every row.
    pub rows: Option<(String, Option<String>)>,
    /// How long they are kept; `None` in a hold.
    pub keep_for: Option<Interval>,
    /// First time that is held.
    pub held_from: TimestampWithTimeZone,
    /// First time after it.
    pub held_until: TimestampWithTimeZone,
}

statement!(OF_PARENT: (OIDOID)
    "SELECT r.rule_id, r.column_name::pg_catalog.text, r.column_value, r.keep_for, r.held_from, r.held_until
       FROM iot.retention_rule r WHERE r.parent::pg_catalog.oid OPERATOR(pg_catalog.=) $1 ORDER BY r.rule_id");

/// The rules of `parent`, by their keys, whoever asks.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn of_parent(session: &mut Session<'_>, parent: Oid) -> IotResult<Vec<RetentionRule>> {
    // What is held, and why, is not for everybody who reads the table or brings readings.
    let _owner = as_owner_of(c"retention_rule")?;
    let mut rules = Vec::new();
    session.execute(&OF_PARENT, &[parent.into()])?.for_each(|row| {
        let value: Option<String> = row.optional(3)?;
        rules.push(RetentionRule {
            id: row.get(1)?,
            rows: row.optional::<String>(2)?.map(|column| (column, value)),
            keep_for: row.optional(4)?,
            held_from: row.get(5)?,
            held_until: row.get(6)?,
        });
        Ok(())
    })?;
    Ok(rules)
}

statement!(ADD: (OIDOID, TEXTOID, TEXTOID, INTERVALOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID)
    "INSERT INTO iot.retention_rule AS r (
         parent, column_name, column_value, keep_for, is_hold, held_from, held_until, reason)
     VALUES ($1, $2, $3, $4, $4 IS NULL, COALESCE($5, '-infinity'), COALESCE($6, 'infinity'), $7)
     RETURNING r.rule_id");

/// A new rule.
pub struct NewRule {
    /// Column and value of its rows; `None` for every row.
    pub rows: Option<(String, Option<String>)>,
    /// How long they are kept; `None` makes it a hold.
    pub keep_for: Option<Interval>,
    /// First time that is held.
    pub held_from: Option<TimestampWithTimeZone>,
    /// First time after it.
    pub held_until: Option<TimestampWithTimeZone>,
    /// Why.
    pub reason: Option<String>,
}

/// Adds a rule and returns its key; the caller has made sure that the current user owns the table.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn add(session: &mut Session<'_>, parent: Oid, rule: NewRule) -> IotResult<i64> {
    let _owner = as_owner_of(c"retention_rule")?;
    let (column, value) = rule.rows.unzip();
    let arguments = [
        parent.into(),
        column.into(),
        value.flatten().into(),
        rule.keep_for.into(),
        rule.held_from.into(),
        rule.held_until.into(),
        rule.reason.into(),
    ];
    match session.execute(&ADD, &arguments)?.first() {
        Some(row) => row.get(1),
        None => Ok(0),
    }
}

statement!(PARENT: (INT8OID) "SELECT r.parent::pg_catalog.oid FROM iot.retention_rule r WHERE r.rule_id OPERATOR(pg_catalog.=) $1");
statement!(REMOVE: (INT8OID) "DELETE FROM iot.retention_rule r WHERE r.rule_id OPERATOR(pg_catalog.=) $1");

/// Table of the rule `id`.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn parent(session: &mut Session<'_>, id: i64) -> IotResult<Option<Oid>> {
    let _owner = as_owner_of(c"retention_rule")?;
    match session.execute(&PARENT, &[id.into()])?.first() {
        Some(row) => row.optional(1),
        None => Ok(None),
    }
}

/// Removes the rule `id`; the caller has made sure that the current user owns its table.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn remove(session: &mut Session<'_>, id: i64) -> IotResult<()> {
    let _owner = as_owner_of(c"retention_rule")?;
    session.execute(&REMOVE, &[id.into()])?;
    Ok(())
}
