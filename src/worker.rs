//! The background worker that writes down what the engine holds in memory.
//!
//! A launcher without a database looks now and then which databases have changed entries in shared memory, and starts one
//! short-lived worker for each of them. What it does can be done by hand: `iot.flush_state()`.

use std::time::{Duration, Instant};

use crate::error::OrRaise;
use crate::pg::background::{self, DatabaseRow, Started};
use crate::pg::relation::in_schema_iot;
use crate::pg::shared::databases;

/// Seconds until the postmaster starts the launcher again.
const RESTART_AFTER: Duration = Duration::from_secs(5);

/// Workers at the same time: writing down is not urgent, and slots are for everybody.
const MOST_WORKERS: usize = 2;

/// Registers the launcher, if there is memory to write down. Called from `_PG_init` while preloading.
pub fn register() {
    if crate::guc::max_tracked_sensors() > 0 {
        background::register("iot_ext launcher", "iot_ext_launcher_main", RESTART_AFTER);
    }
}

/// A worker at work.
struct Running {
    database: u32,
    worker: Started,
}

#[derive(Default)]
struct Launcher {
    waiting: Vec<DatabaseRow>,
    running: Vec<Running>,
    /// The lack of free slots was told.
    complained: bool,
}

/// Runs the launcher until the process ends.
pub fn launch() {
    background::begin_without_database();
    let mut launcher = Launcher::default();
    let mut last_look = Instant::now();
    loop {
        let until_next =
            crate::guc::flush_interval().map(|interval| interval.saturating_sub(last_look.elapsed()));
        background::nap(until_next);
        if crate::guc::flush_interval().is_some_and(|interval| last_look.elapsed() >= interval) {
            last_look = Instant::now();
            launcher.look();
        }
        launcher.start_workers();
    }
}

impl Launcher {
    /// Finds the databases that have something to write down, and gives up what is left of those that are gone.
    fn look(&mut self) {
        let all = background::databases();
        let known: Vec<u32> = all.iter().map(|row| row.oid).collect();
        // A database made since then has an oid that is not among them: only what is still unknown later is gone.
        let unknown = databases::unknown(&known);
        if !unknown.is_empty() {
            let now = background::databases();
            for database in unknown.into_iter().filter(|oid| !now.iter().any(|row| row.oid == *oid)) {
                databases::forget(database);
                databases::note_success(database);
            }
        }
        let changed = databases::with_changes();
        self.waiting = all.into_iter().filter(|row| row.is_open && changed.contains(&row.oid)).collect();
    }

    fn start_workers(&mut self) {
        self.running.retain(|running| !running.worker.has_ended());
        let (running, mut put_off) = (&mut self.running, Vec::new());
        for row in std::mem::take(&mut self.waiting) {
            if running.len() >= MOST_WORKERS || running.iter().any(|running| running.database == row.oid) {
                put_off.push(row);
                continue;
            }
            let name = format!("iot_ext flush {}", row.name);
            match background::start(&name, "iot_ext flush", "iot_ext_flush_main", row.oid) {
                Some(worker) => {
                    running.push(Running { database: row.oid, worker });
                    self.complained = false;
                }
                // Next time: the others would find no slot either.
                None if self.complained => (),
                None => {
                    self.complained = true;
                    pgrx::log!(
                        "iot_ext found no free background worker to write its state down; it tries again (max_worker_processes)"
                    );
                }
            }
        }
        self.waiting = put_off;
    }
}

/// Writes down the state of one database, in a worker that the launcher started.
pub fn flush(database: u32) {
    background::begin_in_database(database);
    // As autovacuum does; and a lock that somebody holds for long is no reason to stand in the queue for it.
    for (parameter, value) in [
        (c"default_transaction_isolation", c"read committed"),
        (c"statement_timeout", c"0"),
        (c"lock_timeout", c"2s"),
        // What a crash loses of it, it also loses of the memory that this is about.
        (c"synchronous_commit", c"off"),
    ] {
        background::set(parameter, value);
    }
    let mut name = String::new();
    let result = background::in_transaction(c"writing down the state of the ingest engine", || {
        name = background::name_of_database(background::current_database());
        let is_wanted = background::has_extension(c"iot_ext") && in_schema_iot(c"sensor_state").is_some();
        if is_wanted {
            crate::state::flush().or_raise();
        } else {
            databases::forget(database);
        }
    });
    match result {
        Ok(()) => databases::note_success(database),
        Err(message) if databases::note_failure(database) => {
            pgrx::log!(
                "iot_ext could not write the state of database \"{name}\" down, and tries again: {message}"
            );
        }
        Err(message) => pgrx::debug1!("iot_ext still cannot write the state of \"{name}\" down: {message}"),
    }
}
