//! PostgreSQL's statement timer. Sessions start it for each statement; background workers do it themselves.

use std::ffi::c_int;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

// SAFETY: the declarations are those of PostgreSQL's utils/timeout.h, which the bindings lack.
unsafe extern "C-unwind" {
    fn enable_timeout_after(timer: c_int, milliseconds: c_int);
    fn disable_timeout(timer: c_int, keep_indicator: bool);
    fn enable_timeout_at(timer: c_int, at: pg_sys::TimestampTz);
    fn get_timeout_active(timer: c_int) -> bool;
    fn get_timeout_finish_time(timer: c_int) -> pg_sys::TimestampTz;
}

/// `STATEMENT_TIMEOUT` of `TimeoutId`, in every version that we build for.
const STATEMENT_TIMEOUT: c_int = 3;

/// The running statement timer of a background worker: when its time is over, what runs is cancelled. Stops on drop.
pub struct StatementTimer(Option<(Instant, Duration)>);

impl StatementTimer {
    /// Starts it; `None` is no limit.
    pub fn start(limit: Option<Duration>) -> Self {
        let begin = Instant::now();
        Self(limit.map(|limit| {
            let milliseconds = c_int::try_from(limit.as_millis()).unwrap_or(c_int::MAX).max(1);
            // SAFETY: InitPostgres has registered the timer in this process; its handler only sets flags.
            unsafe { enable_timeout_after(STATEMENT_TIMEOUT, milliseconds) };
            // As short as the timer has it, or the time would not seem to be over when it is.
            (begin, Duration::from_millis(milliseconds.unsigned_abs().into()))
        }))
    }

    /// Whether its time is over.
    pub fn has_expired(&self) -> bool {
        self.0.is_some_and(|(start, limit)| start.elapsed() >= limit)
    }
}

impl Drop for StatementTimer {
    fn drop(&mut self) {
        if self.0.is_some() {
            // SAFETY: as above. A cancellation that came too late must not hit what runs next.
            unsafe {
                disable_timeout(STATEMENT_TIMEOUT, false);
                pg_sys::QueryCancelPending = 0;
            }
        }
    }
}

/// The statement timer of a session, set to end a part of the statement earlier than the whole. What it was set to before
/// comes back on drop.
pub struct PartTimer {
    /// When the statement as a whole is over.
    whole: Option<pg_sys::TimestampTz>,
    limit: Option<(Instant, Duration)>,
}

impl PartTimer {
    /// Starts it; `None` is no limit.
    pub fn start(limit: Option<Duration>) -> Self {
        let begin = Instant::now();
        // SAFETY: every session has the timer; reads its state.
        let whole = unsafe { get_timeout_active(STATEMENT_TIMEOUT) }
            .then(|| unsafe { get_timeout_finish_time(STATEMENT_TIMEOUT) });
        if let Some(limit) = limit {
            let micros = i64::try_from(limit.as_micros()).unwrap_or(i64::MAX).max(1000);
            // SAFETY: as above; reads the clock.
            let end = unsafe { pg_sys::GetCurrentTimestamp() }.saturating_add(micros);
            if whole.is_none_or(|whole| end < whole) {
                // SAFETY: as above; a timer that is set already is set anew.
                unsafe { enable_timeout_at(STATEMENT_TIMEOUT, end) };
            }
        }
        Self { whole, limit: limit.map(|limit| (begin, limit)) }
    }

    /// Whether its time is over.
    pub fn has_expired(&self) -> bool {
        self.limit.is_some_and(|(start, limit)| start.elapsed() >= limit)
    }
}

impl Drop for PartTimer {
    fn drop(&mut self) {
        match (self.limit, self.whole) {
            (None, _) => (),
            // SAFETY: as above; a time in the past cancels at once, as it should.
            (Some(_), Some(whole)) => unsafe { enable_timeout_at(STATEMENT_TIMEOUT, whole) },
            // SAFETY: as above.
            (Some(_), None) => unsafe { disable_timeout(STATEMENT_TIMEOUT, false) },
        }
    }
}
