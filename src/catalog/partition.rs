//! What PostgreSQL's own catalogue says of partitioned tables beyond the relation cache.

use std::collections::HashMap;

use pgrx::pg_sys::Oid;

use crate::error::IotResult;
use crate::pg::statement::Session;
use crate::statement;

/// A partition as the catalogue shows it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Schema and name, quoted.
    pub qualified_name: String,
    /// Name alone.
    pub name: String,
    /// Rows as of the last ANALYZE or VACUUM.
    pub rows: Option<i64>,
    /// Size with indexes and TOAST, if it was asked for.
    pub bytes: Option<i64>,
}

statement!(
    /// Leaves have rows and bytes; a partition that is partitioned itself, those of its leaves.
    FACTS: (OIDOID, BOOLOID)
    "SELECT c.oid, c.oid::pg_catalog.regclass::pg_catalog.text, c.relname::pg_catalog.text,
            CASE WHEN c.relkind OPERATOR(pg_catalog.<>) 'p' THEN (CASE WHEN c.reltuples OPERATOR(pg_catalog.>=) 0 THEN c.reltuples END)::pg_catalog.int8
                 ELSE (SELECT pg_catalog.sum(CASE WHEN l.reltuples OPERATOR(pg_catalog.>=) 0 THEN l.reltuples END)::pg_catalog.int8
                         FROM pg_catalog.pg_partition_tree(c.oid) t
                         JOIN pg_catalog.pg_class l ON l.oid OPERATOR(pg_catalog.=) t.relid WHERE t.isleaf) END,
            CASE WHEN NOT $2 THEN NULL
                 WHEN c.relkind OPERATOR(pg_catalog.<>) 'p' THEN pg_catalog.pg_total_relation_size(c.oid)
                 ELSE (SELECT pg_catalog.sum(pg_catalog.pg_total_relation_size(t.relid))::pg_catalog.int8
                         FROM pg_catalog.pg_partition_tree(c.oid) t WHERE t.isleaf) END
       FROM pg_catalog.pg_inherits i
       JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid
      WHERE i.inhparent OPERATOR(pg_catalog.=) $1");

/// The partitions of `parent` by their oids; with their sizes if wanted, for which each file is looked at.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn facts(session: &mut Session<'_>, parent: Oid, with_bytes: bool) -> IotResult<HashMap<Oid, Facts>> {
    let mut found = HashMap::new();
    session.execute(&FACTS, &[parent.into(), with_bytes.into()])?.for_each(|row| {
        let facts = Facts {
            qualified_name: row.get(2)?,
            name: row.get(3)?,
            rows: row.optional(4)?,
            bytes: row.optional(5)?,
        };
        found.insert(row.get(1)?, facts);
        Ok(())
    })?;
    Ok(found)
}

/// What new partitions take over from their table, beside what LIKE copies.
pub struct Model {
    /// `d`, `n`, `f` or `i`.
    pub replica_identity: String,
    /// The index of replica identity `i`.
    pub identity_index: Option<Oid>,
    /// Tablespace, quoted, unless it is the database's.
    pub tablespace: Option<String>,
    /// Access method, quoted, where the table names one (PostgreSQL 17 and above).
    pub access_method: Option<String>,
    /// Whether row security policies exist.
    pub has_policies: bool,
    /// Whether new tables of the owner may come with grants.
    pub has_default_grants: bool,
}

statement!(MODEL: (OIDOID)
    "SELECT c.relreplident::pg_catalog.text,
            (SELECT x.indexrelid FROM pg_catalog.pg_index x
              WHERE x.indrelid OPERATOR(pg_catalog.=) c.oid AND x.indisreplident),
            (SELECT pg_catalog.quote_ident(s.spcname) FROM pg_catalog.pg_tablespace s
              WHERE s.oid OPERATOR(pg_catalog.=) c.reltablespace),
            (SELECT pg_catalog.quote_ident(a.amname) FROM pg_catalog.pg_am a WHERE a.oid OPERATOR(pg_catalog.=) c.relam),
            EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid OPERATOR(pg_catalog.=) c.oid),
            EXISTS (SELECT FROM pg_catalog.pg_default_acl d WHERE d.defaclobjtype OPERATOR(pg_catalog.=) 'r')
       FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) $1");

