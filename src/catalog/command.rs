//! `iot.device_commands`: the queue of commands, and the state of the devices they go to.

use iot_core::time::Timestamp;
use pgrx::Uuid;

use crate::error::IotResult;
use crate::pg::clock;
use crate::pg::jsonb::Jsonb;
use crate::pg::statement::Session;
use crate::statement;

statement!(DEVICE_STATUS: (UUIDOID)
    "SELECT d.device_status FROM iot.devices d WHERE d.device_id OPERATOR(pg_catalog.=) $1");

/// Lifecycle state of the device, if it exists and the caller may see it.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn device_status(session: &mut Session<'_>, device_id: Uuid) -> IotResult<Option<String>> {
    match session.execute(&DEVICE_STATUS, &[device_id.into()])?.first() {
        Some(row) => row.optional(1),
        None => Ok(None),
    }
}

statement!(INSERT: (UUIDOID, TEXTOID, JSONBOID, TIMESTAMPTZOID)
    "INSERT INTO iot.device_commands (device_id, command_type, command_parameters, scheduled_at)
     VALUES ($1, $2, $3, $4) RETURNING command_id");

/// Queues a pending command and returns its id.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn insert(
    session: &mut Session<'_>,
    device_id: Uuid,
    command_type: &str,
    parameters: Jsonb<'_>,
    scheduled_at: Timestamp,
) -> IotResult<Option<Uuid>> {
    let arguments =
        [device_id.into(), command_type.into(), parameters.into(), clock::to_pg(scheduled_at).into()];
    match session.execute(&INSERT, &arguments)?.first() {
        Some(row) => row.optional(1),
        None => Ok(None),
    }
}

statement!(NOTIFY: (TEXTOID)
    "SELECT pg_catalog.pg_notify('device_commands', $1)");

/// Sends the command's id to listeners of `device_commands`, at commit.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn notify(session: &mut Session<'_>, command_id: Uuid) -> IotResult<()> {
    session.execute(&NOTIFY, &[command_id.to_string().into()])?;
    Ok(())
}

statement!(
    /// Whoever holds a row is at work on it; it is for the next time.
    EXPIRE: (INT8OID)
    "UPDATE iot.device_commands c
        SET execution_status = 'expired', completed_at = pg_catalog.clock_timestamp(),
            error_message = COALESCE(c.error_message, 'not sent before expires_at')
      WHERE c.command_id OPERATOR(pg_catalog.=) ANY (ARRAY(
                SELECT o.command_id FROM iot.device_commands o
                 WHERE o.execution_status OPERATOR(pg_catalog.=) 'pending'
                   AND o.expires_at OPERATOR(pg_catalog.<) pg_catalog.clock_timestamp()
                 LIMIT $1 FOR UPDATE SKIP LOCKED))");

/// Gives up commands that were not sent in time, at most `limit`; returns how many.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn expire(session: &mut Session<'_>, limit: usize) -> IotResult<usize> {
    Ok(session.execute(&EXPIRE, &[(limit as i64).into()])?.count())
}
