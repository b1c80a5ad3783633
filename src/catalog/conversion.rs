//! `iot.conversion`: conversions under way and done. Belongs to the extension, and is read and written as its owner: the
//! callers have made sure that the current user owns the table in question.

use iot_core::conversion::Phase;
use iot_core::partition::PartitionInterval;
use iot_core::time::Timestamp;
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::pg_sys::Oid;

use super::partition_policy::{self, as_owner_of};
use crate::error::{IotError, IotResult};
use crate::pg::clock;
use crate::pg::statement::{Row, Session};
use crate::statement;

/// How a conversion was ordered.
#[derive(Clone)]
pub struct Order {
    /// Column by whose range the copy is partitioned.
    pub time_column: String,
    /// Width of the partitions, as it was given.
    pub interval_given: Interval,
    /// Partitions to be ready beyond the current one.
    pub premake: i32,
    /// Rows per transaction.
    pub batch_rows: i32,
    /// Whether the table before stays under another name.
    pub keep_original: bool,
    /// Of an import, whether there is to be an empty default partition.
    pub keep_default: bool,
    /// How often a step that cannot get a lock is tried again.
    pub lock_retries: i32,
}

/// A conversion.
#[derive(Clone)]
pub struct Conversion {
    /// Its key.
    pub id: i64,
    /// The table, or of an import the default partition.
    pub relation: Oid,
    /// Of an import, the table that the default partition belongs to.
    pub parent: Option<Oid>,
    /// The table before, once it has given its name away.
    pub original: Option<Oid>,
    /// The partitioned copy.
    pub partitioned: Oid,
    /// Keys of rows that changed.
    pub change_log: Oid,
    /// How it was ordered.
    pub order: Order,
    /// Width of the partitions.
    pub interval: PartitionInterval,
    /// Columns of the key by which rows are told apart.
    pub key_columns: Vec<String>,
    /// Checksum of the definition.
    pub definition: String,
    /// How far it is.
    pub state: State,
}

/// How far a conversion is.
#[derive(Clone)]
pub struct State {
    /// What is done next.
    pub phase: Phase,
    /// The file that the blocks count in; none before changes are logged.
    pub file: Option<Oid>,
    /// First block that is not copied yet.
    pub next_block: i64,
    /// First block that need not be.
    pub end_block: i64,
    /// Block of the log to go on from.
    pub log_block: i64,
    /// Earliest and latest time at the start.
    pub range: Option<(Timestamp, Timestamp)>,
    /// Key up to which both tables are compared.
    pub verified_to: Option<Vec<String>>,
    /// Rows at the start, estimated.
    pub row_estimate: i64,
    /// Rows copied.
    pub rows_copied: i64,
    /// Logged changes carried over.
    pub changes_replayed: i64,
    /// Rows compared.
    pub rows_verified: i64,
    /// How often the current step has failed.
    pub attempts: i32,
    /// Why.
    pub last_obstacle: Option<String>,
}

macro_rules! conversion_where {
    ($condition:literal) => {
        concat!(
            "SELECT c.conversion_id, c.relation::pg_catalog.oid, c.parent::pg_catalog.oid, c.original::pg_catalog.oid,
                    c.partitioned::pg_catalog.oid, c.change_log::pg_catalog.oid, c.time_column::pg_catalog.text,
                    c.partition_interval, c.premake, c.batch_rows, c.keep_original, c.keep_default, c.lock_retries,
                    c.key_columns, c.definition, c.phase, c.file, c.next_block, c.end_block, c.log_block,
                    c.range_start, c.range_end, c.verified_to, c.row_estimate, c.rows_copied, c.changes_replayed,
                    c.rows_verified, c.attempts, c.last_obstacle
               FROM iot.conversion c WHERE ",
            $condition
        )
    };
}

statement!(BY_ID: (INT8OID) conversion_where!("c.conversion_id OPERATOR(pg_catalog.=) $1"));
statement!(BY_TABLE: (REGCLASSOID) conversion_where!("c.relation OPERATOR(pg_catalog.=) $1"));

