//! `iot.job`: what is to be done and when. Belongs to the extension, so it is read and written as the extension's owner; what
//! the caller may do is decided before.

use iot_core::job::{Cron, Every, Kind, Recurrence, Retries, Schedule};
use iot_core::time::{MICROS_PER_DAY, Timestamp};
use pgrx::datum::{Interval, JsonB, TimestampWithTimeZone};
use pgrx::pg_sys::Oid;
use serde_json::{Map, Value};

use crate::error::{IotError, IotResult};
use crate::pg::clock::{self, Zone};
use crate::pg::relation::{Lock, OpenRelation, in_schema_iot};
use crate::pg::security::ActingAs;
use crate::pg::statement::{Row, Session};
use crate::statement;

/// A row of the table.
#[derive(Clone)]
pub struct Job {
    /// Key.
    pub job_id: i64,
    /// Name.
    pub name: String,
    /// What it does.
    pub kind: Kind,
    /// Role as which it runs.
    pub owner: Oid,
    /// Relation that it works on.
    pub target: Option<Oid>,
    /// Settings of its kind.
    pub parameters: Map<String, Value>,
    /// SQL of the kind `sql`.
    pub command: Option<String>,
    /// Time between starts; this or the next one.
    pub schedule_interval: Option<Interval>,
    /// Cron expression.
    pub schedule_cron: Option<String>,
    /// Name of the zone.
    pub time_zone: String,
    /// Delays are below this.
    pub jitter: Interval,
    /// From which the interval is counted.
    pub first_start: Option<Timestamp>,
    /// Limit of a run.
    pub timeout: Option<Interval>,
    /// Attempts after a failure.
    pub max_retries: i32,
    /// Wait before the first of them.
    pub retry_delay: Interval,
    /// Whether it starts by itself.
    pub is_paused: bool,
    /// Why not.
    pub pause_reason: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Job {
    /// Its starts, and the zone whose clocks they go by.
    ///
    /// # Errors
    /// 22023 for an expression or a zone that is not known here.
    pub fn schedule(&self) -> IotResult<(Schedule, Zone)> {
        let recurrence = match (&self.schedule_cron, &self.schedule_interval) {
            (Some(expression), _) => Recurrence::Cron(Box::new(Cron::parse(expression)?)),
            (None, Some(every)) => {
                Recurrence::Every(Every::new(every.months(), every.days(), every.micros())?)
            }
            (None, None) => return Err(IotError::null_argument("schedule")),
        };
        let origin = self.first_start.unwrap_or(self.created_at);
        Ok((Schedule::new(recurrence, origin, micros(&self.jitter), self.job_id), zone(&self.time_zone)?))
    }

    /// What it does after failures.
    pub fn retries(&self) -> Retries {
        Retries { most: self.max_retries.unsigned_abs(), delay: micros(&self.retry_delay) }
    }
}

/// The zone of that name.
///
/// # Errors
/// 22023 when the server knows none.
pub fn zone(name: &str) -> IotResult<Zone> {
    Zone::named(name).ok_or_else(|| {
        IotError::invalid_argument(format!("time zone \"{name}\" is not known"))
            .hint("See the view pg_timezone_names.")
    })
}

/// An interval as a length: months of 30 days, days of 24 hours.
pub fn micros(interval: &Interval) -> i64 {
    let days = i64::from(interval.months()) * 30 + i64::from(interval.days());
    days.saturating_mul(MICROS_PER_DAY).saturating_add(interval.micros())
}

/// Acts as the owner of the catalogue while the result lives.
///
/// # Errors
/// 55000 when the catalogue is not there.
pub fn as_catalogue_owner() -> IotResult<ActingAs> {
    let catalogue = in_schema_iot(c"job").ok_or_else(|| {
        IotError::wrong_state("table iot.job does not exist").hint("Run ALTER EXTENSION iot_ext UPDATE.")
    })?;
    Ok(ActingAs::restricted(OpenRelation::open(catalogue, Lock::AccessShare).owner()))
}

macro_rules! select_job {
    ($rest:literal) => {
        concat!(
            "SELECT j.job_id, j.job_name, j.job_kind, j.owner::pg_catalog.oid, j.target::pg_catalog.oid, j.parameters, j.command, j.schedule_interval,
                    j.schedule_cron, j.time_zone, j.jitter, j.first_start, j.timeout, j.max_retries, j.retry_delay,
                    j.is_paused, j.pause_reason, j.created_at
               FROM iot.job j ",
            $rest
        )
    };
}

statement!(LOAD: (INT8OID) select_job!("WHERE j.job_id OPERATOR(pg_catalog.=) $1"));
statement!(LOAD_KEPT: (INT8OID) select_job!("WHERE j.job_id OPERATOR(pg_catalog.=) $1 FOR KEY SHARE OF j"));
statement!(LOAD_TO_CHANGE: (INT8OID) select_job!("WHERE j.job_id OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE OF j"));
statement!(LOAD_NAMED: (TEXTOID) select_job!("WHERE j.job_name OPERATOR(pg_catalog.=) $1"));
statement!(LOAD_OF_TARGET: (REGCLASSOID, TEXTOID) select_job!(
    "WHERE j.target OPERATOR(pg_catalog.=) $1 AND j.job_kind OPERATOR(pg_catalog.=) $2 ORDER BY j.job_id"));

/// The job of that number.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn load(session: &mut Session<'_>, job_id: i64) -> IotResult<Option<Job>> {
    let _owner = as_catalogue_owner()?;
    session.execute(&LOAD, &[job_id.into()])?.first().map(|row| from_row(&row)).transpose()
}

