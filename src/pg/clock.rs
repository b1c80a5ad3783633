//! The server's clock and time zones.

use std::cell::Cell;
use std::ffi::CString;
use std::ptr::NonNull;

use iot_core::job;
use iot_core::time::{MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND, TimeOfDay, Timestamp};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{PgSqlErrorCode, pg_sys};

use crate::error::IotError;

/// The wall clock, as `clock_timestamp()`.
pub fn now() -> Timestamp {
    // SAFETY: reads the clock only.
    Timestamp(unsafe { pg_sys::GetCurrentTimestamp() })
}

/// Start of the current transaction, as `now()`.
pub fn transaction_start() -> Timestamp {
    // SAFETY: called inside a transaction, as every SQL function is.
    Timestamp(unsafe { pg_sys::GetCurrentTransactionStartTimestamp() })
}

/// From PostgreSQL's `timestamptz`.
pub fn from_pg(timestamp: TimestampWithTimeZone) -> Timestamp {
    Timestamp(timestamp.into_inner())
}

/// To PostgreSQL's `timestamptz`; what lies outside its range becomes the infinity on that side.
pub fn to_pg(timestamp: Timestamp) -> TimestampWithTimeZone {
    let within = match timestamp {
        below if below < Timestamp::EARLIEST => Timestamp::NEGATIVE_INFINITY,
        above if above >= Timestamp::RANGE_END => Timestamp::INFINITY,
        finite => finite,
    };
    match TimestampWithTimeZone::try_from(within.0) {
        Ok(converted) => converted,
        Err(error) => {
            IotError::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("timestamp {}: {error}", within.0))
                .raise()
        }
    }
}

/// Seconds from 1970, where Unix counts from, to 2000.
const SECONDS_FROM_UNIX_EPOCH: i64 = 10_957 * 86_400;

/// A time zone known to the server. PostgreSQL caches zones for the life of the process and never frees one.
#[derive(Clone, Copy)]
pub struct Zone(NonNull<pg_sys::pg_tz>);

impl Zone {
    /// The zone called `name` (IANA name, or a POSIX rule), if the server knows it.
    pub fn named(name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: `name` is NUL-terminated; the result is null or lives as long as the process. Zones that count leap
        // seconds are refused, as SET timezone does.
        NonNull::new(unsafe { pg_sys::pg_tzset(name.as_ptr()) })
            .filter(|zone| unsafe { pg_sys::pg_tz_acceptable(zone.as_ptr()) })
            .map(Self)
    }

    /// The session's zone (parameter `TimeZone`).
    pub fn of_session() -> Option<Self> {
        // SAFETY: set at backend start, and read by the only thread that changes it.
        NonNull::new(unsafe { pg_sys::session_timezone }).map(Self)
    }

    /// The time shown by a clock in this zone at the moment `at`; midnight when `at` is infinite.
    pub fn time_of_day(self, at: Timestamp) -> TimeOfDay {
        thread_local! {
            /// The last answer: a statement asks for the time of its transaction again and again.
            static LAST: Cell<Option<(Zone, Timestamp, TimeOfDay)>> = const { Cell::new(None) };
        }
        match LAST.get() {
            Some((zone, moment, time)) if zone.0 == self.0 && moment == at => time,
            _ => {
                let time = self.broken_down(at);
                LAST.set(Some((self, at, time)));
                time
            }
        }
    }

    fn broken_down(self, at: Timestamp) -> TimeOfDay {
        let Some((broken_down, fraction, _)) = self.civil(at) else { return TimeOfDay(0) };
        TimeOfDay(
            i64::from(broken_down.tm_hour) * MICROS_PER_HOUR
                + i64::from(broken_down.tm_min) * MICROS_PER_MINUTE
                + i64::from(broken_down.tm_sec) * MICROS_PER_SECOND
                + i64::from(fraction),
        )
    }

    /// What clocks in this zone show at `at`, the fraction of the second, and the seconds that they are behind UTC.
    fn civil(self, at: Timestamp) -> Option<(pg_sys::pg_tm, pg_sys::fsec_t, i32)> {
        let mut offset = 0_i32;
        let mut fraction: pg_sys::fsec_t = 0;
        let mut broken_down = pg_sys::pg_tm::default();
        // SAFETY: all pointers are valid for the call, which does not keep them; it reports failure by its result.
        let failed = unsafe {
            pg_sys::timestamp2tm(
                at.0,
                &mut offset,
                &mut broken_down,
                &mut fraction,
                std::ptr::null_mut(),
                self.0.as_ptr(),
            )
        };
        (failed == 0).then_some((broken_down, fraction, offset))
    }
}

impl job::Zone for Zone {
    fn offset_at(&self, at: Timestamp) -> i64 {
        self.civil(at).map_or(0, |(_, _, behind)| -i64::from(behind) * MICROS_PER_SECOND)
    }

    fn next_change(&self, at: Timestamp) -> Option<Timestamp> {
        let seconds: pg_sys::pg_time_t =
            at.0.div_euclid(MICROS_PER_SECOND).checked_add(SECONDS_FROM_UNIX_EPOCH)?;
        let (mut offset_before, mut offset_after) = (0, 0);
        let (mut summer_before, mut summer_after) = (0, 0);
        let mut boundary: pg_sys::pg_time_t = 0;
        // SAFETY: all pointers are valid for the call, which does not keep them; it reports by its result whether there is one.
        let found = unsafe {
            pg_sys::pg_next_dst_boundary(
                &seconds,
                &mut offset_before,
                &mut summer_before,
                &mut boundary,
                &mut offset_after,
                &mut summer_after,
                self.0.as_ptr(),
            )
        };
        let micros = (boundary - SECONDS_FROM_UNIX_EPOCH).checked_mul(MICROS_PER_SECOND)?;
        (found == 1).then_some(Timestamp(micros))
    }
}
