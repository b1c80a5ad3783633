//! `drop_old_partitions()`, and the functions behind concurrent detachment.

use iot_core::partition::Age;
use pgrx::datum::Interval;
use pgrx::pg_sys::Oid;
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_extern};

use super::manage::first_policy;
use super::run::{self, Action, Order, Outcome, Patience};
use super::survey::age;
use super::{require_owner, retire};
use crate::catalog::partition;
use crate::catalog::partition_policy;
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::relation::OpenRelation;
use crate::pg::statement::{Session, with_session};

#[pg_extern(sql = false)]
fn drop_old_partitions_by_days(parent: Oid, retention_days: i32, dry_run: bool, force: bool) -> i32 {
    let Some(age) = u32::try_from(retention_days).ok().and_then(Age::days) else {
        IotError::invalid_argument(format!("retention_days {retention_days} is not positive"))
            .hint("Give how many days rows are kept.")
            .raise();
    };
    let days = Interval::new(0, retention_days, 0)
        .map_err(|error| IotError::invalid_argument(format!("retention_days {age}: {error}")))
        .or_raise();
    drop_old(parent, days, Order { dry_run, force, only_retention: true, ..Order::default() }).or_raise()
}

#[pg_extern(sql = false)]
fn drop_old_partitions_by_interval(parent: Oid, older_than: Interval, dry_run: bool, force: bool) -> i32 {
    if age(&older_than).is_none() {
        IotError::invalid_argument(format!("older_than {older_than} is not positive"))
            .hint("Give how long rows are kept, such as '12 months'.")
            .raise();
    }
    drop_old(parent, older_than, Order { dry_run, force, only_retention: true, ..Order::default() })
        .or_raise()
}

fn drop_old(table: Oid, older_than: Interval, order: Order) -> IotResult<i32> {
    require_owner(table)?;
    let actions = with_session(|session| drop_older(session, table, older_than, order))?;
    let mut dropped = 0;
    for action in actions {
        let Action { verb, partition, rows, bytes, reason, outcome, .. } = action;
        let size = format!("about {} rows, {} bytes", rows.unwrap_or(0), bytes.unwrap_or(0));
        match outcome {
            Outcome::Done => dropped += i32::from(verb == "drop"),
            Outcome::Planned => {
                dropped += i32::from(verb == "drop");
                pgrx::ereport!(
                    PgLogLevel::NOTICE,
                    PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
                    format!("would {verb} partition \"{partition}\" ({size}): {reason}"),
                );
            }
            Outcome::Deferred if verb == "plan" => {
                IotError::new(
                    PgSqlErrorCode::ERRCODE_WARNING,
                    format!("no partition of table \"{partition}\" is dropped: {reason}"),
                )
                .hint("Run it again later.")
                .warn();
            }
            Outcome::Deferred | Outcome::Blocked | Outcome::Failed(_) => {
                let why = if outcome == Outcome::Deferred { "it is in use".to_owned() } else { reason };
                IotError::new(
                    PgSqlErrorCode::ERRCODE_WARNING,
                    format!("partition \"{partition}\" ({size}) is not dropped: {why}"),
                )
                .hint("Run it again later; force => true goes over retention guards.")
                .warn();
            }
        }
    }
    Ok(dropped)
}

/// Drops what is older than `older_than`, whatever the policy says about that.
///
/// # Errors
/// As [`run::run`].
pub fn drop_older(
    session: &mut Session<'_>,
    table: Oid,
    older_than: Interval,
    order: Order,
) -> IotResult<Vec<Action>> {
    let (_, _settings) = Patience::begin();
    let mut policy = match partition_policy::load(session, table)? {
        Some(stored) => stored,
        None => match run::unless_locked(|| first_policy(table))? {
            Some(first) => first,
            None => return Ok(vec![run::put_off(table)]),
        },
    };
    policy.management.drop_after = Some(older_than);
    policy.management.maximum_bytes = None;
    run::run(session, table, &policy, order)
}

#[pg_extern(sql = false)]
fn retire_partition(partition: Oid, reason: &str) {
    require_owner(partition).or_raise();
    with_session(|session| {
        let parent = partition::parent(session, partition)?.ok_or_else(|| {
            IotError::new(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!(
                    "table {} is not a partition",
                    OpenRelation::look(partition, OpenRelation::qualified_name)
                ),
            )
            .hint("Name a partition of a managed table.")
        })?;
        require_owner(parent)?;
        retire::mark(session, partition, parent, reason)
    })
    .or_raise();
}

#[pg_extern(sql = false)]
fn drop_retired_partitions(parent: Oid) -> i32 {
    require_owner(parent).or_raise();
    let actions = with_session(|session| run::finish(session, parent)).or_raise();
    let is_dropped = |action: &&Action| action.verb == "drop" && action.outcome == Outcome::Done;
    i32::try_from(actions.iter().filter(is_dropped).count()).unwrap_or(i32::MAX)
}