/// The job of that number, which nobody deletes until the transaction ends.
///
/// Whoever writes how a job is doing takes this first, as whoever deletes it does (`iot.job`, then `iot.job_state`
/// and `iot.job_run`): in any other order the two would wait for each other.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn load_kept(session: &mut Session<'_>, job_id: i64) -> IotResult<Option<Job>> {
    let _owner = as_catalogue_owner()?;
    session.execute(&LOAD_KEPT, &[job_id.into()])?.first().map(|row| from_row(&row)).transpose()
}

/// The job of that number as others have left it, to be changed: they wait for the end of the transaction.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn load_to_change(session: &mut Session<'_>, job_id: i64) -> IotResult<Option<Job>> {
    let _owner = as_catalogue_owner()?;
    session.execute(&LOAD_TO_CHANGE, &[job_id.into()])?.first().map(|row| from_row(&row)).transpose()
}

/// The job of that name.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn load_named(session: &mut Session<'_>, name: &str) -> IotResult<Option<Job>> {
    let _owner = as_catalogue_owner()?;
    session.execute(&LOAD_NAMED, &[name.into()])?.first().map(|row| from_row(&row)).transpose()
}

/// The jobs of a kind that work on a relation.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn load_of_target(session: &mut Session<'_>, target: Oid, kind: Kind) -> IotResult<Vec<Job>> {
    let _owner = as_catalogue_owner()?;
    let mut jobs = Vec::new();
    session.execute(&LOAD_OF_TARGET, &[target.into(), kind.as_str().into()])?.for_each(|row| {
        jobs.push(from_row(row)?);
        Ok(())
    })?;
    Ok(jobs)
}

fn from_row(row: &Row<'_>) -> IotResult<Job> {
    let kind: String = row.get(3)?;
    let parameters: JsonB = row.get(6)?;
    Ok(Job {
        job_id: row.get(1)?,
        name: row.get(2)?,
        kind: Kind::from_name(&kind)
            .ok_or_else(|| IotError::invalid_argument(format!("job_kind \"{kind}\" is not known")))?,
        owner: row.get(4)?,
        target: row.optional(5)?,
        parameters: match parameters.0 {
            Value::Object(map) => map,
            _ => Map::new(),
        },
        command: row.optional(7)?,
        schedule_interval: row.optional(8)?,
        schedule_cron: row.optional(9)?,
        time_zone: row.get(10)?,
        jitter: row.get(11)?,
        first_start: row.optional::<TimestampWithTimeZone>(12)?.map(clock::from_pg),
        timeout: row.optional(13)?,
        max_retries: row.get(14)?,
        retry_delay: row.get(15)?,
        is_paused: row.get(16)?,
        pause_reason: row.optional(17)?,
        created_at: clock::from_pg(row.get(18)?),
    })
}

statement!(NEXT_NUMBER: () "SELECT pg_catalog.nextval('iot.job_job_id_seq')");

