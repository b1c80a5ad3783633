//! Acting by the plan. Every step is tried on its own: what cannot get its locks in time is left for the next run.

use std::time::Duration;

use iot_core::partition::{PartitionRange, Settings, Step, plan};
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;
use pgrx::{PgLogLevel, PgSqlErrorCode};

use super::make;
use super::rewrite;
use super::survey::{Scope, Survey};
use super::{manage, retire, tiers};
use crate::catalog::partition::{self, Facts};
use crate::catalog::partition_policy::{self, PartitionPolicy};
use crate::catalog::partition_state;
use crate::error::{IotError, IotResult};
use crate::guc;
use crate::pg::relation::{self, Lock, OpenRelation};
use crate::pg::security::{self, ActingAs};
use crate::pg::settings::Scoped;
use crate::pg::statement::Session;
use crate::pg::transaction::{self, Attempt};
use crate::pg::{clock, partition_bounds};

/// How long a lock is tried for.
#[derive(Clone, Copy)]
pub struct Patience(pub Duration);

impl Patience {
    /// As set, for locks of ours and of the statements that we run: these wait in line.
    pub fn begin() -> (Self, Scoped) {
        let patience = guc::maintenance_lock_timeout();
        let settings = Scoped::new();
        if let Ok(text) = std::ffi::CString::new(format!("{}ms", patience.as_millis().max(1))) {
            settings.set(c"lock_timeout", &text);
        }
        (Self(patience), settings)
    }
}

/// Who does it.
pub struct Steward {
    /// The role that called.
    pub caller: Oid,
    /// The owner of the table, as whom it is done.
    pub owner: Oid,
    /// How long it may take to get a lock.
    pub patience: Patience,
}

impl Steward {
    /// Makes a partition, and what is below it, the owner's: ALTER TABLE … OWNER TO leaves partitions with the role that had
    /// the table before, and only the caller may be allowed to change that.
    ///
    /// # Errors
    /// 42501 when he is not.
    pub fn take_over(&self, session: &mut Session<'_>, partition: Oid) -> IotResult<()> {
        for part in partition::foreign_parts(session, partition, self.owner)? {
            if !security::has_privileges_of(self.caller, part.owner) {
                return Err(IotError::new(
                    PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                    format!(
                        "partition {0} belongs to role \"{1}\", and its table to role \"{2}\": see to ALTER TABLE {0} OWNER TO {3}",
                        part.qualified_name,
                        security::role_name(part.owner),
                        security::role_name(self.owner),
                        quote_identifier(security::role_name(self.owner)),
                    ),
                ));
            }
            if !relation::try_lock(part.oid, Lock::AccessExclusive, self.patience.0) {
                locked();
            }
            let _caller = ActingAs::restricted(self.caller);
            session.run(&format!(
                "ALTER TABLE {} OWNER TO {}",
                part.qualified_name,
                quote_identifier(security::role_name(self.owner))
            ))?;
        }
        Ok(())
    }
}

/// What is wanted of a run.
#[derive(Clone, Copy, Default)]
pub struct Order {
    /// Change nothing.
    pub dry_run: bool,
    /// Go over guards.
    pub force: bool,
    /// Only what takes rows away.
    pub only_retention: bool,
    /// Only new partitions.
    pub only_premake: bool,
    /// Nothing that takes rows away.
    pub no_retention: bool,
}

/// One thing done, planned or left.
pub struct Action {
    /// create, attach, drop, rewrite or index; plan when there is not even one.
    pub verb: &'static str,
    /// Name of the partition.
    pub partition: String,
    /// Its range, where it has one.
    pub range: Option<PartitionRange>,
    /// Rows, estimated.
    pub rows: Option<i64>,
    /// Bytes.
    pub bytes: Option<i64>,
    /// Why.
    pub reason: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A dry run.
    Planned,
    /// Done.
    Done,
    /// A lock was not to be had: next time.
    Deferred,
    /// A guard stands against it.
    Blocked,
    /// It raised an error.
    Failed(String),
}

