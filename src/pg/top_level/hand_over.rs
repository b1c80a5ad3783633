//! Top-level statements for a session that is inside a statement itself: it hands them to a background worker of its own
//! and waits. Text and outcome travel in a dynamic shared memory segment, so nothing must have been preloaded.

use std::ffi::{CStr, c_int};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_guard, pg_sys};

use super::Part;
use crate::pg::background::{self, Started};
use crate::pg::failure::Failure;
use crate::pg::security;

/// Room for each text of a failure.
const LONGEST_TEXT: usize = 4096;

/// What the worker has come to.
const NOT_DONE: u32 = 0;
const SUCCEEDED: u32 = 1;
const FAILED: u32 = 2;

/// A text in the segment.
#[repr(C)]
struct Text {
    length: u32,
    bytes: [u8; LONGEST_TEXT],
}

/// Begin of the segment; the parts follow: what each is about, the number (`u32`) of its statements, and those. A text is its
/// length (`u32`) and its bytes.
#[repr(C)]
struct Header {
    database: u32,
    role: u32,
    /// 0 for no limit.
    timeout_milliseconds: u64,
    parts: u32,
    outcome: AtomicU32,
    code: i32,
    is_timeout: u32,
    message: Text,
    detail: Text,
    hint: Text,
}

/// Runs `parts` at top level, as `role`, in a background worker, and waits for its end. Works without preload.
///
/// Call it in a procedure right after a commit: a snapshot or a lock that the caller holds would make the worker wait for
/// the caller. Cancelling the caller ends the worker.
///
/// # Errors
/// What failed, or what kept the worker from running it.
pub fn run_in_worker(
    database: pg_sys::Oid,
    role: pg_sys::Oid,
    parts: &[Part],
    timeout: Option<Duration>,
) -> Result<(), Failure> {
    if !background::MAY_BYPASS_LOGIN && !security::may_log_in(role) {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
            format!("role \"{}\" is not permitted to log in", security::role_name(role)),
        )
        .hint("Before PostgreSQL 17 background workers cannot act for it: ALTER ROLE … LOGIN, or choose another owner."));
    }
    // SAFETY: looks at the current transaction.
    if unsafe {
        pg_sys::InvalidateCatalogSnapshot();
        pg_sys::HaveRegisteredOrActiveSnapshot()
    } {
        return Err(Failure::new(
            PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            "a background worker cannot be waited for inside a query: the statement may have to wait for its end",
        )
        .hint("Use CALL outside of a transaction block."));
    }
    let segment = Segment::create(database, role, parts, timeout)?;
    let name = format!("iot_ext statement worker {}", background::name_of_database(database));
    let started =
        background::start(&name, "iot_ext statement worker", "iot_ext_statement_main", segment.handle())
            .ok_or_else(|| {
                Failure::new(
                    PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                    "no background worker is free to run the statement",
                )
                .hint("Try again later, or raise max_worker_processes.")
            })?;
    // SAFETY: looking up the names above took a snapshot of the catalogues. So that it does not wait for us.
    unsafe { pg_sys::InvalidateCatalogSnapshot() };
    wait_for(&started);
    segment.outcome()
}

/// Waits until the worker has ended. Should this session be cancelled or end meanwhile, the worker is ended.
fn wait_for(started: &Started) {
    let handle = started.handle();
    // SAFETY: the callback is taken back before the handle is freed, on every way out; a session that ends runs it first.
    unsafe { pg_sys::before_shmem_exit(Some(end_worker), pg_sys::Datum::from(handle)) };
    PgTryBuilder::new(AssertUnwindSafe(|| {
        while !started.has_ended() {
            background::wait_for_news(Duration::from_secs(5));
        }
    }))
    .catch_others(|error| {
        // SAFETY: a handle that is still ours; whoever cancels a second time waits no longer.
        unsafe {
            pg_sys::TerminateBackgroundWorker(handle);
            pg_sys::WaitForBackgroundWorkerShutdown(handle);
        }
        error.rethrow()
    })
    .finally(|| {
        // SAFETY: registered above, and nothing registers callbacks while we wait.
        unsafe { pg_sys::cancel_before_shmem_exit(Some(end_worker), pg_sys::Datum::from(handle)) };
    })
    .execute();
}

