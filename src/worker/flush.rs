//! Writing down what the engine holds in memory: which databases have changed entries in shared memory, and a short-lived
//! worker for each of them.

use crate::error::OrRaise;
use crate::pg::background::{self, DatabaseRow};
use crate::pg::relation::in_schema_iot;
use crate::pg::shared::databases;
use crate::pg::shared::schedule::{self, Kind};

/// Finds the databases that have something to write down, and gives up what is left of those that are gone.
pub fn changed_databases(all: &[DatabaseRow]) -> Vec<u32> {
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
    all.iter().filter(|row| row.is_open && changed.contains(&row.oid)).map(|row| row.oid).collect()
}

/// Writes down the state of one database, in a worker that the launcher started.
pub fn flush(place: u32) {
    let Some(assignment) = schedule::adopt(place, Kind::Flush) else { return };
    let database = assignment.database;
    background::begin_in_database(database);
    if !schedule::arrive(place) {
        return;
    }
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
        // Somebody wants the database empty.
        Err(failure) if failure.is_cancellation() => (),
        Err(failure) if databases::note_failure(database) => {
            pgrx::log!(
                "iot_ext could not write the state of database \"{name}\" down, and tries again: {failure}"
            );
        }
        Err(failure) => pgrx::debug1!("iot_ext still cannot write the state of \"{name}\" down: {failure}"),
    }
}
