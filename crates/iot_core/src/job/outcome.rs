//! How a run ended.

/// How a run of a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did its work.
    Succeeded,
    /// An error ended it.
    Failed(Failure),
    /// A lock was not free in time; it is tried again soon, and does not count as a failure.
    Deferred(Failure),
    /// It took longer than it may.
    TimedOut(Failure),
    /// Somebody ended it; it is tried again, and does not count as a failure.
    Cancelled(Failure),
    /// Its process ended without a word.
    Interrupted,
}

/// An error, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// SQLSTATE, five characters.
    pub sqlstate: String,
    /// The message.
    pub message: String,
}

/// `lock_not_available`: a lock that was not free within `lock_timeout`.
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// `query_canceled`: by a time limit or by somebody.
const QUERY_CANCELED: &str = "57014";

impl Outcome {
    /// The outcome of a run that an ERROR ended; `time_is_up` tells whether its time limit was over then.
    pub fn of_error(failure: Failure, time_is_up: bool) -> Self {
        match failure.sqlstate.as_str() {
            LOCK_NOT_AVAILABLE => Self::Deferred(failure),
            QUERY_CANCELED if time_is_up => Self::TimedOut(failure),
            QUERY_CANCELED => Self::Cancelled(failure),
            _ => Self::Failed(failure),
        }
    }

    /// Its name in `iot.job_run.outcome`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed(_) => "failed",
            Self::Deferred(_) => "deferred",
            Self::TimedOut(_) => "timed_out",
            Self::Cancelled(_) => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }

    /// What went wrong.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure)
            | Self::Deferred(failure)
            | Self::TimedOut(failure)
            | Self::Cancelled(failure) => Some(failure),
            Self::Succeeded | Self::Interrupted => None,
        }
    }

    /// Whether it counts as a failure of the job.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::TimedOut(_) | Self::Interrupted)
    }
}
