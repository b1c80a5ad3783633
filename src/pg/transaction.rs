//! What happens at the end of transactions and subtransactions, and the questions a caller may ask about its own.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_guard, pg_sys};

use super::failure::Failure;
use crate::error::{IotError, IotResult, OrRaise};

/// What a listener does at the end of a transaction.
///
/// Everything that can fail belongs into `before_commit`: an error in `committed` would take the whole cluster down.
pub struct Listener {
    /// Whether the transaction did something of ours; if so it cannot be PREPAREd.
    pub is_concerned: fn() -> bool,
    /// Before others can see what the transaction did.
    pub before_commit: fn(),
    /// After they can. Only copies.
    pub committed: fn(),
    /// Instead of that.
    pub rolled_back: fn(),
    /// The subtransaction at this nesting level became part of the one above.
    pub subtransaction_committed: fn(i32),
    /// The subtransaction at this nesting level rolled back.
    pub subtransaction_rolled_back: fn(i32),
}

thread_local! {
    static LISTENER: Cell<Option<&'static Listener>> = const { Cell::new(None) };
}

/// Has `listener` called from now on in this backend; later calls do nothing.
pub fn listen(listener: &'static Listener) {
    if LISTENER.get().is_some() {
        return;
    }
    LISTENER.set(Some(listener));
    // SAFETY: the callbacks live as long as the process; the registration is for good. (pgrx's own registry forgets
    // its callbacks at PREPARE.)
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction_event), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction_event), std::ptr::null_mut());
    }
}

/// # Safety
/// Called by PostgreSQL, as registered.
#[pg_guard]
unsafe extern "C-unwind" fn transaction_event(
    event: pg_sys::XactEvent::Type,
    _argument: *mut std::ffi::c_void,
) {
    use pg_sys::XactEvent::{
        XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PRE_COMMIT, XACT_EVENT_PRE_PREPARE,
    };
    let Some(listener) = LISTENER.get() else { return };
    if !(listener.is_concerned)() {
        return;
    }
    match event {
        XACT_EVENT_PRE_COMMIT => (listener.before_commit)(),
        XACT_EVENT_COMMIT => (listener.committed)(),
        XACT_EVENT_ABORT => (listener.rolled_back)(),
        XACT_EVENT_PRE_PREPARE => IotError::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "cannot PREPARE a transaction that has stored or changed readings",
        )
        .hint("Use COMMIT: what waits for COMMIT PREPARED could not be counted into the statistics of its sensors.")
        .raise(),
        _ => (),
    }
}

/// # Safety
/// Called by PostgreSQL, as registered.
#[pg_guard]
unsafe extern "C-unwind" fn subtransaction_event(
    event: pg_sys::SubXactEvent::Type,
    _own: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _argument: *mut std::ffi::c_void,
) {
    use pg_sys::SubXactEvent::{SUBXACT_EVENT_ABORT_SUB, SUBXACT_EVENT_COMMIT_SUB};
    let Some(listener) = LISTENER.get() else { return };
    if !(listener.is_concerned)() {
        return;
    }
    match event {
        SUBXACT_EVENT_COMMIT_SUB => (listener.subtransaction_committed)(nesting_level()),
        SUBXACT_EVENT_ABORT_SUB => (listener.subtransaction_rolled_back)(nesting_level()),
        _ => (),
    }
}

/// 1 in a transaction, one more in each subtransaction.
pub fn nesting_level() -> i32 {
    // SAFETY: reads the state of the current transaction.
    unsafe { pg_sys::GetCurrentTransactionNestLevel() }
}

/// Whether the transaction goes on after this statement, or is one of somebody's subtransactions: then nobody may COMMIT.
pub fn is_in_block() -> bool {
    // SAFETY: reads the state of the current transaction.
    nesting_level() > 1 || unsafe { pg_sys::IsTransactionBlock() }
}

