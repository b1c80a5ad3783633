//! Jobs: which are due, claiming one, what its run consists of, and what became of it.
//!
//! A run, whoever does it (a job worker or `iot.run_job`), has three parts, each in transactions of its own:
//! 1. [`claim`] takes the job's lock for the session and writes down that it runs; COMMIT.
//! 2. [`plan`] says what there is to do (in a transaction). [`Work::InTransaction`]: call [`step`] in one transaction after
//!    the other until it is [`Progress::Done`]. [`Work::Statements`]: run each by itself at top level, as the job's
//!    owner.
//! 3. [`finish`] writes down what became of it and when the job is due again; COMMIT, and with that the lock is free.
//!
//! When 1 or 3 roll back, or the process ends, the lock is free too, and whoever looks next ([`due`], [`claim`]) closes the
//! run as interrupted.

mod add;
mod alter;
mod by_hand;
mod maintenance;
mod memory;
mod policy;
mod refresh;
mod retention;
mod run;
mod schedule;

use std::time::{Duration, Instant};

pub use iot_core::job::Outcome;
use iot_core::job::{Failure, Kind};
use iot_core::time::Timestamp;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use serde_json::{Map, Value};

pub use self::policy::schedule_upkeep;
pub use self::run::{plan, step};
use crate::catalog::job::{self, Job};
use crate::catalog::job_run::{self, End, State};
use crate::catalog::partition_policy::{self, Duplicates};
use crate::catalog::{sensor_state, uniqueness};
use crate::error::{IotError, IotResult, sqlstate_text};
use crate::pg::statement::Session;
use crate::pg::top_level::Part;
use crate::pg::{clock, job_lock, relation};

/// A job whose time has come.
#[derive(Clone, Copy, Debug)]
pub struct DueJob {
    /// `iot.job.job_id`.
    pub job_id: i64,
    /// Role as which it runs.
    pub owner: Oid,
}

/// A job that this process may run, and holds the lock of.
#[derive(Clone)]
pub struct Claimed {
    /// `iot.job.job_id`.
    pub job_id: i64,
    /// `iot.job_run.run_id`.
    pub run_id: i64,
    /// `iot.job.job_name`, for `pg_stat_activity` and messages.
    pub name: String,
    /// Role as which it runs.
    pub owner: Oid,
    /// Longest time it may take, all parts of its work together.
    pub timeout: Option<Duration>,
    job: Job,
    /// What was done so far.
    detail: Map<String, Value>,
    /// Relations that are still to be worked on; `None` before the first step.
    left: Option<Vec<Oid>>,
}

/// What a run consists of.
#[derive(Clone, Debug)]
pub enum Work {
    /// [`step`], in transactions.
    InTransaction,
    /// Statements for the top level of a session. They may change settings of the session: DISCARD ALL afterwards where it goes
    /// on.
    Statements(Vec<Part>),
}

/// Whether a step was the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It was.
    Done,
    /// COMMIT, and call it again.
    Again,
}

/// The jobs whose time has come, the longest due first. Makes the rows of `iot.job_state` that are missing, closes
/// interrupted runs, and pauses jobs that can never start.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn due(session: &mut Session<'_>, now: Timestamp) -> IotResult<Vec<DueJob>> {
    let mut found = Vec::new();
    let mut pending = job_run::pending(session, now)?;
    // What is written here is written in one transaction: in the order of the numbers, as jobs are deleted.
    pending.sort_by_key(|pending| pending.job_id);
    for pending in pending {
        let job_id = pending.job_id;
        let state = match pending.state {
            _ if !pending.has_owner => {
                job::pause(session, job_id, "its owner does not exist any more")?;
                continue;
            }
            Some(state) => state,
            None => match job::load_kept(session, job_id)? {
                Some(job) => make_state(session, &job, now)?,
                None => continue,
            },
        };
        if state.running_pid.is_some() {
            close_if_interrupted(session, job_id, now)?;
        } else if state.next_start.is_some_and(|start| start <= now) {
            found.push((state.next_start, DueJob { job_id, owner: pending.owner }));
        }
    }
    found.sort_by_key(|(start, job)| (*start, job.job_id));
    Ok(found.into_iter().map(|(_, job)| job).collect())
}