/// # Safety
/// Called by PostgreSQL, as registered.
#[pg_guard]
unsafe extern "C-unwind" fn end_worker(_code: c_int, handle: pg_sys::Datum) {
    // SAFETY: the handle of a worker that is being waited for; asks the postmaster to end it.
    unsafe { pg_sys::TerminateBackgroundWorker(handle.cast_mut_ptr()) };
}

/// The segment; unmapped on drop, or by the transaction's abort.
struct Segment(*mut pg_sys::dsm_segment);

impl Segment {
    fn create(
        database: pg_sys::Oid,
        role: pg_sys::Oid,
        parts: &[Part],
        timeout: Option<Duration>,
    ) -> Result<Self, Failure> {
        const NUMBER: usize = size_of::<u32>();
        let room_of = |part: &Part| {
            let texts = part.statements.iter().map(|text| NUMBER + text.len()).sum::<usize>();
            2 * NUMBER + part.about.len() + texts
        };
        let room: usize = parts.iter().map(room_of).sum();
        // SAFETY: the segment is mapped until dropped, aligned to a page, and as large as what is written here: the header
        // (of which zero bytes are a valid one), and the statements behind it.
        unsafe {
            let segment = pg_sys::dsm_create(
                size_of::<Header>() + room,
                pg_sys::DSM_CREATE_NULL_IF_MAXSEGMENTS as c_int,
            );
            if segment.is_null() {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                    "too many dynamic shared memory segments",
                )
                .hint("Try again later, or raise max_connections."));
            }
            let start: *mut u8 = pg_sys::dsm_segment_address(segment).cast();
            std::ptr::write_bytes(start, 0, size_of::<Header>());
            let header: *mut Header = start.cast();
            (*header).database = database.to_u32();
            (*header).role = role.to_u32();
            (*header).timeout_milliseconds =
                timeout.map_or(0, |limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1));
            (*header).parts = parts.len() as u32;
            let mut place = start.add(size_of::<Header>());
            let mut write = |number: usize, bytes: &[u8]| {
                place.cast::<u32>().write_unaligned(number as u32);
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), place.add(NUMBER), bytes.len());
                place = place.add(NUMBER + bytes.len());
            };
            for part in parts {
                write(part.about.len(), part.about.as_bytes());
                write(part.statements.len(), &[]);
                for text in &part.statements {
                    write(text.len(), text.as_bytes());
                }
            }
            Ok(Self(segment))
        }
    }

    /// The number by which the worker finds it.
    fn handle(&self) -> u32 {
        // SAFETY: a mapped segment.
        unsafe { pg_sys::dsm_segment_handle(self.0) }
    }

    /// What the worker, which has ended, left.
    fn outcome(&self) -> Result<(), Failure> {
        // SAFETY: mapped, made by `create`; the worker that wrote to it is gone.
        let header = unsafe { &*pg_sys::dsm_segment_address(self.0).cast::<Header>() };
        match header.outcome.load(Ordering::Acquire) {
            SUCCEEDED => Ok(()),
            FAILED => Err(Failure {
                code: PgSqlErrorCode::from(header.code),
                message: header.message.read().unwrap_or_default(),
                detail: header.detail.read(),
                hint: header.hint.read(),
                is_timeout: header.is_timeout != 0,
            }),
            _ => Err(Failure::new(
                PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN,
                "the background worker ended before the statement did",
            )
            .hint("The server's log says why.")),
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // While an ERROR unwinds, the transaction's abort unmaps it itself.
        if !std::thread::panicking() {
            // SAFETY: mapped by `create`, unmapped once.
            unsafe { pg_sys::dsm_detach(self.0) };
        }
    }
}

