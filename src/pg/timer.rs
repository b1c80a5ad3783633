//! PostgreSQL's statement timer. Sessions start it for each statement; background workers do it themselves.

use std::ffi::c_int;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

// SAFETY: the declarations are those of PostgreSQL's utils/timeout.h, which the bindings lack.
unsafe extern "C-unwind" {
    fn enable_timeout_after(timer: c_int, milliseconds: c_int);
    fn disable_timeout(timer: c_int, keep_indicator: bool);
}

/// `STATEMENT_TIMEOUT` of `TimeoutId`, in every version that we build for.
const STATEMENT_TIMEOUT: c_int = 3;

/// The running statement timer of a background worker: when its time is over, what runs is cancelled. Stops on drop.
pub struct StatementTimer(Option<(Instant, Duration)>);

impl StatementTimer {
    /// Starts it; `None` is no limit.
    pub fn start(limit: Option<Duration>) -> Self {
        if let Some(limit) = limit {
            let milliseconds = c_int::try_from(limit.as_millis()).unwrap_or(c_int::MAX).max(1);
            // SAFETY: InitPostgres has registered the timer in this process; its handler only sets flags.
            unsafe { enable_timeout_after(STATEMENT_TIMEOUT, milliseconds) };
        }
        Self(limit.map(|limit| (Instant::now(), limit)))
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