/// The conversion of that key.
///
/// # Errors
/// 22023 for a stored interval that is not supported.
pub fn load(session: &mut Session<'_>, id: i64) -> IotResult<Option<Conversion>> {
    let _owner = as_owner_of(c"conversion")?;
    session.execute(&BY_ID, &[id.into()])?.first().map(|row| read(&row)).transpose()
}

/// The conversion of `table`, done or not.
///
/// # Errors
/// As [`load`].
pub fn of_table(session: &mut Session<'_>, table: Oid) -> IotResult<Option<Conversion>> {
    let _owner = as_owner_of(c"conversion")?;
    session.execute(&BY_TABLE, &[table.into()])?.first().map(|row| read(&row)).transpose()
}

statement!(UNFINISHED: (REGCLASSOID)
    conversion_where!("c.parent OPERATOR(pg_catalog.=) $1 AND c.phase OPERATOR(pg_catalog.<>) 'finished'"));

/// The import of a default partition of `parent` that is under way.
///
/// # Errors
/// As [`load`].
pub fn unfinished_of_parent(session: &mut Session<'_>, parent: Oid) -> IotResult<Option<Conversion>> {
    let _owner = as_owner_of(c"conversion")?;
    session.execute(&UNFINISHED, &[parent.into()])?.first().map(|row| read(&row)).transpose()
}

fn read(row: &Row<'_>) -> IotResult<Conversion> {
    let interval_given: Interval = row.get(8)?;
    let phase: String = row.get(16)?;
    let at = |column| Ok::<_, IotError>(row.optional::<TimestampWithTimeZone>(column)?.map(clock::from_pg));
    Ok(Conversion {
        id: row.get(1)?,
        relation: row.get(2)?,
        parent: row.optional(3)?,
        original: row.optional(4)?,
        partitioned: row.get(5)?,
        change_log: row.get(6)?,
        interval: partition_policy::interval(&interval_given)?,
        order: Order {
            time_column: row.get(7)?,
            interval_given,
            premake: row.get(9)?,
            batch_rows: row.get(10)?,
            keep_original: row.get(11)?,
            keep_default: row.get(12)?,
            lock_retries: row.get(13)?,
        },
        key_columns: row.get(14)?,
        definition: row.get(15)?,
        state: State {
            phase: Phase::from_name(&phase)
                .ok_or_else(|| IotError::wrong_state(format!("conversion has unknown phase \"{phase}\"")))?,
            file: row.optional(17)?,
            next_block: row.get(18)?,
            end_block: row.get(19)?,
            log_block: row.get(20)?,
            range: at(21)?.zip(at(22)?),
            verified_to: row.optional(23)?,
            row_estimate: row.get(24)?,
            rows_copied: row.get(25)?,
            changes_replayed: row.get(26)?,
            rows_verified: row.get(27)?,
            attempts: row.get(28)?,
            last_obstacle: row.optional(29)?,
        },
    })
}

statement!(ADD: (
        REGCLASSOID, REGCLASSOID, REGCLASSOID, REGCLASSOID, TEXTOID, INTERVALOID, INT4OID, INT4OID, BOOLOID, BOOLOID, INT4OID,
        TEXTARRAYOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT8OID,
    )
    "INSERT INTO iot.conversion AS c (
         relation, parent, partitioned, change_log, time_column, partition_interval, premake, batch_rows, keep_original,
         keep_default, lock_retries, key_columns, definition, phase, range_start, range_end, row_estimate)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'starting', $14, $15, $16)
     ON CONFLICT (relation) DO NOTHING
     RETURNING c.conversion_id");

/// What a new conversion is made of, beside how it was ordered.
pub struct Beginning {
    /// The table.
    pub relation: Oid,
    /// Of an import, the table that it belongs to.
    pub parent: Option<Oid>,
    /// The copy.
    pub partitioned: Oid,
    /// The log of changes.
    pub change_log: Oid,
    /// Columns of the key by which rows are told apart.
    pub key_columns: Vec<String>,
    /// Checksum of the definition.
    pub definition: String,
    /// Earliest and latest time.
    pub range: Option<(Timestamp, Timestamp)>,
    /// Rows, estimated.
    pub row_estimate: i64,
}

