//! Changing, pausing and deleting jobs.

use pgrx::datum::{Interval, JsonB, TimestampWithTimeZone};
use pgrx::pg_sys::Oid;
use pgrx::{PgLogLevel, PgSqlErrorCode, ereport, pg_extern};

use super::add::{change, check, object};
use super::schedule;
use crate::catalog::job::{self, Job};
use crate::catalog::job_run;
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::statement::{Session, with_session};
use crate::pg::{clock, security};

/// The job of that number.
///
/// # Errors
/// 42704 when there is none.
pub fn numbered(session: &mut Session<'_>, job_id: Option<i64>) -> IotResult<Job> {
    let job_id = job_id.ok_or_else(|| IotError::null_argument("job_id"))?;
    job::load(session, job_id)?.ok_or_else(|| unknown(&format!("job {job_id}")))
}

/// The job of that name.
///
/// # Errors
/// 42704 when there is none.
pub fn named(session: &mut Session<'_>, job_name: Option<&str>) -> IotResult<Job> {
    let job_name = job_name.ok_or_else(|| IotError::null_argument("job_name"))?;
    job::load_named(session, job_name)?.ok_or_else(|| unknown(&format!("job \"{job_name}\"")))
}

fn unknown(job: &str) -> IotError {
    IotError::unknown_object(format!("{job} does not exist")).hint("The view iot.jobs lists them.")
}

/// Why somebody else's job stays as it is.
pub fn must_be_owner(job: &Job) -> IotError {
    IotError::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("must be owner of job \"{}\"", job.name),
    )
    .hint(format!("It belongs to role \"{}\".", security::role_name(job.owner)))
}

fn require_owner(job: Job) -> IotResult<Job> {
    if security::current_user_has_privileges_of(job.owner) { Ok(job) } else { Err(must_be_owner(&job)) }
}

/// The caller's job, which nobody else changes any more: whoever is doing so is waited for.
fn to_change(session: &mut Session<'_>, found: Job) -> IotResult<Job> {
    let found = require_owner(found)?;
    let job = job::load_to_change(session, found.job_id)?;
    require_owner(job.ok_or_else(|| unknown(&format!("job \"{}\"", found.name)))?)
}

/// The caller's job, or nothing but a NOTICE where it `may_be_missing`.
fn own(session: &mut Session<'_>, found: IotResult<Job>, may_be_missing: bool) -> IotResult<Option<Job>> {
    match found.and_then(|job| to_change(session, job)) {
        Err(error) if may_be_missing && error.sqlstate() == "42704" => {
            let message = format!("{}, skipping", error.message());
            ereport!(PgLogLevel::NOTICE, PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, message);
            Ok(None)
        }
        found => found.map(Some),
    }
}

#[pg_extern(sql = false)]
#[expect(clippy::too_many_arguments, reason = "the parameters of a SQL function")]
fn alter_job(
    job_id: Option<i64>,
    schedule: Option<&str>,
    command: Option<&str>,
    parameters: Option<JsonB>,
    time_zone: Option<&str>,
    jitter: Option<Interval>,
    first_start: Option<TimestampWithTimeZone>,
    timeout: Option<Interval>,
    max_retries: Option<i32>,
    retry_delay: Option<Interval>,
    is_paused: Option<bool>,
    job_name: Option<&str>,
    owner: Option<Oid>,
    next_start: Option<TimestampWithTimeZone>,
    if_exists: Option<bool>,
) {
    with_session(|session| {
        let found = numbered(session, job_id);
        let Some(mut job) = own(session, found, if_exists.unwrap_or(false))? else {
            return Ok(());
        };
        if let Some(schedule) = schedule {
            (job.schedule_interval, job.schedule_cron) = schedule::read(session, schedule)?;
        }
        if command.is_some() {
            job.command = command.map(str::to_owned);
        }
        if parameters.is_some() {
            job.parameters = object(parameters)?;
        }
        change(&mut job.time_zone, time_zone.map(str::to_owned));
        change(&mut job.jitter, jitter);
        if let Some(first) = first_start {
            job.first_start = Some(clock::from_pg(first)).filter(|first| first.is_finite());
        }
        if timeout.is_some() {
            job.timeout = timeout.filter(|limit| job::micros(limit) != 0);
        }
        change(&mut job.max_retries, max_retries);
        change(&mut job.retry_delay, retry_delay);
        if let Some(pause) = is_paused {
            job.is_paused = pause;
            job.pause_reason = None;
        }
        change(&mut job.name, job_name.map(str::to_owned));
        change(&mut job.owner, owner);
        check(session, &job)?;
        let wishes = Wishes {
            moves_start: schedule.is_some()
                || time_zone.is_some()
                || jitter.is_some()
                || first_start.is_some(),
            resumes: is_paused == Some(false),
            next_start,
        };
        store_changed(session, &job, &wishes)
    })
    .or_raise();
}