impl Text {
    /// As much of `text` as there is room for. Empty counts as absent.
    fn write(&mut self, text: &str) {
        let mut end = text.len().min(LONGEST_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        self.length = end as u32;
    }

    fn read(&self) -> Option<String> {
        let bytes = self.bytes.get(..self.length as usize).filter(|bytes| !bytes.is_empty())?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

/// Where the worker writes its failure when it ends in the midst of things.
static mut OUTCOME: *mut Header = std::ptr::null_mut();
static mut PREVIOUS_LOG_HOOK: pg_sys::emit_log_hook_type = None;

/// The worker that [`run_in_worker`] started: `handle` is its segment's.
pub fn serve(handle: u32) {
    background::obey_signals();
    // SAFETY: without a resource owner the segment stays mapped as long as the process. NULL when whoever waited is gone.
    let segment = unsafe { pg_sys::dsm_attach(handle) };
    if segment.is_null() {
        return;
    }
    // SAFETY: the segment was filled by `create` before this process was asked for; statements are as long as they say.
    let (header, parts) = unsafe {
        let start: *mut u8 = pg_sys::dsm_segment_address(segment).cast();
        let header: *mut Header = start.cast();
        let mut place = start.add(size_of::<Header>());
        let mut parts = Vec::new();
        for _ in 0..(*header).parts {
            let about = read_text(&mut place);
            let count = read_number(&mut place);
            parts.push(Part { about, statements: (0..count).map(|_| read_text(&mut place)).collect() });
        }
        OUTCOME = header;
        PREVIOUS_LOG_HOOK = pg_sys::emit_log_hook;
        pg_sys::emit_log_hook = Some(keep_fatal);
        (header, parts)
    };
    // SAFETY: mapped for the rest of the process; the fields read here are not written any more.
    let (database, role, limit) =
        unsafe { ((*header).database, (*header).role, (*header).timeout_milliseconds) };
    let timeout = (limit > 0).then(|| Duration::from_millis(limit));
    background::connect(database, Some(pg_sys::Oid::from_u32(role)));
    background::pin_settings(timeout);
    let result = super::run_all(&parts, timeout);
    // SAFETY: only this process writes, and the one that reads waits for its end.
    unsafe {
        match &result {
            Ok(()) => (*header).outcome.store(SUCCEEDED, Ordering::Release),
            Err(failure) => write_failure(header, failure),
        }
    }
}

/// # Safety
/// `place` is where `create` wrote a number.
unsafe fn read_number(place: &mut *mut u8) -> usize {
    // SAFETY: promised by the caller.
    unsafe {
        let number = place.cast::<u32>().read_unaligned() as usize;
        *place = place.add(size_of::<u32>());
        number
    }
}

/// # Safety
/// `place` is where `create` wrote a text.
unsafe fn read_text(place: &mut *mut u8) -> String {
    // SAFETY: promised by the caller.
    unsafe {
        let length = read_number(place);
        let text = String::from_utf8_lossy(std::slice::from_raw_parts(*place, length)).into_owned();
        *place = place.add(length);
        text
    }
}

/// # Safety
/// `header` is mapped and this process alone writes to it.
unsafe fn write_failure(header: *mut Header, failure: &Failure) {
    // SAFETY: promised by the caller.
    unsafe {
        (*header).code = failure.code as i32;
        (*header).is_timeout = u32::from(failure.is_timeout);
        (*header).message.write(&failure.message);
        (*header).detail.write(failure.detail.as_deref().unwrap_or_default());
        (*header).hint.write(failure.hint.as_deref().unwrap_or_default());
        (*header).outcome.store(FAILED, Ordering::Release);
    }
}

/// A FATAL never comes back to us; the log is the last place where it can be seen.
///
/// # Safety
/// Called by PostgreSQL, as registered.
#[pg_guard]
unsafe extern "C-unwind" fn keep_fatal(report: *mut pg_sys::ErrorData) {
    // SAFETY: the report is valid during the call, its texts are NULL or NUL-terminated; the segment stays mapped. Not
    // more than once: what failed first is the reason.
    unsafe {
        let header = OUTCOME;
        if (*report).elevel >= pg_sys::FATAL as c_int && (*header).outcome.load(Ordering::Relaxed) == NOT_DONE
        {
            let text = |text: *const std::ffi::c_char| {
                (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
            };
            let failure = Failure {
                code: PgSqlErrorCode::from((*report).sqlerrcode),
                message: text((*report).message).unwrap_or_default(),
                detail: text((*report).detail),
                hint: text((*report).hint),
                is_timeout: false,
            };
            write_failure(header, &failure);
        }
        if let Some(previous) = PREVIOUS_LOG_HOOK {
            previous(report);
        }
    }
}
