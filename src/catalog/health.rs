//! What the database finds wrong with itself.

use crate::error::IotResult;
use crate::pg::statement::Session;
use crate::statement;

statement!(CHECK: () "SELECT iot.check_health()");

/// Makes alerts of what is wrong, and resolves those of what no longer is; returns how many findings there are.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn check(session: &mut Session<'_>) -> IotResult<i32> {
    session.execute(&CHECK, &[])?.first().map_or(Ok(0), |row| row.get(1))
}
