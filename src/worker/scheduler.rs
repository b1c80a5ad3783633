//! The scheduler: looks at the jobs of one database, and tells the launcher what it found.

use iot_core::job::{Failure, Outcome};
use pgrx::pg_sys::Oid;

use super::{Look, look};
use crate::error::{IotResult, OrRaise};
use crate::job::{self, DueJob};
use crate::pg::relation::in_schema_iot;
use crate::pg::shared::schedule::{self, Assignment, Kind};
use crate::pg::shared::sensors;
use crate::pg::statement::{Session, with_session};
use crate::pg::{background, clock, security};
use crate::state;

/// States that are brought back, of those heard of last: others may wait for their next reading.
const MOST_STATES: usize = 20_000;

/// Looks, in a worker that the launcher started.
pub fn schedule(place: u32) {
    let Some(assignment) = schedule::adopt(place, Kind::Scheduler) else { return };
    background::begin_in_database(assignment.database);
    if !schedule::arrive(place) {
        return;
    }
    background::pin_settings(None);
    // A lock that somebody holds for long (ALTER EXTENSION in an open transaction) must not keep the other databases
    // waiting.
    background::set(c"lock_timeout", c"5s");
    schedule::begin_look(assignment);
    let result = background::in_transaction(c"looking for due jobs", || {
        let Some(Look { due, next_start }) = look().or_raise() else {
            return (Vec::new(), None);
        };
        let due = with_session(|session| refuse_those_who_cannot_connect(session, due)).or_raise();
        (count_by_owner(&due), next_start)
    });
    match result {
        Ok((due, next_start)) => schedule::publish(assignment, &due, next_start),
        Err(failure) if failure.is_cancellation() || schedule::must_stop(place) => (),
        Err(failure) => complain(assignment, &failure.to_string()),
    }
    if !schedule::must_stop(place) {
        bring_states_back(assignment);
    }
}

/// After a start of the server: the states of this database's sensors, before readings ask for them one by one.
fn bring_states_back(assignment: Assignment) {
    if !sensors::is_available() || sensors::tracks_any() {
        return;
    }
    let result = background::in_transaction(c"loading states into memory", || {
        let is_wanted = background::has_extension(c"iot_ext") && in_schema_iot(c"sensor_state").is_some();
        if is_wanted { state::load(MOST_STATES).or_raise() } else { 0 }
    });
    if let Err(failure) = result {
        complain(assignment, &failure.to_string());
    }
}

/// The owners, the longest due first, each with how many jobs are due.
fn count_by_owner(due: &[DueJob]) -> Vec<(u32, u32)> {
    let mut counted: Vec<(u32, u32)> = Vec::new();
    for job in due {
        let owner = job.owner.to_u32();
        match counted.iter_mut().find(|(known, _)| *known == owner) {
            Some((_, count)) => *count += 1,
            None => counted.push((owner, 1)),
        }
    }
    counted
}

/// A worker that cannot connect as the owner could not even tell why: that is done here.
fn refuse_those_who_cannot_connect(session: &mut Session<'_>, due: Vec<DueJob>) -> IotResult<Vec<DueJob>> {
    let mut refused: Vec<(Oid, String)> = Vec::new();
    let mut accepted: Vec<Oid> = Vec::new();
    for job in &due {
        if accepted.contains(&job.owner) || refused.iter().any(|(owner, _)| *owner == job.owner) {
            continue;
        }
        match security::obstacle_to_connecting(job.owner, background::MAY_BYPASS_LOGIN) {
            Some(obstacle) => refused.push((job.owner, obstacle)),
            None => accepted.push(job.owner),
        }
    }
    let mut kept = Vec::with_capacity(due.len());
    for due in due {
        let Some((_, obstacle)) = refused.iter().find(|(owner, _)| *owner == due.owner) else {
            kept.push(due);
            continue;
        };
        if let Some(claimed) = job::claim(session, due.job_id, clock::now())? {
            let failure = Failure { sqlstate: "28000".to_owned(), message: obstacle.clone() };
            job::finish(session, &claimed, &Outcome::Failed(failure))?;
        }
    }
    Ok(kept)
}

fn complain(assignment: Assignment, reason: &str) {
    pgrx::log!(
        "iot_ext could not look at the jobs of the database with OID {}, and tries again: {reason}",
        assignment.database
    );
}
