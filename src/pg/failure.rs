//! Why something failed, as a value: what an ERROR said, after the transaction that raised it was rolled back.

use std::fmt;

use iot_core::job;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::CaughtError;

use crate::error::{IotError, sqlstate_text};

/// An ERROR, whoever raised it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its SQLSTATE; codes that PostgreSQL itself does not have arrive as XX000.
    pub code: PgSqlErrorCode,
    /// The message alone.
    pub message: String,
    /// DETAIL.
    pub detail: Option<String>,
    /// HINT.
    pub hint: Option<String>,
    /// The time that was given is over.
    pub is_timeout: bool,
}

impl Failure {
    /// A failure that was no ERROR.
    pub fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: None, hint: None, is_timeout: false }
    }

    /// Adds the HINT.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What was caught.
    pub fn of(error: &CaughtError) -> Self {
        let (CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. }) = error;
        Self {
            code: report.sql_error_code(),
            message: report.message().to_owned(),
            detail: report.detail().map(str::to_owned),
            hint: report.hint().map(str::to_owned),
            is_timeout: false,
        }
    }

    /// The five characters of the SQLSTATE.
    pub fn sqlstate(&self) -> String {
        sqlstate_text(self.code)
    }

    /// Whether somebody, or the clock, cancelled it.
    pub fn is_cancellation(&self) -> bool {
        self.code == PgSqlErrorCode::ERRCODE_QUERY_CANCELED
    }
}

impl From<Failure> for job::Failure {
    fn from(failure: Failure) -> Self {
        Self { sqlstate: failure.sqlstate(), message: failure.message }
    }
}

impl From<Failure> for job::Outcome {
    fn from(failure: Failure) -> Self {
        let time_is_up = failure.is_timeout;
        Self::of_error(failure.into(), time_is_up)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl From<Failure> for IotError {
    fn from(failure: Failure) -> Self {
        let mut error = Self::new(failure.code, failure.message);
        if let Some(detail) = failure.detail {
            error = error.detail(detail);
        }
        if let Some(hint) = failure.hint {
            error = error.hint(hint);
        }
        error
    }
}