/// What a change means for the next start.
struct Wishes {
    moves_start: bool,
    resumes: bool,
    next_start: Option<TimestampWithTimeZone>,
}

fn store_changed(session: &mut Session<'_>, job: &Job, wishes: &Wishes) -> IotResult<()> {
    job::store(session, job)?;
    let now = clock::now();
    let (schedule, zone) = job.schedule()?;
    let planned = schedule.next(&zone, now);
    job_run::make_state(session, job.job_id, planned)?;
    if let Some(at) = wishes.next_start {
        job_run::set_next_start(session, job.job_id, Some(clock::from_pg(at)).filter(|at| at.is_finite()))?;
    } else if wishes.moves_start || wishes.resumes {
        // What was missed during a pause is not made up for.
        job_run::set_next_start(session, job.job_id, planned)?;
    }
    Ok(())
}

fn set_pause(
    found: IotResult<Job>,
    session: &mut Session<'_>,
    pause: bool,
    reason: Option<&str>,
) -> IotResult<()> {
    let job = to_change(session, found?)?;
    let changed = Job { is_paused: pause, pause_reason: reason.map(str::to_owned), ..job.clone() };
    if !pause {
        check(session, &changed)?;
    }
    let wishes = Wishes { moves_start: false, resumes: job.is_paused && !pause, next_start: None };
    store_changed(session, &changed, &wishes)
}

#[pg_extern(sql = false)]
fn pause_job(job_id: Option<i64>, reason: Option<&str>) {
    with_session(|session| set_pause(numbered(session, job_id), session, true, reason)).or_raise();
}

#[pg_extern(sql = false)]
fn pause_job_named(job_name: Option<&str>, reason: Option<&str>) {
    with_session(|session| set_pause(named(session, job_name), session, true, reason)).or_raise();
}

#[pg_extern(sql = false)]
fn resume_job(job_id: Option<i64>) {
    with_session(|session| set_pause(numbered(session, job_id), session, false, None)).or_raise();
}

#[pg_extern(sql = false)]
fn resume_job_named(job_name: Option<&str>) {
    with_session(|session| set_pause(named(session, job_name), session, false, None)).or_raise();
}

/// Deletes the caller's job; whether there was one.
fn delete(session: &mut Session<'_>, found: IotResult<Job>, if_exists: Option<bool>) -> IotResult<bool> {
    let Some(job) = own(session, found, if_exists.unwrap_or(false))? else { return Ok(false) };
    job::delete(session, job.job_id)?;
    Ok(true)
}

#[pg_extern(sql = false)]
fn delete_job(job_id: Option<i64>, if_exists: Option<bool>) -> bool {
    with_session(|session| {
        let found = numbered(session, job_id);
        delete(session, found, if_exists)
    })
    .or_raise()
}

#[pg_extern(sql = false)]
fn delete_job_named(job_name: Option<&str>, if_exists: Option<bool>) -> bool {
    with_session(|session| {
        let found = named(session, job_name);
        delete(session, found, if_exists)
    })
    .or_raise()
}

/// Deletes the jobs of a kind that work on a relation, if they are the caller's.
///
/// # Errors
/// 42704 when there is none, unless it `may_be_missing`.
pub fn delete_policies(
    session: &mut Session<'_>,
    jobs: Vec<Job>,
    what: &str,
    may_be_missing: bool,
) -> IotResult<()> {
    if jobs.is_empty() {
        let missing =
            IotError::unknown_object(format!("{what} does not exist")).hint("The view iot.jobs lists them.");
        own(session, Err(missing), may_be_missing)?;
        return Ok(());
    }
    for job in jobs {
        let job = require_owner(job)?;
        job::delete(session, job.job_id)?;
    }
    Ok(())
}