/// When the next job is due that is neither paused nor running; `None` for never.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn next_start(session: &mut Session<'_>) -> IotResult<Option<Timestamp>> {
    job_run::next_start(session)
}

/// Takes a job that is due. `None`: it is not any more, or is running elsewhere, or is put off (a restore is running).
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn claim(session: &mut Session<'_>, job_id: i64, now: Timestamp) -> IotResult<Option<Claimed>> {
    if !job_lock::try_take(job_id, false) {
        return Ok(None);
    }
    let claimed = claim_locked(session, job_id, now)?;
    if claimed.is_none() {
        job_lock::release_at_end(job_id);
    }
    Ok(claimed)
}

fn claim_locked(session: &mut Session<'_>, job_id: i64, now: Timestamp) -> IotResult<Option<Claimed>> {
    let Some(job) = job::load_kept(session, job_id)?.filter(|job| !job.is_paused) else { return Ok(None) };
    let state = current_state(session, &job, now)?;
    if state.next_start.is_none_or(|start| start > now) {
        return Ok(None);
    }
    if let Some(reason) = obstacle(session, &job)? {
        let next = after(session, &job, &Outcome::Deferred(reason.clone()), 0, now)?;
        job_run::defer(session, job_id, now, &reason, next)?;
        return Ok(None);
    }
    begin(session, job, now).map(Some)
}

/// Whoever looks whether a run goes on has its lock for a moment: so long it is waited for.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);

/// Takes a job whether it is due or not, for the command of a session.
///
/// # Errors
/// 55006 when it is running, 55000 when its target is not ready.
fn claim_by_hand(session: &mut Session<'_>, job: Job, now: Timestamp) -> IotResult<Claimed> {
    let asked = Instant::now();
    while !job_lock::try_take(job.job_id, true) {
        if asked.elapsed() < LONGEST_LOOK {
            relation::pause(LOOK);
            continue;
        }
        return Err(IotError::new(
            PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            format!("job \"{}\" is running", job.name),
        )
        .hint("Wait until it has ended; iot.job_runs shows who runs it."));
    }
    let Some(job) = job::load_kept(session, job.job_id)? else {
        return Err(IotError::unknown_object(format!("job \"{}\" does not exist any more", job.name)));
    };
    current_state(session, &job, now)?;
    if let Some(reason) = obstacle(session, &job)? {
        return Err(IotError::wrong_state(reason.message).hint("Run the job when the restore is complete."));
    }
    begin(session, job, now)
}

fn begin(session: &mut Session<'_>, job: Job, now: Timestamp) -> IotResult<Claimed> {
    Ok(Claimed {
        job_id: job.job_id,
        run_id: job_run::begin(session, job.job_id, now)?,
        name: job.name.clone(),
        owner: job.owner,
        timeout: job.timeout.as_ref().map(|limit| Duration::from_micros(job::micros(limit).unsigned_abs())),
        job,
        detail: Map::new(),
        left: None,
    })
}

/// Writes down what became of the run. [`Outcome::of_error`] tells the outcome of an ERROR.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn finish(session: &mut Session<'_>, claimed: &Claimed, outcome: &Outcome) -> IotResult<()> {
    let job_id = claimed.job_id;
    job_lock::release_at_end(job_id);
    // It may have been altered or deleted meanwhile, or been declared dead by somebody who found the lock free.
    let Some(job) = job::load_kept(session, job_id)? else { return Ok(()) };
    let Some(state) = job_run::lock_state(session, job_id)? else { return Ok(()) };
    if state.running_pid != Some(job_lock::own_pid()) {
        return Ok(());
    }
    let finished = clock::now();
    let failures = match outcome {
        Outcome::Succeeded => 0,
        failed if failed.is_failure() => state.failures.saturating_add(1),
        _ => state.failures,
    };
    let next_start = after(session, &job, outcome, failures, finished)?;
    let end = End {
        run_id: Some(claimed.run_id),
        finished,
        outcome,
        detail: &claimed.detail,
        failures,
        next_start,
    };
    job_run::end(session, job_id, &end)
}

/// The state of a job whose lock this session holds; a run that is said to go on does not.
fn current_state(session: &mut Session<'_>, job: &Job, now: Timestamp) -> IotResult<State> {
    match job_run::lock_state(session, job.job_id)? {
        Some(state) if state.running_pid.is_some() => close(session, job, state, now),
        Some(state) => Ok(state),
        None => make_state(session, job, now),
    }
}

