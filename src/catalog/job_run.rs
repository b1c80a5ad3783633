//! `iot.job_state` and `iot.job_run`: how the jobs are doing. Read and written as the extension's owner, as `iot.job`.

use iot_core::job::{Failure, Outcome};
use iot_core::time::Timestamp;
use pgrx::datum::{JsonB, TimestampWithTimeZone};
use pgrx::pg_sys::Oid;
use serde_json::{Map, Value};

use super::job::as_catalogue_owner;
use crate::error::{IotError, IotResult};
use crate::pg::clock;
use crate::pg::statement::{Row, Session};
use crate::statement;

/// Runs kept of each job.
const RUNS_KEPT: i64 = 100;

/// What matters of a row of `iot.job_state`.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// When the job is due; `None` for never.
    pub next_start: Option<Timestamp>,
    /// Failures in a row.
    pub failures: i32,
    /// Process that runs it, or did when it ended.
    pub running_pid: Option<i32>,
}

/// A job that somebody has to look at.
pub struct Pending {
    /// The job.
    pub job_id: i64,
    /// Its owner.
    pub owner: Oid,
    /// Whether that role exists.
    pub has_owner: bool,
    /// How it is doing; `None` for a job that was restored.
    pub state: Option<State>,
}

statement!(PENDING: (TIMESTAMPTZOID)
    "SELECT s.next_start, s.consecutive_failures, s.running_pid, j.job_id, j.owner::pg_catalog.oid, r.oid IS NOT NULL, s.job_id IS NOT NULL
       FROM iot.job j
       LEFT JOIN iot.job_state s ON s.job_id OPERATOR(pg_catalog.=) j.job_id
       LEFT JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) j.owner
      WHERE s.running_pid IS NOT NULL
         OR (NOT j.is_paused AND (s.job_id IS NULL OR s.next_start OPERATOR(pg_catalog.<=) $1 OR r.oid IS NULL))");

/// The jobs that are due, seem to run, or lack their state or their owner.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn pending(session: &mut Session<'_>, now: Timestamp) -> IotResult<Vec<Pending>> {
    let _owner = as_catalogue_owner()?;
    let mut found = Vec::new();
    session.execute(&PENDING, &[clock::to_pg(now).into()])?.for_each(|row| {
        let has_state: bool = row.get(7)?;
        found.push(Pending {
            job_id: row.get(4)?,
            owner: row.get(5)?,
            has_owner: row.get(6)?,
            state: if has_state { Some(state(row)?) } else { None },
        });
        Ok(())
    })?;
    Ok(found)
}

fn state(row: &Row<'_>) -> IotResult<State> {
    Ok(State {
        next_start: row.optional::<TimestampWithTimeZone>(1)?.map(clock::from_pg),
        failures: row.get(2)?,
        running_pid: row.optional(3)?,
    })
}

statement!(NEXT_START: ()
    "SELECT pg_catalog.min(s.next_start)
       FROM iot.job j JOIN iot.job_state s ON s.job_id OPERATOR(pg_catalog.=) j.job_id
      WHERE NOT j.is_paused AND s.running_pid IS NULL");

/// When the next job is due.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn next_start(session: &mut Session<'_>) -> IotResult<Option<Timestamp>> {
    let _owner = as_catalogue_owner()?;
    let Some(row) = session.execute(&NEXT_START, &[])?.first() else { return Ok(None) };
    Ok(row.optional::<TimestampWithTimeZone>(1)?.map(clock::from_pg))
}

statement!(LOCK_STATE: (INT8OID)
    "SELECT s.next_start, s.consecutive_failures, s.running_pid FROM iot.job_state s
      WHERE s.job_id OPERATOR(pg_catalog.=) $1 FOR UPDATE");

/// The state of a job, which nobody else changes until the transaction ends.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn lock_state(session: &mut Session<'_>, job_id: i64) -> IotResult<Option<State>> {
    let _owner = as_catalogue_owner()?;
    session.execute(&LOCK_STATE, &[job_id.into()])?.first().map(|row| state(&row)).transpose()
}

