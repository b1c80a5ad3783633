//! How much memory the runs of a job may use: settings of PostgreSQL among its parameters.

use std::ffi::{CStr, CString};

use pgrx::spi::quote_literal;
use serde_json::Value;

use crate::catalog::job::Job;
use crate::error::{IotError, IotResult};
use crate::pg::settings::Scoped;
use crate::pg::top_level::Part;

const SETTINGS: [&CStr; 2] = [c"work_mem", c"maintenance_work_mem"];

/// Refuses what PostgreSQL would not take.
///
/// # Errors
/// 22023, of ours or PostgreSQL's.
pub fn check(job: &Job) -> IotResult<()> {
    let tried = Scoped::new();
    for (name, value) in wanted(job) {
        let Value::String(value) = value else {
            return Err(IotError::invalid_argument(format!(
                "parameter \"{}\" is {value}",
                name.to_string_lossy()
            ))
            .hint("Give a JSON string such as \"64MB\"."));
        };
        // Raises what it thinks of the value.
        tried.set(name, &CString::new(value.as_str()).unwrap_or_default());
    }
    Ok(())
}

/// Sets them for as long as `settings` lasts.
pub fn set(job: &Job, settings: impl Fn(&CStr, &CStr)) {
    for (name, value) in wanted(job) {
        if let Value::String(value) = value {
            settings(name, &CString::new(value.as_str()).unwrap_or_default());
        }
    }
}

/// Statements that set them for the rest of a session.
pub fn statements(job: &Job) -> Option<Part> {
    let set = |(name, value): (&CStr, &Value)| {
        let value = quote_literal(value.as_str().unwrap_or_default());
        format!("SET {} = {value}", name.to_string_lossy())
    };
    let statements: Vec<_> = wanted(job).map(set).collect();
    (!statements.is_empty()).then(|| Part { about: String::new(), statements })
}

fn wanted(job: &Job) -> impl Iterator<Item = (&'static CStr, &Value)> {
    SETTINGS.into_iter().filter_map(|name| {
        let value = job.parameters.get(name.to_str().unwrap_or_default())?;
        (!value.is_null()).then_some((name, value))
    })
}
