//! The job worker: runs the due jobs of one owner in one database, connected as that owner.

use std::ffi::CString;
use std::time::{Duration, Instant};

use pgrx::pg_sys::Oid;

use super::{Look, has_jobs, look};
use crate::error::OrRaise;
use crate::job::{self, Claimed, DueJob, Outcome, Progress, Work};
use crate::pg::failure::Failure;
use crate::pg::shared::schedule::{self, Assignment, Kind};
use crate::pg::statement::with_session;
use crate::pg::timer::StatementTimer;
use crate::pg::{background, clock, top_level};

/// Runs jobs until none is due, in a worker that the launcher started.
pub fn run_jobs(place: u32) {
    let Some(assignment) = schedule::adopt(place, Kind::Jobs) else { return };
    background::obey_signals();
    background::connect(assignment.database, Some(Oid::from_u32(assignment.owner)));
    if !schedule::arrive(place) {
        return;
    }
    background::pin_settings(None);
    let mut has_run = false;
    loop {
        schedule::begin_look(assignment);
        let looked = background::in_transaction(c"looking for due jobs", || look().or_raise());
        if schedule::must_stop(place) {
            return;
        }
        let Look { mut due, next_start } = match looked {
            Ok(Some(look)) => look,
            // The extension is gone.
            Ok(None) => return schedule::conclude(assignment, None, has_run),
            Err(failure) => return pgrx::log!("iot_ext could not look for due jobs: {failure}"),
        };
        due.retain(|job| job.owner.to_u32() == assignment.owner);
        // Two workers for the same jobs begin at the two ends: else they would meet at each of them.
        if assignment.colleagues % 2 == 1 {
            due.reverse();
        }
        let Some(ran) = run_each(assignment, &due) else { return };
        has_run |= ran;
        if !ran {
            return schedule::conclude(assignment, next_start, has_run);
        }
    }
}

/// Runs those that nobody else runs; whether there was one. `None`: this worker shall end.
fn run_each(assignment: Assignment, due: &[DueJob]) -> Option<bool> {
    let mut has_run = false;
    for (number, job) in (1..).zip(due) {
        if schedule::must_stop(assignment.place) {
            return None;
        }
        let is_last = number == due.len();
        let claimed = background::in_transaction(c"taking a job", || {
            if !has_jobs() {
                return None;
            }
            with_session(|session| {
                let claimed = job::claim(session, job.job_id, clock::now())?;
                // It may last: what is due meanwhile is for another worker.
                let next_start = if is_last { job::next_start(session)? } else { None };
                Ok(claimed.map(|claimed| (claimed, next_start)))
            })
            .or_raise()
        });
        match claimed {
            Ok(Some((mut claimed, next_start))) => {
                schedule::expect(assignment, next_start);
                has_run = true;
                run(assignment, &mut claimed);
            }
            Ok(None) => (),
            Err(_) if schedule::must_stop(assignment.place) => return None,
            Err(failure) => {
                pgrx::log!("iot_ext could not take job {}: {failure}", job.job_id);
                return None;
            }
        }
    }
    Some(has_run)
}

/// Runs a job that is claimed, and writes down what became of it.
fn run(assignment: Assignment, claimed: &mut Claimed) {
    schedule::note_busy(assignment.place, true);
    let limit = TimeLimit { begin: Instant::now(), limit: claimed.timeout };
    background::pin_settings(claimed.timeout);
    let mut is_dirty = false;
    let result = do_work(claimed, &limit, &mut is_dirty);
    schedule::note_busy(assignment.place, false);
    let outcome = match result {
        Ok(()) => Outcome::Succeeded,
        Err(failure) => {
            if !failure.is_cancellation() {
                pgrx::log!("iot_ext job \"{}\" failed: {failure}", claimed.name);
            }
            failure.into()
        }
    };
    background::uncancelled(|| {
        background::pin_settings(None);
        let finished = background::in_transaction(c"recording the end of a job", || {
            // Gone with the extension: then there is nobody to tell.
            if has_jobs() {
                with_session(|session| job::finish(session, claimed, &outcome)).or_raise();
            }
        });
        if let Err(failure) = finished {
            pgrx::log!("iot_ext could not record the end of job \"{}\": {failure}", claimed.name);
        }
        if is_dirty {
            let forgotten = background::in_transaction(c"cleaning up after a job", || {
                with_session(|session| session.run(background::FORGET_SESSION)).or_raise();
            });
            if let Err(failure) = forgotten {
                pgrx::log!("iot_ext could not clean up after job \"{}\": {failure}", claimed.name);
            }
        }
    });
}

/// Does what there is to do, within its time.
fn do_work(claimed: &mut Claimed, limit: &TimeLimit, is_dirty: &mut bool) -> Result<(), Failure> {
    let activity = CString::new(format!("iot_ext job \"{}\"", claimed.name)).unwrap_or_default();
    let work = limit.on(|| {
        background::in_transaction(&activity, || {
            with_session(|session| job::plan(session, claimed)).or_raise()
        })
    })?;
    match work {
        Work::InTransaction => loop {
            let progress = limit.on(|| {
                background::in_transaction(&activity, || {
                    with_session(|session| job::step(session, claimed)).or_raise()
                })
            })?;
            if progress == Progress::Done {
                return Ok(());
            }
        },
        Work::Statements(parts) => {
            *is_dirty = true;
            top_level::run_all(&parts, limit.remaining())
        }
    }
}

/// How long a run may last, all its parts together.
struct TimeLimit {
    begin: Instant,
    limit: Option<Duration>,
}

impl TimeLimit {
    fn remaining(&self) -> Option<Duration> {
        self.limit.map(|limit| limit.saturating_sub(self.begin.elapsed()))
    }

    fn on<T>(&self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let timer = StatementTimer::start(self.remaining());
        work().map_err(|failure| Failure {
            is_timeout: timer.has_expired() && failure.is_cancellation(),
            ..failure
        })
    }
}
