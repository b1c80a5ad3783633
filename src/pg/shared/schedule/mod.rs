//! What launcher, schedulers, job workers and sessions tell each other: when a database must be looked at, for whom jobs
//! are due there, which workers there are, and which databases they must stay out of.
//!
//! Everything is under one lock, held for as long as it takes to copy. Databases without a row (there are more of them
//! than rows) are looked at by turns: a row is given to another database when nothing is due there soon.

use iot_core::time::Timestamp;
use pgrx::pg_sys;

use super::lock::Held;

mod launcher;
mod session;
mod worker;

pub use launcher::{become_launcher, cancel, know, processes, reserve, situation, take_news};
pub use session::{hold, mark_current_database, release, workers_in};
pub use worker::{Assignment, adopt, arrive, begin_look, conclude, expect, must_stop, note_busy, publish};

const TRANCHE: &std::ffi::CStr = c"iot_ext schedule";

/// Owners of due jobs that a row remembers. Those beyond it are found by the next look.
const OWNERS: usize = 8;

/// Workers of all kinds at the same time.
const WORKERS: usize = 64;

/// Databases that are being dropped, renamed or copied at the same time.
const HOLDS: usize = 16;

/// What a worker was started for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Writes down the state of the ingest engine.
    Flush,
    /// Looks for due jobs.
    Scheduler,
    /// Runs the due jobs of a role.
    Jobs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    Free,
    /// Asked for; it has not come to life.
    Starting,
    /// It is about to connect to its database.
    Connecting,
    Connected,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct WorkerRow {
    stage: Stage,
    kind: Kind,
    /// It was asked to stop.
    stops: bool,
    /// It came to its end by itself.
    is_done: bool,
    database: u32,
    owner: u32,
    pid: i32,
    /// Since when it runs its job; 0 between jobs. For one that is starting: since when.
    since: i64,
    /// When it began its last look at the due jobs.
    looked_at: i64,
}

impl WorkerRow {
    fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Connecting | Stage::Connected)
    }
}

#[derive(Clone, Copy)]
#[repr(C)]
struct RequestRow {
    owner: u32,
    due: u32,
    looked_at: i64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct DatabaseRow {
    /// 0 for a row that is not in use.
    database: u32,
    /// Failures in a row of workers that nobody expected to fail.
    failures: u32,
    look_at: i64,
    requests: [RequestRow; OWNERS],
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Hold {
    /// 0 for none.
    database: u32,
    /// The session whose statement wants it empty.
    pid: i32,
}

#[repr(C)]
struct Header {
    launcher: *mut pg_sys::Latch,
    /// There may be databases that the launcher has not seen.
    has_news: bool,
    capacity: u32,
    holds: [Hold; HOLDS],
    workers: [WorkerRow; WORKERS],
}

static mut HEADER: *mut Header = std::ptr::null_mut();
static mut LOCK: *mut pg_sys::LWLockPadded = std::ptr::null_mut();

const NO_REQUEST: RequestRow = RequestRow { owner: 0, due: 0, looked_at: 0 };

/// How long after a worker failed the database is looked at again: doubles up to a minute.
const RETRY_MICROS: i64 = 5_000_000;
const LONGEST_RETRY_MICROS: i64 = 60_000_000;

/// How soon a database is looked at again where something that is due was left to a worker.
const LOOK_AFTER_MICROS: i64 = 5_000_000;

/// A worker that is asked for and does not come to life in this time never will.
const START_MICROS: i64 = 60_000_000;

fn capacity() -> usize {
    crate::guc::max_scheduled_databases()
}

fn bytes() -> usize {
    size_of::<Header>() + capacity() * size_of::<DatabaseRow>()
}

pub(super) fn request() {
    // SAFETY: called from the request hook.
    unsafe {
        pg_sys::RequestAddinShmemSpace(bytes());
        pg_sys::RequestNamedLWLockTranche(TRANCHE.as_ptr(), 1);
    }
}

pub(super) fn startup() {
    // SAFETY: called from the startup hook; the memory has the size asked for and is aligned to a cache line. Zero bytes
    // are valid rows: free, and in use by nobody.
    unsafe {
        let mut found = false;
        let start = pg_sys::ShmemInitStruct(TRANCHE.as_ptr(), bytes(), &mut found);
        HEADER = start.cast();
        LOCK = pg_sys::GetNamedLWLockTranche(TRANCHE.as_ptr());
        if !found {
            std::ptr::write_bytes(start.cast::<u8>(), 0, bytes());
            (*HEADER).capacity = capacity() as u32;
        }
    }
}

/// Whether there is a launcher to talk to: the library is preloaded.
pub fn is_available() -> bool {
    // SAFETY: set by the postmaster before this process was forked.
    unsafe { !HEADER.is_null() }
}

/// The shared memory while its lock is held.
struct Locked {
    header: &'static mut Header,
    databases: &'static mut [DatabaseRow],
    _held: Held,
}

/// `None` without preload.
fn lock() -> Option<Locked> {
    if !is_available() {
        return None;
    }
    // SAFETY: the lock is the only one of its tranche; rows follow the header. The references end with the lock: both are
    // in one value, and nobody takes the lock twice.
    unsafe {
        let held = Held::acquire(&raw mut (*LOCK).lock);
        let header = &mut *HEADER;
        let rows = HEADER.add(1).cast::<DatabaseRow>();
        let databases = std::slice::from_raw_parts_mut(rows, header.capacity as usize);
        Some(Locked { header, databases, _held: held })
    }
}

impl Locked {
    fn row(&mut self, database: u32) -> Option<&mut DatabaseRow> {
        self.databases.iter_mut().find(|row| row.database == database)
    }

    /// The row of a database, or one that is taken for it: an unused one, else that of the database where nothing happens
    /// for the longest time.
    fn row_or_new(&mut self, database: u32) -> Option<&mut DatabaseRow> {
        if let Some(place) = self.databases.iter().position(|row| row.database == database) {
            return self.databases.get_mut(place);
        }
        let workers = &self.header.workers;
        let now = now();
        let is_idle = |row: &DatabaseRow| {
            row.look_at > now
                && row.requests.iter().all(|request| request.due == 0)
                && !workers
                    .iter()
                    .any(|worker| worker.stage != Stage::Free && worker.database == row.database)
        };
        let victim = self
            .databases
            .iter_mut()
            .filter(|row| row.database == 0 || is_idle(row))
            .max_by_key(|row| (row.database == 0, row.look_at))?;
        *victim = DatabaseRow {
            database,
            failures: 0,
            look_at: Timestamp::NEGATIVE_INFINITY.0,
            requests: [NO_REQUEST; OWNERS],
        };
        Some(victim)
    }

    fn is_held(&self, database: u32) -> bool {
        self.header.holds.iter().any(|hold| hold.database == database)
    }

    fn wake_launcher(&self) {
        if !self.header.launcher.is_null() {
            // SAFETY: the latch of a process slot, which exists as long as shared memory does; a needless wake does no harm.
            unsafe { pg_sys::SetLatch(self.header.launcher) };
        }
    }
}

fn now() -> i64 {
    crate::pg::clock::now().0
}
