//! Statements that only run at the top level of a session, handed to a background worker that the caller waits for.

use std::time::Duration;

use iot_core::job::Failure;
use pgrx::pg_sys;

/// Runs `statements`, one by one, in a worker connected to the current database as `owner`, and waits for it. All of them
/// together may take `timeout`.
///
/// # Errors
/// The error that ended them.
pub fn run_in_worker(
    _database: pg_sys::Oid,
    _owner: pg_sys::Oid,
    _statements: &[String],
    _timeout: Option<Duration>,
) -> Result<(), Failure> {
    Err(Failure {
        sqlstate: "0A000".to_owned(),
        message: "statements for the top level of a session cannot be run here yet".to_owned(),
    })
}
