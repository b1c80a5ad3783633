//! Time partitions: made ahead and on demand, indexed by tier, dropped when their time has come. The plans are the core's.

mod drop_old;
mod hypertable;
mod list;
mod make;
mod manage;
mod probe;
mod retire;
mod rewrite;
mod rules;
mod run;
mod survey;
mod tiers;
mod upkeep;

use std::ffi::CStr;

use iot_core::partition::{PartitionInterval, plan, range_for};
use iot_core::time::Timestamp;
use pgrx::pg_sys::Oid;
use pgrx::{PgSqlErrorCode, pg_extern};

use crate::catalog::partition_policy::{self, Management};
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::relation::{self, Lock, OpenRelation, in_schema_iot};
use crate::pg::security::{self, ActingAs};
use crate::pg::statement::{Session, with_session};
use crate::pg::{clock, partition_bounds};

pub use make::{BOUNDS, Namesake, create_missing, create_missing_for, free_name};
pub use manage::{Wishes, manage};
pub use run::{Order, Outcome, Patience, warn_of_locks};
pub use survey::{age, horizon};
pub use upkeep::{Retention, retain, statements};

/// Makes sure that there is a partition of `iot.<name>` for each of `times`; the usual case costs a binary search
/// each. Only the making of a partition runs as the table's owner, so that a role with no more than INSERT can store the
/// first reading of a new month.
///
/// # Errors
/// What PostgreSQL raises while a partition is made.
pub fn ensure_for(name: &CStr, times: impl Iterator<Item = Timestamp>) -> IotResult<()> {
    let Some(table) = in_schema_iot(name) else {
        return Ok(());
    };
    let parent = OpenRelation::open(table, Lock::RowExclusive);
    let missing = partition_bounds::uncovered(&parent, times)?;
    if missing.is_empty() {
        return Ok(());
    }
    let owner = parent.owner();
    // ATTACH wants the parent unused by this session.
    drop(parent);
    with_session(|session| {
        let (interval, management) = policy_of(session, table)?;
        let _owner = ActingAs::restricted(owner);
        for at in missing {
            create_missing(session, table, interval, &management, |existing| {
                range_for(existing, interval, at).into_iter().collect()
            })?;
        }
        Ok(())
    })
}

/// How partitions of `table` are made: as its policy says, else in the interval of the readings, else by month.
fn policy_of(session: &mut Session<'_>, table: Oid) -> IotResult<(PartitionInterval, Management)> {
    if let Some(policy) = partition_policy::load(session, table)? {
        return Ok((policy.interval, policy.management));
    }
    let readings = match in_schema_iot(c"sensor_data") {
        Some(readings) => partition_policy::load(session, readings)?,
        None => None,
    };
    Ok((readings.map_or(PartitionInterval::Month, |policy| policy.interval), Management::default()))
}

/// The interval of which the newest partition is a whole range.
///
/// # Errors
/// 42809 when `table` is not partitioned by time.
pub fn newest_interval(table: Oid) -> IotResult<Option<PartitionInterval>> {
    let ranges = OpenRelation::look(table, partition_bounds::ranges)?;
    Ok(ranges.last().and_then(|newest| {
        PartitionInterval::ALL.into_iter().find(|each| each.range_containing(newest.start) == Some(*newest))
    }))
}

/// Refuses before any lock is taken: ATTACH would do so only after it. Returns the owner.
fn require_owner(table: Oid) -> IotResult<Oid> {
    let (Some((_, owner)), Some(name)) =
        (relation::kind_and_owner(table), relation::qualified_name_of(table))
    else {
        return Err(IotError::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("relation with OID {} does not exist", table.to_u32()),
        )
        .hint("It was dropped meanwhile."));
    };
    if security::current_user_has_privileges_of(owner) {
        return Ok(owner);
    }
    Err(IotError::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("must be owner of table {name}"),
    )
    .hint("Call it as the owner of the table, or as a member of that role."))
}

#[pg_extern(sql = false)]
fn create_monthly_partition(parent: Oid, year: i32, month: i32) -> Option<String> {
    let first = u32::try_from(month).ok().and_then(|month| Timestamp::from_utc_civil(year, month, 1));
    let Some(first) = first.filter(|_| (1..=9999).contains(&year)) else {
        IotError::invalid_argument(format!("year {year}, month {month} is not a month"))
            .hint("Give a year from 1 to 9999 and a month from 1 to 12.")
            .raise();
    };
    let owner = require_owner(parent).or_raise();
    with_session(|session| {
        let (_, management) = policy_of(session, parent)?;
        let _owner = ActingAs::restricted(owner);
        create_missing(session, parent, PartitionInterval::Month, &management, |existing| {
            plan(existing, PartitionInterval::Month, first, 0)
        })
    })
    .or_raise()
    .into_iter()
    .next()
    .map(|(name, _)| name)
}

#[pg_extern(sql = false)]
fn create_future_partitions(parent: Oid, months_ahead: i32) -> Vec<String> {
    let Some(premake) = u32::try_from(months_ahead).ok().filter(|&months| months <= 1000) else {
        IotError::invalid_argument(format!("months_ahead {months_ahead} is not between 0 and 1000"))
            .hint("Give the number of months to prepare beyond the current one.")
            .raise();
    };
    let owner = require_owner(parent).or_raise();
    with_session(|session| {
        let (_, management) = policy_of(session, parent)?;
        let _owner = ActingAs::restricted(owner);
        create_missing(session, parent, PartitionInterval::Month, &management, |existing| {
            plan(existing, PartitionInterval::Month, clock::now(), premake)
        })
    })
    .or_raise()
    .into_iter()
    .map(|(name, _)| name)
    .collect()
}
