//! Jobs: which are due, claiming one, what its run consists of, and what became of it.
//!
//! A run, whoever does it (a job worker or `iot.run_job`), has three parts, each in transactions of its own:
//! 1. [`claim`] takes the job's lock for the session and writes down that it runs; COMMIT.
//! 2. [`plan`] says what there is to do (in a transaction). [`Work::InTransaction`]: call [`step`] in one transaction after
//!    the other until it is [`Progress::Done`]. [`Work::Statements`]: run each by itself at top level, as the job's owner.
//! 3. [`finish`] writes down what became of it and when the job is due again; COMMIT, and with that the lock is free.
//!
//! When 1 or 3 roll back, or the process ends, the lock is free too, and whoever looks next ([`due`], [`claim`]) closes the
//! run as interrupted.

pub use iot_core::job::Outcome;
use iot_core::time::Timestamp;
use pgrx::pg_sys::Oid;

use crate::error::IotResult;
use crate::pg::statement::Session;

/// A job whose time has come.
#[derive(Clone, Copy, Debug)]
pub struct DueJob {
    /// `iot.job.job_id`.
    pub job_id: i64,
    /// Role as which it runs.
    pub owner: Oid,
}

/// A job that this process may run, and holds the lock of.
#[derive(Clone, Debug)]
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
    pub timeout: Option<std::time::Duration>,
}

/// What a run consists of.
#[derive(Clone, Debug)]
pub enum Work {
    /// [`step`], in transactions.
    InTransaction,
    /// Statements for the top level of a session, in this order; each text may itself hold several statements, which then run
    /// as those of a simple query do. They may change settings of the session: DISCARD ALL afterwards where it goes on.
    Statements(Vec<String>),
}

/// Whether a step was the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It was.
    Done,
    /// COMMIT, and call it again.
    Again,
}

/// The jobs whose time has come, the longest due first. Makes the rows of `iot.job_state` that are missing, closes interrupted runs and
/// pauses jobs whose owner is gone.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn due(_session: &mut Session<'_>, _now: Timestamp) -> IotResult<Vec<DueJob>> {
    Ok(Vec::new())
}

/// When the next job is due that is neither paused nor running; `None` for never.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn next_start(_session: &mut Session<'_>) -> IotResult<Option<Timestamp>> {
    Ok(None)
}

/// Takes a job that is due. `None`: it is not any more, or is running elsewhere, or is put off (a restore is running).
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn claim(_session: &mut Session<'_>, _job_id: i64, _now: Timestamp) -> IotResult<Option<Claimed>> {
    Ok(None)
}

/// What there is to do. Its errors are those of the job.
///
/// # Errors
/// What the kind refuses, such as a target that it cannot work on.
pub fn plan(_session: &mut Session<'_>, _claimed: &Claimed) -> IotResult<Work> {
    Ok(Work::InTransaction)
}

/// Does the next piece of [`Work::InTransaction`], as the job's owner. Its errors are those of the job.
///
/// # Errors
/// Whatever goes wrong in the job.
pub fn step(_session: &mut Session<'_>, _claimed: &mut Claimed) -> IotResult<Progress> {
    Ok(Progress::Done)
}

/// Writes down what became of the run. [`Outcome::of_error`] tells the outcome of an ERROR.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn finish(_session: &mut Session<'_>, _claimed: &Claimed, _outcome: &Outcome) -> IotResult<()> {
    Ok(())
}