fn make_state(session: &mut Session<'_>, job: &Job, now: Timestamp) -> IotResult<State> {
    let next_start = match job.schedule() {
        Ok((schedule, zone)) => schedule.next(&zone, now),
        Err(error) => pause(session, job, &error)?,
    };
    job_run::make_state(session, job.job_id, next_start)?;
    Ok(State { next_start, failures: 0, running_pid: None })
}

/// Closes the run of a job that is said to be running, if it does not: its lock is free then.
fn close_if_interrupted(session: &mut Session<'_>, job_id: i64, now: Timestamp) -> IotResult<()> {
    if !job_lock::try_take(job_id, false) {
        return Ok(());
    }
    job_lock::release_at_end(job_id);
    // What was read before the lock was taken may be of the past.
    if let Some(job) = job::load_kept(session, job_id)? {
        current_state(session, &job, now)?;
    }
    Ok(())
}

fn close(session: &mut Session<'_>, job: &Job, state: State, now: Timestamp) -> IotResult<State> {
    let failures = state.failures.saturating_add(1);
    let next_start = after(session, job, &Outcome::Interrupted, failures, now)?;
    let end = End {
        run_id: None,
        finished: now,
        outcome: &Outcome::Interrupted,
        detail: &Map::new(),
        failures,
        next_start,
    };
    job_run::end(session, job.job_id, &end)?;
    Ok(State { next_start, failures, running_pid: None })
}

/// When a job is due after a run.
fn after(
    session: &mut Session<'_>,
    job: &Job,
    outcome: &Outcome,
    failures: i32,
    now: Timestamp,
) -> IotResult<Option<Timestamp>> {
    match job.schedule() {
        Ok((schedule, zone)) => {
            let failures = failures.unsigned_abs();
            Ok(iot_core::job::next_start(&schedule, &zone, job.retries(), outcome, failures, now))
        }
        Err(error) => pause(session, job, &error),
    }
}

/// A schedule that cannot be read here, restored from a server that knew more time zones, must not keep the others waiting.
fn pause(session: &mut Session<'_>, job: &Job, error: &IotError) -> IotResult<Option<Timestamp>> {
    job::pause(session, job.job_id, error.message())?;
    Ok(None)
}

/// What keeps a job from running now: its target, or the whole database, is being restored.
fn obstacle(session: &mut Session<'_>, job: &Job) -> IotResult<Option<Failure>> {
    let message = if job_lock::is_restoring() {
        "the session that restored the job has not ended yet".to_owned()
    } else {
        match job.target.or_else(|| needed_table(job.kind)) {
            Some(target) if lacks_what_it_needs(session, target)? => {
                format!(
                    "{} lacks its primary key or its triggers: it is being restored",
                    relation::qualified_name_of(target).unwrap_or_default()
                )
            }
            _ => return Ok(None),
        }
    };
    let sqlstate = sqlstate_text(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE);
    Ok(Some(Failure { sqlstate, message }))
}

/// The table that a kind without a target works on.
fn needed_table(kind: Kind) -> Option<Oid> {
    match kind {
        Kind::FlushState | Kind::HealthCheck => relation::in_schema_iot(c"sensor_data"),
        Kind::CommandTimeouts | Kind::AlertTimers => relation::in_schema_iot(c"device_commands"),
        _ => None,
    }
}

/// Whether a table that `iot.setup()` made is not complete.
fn lacks_what_it_needs(session: &mut Session<'_>, table: Oid) -> IotResult<bool> {
    if relation::in_schema_iot(c"sensor_data") == Some(table) {
        let keeps_one = partition_policy::load(session, table)?
            .is_some_and(|policy| policy.duplicates != Duplicates::Both);
        return Ok(!sensor_state::is_watched(session)?
            || (keeps_one && uniqueness::primary_key(session, table)?.is_none()));
    }
    let is_ours = relation::in_schema_iot(c"alerts") == Some(table)
        || relation::in_schema_iot(c"device_commands") == Some(table);
    Ok(is_ours && uniqueness::primary_key(session, table)?.is_none())
}
