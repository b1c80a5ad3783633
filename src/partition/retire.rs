//! Dropping partitions: many at once in this transaction, or one by one at the top level of a session, where they are
//! detached concurrently first. What is caught between DETACH and DROP is found again by its mark.

use iot_core::partition::{PartitionRange, Step};
use iot_core::time::Timestamp;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_literal;

use super::make::Workshop;
use super::rules::new_holds;
use super::run::{Action, Outcome, Patience, Steward, locked, log_forced, outcome};
use super::survey::Survey;
use crate::catalog::partition;
use crate::catalog::partition_policy::PartitionPolicy;
use crate::catalog::partition_state::{self, PartitionState};
use crate::engine;
use crate::error::{IotError, IotResult};
use crate::pg::partition_bounds;
use crate::pg::relation::{self, Lock, OpenRelation};
use crate::pg::statement::Session;
use crate::pg::top_level::Part;
use crate::pg::transaction::{self, Attempt};

/// Drops what the plan drops, in one statement where it can.
///
/// The parent is locked for the rest of the transaction, but never waited for in line: whoever comes meanwhile passes.
///
/// # Errors
/// What ends more than one step.
pub fn drop_partitions(
    session: &mut Session<'_>,
    table: Oid,
    survey: &Survey,
    steward: &Steward,
) -> IotResult<Vec<Action>> {
    let mut actions = Vec::new();
    let mut victims = Vec::new();
    for step in &survey.plan.steps {
        match step {
            Step::Drop { partition, .. } => victims.push((*partition, step)),
            Step::Blocked { partition, .. } => {
                actions.push(survey.action(*partition, step, Outcome::Blocked))
            }
            _ => {}
        }
    }
    if victims.is_empty() {
        return Ok(actions);
    }
    if !relation::try_lock(table, Lock::AccessExclusive, steward.patience.0) {
        actions.extend(victims.iter().map(|(number, step)| survey.action(*number, step, Outcome::Deferred)));
        return Ok(actions);
    }
    // Held since the plan was made: the next one keeps the rows.
    let held = new_holds(session, table, &survey.rules)?;
    let (held, victims): (Vec<_>, Vec<_>) = victims
        .into_iter()
        .partition(|(number, _)| held.iter().any(|hold| hold.overlaps(&survey.partitions[*number].1)));
    actions.extend(held.iter().map(|(number, step)| survey.action(*number, step, Outcome::Deferred)));
    // With the parent locked, only those who read a partition by its own name are left.
    let (free, busy): (Vec<_>, Vec<_>) = victims.into_iter().partition(|(number, _)| {
        relation::try_lock(survey.partitions[*number].0, Lock::AccessExclusive, std::time::Duration::ZERO)
    });
    actions.extend(busy.iter().map(|(number, step)| survey.action(*number, step, Outcome::Deferred)));
    let free: Vec<_> =
        free.into_iter().filter(|(number, _)| relation::exists(survey.partitions[*number].0)).collect();
    for (number, step) in &free {
        if let (Step::Drop { forced: Some(guard), .. }, Some(facts)) =
            (step, survey.facts.get(&survey.partitions[*number].0))
        {
            log_forced(table, &facts.qualified_name, guard);
        }
    }
    let is_referenced = partition::is_referenced(session, table)?;
    let victim = |number: usize| {
        let oid = survey.partitions[number].0;
        survey.facts.get(&oid).map(|facts| (oid, facts.qualified_name.as_str()))
    };
    let victims: Vec<_> = free.iter().filter_map(|(number, _)| victim(*number)).collect();
    let together = transaction::attempt(|| drop_all(session, table, steward, is_referenced, &victims))?;
    for (number, step) in free {
        let outcome = match (&together, victim(number)) {
            (Attempt::Done(()), _) => Outcome::Done,
            // One of them stands in the way: the others go without it.
            (_, Some(victim)) => {
                outcome(transaction::attempt(|| drop_all(session, table, steward, is_referenced, &[victim]))?)
            }
            (_, None) => Outcome::Deferred,
        };
        actions.push(survey.action(number, step, outcome));
    }
    Ok(actions)
}

/// Drops partitions of `table` (by oid and quoted name), which nobody else looks at any more.
fn drop_all(
    session: &mut Session<'_>,
    table: Oid,
    steward: &Steward,
    is_referenced: bool,
    victims: &[(Oid, &str)],
) -> IotResult<()> {
    for (oid, _) in victims {
        steward.take_over(session, *oid)?;
    }
    let names: Vec<_> = victims.iter().map(|(_, name)| *name).collect();
    drop_tables(session, table, is_referenced, &names)
}

/// Drops partitions of `table` by their quoted names.
///
/// # Errors
/// What PostgreSQL raises: 23503 where a foreign key refers to a row of one.
pub fn drop_tables(
    session: &mut Session<'_>,
    table: Oid,
    is_referenced: bool,
    names: &[&str],
) -> IotResult<()> {
    if names.is_empty() {
        return Ok(());
    }
    if is_referenced {
        // Nothing depends on one that is detached, and PostgreSQL has looked then whether rows of it are referred to.
        let parent = OpenRelation::look(table, OpenRelation::qualified_name);
        for name in names {
            engine::writing(|| session.run(&format!("ALTER TABLE {parent} DETACH PARTITION {name}")))?;
        }
    }
    session.run(&format!("DROP TABLE {}", names.join(", ")))
}

