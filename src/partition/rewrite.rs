//! Partitions of which only some rows go: what stays is copied into a new partition, which takes the place of the old one.

use iot_core::partition::{Keep, Step};
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;

use super::make::{Indexes, Workshop, free_name};
use super::retire::drop_tables;
use super::rules::{new_holds, rows_of};
use super::run::{Action, Outcome, Steward, locked, log_forced, outcome};
use super::survey::Survey;
use crate::catalog::partition;
use crate::catalog::partition_policy::PartitionPolicy;
use crate::catalog::partition_state;
use crate::catalog::retention_rule::RetentionRule;
use crate::error::{IotError, IotResult};
use crate::pg::clock;
use crate::pg::relation::{self, Lock, OpenRelation};
use crate::pg::settings::Scoped;
use crate::pg::statement::Session;
use crate::pg::transaction::{self, Attempt};
use crate::statement;

statement!(COLUMNS: (OIDOID)
    "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ' ORDER BY a.attnum)
       FROM pg_catalog.pg_attribute a
      WHERE a.attrelid OPERATOR(pg_catalog.=) $1 AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
        AND a.attgenerated OPERATOR(pg_catalog.=) ''");

/// A partition, ready to take the place of an old one.
enum Ready {
    /// The new one, with this many rows.
    Kept(String, u64),
    /// Nothing stays.
    Empty,
    /// Nothing goes.
    Unchanged,
}

/// Takes from partitions the rows that have had their time. All copies are made first; the table is locked against
/// everybody only while they take the place of the old ones, and to the end of the transaction.
///
/// # Errors
/// What ends more than one step.
pub fn rewrite_all(
    session: &mut Session<'_>,
    table: Oid,
    policy: &PartitionPolicy,
    survey: &Survey,
    steward: &Steward,
    actions: &mut Vec<Action>,
) -> IotResult<()> {
    let steps: Vec<_> = survey
        .plan
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Rewrite { partition, keep, forced, .. } => Some((step, *partition, keep, forced)),
            _ => None,
        })
        .collect();
    if steps.is_empty() {
        return Ok(());
    }
    let workshop = {
        let parent = OpenRelation::open(table, Lock::AccessShare);
        Workshop::open(session, &parent, &policy.management)?
    };
    let mut done = Vec::new();
    let together = transaction::attempt(|| {
        let mut ready = Vec::new();
        for &(step, partition, keep, _) in &steps {
            let tried =
                transaction::attempt(|| copy(session, table, &workshop, survey, partition, keep, steward))?;
            match tried {
                Attempt::Done(Ready::Unchanged) => {}
                Attempt::Done(copied) => ready.push((step, partition, keep, copied)),
                other => done.push(survey.action(partition, step, outcome(other))),
            }
        }
        if !ready.is_empty() && !relation::try_lock(table, Lock::AccessExclusive, steward.patience.0) {
            locked();
        }
        let held = new_holds(session, table, &survey.rules)?;
        for (step, partition, keep, copied) in ready {
            // Its rows are another matter now than when they were copied: the next run knows which.
            if held.iter().any(|hold| hold.overlaps(&survey.partitions[partition].1)) {
                if let Ready::Kept(name, _) = &copied {
                    session.run(&format!("DROP TABLE {}", workshop.qualified(name)))?;
                }
                done.push(survey.action(partition, step, Outcome::Deferred));
                continue;
            }
            let mut action = survey.action(partition, step, Outcome::Done);
            match &copied {
                Ready::Kept(_, rows) => action.reason += &format!(": {rows}"),
                _ => action.verb = "drop",
            }
            let tried =
                transaction::attempt(|| swap(session, table, &workshop, survey, partition, keep, &copied))?;
            if let (Ready::Kept(name, _), Attempt::Locked | Attempt::Failed(_)) = (&copied, &tried) {
                session.run(&format!("DROP TABLE {}", workshop.qualified(name)))?;
            }
            action.outcome = outcome(tried);
            done.push(action);
        }
        Ok(())
    })?;
    match together {
        Attempt::Done(()) => {
            for (_, partition, _, forced) in steps {
                if let Some(guard) = forced {
                    log_forced(table, &survey.facts(partition)?.qualified_name, guard);
                }
            }
            actions.append(&mut done);
        }
        other => {
            let outcome = outcome(other);
            actions.extend(
                steps.iter().map(|&(step, partition, ..)| survey.action(partition, step, outcome.clone())),
            );
        }
    }
    Ok(())
}

