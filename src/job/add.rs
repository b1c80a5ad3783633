//! `iot.add_job`, and what every job that is made or changed must be like.

use iot_core::job::{Kind, MEMORY, Target};
use pgrx::datum::{Interval, JsonB, TimestampWithTimeZone};
use pgrx::pg_sys::Oid;
use pgrx::{PgLogLevel, PgSqlErrorCode, ereport, pg_extern};
use serde_json::{Map, Value};

use super::memory;
use super::retention::{Retention, age_column};
use super::run::require_supported;
use super::schedule;
use crate::catalog::job::{self, Job};
use crate::catalog::job_run;
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::relation::{in_schema_iot, kind_and_owner, qualified_name_of};
use crate::pg::security::{self, ActingAs};
use crate::pg::statement::{Session, check_syntax, with_session};
use crate::pg::{background, clock};

#[pg_extern(sql = false)]
#[expect(clippy::too_many_arguments, reason = "the parameters of a SQL function")]
fn add_job(
    job_name: Option<&str>,
    schedule: Option<&str>,
    command: Option<&str>,
    job_kind: Option<&str>,
    target: Option<Oid>,
    parameters: Option<JsonB>,
    time_zone: Option<&str>,
    jitter: Option<Interval>,
    first_start: Option<TimestampWithTimeZone>,
    timeout: Option<Interval>,
    max_retries: Option<i32>,
    retry_delay: Option<Interval>,
    is_paused: Option<bool>,
    owner: Option<Oid>,
    if_not_exists: Option<bool>,
) -> i64 {
    with_session(|session| {
        let name = job_name.ok_or_else(|| IotError::null_argument("job_name"))?;
        let schedule = schedule.ok_or_else(|| IotError::null_argument("schedule"))?;
        let kind = kind(job_kind.ok_or_else(|| IotError::null_argument("job_kind"))?)?;
        if let Some(known) = existing(session, name, if_not_exists.unwrap_or(false))? {
            return Ok(known);
        }
        let mut job = new(session, name.to_owned(), kind, target, owner)?;
        (job.schedule_interval, job.schedule_cron) = schedule::read(session, schedule)?;
        job.command = command.map(str::to_owned);
        job.parameters = object(parameters)?;
        change(&mut job.time_zone, time_zone.map(str::to_owned));
        change(&mut job.jitter, jitter);
        job.first_start = first_start.map(clock::from_pg);
        job.timeout = timeout.filter(|limit| job::micros(limit) != 0);
        change(&mut job.max_retries, max_retries);
        change(&mut job.retry_delay, retry_delay);
        change(&mut job.is_paused, is_paused);
        store_new(session, &job)
    })
    .or_raise()
}

/// Takes a new value where there is one.
pub fn change<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// The kind of that name.
fn kind(name: &str) -> IotResult<Kind> {
    Kind::from_name(name).ok_or_else(|| {
        IotError::invalid_argument(format!("job_kind \"{name}\" is not known"))
            .hint(format!("Choose among: {}.", Kind::ALL.map(Kind::as_str).join(", ")))
    })
}

/// The settings of a job.
///
/// # Errors
/// 22023 for anything but an object.
pub fn object(parameters: Option<JsonB>) -> IotResult<Map<String, Value>> {
    match parameters.map(|document| document.0) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(_) => {
            Err(IotError::invalid_argument("parameters is no JSON object")
                .hint("Give an object, such as '{}'."))
        }
    }
}

/// The job of that name, where it `may_exist`.
fn existing(session: &mut Session<'_>, name: &str, may_exist: bool) -> IotResult<Option<i64>> {
    let Some(job) = job::load_named(session, name)? else { return Ok(None) };
    if !may_exist {
        return Err(IotError::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
            format!("job \"{name}\" already exists"),
        )
        .hint(
            "Choose another job_name, change the job with iot.alter_job(), or pass if_not_exists => true.",
        ));
    }
    exists_already(&job);
    Ok(Some(job.job_id))
}

/// Says that nothing was done.
pub fn exists_already(job: &Job) {
    ereport!(
        PgLogLevel::NOTICE,
        PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
        format!("job \"{}\" already exists, skipping", job.name)
    );
}

/// A job with nothing but defaults. It belongs to `owner`, else to whoever owns what it works on, as far as the caller may act
/// for him.
///
/// # Errors
/// 22004 or 22023 for a target that the kind does not have.
pub fn new(
    session: &mut Session<'_>,
    name: String,
    kind: Kind,
    target: Option<Oid>,
    owner: Option<Oid>,
) -> IotResult<Job> {
    match (kind.target(), target) {
        (Target::Required, None) => return Err(IotError::null_argument("target")),
        (Target::Never, Some(_)) => {
            return Err(IotError::invalid_argument(format!("a job of kind {} has no target", kind.as_str()))
                .hint("Leave target out."));
        }
        _ => (),
    }
    let natural = match kind {
        Kind::Sql => None,
        _ => target.or_else(|| (kind.target() == Target::Never).then(|| in_schema_iot(c"sensor_data"))?),
    };
    let natural = natural.and_then(kind_and_owner).map(|(_, owner)| owner);
    let owner = owner
        .or(natural.filter(|owner| security::current_user_has_privileges_of(*owner)))
        .unwrap_or_else(security::current_user);
    let interval = |text| schedule::interval(session, text);
    let [none, minute] = ["0", "1 minute"].map(interval);
    Ok(Job {
        job_id: 0,
        name,
        kind,
        owner,
        target,
        parameters: Map::new(),
        command: None,
        schedule_interval: None,
        schedule_cron: None,
        time_zone: "UTC".to_owned(),
        jitter: none?,
        first_start: None,
        timeout: None,
        max_retries: 5,
        retry_delay: minute?,
        is_paused: false,
        pause_reason: None,
        created_at: clock::now(),
    })
}

