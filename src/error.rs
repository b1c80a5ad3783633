//! One error type for the shell, and the one table that gives each error of the core its SQLSTATE.
//!
//! Messages follow PostgreSQL's style: lower-case, no full stop, facts in DETAIL, the remedy as a sentence in HINT.

use iot_core::alert::{ConditionError, TemplateError};
use iot_core::bucket::BucketError;
use iot_core::ingest::{CalibrationError, NumberError, QualityLimitsError, TimeRejection, ValueRejection};
use iot_core::job::ScheduleError;
use iot_core::partition::IntervalError;
use iot_core::processing::RuleSetError;
use iot_core::unit::UnitError;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::PgLogLevel;

/// An error on its way to the client.
#[derive(Clone, Debug)]
pub struct IotError {
    code: PgSqlErrorCode,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
    reason: Option<&'static str>,
}

/// Result of everything in the shell that can fail.
pub type IotResult<T> = Result<T, IotError>;

impl IotError {
    /// An error with SQLSTATE `code`.
    pub fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), detail: None, hint: None, reason: None }
    }

    /// A NULL where a value is needed: 22004.
    pub fn null_argument(argument: &str) -> Self {
        Self::new(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("argument \"{argument}\" must not be null"),
        )
        .hint(format!("Pass a value for {argument}."))
    }

    /// An array with a NULL in it: 22004.
    pub fn null_element(argument: &str) -> Self {
        Self::new(
            PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("argument \"{argument}\" must not contain null"),
        )
        .hint(format!("Leave NULL out of {argument}."))
    }

    /// A value outside what the argument accepts: 22023.
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
    }

    /// Something named by the caller that does not exist: 42704.
    pub fn unknown_object(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, message)
    }

    /// The object exists but its state does not allow the call: 55000.
    pub fn wrong_state(message: impl Into<String>) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
    }

    /// Adds the DETAIL.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the HINT.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the word under which a rejected reading is kept, such as `too_old`.
    pub fn because(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }

    /// As [`IotError::because`], unless there is such a word already.
    pub fn or_because(mut self, reason: &'static str) -> Self {
        self.reason.get_or_insert(reason);
        self
    }

    /// Says in DETAIL which column of a row it is about, and keeps what stood there.
    pub fn in_column(mut self, column: &str) -> Self {
        self.detail = Some(match self.detail {
            Some(detail) => format!("Column {column}: {detail}"),
            None => format!("It stands in column {column}."),
        });
        self
    }

    /// As [`IotError::hint`], unless there is one already.
    pub fn or_hint(mut self, hint: &str) -> Self {
        self.hint.get_or_insert_with(|| hint.to_owned());
        self
    }

    /// The word given by [`IotError::because`], else `refused`.
    pub fn reason(&self) -> &'static str {
        self.reason.unwrap_or("refused")
    }

    /// Its SQLSTATE.
    pub fn code(&self) -> PgSqlErrorCode {
        self.code
    }

    /// The message alone.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The five characters of the SQLSTATE.
    pub fn sqlstate(&self) -> String {
        sqlstate_text(self.code)
    }

    /// Whether it tells of a defect of ours rather than of what the client gave.
    pub fn is_defect(&self) -> bool {
        self.code == PgSqlErrorCode::ERRCODE_INTERNAL_ERROR
    }

    /// Raises the error; the statement ends here.
    #[track_caller]
    pub fn raise(self) -> ! {
        self.report(PgLogLevel::ERROR);
        unreachable!("an ERROR report does not return")
    }

    /// Says it as a WARNING; the statement goes on.
    #[track_caller]
    pub fn warn(self) {
        self.report(PgLogLevel::WARNING);
    }

    /// Says it as a NOTICE; the statement goes on.
    #[track_caller]
    pub fn notice(self) {
        self.report(PgLogLevel::NOTICE);
    }

    #[track_caller]
    fn report(self, level: PgLogLevel) {
        let mut report = ErrorReport::new(self.code, self.message, "iot_ext");
        if let Some(detail) = self.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = self.hint {
            report = report.set_hint(hint);
        }
        report.report(level);
    }
}

/// The five characters of a SQLSTATE.
pub fn sqlstate_text(code: PgSqlErrorCode) -> String {
    // Six bits for each character, the first one lowest.
    let code = code as u32;
    (0..5).filter_map(|place| char::from_u32((code >> (6 * place) & 0x3f) + u32::from(b'0'))).collect()
}

/// Turns an `Err` into a raised error, at the boundary of a SQL function.
pub trait OrRaise<T> {
    /// The value, or the end of the statement.
    fn or_raise(self) -> T;
}

impl<T, E: Into<IotError>> OrRaise<T> for Result<T, E> {
    #[track_caller]
    fn or_raise(self) -> T {
        match self {
            Ok(value) => value,
            Err(error) => error.into().raise(),
        }
    }
}

/// SPI reports a failing statement by ERROR, so what arrives here is a defect of ours: XX000.
impl From<pgrx::spi::Error> for IotError {
    fn from(error: pgrx::spi::Error) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("internal query failed: {error}"))
    }
}

impl From<ConditionError> for IotError {
    fn from(error: ConditionError) -> Self {
        Self::invalid_argument(error.to_string()).hint(error.hint())
    }
}

impl From<TemplateError> for IotError {
    fn from(error: TemplateError) -> Self {
        Self::invalid_argument(error.to_string()).hint(error.hint())
    }
}

impl From<CalibrationError> for IotError {
    fn from(error: CalibrationError) -> Self {
        let code = if error.is_out_of_range() {
            PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE
        } else {
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE
        };
        Self::new(code, error.to_string()).hint(error.hint()).because("calibration")
    }
}

impl From<QualityLimitsError> for IotError {
    fn from(error: QualityLimitsError) -> Self {
        Self::invalid_argument(error.to_string()).hint(error.hint())
    }
}

impl From<ValueRejection> for IotError {
    fn from(error: ValueRejection) -> Self {
        Self::new(PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, error.to_string())
            .hint(error.hint())
            .because("not_finite")
    }
}

impl From<NumberError> for IotError {
    fn from(error: NumberError) -> Self {
        let code = match error {
            NumberError::Malformed { .. } => PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION,
            NumberError::OutOfRange { .. } => PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
        };
        Self::new(code, error.to_string()).hint(error.hint()).because(error.reason())
    }
}

impl From<TimeRejection> for IotError {
    fn from(error: TimeRejection) -> Self {
        let reason = error.reason();
        Self::new(PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW, error.to_string())
            .hint(error.hint())
            .because(reason)
    }
}

impl From<BucketError> for IotError {
    fn from(error: BucketError) -> Self {
        Self::invalid_argument(error.to_string()).hint(error.hint())
    }
}

impl From<ScheduleError> for IotError {
    fn from(error: ScheduleError) -> Self {
        Self::invalid_argument(error.to_string()).hint(error.hint())
    }
}

impl From<RuleSetError> for IotError {
    fn from(error: RuleSetError) -> Self {
        Self::invalid_argument(error.to_string()).hint(error.hint())
    }
}

impl From<IntervalError> for IotError {
    fn from(error: IntervalError) -> Self {
        Self::invalid_argument(error.to_string()).hint(error.hint())
    }
}

impl From<UnitError> for IotError {
    fn from(error: UnitError) -> Self {
        let code = match &error {
            value if value.is_out_of_range() => PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            // Both units are known: it is their kinds that do not match.
            UnitError::DifferentDimension { .. } => PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
            _ => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        };
        Self::new(code, error.to_string()).hint(error.hint()).because("unit")
    }
}
