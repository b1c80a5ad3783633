//! What PostgreSQL's catalogue says of a table that is to be converted: what stands in the way, and what is carried over.
//!
//! `search_path` is pinned by the functions that get here, so names print with their schemas and operators are PostgreSQL's.

use pgrx::pg_sys::Oid;

use crate::error::{IotError, IotResult};
use crate::pg::statement::{Row, Session};
use crate::statement;

/// The table itself.
pub struct Source {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Both, quoted.
    pub qualified_name: String,
    /// Who owns it.
    pub owner: Oid,
    /// `r` for a plain table.
    pub kind: String,
    /// Rows, estimated.
    pub row_estimate: i64,
    /// Tablespace, quoted, unless it is the database's.
    pub tablespace: Option<String>,
    /// Storage parameters, those of its TOAST table among them.
    pub storage_parameters: Vec<String>,
    /// `d`, `n`, `f` or `i`.
    pub replica_identity: String,
    /// Whether row security is enabled, and forced on the owner.
    pub row_security: (bool, bool),
    /// Whether the mark of CLUSTER is on one of its indexes.
    pub is_clustered: bool,
}

statement!(SOURCE: (OIDOID)
    "SELECT n.nspname::text, c.relname::text, quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relowner,
            c.relkind::text,
            CASE WHEN c.reltuples > 0 OR c.relkind <> 'r' THEN greatest(c.reltuples, 0)::int8
                 -- Never analyzed: a guess.
                 ELSE 50 * pg_relation_size(c.oid) / current_setting('block_size')::int8 END,
            (SELECT quote_ident(s.spcname) FROM pg_tablespace s WHERE s.oid = c.reltablespace),
            coalesce(c.reloptions, '{}') ||
                coalesce((SELECT array_agg('toast.' || option) FROM unnest(t.reloptions) AS o (option)), '{}'),
            c.relreplident::text, c.relrowsecurity, c.relforcerowsecurity,
            EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisclustered)
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
      WHERE c.oid = $1");

/// What is known of `table`.
///
/// # Errors
/// 55000 when it is gone.
pub fn load(session: &mut Session<'_>, table: Oid) -> IotResult<Source> {
    let row = session.execute(&SOURCE, &[table.into()])?.first().ok_or_else(gone)?;
    Ok(Source {
        schema: row.get(1)?,
        name: row.get(2)?,
        qualified_name: row.get(3)?,
        owner: row.get(4)?,
        kind: row.get(5)?,
        row_estimate: row.get(6)?,
        tablespace: row.optional(7)?,
        storage_parameters: row.get(8)?,
        replica_identity: row.get(9)?,
        row_security: (row.get(10)?, row.get(11)?),
        is_clustered: row.get(12)?,
    })
}

/// The table is gone.
pub fn gone() -> IotError {
    IotError::wrong_state("the table of the conversion is gone")
        .hint("Drop what is left of the conversion: tables with names that end in _partitioned and _conversion_log.")
}

