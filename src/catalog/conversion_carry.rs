//! What the partitioned table takes over from the plain one when names change, as statements. They are read before that, while
//! the name is still the plain table's, and run after it.

use pgrx::pg_sys::Oid;

use super::conversion_source::list;
use crate::error::IotResult;
use crate::pg::statement::Session;
use crate::statement;

/// What is renamed beside the table: indexes and extended statistics of the plain one.
pub struct Renamed {
    /// INDEX or STATISTICS.
    pub kind: String,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

statement!(RENAMED: (OIDOID)
    "SELECT 'INDEX', n.nspname::text, c.relname::text FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid
       JOIN pg_namespace n ON n.oid = c.relnamespace WHERE x.indrelid = $1 AND x.indisvalid
     UNION ALL
     SELECT 'STATISTICS', n.nspname::text, s.stxname::text FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace
      WHERE s.stxrelid = $1 ORDER BY 1, 3");

/// Objects of `table` whose names are unique in their schema.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn renamed(session: &mut Session<'_>, table: Oid) -> IotResult<Vec<Renamed>> {
    list(session, &RENAMED, table, |row| {
        Ok(Renamed { kind: row.get(1)?, schema: row.get(2)?, name: row.get(3)? })
    })
}

statement!(
    /// In this order: sequences, triggers, comments, privileges, publications.
    AFTERWARDS: (OIDOID)
    "WITH t AS (SELECT c.oid, c.relowner, c.relacl, c.oid::regclass::text AS name FROM pg_class c WHERE c.oid = $1),
          k AS (SELECT k.oid, k.conname FROM pg_constraint k WHERE k.conrelid = $1),
          g AS (SELECT t.name AS target, '' AS columns, a.grantee, a.privilege_type, a.is_grantable
                  FROM t, LATERAL aclexplode(t.relacl) AS a
                UNION ALL
                SELECT t.name, format(' (%I)', c.attname), a.grantee, a.privilege_type, a.is_grantable
                  FROM t JOIN pg_attribute c ON c.attrelid = t.oid AND c.attnum > 0, LATERAL aclexplode(c.attacl) AS a)
     SELECT s.statement FROM (
        SELECT 1 AS place, a.attnum::int AS number,
               format('ALTER SEQUENCE %s OWNED BY %s.%I', d.objid::regclass, t.name, a.attname) AS statement
          FROM t JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = t.oid AND d.deptype = 'a'
                                 AND d.classid = 'pg_class'::regclass
          JOIN pg_class q ON q.oid = d.objid AND q.relkind = 'S'
          JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
        UNION ALL
        SELECT 2, 0, pg_get_triggerdef(r.oid) FROM pg_trigger r
         WHERE r.tgrelid = $1 AND NOT r.tgisinternal AND r.tgname <> ALL ('{iot_ext_conversion,iot_ext_conversion_truncate}')
        UNION ALL
        SELECT 3, 0, format('ALTER TABLE %s %s TRIGGER %I', t.name,
                            CASE r.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END,
                            r.tgname)
          FROM t JOIN pg_trigger r ON r.tgrelid = t.oid AND NOT r.tgisinternal AND r.tgenabled <> 'O'
                                  AND r.tgname <> ALL ('{iot_ext_conversion,iot_ext_conversion_truncate}')
        UNION ALL
        SELECT 4, 0, format('COMMENT ON %s IS %L',
                   CASE d.classoid WHEN 'pg_class'::regclass
                        THEN CASE WHEN d.objoid = t.oid THEN 'TABLE ' || t.name ELSE 'INDEX ' || d.objoid::regclass END
                   WHEN 'pg_constraint'::regclass
                        THEN (SELECT format('CONSTRAINT %I ON %s', k.conname, t.name) FROM k WHERE k.oid = d.objoid)
                   WHEN 'pg_trigger'::regclass
                        THEN (SELECT format('TRIGGER %I ON %s', r.tgname, t.name) FROM pg_trigger r WHERE r.oid = d.objoid)
                   WHEN 'pg_policy'::regclass
                        THEN (SELECT format('POLICY %I ON %s', p.polname, t.name) FROM pg_policy p WHERE p.oid = d.objoid)
                   ELSE (SELECT format('STATISTICS %I.%I', n.nspname, x.stxname) FROM pg_statistic_ext x
                           JOIN pg_namespace n ON n.oid = x.stxnamespace WHERE x.oid = d.objoid) END, d.description)
          FROM t JOIN pg_description d ON d.objsubid = 0 AND CASE d.classoid
                   WHEN 'pg_class'::regclass THEN d.objoid = t.oid
                        OR d.objoid IN (SELECT x.indexrelid FROM pg_index x WHERE x.indrelid = t.oid)
                   WHEN 'pg_constraint'::regclass THEN d.objoid IN (SELECT k.oid FROM k)
                   WHEN 'pg_trigger'::regclass THEN d.objoid IN (
                        SELECT r.oid FROM pg_trigger r WHERE r.tgrelid = t.oid AND NOT r.tgisinternal
                           AND r.tgname <> ALL ('{iot_ext_conversion,iot_ext_conversion_truncate}'))
                   WHEN 'pg_policy'::regclass THEN d.objoid IN (SELECT p.oid FROM pg_policy p WHERE p.polrelid = t.oid)
                   WHEN 'pg_statistic_ext'::regclass THEN d.objoid IN (
                        SELECT x.oid FROM pg_statistic_ext x WHERE x.stxrelid = t.oid)
                   ELSE false END
        UNION ALL
        SELECT 5, 0, format('REVOKE ALL ON TABLE %s FROM %I', t.name, pg_get_userbyid(t.relowner)) FROM t
         WHERE t.relacl IS NOT NULL
        UNION ALL
        SELECT 6, 0, format('GRANT %s%s ON TABLE %s TO %s%s', g.privilege_type, g.columns, g.target,
                            CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
                            CASE WHEN g.is_grantable AND g.grantee <> t.relowner THEN ' WITH GRANT OPTION' ELSE '' END)
          FROM g, t
        UNION ALL
        SELECT 7, 0, format('ALTER PUBLICATION %I ADD TABLE %s%s%s', p.pubname, t.name,
                            (SELECT ' (' || string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) || ')'
                               FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum = ANY (r.prattrs::int2[])),
                            ' WHERE (' || pg_get_expr(r.prqual, r.prrelid) || ')')
          FROM t JOIN pg_publication_rel r ON r.prrelid = t.oid JOIN pg_publication p ON p.oid = r.prpubid) s
      ORDER BY s.place, s.number, s.statement");

/// What is said of `table` once it is the new one that has its name.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn afterwards(session: &mut Session<'_>, table: Oid) -> IotResult<Vec<String>> {
    list(session, &AFTERWARDS, table, |row| row.get(1))
}