/// Whether a C procedure was called so that it may COMMIT: by CALL outside of a block, not from within a function.
/// `call` is what PostgreSQL passed to the procedure.
pub fn may_commit(call: pg_sys::FunctionCallInfo) -> bool {
    // SAFETY: the context of a call is null or a node, and a CallContext when its tag says so.
    unsafe {
        let context = (*call).context;
        !context.is_null()
            && (*context).type_ == pg_sys::NodeTag::T_CallContext
            && !(*context.cast::<pg_sys::CallContext>()).atomic
    }
}

/// COMMIT in a procedure that [`may_commit`]. The transaction that follows has no snapshot: with it gone, nobody waits
/// for us, and catalogues may be looked at, but before anything else is read call [`take_snapshot`].
pub fn commit_in_procedure() {
    // SAFETY: a connection of our own, allowed to commit as the caller checked; closed at once.
    unsafe {
        pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC as i32);
        pg_sys::SPI_commit();
        pg_sys::SPI_finish();
    }
}

/// Gives the procedure a snapshot again.
pub fn take_snapshot() {
    // SAFETY: the portal of CALL is the one that runs.
    unsafe { pg_sys::EnsurePortalSnapshotExists() };
}

/// Whether every statement of this transaction sees the same snapshot (REPEATABLE READ, SERIALIZABLE).
pub fn keeps_its_snapshot() -> bool {
    // SAFETY: a setting of the current transaction.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Whether this is a standby: its rows come from elsewhere, and nobody here is told.
pub fn is_in_recovery() -> bool {
    // SAFETY: reads the state of the server.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// Runs `work` in a subtransaction, and undoes what it did unless `keep` likes the result (or when it fails).
///
/// # Errors
/// That of `work`.
pub fn in_subtransaction<T>(
    work: impl FnOnce() -> IotResult<T>,
    keep: impl FnOnce(&T) -> bool,
) -> IotResult<T> {
    // SAFETY: reads two variables of the backend, restored below.
    let (memory, owner) = unsafe { (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner) };
    // SAFETY: the subtransaction is ended below on every way; results are made in the caller's memory.
    unsafe {
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(memory);
    }
    let mut work = Some(work);
    let outcome = PgTryBuilder::new(AssertUnwindSafe(|| Ok(work.take().map(|work| work()))))
        .catch_others(|error| Err(Box::new(error)))
        .execute();
    let is_kept = matches!(&outcome, Ok(Some(Ok(result))) if keep(result));
    // SAFETY: ends the subtransaction begun above, as PL/pgSQL does.
    unsafe {
        if is_kept {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(memory);
        pg_sys::CurrentResourceOwner = owner;
    }
    match outcome {
        Ok(Some(result)) => result,
        Ok(None) => Err(IotError::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "nothing was tried")),
        Err(error) => error.rethrow(),
    }
}

/// Runs `work` in a subtransaction; an ERROR rolls that back and comes back as a value.
///
/// # Errors
/// The ERROR, whoever raised it: `Err` of `work` is raised, too.
pub fn catch<T>(work: impl FnOnce() -> IotResult<T>) -> Result<T, Failure> {
    // SAFETY: reads two variables of the backend, restored below.
    let (memory, owner) = unsafe { (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner) };
    // SAFETY: the subtransaction is ended below on every way.
    unsafe {
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(memory);
    }
    let mut work = Some(work);
    let outcome = PgTryBuilder::new(AssertUnwindSafe(|| Ok(work.take().map(|work| work().or_raise()))))
        .catch_others(|error| Err(Failure::of(&error)))
        .execute();
    // SAFETY: ends the subtransaction begun above, as PL/pgSQL does.
    unsafe {
        if outcome.is_ok() {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(memory);
        pg_sys::CurrentResourceOwner = owner;
    }
    match outcome {
        Ok(Some(result)) => Ok(result),
        Ok(None) => Err(Failure::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "nothing was tried")),
        Err(failure) => Err(failure),
    }
}

/// What became of work that was tried.
pub enum Attempt<T> {
    /// Done, with this result.
    Done(T),
    /// Undone: it could not get a lock in time, or was the victim of a deadlock.
    Locked,
    /// Undone: it failed for another reason.
    Failed(String),
}

/// Runs `work` in a subtransaction, and undoes what it did when it fails. What ends more than one piece of work (a
/// cancelled statement, want of resources, defects) is raised all the same.
///
/// # Errors
/// As said.
pub fn attempt<T>(work: impl FnOnce() -> IotResult<T>) -> IotResult<Attempt<T>> {
    // SAFETY: reads two variables of the backend, restored below.
    let (memory, owner) = unsafe { (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner) };
    // SAFETY: the subtransaction is ended below on every way; results are made in the caller's memory.
    unsafe {
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(memory);
    }
    let mut work = Some(work);
    let outcome = PgTryBuilder::new(AssertUnwindSafe(|| Ok(work.take().map(|work| work()))))
        .catch_others(|error| Err(Box::new(error)))
        .execute();
    // SAFETY: ends the subtransaction begun above, as PL/pgSQL does.
    unsafe {
        if matches!(&outcome, Ok(Some(Ok(_)))) {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(memory);
        pg_sys::CurrentResourceOwner = owner;
    }
    match outcome {
        Ok(Some(Ok(result))) => Ok(Attempt::Done(result)),
        Ok(Some(Err(error))) if error.is_defect() => Err(error),
        Ok(Some(Err(error))) => Ok(Attempt::Failed(error.message().to_owned())),
        Ok(None) => Err(IotError::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "nothing was tried")),
        Err(error) => match &*error {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
                match report.sql_error_code() {
                    PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
                    | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED => Ok(Attempt::Locked),
                    code if ends_more(code) => error.rethrow(),
                    _ => Ok(Attempt::Failed(report.message().to_owned())),
                }
            }
            _ => error.rethrow(),
        },
    }
}

/// Whether an error of this code concerns more than the work that met it: classes 25, 40, 53, 57, 58 and XX.
fn ends_more(code: PgSqlErrorCode) -> bool {
    let code = IotError::new(code, "").sqlstate();
    ["25", "40", "53", "57", "58", "XX"].iter().any(|class| code.starts_with(class))
}

/// Runs `work` in a subtransaction. When it meets an error of one of `codes`, what it did is undone, and code and message come
/// back instead; every other error is raised.
///
/// # Errors
/// That of `work`.
pub fn unless<T>(
    codes: &[PgSqlErrorCode],
    work: impl FnOnce() -> IotResult<T>,
) -> IotResult<Result<T, (PgSqlErrorCode, String)>> {
    // SAFETY: reads two variables of the backend, restored below.
    let (memory, owner) = unsafe { (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner) };
    // SAFETY: the subtransaction is ended below on every way; results are made in the caller's memory.
    unsafe {
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(memory);
    }
    let mut work = Some(work);
    let outcome = PgTryBuilder::new(AssertUnwindSafe(|| Ok(work.take().map(|work| work()))))
        .catch_others(|error| Err(Box::new(error)))
        .execute();
    // SAFETY: ends the subtransaction begun above, as PL/pgSQL does.
    unsafe {
        if matches!(&outcome, Ok(Some(Ok(_)))) {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(memory);
        pg_sys::CurrentResourceOwner = owner;
    }
    match outcome {
        Ok(Some(Ok(result))) => Ok(Ok(result)),
        Ok(Some(Err(error))) if codes.contains(&error.code()) => {
            Ok(Err((error.code(), error.message().to_owned())))
        }
        Ok(Some(Err(error))) => Err(error),
        Ok(None) => Err(IotError::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "nothing was tried")),
        Err(error) => match &*error {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report)
                if codes.contains(&report.sql_error_code()) =>
            {
                Ok(Err((report.sql_error_code(), report.message().to_owned())))
            }
            _ => error.rethrow(),
        },
    }
}