statement!(
    /// Everything that would be lost, or could not be kept right; $2 says that the table is a default partition, $3 that its
    /// changes are logged already.
    OBSTACLES: (OIDOID, BOOLOID, BOOLOID)
    "SELECT DISTINCT o.place, o.what FROM (
        SELECT 1 AS place, CASE c.relpersistence WHEN 'u' THEN 'it is unlogged' ELSE 'it is temporary' END AS what
          FROM pg_class c WHERE c.oid = $1 AND c.relpersistence <> 'p'
        UNION ALL
        SELECT 2, 'it inherits from table ' || i.inhparent::regclass FROM pg_inherits i WHERE i.inhrelid = $1 AND NOT $2
        UNION ALL
        SELECT 3, 'table ' || i.inhrelid::regclass || ' inherits from it' FROM pg_inherits i WHERE i.inhparent = $1
        UNION ALL
        SELECT 4, 'it is a typed table (OF ' || c.reloftype::regtype || ')' FROM pg_class c
         WHERE c.oid = $1 AND c.reloftype <> 0
        UNION ALL
        SELECT 5, 'its access method is ' || a.amname FROM pg_class c JOIN pg_am a ON a.oid = c.relam
         WHERE c.oid = $1 AND a.amname <> 'heap'
        UNION ALL
        SELECT 6, 'it belongs to extension ' || e.extname FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
         WHERE d.classid = 'pg_class'::regclass AND d.objid = $1 AND d.refclassid = 'pg_extension'::regclass
           AND d.deptype = 'e'
        UNION ALL
        SELECT 7, 'it has a security label' FROM pg_seclabel l WHERE l.classoid = 'pg_class'::regclass AND l.objoid = $1
        UNION ALL
        SELECT 8, 'foreign key ' || k.conname || ' of table ' || k.conrelid::regclass || ' references it'
          FROM pg_constraint k WHERE k.confrelid = $1 AND k.contype = 'f'
        UNION ALL
        SELECT 9, CASE WHEN r.ev_class = $1 THEN 'it has rule ' || r.rulename
                       ELSE pg_describe_object('pg_class'::regclass, r.ev_class, 0) || ' depends on it' END
          FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
         WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1
        UNION ALL
        SELECT 10, pg_describe_object(d.classid, d.objid, 0) || ' depends on it'
          FROM pg_depend d
         WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND d.deptype = 'n'
           AND NOT CASE d.classid
                   WHEN 'pg_rewrite'::regclass THEN true
                   WHEN 'pg_class'::regclass THEN d.objid = $1
                        OR EXISTS (SELECT FROM pg_index x WHERE x.indexrelid = d.objid AND x.indrelid = $1)
                        OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = d.objid AND i.inhparent = $1)
                   WHEN 'pg_constraint'::regclass THEN EXISTS (
                        SELECT FROM pg_constraint k WHERE k.oid = d.objid AND (k.conrelid = $1 OR k.confrelid = $1))
                   WHEN 'pg_policy'::regclass THEN EXISTS (
                        SELECT FROM pg_policy p WHERE p.oid = d.objid AND p.polrelid = $1)
                   WHEN 'pg_trigger'::regclass THEN EXISTS (
                        SELECT FROM pg_trigger t WHERE t.oid = d.objid AND t.tgrelid = $1)
                   WHEN 'pg_attrdef'::regclass THEN EXISTS (
                        SELECT FROM pg_attrdef f WHERE f.oid = d.objid AND f.adrelid = $1)
                   WHEN 'pg_statistic_ext'::regclass THEN EXISTS (
                        SELECT FROM pg_statistic_ext s WHERE s.oid = d.objid AND s.stxrelid = $1)
                   WHEN 'pg_publication_rel'::regclass THEN EXISTS (
                        SELECT FROM pg_publication_rel r WHERE r.oid = d.objid AND r.prrelid = $1)
                   ELSE false END
        UNION ALL
        SELECT 11, pg_describe_object(d.classid, d.objid, d.objsubid) || ' is of its type'
          FROM pg_depend d JOIN pg_class c ON c.oid = $1
         WHERE d.refclassid = 'pg_type'::regclass AND d.deptype = 'n'
           AND d.refobjid IN (c.reltype, (SELECT t.typarray FROM pg_type t WHERE t.oid = c.reltype))
        UNION ALL
        SELECT 12, 'it has exclusion constraint ' || k.conname FROM pg_constraint k JOIN pg_index x ON x.indexrelid = k.conindid
         WHERE k.conrelid = $1 AND x.indrelid = $1 AND (k.contype = 'x' OR x.indisexclusion)
        UNION ALL
        SELECT 13, 'constraint ' || k.conname || ' is not validated' FROM pg_constraint k
         WHERE k.conrelid = $1 AND NOT k.convalidated
        UNION ALL
        SELECT 14, 'constraint ' || k.conname || ' is NO INHERIT' FROM pg_constraint k
         WHERE k.conrelid = $1 AND k.contype = 'c' AND k.connoinherit
        UNION ALL
        SELECT 15, 'index ' || x.indexrelid::regclass || ' is not valid' FROM pg_index x
         WHERE x.indrelid = $1 AND NOT x.indisvalid
        UNION ALL
        SELECT 16, 'row trigger ' || t.tgname || ' has transition tables' FROM pg_trigger t
         WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgtype & 1 = 1
           AND (t.tgoldtable IS NOT NULL OR t.tgnewtable IS NOT NULL)
        UNION ALL
        SELECT 17, 'trigger ' || t.tgname || ' is of the default partition itself' FROM pg_trigger t
         WHERE $2 AND t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgparentid = 0
           AND t.tgname <> ALL ('{iot_ext_conversion,iot_ext_conversion_truncate}')
        UNION ALL
        SELECT 18, 'trigger ' || t.tgname || ' is left over from a conversion elsewhere' FROM pg_trigger t
         WHERE NOT $3 AND t.tgrelid = $1 AND t.tgname = ANY ('{iot_ext_conversion,iot_ext_conversion_truncate}')
        UNION ALL
        SELECT 19, 'publication ' || p.pubname || CASE WHEN p.puballtables THEN ' is FOR ALL TABLES: subscribers would be sent the copy'
                   WHEN r.oid IS NULL THEN ' is of its whole schema: subscribers would be sent the copy'
                   WHEN NOT p.pubviaroot THEN ' is without publish_via_partition_root: subscribers would be sent partitions'
                   ELSE ' does not belong to the owner of the table' END
          FROM pg_publication p
          LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = $1
         WHERE p.puballtables
            OR EXISTS (SELECT FROM pg_publication_namespace s JOIN pg_class c ON c.relnamespace = s.pnnspid
                        WHERE s.pnpubid = p.oid AND c.oid = $1)
            OR r.oid IS NOT NULL
               AND (NOT p.pubviaroot OR NOT pg_has_role((SELECT c.relowner FROM pg_class c WHERE c.oid = $1), p.pubowner, 'USAGE'))
        UNION ALL
        SELECT 21, 'its owner may not create tables in schema ' || n.nspname FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = $1 AND NOT has_schema_privilege(c.relowner, n.oid, 'CREATE')
        UNION ALL
        SELECT 22, 'statistics object ' || s.stxname || ' does not belong to the owner of the table'
          FROM pg_statistic_ext s JOIN pg_class c ON c.oid = s.stxrelid
         WHERE c.oid = $1 AND NOT pg_has_role(c.relowner, s.stxowner, 'USAGE')
        UNION ALL
        SELECT 23, 'the owner of the table may not execute the function of trigger ' || t.tgname
          FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
         WHERE c.oid = $1 AND NOT t.tgisinternal AND NOT has_function_privilege(c.relowner, t.tgfoid, 'EXECUTE')
           AND t.tgname <> ALL ('{iot_ext_conversion,iot_ext_conversion_truncate}')
        UNION ALL
        SELECT 24, 'the owner of the table may not make foreign key ' || k.conname
          FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
         WHERE c.oid = $1 AND k.contype = 'f' AND NOT has_any_column_privilege(c.relowner, k.confrelid, 'REFERENCES')
        UNION ALL
        SELECT 20, 'subscription ' || s.subname || ' writes to it' FROM pg_subscription_rel r
          JOIN pg_subscription s ON s.oid = r.srsubid WHERE r.srrelid = $1) o
      ORDER BY o.place, o.what");

