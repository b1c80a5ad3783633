//! What launcher, schedulers, job workers and sessions tell each other: when a database must be looked at, for whom jobs
//! are due there, which workers there are, and which databases they must stay out of.
//!
//! Everything is under one lock, held for as long as it takes to copy. Databases without a row (there are more of them
//! than rows) are looked at by turns: a row is given to another database when nothing is due there soon.

use std::ffi::c_int;

use iot_core::time::Timestamp;
use iot_core::worker::{Request, Task, Worker};
use pgrx::pg_sys;

use super::lock::Held;

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

// The launcher

/// This process is the launcher from now on; what an earlier one left unfinished is forgotten.
pub fn become_launcher() {
    if let Some(locked) = lock() {
        // SAFETY: the latch of this process's slot, set when it began.
        locked.header.launcher = unsafe { pg_sys::MyLatch };
        locked.header.has_news = true;
    }
}

/// Whether there may be databases that the launcher has not seen; asked once.
pub fn take_news() -> bool {
    lock().is_some_and(|locked| std::mem::take(&mut locked.header.has_news))
}

/// Tells of every database of the cluster: the rows of others are freed, and those without a row are given one, to be
/// looked at, as long as there are some to give.
pub fn know(databases: &[u32]) {
    let Some(mut locked) = lock() else { return };
    for row in locked.databases.iter_mut().filter(|row| !databases.contains(&row.database)) {
        row.database = 0;
    }
    for &database in databases {
        locked.row_or_new(database);
    }
}

/// What the launcher decides on: databases and workers. `is_open` tells whether a database takes connections.
pub fn situation(is_open: impl Fn(u32) -> bool) -> (Vec<iot_core::worker::Database>, Vec<Worker>) {
    let Some(locked) = lock() else { return (Vec::new(), Vec::new()) };
    let give_up_before = now() - START_MICROS;
    for worker in &mut locked.header.workers {
        if worker.stage == Stage::Starting && worker.since < give_up_before {
            worker.stage = Stage::Free;
        }
    }
    let databases = locked
        .databases
        .iter()
        .filter(|row| row.database != 0)
        .map(|row| iot_core::worker::Database {
            database: row.database,
            look_at: Timestamp(row.look_at),
            is_closed: locked.is_held(row.database) || !is_open(row.database),
            requests: row
                .requests
                .iter()
                .filter(|request| request.due > 0)
                .map(|request| Request {
                    owner: request.owner,
                    due: request.due,
                    looked_at: Timestamp(request.looked_at),
                })
                .collect(),
        })
        .collect();
    let workers = locked
        .header
        .workers
        .iter()
        .filter(|worker| worker.stage != Stage::Free && worker.kind != Kind::Flush)
        .map(|worker| Worker {
            database: worker.database,
            task: match worker.kind {
                Kind::Jobs => Task::Jobs {
                    owner: worker.owner,
                    busy_since: (worker.is_running() && worker.since != 0).then_some(Timestamp(worker.since)),
                },
                Kind::Flush | Kind::Scheduler => Task::Scheduler,
            },
        })
        .collect();
    (databases, workers)
}

/// Workers of ours that are asked for and have not come to life: nobody else can see them yet.
pub fn starting() -> usize {
    lock().map_or(0, |locked| {
        locked.header.workers.iter().filter(|worker| worker.stage == Stage::Starting).count()
    })
}

/// A place for a worker that is to be started; `None` where it must not be, or there are too many.
pub fn reserve(kind: Kind, database: u32, owner: u32) -> Option<u32> {
    let locked = lock()?;
    if locked.is_held(database) {
        return None;
    }
    let place = locked.header.workers.iter().position(|worker| worker.stage == Stage::Free)?;
    locked.header.workers[place] = WorkerRow {
        stage: Stage::Starting,
        kind,
        stops: false,
        is_done: false,
        database,
        owner,
        pid: 0,
        since: now(),
        looked_at: 0,
    };
    Some(place as u32)
}

/// Gives back the place of a worker that never came to life.
pub fn cancel(place: u32) {
    if let Some(locked) = lock() {
        let worker = &mut locked.header.workers[place as usize];
        if worker.stage == Stage::Starting {
            worker.stage = Stage::Free;
        }
    }
}

// Workers

/// What a worker is to do.
#[derive(Clone, Copy, Debug)]
pub struct Assignment {
    /// Where it is written down.
    pub place: u32,
    /// Oid of the database.
    pub database: u32,
    /// Oid of the role.
    pub owner: u32,
}

/// Takes the place that was reserved for this process. `None`: it is not wanted any more.
pub fn adopt(place: u32) -> Option<Assignment> {
    let locked = lock()?;
    let is_held =
        locked.header.workers.get(place as usize).is_none_or(|worker| locked.is_held(worker.database));
    let worker = locked.header.workers.get_mut(place as usize)?;
    if worker.stage != Stage::Starting {
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
    let assignment = Assignment { place, database: worker.database, owner: worker.owner };
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

// Sessions

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