/// Copies what `keep` leaves into a table of its own. Writers of the partition wait from now on; readers go on.
fn copy(
    session: &mut Session<'_>,
    table: Oid,
    workshop: &Workshop,
    survey: &Survey,
    number: usize,
    keep: &Keep,
    steward: &Steward,
) -> IotResult<Ready> {
    let partition = survey.partitions[number].0;
    let facts = survey.facts(number)?;
    if !relation::try_lock(partition, Lock::ShareRowExclusive, steward.patience.0) {
        locked();
    }
    steward.take_over(session, partition)?;
    let old = &facts.qualified_name;
    // Rows that a policy hides from the owner must be an error, not lost.
    let settings = Scoped::canonical();
    settings.set(c"row_security", c"off");
    let forced = OpenRelation::look(partition, |old| old.row_security().1);
    if forced {
        if !relation::try_lock(partition, Lock::AccessExclusive, steward.patience.0) {
            locked();
        }
        session.run(&format!("ALTER TABLE {old} NO FORCE ROW LEVEL SECURITY"))?;
    }
    let ready = copy_rows(session, table, workshop, survey, number, keep, forced)?;
    if forced {
        session.run(&format!("ALTER TABLE {old} FORCE ROW LEVEL SECURITY"))?;
    }
    Ok(ready)
}

fn copy_rows(
    session: &mut Session<'_>,
    table: Oid,
    workshop: &Workshop,
    survey: &Survey,
    number: usize,
    keep: &Keep,
    forced: bool,
) -> IotResult<Ready> {
    let (old_partition, range) = survey.partitions[number];
    let facts = survey.facts(number)?;
    let old = &facts.qualified_name;
    let stays = condition(session, table, workshop, keep, &survey.rules)?;
    let any = |session: &mut Session<'_>, which: &str| -> IotResult<bool> {
        let look = format!("SELECT 1 FROM {old} WHERE ({stays}) IS {which} TRUE LIMIT 1");
        Ok(session.query(&look)?.count() > 0)
    };
    if !any(session, "NOT")? {
        partition_state::settle(session, old_partition, table, &keep.signature())?;
        return Ok(Ready::Unchanged);
    }
    if !keep.default_rows && !any(session, "")? {
        return Ok(Ready::Empty);
    }
    let name = free_name(workshop.schema(), &facts.name)?;
    let new = workshop.qualified(&name);
    let tier = survey.settings.tier(range, clock::now());
    workshop.make(session, &name, range, Indexes::Before(tier))?;
    if forced {
        session.run(&format!("ALTER TABLE {new} NO FORCE ROW LEVEL SECURITY"))?;
    }
    // Known to hold the right rows, it is attached without being read again.
    let check = check_name(&name);
    session
        .run(&format!("ALTER TABLE {new} ADD CONSTRAINT {check} CHECK ({})", workshop.condition(range)))?;
    let columns: String = match session.execute(&COLUMNS, &[old_partition.into()])?.first() {
        Some(row) => row.get(1)?,
        None => return Err(IotError::wrong_state(format!("partition {old} has no columns"))),
    };
    let kept = session
        .query(&format!("INSERT INTO {new} ({columns}) SELECT {columns} FROM {old} WHERE {stays}"))?
        .count();
    if forced {
        session.run(&format!("ALTER TABLE {new} FORCE ROW LEVEL SECURITY"))?;
    }
    Ok(Ready::Kept(name, kept as u64))
}

/// Drops the old partition and gives the new one its place and name.
fn swap(
    session: &mut Session<'_>,
    table: Oid,
    workshop: &Workshop,
    survey: &Survey,
    number: usize,
    keep: &Keep,
    copied: &Ready,
) -> IotResult<()> {
    let facts = survey.facts(number)?;
    let is_referenced = partition::is_referenced(session, table)?;
    drop_tables(session, table, is_referenced, &[&facts.qualified_name])?;
    let Ready::Kept(name, _) = copied else { return Ok(()) };
    let new = workshop.qualified(name);
    workshop.attach(session, name, survey.partitions[number].1)?;
    session.run(&format!("ALTER TABLE {new} DROP CONSTRAINT {}", check_name(name)))?;
    session.run(&format!("ALTER TABLE {new} RENAME TO {}", quote_identifier(&facts.name)))?;
    if let Some(new) = relation::named(workshop.schema(), &facts.name) {
        partition_state::settle(session, new, table, &keep.signature())?;
    }
    Ok(())
}

fn check_name(name: &str) -> String {
    quote_identifier(format!("{name:.40}_bounds"))
}

/// The condition by which a row stays: it is one of a live rule, or with `default_rows` one of no rule.
fn condition(
    session: &mut Session<'_>,
    table: Oid,
    workshop: &Workshop,
    keep: &Keep,
    rules: &[RetentionRule],
) -> IotResult<String> {
    let mut matches = |ids: &[i64]| -> IotResult<Vec<String>> {
        let chosen = rules.iter().filter(|rule| ids.contains(&rule.id));
        chosen.map(|rule| rows_of(session, table, workshop, rule)).collect()
    };
    let live = matches(&keep.live)?;
    let mut stays = live.clone();
    if keep.default_rows {
        let ruled: Vec<_> = live.into_iter().chain(matches(&keep.expired)?).collect();
        stays.push(match ruled.as_slice() {
            [] => "true".to_owned(),
            ruled => format!("({}) IS NOT TRUE", ruled.join(" OR ")),
        });
    }
    Ok(if stays.is_empty() { "false".to_owned() } else { stays.join(" OR ") })
}