/// What stands in the way of converting `table`, in words.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn obstacles(
    session: &mut Session<'_>,
    table: Oid,
    is_default: bool,
    is_logged: bool,
) -> IotResult<Vec<String>> {
    let mut found = Vec::new();
    session.execute(&OBSTACLES, &[table.into(), is_default.into(), is_logged.into()])?.for_each(|row| {
        found.push(row.get(2)?);
        Ok(())
    })?;
    Ok(found)
}

/// A column.
#[derive(Clone)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, with modifiers.
    pub type_name: String,
    /// Its number.
    pub number: i16,
    /// Whether its values are computed from others.
    pub is_generated: bool,
    /// Whether it can be NULL.
    pub is_nullable: bool,
    /// Its type, or the one below its domain.
    pub base_type: String,
    /// Its collation, quoted, if it has one.
    pub collation: Option<String>,
}

statement!(COLUMNS: (OIDOID)
    "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnum, a.attgenerated <> '', NOT a.attnotnull,
            format_type(CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END, NULL),
            (SELECT quote_ident(n.nspname) || '.' || quote_ident(l.collname)
               FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = a.attcollation)
       FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
      WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum");

/// The columns of `table`, in order.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn columns(session: &mut Session<'_>, table: Oid) -> IotResult<Vec<Column>> {
    list(session, &COLUMNS, table, |row| {
        Ok(Column {
            name: row.get(1)?,
            type_name: row.get(2)?,
            number: row.get(3)?,
            is_generated: row.get(4)?,
            is_nullable: row.get(5)?,
            base_type: row.get(6)?,
            collation: row.optional(7)?,
        })
    })
}

