//! The side of the workers: their life, and what they found.

use std::ffi::c_int;

use iot_core::time::Timestamp;
use pgrx::pg_sys;

use super::{
    DatabaseRow, Kind, LONGEST_RETRY_MICROS, LOOK_AFTER_MICROS, Locked, NO_REQUEST, OWNERS, RETRY_MICROS,
    RequestRow, Stage, WorkerRow, lock, now,
};

/// What a worker is to do.
#[derive(Clone, Copy, Debug)]
pub struct Assignment {
    /// Where it is written down.
    pub place: u32,
    /// Oid of the database.
    pub database: u32,
    /// Oid of the role.
    pub owner: u32,
    /// How many others were there already for the same role and database.
    pub colleagues: usize,
}

/// Takes the place that was reserved for this process. `None`: it is not wanted any more.
pub fn adopt(place: u32, kind: Kind) -> Option<Assignment> {
    let locked = lock()?;
    let is_held =
        locked.header.workers.get(place as usize).is_none_or(|worker| locked.is_held(worker.database));
    let worker = locked.header.workers.get_mut(place as usize)?;
    // One that comes too late may find its place given to another.
    if worker.stage != Stage::Starting || worker.kind != kind {
        return None;
    }
    if is_held {
        worker.stage = Stage::Free;
        return None;
    }
    worker.stage = Stage::Connecting;
    // SAFETY: set once when the process started.
    worker.pid = unsafe { pg_sys::MyProcPid };
    worker.since = 0;
    let (database, owner) = (worker.database, worker.owner);
    let is_colleague = |other: &&WorkerRow| {
        other.is_running() && other.kind == kind && other.database == database && other.owner == owner
    };
    let colleagues = locked.header.workers.iter().filter(is_colleague).count() - 1;
    let assignment = Assignment { place, database, owner, colleagues };
    drop(locked);
    // SAFETY: the callback takes a lock and copies; it is for the rest of this process's life.
    unsafe { pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::from(place)) };
    Some(assignment)
}

/// Frees the place. Where the worker did not come to its end by itself, the database is looked at again, but not at once.
///
/// # Safety
/// Called by PostgreSQL, as registered.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn leave(_code: c_int, place: pg_sys::Datum) {
    let Some(mut locked) = lock() else { return };
    let worker = locked.header.workers[place.value()];
    locked.header.workers[place.value()].stage = Stage::Free;
    if !worker.is_done && worker.kind != Kind::Flush {
        let is_held = locked.is_held(worker.database);
        if let Some(row) = locked.row(worker.database) {
            if worker.kind == Kind::Jobs {
                forget_request(row, worker.owner);
            }
            // Who was asked to stop has not failed.
            let wait = if worker.stops || is_held { 0 } else { retry_after(row) };
            row.look_at = row.look_at.min(now().saturating_add(wait));
        }
    }
    locked.wake_launcher();
}

fn retry_after(row: &mut DatabaseRow) -> i64 {
    let wait = RETRY_MICROS << row.failures.min(8);
    row.failures = row.failures.saturating_add(1);
    wait.min(LONGEST_RETRY_MICROS)
}

fn forget_request(row: &mut DatabaseRow, owner: u32) {
    for request in row.requests.iter_mut().filter(|request| request.owner == owner) {
        *request = NO_REQUEST;
    }
}

/// This worker is connected to its database. `false`: it must leave again.
pub fn arrive(place: u32) -> bool {
    lock().is_some_and(|locked| {
        let worker = &mut locked.header.workers[place as usize];
        worker.stage = Stage::Connected;
        !worker.stops
    })
}

/// Whether this worker shall stop: its database is wanted empty.
pub fn must_stop(place: u32) -> bool {
    lock().is_some_and(|locked| locked.header.workers[place as usize].stops)
}

/// This worker runs a job from now on, or none.
pub fn note_busy(place: u32, is_busy: bool) {
    if let Some(locked) = lock() {
        locked.header.workers[place as usize].since = if is_busy { now() } else { 0 };
    }
}

/// This worker looks at its database now: what changes after this is for the next one.
pub fn begin_look(assignment: Assignment) {
    let Some(mut locked) = lock() else { return };
    let worker = &mut locked.header.workers[assignment.place as usize];
    worker.looked_at = now();
    if worker.kind == Kind::Scheduler
        && let Some(row) = locked.row(assignment.database)
    {
        row.look_at = Timestamp::INFINITY.0;
    }
}

/// A scheduler's result: the owners with due jobs, and when the next job is due.
pub fn publish(assignment: Assignment, due: &[(u32, u32)], next_start: Option<Timestamp>) {
    let Some(mut locked) = lock() else { return };
    let looked_at = locked.header.workers[assignment.place as usize].looked_at;
    if let Some(row) = locked.row(assignment.database) {
        row.failures = 0;
        row.requests = [NO_REQUEST; OWNERS];
        for (request, &(owner, due)) in row.requests.iter_mut().zip(due) {
            *request = RequestRow { owner, due, looked_at };
        }
    }
    locked.expect(assignment.database, next_start);
    locked.header.workers[assignment.place as usize].is_done = true;
    locked.wake_launcher();
}

/// When the next job is due, as a job worker sees it.
pub fn expect(assignment: Assignment, next_start: Option<Timestamp>) {
    if let Some(mut locked) = lock() {
        locked.expect(assignment.database, next_start);
        locked.wake_launcher();
    }
}

/// A job worker found nothing more to do. `has_run`: it has run jobs.
pub fn conclude(assignment: Assignment, next_start: Option<Timestamp>, has_run: bool) {
    let Some(mut locked) = lock() else { return };
    let looked_at = locked.header.workers[assignment.place as usize].looked_at;
    if let Some(row) = locked.row(assignment.database) {
        row.failures = 0;
        // What was counted after its last look is for another worker.
        for request in &mut row.requests {
            if request.owner == assignment.owner && request.looked_at < looked_at {
                *request = NO_REQUEST;
            }
        }
        // Something is due that nobody was asked for. (If nothing could be run of it, that is not for a quick repetition.)
        let is_served = row.requests.iter().any(|request| request.due > 0);
        if has_run && !is_served && next_start.is_some_and(|next| next.0 <= now()) {
            row.look_at = Timestamp::NEGATIVE_INFINITY.0;
        }
    }
    locked.expect(assignment.database, next_start);
    locked.header.workers[assignment.place as usize].is_done = true;
    locked.wake_launcher();
}

impl Locked {
    fn expect(&mut self, database: u32, next_start: Option<Timestamp>) {
        let soon = now().saturating_add(LOOK_AFTER_MICROS);
        let Some(row) = self.row(database) else { return };
        let next = match next_start {
            None => return,
            // Due already: left to a worker, and looked after.
            Some(next) if next.0 <= now() => soon,
            Some(next) => next.0,
        };
        row.look_at = row.look_at.min(next);
    }
}
