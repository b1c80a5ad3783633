//! A plain table that is to be made anew: what of it has to be said again, and what stands in the way.

use pgrx::pg_sys::Oid;

use crate::error::IotResult;
use crate::pg::statement::Session;
use crate::statement;

/// What the catalogue knows of a plain table beyond its columns.
#[derive(Default)]
pub struct PlainTable {
    /// Whether it is permanent, and neither partitioned, inherited nor a partition.
    pub is_plain: bool,
    /// Its comment.
    pub comment: Option<String>,
    /// Sequences of its columns, quoted, each with the column.
    pub sequences: Vec<(String, String)>,
    /// Statements that give the new table its keys, indexes and grants; the name of the table is as before.
    pub afterwards: Vec<String>,
    /// The first thing that would be lost, in words.
    pub dependant: Option<String>,
}

statement!(TABLE: (OIDOID)
    "SELECT c.relkind OPERATOR(pg_catalog.=) 'r' AND c.relpersistence OPERATOR(pg_catalog.=) 'p' AND NOT c.relispartition
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid OPERATOR(pg_catalog.=) c.oid
                                OR i.inhparent OPERATOR(pg_catalog.=) c.oid),
            pg_catalog.obj_description(c.oid, 'pg_class'),
            (SELECT d.what FROM (
                SELECT 1 AS place, 'trigger ' OPERATOR(pg_catalog.||) t.tgname AS what FROM pg_catalog.pg_trigger t
                 WHERE t.tgrelid OPERATOR(pg_catalog.=) c.oid AND NOT t.tgisinternal
                UNION ALL
                SELECT 2, 'policy ' OPERATOR(pg_catalog.||) p.polname FROM pg_catalog.pg_policy p
                 WHERE p.polrelid OPERATOR(pg_catalog.=) c.oid
                UNION ALL
                SELECT 3, 'rule ' OPERATOR(pg_catalog.||) r.rulename FROM pg_catalog.pg_rewrite r
                 WHERE r.ev_class OPERATOR(pg_catalog.=) c.oid
                UNION ALL
                SELECT 4, 'foreign key ' OPERATOR(pg_catalog.||) k.conname FROM pg_catalog.pg_constraint k
                 WHERE k.contype OPERATOR(pg_catalog.=) 'f'
                   AND (k.conrelid OPERATOR(pg_catalog.=) c.oid OR k.confrelid OPERATOR(pg_catalog.=) c.oid)
                UNION ALL
                SELECT 5, 'exclusion constraint ' OPERATOR(pg_catalog.||) k.conname FROM pg_catalog.pg_constraint k
                 WHERE k.contype OPERATOR(pg_catalog.=) 'x' AND k.conrelid OPERATOR(pg_catalog.=) c.oid
                UNION ALL
                SELECT 6, 'identity column ' OPERATOR(pg_catalog.||) a.attname FROM pg_catalog.pg_attribute a
                 WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attidentity OPERATOR(pg_catalog.<>) ''
                UNION ALL
                SELECT 7, 'row security' WHERE c.relrowsecurity
                UNION ALL
                SELECT 8, pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) OPERATOR(pg_catalog.||) ' on it'
                  FROM pg_catalog.pg_depend d
                 WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                   AND d.refobjid OPERATOR(pg_catalog.=) c.oid AND d.deptype OPERATOR(pg_catalog.=) 'n'
                   AND d.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_constraint'::pg_catalog.regclass
                UNION ALL
                SELECT 9, pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) OPERATOR(pg_catalog.||) ' of its type'
                  FROM pg_catalog.pg_depend d
                 WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::pg_catalog.regclass
                   AND d.refobjid OPERATOR(pg_catalog.=) c.reltype AND d.deptype OPERATOR(pg_catalog.=) 'n'
                UNION ALL
                SELECT 10, 'publication ' OPERATOR(pg_catalog.||) p.pubname FROM pg_catalog.pg_publication_rel r
                  JOIN pg_catalog.pg_publication p ON p.oid OPERATOR(pg_catalog.=) r.prpubid
                 WHERE r.prrelid OPERATOR(pg_catalog.=) c.oid) d
              ORDER BY d.place, d.what LIMIT 1)
       FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) $1");

