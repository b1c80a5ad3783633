//! SQL text run in a background worker the way a session runs what its client sends: at top level, so that VACUUM,
//! `… CONCURRENTLY` and procedures that COMMIT work. SPI cannot do that: it is always part of a statement.

mod hand_over;
mod script;

use std::ffi::CString;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use pgrx::{PgList, PgSqlErrorCode, PgTryBuilder, pg_sys};

pub use hand_over::run_in_worker;
pub(super) use hand_over::serve;
pub use script::Part;

use super::failure::Failure;
use super::timer::StatementTimer;

/// Runs the parts one after the other in this background worker, which must be outside of a transaction. A statement that fails
/// is rolled back and ends its part. `timeout` is for all of them together.
///
/// # Errors
/// What failed, as one failure.
pub fn run_all(parts: &[Part], timeout: Option<Duration>) -> Result<(), Failure> {
    script::run_parts(parts, timeout, run)
}

/// Runs one SQL text. Several statements in it are one transaction, unless they say otherwise.
fn run(text: &str, timeout: Option<Duration>) -> Result<(), Failure> {
    let Ok(c_text) = CString::new(text) else {
        return Err(Failure::new(PgSqlErrorCode::ERRCODE_SYNTAX_ERROR, "statement contains a NUL character"));
    };
    // SAFETY: outside of a transaction. The text of what runs is shown to the DBA and the log; taken back below.
    let memory = unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::debug_query_string = c_text.as_ptr();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, c_text.as_ptr());
        // Parse trees and plans must survive the transactions that a statement ends itself.
        pg_sys::AllocSetContextCreateInternal(
            pg_sys::TopMemoryContext,
            c"iot_ext top-level statement".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        )
    };
    let timer = StatementTimer::start(timeout);
    let result = PgTryBuilder::new(AssertUnwindSafe(|| {
        // SAFETY: outside of a transaction, in a background worker; text and memory live until it is over.
        unsafe { run_as_sessions_do(&c_text, memory) }
    }))
    .catch_others(|error| Err(Failure { is_timeout: timer.has_expired(), ..Failure::of(&error) }))
    .execute();
    // SAFETY: what sessions do after an ERROR, and where nothing is open it does nothing. The error was copied and its
    // state flushed before it came here.
    unsafe {
        if result.is_err() {
            pg_sys::AbortOutOfAnyTransaction();
            pg_sys::PortalErrorCleanup();
            pg_sys::jit_reset_after_error();
        }
        pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        pg_sys::MemoryContextDelete(memory);
        pg_sys::debug_query_string = std::ptr::null();
    }
    drop(timer);
    // SAFETY: outside of a transaction.
    unsafe {
        pg_sys::pgstat_report_stat(true);
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
    }
    result
        .map_err(|failure| Failure { is_timeout: failure.is_timeout && failure.is_cancellation(), ..failure })
}

/// The steps of `exec_simple_query`, results thrown away.
///
/// # Safety
/// In a background worker that is connected to a database, outside of a transaction. `memory` outlives the call.
unsafe fn run_as_sessions_do(text: &CString, memory: pg_sys::MemoryContext) -> Result<(), Failure> {
    let mut transaction = OneOrMore { is_open: false };
    // SAFETY: each call is made in the state in which `exec_simple_query` makes it: parsing and planning in a transaction
    // and in memory that outlives it, analysis under a snapshot where the statement wants one, the portal dropped when it
    // has run. An ERROR leaves the cleaning up to the abort.
    unsafe {
        transaction.begin();
        pg_sys::MemoryContextSwitchTo(memory);
        let statements = pg_sys::pg_parse_query(text.as_ptr());
        let count = pg_sys::list_length(statements);
        let statements: Vec<*mut pg_sys::RawStmt> =
            PgList::<pg_sys::RawStmt>::from_pg(statements).iter_ptr().collect();
        for (number, statement) in (1..).zip(statements) {
            let tag = pg_sys::CreateCommandTag((*statement).stmt);
            let is_transaction_control = (*(*statement).stmt).type_ == pg_sys::NodeTag::T_TransactionStmt;
            transaction.begin();
            if pg_sys::IsAbortedTransactionBlockState() && !is_transaction_control {
                return Err(Failure::new(
                    PgSqlErrorCode::ERRCODE_IN_FAILED_SQL_TRANSACTION,
                    "current transaction is aborted, commands ignored until end of transaction block",
                ));
            }
            if count > 1 {
                pg_sys::BeginImplicitTransactionBlock();
            }
            pgrx::check_for_interrupts!();
            pg_sys::MemoryContextSwitchTo(memory);
            let needs_snapshot = pg_sys::analyze_requires_snapshot(statement);
            if needs_snapshot {
                pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            }
            let queries = pg_sys::pg_analyze_and_rewrite_fixedparams(
                statement,
                text.as_ptr(),
                std::ptr::null(),
                0,
                std::ptr::null_mut(),
            );
            let plans = pg_sys::pg_plan_queries(
                queries,
                text.as_ptr(),
                pg_sys::CURSOR_OPT_PARALLEL_OK as i32,
                std::ptr::null_mut(),
            );
            if needs_snapshot {
                pg_sys::PopActiveSnapshot();
            }
            pgrx::check_for_interrupts!();
            run_portal(text, tag, plans);
            if number == count {
                if count > 1 {
                    pg_sys::EndImplicitTransactionBlock();
                }
                transaction.commit();
            } else if is_transaction_control {
                transaction.commit();
            } else {
                pg_sys::CommandCounterIncrement();
            }
        }
        transaction.commit();
        if pg_sys::IsTransactionBlock() {
            return Err(Failure::new(
                PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
                "the SQL text left a transaction open, which was rolled back",
            )
            .hint("End what BEGIN starts with COMMIT, or leave both out."));
        }
    }
    Ok(())
}

/// # Safety
/// In a transaction; `plans` and `text` live until it returns.
unsafe fn run_portal(text: &CString, tag: pg_sys::CommandTag::Type, plans: *mut pg_sys::List) {
    // SAFETY: an unnamed portal, as for a client's simple query; the receiver that throws rows away is a constant.
    unsafe {
        let portal = pg_sys::CreatePortal(c"".as_ptr(), true, true);
        (*portal).visible = false;
        pg_sys::PortalDefineQuery(portal, std::ptr::null(), text.as_ptr(), tag, plans, std::ptr::null_mut());
        pg_sys::PortalStart(portal, std::ptr::null_mut(), 0, std::ptr::null_mut());
        let receiver = pg_sys::CreateDestReceiver(pg_sys::CommandDest::DestNone);
        let mut completion = pg_sys::QueryCompletion::default();
        pg_sys::PortalRun(
            portal,
            std::ffi::c_long::MAX,
            true,
            #[cfg(not(feature = "pg18"))]
            true,
            receiver,
            receiver,
            &mut completion,
        );
        pg_sys::PortalDrop(portal, false);
    }
}

/// `start_xact_command` and `finish_xact_command`: a transaction is begun when there is none, or a block goes on.
struct OneOrMore {
    is_open: bool,
}

impl OneOrMore {
    /// # Safety
    /// In a background worker that is connected to a database.
    unsafe fn begin(&mut self) {
        if !self.is_open {
            // SAFETY: no command of ours is open.
            unsafe { pg_sys::StartTransactionCommand() };
            self.is_open = true;
        }
    }

    /// # Safety
    /// As [`OneOrMore::begin`].
    unsafe fn commit(&mut self) {
        if self.is_open {
            // SAFETY: closes what `begin` opened.
            unsafe { pg_sys::CommitTransactionCommand() };
            self.is_open = false;
        }
    }
}