/// What new partitions of `parent` take over; `None` when it is gone.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn model(session: &mut Session<'_>, parent: Oid) -> IotResult<Option<Model>> {
    let Some(row) = session.execute(&MODEL, &[parent.into()])?.first() else { return Ok(None) };
    Ok(Some(Model {
        replica_identity: row.get(1)?,
        identity_index: row.optional(2)?,
        tablespace: row.optional(3)?,
        access_method: row.optional(4)?,
        has_policies: row.get(5)?,
        has_default_grants: row.get(6)?,
    }))
}

/// A policy of row security; expressions as the catalogue keeps them.
pub struct Policy {
    /// Its name, quoted.
    pub name: String,
    /// ALL, SELECT, INSERT, UPDATE or DELETE.
    pub command: String,
    /// Whether it is permissive.
    pub is_permissive: bool,
    /// Roles, quoted, separated by commas.
    pub roles: String,
    /// `pg_node_tree` of USING.
    pub using: Option<String>,
    /// `pg_node_tree` of WITH CHECK.
    pub with_check: Option<String>,
}

statement!(POLICIES: (OIDOID)
    "SELECT pg_catalog.quote_ident(p.polname),
            CASE WHEN p.polcmd OPERATOR(pg_catalog.=) 'r' THEN 'SELECT' WHEN p.polcmd OPERATOR(pg_catalog.=) 'a' THEN 'INSERT'
                 WHEN p.polcmd OPERATOR(pg_catalog.=) 'w' THEN 'UPDATE' WHEN p.polcmd OPERATOR(pg_catalog.=) 'd' THEN 'DELETE'
                 ELSE 'ALL' END,
            p.polpermissive,
            (SELECT pg_catalog.string_agg(CASE WHEN r.id OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC'
                        ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(r.id)) END, ', ')
               FROM pg_catalog.unnest(p.polroles) AS r (id)),
            p.polqual::pg_catalog.text, p.polwithcheck::pg_catalog.text
       FROM pg_catalog.pg_policy p WHERE p.polrelid OPERATOR(pg_catalog.=) $1 ORDER BY p.polname");

/// The policies of `table`.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn policies(session: &mut Session<'_>, table: Oid) -> IotResult<Vec<Policy>> {
    let mut policies = Vec::new();
    session.execute(&POLICIES, &[table.into()])?.for_each(|row| {
        policies.push(Policy {
            name: row.get(1)?,
            command: row.get(2)?,
            is_permissive: row.get(3)?,
            roles: row.get(4)?,
            using: row.optional(5)?,
            with_check: row.optional(6)?,
        });
        Ok(())
    })?;
    Ok(policies)
}

/// A trigger of ours that each partition must have itself.
pub struct Trigger {
    /// Its name, quoted.
    pub name: String,
    /// Its function, quoted, with brackets.
    pub function: String,
    /// Whether it fires when replication applies changes as well.
    pub fires_always: bool,
}

statement!(
    /// After-truncate triggers with functions of this extension: those of a parent do not see a TRUNCATE of a partition.
    TRUNCATE_TRIGGERS: (OIDOID)
    "SELECT pg_catalog.quote_ident(t.tgname), t.tgfoid::pg_catalog.regprocedure::pg_catalog.text,
            t.tgenabled OPERATOR(pg_catalog.=) 'A'
       FROM pg_catalog.pg_trigger t
       JOIN pg_catalog.pg_depend d ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
                                  AND d.objid OPERATOR(pg_catalog.=) t.tgfoid AND d.deptype OPERATOR(pg_catalog.=) 'e'
       JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
                                     AND e.extname OPERATOR(pg_catalog.=) 'iot_ext'
      WHERE t.tgrelid OPERATOR(pg_catalog.=) $1 AND NOT t.tgisinternal
        AND (t.tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 35) OPERATOR(pg_catalog.=) 32");

/// The TRUNCATE triggers that partitions of `table` get.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn truncate_triggers(session: &mut Session<'_>, table: Oid) -> IotResult<Vec<Trigger>> {
    let mut triggers = Vec::new();
    session.execute(&TRUNCATE_TRIGGERS, &[table.into()])?.for_each(|row| {
        triggers.push(Trigger { name: row.get(1)?, function: row.get(2)?, fires_always: row.get(3)? });
        Ok(())
    })?;
    Ok(triggers)
}