impl Outcome {
    /// In one word, with the error behind it.
    pub fn to_text(&self) -> String {
        match self {
            Self::Planned => "planned".to_owned(),
            Self::Done => "done".to_owned(),
            Self::Deferred => "deferred".to_owned(),
            Self::Blocked => "blocked".to_owned(),
            Self::Failed(why) => format!("failed: {why}"),
        }
    }
}

/// Does what `policy` wants done about `table`, as its owner.
///
/// # Errors
/// 42809 when it is not partitioned by time; else what ends more than one step.
pub fn run(
    session: &mut Session<'_>,
    table: Oid,
    policy: &PartitionPolicy,
    order: Order,
) -> IotResult<Vec<Action>> {
    let scope = Scope { force: order.force, with_facts: false, now: clock::now() };
    let (patience, _settings) = Patience::begin();
    let Some(mut survey) = unless_locked(|| Survey::take(session, table, policy, scope))? else {
        return Ok(vec![put_off(table)]);
    };
    let caller = security::current_user();
    // From here on as the owner, who need not be allowed to read our catalogue.
    let Some((_, owner)) = relation::kind_and_owner(table) else { return Ok(Vec::new()) };
    let _owner = ActingAs::restricted(owner);
    survey.plan.steps.retain(|step| {
        let is_new = matches!(step, Step::Create(_));
        let takes_rows = !is_new && !matches!(step, Step::Index { .. });
        (is_new || !order.only_premake)
            && (takes_rows || !order.only_retention)
            && !(takes_rows && order.no_retention)
    });
    if order.dry_run {
        return Ok(planned(table, &survey));
    }
    let steward = Steward { caller, owner, patience };
    let mut actions = Vec::new();
    if let Some(percent) = survey.plan.budget_percent.filter(|&percent| percent >= 85) {
        warn_of_budget(table, &survey.settings, percent);
    }
    // What locks the table against everybody comes last: the lock stays until the transaction ends.
    create_all(session, table, policy, &survey, patience, &mut actions)?;
    change_indexes(session, table, policy, &survey, &steward, &mut actions)?;
    if !order.only_premake && !order.no_retention && survey.states.iter().any(|state| state.is_retired) {
        actions.extend(retire::finish(session, table, policy, &survey.states, patience)?);
    }
    rewrite::rewrite_all(session, table, policy, &survey, &steward, &mut actions)?;
    actions.extend(retire::drop_partitions(session, table, &survey, &steward)?);
    warn_of_failures(&actions);
    Ok(actions)
}

fn warn_of_failures(actions: &[Action]) {
    for action in actions {
        if let Outcome::Failed(why) = &action.outcome {
            IotError::new(
                PgSqlErrorCode::ERRCODE_WARNING,
                format!("{} of partition \"{}\" failed: {why}", action.verb, action.partition),
            )
            .hint("The other partitions are not concerned; see to the cause and run it again.")
            .warn();
        }
    }
}

/// What `look` sees; `None` when somebody else has what it looks at to himself for longer than [`Patience`].
///
/// # Errors
/// That of `look`.
pub fn unless_locked<T>(look: impl FnOnce() -> IotResult<T>) -> IotResult<Option<T>> {
    Ok(transaction::unless(&[PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE], look)?.ok())
}

/// All of a run that came to nothing, as nothing could be seen.
pub fn put_off(table: Oid) -> Action {
    Action {
        verb: "plan",
        partition: relation::name_of(table).unwrap_or_default(),
        range: None,
        rows: None,
        bytes: None,
        reason: "somebody else has the table, or a partition of it, to himself".to_owned(),
        outcome: Outcome::Deferred,
    }
}

/// Only finishes what was begun, as the owner of `table`.
///
/// # Errors
/// What ends more than one step.
pub fn finish(session: &mut Session<'_>, table: Oid) -> IotResult<Vec<Action>> {
    let (patience, _settings) = Patience::begin();
    let states = partition_state::of_parent(session, table)?;
    let policy = match partition_policy::load(session, table)? {
        Some(policy) => policy,
        None => manage::first_policy(table)?,
    };
    let owner = OpenRelation::look(table, OpenRelation::owner);
    let _owner = ActingAs::restricted(owner);
    let actions = retire::finish(session, table, &policy, &states, patience)?;
    warn_of_failures(&actions);
    Ok(actions)
}

