//! The tables as Rust sees them: one file per table, each with its row type and its few SQL statements.
//!
//! Statements qualify every table, function and operator, so that no `search_path` can change what they mean, and run
//! with the caller's privileges and row security.

pub mod alert;
pub mod command;
pub mod conversion;
pub mod conversion_carry;
pub mod conversion_source;
pub mod health;
pub mod job;
pub mod job_run;
pub mod maintenance;
pub mod migration;
pub mod partition;
pub mod partition_policy;
pub mod partition_state;
pub mod plain_table;
pub mod processed_data;
pub mod processing_rule;
pub mod processing_state;
pub mod reading;
pub mod recalibration;
pub mod rejected_reading;
pub mod retention_guard;
pub mod retention_rule;
pub mod sensor;
pub mod sensor_reference;
pub mod sensor_state;
pub mod series_reading;
pub mod server;
pub mod uniqueness;

use std::ffi::CStr;

use crate::error::{IotError, IotResult};
use crate::pg::relation;

/// Tables of the first and of the newest migrations that the engine works with.
const NEEDED: [&CStr; 4] = [c"sensor_data", c"device_commands", c"sensor_state", c"processed_data"];

/// Refuses to go on before `iot.setup()` has made the tables, or has brought those of an earlier version forward.
///
/// # Errors
/// 55000 with the remedy.
pub fn require_setup() -> IotResult<()> {
    let missing = |name: &&CStr| relation::in_schema_iot(name).is_none();
    if !NEEDED.iter().any(missing) {
        return Ok(());
    }
    let message = if missing(&NEEDED[0]) {
        "the tables of iot_ext do not exist in this database yet"
    } else {
        "the tables of iot_ext are those of an earlier version"
    };
    Err(IotError::wrong_state(message).hint("Bring them up to date with: SELECT iot.setup();"))
}
