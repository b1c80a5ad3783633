//! `convert_to_partitioned()` and `import_partitions()`: a table is copied into a partitioned one while it is in use, and the
//! two change places.
//!
//! A trigger writes the key of every changed row into a log. The key of the copy is that of the table and the time, and of
//! each such key one thing holds in every snapshot from the end of the copying on: it is in the log, or both tables have the
//! same row of it or none. Copying goes by blocks (what was in them before the log began is either still there or in the log)
//! and leaves out what is there already; replaying takes keys out of the log, deletes them from the copy and copies anew what
//! the table has of them, in one transaction. So the order of all this does not matter, and every step can be repeated.
//!
//! Each step is one transaction, and `iot.conversion` says which is next: what a crash interrupts is undone by PostgreSQL and
//! done again by the next call. One session at a time does it, which a lock of the session sees to.

mod begin;
mod cancel;
mod carry;
mod check;
mod copy;
mod finish;
mod import;
mod indexes;
mod partman;
mod shape;
mod step;
mod swap;
mod verify;

use pgrx::datum::Interval;
use pgrx::pg_extern;
use pgrx::pg_sys::Oid;

use crate::catalog::conversion::{self, Order};
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::relation::{self, OpenRelation};
use crate::pg::security::{self, ActingAs};
use crate::pg::statement::with_session;
use crate::pg::transaction;

#[pg_extern(sql = false)]
fn check_conversion(dry_run: Option<bool>) -> bool {
    let dry_run = dry_run.ok_or_else(|| IotError::null_argument("dry_run")).or_raise();
    if !dry_run && transaction::is_in_block() {
        IotError::new(
            pgrx::PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            "convert_to_partitioned() and import_partitions() cannot run inside a transaction block",
        )
        .detail("They commit after each step.")
        .hint("Call them outside of BEGIN and COMMIT, with autocommit on; a dry run may be called anywhere.")
        .raise();
    }
    !dry_run
}

#[pg_extern(sql = false)]
#[expect(clippy::too_many_arguments, reason = "the parameters of a SQL function")]
fn begin_conversion(
    relation: Option<Oid>,
    time_column: Option<&std::ffi::CStr>,
    partition_interval: Option<Interval>,
    batch_rows: Option<i32>,
    keep_original: Option<bool>,
    premake: Option<i32>,
    lock_retries: Option<i32>,
    dry_run: Option<bool>,
) -> Option<i64> {
    let order = || {
        Ok::<_, IotError>(Order {
            time_column: given(time_column, "time_column")?.to_string_lossy().into_owned(),
            interval_given: given(partition_interval, "partition_interval")?,
            premake: within(premake, "premake", 0, 1_000)?,
            batch_rows: within(batch_rows, "batch_rows", 1, 1_000_000)?,
            keep_original: given(keep_original, "keep_original")?,
            keep_default: false,
            lock_retries: within(lock_retries, "lock_retries", 0, 1_000_000)?,
        })
    };
    given(relation, "relation")
        .and_then(|relation| begin::conversion(relation, order()?, given(dry_run, "dry_run")?))
        .or_raise()
}

#[pg_extern(sql = false)]
#[expect(clippy::too_many_arguments, reason = "the parameters of a SQL function")]
fn begin_import(
    parent: Option<Oid>,
    partition_interval: Option<Interval>,
    premake: Option<i32>,
    retention: Option<Interval>,
    batch_rows: Option<i32>,
    keep_default: Option<bool>,
    keep_original: Option<bool>,
    lock_retries: Option<i32>,
    dry_run: Option<bool>,
) -> Option<i64> {
    let begin = || {
        let wishes = import::Wishes { partition_interval, premake, retention };
        let batch_rows = within(batch_rows, "batch_rows", 1, 1_000_000)?;
        let lock_retries = within(lock_retries, "lock_retries", 0, 1_000_000)?;
        let keep = (given(keep_default, "keep_default")?, given(keep_original, "keep_original")?);
        let parent = given(parent, "parent")?;
        import::begin(parent, wishes, (batch_rows, lock_retries), keep, given(dry_run, "dry_run")?)
    };
    begin().or_raise()
}

#[pg_extern(sql = false)]
fn end_import(
    parent: Option<Oid>,
    partition_interval: Option<Interval>,
    premake: Option<i32>,
    retention: Option<Interval>,
    dry_run: Option<bool>,
) {
    let wishes = import::Wishes { partition_interval, premake, retention };
    given(parent, "parent")
        .and_then(|parent| import::end(parent, wishes, given(dry_run, "dry_run")?))
        .or_raise();
}

#[pg_extern(sql = false)]
fn continue_conversion(conversion_id: i64) -> Option<i64> {
    step::step(conversion_id).or_raise().then_some(conversion_id)
}

#[pg_extern(sql = false)]
fn cancel_conversion(relation: Oid) -> bool {
    require_owner(relation).and_then(|owner| cancel::cancel(relation, owner)).or_raise()
}

#[pg_extern(sql = false)]
fn conversion_log_length(relation: Oid) -> Option<i64> {
    log_length(relation).or_raise()
}

fn log_length(table: Oid) -> IotResult<Option<i64>> {
    if !relation::exists(table) {
        return Ok(None);
    }
    let owner = OpenRelation::look(table, OpenRelation::owner);
    if !security::current_user_has_privileges_of(owner) && !security::current_user_is_monitor() {
        return Ok(None);
    }
    with_session(|session| {
        let Some(found) = conversion::of_table(session, table)? else { return Ok(None) };
        if !relation::exists(found.change_log) {
            return Ok(None);
        }
        let _owner = ActingAs::restricted(owner);
        let log = OpenRelation::look(found.change_log, OpenRelation::qualified_name);
        let rows = session.query(&format!("SELECT count(*) FROM {log}"))?;
        rows.first().map(|row| row.get(1)).transpose()
    })
}

/// Refuses callers who do not own `table`; returns the owner.
fn require_owner(table: Oid) -> IotResult<Oid> {
    let (owner, name) = OpenRelation::look(table, |table| (table.owner(), table.qualified_name()));
    if security::current_user_has_privileges_of(owner) {
        return Ok(owner);
    }
    Err(IotError::new(
        pgrx::PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("must be owner of table {name}"),
    )
    .hint("Call it as the owner of the table, or as a member of that role."))
}

fn given<T>(value: Option<T>, argument: &str) -> IotResult<T> {
    value.ok_or_else(|| IotError::null_argument(argument))
}

fn within(value: Option<i32>, argument: &str, least: i32, most: i32) -> IotResult<i32> {
    let value = given(value, argument)?;
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(IotError::invalid_argument(format!("{argument} {value} is not between {least} and {most}"))
        .hint(format!("Give a number from {least} to {most}.")))
}

/// Says something that is no problem.
fn notice(text: &str) {
    pgrx::ereport!(
        pgrx::PgLogLevel::NOTICE,
        pgrx::PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
        text.to_owned()
    );
}
