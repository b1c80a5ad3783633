//! Jobs under the name of what they are for.

use iot_core::job::Kind;
use iot_core::time::MICROS_PER_HOUR;
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::pg_extern;
use pgrx::pg_sys::Oid;
use serde_json::json;

use super::add::{check_owner, exists_already, new, store_new};
use super::alter::delete_policies;
use super::schedule::interval;
use crate::catalog::job::{self, Job};
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::relation::qualified_name_of;
use crate::pg::statement::{Session, with_session};
use crate::pg::{clock, security};

/// What both kinds of policies are told.
struct Policy<'a> {
    relation: Oid,
    schedule_interval: Option<Interval>,
    if_not_exists: bool,
    initial_start: Option<TimestampWithTimeZone>,
    time_zone: Option<&'a str>,
    job_name: Option<&'a str>,
    owner: Option<Oid>,
}

impl Policy<'_> {
    /// The job, not yet stored.
    fn job(&self, session: &mut Session<'_>, kind: Kind, name: String) -> IotResult<Job> {
        let name = self.job_name.map_or(name, str::to_owned);
        let mut job = new(session, name, kind, Some(self.relation), self.owner)?;
        job.schedule_interval =
            Some(self.schedule_interval.ok_or_else(|| IotError::null_argument("schedule_interval"))?);
        job.first_start = self.initial_start.map(clock::from_pg);
        if let Some(time_zone) = self.time_zone {
            time_zone.clone_into(&mut job.time_zone);
        }
        Ok(job)
    }

    /// Stores it, unless one like it is there.
    fn add(&self, session: &mut Session<'_>, mut job: Job) -> IotResult<i64> {
        let others = job::load_of_target(session, self.relation, job.kind)?;
        let condition = |job: &Job| job.parameters.get("condition").cloned();
        if let Some(same) = others.iter().find(|other| condition(other) == condition(&job)) {
            if self.if_not_exists {
                exists_already(same);
                return Ok(same.job_id);
            }
            return Err(IotError::new(
                pgrx::PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
                format!("job \"{}\" does that already", same.name),
            )
            .hint("Change it with iot.alter_job(), or pass if_not_exists => true."));
        }
        // Several policies of a table differ in their conditions; their names must differ, too.
        if self.job_name.is_none() {
            job.name = free_name(session, job.name)?;
        }
        store_new(session, &job)
    }
}

/// The name, or with the first number behind it that makes it free.
fn free_name(session: &mut Session<'_>, name: String) -> IotResult<String> {
    let mut free = name.clone();
    for number in 2.. {
        if job::load_named(session, &free)?.is_none() {
            break;
        }
        free = format!("{name} ({number})");
    }
    Ok(free)
}

/// Sees to it that the partitions of the current user are kept, from an hour from now on. `None` when that is so already, or
/// cannot be: then a WARNING says so.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn schedule_upkeep(session: &mut Session<'_>) -> IotResult<Option<String>> {
    let kind = Kind::PartitionUpkeep;
    if job::exists_for_all(session, kind, security::current_user())? {
        return Ok(None);
    }
    let name = free_name(session, "partition upkeep".to_owned())?;
    let mut job = new(session, name, kind, None, None)?;
    job.schedule_interval = Some(interval(session, "1 hour")?);
    job.first_start = job.created_at.checked_add(MICROS_PER_HOUR);
    // Databases that were set up together need not be looked after together.
    job.jitter = interval(session, "10 minutes")?;
    if let Err(error) = check_owner(job.owner) {
        error.warn();
        return Ok(None);
    }
    store_new(session, &job)?;
    Ok(Some(job.name))
}

fn name_of(relation: Oid) -> IotResult<String> {
    qualified_name_of(relation).ok_or_else(|| {
        IotError::new(
            pgrx::PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("relation with OID {} does not exist", relation.to_u32()),
        )
    })
}

#[pg_extern(sql = false)]
#[expect(clippy::too_many_arguments, reason = "the parameters of a SQL function")]
fn add_retention_policy(
    relation: Option<Oid>,
    drop_after: Option<Interval>,
    if_not_exists: Option<bool>,
    schedule_interval: Option<Interval>,
    initial_start: Option<TimestampWithTimeZone>,
    timezone: Option<&str>,
    time_column: Option<&str>,
    condition: Option<&str>,
    batch_size: Option<i32>,
    job_name: Option<&str>,
    owner: Option<Oid>,
) -> i64 {
    with_session(|session| {
        let relation = relation.ok_or_else(|| IotError::null_argument("relation"))?;
        let drop_after = drop_after.ok_or_else(|| IotError::null_argument("drop_after"))?;
        let policy = Policy {
            relation,
            schedule_interval,
            if_not_exists: if_not_exists.unwrap_or(false),
            initial_start,
            time_zone: timezone,
            job_name,
            owner,
        };
        let mut job = policy.job(session, Kind::Retention, format!("retention of {}", name_of(relation)?))?;
        job.parameters.insert("drop_after".to_owned(), json!(drop_after.to_string()));
        for (key, value) in [("time_column", time_column), ("condition", condition)] {
            if let Some(value) = value {
                job.parameters.insert(key.to_owned(), json!(value));
            }
        }
        if let Some(batch_size) = batch_size {
            job.parameters.insert("batch_size".to_owned(), json!(batch_size));
        }
        policy.add(session, job)
    })
    .or_raise()
}

#[pg_extern(sql = false)]
fn add_refresh_policy(
    relation: Option<Oid>,
    schedule_interval: Option<Interval>,
    if_not_exists: Option<bool>,
    initial_start: Option<TimestampWithTimeZone>,
    timezone: Option<&str>,
    job_name: Option<&str>,
    owner: Option<Oid>,
) -> i64 {
    with_session(|session| {
        let relation = relation.ok_or_else(|| IotError::null_argument("relation"))?;
        let policy = Policy {
            relation,
            schedule_interval,
            if_not_exists: if_not_exists.unwrap_or(false),
            initial_start,
            time_zone: timezone,
            job_name,
            owner,
        };
        let job = policy.job(
            session,
            Kind::RefreshMaterializedView,
            format!("refresh of {}", name_of(relation)?),
        )?;
        policy.add(session, job)
    })
    .or_raise()
}

#[pg_extern(sql = false)]
fn remove_retention_policy(relation: Option<Oid>, if_exists: Option<bool>) {
    remove(relation, Kind::Retention, if_exists).or_raise();
}

#[pg_extern(sql = false)]
fn remove_refresh_policy(relation: Option<Oid>, if_exists: Option<bool>) {
    remove(relation, Kind::RefreshMaterializedView, if_exists).or_raise();
}

fn remove(relation: Option<Oid>, kind: Kind, if_exists: Option<bool>) -> IotResult<()> {
    with_session(|session| {
        let relation = relation.ok_or_else(|| IotError::null_argument("relation"))?;
        let jobs = job::load_of_target(session, relation, kind)?;
        let what = if kind == Kind::Retention { "retention" } else { "refresh" };
        let what = format!("a {what} policy of {}", name_of(relation)?);
        delete_policies(session, jobs, &what, if_exists.unwrap_or(false))
    })
}
