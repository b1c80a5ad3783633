//! Jobs: when they start, and how their runs end.

mod cron;
mod kind;
mod outcome;
mod schedule;
mod zone;

pub use cron::Cron;
pub use kind::{Kind, MEMORY, Target};
pub use outcome::{Failure, Outcome};
pub use schedule::{Every, Recurrence, Retries, Schedule, ScheduleError};
pub use zone::{Utc, Zone};

use crate::time::Timestamp;
use schedule::DEFERRED_FOR;

/// When a job is due after a run that ended at `finished` with `outcome`, the last of `failures` in a row (itself among
/// them): as planned, or earlier for another attempt.
pub fn next_start(
    schedule: &Schedule,
    zone: &impl Zone,
    retries: Retries,
    outcome: &Outcome,
    failures: u32,
    finished: Timestamp,
) -> Option<Timestamp> {
    let delay = match outcome {
        Outcome::Succeeded => None,
        Outcome::Deferred(_) => Some(DEFERRED_FOR),
        // Whoever ended it wants it to end; but it has not been done.
        Outcome::Cancelled(_) => Some(retries.delay),
        Outcome::Failed(_) | Outcome::TimedOut(_) | Outcome::Interrupted => retries.delay_after(failures),
    };
    let planned = schedule.next(zone, finished);
    let again = delay.and_then(|delay| finished.checked_add(delay.max(1)));
    planned.into_iter().chain(again).min()
}