/// A number for a new job.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn next_number(session: &mut Session<'_>) -> IotResult<i64> {
    let _owner = as_catalogue_owner()?;
    session.execute(&NEXT_NUMBER, &[])?.first().ok_or_else(|| IotError::null_argument("job_id"))?.get(1)
}

statement!(STORE: (
        INT8OID, TEXTOID, TEXTOID, REGROLEOID, REGCLASSOID, JSONBOID, TEXTOID, INTERVALOID, TEXTOID, TEXTOID, INTERVALOID,
        TIMESTAMPTZOID, INTERVALOID, INT4OID, INTERVALOID, BOOLOID, TEXTOID, TIMESTAMPTZOID,
    )
    "INSERT INTO iot.job AS j (
         job_id, job_name, job_kind, owner, target, parameters, command, schedule_interval, schedule_cron, time_zone, jitter,
         first_start, timeout, max_retries, retry_delay, is_paused, pause_reason, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
     ON CONFLICT (job_id) DO UPDATE
        SET job_name = EXCLUDED.job_name, owner = EXCLUDED.owner, parameters = EXCLUDED.parameters,
            command = EXCLUDED.command, schedule_interval = EXCLUDED.schedule_interval,
            schedule_cron = EXCLUDED.schedule_cron, time_zone = EXCLUDED.time_zone, jitter = EXCLUDED.jitter,
            first_start = EXCLUDED.first_start, timeout = EXCLUDED.timeout, max_retries = EXCLUDED.max_retries,
            retry_delay = EXCLUDED.retry_delay, is_paused = EXCLUDED.is_paused, pause_reason = EXCLUDED.pause_reason");

/// Writes a job, new or changed.
///
/// # Errors
/// 23505 when another one has its name.
pub fn store(session: &mut Session<'_>, job: &Job) -> IotResult<()> {
    let _owner = as_catalogue_owner()?;
    session.execute(
        &STORE,
        &[
            job.job_id.into(),
            job.name.as_str().into(),
            job.kind.as_str().into(),
            job.owner.into(),
            job.target.into(),
            JsonB(Value::Object(job.parameters.clone())).into(),
            job.command.as_deref().into(),
            job.schedule_interval.into(),
            job.schedule_cron.as_deref().into(),
            job.time_zone.as_str().into(),
            job.jitter.into(),
            job.first_start.map(clock::to_pg).into(),
            job.timeout.into(),
            job.max_retries.into(),
            job.retry_delay.into(),
            job.is_paused.into(),
            job.pause_reason.as_deref().into(),
            clock::to_pg(job.created_at).into(),
        ],
    )?;
    Ok(())
}

statement!(DELETE: (INT8OID) "DELETE FROM iot.job j WHERE j.job_id OPERATOR(pg_catalog.=) $1");

/// Deletes a job and its history.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn delete(session: &mut Session<'_>, job_id: i64) -> IotResult<()> {
    let _owner = as_catalogue_owner()?;
    session.execute(&DELETE, &[job_id.into()])?;
    Ok(())
}

statement!(PAUSE: (INT8OID, TEXTOID)
    "UPDATE iot.job j SET is_paused = true, pause_reason = $2
      WHERE j.job_id OPERATOR(pg_catalog.=) $1 AND NOT j.is_paused");

/// Pauses a job that cannot go on.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn pause(session: &mut Session<'_>, job_id: i64, reason: &str) -> IotResult<()> {
    let _owner = as_catalogue_owner()?;
    session.execute(&PAUSE, &[job_id.into(), reason.into()])?;
    Ok(())
}

statement!(EXISTS_FOR_ALL: (TEXTOID, REGROLEOID)
    "SELECT EXISTS (SELECT FROM iot.job j
                     WHERE j.job_kind OPERATOR(pg_catalog.=) $1 AND j.target IS NULL
                       AND j.owner::pg_catalog.oid OPERATOR(pg_catalog.=) $2::pg_catalog.oid)");

/// Whether there is a job of a kind for everything that `owner` owns.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn exists_for_all(session: &mut Session<'_>, kind: Kind, owner: Oid) -> IotResult<bool> {
    let _owner = as_catalogue_owner()?;
    let arguments = [kind.as_str().into(), owner.into()];
    session.execute(&EXISTS_FOR_ALL, &arguments)?.first().map_or(Ok(false), |row| row.get(1))
}