statement!(GRANTEES: (TEXTOID)
    "SELECT DISTINCT CASE WHEN g.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC'
                          ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END
       FROM pg_catalog.pg_class c, LATERAL pg_catalog.aclexplode(c.relacl) AS g
      WHERE c.oid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass AND g.grantee OPERATOR(pg_catalog.<>) c.relowner");

/// Who may do something with `table` (quoted) beside its owner, because of default privileges.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn grantees(session: &mut Session<'_>, table: &str) -> IotResult<Vec<String>> {
    let mut roles = Vec::new();
    session.execute(&GRANTEES, &[table.into()])?.for_each(|row| {
        roles.push(row.get(1)?);
        Ok(())
    })?;
    Ok(roles)
}

statement!(CHILD_INDEX: (OIDOID, TEXTOID)
    "SELECT pg_catalog.quote_ident(c.relname)
       FROM pg_catalog.pg_inherits i
       JOIN pg_catalog.pg_index x ON x.indexrelid OPERATOR(pg_catalog.=) i.inhrelid
       JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid
      WHERE i.inhparent OPERATOR(pg_catalog.=) $1 AND x.indrelid OPERATOR(pg_catalog.=) $2::pg_catalog.regclass");

/// Name of the index of `partition` (quoted) that is a part of the parent's `index`.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn child_index(session: &mut Session<'_>, index: Oid, partition: &str) -> IotResult<Option<String>> {
    match session.execute(&CHILD_INDEX, &[index.into(), partition.into()])?.first() {
        Some(row) => row.optional(1),
        None => Ok(None),
    }
}

/// An index of a tier.
pub struct TierIndex {
    /// Its partition.
    pub partition: Oid,
    /// Its key, by which its name ends.
    pub key: String,
    /// Schema and name, quoted.
    pub qualified_name: String,
}

statement!(TIER_INDEXES: (OIDOID)
    "SELECT i.inhrelid, pg_catalog.right(c.relname::pg_catalog.text, 13), c.oid::pg_catalog.regclass::pg_catalog.text
       FROM pg_catalog.pg_inherits i
       JOIN pg_catalog.pg_index x ON x.indrelid OPERATOR(pg_catalog.=) i.inhrelid
       JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) x.indexrelid
      WHERE i.inhparent OPERATOR(pg_catalog.=) $1
        AND c.relname::pg_catalog.text OPERATOR(pg_catalog.~) '_tier_[0-9a-f]{8}$'");

/// The tier indexes of the partitions of `parent`, known by their names.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn tier_indexes(session: &mut Session<'_>, parent: Oid) -> IotResult<Vec<TierIndex>> {
    let mut indexes = Vec::new();
    session.execute(&TIER_INDEXES, &[parent.into()])?.for_each(|row| {
        indexes.push(TierIndex { partition: row.get(1)?, key: row.get(2)?, qualified_name: row.get(3)? });
        Ok(())
    })?;
    Ok(indexes)
}

statement!(
    /// From the catalogue alone: pg_partition_tree() would lock every partition.
    COUNTS: (OIDOID)
    "SELECT pg_catalog.count(*), (SELECT pg_catalog.count(*) FROM pg_catalog.pg_index x
                                   WHERE x.indrelid OPERATOR(pg_catalog.=) $1)
       FROM pg_catalog.pg_inherits i
       LEFT JOIN pg_catalog.pg_inherits s ON s.inhparent OPERATOR(pg_catalog.=) i.inhrelid
      WHERE i.inhparent OPERATOR(pg_catalog.=) $1");

/// Leaves of `parent`, and indexes of the table.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn counts(session: &mut Session<'_>, parent: Oid) -> IotResult<(i64, i64)> {
    match session.execute(&COUNTS, &[parent.into()])?.first() {
        Some(row) => Ok((row.get(1)?, row.get(2)?)),
        None => Ok((0, 0)),
    }
}

statement!(LAST_ANALYZED: (OIDOID)
    "SELECT GREATEST(pg_catalog.pg_stat_get_last_analyze_time($1), pg_catalog.pg_stat_get_last_autoanalyze_time($1))");

/// When `table` was last analyzed, as far as the statistics know.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn last_analyzed(
    session: &mut Session<'_>,
    table: Oid,
) -> IotResult<Option<pgrx::datum::TimestampWithTimeZone>> {
    match session.execute(&LAST_ANALYZED, &[table.into()])?.first() {
        Some(row) => row.optional(1),
        None => Ok(None),
    }
}