statement!(SEQUENCES: (OIDOID)
    "SELECT d.objid::pg_catalog.regclass::pg_catalog.text, a.attname::pg_catalog.text
       FROM pg_catalog.pg_depend d
       JOIN pg_catalog.pg_class s ON s.oid OPERATOR(pg_catalog.=) d.objid AND s.relkind OPERATOR(pg_catalog.=) 'S'
       JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) d.refobjid
                                     AND a.attnum OPERATOR(pg_catalog.=) d.refobjsubid
      WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
        AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
        AND d.refobjid OPERATOR(pg_catalog.=) $1 AND d.deptype OPERATOR(pg_catalog.=) 'a'");

statement!(
    /// Keys first, then other indexes, then grants on the table and its columns.
    AFTERWARDS: (OIDOID)
    "SELECT s.statement FROM (
        SELECT 1 AS place, k.conname AS name, pg_catalog.format('ALTER TABLE %s ADD CONSTRAINT %I %s',
                   k.conrelid::pg_catalog.regclass, k.conname, pg_catalog.pg_get_constraintdef(k.oid)) AS statement
          FROM pg_catalog.pg_constraint k
         WHERE k.conrelid OPERATOR(pg_catalog.=) $1 AND k.contype OPERATOR(pg_catalog.=) ANY ('{p,u}'::pg_catalog.\"char\"[])
        UNION ALL
        SELECT 2, c.relname, pg_catalog.pg_get_indexdef(x.indexrelid)
          FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) x.indexrelid
         WHERE x.indrelid OPERATOR(pg_catalog.=) $1
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid OPERATOR(pg_catalog.=) x.indexrelid)
        UNION ALL
        SELECT 3, '', pg_catalog.format('GRANT %s ON TABLE %s TO %s%s', g.privilege_type, c.oid::pg_catalog.regclass,
                   CASE WHEN g.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC'
                        ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END,
                   CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
          FROM pg_catalog.pg_class c, LATERAL pg_catalog.aclexplode(c.relacl) AS g
         WHERE c.oid OPERATOR(pg_catalog.=) $1 AND g.grantee OPERATOR(pg_catalog.<>) c.relowner
        UNION ALL
        SELECT 4, '', pg_catalog.format('GRANT %s (%I) ON TABLE %s TO %s%s', g.privilege_type, a.attname,
                   a.attrelid::pg_catalog.regclass,
                   CASE WHEN g.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC'
                        ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(g.grantee)) END,
                   CASE WHEN g.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
          FROM pg_catalog.pg_attribute a, LATERAL pg_catalog.aclexplode(a.attacl) AS g
         WHERE a.attrelid OPERATOR(pg_catalog.=) $1 AND a.attnum OPERATOR(pg_catalog.>) 0) s
      ORDER BY s.place, s.name");

/// What is known of `table`.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn load(session: &mut Session<'_>, table: Oid) -> IotResult<PlainTable> {
    let mut plain = PlainTable::default();
    if let Some(row) = session.execute(&TABLE, &[table.into()])?.first() {
        plain.is_plain = row.get(1)?;
        plain.comment = row.optional(2)?;
        plain.dependant = row.optional(3)?;
    }
    session.execute(&SEQUENCES, &[table.into()])?.for_each(|row| {
        plain.sequences.push((row.get(1)?, row.get(2)?));
        Ok(())
    })?;
    session.execute(&AFTERWARDS, &[table.into()])?.for_each(|row| {
        plain.afterwards.push(row.get(1)?);
        Ok(())
    })?;
    Ok(plain)
}