statement!(
    /// An index by which every row can be found and rows can be put in order, with operators that are PostgreSQL's own.
    KEY: (OIDOID)
    "SELECT x.indexrelid, ARRAY(SELECT a.attname::text FROM generate_series(0, x.indnkeyatts - 1) AS g (n)
                                  JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[g.n] ORDER BY g.n)
       FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid
      WHERE x.indrelid = $1 AND x.indisunique AND x.indimmediate AND x.indisvalid AND NOT x.indisexclusion
        AND x.indpred IS NULL AND x.indexprs IS NULL
        AND (c.relreplident <> 'i' OR x.indisreplident)
        AND NOT EXISTS (
            SELECT FROM generate_series(0, x.indnkeyatts - 1) AS g (n)
              JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[g.n]
              JOIN pg_opclass o ON o.oid = x.indclass[g.n]
             WHERE NOT a.attnotnull OR x.indoption[g.n] <> 0 OR x.indcollation[g.n] <> a.attcollation
                OR a.attgenerated <> '' OR NOT o.opcdefault OR o.opcnamespace <> 'pg_catalog'::regnamespace)
      ORDER BY x.indisprimary DESC, x.indnkeyatts, x.indexrelid LIMIT 1");

/// The index by which rows of `table` are told apart, and its columns.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn key(session: &mut Session<'_>, table: Oid) -> IotResult<Option<(Oid, Vec<String>)>> {
    let row = session.execute(&KEY, &[table.into()])?.first();
    row.map(|row| Ok((row.get(1)?, row.get(2)?))).transpose()
}

/// An index, or the key that it belongs to.
#[derive(Clone)]
pub struct Index {
    /// Its oid.
    pub oid: Oid,
    /// Its name.
    pub name: String,
    /// Whether it is unique.
    pub is_unique: bool,
    /// What follows `USING` in its definition.
    pub definition: String,
    /// Its tablespace, quoted, unless it is the database's.
    pub tablespace: Option<String>,
    /// Of a key: its definition as a constraint.
    pub constraint: Option<String>,
    /// Storage parameters.
    pub storage_parameters: Vec<String>,
}

statement!(INDEXES: (OIDOID)
    "SELECT x.indexrelid, c.relname::text, x.indisunique,
            substr(pg_get_indexdef(c.oid), 1 + length(format('CREATE %sINDEX %I ON %I.%I USING ',
                   CASE WHEN x.indisunique THEN 'UNIQUE ' ELSE '' END, c.relname, n.nspname, t.relname))),
            (SELECT quote_ident(s.spcname) FROM pg_tablespace s WHERE s.oid = c.reltablespace),
            (SELECT pg_get_constraintdef(k.oid) FROM pg_constraint k
              WHERE k.conindid = c.oid AND k.conrelid = t.oid AND k.contype IN ('p', 'u')),
            coalesce(c.reloptions, '{}')
       FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
       JOIN pg_namespace n ON n.oid = t.relnamespace
      WHERE x.indrelid = $1 AND x.indisvalid ORDER BY x.indexrelid");

/// The valid indexes of `table`.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn indexes(session: &mut Session<'_>, table: Oid) -> IotResult<Vec<Index>> {
    list(session, &INDEXES, table, |row| {
        Ok(Index {
            oid: row.get(1)?,
            name: row.get(2)?,
            is_unique: row.get(3)?,
            definition: row.get(4)?,
            tablespace: row.optional(5)?,
            constraint: row.optional(6)?,
            storage_parameters: row.get(7)?,
        })
    })
}

