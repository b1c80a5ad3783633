//! The launcher: it belongs to no database, decides which workers are needed, and starts them.

use std::time::{Duration, Instant};

use iot_core::worker::{Limits, Start, decide};
use pgrx::PgSqlErrorCode;

use super::flush;
use crate::error::IotError;
use crate::guc;
use crate::pg::background::{self, DatabaseRow, Started};
use crate::pg::clock;
use crate::pg::shared::schedule::{self, Kind};
use crate::pg::shared::sensors;

/// Workers that write states down at the same time: that is not urgent, and slots are for everybody.
const MOST_FLUSHES: usize = 2;

/// Schedulers at the same time: a second one, because the first may have to wait for a lock.
const MOST_SCHEDULERS: usize = 2;

/// Until a worker is tried again for which there was no slot: nobody tells when one becomes free.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// A worker that was started.
struct Running {
    kind: Kind,
    database: u32,
    place: u32,
    worker: Started,
}

struct Launcher {
    databases: Vec<DatabaseRow>,
    to_flush: Vec<u32>,
    running: Vec<Running>,
    turn: usize,
    /// Since when something has waited for a slot.
    lacking_since: Option<Instant>,
    /// When that was last told.
    complained: Option<Instant>,
}

/// Runs the launcher until the process ends.
pub fn launch() {
    background::begin_without_database();
    schedule::become_launcher();
    let mut launcher = Launcher {
        databases: Vec::new(),
        to_flush: Vec::new(),
        running: Vec::new(),
        turn: 0,
        lacking_since: None,
        complained: None,
    };
    let mut last_flush = Instant::now();
    let mut last_look = Instant::now();
    let mut last_known = 0;
    loop {
        let flushes = guc::flush_interval().filter(|_| sensors::is_available());
        let is_flush_due = flushes.is_some_and(|interval| last_flush.elapsed() >= interval);
        let is_look_due = schedule::take_news() || last_look.elapsed() >= guc::scheduler_interval();
        if is_flush_due || is_look_due {
            launcher.databases = background::databases();
            last_look = Instant::now();
            let open = launcher.databases.iter().filter(|row| row.is_open);
            schedule::know(&open.map(|row| row.oid).collect::<Vec<_>>(), &mut last_known);
        }
        if is_flush_due {
            last_flush = Instant::now();
            launcher.to_flush = flush::changed_databases(&launcher.databases);
        }
        let until_next = launcher.start_workers();
        let until_flush = flushes.map(|interval| interval.saturating_sub(last_flush.elapsed()));
        let until_look = guc::scheduler_interval().saturating_sub(last_look.elapsed());
        background::nap([until_next, until_flush, Some(until_look)].into_iter().flatten().min());
    }
}

impl Launcher {
    /// Starts what is needed and possible; how long until that must be asked again.
    fn start_workers(&mut self) -> Option<Duration> {
        self.running.retain(|running| {
            let has_ended = running.worker.has_ended();
            if has_ended {
                // It frees its place itself, unless it never came to life.
                schedule::cancel(running.place);
            }
            !has_ended
        });
        let had_slots = self.start_flushes();
        let (until_next, lacks_slots) = self.start_job_system();
        if had_slots && !lacks_slots {
            self.lacking_since = None;
            return until_next;
        }
        self.complain();
        Some(until_next.map_or(TRY_AGAIN_AFTER, |until| until.min(TRY_AGAIN_AFTER)))
    }

    /// Whether there were slots enough.
    fn start_flushes(&mut self) -> bool {
        let mut had_slots = true;
        for database in std::mem::take(&mut self.to_flush) {
            let flushing = || self.running.iter().filter(|running| running.kind == Kind::Flush);
            let must_wait =
                flushing().count() >= MOST_FLUSHES || flushing().any(|running| running.database == database);
            if must_wait || !had_slots {
                self.to_flush.push(database);
                continue;
            }
            if !self.start(Kind::Flush, database, 0) {
                had_slots = false;
                self.to_flush.push(database);
            }
        }
        had_slots
    }

    /// How long until the next job is due, and whether something must wait for a slot.
    fn start_job_system(&mut self) -> (Option<Duration>, bool) {
        let is_open = |oid| self.databases.iter().any(|row| row.oid == oid && row.is_open);
        let (databases, workers) = schedule::situation(is_open);
        let now = clock::now();
        let mut limits = Limits {
            job_workers: guc::max_job_workers(),
            schedulers: MOST_SCHEDULERS,
            free_slots: usize::MAX,
        };
        self.turn = self.turn.wrapping_add(1);
        let mut decision = decide(&databases, &workers, limits, now, self.turn);
        // Slots are counted only when it matters.
        if !decision.starts.is_empty() {
            limits.free_slots = background::free_slots(&schedule::processes());
            decision = decide(&databases, &workers, limits, now, self.turn);
        }
        let mut lacks_slots = decision.lacks_slots;
        for start in decision.starts {
            let (kind, database, owner) = match start {
                Start::Scheduler { database } => (Kind::Scheduler, database, 0),
                Start::Jobs { database, owner } => (Kind::Jobs, database, owner),
            };
            lacks_slots |= !self.start(kind, database, owner);
        }
        let until_next = decision.wake_at.map(|at| {
            let micros = u64::try_from(at.0.saturating_sub(now.0)).unwrap_or(0);
            // Rounded up: the latch counts in milliseconds, and waking a little early would be for nothing.
            Duration::from_millis(micros.div_ceil(1000))
        });
        (until_next, lacks_slots)
    }

    /// Whether there was a slot. A worker that must not be started now counts as started: whoever keeps it away wakes us.
    fn start(&mut self, kind: Kind, database: u32, owner: u32) -> bool {
        let Some(place) = schedule::reserve(kind, database, owner) else { return true };
        let (what, function) = match kind {
            Kind::Flush => ("iot_ext flush", "iot_ext_flush_main"),
            Kind::Scheduler => ("iot_ext scheduler", "iot_ext_scheduler_main"),
            Kind::Jobs => ("iot_ext job worker", "iot_ext_job_main"),
        };
        let known = self.databases.iter().find(|row| row.oid == database);
        let name = format!("{what} {}", known.map_or("", |row| row.name.as_str()));
        match background::start(&name, what, function, place) {
            Some(worker) => {
                self.running.push(Running { kind, database, place, worker });
                true
            }
            None => {
                schedule::cancel(place);
                false
            }
        }
    }

    /// Tells the lack of slots, if it lasts, and not all the time.
    fn complain(&mut self) {
        if self.lacking_since.get_or_insert_with(Instant::now).elapsed() < TRY_AGAIN_AFTER {
            return;
        }
        if self.complained.is_some_and(|last| last.elapsed() < guc::scheduler_interval()) {
            return;
        }
        self.complained = Some(Instant::now());
        IotError::new(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            "iot_ext lacks free background workers and puts off what is due",
        )
        .detail(format!(
            "max_worker_processes is {}; one is left to others.",
            background::max_worker_processes()
        ))
        .hint("Raise max_worker_processes, and restart the server.")
        .warn();
    }
}