statement!(PUBLICATIONS: (OIDOID)
    "SELECT quote_ident(p.pubname) FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = $1");

/// Publications of `table`, quoted.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn publications(session: &mut Session<'_>, table: Oid) -> IotResult<Vec<String>> {
    list(session, &PUBLICATIONS, table, |row| row.get(1))
}

/// An identity column.
pub struct Identity {
    /// Schema of its sequence.
    pub schema: String,
    /// Name of its sequence.
    pub sequence: String,
    /// What stands in ALTER TABLE for the new table, the name of the table as before.
    pub statement: String,
    /// Privileges on the sequence.
    pub grants: Vec<String>,
}

statement!(IDENTITIES: (OIDOID)
    "SELECT n.nspname::text, c.relname::text,
            format('ALTER TABLE %s ALTER COLUMN %I ADD GENERATED %s AS IDENTITY (SEQUENCE NAME %I.%I START WITH %s INCREMENT BY %s MINVALUE %s MAXVALUE %s CACHE %s %s)',
                   a.attrelid::regclass, a.attname, CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END,
                   n.nspname, c.relname, s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcache,
                   CASE WHEN s.seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END),
            ARRAY(SELECT format('GRANT %s ON SEQUENCE %s TO %s%s', g.privilege_type, c.oid::regclass,
                                CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END,
                                CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
                    FROM aclexplode(c.relacl) AS g WHERE g.grantee <> c.relowner)
       FROM pg_attribute a
       JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
                       AND d.classid = 'pg_class'::regclass AND d.deptype = 'i'
       JOIN pg_sequence s ON s.seqrelid = d.objid JOIN pg_class c ON c.oid = d.objid
       JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE a.attrelid = $1 AND a.attidentity <> '' ORDER BY a.attnum");

/// The identity columns of `table`.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn identities(session: &mut Session<'_>, table: Oid) -> IotResult<Vec<Identity>> {
    list(session, &IDENTITIES, table, |row| {
        Ok(Identity {
            schema: row.get(1)?,
            sequence: row.get(2)?,
            statement: row.get(3)?,
            grants: row.get(4)?,
        })
    })
}

/// Extended statistics.
pub struct Statistics {
    /// Their schema.
    pub schema: String,
    /// Their name.
    pub name: String,
    /// What stands between name and table: kinds and columns.
    pub body: String,
    /// Their target, if one is set.
    pub target: Option<i32>,
}

statement!(STATISTICS: (OIDOID)
    "SELECT n.nspname::text, s.stxname::text,
            (SELECT left(substr(d.text, 1 + length(format('CREATE STATISTICS %I.%I', n.nspname, s.stxname))),
                         -length(' FROM ' || s.stxrelid::regclass)) FROM pg_get_statisticsobjdef(s.oid) AS d (text)),
            nullif(s.stxstattarget::int4, -1)
       FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxrelid = $1 ORDER BY s.stxname");

/// The extended statistics of `table`.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn statistics(session: &mut Session<'_>, table: Oid) -> IotResult<Vec<Statistics>> {
    list(session, &STATISTICS, table, |row| {
        Ok(Statistics { schema: row.get(1)?, name: row.get(2)?, body: row.get(3)?, target: row.optional(4)? })
    })
}

statement!(
    /// Options whose names begin with pg_ are PostgreSQL's own notes (15.20: pg_attver, the version of a column).
    COLUMN_OPTIONS: (OIDOID)
    "SELECT format('ALTER COLUMN %I SET STATISTICS %s', a.attname, a.attstattarget) FROM pg_attribute a
      WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND coalesce(a.attstattarget, -1) >= 0
     UNION ALL
     SELECT format('ALTER COLUMN %I SET (%s)', a.attname, string_agg(o.option, ', '))
       FROM pg_attribute a, LATERAL unnest(a.attoptions) AS o (option)
      WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND NOT starts_with(o.option, 'pg_')
      GROUP BY a.attname");

/// Statistics targets and options of columns, as parts of ALTER TABLE.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn column_options(session: &mut Session<'_>, table: Oid) -> IotResult<Vec<String>> {
    list(session, &COLUMN_OPTIONS, table, |row| row.get(1))
}
