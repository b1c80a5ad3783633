//! Background workers: starting them, their connection, their naps and their transactions.

use std::ffi::{CStr, CString, c_int};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, SignalWakeFlags};
use pgrx::{PgTryBuilder, pg_sys};

use super::failure::Failure;

const LIBRARY: &str = "iot_ext";

/// Longest name of a worker, in bytes: `BGW_MAXLEN` with its NUL.
const LONGEST_NAME: usize = 95;

/// Registers a worker that the postmaster starts with the server (after recovery, so never on a standby) and again some
/// seconds after it ended. Called from `_PG_init` while preloading.
pub fn register(name: &str, function: &str, restart_after: Duration) {
    BackgroundWorkerBuilder::new(name)
        .set_library(LIBRARY)
        .set_function(function)
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(restart_after))
        .load();
}

/// A worker that this one started.
pub struct Started(*mut pg_sys::BackgroundWorkerHandle);

/// Whether workers may act for roles that may not log in: only these versions have the flag.
pub const MAY_BYPASS_LOGIN: bool = cfg!(any(feature = "pg17", feature = "pg18"));

/// Starts a worker that runs once, and gets `argument`. `None` when no slot is free.
pub fn start(name: &str, kind: &str, function: &str, argument: u32) -> Option<Started> {
    let mut end = name.len().min(LONGEST_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let builder = BackgroundWorkerBuilder::new(&name[..end])
        .set_type(kind)
        .set_library(LIBRARY)
        .set_function(function)
        .enable_spi_access()
        .set_argument(Some(pg_sys::Datum::from(argument)))
        // SAFETY: set once when the process started.
        .set_notify_pid(unsafe { pg_sys::MyProcPid });
    let mut worker = pg_sys::BackgroundWorker::from(&builder);
    let mut handle = std::ptr::null_mut();
    // SAFETY: both pointers are valid during the call; the handle is allocated in the current context, which outlives
    // the launcher's loop, and freed on drop. (pgrx's own handle is never freed.)
    let is_started = unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle) };
    // Made only when there is one: dropping it frees the handle.
    is_started.then(|| Started(handle))
}

impl Started {
    /// For PostgreSQL's functions; valid as long as `self`.
    pub(super) fn handle(&self) -> *mut pg_sys::BackgroundWorkerHandle {
        self.0
    }

    /// Whether it is over.
    pub fn has_ended(&self) -> bool {
        let mut pid = 0;
        // SAFETY: a handle that `start` got; reads the postmaster's shared array.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.0, &mut pid) };
        status == pg_sys::BgwHandleStatus::BGWH_STOPPED
            || status == pg_sys::BgwHandleStatus::BGWH_POSTMASTER_DIED
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // SAFETY: allocated by `start`, freed once.
        unsafe { pg_sys::pfree(self.0.cast()) };
    }
}

/// Begins a worker that belongs to no database and so keeps none from being dropped. It sees `pg_database`.
pub fn begin_without_database() {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    BackgroundWorker::connect_worker_to_spi_by_oid(None, None);
    show_name();
}

// SAFETY: the declaration is that of PostgreSQL's tcop/tcopprot.h.
unsafe extern "C-unwind" {
    /// The handler of ordinary sessions: ends the running statement, then the session. Declared here because the one of
    /// the bindings is no longer a plain C function.
    fn die(signal: c_int);
}

/// Has this worker end as sessions do when it is told to: in the midst of a query if need be.
pub fn obey_signals() {
    // SAFETY: installs PostgreSQL's own handler before signals are let through. (The one for cancelling is there already.)
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(pg_sys::SIGTERM as c_int, Some(die));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(pg_sys::SIGTERM as c_int, Some(die));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Connects this worker to a database, as `role` or as the superuser that every cluster has. FATAL when the database or
/// the role is gone, or does not let it in.
pub fn connect(database: u32, role: Option<pg_sys::Oid>) {
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    let flags = pg_sys::BGWORKER_BYPASS_ROLELOGINCHECK;
    #[cfg(not(any(feature = "pg17", feature = "pg18")))]
    let flags = 0;
    // SAFETY: called once, in a background worker that was registered with a connection.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(
            pg_sys::Oid::from_u32(database),
            role.unwrap_or(pg_sys::InvalidOid),
            flags,
        );
    }
    show_name();
}

