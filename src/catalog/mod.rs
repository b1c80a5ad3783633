//! The tables as Rust sees them: one file per table, each with its row type and its few SQL statements.
//!
//! Statements qualify every table, function and operator, so that no `search_path` can change what they mean, and run
//! with the caller's privileges and row security.

pub mod alert;
pub mod command;
pub mod migration;
pub mod partition_policy;
pub mod reading;
pub mod recalibration;
pub mod rejected_reading;
pub mod sensor;
pub mod sensor_reference;
pub mod sensor_state;
pub mod server;
pub mod uniqueness;

use crate::error::{IotError, IotResult};
use crate::pg::relation;

/// Refuses to go on before `iot.setup()` has made the tables.
///
/// # Errors
/// 55000 with the remedy.
pub fn require_setup() -> IotResult<()> {
    if relation::in_schema_iot(c"sensor_data").is_some()
        && relation::in_schema_iot(c"device_commands").is_some()
    {
        return Ok(());
    }
    Err(IotError::wrong_state("the tables of iot_ext do not exist in this database yet")
        .hint("Create them with: SELECT iot.setup();"))
}
