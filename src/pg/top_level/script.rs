//! What is run at top level: parts that do not need one another, each of statements that do.

use std::time::{Duration, Instant};

use pgrx::PgSqlErrorCode;

use crate::pg::failure::Failure;

/// Statements of which each needs that those before it succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it works on, for messages; empty when that goes without saying.
    pub about: String,
    /// SQL texts, in this order. Each may itself hold several statements, which then run as those of a simple query do.
    pub statements: Vec<String>,
}

impl Part {
    /// A part of one statement.
    pub fn one(about: impl Into<String>, statement: impl Into<String>) -> Self {
        Self { about: about.into(), statements: vec![statement.into()] }
    }
}

/// Runs the parts with `run`, which gets a text and the time that is left. A statement that fails ends its part; the others are run
/// all the same, unless it was cancelled or time is up.
///
/// # Errors
/// Of one failure, that; of several, one that tells them all, with the SQLSTATE of the first that is not only a lock that was not
/// to be had.
pub fn run_parts(
    parts: &[Part],
    timeout: Option<Duration>,
    mut run: impl FnMut(&str, Option<Duration>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let begin = Instant::now();
    let mut failures = Vec::new();
    for part in parts {
        let ran = part
            .statements
            .iter()
            .try_for_each(|text| run(text, timeout.map(|limit| limit.saturating_sub(begin.elapsed()))));
        if let Err(mut failure) = ran {
            let is_last = failure.is_cancellation();
            if !part.about.is_empty() {
                failure.message = format!("{}: {}", part.about, failure.message);
            }
            if is_last {
                return Err(failure);
            }
            failures.push(failure);
        }
    }
    joined(failures)
}

fn joined(failures: Vec<Failure>) -> Result<(), Failure> {
    let is_lock = |failure: &Failure| failure.code == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE;
    let told = failures.iter().map(|failure| failure.message.as_str()).collect::<Vec<_>>().join("; ");
    let worst = failures.iter().position(|failure| !is_lock(failure)).unwrap_or(0);
    match failures.into_iter().nth(worst) {
        None => Ok(()),
        Some(failure) => Err(Failure { message: told, ..failure }),
    }
}
