//! Keeps our workers out of the way of statements that want a database to themselves: DROP DATABASE, ALTER DATABASE …
//! RENAME and SET TABLESPACE, CREATE DATABASE (of its template). PostgreSQL itself waits 5 seconds for others to leave,
//! and never ends background workers.
//!
//! And it has [`copy_out`] look at COPY.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};
use std::time::{Duration, Instant};

use pgrx::{PgList, pg_guard, pg_sys};

use super::background;
use super::copy_out;
use super::security;
use super::shared::schedule;

/// After this time workers are not asked any more to cancel what they do, but to end.
const PATIENCE: Duration = Duration::from_secs(3);

/// After this time PostgreSQL may say itself who is in the way.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Between two looks at whether they are gone.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Between two signals: one that comes in an unfortunate moment is overlooked.
const BETWEEN_SIGNALS: Duration = Duration::from_millis(500);

static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;

thread_local! {
    static LISTENS: Cell<bool> = const { Cell::new(false) };
    static HOLDS: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: the declaration is that of PostgreSQL's tcop/utility.h. The one of the bindings catches errors and raises them
// anew with less in them, and this one is in the way of every statement of everybody.
unsafe extern "C-unwind" {
    fn standard_ProcessUtility(
        plan: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        is_read_only: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        receiver: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// Installs the hook. Called from `_PG_init` while preloading.
pub fn install() {
    // SAFETY: the postmaster is single-threaded; an earlier hook is kept and called.
    unsafe {
        PREVIOUS = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

/// Has no guard and nothing to drop: errors of the statement pass through it as they are.
///
/// # Safety
/// Called by PostgreSQL, as installed.
unsafe extern "C-unwind" fn process_utility(
    plan: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    is_read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    use pg_sys::NodeTag::{T_AlterDatabaseStmt, T_CopyStmt, T_CreatedbStmt, T_DropdbStmt, T_RenameStmt};
    // SAFETY: what PostgreSQL passed is passed on; a utility statement has its node.
    unsafe {
        let tag = (*(*plan).utilityStmt).type_;
        if matches!(tag, T_DropdbStmt | T_CreatedbStmt | T_AlterDatabaseStmt | T_RenameStmt) {
            make_way((*plan).utilityStmt);
        } else if tag == T_CopyStmt {
            copy_out::refuse((*plan).utilityStmt.cast());
        }
        let next = match PREVIOUS {
            Some(previous) => previous,
            None => standard_ProcessUtility,
        };
        next(plan, text, is_read_only, context, parameters, environment, receiver, completion);
    }
}

/// Ends our workers in the database that `statement` is about, and keeps them out until the transaction ends, one way or
/// the other.
///
/// # Safety
/// `statement` is a utility statement about to be executed.
#[pg_guard]
unsafe extern "C-unwind" fn make_way(statement: *mut pg_sys::Node) {
    // SAFETY: promised by the caller.
    let Some(database) = (unsafe { wanted_empty(statement) }) else { return };
    if !LISTENS.replace(true) {
        // SAFETY: the callback lives as long as the process; the registration is for good.
        unsafe { pg_sys::RegisterXactCallback(Some(transaction_ended), std::ptr::null_mut()) };
    }
    if !schedule::hold(database.to_u32()) {
        return;
    }
    HOLDS.set(true);
    let begin = Instant::now();
    let mut last_signal: Option<Instant> = None;
    while begin.elapsed() < LONGEST_WAIT {
        let signal = if begin.elapsed() < PATIENCE { pg_sys::SIGINT } else { pg_sys::SIGTERM };
        let is_time = last_signal.is_none_or(|last| last.elapsed() >= BETWEEN_SIGNALS);
        if schedule::workers_in(database.to_u32(), is_time.then_some(signal as c_int)) == 0 {
            break;
        }
        if is_time {
            last_signal = Some(Instant::now());
        }
        background::wait_for_news(BETWEEN_LOOKS);
    }
}

/// # Safety
/// Called by PostgreSQL, as registered.
#[pg_guard]
unsafe extern "C-unwind" fn transaction_ended(
    event: pg_sys::XactEvent::Type,
    _argument: *mut std::ffi::c_void,
) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    if matches!(event, XACT_EVENT_ABORT | XACT_EVENT_COMMIT | XACT_EVENT_PREPARE) && HOLDS.replace(false) {
        schedule::release();
    }
}

/// The database that nobody else may be in while `statement` is executed, if the caller may execute it: others must not be
/// able to stop our workers.
///
/// # Safety
/// `statement` is one of those four nodes.
unsafe fn wanted_empty(statement: *mut pg_sys::Node) -> Option<pg_sys::Oid> {
    // SAFETY: the tag tells the type of a node; names in it are NULL or NUL-terminated, options are a list of DefElem.
    unsafe {
        let is_in_block = super::transaction::is_in_block();
        let owned = |name| named(name).filter(|&database| security::owns_database(database));
        match (*statement).type_ {
            pg_sys::NodeTag::T_DropdbStmt if !is_in_block => {
                owned((*statement.cast::<pg_sys::DropdbStmt>()).dbname)
            }
            pg_sys::NodeTag::T_AlterDatabaseStmt if !is_in_block => {
                let statement = statement.cast::<pg_sys::AlterDatabaseStmt>();
                option((*statement).options, c"tablespace")?;
                owned((*statement).dbname)
            }
            pg_sys::NodeTag::T_RenameStmt => {
                let statement = statement.cast::<pg_sys::RenameStmt>();
                if (*statement).renameType != pg_sys::ObjectType::OBJECT_DATABASE {
                    return None;
                }
                owned((*statement).subname)
            }
            pg_sys::NodeTag::T_CreatedbStmt if !is_in_block && security::may_create_databases() => {
                let option = option((*statement.cast::<pg_sys::CreatedbStmt>()).options, c"template");
                let template =
                    option.map_or(c"template1".as_ptr(), |option| pg_sys::defGetString(option).cast_const());
                named(template).filter(|&database| security::may_copy_database(database))
            }
            _ => None,
        }
    }
}

/// # Safety
/// `name` is NULL or NUL-terminated.
unsafe fn named(name: *const c_char) -> Option<pg_sys::Oid> {
    if name.is_null() {
        return None;
    }
    // SAFETY: promised by the caller; a database that is missing is reported by InvalidOid.
    let database = unsafe { pg_sys::get_database_oid(name, true) };
    (database != pg_sys::InvalidOid).then_some(database)
}

/// # Safety
/// `options` is a list of `DefElem`.
unsafe fn option(options: *mut pg_sys::List, name: &CStr) -> Option<*mut pg_sys::DefElem> {
    // SAFETY: promised by the caller; names are NUL-terminated. DEFAULT is no value.
    unsafe {
        PgList::<pg_sys::DefElem>::from_pg(options)
            .iter_ptr()
            .find(|&option| CStr::from_ptr((*option).defname) == name && !(*option).arg.is_null())
    }
}