/// Begins a worker in a database, as superuser.
pub fn begin_in_database(database: u32) {
    obey_signals();
    connect(database, None);
}

/// Settings that must not be those of the role or the database while its jobs run. What a job sets itself goes on top.
pub fn pin_settings(timeout: Option<Duration>) {
    let milliseconds =
        timeout.map_or(0, |limit| i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1)).to_string();
    for (parameter, value) in [
        (c"search_path", "pg_catalog, pg_temp"),
        (c"default_transaction_isolation", "read committed"),
        (c"statement_timeout", milliseconds.as_str()),
        (c"idle_in_transaction_session_timeout", "0"),
    ] {
        if let Ok(value) = CString::new(value) {
            set(parameter, &value);
        }
    }
}

/// `application_name` for `pg_stat_activity`.
fn show_name() {
    if let Ok(name) = CString::new(BackgroundWorker::get_name()) {
        set(c"application_name", &name);
    }
}

/// Sets a parameter for the rest of this worker's life, whatever the database or its role say.
pub fn set(parameter: &CStr, value: &CStr) {
    // SAFETY: both strings are NUL-terminated and copied.
    unsafe {
        pg_sys::SetConfigOption(
            parameter.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// Waits until something happens (a worker started here ended, the configuration changed) or `timeout` is over. Ends the
/// process when it shall end; the postmaster starts it again where that was not the server's end.
pub fn nap(timeout: Option<Duration>) {
    // Interrupts are served on waking: without that, CREATE and DROP DATABASE would wait for us.
    if !BackgroundWorker::wait_latch(timeout) {
        // SAFETY: no lock is held; status 1 is what makes the postmaster start it again.
        unsafe { pg_sys::proc_exit(1) };
    }
    if BackgroundWorker::sighup_received() {
        // SAFETY: between transactions, as sessions do it between statements.
        unsafe {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// Slots for background workers that neither `ours` nor any other process uses. Those of workers of others that have ended and
/// are to be started again, or are only asked for, cannot be seen.
pub fn free_slots(ours: &[i32]) -> usize {
    let mut used = ours.len();
    // SAFETY: copies what pg_stat_activity shows, anew, into memory of its own; entries are numbered from 1.
    unsafe {
        pg_sys::pgstat_clear_backend_activity_snapshot();
        for number in 1..=pg_sys::pgstat_fetch_stat_numbackends() {
            #[cfg(feature = "pg15")]
            let entry = pg_sys::pgstat_fetch_stat_local_beentry(number);
            #[cfg(not(feature = "pg15"))]
            let entry = pg_sys::pgstat_get_local_beentry_by_index(number);
            if entry.is_null() {
                continue;
            }
            let status = &(*entry).backendStatus;
            if status.st_backendType == pg_sys::BackendType::B_BG_WORKER && !ours.contains(&status.st_procpid)
            {
                used += 1;
            }
        }
        usize::try_from(pg_sys::max_worker_processes).unwrap_or(0).saturating_sub(used)
    }
}

/// `max_worker_processes`.
pub fn max_worker_processes() -> i32 {
    // SAFETY: a setting that only changes with a restart.
    unsafe { pg_sys::max_worker_processes }
}

/// A row of `pg_database`.
pub struct DatabaseRow {
    /// `oid`.
    pub oid: u32,
    /// `datname`.
    pub name: String,
    /// Whether it takes connections.
    pub is_open: bool,
}

/// Every database of the server.
pub fn databases() -> Vec<DatabaseRow> {
    let mut found = Vec::new();
    // SAFETY: outside of a transaction; the scan is that of a shared catalogue, which needs no database. It uses no
    // index: those may not be loaded in a process without one. An ERROR ends the process and the transaction with it.
    unsafe {
        pg_sys::StartTransactionCommand();
        let table =
            pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let scan = pg_sys::systable_beginscan(
            table,
            pg_sys::InvalidOid,
            false,
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let header = (*tuple).t_data;
            let row: *const pg_sys::FormData_pg_database =
                header.cast::<u8>().add(usize::from((*header).t_hoff)).cast();
            found.push(DatabaseRow {
                oid: (*row).oid.to_u32(),
                name: CStr::from_ptr((*row).datname.data.as_ptr()).to_string_lossy().into_owned(),
                is_open: (*row).datallowconn && (*row).datconnlimit != pg_sys::DATCONNLIMIT_INVALID_DB,
            });
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(table, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        pg_sys::CommitTransactionCommand();
    }
    found
}

/// Waits in a session, until something happens or for `timeout`. Ends the statement when that is cancelled.
pub fn wait_for_news(timeout: Duration) {
    // SAFETY: the latch is this process's own.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as c_int,
            timeout.as_millis() as std::ffi::c_long,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}

/// The current database.
pub fn current_database() -> pg_sys::Oid {
    // SAFETY: set once when the process connects.
    unsafe { pg_sys::MyDatabaseId }
}

/// Name of a database, empty when it is gone. Called in a transaction.
pub fn name_of_database(database: pg_sys::Oid) -> String {
    // SAFETY: looks the database up in the catalogue cache; NULL when it is gone.
    unsafe {
        let name = pg_sys::get_database_name(database);
        if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}

/// Whether `CREATE EXTENSION` has brought `name` into the current database.
pub fn has_extension(name: &CStr) -> bool {
    // SAFETY: scans the catalogue; a missing one is reported by InvalidOid.
    unsafe { pg_sys::get_extension_oid(name.as_ptr(), true) != pg_sys::InvalidOid }
}

/// Leaves the session to the next job as if it had just begun: nothing of what the last one's SQL left behind.
pub const FORGET_SESSION: &str =
    "RESET SESSION AUTHORIZATION; RESET ALL; DEALLOCATE ALL; CLOSE ALL; UNLISTEN *;
    SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// Lets no cancellation in while `work` runs, and forgets the one that came. The end of the process still comes through.
pub fn uncancelled<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: variables of this process, outside of a transaction, where none is held off; an ERROR sets it to 0 itself.
    unsafe {
        pg_sys::QueryCancelPending = 0;
        pg_sys::QueryCancelHoldoffCount = 1;
    }
    let result = work();
    // SAFETY: as above.
    unsafe {
        pg_sys::QueryCancelHoldoffCount = 0;
        pg_sys::QueryCancelPending = 0;
    }
    result
}

/// Runs `work` in a transaction of its own; `activity` is what `pg_stat_activity` shows. An ERROR rolls it back and
/// comes back as a value.
///
/// # Errors
/// The ERROR, whoever raised it.
pub fn in_transaction<T>(activity: &CStr, work: impl FnOnce() -> T) -> Result<T, Failure> {
    let run = || {
        // SAFETY: outside of a transaction; what is opened here is closed below, or by the abort.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, activity.as_ptr());
        }
        let result = work();
        // SAFETY: closes what was opened above.
        unsafe {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
        }
        Ok(result)
    };
    let result = PgTryBuilder::new(AssertUnwindSafe(run))
        .catch_others(|error| {
            // SAFETY: the error was copied and its state flushed before it came here.
            unsafe { pg_sys::AbortCurrentTransaction() };
            Err(Failure::of(&error))
        })
        .execute();
    // SAFETY: outside of a transaction.
    unsafe {
        pg_sys::pgstat_report_stat(true);
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
    }
    result
}
