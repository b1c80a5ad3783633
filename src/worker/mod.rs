//! Background workers: what the database does by itself.
//!
//! ```text
//! launcher            one; belongs to no database; starts all others, of which it decides in iot_core::worker
//! ├─ flush            writes down what the ingest engine holds in memory
//! ├─ scheduler        looks at the jobs of a database: closes interrupted runs, tells for which owners jobs are due and
//! │                   when the next one is
//! └─ job worker       runs the due jobs of one owner in one database, connected as that owner
//! ```
//!
//! All but the launcher live for as long as there is something to do. What they tell each other is in
//! `pg::shared::schedule`. Everything that they do can be done by hand, too: `iot.flush_state()`, `iot.run_job()`.

mod flush;
mod job_worker;
mod launcher;
mod scheduler;

use std::time::Duration;

use iot_core::time::Timestamp;

use crate::error::IotResult;
use crate::job::{self, DueJob};
use crate::pg::background::{self, has_extension};
use crate::pg::clock;
use crate::pg::relation::in_schema_iot;
use crate::pg::statement::with_session;

pub use flush::flush;
pub use job_worker::run_jobs;
pub use launcher::launch;
pub use scheduler::schedule;

/// Seconds until the postmaster starts the launcher again.
const RESTART_AFTER: Duration = Duration::from_secs(5);

/// Registers the launcher. Called from `_PG_init` while preloading.
pub fn register() {
    background::register("iot_ext launcher", "iot_ext_launcher_main", RESTART_AFTER);
}

/// Whether the current database has jobs at all. Called in a transaction.
fn has_jobs() -> bool {
    has_extension(c"iot_ext") && in_schema_iot(c"job").is_some()
}

/// What is due here, and when the next job is.
struct Look {
    due: Vec<DueJob>,
    next_start: Option<Timestamp>,
}

/// Looks at the jobs of this database. `None`: it has none.
fn look() -> IotResult<Option<Look>> {
    if !has_jobs() {
        return Ok(None);
    }
    with_session(|session| {
        let due = job::due(session, clock::now())?;
        Ok(Some(Look { due, next_start: job::next_start(session)? }))
    })
}