impl Survey {
    /// The action that `step` about partition number `partition` is.
    pub fn action(&self, partition: usize, step: &Step, outcome: Outcome) -> Action {
        let (oid, range) = self.partitions[partition];
        let facts = self.facts.get(&oid);
        let verb = match step {
            Step::Create(_) => "create",
            Step::Drop { .. } | Step::Blocked { .. } => "drop",
            Step::Rewrite { .. } => "rewrite",
            Step::Index { .. } => "index",
        };
        Action {
            verb,
            partition: facts.map_or_else(String::new, |facts| facts.name.clone()),
            range: Some(range),
            rows: facts.and_then(|facts| facts.rows),
            bytes: facts.and_then(|facts| facts.bytes),
            reason: step.to_string(),
            outcome,
        }
    }

    /// Facts about partition number `partition`.
    ///
    /// # Errors
    /// 55000 when it was dropped since the survey.
    pub fn facts(&self, partition: usize) -> IotResult<&Facts> {
        let (oid, range) = self.partitions[partition];
        self.facts.get(&oid).ok_or_else(|| {
            IotError::wrong_state(format!("partition from {} is gone", range.start.to_utc_literal()))
        })
    }
}

fn planned(table: Oid, survey: &Survey) -> Vec<Action> {
    let parent = OpenRelation::look(table, OpenRelation::name);
    let action = |step: &Step| match step {
        Step::Create(range) => {
            let name = iot_core::partition::partition_name(&parent, survey.settings.interval, *range);
            created(name, *range, Outcome::Planned)
        }
        Step::Blocked { partition, .. } => survey.action(*partition, step, Outcome::Blocked),
        Step::Drop { partition, .. } | Step::Rewrite { partition, .. } | Step::Index { partition, .. } => {
            survey.action(*partition, step, Outcome::Planned)
        }
    };
    survey.plan.steps.iter().map(action).collect()
}

fn created(partition: String, range: PartitionRange, outcome: Outcome) -> Action {
    let reason = Step::Create(range).to_string();
    Action { verb: "create", partition, range: Some(range), rows: None, bytes: None, reason, outcome }
}

fn warn_of_budget(table: Oid, settings: &Settings, percent: u64) {
    let budget = settings.maximum_bytes.unwrap_or(0);
    IotError::new(
        PgSqlErrorCode::ERRCODE_WARNING,
        format!(
            "table {} takes {percent} % of its budget of {budget} bytes",
            OpenRelation::look(table, OpenRelation::qualified_name)
        ),
    )
    .hint("Above 100 % the oldest partitions are dropped: raise maximum_bytes, or keep rows for a shorter time.")
    .warn();
}

/// Turns what was tried into what is told of it.
pub fn outcome<T>(attempt: Attempt<T>) -> Outcome {
    match attempt {
        Attempt::Done(_) => Outcome::Done,
        Attempt::Locked => Outcome::Deferred,
        Attempt::Failed(why) => Outcome::Failed(why),
    }
}

/// What a step could not have: a lock. It undoes the step, as PostgreSQL's own error does.
pub fn locked() -> ! {
    IotError::new(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, "lock is not to be had")
        .hint("Run it again later.")
        .raise()
}

/// Force is an administrator's decision: the server's log tells of it.
pub fn log_forced(table: Oid, partition: &str, guard: &str) {
    let table = OpenRelation::look(table, OpenRelation::qualified_name);
    pgrx::ereport!(
        PgLogLevel::LOG,
        PgSqlErrorCode::ERRCODE_WARNING,
        format!("rows of partition {partition} of {table} are dropped by force although {guard}"),
    );
}