statement!(MAKE_STATE: (INT8OID, TIMESTAMPTZOID)
    "INSERT INTO iot.job_state AS s (job_id, next_start)
     SELECT j.job_id, $2 FROM iot.job j WHERE j.job_id OPERATOR(pg_catalog.=) $1
     ON CONFLICT (job_id) DO NOTHING");
statement!(SET_NEXT_START: (INT8OID, TIMESTAMPTZOID)
    "UPDATE iot.job_state s SET next_start = $2 WHERE s.job_id OPERATOR(pg_catalog.=) $1");

/// Makes the state of a job that has none.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn make_state(session: &mut Session<'_>, job_id: i64, next_start: Option<Timestamp>) -> IotResult<()> {
    let _owner = as_catalogue_owner()?;
    session.execute(&MAKE_STATE, &[job_id.into(), next_start.map(clock::to_pg).into()])?;
    Ok(())
}

/// Sets when a job is due.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn set_next_start(
    session: &mut Session<'_>,
    job_id: i64,
    next_start: Option<Timestamp>,
) -> IotResult<()> {
    let _owner = as_catalogue_owner()?;
    session.execute(&SET_NEXT_START, &[job_id.into(), next_start.map(clock::to_pg).into()])?;
    Ok(())
}

statement!(BEGIN_RUN: (INT8OID, TIMESTAMPTZOID)
    "WITH started AS (
         UPDATE iot.job_state s
            SET running_pid = pg_catalog.pg_backend_pid(), last_started_at = $2,
                total_runs = s.total_runs OPERATOR(pg_catalog.+) 1
          WHERE s.job_id OPERATOR(pg_catalog.=) $1
         RETURNING s.job_id)
     INSERT INTO iot.job_run AS r (job_id, started_at, outcome, pid)
     SELECT t.job_id, $2, 'running', pg_catalog.pg_backend_pid() FROM started t
     RETURNING r.run_id");

/// Writes down that this process runs the job; the key of the run.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn begin(session: &mut Session<'_>, job_id: i64, now: Timestamp) -> IotResult<i64> {
    let _owner = as_catalogue_owner()?;
    session
        .execute(&BEGIN_RUN, &[job_id.into(), clock::to_pg(now).into()])?
        .first()
        .ok_or_else(|| IotError::unknown_object(format!("job {job_id} does not exist any more")))?
        .get(1)
}

