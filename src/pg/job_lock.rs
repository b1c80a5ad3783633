//! The lock that a session holds while it runs a job.
//!
//! It is one that no SQL can ask for, so that nobody can take it and keep it; the end of the process frees it. It is held for
//! the session, by the lock method of advisory locks: the standard one gives up locks of the session when a transaction
//! rolls back, which a job may well do.

use std::cell::{Cell, RefCell};

use pgrx::{pg_guard, pg_sys};

use super::relation::in_schema_iot;
use super::shared::schedule;

function_info!(pg_finfo_iot_jobs_restored);

/// `USER_LOCKMETHOD` of PostgreSQL's storage/lock.h.
const USER_LOCK_METHOD: u8 = 2;

/// The number of no job: its lock is held by sessions that restore a dump.
const RESTORE: i64 = 0;

/// Until when a lock is held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The run ends, or the transaction that claims it rolls back.
    Claimed,
    /// The run ends, or any transaction rolls back: that of the command that runs the job.
    RolledBack,
    /// The run ends.
    Finished,
    /// The current transaction ends.
    TransactionEnd,
}

/// A lock that this session holds.
#[derive(Clone, Copy)]
struct Held {
    job_id: i64,
    tag: pg_sys::LOCKTAG,
    until: Until,
    /// What `Claimed` becomes.
    then: Until,
}

thread_local! {
    static HELD: RefCell<Vec<Held>> = const { RefCell::new(Vec::new()) };
    static LISTENS: Cell<bool> = const { Cell::new(false) };
}

/// Takes the lock of a job, if it is free. It is free again when the current transaction rolls back, and else after
/// [`release_at_end`]; with `dies_with_command` also when a later transaction of this session rolls back.
pub fn try_take(job_id: i64, dies_with_command: bool) -> bool {
    let Some(tag) = tag(job_id) else { return false };
    listen();
    // SAFETY: the tag lives during the call.
    let result = unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as pg_sys::LOCKMODE, true, true) };
    if result == pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL {
        return false;
    }
    if result != pg_sys::LockAcquireResult::LOCKACQUIRE_OK {
        // This session runs it already: now it holds it twice.
        release(&tag);
        return false;
    }
    let then = if dies_with_command { Until::RolledBack } else { Until::Finished };
    HELD.with_borrow_mut(|held| held.push(Held { job_id, tag, until: Until::Claimed, then }));
    true
}

/// Frees the lock of a job when the current transaction ends: if earlier, others would find it free before they see what the
/// transaction wrote.
pub fn release_at_end(job_id: i64) {
    HELD.with_borrow_mut(|held| {
        for each in held.iter_mut().filter(|each| each.job_id == job_id) {
            each.until = Until::TransactionEnd;
        }
    });
}

/// Whether some session brings jobs in from a dump.
pub fn is_restoring() -> bool {
    let Some(tag) = tag(RESTORE) else { return false };
    let mode = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
    // SAFETY: the tag lives during the calls; what was taken is given back at once. It conflicts with the lock of a
    // restore, and not with others who ask.
    unsafe {
        if pg_sys::LockAcquire(&tag, mode, false, true) == pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL {
            return true;
        }
        pg_sys::LockRelease(&tag, mode, false);
    }
    false
}

/// Statement trigger on `iot.job`: the jobs of a dump wait until the session that restores it has ended, for until then
/// there may be no keys and no triggers, and rows that a job adds may be in the way of those to come.
///
/// # Safety
/// Called by PostgreSQL as declared in `sql/schema/80_job.sql`.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn iot_jobs_restored(_call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: both are variables of the backend.
    let (checks_bodies, in_script) = unsafe { (pg_sys::check_function_bodies, pg_sys::creating_extension) };
    // What pg_dump and pg_restore turn off in each of their sessions, and nobody else.
    if !checks_bodies
        && !in_script
        && let Some(tag) = tag(RESTORE)
    {
        // SAFETY: the tag lives during the call. Those who ask whether it is held keep it for an instant only.
        unsafe { pg_sys::LockAcquire(&tag, pg_sys::ShareLock as pg_sys::LOCKMODE, true, false) };
    }
    pg_sys::Datum::from(0)
}

/// This process, as `pg_backend_pid()`.
pub fn own_pid() -> i32 {
    // SAFETY: set once when the process started.
    unsafe { pg_sys::MyProcPid }
}

fn tag(job_id: i64) -> Option<pg_sys::LOCKTAG> {
    let catalogue = in_schema_iot(c"job")?;
    let number = job_id as u64;
    Some(pg_sys::LOCKTAG {
        // SAFETY: set when the session connected.
        locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
        locktag_field2: catalogue.to_u32(),
        locktag_field3: number as u32,
        locktag_field4: (number >> 32) as u16,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: USER_LOCK_METHOD,
    })
}

fn release(tag: &pg_sys::LOCKTAG) {
    // SAFETY: the tag lives during the call. A lock that is not held (the job's own SQL may give up all advisory locks of
    // the session) gives a WARNING.
    unsafe { pg_sys::LockRelease(tag, pg_sys::ExclusiveLock as pg_sys::LOCKMODE, true) };
}

fn listen() {
    if LISTENS.replace(true) {
        return;
    }
    // SAFETY: the callback lives as long as the process; the registration is for good.
    unsafe { pg_sys::RegisterXactCallback(Some(transaction_ended), std::ptr::null_mut()) };
}

/// Nothing in it can fail: after a COMMIT that would take the cluster down.
///
/// # Safety
/// Called by PostgreSQL, as registered.
#[pg_guard]
unsafe extern "C-unwind" fn transaction_ended(
    event: pg_sys::XactEvent::Type,
    _argument: *mut std::ffi::c_void,
) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT};
    let is_commit = match event {
        XACT_EVENT_COMMIT => true,
        XACT_EVENT_ABORT => false,
        _ => return,
    };
    let mut is_interrupted = false;
    HELD.with_borrow_mut(|held| {
        held.retain_mut(|each| {
            let is_over = match each.until {
                Until::TransactionEnd => true,
                Until::Claimed | Until::RolledBack => !is_commit,
                Until::Finished => false,
            };
            if is_over {
                release(&each.tag);
                is_interrupted |= each.until == Until::RolledBack;
            } else if each.until == Until::Claimed {
                each.until = each.then;
            }
            !is_over
        });
    });
    if is_interrupted {
        // A run that nobody finishes: somebody has to look.
        schedule::mark_current_database();
    }
}