statement!(FOREIGN_KEYS: (OIDOID)
    "SELECT k.conname::text, pg_get_constraintdef(k.oid), k.confrelid FROM pg_constraint k
      WHERE k.conrelid = $1 AND k.contype = 'f' ORDER BY k.conname");

/// A foreign key.
pub struct ForeignKey {
    /// Its name.
    pub name: String,
    /// Its definition.
    pub definition: String,
    /// The table that it references.
    pub referenced: Oid,
}

statement!(OF_PARTITIONS: (OIDOID)
    "SELECT DISTINCT k.conname::text, pg_get_constraintdef(k.oid), k.confrelid
       FROM pg_inherits i JOIN pg_constraint k ON k.conrelid = i.inhrelid
      WHERE i.inhparent = $1 AND k.contype = 'f' AND k.conparentid = 0 ORDER BY 1");

/// Foreign keys that partitions of `table` have for themselves.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn foreign_keys_of_partitions(session: &mut Session<'_>, table: Oid) -> IotResult<Vec<ForeignKey>> {
    list(session, &OF_PARTITIONS, table, foreign_key)
}

fn foreign_key(row: &Row<'_>) -> IotResult<ForeignKey> {
    Ok(ForeignKey { name: row.get(1)?, definition: row.get(2)?, referenced: row.get(3)? })
}

/// Foreign keys of `table`, by name.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn foreign_keys(session: &mut Session<'_>, table: Oid) -> IotResult<Vec<ForeignKey>> {
    list(session, &FOREIGN_KEYS, table, foreign_key)
}

statement!(BEFORE_ROW_TRIGGERS: (OIDOID)
    "SELECT t.tgname::text FROM pg_trigger t
      WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgtype & 3 = 3 ORDER BY t.tgname");

/// Triggers of `table` that may change a row before it is stored.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn before_row_triggers(session: &mut Session<'_>, table: Oid) -> IotResult<Vec<String>> {
    list(session, &BEFORE_ROW_TRIGGERS, table, |row| row.get(1))
}

statement!(
    /// What must not change while a table is converted. Indexes that are being built do not count.
    DEFINITION: (OIDOID)
    "SELECT md5(string_agg(d.part, E'\\n' ORDER BY d.part)) FROM (
        SELECT concat_ws(' ', 'table', c.relpersistence, c.relrowsecurity, c.relforcerowsecurity, c.relreplident, c.relowner)
                   AS part FROM pg_class c WHERE c.oid = $1
        UNION ALL
        SELECT concat_ws(' ', 'column', a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated,
                         a.attidentity, a.attcollation, pg_get_expr(f.adbin, f.adrelid))
          FROM pg_attribute a LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT concat_ws(' ', 'constraint', k.conname, pg_get_constraintdef(k.oid)) FROM pg_constraint k
         WHERE k.conrelid = $1 AND k.contype <> 't'
        UNION ALL
        SELECT concat_ws(' ', 'index', pg_get_indexdef(x.indexrelid)) FROM pg_index x WHERE x.indrelid = $1 AND x.indisvalid
        UNION ALL
        SELECT concat_ws(' ', 'statistics', pg_get_statisticsobjdef(s.oid)) FROM pg_statistic_ext s WHERE s.stxrelid = $1
        UNION ALL
        SELECT concat_ws(' ', 'policy', p.polname, p.polcmd, p.polpermissive, p.polroles::text,
                         pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
          FROM pg_policy p WHERE p.polrelid = $1) d");

/// A checksum of the definition of `table`.
///
/// # Errors
/// 55000 when it is gone.
pub fn definition(session: &mut Session<'_>, table: Oid) -> IotResult<String> {
    session.execute(&DEFINITION, &[table.into()])?.first().ok_or_else(gone)?.get(1)
}

/// Runs a statement about `table` and reads every row.
///
/// # Errors
/// That of `read`, and what PostgreSQL raises.
pub fn list<T>(
    session: &mut Session<'_>,
    statement: &'static std::thread::LocalKey<crate::pg::statement::Statement>,
    table: Oid,
    read: impl Fn(&Row<'_>) -> IotResult<T>,
) -> IotResult<Vec<T>> {
    let rows = session.execute(statement, &[table.into()])?;
    let mut found = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        found.push(read(row)?);
        Ok(())
    })?;
    Ok(found)
}
