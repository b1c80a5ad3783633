//! The side of sessions: jobs that changed, databases that are wanted empty.

use std::ffi::c_int;

use iot_core::time::Timestamp;
use pgrx::pg_sys;

use super::{HOLDS, Hold, Stage, WorkerRow, lock};

/// Has the current database looked at. Called right after COMMIT: nothing in it can fail.
pub fn mark_current_database() {
    // SAFETY: set once when the process connected.
    let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
    if let Some(mut locked) = lock() {
        if let Some(row) = locked.row_or_new(database) {
            row.look_at = Timestamp::NEGATIVE_INFINITY.0;
        }
        locked.wake_launcher();
    }
}

/// Keeps workers out of a database for a session's statement; whether there was room to write that down.
pub fn hold(database: u32) -> bool {
    let Some(locked) = lock() else { return false };
    let Some(place) = locked.header.holds.iter().position(|hold| hold.database == 0) else { return false };
    // SAFETY: set once when the process started.
    locked.header.holds[place] = Hold { database, pid: unsafe { pg_sys::MyProcPid } };
    for worker in locked.header.workers.iter_mut().filter(|worker| worker.database == database) {
        worker.stops = true;
    }
    true
}

/// Ends what [`hold`] began, for all that this session holds; its databases are looked at again.
pub fn release() {
    let Some(mut locked) = lock() else { return };
    // SAFETY: set once when the process started.
    let pid = unsafe { pg_sys::MyProcPid };
    for place in 0..HOLDS {
        let hold = locked.header.holds[place];
        if hold.database != 0 && hold.pid == pid {
            locked.header.holds[place].database = 0;
            if let Some(row) = locked.row(hold.database) {
                row.look_at = Timestamp::NEGATIVE_INFINITY.0;
            }
        }
    }
    locked.header.has_news = true;
    locked.wake_launcher();
}

/// How many workers are in a database. Each gets `signal`, unless it is still connecting: then it ends by itself.
pub fn workers_in(database: u32, signal: Option<c_int>) -> usize {
    let Some(locked) = lock() else { return 0 };
    let is_there = |worker: &&WorkerRow| worker.is_running() && worker.database == database;
    if let Some(signal) = signal {
        let connected =
            locked.header.workers.iter().filter(is_there).filter(|worker| worker.stage == Stage::Connected);
        for worker in connected {
            // SAFETY: a process leaves its place, under the lock, before it ends: the number is still its own.
            unsafe { kill(worker.pid, signal) };
        }
    }
    locked.header.workers.iter().filter(is_there).count()
}

// SAFETY: the declaration is that of POSIX.
unsafe extern "C" {
    fn kill(pid: i32, signal: c_int) -> c_int;
}
