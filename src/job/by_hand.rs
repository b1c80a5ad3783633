//! `iot.run_job`: a run in the session that asks for it.

use std::time::{Duration, Instant};

use pgrx::{PgSqlErrorCode, pg_extern, pg_sys};

use super::alter::{named, numbered};
use super::{Claimed, Outcome, Progress, Work, claim_by_hand, finish, plan, step};
use crate::catalog::job::Job;
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::failure::Failure;
use crate::pg::settings::Scoped;
use crate::pg::statement::{Session, with_session};
use crate::pg::timer::PartTimer;
use crate::pg::{background, clock, security, top_level, transaction};

#[pg_extern(sql = false)]
fn run_job(job_id: Option<i64>, call: pg_sys::FunctionCallInfo) {
    run(call, |session| numbered(session, job_id));
}

#[pg_extern(sql = false)]
fn run_job_named(job_name: Option<&str>, call: pg_sys::FunctionCallInfo) {
    run(call, |session| named(session, job_name));
}

fn run(call: pg_sys::FunctionCallInfo, find: impl FnOnce(&mut Session<'_>) -> IotResult<Job>) {
    if !transaction::may_commit(call) || transaction::is_in_block() {
        IotError::new(
            PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            "run_job() cannot run inside a transaction block",
        )
        .detail("It commits what it writes down about the run before and after it.")
        .hint("Call it outside of BEGIN and COMMIT, with autocommit on, and not from a function.")
        .raise();
    }
    transaction::take_snapshot();
    let mut claimed = in_pinned_session(|session| {
        let job = find(session)?;
        if !security::current_user_has_privileges_of(job.owner) {
            return Err(super::alter::must_be_owner(&job));
        }
        claim_by_hand(session, job, clock::now())
    })
    .or_raise();
    transaction::commit_in_procedure();
    let outcome = work(&mut claimed);
    let verdict = match &outcome {
        Ok(()) => Outcome::Succeeded,
        Err(failure) => failure.clone().into(),
    };
    transaction::take_snapshot();
    in_pinned_session(|session| finish(session, &claimed, &verdict)).or_raise();
    transaction::commit_in_procedure();
    outcome.or_raise();
}

/// With the search path that functions of the extension have by their SET clause, which a procedure that commits cannot have:
/// names that are printed carry their schemas, whatever the caller's path is.
fn in_pinned_session<T>(work: impl FnOnce(&mut Session<'_>) -> IotResult<T>) -> IotResult<T> {
    let settings = Scoped::new();
    settings.set(c"search_path", c"pg_catalog, pg_temp");
    with_session(work)
}

/// The work itself. It may take as long as the job may, all parts together.
fn work(claimed: &mut Claimed) -> Result<(), Failure> {
    let begin = Instant::now();
    let limit = claimed.timeout;
    let left = || limit.map(|limit| limit.saturating_sub(begin.elapsed()).max(Duration::from_millis(1)));
    let work = {
        let claimed = &*claimed;
        transaction::take_snapshot();
        attempt(left(), || in_pinned_session(|session| plan(session, claimed)))?
    };
    match work {
        Work::InTransaction => loop {
            transaction::take_snapshot();
            let progress = attempt(left(), || in_pinned_session(|session| step(session, claimed)))?;
            if progress == Progress::Done {
                return Ok(());
            }
            transaction::commit_in_procedure();
        },
        Work::Statements(parts) if parts.is_empty() => Ok(()),
        Work::Statements(parts) => {
            // No snapshot and no lock that the worker could wait for.
            transaction::commit_in_procedure();
            let (database, owner) = (background::current_database(), claimed.owner);
            transaction::catch(|| Ok(top_level::run_in_worker(database, owner, &parts, left())))?
        }
    }
}

fn attempt<T>(limit: Option<Duration>, work: impl FnOnce() -> IotResult<T>) -> Result<T, Failure> {
    let timer = PartTimer::start(limit);
    transaction::catch(work).map_err(|failure| Failure {
        is_timeout: failure.is_cancellation() && timer.has_expired(),
        ..failure
    })
}
