//! What the engine has done, counted per database without touching a row.

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use pgrx::pg_sys;

/// Databases that are counted apart; further ones share the last row.
const DATABASES: usize = 64;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Calls of an ingest function, and flushes of the stream road.
    Batches,
    /// Readings offered.
    Offered,
    /// Readings stored.
    Stored,
    /// Readings that were there already.
    Duplicates,
    /// Readings that were refused.
    Rejected,
    /// Readings flagged as anomalies.
    Anomalies,
    /// Anomalies at which an episode began.
    Onsets,
    /// Readings older than their sensor's newest.
    Late,
    /// Matches of alert rules.
    AlertMatches,
    /// Sensors whose window was read from the table.
    WindowReads,
    /// Readings that met another session's at the primary key.
    Conflicts,
    /// Largest batch.
    LargestBatch,
    /// Nanoseconds spent looking up sensors, calibrations and rules.
    LookUpNanoseconds,
    /// Nanoseconds spent on calibration, quality, score and rules.
    ScoreNanoseconds,
    /// Nanoseconds spent storing rows and index entries.
    StoreNanoseconds,
    /// Nanoseconds spent writing alerts and rejected readings.
    AlertNanoseconds,
}

/// How many counters there are.
pub const COUNTERS: usize = Counter::AlertNanoseconds as usize + 1;

struct Row {
    database: AtomicU64,
    reset_at: AtomicI64,
    counts: [AtomicU64; COUNTERS],
}

static mut ROWS: *mut Row = std::ptr::null_mut();

/// Rolled-back readings count too: this is what the engine did, as `pg_stat_database` does it.
static PRIVATE: [AtomicU64; COUNTERS] = [const { AtomicU64::new(0) }; COUNTERS];
static PRIVATE_RESET_AT: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static MY_ROW: Cell<Option<usize>> = const { Cell::new(None) };
}

pub(super) fn request() {
    // SAFETY: called from the request hook.
    unsafe { pg_sys::RequestAddinShmemSpace(DATABASES * size_of::<Row>()) };
}

pub(super) fn startup() {
    // SAFETY: called from the startup hook; the memory has the size asked for. A row of zero bytes is an unused row.
    unsafe {
        let mut found = false;
        let bytes = DATABASES * size_of::<Row>();
        let rows = pg_sys::ShmemInitStruct(c"iot_ext counters".as_ptr(), bytes, &mut found);
        if !found {
            std::ptr::write_bytes(rows.cast::<u8>(), 0, bytes);
        }
        ROWS = rows.cast();
    }
}

/// The counters of the current database, or of this session alone where the library is not preloaded.
fn counts() -> (&'static [AtomicU64; COUNTERS], &'static AtomicI64) {
    // SAFETY: set by the postmaster before this process was forked, with that many rows; all fields are atomic.
    let rows: &'static [Row] =
        unsafe { if ROWS.is_null() { &[] } else { std::slice::from_raw_parts(ROWS, DATABASES) } };
    if rows.is_empty() {
        return (&PRIVATE, &PRIVATE_RESET_AT);
    }
    let number = MY_ROW.get().unwrap_or_else(|| {
        // SAFETY: set once when the backend connects to its database.
        let database = u64::from(unsafe { pg_sys::MyDatabaseId }.to_u32());
        let mine = |row: &Row| {
            let known = row.database.compare_exchange(0, database, Ordering::Relaxed, Ordering::Relaxed);
            known.is_ok() || known == Err(database)
        };
        rows.iter().position(mine).unwrap_or(DATABASES - 1)
    });
    MY_ROW.set(Some(number));
    (&rows[number].counts, &rows[number].reset_at)
}

/// Whether the counters are those of the whole database, not of this session.
pub fn are_shared() -> bool {
    // SAFETY: as in `counts`.
    unsafe { !ROWS.is_null() }
}

/// Adds to a counter.
pub fn add(counter: Counter, amount: u64) {
    if amount > 0 {
        counts().0[counter as usize].fetch_add(amount, Ordering::Relaxed);
    }
}

/// Counts a reading that was refused before a batch had it.
pub fn add_refused() {
    add(Counter::Offered, 1);
    add(Counter::Rejected, 1);
}

/// Raises a counter that keeps a maximum.
pub fn raise_to(counter: Counter, amount: u64) {
    counts().0[counter as usize].fetch_max(amount, Ordering::Relaxed);
}

/// All counters, in the order of [`Counter`], and when they were last reset (microseconds since 2000; 0 for never).
pub fn read() -> ([u64; COUNTERS], i64) {
    let (counts, reset_at) = counts();
    (std::array::from_fn(|number| counts[number].load(Ordering::Relaxed)), reset_at.load(Ordering::Relaxed))
}

/// Sets all counters to zero.
pub fn reset(now: i64) {
    let (counts, reset_at) = counts();
    counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    reset_at.store(now, Ordering::Relaxed);
}