/// Finishes what was begun: completes pending detachments and drops what is detached. A partition whose detachment never
/// began is one like any other again.
///
/// # Errors
/// What ends more than one step.
pub fn finish(
    session: &mut Session<'_>,
    table: Oid,
    policy: &PartitionPolicy,
    states: &[PartitionState],
    patience: Patience,
) -> IotResult<Vec<Action>> {
    let mut actions = Vec::new();
    let parent = OpenRelation::look(table, OpenRelation::qualified_name);
    let owner = OpenRelation::look(table, OpenRelation::owner);
    for state in states.iter().filter(|state| state.is_retired) {
        let partition = state.partition;
        if !state.is_detach_pending && relation::is_partition(partition) {
            // Somebody may be about to detach it.
            if state.is_old {
                partition_state::reinstate(session, partition)?;
            }
            continue;
        }
        let (Some(name), Some(qualified_name), Some((_, its_owner))) = (
            relation::name_of(partition),
            relation::qualified_name_of(partition),
            relation::kind_and_owner(partition),
        ) else {
            continue;
        };
        if its_owner != owner {
            // Somebody has taken it over.
            partition_state::reinstate(session, partition)?;
            continue;
        }
        let mut is_held = false;
        let tried = transaction::attempt(|| {
            // Also against holds that somebody is making.
            if !relation::try_lock(table, Lock::ShareUpdateExclusive, patience.0) {
                locked();
            }
            if state.is_detach_pending {
                session.run(&format!("ALTER TABLE {parent} DETACH PARTITION {qualified_name} FINALIZE"))?;
            }
            if !relation::try_lock(partition, Lock::AccessExclusive, patience.0) {
                locked();
            }
            // A mark without the range, of what was detached before ranges were kept, is held by any hold.
            let range = state.range.unwrap_or(EVER);
            is_held = new_holds(session, table, &[])?.iter().any(|hold| hold.overlaps(&range));
            if is_held {
                return attach_again(session, table, policy, state, &name);
            }
            session.run(&format!("DROP TABLE {qualified_name}"))
        })?;
        let (verb, reason) = if is_held {
            ("attach", "a legal hold was made after it was detached")
        } else {
            ("drop", "detached before")
        };
        actions.push(Action {
            verb,
            partition: name,
            range: state.range,
            rows: None,
            bytes: None,
            reason: reason.to_owned(),
            outcome: outcome(tried),
        });
    }
    Ok(actions)
}

/// All of time.
const EVER: PartitionRange = PartitionRange { start: Timestamp::NEGATIVE_INFINITY, end: Timestamp::INFINITY };

/// Gives a partition that was detached to be dropped its place back. Where that is taken it stays what it is, a table of
/// its own, until somebody sees to it: the error tells.
fn attach_again(
    session: &mut Session<'_>,
    table: Oid,
    policy: &PartitionPolicy,
    state: &PartitionState,
    name: &str,
) -> IotResult<()> {
    let range = state.range.ok_or_else(|| {
        IotError::wrong_state("its rows are under legal hold, and the range that it had is not known")
    })?;
    let workshop = {
        let parent = OpenRelation::open_fresh(table, Lock::AccessShare);
        Workshop::open(session, &parent, &policy.management)?
    };
    workshop.attach(session, name, range)?;
    partition_state::reinstate(session, state.partition)
}

/// Remembers that `partition` of `parent` is to be dropped once it is detached.
///
/// # Errors
/// 55000 when rows of its time are under legal hold.
pub fn mark(session: &mut Session<'_>, partition: Oid, parent: Oid, reason: &str) -> IotResult<()> {
    let open = OpenRelation::open_fresh(parent, Lock::ShareUpdateExclusive);
    let range = partition_bounds::partitions(&open)?.into_iter().find(|(oid, _)| *oid == partition);
    drop(open);
    let Some((_, range)) = range else {
        return Err(IotError::wrong_state(format!(
            "partition {} has no range of its own",
            OpenRelation::look(partition, OpenRelation::qualified_name)
        ))
        .hint("Name a partition that is neither the default one nor being detached."));
    };
    if new_holds(session, parent, &[])?.iter().any(|hold| hold.overlaps(&range)) {
        return Err(IotError::wrong_state(format!(
            "rows of partition {} are under legal hold",
            OpenRelation::look(partition, OpenRelation::qualified_name)
        ))
        .hint("Do not detach it: iot.partition_statements() tells what is to be done now."));
    }
    partition_state::retire(session, partition, parent, range, reason)
}

/// The same as statements for the top level of a session. None for the drops of a table with a default partition, beside
/// which PostgreSQL does not detach concurrently.
pub fn statements(table: Oid, survey: &Survey, has_default: bool) -> Vec<Part> {
    let parent = OpenRelation::look(table, OpenRelation::qualified_name);
    let literal = |name: &str| format!("{}::pg_catalog.regclass", quote_literal(name));
    let drop_retired = format!("SELECT iot.drop_retired_partitions({})", literal(&parent));
    let mut parts = Vec::new();
    // Only one partition of a table can be on its way out at a time.
    if survey.states.iter().any(|state| state.is_retired) {
        parts.push(Part::one(&parent, drop_retired.clone()));
    }
    let before = parts.len();
    for step in survey.plan.steps.iter().filter(|_| !has_default) {
        let Step::Drop { partition, .. } = step else { continue };
        let Some(facts) = survey.facts.get(&survey.partitions[*partition].0) else { continue };
        let partition = &facts.qualified_name;
        let mark = format!(
            "SELECT iot.retire_partition({}, {})",
            literal(partition),
            quote_literal(step.to_string())
        );
        let detach = format!("ALTER TABLE {parent} DETACH PARTITION {partition} CONCURRENTLY");
        parts.push(Part { about: parent.clone(), statements: vec![mark, detach] });
    }
    if parts.len() > before {
        parts.push(Part::one(&parent, drop_retired));
    }
    parts
}
