//! `iot.partition_state`: what the manager remembers of single partitions between its runs. Belongs to the extension, so it
//! is written as the extension's owner, after the caller has been found to own the table.

use iot_core::partition::PartitionRange;
use pgrx::pg_sys::Oid;

use super::partition_policy::as_owner_of;
use crate::error::IotResult;
use crate::pg::clock;
use crate::pg::statement::Session;
use crate::statement;

/// What is remembered of a partition.
pub struct PartitionState {
    /// The partition, or what was one.
    pub partition: Oid,
    /// Retention rules by which it was rewritten.
    pub settled: Option<String>,
    /// Whether it is to be dropped once it is detached.
    pub is_retired: bool,
    /// Whether its detachment began and did not end.
    pub is_detach_pending: bool,
    /// Whether it was decided long ago that it is to be dropped.
    pub is_old: bool,
    /// Its times when that was decided.
    pub range: Option<PartitionRange>,
}

statement!(OF_PARENT: (OIDOID)
    "SELECT s.partition::pg_catalog.oid, s.settled, s.retired_at IS NOT NULL, COALESCE(i.inhdetachpending, false),
            COALESCE(s.retired_at OPERATOR(pg_catalog.<) (pg_catalog.now() OPERATOR(pg_catalog.-) '1 hour'::pg_catalog.interval), false),
            s.range_start, s.range_end
       FROM iot.partition_state s
       JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) s.partition
       LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid OPERATOR(pg_catalog.=) s.partition
      WHERE s.parent::pg_catalog.oid OPERATOR(pg_catalog.=) $1");

/// What is remembered of the partitions of `parent`.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn of_parent(session: &mut Session<'_>, parent: Oid) -> IotResult<Vec<PartitionState>> {
    let mut states = Vec::new();
    session.execute(&OF_PARENT, &[parent.into()])?.for_each(|row| {
        states.push(PartitionState {
            partition: row.get(1)?,
            settled: row.optional(2)?,
            is_retired: row.get(3)?,
            is_detach_pending: row.get(4)?,
            is_old: row.get(5)?,
            range: row.optional(6)?.zip(row.optional(7)?).map(|(start, end)| PartitionRange {
                start: clock::from_pg(start),
                end: clock::from_pg(end),
            }),
        });
        Ok(())
    })?;
    Ok(states)
}

statement!(SETTLE: (OIDOID, OIDOID, TEXTOID)
    "INSERT INTO iot.partition_state AS s (partition, parent, settled) VALUES ($1, $2, $3)
     ON CONFLICT (partition) DO UPDATE SET settled = EXCLUDED.settled");

/// Remembers that `partition` holds what `rules` leave.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn settle(session: &mut Session<'_>, partition: Oid, parent: Oid, rules: &str) -> IotResult<()> {
    let _owner = as_owner_of(c"partition_state")?;
    session.execute(&SETTLE, &[partition.into(), parent.into(), rules.into()])?;
    Ok(())
}

statement!(RETIRE: (OIDOID, OIDOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID)
    "INSERT INTO iot.partition_state AS s (partition, parent, retired_at, reason, range_start, range_end)
     VALUES ($1, $2, pg_catalog.clock_timestamp(), $3, $4, $5)
     ON CONFLICT (partition) DO UPDATE
        SET retired_at = EXCLUDED.retired_at, reason = EXCLUDED.reason, range_start = EXCLUDED.range_start,
            range_end = EXCLUDED.range_end");

/// Remembers that `partition` is to be dropped once it is detached.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn retire(
    session: &mut Session<'_>,
    partition: Oid,
    parent: Oid,
    range: PartitionRange,
    reason: &str,
) -> IotResult<()> {
    let _owner = as_owner_of(c"partition_state")?;
    let [start, end] = [range.start, range.end].map(clock::to_pg);
    session.execute(&RETIRE, &[partition.into(), parent.into(), reason.into(), start.into(), end.into()])?;
    Ok(())
}

statement!(REINSTATE: (OIDOID)
    "UPDATE iot.partition_state s SET retired_at = NULL, reason = NULL, range_start = NULL, range_end = NULL WHERE s.partition::pg_catalog.oid OPERATOR(pg_catalog.=) $1");

/// Forgets that `partition` was to be dropped.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn reinstate(session: &mut Session<'_>, partition: Oid) -> IotResult<()> {
    let _owner = as_owner_of(c"partition_state")?;
    session.execute(&REINSTATE, &[partition.into()])?;
    Ok(())
}
