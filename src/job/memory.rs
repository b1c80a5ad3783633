//! How much memory the runs of a job may use: settings of PostgreSQL among its parameters.

use std::ffi::{CStr, CString};

use iot_core::job::MEMORY;
use pgrx::spi::quote_literal;
use serde_json::Value;

use crate::catalog::job::Job;
use crate::error::{IotError, IotResult};
use crate::pg::settings::Scoped;
use crate::pg::top_level::Part;

/// Refuses what PostgreSQL would not take.
///
/// # Errors
/// 22023, of ours or PostgreSQL's.
pub fn check(job: &Job) -> IotResult<()> {
    let tried = Scoped::new();
    for (name, value) in wanted(job) {
        let Value::String(value) = value else {
            return Err(IotError::invalid_argument(format!("parameter \"{name}\" is {value}"))
                .hint("Give a JSON string such as \"64MB\"."));
        };
        // Raises what it thinks of the value.
        tried.set(&c_string(name), &c_string(value));
    }
    Ok(())
}

/// Sets them for as long as `settings` lasts.
pub fn set(job: &Job, settings: impl Fn(&CStr, &CStr)) {
    for (name, value) in wanted(job) {
        if let Value::String(value) = value {
            settings(&c_string(name), &c_string(value));
        }
    }
}

/// Statements that set them for the rest of a session.
pub fn statements(job: &Job) -> Option<Part> {
    let set = |(name, value): (&str, &Value)| {
        let value = quote_literal(value.as_str().unwrap_or_default());
        format!("SET {name} = {value}")
    };
    let statements: Vec<_> = wanted(job).map(set).collect();
    (!statements.is_empty()).then(|| Part { about: String::new(), statements })
}

fn wanted(job: &Job) -> impl Iterator<Item = (&'static str, &Value)> {
    MEMORY.into_iter().filter_map(|name| {
        let value = job.parameters.get(name)?;
        (!value.is_null()).then_some((name, value))
    })
}

fn c_string(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}