statement!(COLUMN_TYPE: (OIDOID, TEXTOID)
    "SELECT pg_catalog.format_type(a.atttypid, a.atttypmod)
       FROM pg_catalog.pg_attribute a
      WHERE a.attrelid OPERATOR(pg_catalog.=) $1 AND a.attname OPERATOR(pg_catalog.=) $2::pg_catalog.name
        AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped");

/// Type of a column of `table`; `None` when it has none of that name.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn column_type(session: &mut Session<'_>, table: Oid, column: &str) -> IotResult<Option<String>> {
    match session.execute(&COLUMN_TYPE, &[table.into(), column.into()])?.first() {
        Some(row) => row.optional(1),
        None => Ok(None),
    }
}

/// A column, as far as values of it are compared.
pub struct Column {
    /// Its type.
    pub type_oid: Oid,
    /// The same in SQL, without a modifier.
    pub type_name: String,
}

statement!(COLUMN: (OIDOID, TEXTOID)
    "SELECT a.atttypid, pg_catalog.format_type(a.atttypid, -1)
       FROM pg_catalog.pg_attribute a
      WHERE a.attrelid OPERATOR(pg_catalog.=) $1 AND a.attname OPERATOR(pg_catalog.=) $2::pg_catalog.name
        AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped");

/// The column of that name; `None` when `table` has none.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn column(session: &mut Session<'_>, table: Oid, name: &str) -> IotResult<Option<Column>> {
    match session.execute(&COLUMN, &[table.into(), name.into()])?.first() {
        Some(row) => Ok(Some(Column { type_oid: row.get(1)?, type_name: row.get(2)? })),
        None => Ok(None),
    }
}

statement!(OPERATOR: (OIDOID)
    "SELECT pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname)
       FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) o.oprnamespace
      WHERE o.oid OPERATOR(pg_catalog.=) $1");

/// An operator in SQL, whatever `search_path` is.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn operator(session: &mut Session<'_>, operator: Oid) -> IotResult<Option<String>> {
    match session.execute(&OPERATOR, &[operator.into()])?.first() {
        Some(row) => row.optional(1),
        None => Ok(None),
    }
}

/// A partition that is not its table's owner's.
pub struct ForeignPart {
    /// It.
    pub oid: Oid,
    /// Schema and name, quoted.
    pub qualified_name: String,
    /// Whose it is.
    pub owner: Oid,
}

statement!(FOREIGN_PARTS: (OIDOID, OIDOID)
    "WITH RECURSIVE part (oid) AS (
         SELECT $1
         UNION ALL
         SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN part p ON i.inhparent OPERATOR(pg_catalog.=) p.oid)
     SELECT c.oid, c.oid::pg_catalog.regclass::pg_catalog.text, c.relowner
       FROM part p JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) p.oid
      WHERE c.relowner OPERATOR(pg_catalog.<>) $2");

/// What of `partition` and the partitions below it does not belong to `owner`.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn foreign_parts(session: &mut Session<'_>, partition: Oid, owner: Oid) -> IotResult<Vec<ForeignPart>> {
    let mut parts = Vec::new();
    session.execute(&FOREIGN_PARTS, &[partition.into(), owner.into()])?.for_each(|row| {
        parts.push(ForeignPart { oid: row.get(1)?, qualified_name: row.get(2)?, owner: row.get(3)? });
        Ok(())
    })?;
    Ok(parts)
}

statement!(IS_REFERENCED: (OIDOID)
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint k
                     WHERE k.confrelid OPERATOR(pg_catalog.=) $1 AND k.contype OPERATOR(pg_catalog.=) 'f')");

/// Whether foreign keys refer to `table`.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn is_referenced(session: &mut Session<'_>, table: Oid) -> IotResult<bool> {
    session.execute(&IS_REFERENCED, &[table.into()])?.first().map_or(Ok(false), |row| row.get(1))
}

statement!(PARENT: (OIDOID)
    "SELECT i.inhparent FROM pg_catalog.pg_inherits i
       JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid AND c.relispartition
      WHERE i.inhrelid OPERATOR(pg_catalog.=) $1");

/// The table that `partition` is a partition of.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn parent(session: &mut Session<'_>, partition: Oid) -> IotResult<Option<Oid>> {
    match session.execute(&PARENT, &[partition.into()])?.first() {
        Some(row) => row.optional(1),
        None => Ok(None),
    }
}
