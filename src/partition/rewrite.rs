//! Partitions of which only some rows go: what stays is copied into a new partition, which takes the place of the old one.

use iot_core::partition::{Keep, PartitionRange};
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_identifier, quote_literal};

use super::make::{Indexes, Workshop, free_name};
use crate::catalog::partition::Facts;
use crate::catalog::partition_state;
use crate::catalog::retention_rule::RetentionRule;
use crate::error::{IotError, IotResult};
use crate::pg::clock;
use crate::pg::relation::{self, Lock, OpenRelation};
use crate::pg::settings::Scoped;
use crate::pg::statement::Session;
use crate::statement;

use super::run::Patience;

statement!(COLUMNS: (OIDOID)
    "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum)
       FROM pg_catalog.pg_attribute a
      WHERE a.attrelid OPERATOR(pg_catalog.=) $1 AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
        AND a.attgenerated OPERATOR(pg_catalog.=) ''");

/// What became of it.
pub enum Rewritten {
    /// Rows went, this many stayed.
    Kept(u64),
    /// There was nothing to take away.
    Unchanged,
    /// Nothing stayed, so it was dropped.
    Dropped,
    /// A lock was not to be had.
    Locked,
}

/// Leaves of `partition` what `keep` says. Run it in a subtransaction: without the locks it leaves things half done.
///
/// Writers of the partition wait meanwhile; everybody else waits only while the new one takes the old one's place.
///
/// # Errors
/// What PostgreSQL raises.
pub fn rewrite(
    session: &mut Session<'_>,
    table: Oid,
    workshop: &Workshop,
    (partition, range): (Oid, PartitionRange),
    facts: &Facts,
    keep: &Keep,
    rules: &[RetentionRule],
    patience: Patience,
) -> IotResult<Rewritten> {
    if !relation::try_lock(partition, Lock::ShareRowExclusive, patience.0) {
        return Ok(Rewritten::Locked);
    }
    let old = &facts.qualified_name;
    // Rows that a policy hides from the owner must be an error, not lost.
    let settings = Scoped::new();
    settings.set(c"row_security", c"off");
    let forced = OpenRelation::look(partition, |old| old.row_security().1);
    if forced {
        if !relation::try_lock(partition, Lock::AccessExclusive, patience.0) {
            return Ok(Rewritten::Locked);
        }
        session.run(&format!("ALTER TABLE {old} NO FORCE ROW LEVEL SECURITY"))?;
    }
    let stays = condition(workshop, keep, rules);
    let any = |session: &mut Session<'_>, which: &str| -> IotResult<bool> {
        Ok(session.query(&format!("SELECT 1 FROM {old} WHERE ({stays}) IS {which} TRUE LIMIT 1"))?.count()
            > 0)
    };
    if !any(session, "NOT")? {
        if forced {
            session.run(&format!("ALTER TABLE {old} FORCE ROW LEVEL SECURITY"))?;
        }
        partition_state::settle(session, partition, table, &keep.signature())?;
        return Ok(Rewritten::Unchanged);
    }
    let lock_parent = || relation::try_lock(table, Lock::AccessExclusive, patience.0);
    if !keep.default_rows && !any(session, "")? {
        if !lock_parent() {
            return Ok(Rewritten::Locked);
        }
        session.run(&format!("DROP TABLE {old}"))?;
        return Ok(Rewritten::Dropped);
    }
    let name = free_name(&OpenRelation::look(partition, OpenRelation::schema), &facts.name)?;
    let new = workshop.qualified(&name);
    workshop.make(session, &name, range, Indexes::Before)?;
    if forced {
        session.run(&format!("ALTER TABLE {new} NO FORCE ROW LEVEL SECURITY"))?;
    }
    // Known to hold the right rows, it is attached without being read again.
    let check = quote_identifier(format!("{:.40}_bounds", name));
    session
        .run(&format!("ALTER TABLE {new} ADD CONSTRAINT {check} CHECK ({})", workshop.condition(range)))?;
    let columns: String = match session.execute(&COLUMNS, &[partition.into()])?.first() {
        Some(row) => row.get(1)?,
        None => return Err(IotError::wrong_state(format!("partition {old} has no columns"))),
    };
    let kept = session
        .query(&format!("INSERT INTO {new} ({columns}) SELECT {columns} FROM {old} WHERE {stays}"))?
        .count();
    if forced {
        session.run(&format!("ALTER TABLE {new} FORCE ROW LEVEL SECURITY"))?;
    }
    if !lock_parent() {
        return Ok(Rewritten::Locked);
    }
    session.run(&format!("DROP TABLE {old}"))?;
    workshop.attach(session, &name, range)?;
    session.run(&format!("ALTER TABLE {new} DROP CONSTRAINT {check}"))?;
    session.run(&format!("ALTER TABLE {new} RENAME TO {}", quote_identifier(&facts.name)))?;
    let schema = workshop.schema();
    if let Some(new) = relation::named(schema, &facts.name) {
        partition_state::settle(session, new, table, &keep.signature())?;
    }
    Ok(Rewritten::Kept(kept as u64))
}

/// The condition by which a row stays: it is one of a live rule, or with `default_rows` one of no rule.
fn condition(workshop: &Workshop, keep: &Keep, rules: &[RetentionRule]) -> String {
    let matches = |ids: &[i64]| -> Vec<String> {
        rules.iter().filter(|rule| ids.contains(&rule.id)).map(|rule| rows_of(workshop, rule)).collect()
    };
    let live = matches(&keep.live);
    let mut stays = live.clone();
    if keep.default_rows {
        let ruled: Vec<_> = live.into_iter().chain(matches(&keep.expired)).collect();
        stays.push(match ruled.as_slice() {
            [] => "true".to_owned(),
            ruled => format!("({}) IS NOT TRUE", ruled.join(" OR ")),
        });
    }
    if stays.is_empty() { "false".to_owned() } else { stays.join(" OR ") }
}

fn rows_of(workshop: &Workshop, rule: &RetentionRule) -> String {
    let rows = match &rule.rows {
        None => "true".to_owned(),
        Some((column, None)) => format!("{} IS NULL", quote_identifier(column)),
        Some((column, Some(value))) => format!(
            "{}::pg_catalog.text OPERATOR(pg_catalog.=) {}",
            quote_identifier(column),
            quote_literal(value)
        ),
    };
    if rule.keep_for.is_some() {
        return format!("({rows})");
    }
    let held = PartitionRange { start: clock::from_pg(rule.held_from), end: clock::from_pg(rule.held_until) };
    format!("({rows} AND {})", workshop.condition(held))
}
