//! Whether `iot.sensor_data` keeps one reading of a sensor and time, by its primary key, or any number.

use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;

use crate::error::{IotError, IotResult};
use crate::pg::statement::Session;
use crate::statement;

statement!(PRIMARY_KEY: (OIDOID)
    "SELECT c.conname::pg_catalog.text FROM pg_catalog.pg_constraint c
      WHERE c.conrelid OPERATOR(pg_catalog.=) $1 AND c.contype OPERATOR(pg_catalog.=) 'p'");

/// Name of the primary key of `table`, if it has one.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn primary_key(session: &mut Session<'_>, table: Oid) -> IotResult<Option<String>> {
    match session.execute(&PRIMARY_KEY, &[table.into()])?.first() {
        Some(row) => row.optional(1),
        None => Ok(None),
    }
}

statement!(ANY_READING: () "SELECT 1 FROM iot.sensor_data LIMIT 1");

/// Lets `iot.sensor_data` keep one reading of a sensor and time, or any number when they `may_share` a time. `key` is its
/// primary key.
///
/// # Errors
/// 55000 when that would change while there are readings; what PostgreSQL raises.
pub fn align(session: &mut Session<'_>, key: Option<String>, may_share: bool) -> IotResult<()> {
    if key.is_none() == may_share {
        return Ok(());
    }
    session.run("LOCK TABLE iot.sensor_data IN ACCESS EXCLUSIVE MODE")?;
    if session.execute(&ANY_READING, &[])?.count() > 0 {
        return Err(IotError::wrong_state("table iot.sensor_data has readings")
            .detail("Whether readings may share a sensor and time is decided by its primary key.")
            .hint("Choose duplicates => 'both', or go back from it, while the table is empty."));
    }
    match key {
        Some(key) => {
            session.run(&format!("ALTER TABLE iot.sensor_data DROP CONSTRAINT {}", quote_identifier(key)))?;
            session.run(
                "CREATE INDEX idx_sensor_data_sensor_time ON iot.sensor_data (sensor_id, measurement_timestamp)",
            )?;
            // Subscribers could not apply UPDATE and DELETE otherwise.
            identify_rows_by(session, "FULL")
        }
        None => {
            session.run("DROP INDEX IF EXISTS iot.idx_sensor_data_sensor_time")?;
            session.run("ALTER TABLE iot.sensor_data ADD PRIMARY KEY (sensor_id, measurement_timestamp)")?;
            identify_rows_by(session, "DEFAULT")
        }
    }
}

/// Partitions do not inherit it.
fn identify_rows_by(session: &mut Session<'_>, identity: &str) -> IotResult<()> {
    session.run(&format!(
        "DO $$
         DECLARE
             part pg_catalog.regclass;
         BEGIN
             FOR part IN SELECT t.relid FROM pg_catalog.pg_partition_tree('iot.sensor_data') t LOOP
                 EXECUTE pg_catalog.format('ALTER TABLE %s REPLICA IDENTITY {identity}', part);
             END LOOP;
         END $$"
    ))
}
