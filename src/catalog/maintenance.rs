//! What PostgreSQL's own catalogue says about the relations that jobs work on.

use pgrx::pg_sys::Oid;

use crate::error::IotResult;
use crate::pg::statement::{Rows, Session};
use crate::statement;

statement!(
    /// The user's relations that a role owns, partitions left to their parents. In the order of their making, so that a
    /// materialized view comes after those that it reads.
    OWNED: (OIDOID, TEXTARRAYOID)
    "SELECT c.oid
       FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
      WHERE c.relkind::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($2) AND NOT c.relispartition
        AND c.relpersistence OPERATOR(pg_catalog.<>) 't'
        AND n.nspname OPERATOR(pg_catalog.<>) ALL ('{pg_catalog,information_schema,pg_toast}'::pg_catalog.name[])
        AND pg_catalog.pg_has_role($1, c.relowner, 'USAGE')
      ORDER BY c.oid");

/// The relations of some kinds (`pg_class.relkind`) that `role` owns, itself or through a membership.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn owned(session: &mut Session<'_>, role: Oid, kinds: &[&str]) -> IotResult<Vec<Oid>> {
    oids(session.execute(&OWNED, &[role.into(), kinds.to_vec().into()])?)
}

statement!(LEAVES: (REGCLASSOID)
    "SELECT t.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree($1) t WHERE t.isleaf ORDER BY t.relid");

/// The partitions of a table that hold rows; of a plain table itself.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn leaves(session: &mut Session<'_>, table: Oid) -> IotResult<Vec<Oid>> {
    let leaves = oids(session.execute(&LEAVES, &[table.into()])?)?;
    Ok(if leaves.is_empty() { vec![table] } else { leaves })
}

statement!(
    /// As PostgreSQL decides it: every row, plain columns, B-tree, valid.
    REFRESHES_CONCURRENTLY: (OIDOID)
    "SELECT c.relispopulated AND EXISTS (
         SELECT FROM pg_catalog.pg_index i
           JOIN pg_catalog.pg_class x ON x.oid OPERATOR(pg_catalog.=) i.indexrelid
           JOIN pg_catalog.pg_am a ON a.oid OPERATOR(pg_catalog.=) x.relam
          WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid
            AND i.indpred IS NULL AND i.indexprs IS NULL AND a.amname OPERATOR(pg_catalog.=) 'btree')
       FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) $1");

/// Whether a materialized view can be refreshed while it is read.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn refreshes_concurrently(session: &mut Session<'_>, view: Oid) -> IotResult<bool> {
    session.execute(&REFRESHES_CONCURRENTLY, &[view.into()])?.first().map_or(Ok(false), |row| row.get(1))
}

statement!(
    /// REINDEX CONCURRENTLY names what it builds `…_ccnew`, and what it replaced `…_ccold`.
    LEFT_BEHIND: (REGCLASSOID)
    "SELECT i.indexrelid
       FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid OPERATOR(pg_catalog.=) i.indexrelid
      WHERE NOT i.indisvalid AND x.relname OPERATOR(pg_catalog.~) '_cc(new|old)[0-9]*$'
        AND i.indrelid OPERATOR(pg_catalog.=) ANY (
                SELECT t.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree($1) t UNION ALL SELECT $1::pg_catalog.oid)");

/// Indexes of a table and its partitions that an interrupted REINDEX CONCURRENTLY left behind.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn left_behind_indexes(session: &mut Session<'_>, table: Oid) -> IotResult<Vec<Oid>> {
    oids(session.execute(&LEFT_BEHIND, &[table.into()])?)
}

statement!(TIME_COLUMNS: (OIDOID)
    "SELECT a.attname::pg_catalog.text, a.atttypid OPERATOR(pg_catalog.=) 'timestamptz'::pg_catalog.regtype
       FROM pg_catalog.pg_attribute a
      WHERE a.attrelid OPERATOR(pg_catalog.=) $1 AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
        AND a.atttypid OPERATOR(pg_catalog.=) ANY (
                '{timestamptz,timestamp,date}'::pg_catalog.regtype[]::pg_catalog.oid[])
      ORDER BY a.attnum");
statement!(PARTITION_COLUMN: (OIDOID)
    "SELECT a.attname::pg_catalog.text
       FROM pg_catalog.pg_partitioned_table p
       JOIN pg_catalog.pg_attribute a
         ON a.attrelid OPERATOR(pg_catalog.=) p.partrelid AND a.attnum OPERATOR(pg_catalog.=) p.partattrs[0]
      WHERE p.partrelid OPERATOR(pg_catalog.=) $1 AND p.partnatts OPERATOR(pg_catalog.=) 1 AND p.partstrat OPERATOR(pg_catalog.=) 'r'");

/// A column that holds points in time.
pub struct TimeColumn {
    /// Its name.
    pub name: String,
    /// Whether it is a `timestamptz`.
    pub has_zone: bool,
}

/// Columns of a table that hold points in time.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn time_columns(session: &mut Session<'_>, table: Oid) -> IotResult<Vec<TimeColumn>> {
    let mut found = Vec::new();
    session.execute(&TIME_COLUMNS, &[table.into()])?.for_each(|row| {
        found.push(TimeColumn { name: row.get(1)?, has_zone: row.get(2)? });
        Ok(())
    })?;
    Ok(found)
}

/// The column by whose range a table is partitioned.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn partition_column(session: &mut Session<'_>, table: Oid) -> IotResult<Option<String>> {
    session.execute(&PARTITION_COLUMN, &[table.into()])?.first().map(|row| row.get(1)).transpose()
}

fn oids(rows: Rows<'_>) -> IotResult<Vec<Oid>> {
    let mut found = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        found.push(row.get(1)?);
        Ok(())
    })?;
    Ok(found)
}