statement!(END_RUNS: (INT8OID, INT8OID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID, JSONBOID)
    "UPDATE iot.job_run r
        SET finished_at = $3, outcome = $4, sqlstate = $5, message = $6, detail = $7
      WHERE r.job_id OPERATOR(pg_catalog.=) $1 AND r.outcome OPERATOR(pg_catalog.=) 'running'
        AND ($2 IS NULL OR r.run_id OPERATOR(pg_catalog.=) $2)");
statement!(END_STATE: (INT8OID, TIMESTAMPTZOID, TEXTOID, TEXTOID, INT4OID, BOOLOID, TIMESTAMPTZOID)
    "UPDATE iot.job_state s
        SET last_finished_at = $2, last_outcome = $3, last_error = $4, consecutive_failures = $5,
            total_failures = s.total_failures OPERATOR(pg_catalog.+) $6::pg_catalog.int4, next_start = $7, running_pid = NULL
      WHERE s.job_id OPERATOR(pg_catalog.=) $1");
statement!(TRIM: (INT8OID, TIMESTAMPTZOID, INT8OID)
    "DELETE FROM iot.job_run r
      WHERE r.job_id OPERATOR(pg_catalog.=) $1 AND r.outcome OPERATOR(pg_catalog.<>) 'running'
        AND (r.started_at OPERATOR(pg_catalog.<) ($2 OPERATOR(pg_catalog.-) INTERVAL '30 days')
             OR r.run_id OPERATOR(pg_catalog.<=) (
                 SELECT o.run_id FROM iot.job_run o WHERE o.job_id OPERATOR(pg_catalog.=) $1
                  ORDER BY o.run_id DESC OFFSET $3 LIMIT 1))");

/// How a run ended, and what follows from it.
pub struct End<'a> {
    /// The run; `None` for all of the job that are said to go on.
    pub run_id: Option<i64>,
    /// When it ended.
    pub finished: Timestamp,
    /// How.
    pub outcome: &'a Outcome,
    /// What was done.
    pub detail: &'a Map<String, Value>,
    /// Failures in a row now.
    pub failures: i32,
    /// When the job is due again.
    pub next_start: Option<Timestamp>,
}

/// Writes the end of a run down, and lets old runs go.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn end(session: &mut Session<'_>, job_id: i64, end: &End<'_>) -> IotResult<()> {
    let _owner = as_catalogue_owner()?;
    let finished = clock::to_pg(end.finished);
    let (sqlstate, message) = told(end.outcome);
    let detail = (!end.detail.is_empty()).then(|| JsonB(Value::Object(end.detail.clone())));
    let name = end.outcome.as_str();
    session.execute(
        &END_RUNS,
        &[
            job_id.into(),
            end.run_id.into(),
            finished.into(),
            name.into(),
            sqlstate.into(),
            message.into(),
            detail.into(),
        ],
    )?;
    let is_failure = end.outcome.is_failure();
    session.execute(
        &END_STATE,
        &[
            job_id.into(),
            finished.into(),
            name.into(),
            message.into(),
            end.failures.into(),
            is_failure.into(),
            end.next_start.map(clock::to_pg).into(),
        ],
    )?;
    session.execute(&TRIM, &[job_id.into(), finished.into(), RUNS_KEPT.into()])?;
    Ok(())
}

/// SQLSTATE and message of what went wrong.
fn told(outcome: &Outcome) -> (Option<&str>, Option<&str>) {
    match outcome {
        Outcome::Interrupted => (None, Some("the process that ran the job ended")),
        other => other.failure().map(|f| (f.sqlstate.as_str(), f.message.as_str())).unzip(),
    }
}

statement!(REPEAT_DEFERRAL: (INT8OID, TIMESTAMPTZOID, TEXTOID)
    "UPDATE iot.job_run r
        SET finished_at = $2,
            detail = pg_catalog.jsonb_build_object('times', (COALESCE((r.detail OPERATOR(pg_catalog.->>) 'times')::pg_catalog.int8, 1) OPERATOR(pg_catalog.+) 1))
      WHERE r.run_id OPERATOR(pg_catalog.=) (
                SELECT o.run_id FROM iot.job_run o WHERE o.job_id OPERATOR(pg_catalog.=) $1 ORDER BY o.run_id DESC LIMIT 1)
        AND r.outcome OPERATOR(pg_catalog.=) 'deferred' AND r.message OPERATOR(pg_catalog.=) $3");
statement!(NOTE_DEFERRAL: (INT8OID, TIMESTAMPTZOID, TEXTOID, TEXTOID)
    "INSERT INTO iot.job_run AS r (job_id, started_at, finished_at, outcome, sqlstate, message, pid)
     VALUES ($1, $2, $2, 'deferred', $4, $3, pg_catalog.pg_backend_pid())");
statement!(DEFER_STATE: (INT8OID, TIMESTAMPTZOID, TEXTOID)
    "UPDATE iot.job_state s SET next_start = $2, last_outcome = 'deferred', last_error = $3
      WHERE s.job_id OPERATOR(pg_catalog.=) $1");

/// Puts off a job before it began. Deferrals in a row for the same reason are one row of the history.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn defer(
    session: &mut Session<'_>,
    job_id: i64,
    now: Timestamp,
    reason: &Failure,
    next_start: Option<Timestamp>,
) -> IotResult<()> {
    let _owner = as_catalogue_owner()?;
    let (at, message) = (clock::to_pg(now), reason.message.as_str());
    if session.execute(&REPEAT_DEFERRAL, &[job_id.into(), at.into(), message.into()])?.count() == 0 {
        let arguments = [job_id.into(), at.into(), message.into(), reason.sqlstate.as_str().into()];
        session.execute(&NOTE_DEFERRAL, &arguments)?;
    }
    session.execute(&DEFER_STATE, &[job_id.into(), next_start.map(clock::to_pg).into(), message.into()])?;
    Ok(())
}