/// Checks a new job, gives it its number and writes it.
///
/// # Errors
/// As [`check`].
pub fn store_new(session: &mut Session<'_>, job: &Job) -> IotResult<i64> {
    check(session, job)?;
    let job = Job { job_id: job::next_number(session)?, ..job.clone() };
    job::store(session, &job)?;
    let (schedule, zone) = job.schedule()?;
    // An interval begins at once, unless it is told when.
    let from = job.created_at.checked_add(-1).unwrap_or(job.created_at);
    job_run::make_state(session, job.job_id, schedule.next(&zone, from))?;
    Ok(job.job_id)
}

/// Refuses what could never run.
///
/// # Errors
/// SQLSTATE, message and hint say why.
pub fn check(session: &mut Session<'_>, job: &Job) -> IotResult<()> {
    if job.name.trim().is_empty() {
        return Err(IotError::invalid_argument("job_name is empty").hint("Give the job a name."));
    }
    schedule::check_times(job)?;
    check_owner(job.owner)?;
    require_supported(job.kind)?;
    match (&job.command, job.kind) {
        (None, Kind::Sql) => return Err(IotError::null_argument("command")),
        (Some(command), Kind::Sql) => check_syntax(command)?,
        (Some(_), kind) => {
            return Err(IotError::invalid_argument(format!(
                "a job of kind {} has no command",
                kind.as_str()
            ))
            .hint("Pass NULL as command, or job_kind => 'sql'."));
        }
        (None, _) => (),
    }
    if let Some(known) = job.kind.parameters()
        && let Some(key) = job
            .parameters
            .keys()
            .find(|key| !known.contains(&key.as_str()) && !MEMORY.contains(&key.as_str()))
    {
        let error = IotError::invalid_argument(format!(
            "a job of kind {} has no parameter \"{key}\"",
            job.kind.as_str()
        ));
        let known: Vec<_> = known.iter().chain(&MEMORY).copied().collect();
        return Err(error.hint(format!("Choose among: {}.", known.join(", "))));
    }
    memory::check(job)?;
    check_target(session, job)
}

fn check_target(session: &mut Session<'_>, job: &Job) -> IotResult<()> {
    let on = match (job.target, job.kind.target()) {
        (Some(target), _) => Some(target),
        (None, Target::Never) => {
            crate::catalog::require_setup()?;
            in_schema_iot(c"sensor_data")
        }
        _ => None,
    };
    let Some(on) = on else { return Ok(()) };
    let name = qualified_name_of(on);
    let (Some((relkind, relation_owner)), Some(name)) = (kind_and_owner(on), name) else {
        return Err(IotError::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("relation with OID {} does not exist", on.to_u32()),
        ));
    };
    if job.kind == Kind::Sql {
        return Ok(());
    }
    if !security::has_privileges_of(job.owner, relation_owner) {
        return Err(IotError::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("role \"{}\" must be owner of {name} to run this job", security::role_name(job.owner)),
        )
        .hint("Make the job as the owner of the relation, or name a role that is a member of that one as owner."));
    }
    let (wanted, kinds): (&str, &[u8]) = match job.kind {
        Kind::PartitionUpkeep => ("a partitioned table", b"p"),
        Kind::Retention => ("a table", b"rp"),
        Kind::RefreshMaterializedView => ("a materialized view", b"m"),
        _ => ("a table or materialized view", b"rpm"),
    };
    if !kinds.contains(&relkind) {
        return Err(IotError::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("{name} is not {wanted}"),
        )
        .hint(format!("A job of kind {} works on {wanted}.", job.kind.as_str())));
    }
    if job.kind == Kind::Retention {
        check_retention(session, job, on)?;
    }
    Ok(())
}

/// The statement is planned once, so that mistakes in it show now and not at three in the morning.
fn check_retention(session: &mut Session<'_>, job: &Job, table: Oid) -> IotResult<()> {
    let retention = Retention::from_parameters(&job.parameters)?;
    let age = schedule::interval(session, &retention.drop_after)?;
    if job::micros(&age) <= 0 {
        return Err(IotError::invalid_argument(format!(
            "drop_after {} is not positive",
            retention.drop_after
        ))
        .hint("Give the age from which rows are deleted, such as '90 days'."));
    }
    if retention.drops_partitions(table) {
        return Ok(());
    }
    let column = age_column(session, table, retention.time_column.as_deref())?;
    let statement = retention.statement(session, table, &column)?;
    let _owner = ActingAs::restricted(job.owner);
    session.run(&format!("EXPLAIN {statement}"))
}

/// Refuses owners that the caller may not act for, and those for whom no background worker can.
///
/// # Errors
/// 42501 or 55000.
pub fn check_owner(owner: Oid) -> IotResult<()> {
    if !security::current_user_has_privileges_of(owner) {
        return Err(IotError::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!(
                "must be a member of role \"{}\" to make it the owner of a job",
                security::role_name(owner)
            ),
        )
        .hint("Leave owner out, or name a role that you are a member of."));
    }
    if !background::MAY_BYPASS_LOGIN && !security::may_log_in(owner) {
        return Err(IotError::wrong_state(format!(
            "role \"{}\" cannot own a job, because it may not log in",
            security::role_name(owner)
        ))
        .detail("Before PostgreSQL 17 a background worker cannot act for a role without LOGIN.")
        .hint("Name a role with LOGIN as owner that is a member of that role, or use ALTER ROLE … LOGIN."));
    }
    Ok(())
}