fn create_all(
    session: &mut Session<'_>,
    table: Oid,
    policy: &PartitionPolicy,
    survey: &Survey,
    patience: Patience,
    actions: &mut Vec<Action>,
) -> IotResult<()> {
    let Settings { interval, premake, .. } = survey.settings;
    let missing: Vec<_> = survey
        .plan
        .steps
        .iter()
        .filter_map(|step| if let Step::Create(range) = step { Some(*range) } else { None })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let parent = OpenRelation::look(table, OpenRelation::name);
    let not_made = |range: PartitionRange, outcome: Outcome| {
        created(iot_core::partition::partition_name(&parent, interval, range), range, outcome)
    };
    let mut tried = |only: Option<PartitionRange>| {
        transaction::attempt(|| {
            if !relation::try_lock(table, Lock::ShareUpdateExclusive, patience.0) {
                locked();
            }
            let default =
                partition_bounds::default_partition(&OpenRelation::open_fresh(table, Lock::AccessShare))?;
            if default.is_some_and(|default| !relation::try_lock(default, Lock::AccessExclusive, patience.0))
            {
                locked();
            }
            make::create_missing(session, table, interval, &policy.management, |existing| {
                let mut missing = plan(existing, interval, clock::now(), premake);
                missing.retain(|range| only.is_none_or(|only| only == *range));
                missing
            })
        })
    };
    let done = |(name, range)| created(name, range, Outcome::Done);
    match tried(None)? {
        Attempt::Done(made) => actions.extend(made.into_iter().map(done)),
        Attempt::Locked => {
            actions.extend(missing.into_iter().map(|range| not_made(range, Outcome::Deferred)));
        }
        Attempt::Failed(_) => {
            // One of them stands in the way: the others are made without it.
            let mut is_locked = false;
            for range in missing {
                let attempt = if is_locked { Attempt::Locked } else { tried(Some(range))? };
                is_locked |= matches!(attempt, Attempt::Locked);
                match attempt {
                    Attempt::Done(made) => actions.extend(made.into_iter().map(done)),
                    other => actions.push(not_made(range, outcome(other))),
                }
            }
        }
    }
    Ok(())
}

fn change_indexes(
    session: &mut Session<'_>,
    table: Oid,
    policy: &PartitionPolicy,
    survey: &Survey,
    steward: &Steward,
    actions: &mut Vec<Action>,
) -> IotResult<()> {
    for step in &survey.plan.steps {
        let Step::Index { partition, create, drop, .. } = step else { continue };
        let facts = survey.facts(*partition)?;
        let (oid, _) = survey.partitions[*partition];
        // Readers of a partition go on while an index is built; one that goes needs a moment alone.
        let lock = if drop.is_empty() { Lock::ShareRowExclusive } else { Lock::AccessExclusive };
        let tried = transaction::attempt(|| {
            if !relation::try_lock(oid, Lock::ShareRowExclusive, steward.patience.0) {
                locked();
            }
            steward.take_over(session, oid)?;
            let names = (oid, facts.qualified_name.as_str(), facts.name.as_str());
            tiers::change(session, names, &policy.management.tier_indexes, create, &[], table)?;
            if !relation::try_lock(oid, lock, steward.patience.0) {
                locked();
            }
            tiers::change(session, names, &policy.management.tier_indexes, &[], drop, table)
        })?;
        actions.push(survey.action(*partition, step, outcome(tried)));
    }
    Ok(())
}

/// Warns when a query that touches every partition comes near what the lock table has room for.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn warn_of_locks(session: &mut Session<'_>, table: Oid) -> IotResult<()> {
    let (leaves, indexes) = partition::counts(session, table)?;
    let locks = leaves * (1 + indexes);
    let room = crate::pg::settings::lock_table_size();
    if locks * 10 > room {
        IotError::new(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!(
                "a query over all {leaves} partitions of {} takes {locks} locks, and the server has room for {room}",
                OpenRelation::look(table, OpenRelation::qualified_name)
            ),
        )
        .hint("Raise max_locks_per_transaction, or use wider partitions.")
        .warn();
    }
    Ok(())
}