/// Adds a conversion and returns its key; `None` when somebody else was faster.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn add(session: &mut Session<'_>, begin: Beginning, order: Order) -> IotResult<Option<i64>> {
    let _owner = as_owner_of(c"conversion")?;
    let (start, end) = begin.range.map(|(start, end)| (clock::to_pg(start), clock::to_pg(end))).unzip();
    let rows = session.execute(
        &ADD,
        &[
            begin.relation.into(),
            begin.parent.into(),
            begin.partitioned.into(),
            begin.change_log.into(),
            order.time_column.into(),
            order.interval_given.into(),
            order.premake.into(),
            order.batch_rows.into(),
            order.keep_original.into(),
            order.keep_default.into(),
            order.lock_retries.into(),
            begin.key_columns.into(),
            begin.definition.into(),
            start.into(),
            end.into(),
            begin.row_estimate.into(),
        ],
    )?;
    rows.first().map(|row| row.get(1)).transpose()
}

statement!(SAVE: (
        INT8OID, TEXTOID, OIDOID, INT8OID, INT8OID, INT8OID, TEXTARRAYOID, INT8OID, INT8OID, INT8OID, INT4OID, TEXTOID,
    )
    "UPDATE iot.conversion c
        SET phase = $2, file = $3, next_block = $4, end_block = $5, log_block = $6, verified_to = $7, rows_copied = $8,
            changes_replayed = $9, rows_verified = $10, attempts = $11, last_obstacle = $12,
            finished_at = CASE WHEN $2 OPERATOR(pg_catalog.=) 'finished' THEN pg_catalog.clock_timestamp() END
      WHERE c.conversion_id OPERATOR(pg_catalog.=) $1");

/// Writes down how far it is.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn save(session: &mut Session<'_>, id: i64, state: &State) -> IotResult<()> {
    let _owner = as_owner_of(c"conversion")?;
    session.execute(
        &SAVE,
        &[
            id.into(),
            state.phase.as_str().into(),
            state.file.into(),
            state.next_block.into(),
            state.end_block.into(),
            state.log_block.into(),
            state.verified_to.clone().into(),
            state.rows_copied.into(),
            state.changes_replayed.into(),
            state.rows_verified.into(),
            state.attempts.into(),
            state.last_obstacle.as_deref().into(),
        ],
    )?;
    Ok(())
}

statement!(RENAMED: (INT8OID, REGCLASSOID, REGCLASSOID)
    "UPDATE iot.conversion c SET relation = $2, original = $3 WHERE c.conversion_id OPERATOR(pg_catalog.=) $1");

/// Names have changed: `relation` is the one that has the table's name now.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn renamed(session: &mut Session<'_>, id: i64, relation: Oid, original: Oid) -> IotResult<()> {
    let _owner = as_owner_of(c"conversion")?;
    session.execute(&RENAMED, &[id.into(), relation.into(), original.into()])?;
    Ok(())
}

statement!(FORGET: (INT8OID) "DELETE FROM iot.conversion c WHERE c.conversion_id OPERATOR(pg_catalog.=) $1");

/// Forgets a conversion.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn forget(session: &mut Session<'_>, id: i64) -> IotResult<()> {
    let _owner = as_owner_of(c"conversion")?;
    session.execute(&FORGET, &[id.into()])?;
    Ok(())
}

statement!(REORDER: (INT8OID, INT4OID, BOOLOID, INT4OID)
    "UPDATE iot.conversion c SET batch_rows = $2, keep_original = $3, lock_retries = $4
      WHERE c.conversion_id OPERATOR(pg_catalog.=) $1");

/// What may be ordered otherwise when a conversion is gone on with.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn reorder(session: &mut Session<'_>, id: i64, order: &Order) -> IotResult<()> {
    let _owner = as_owner_of(c"conversion")?;
    let arguments =
        [id.into(), order.batch_rows.into(), order.keep_original.into(), order.lock_retries.into()];
    session.execute(&REORDER, &arguments)?;
    Ok(())
}
