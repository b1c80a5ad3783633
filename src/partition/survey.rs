//! What a table is like, and what is to be done about it.

use std::collections::HashMap;

use iot_core::partition::{
    Age, Existing, Lifetime, PartitionRange, Plan, Rule, Settings, Step, index_key, maintain,
};
use iot_core::time::Timestamp;
use pgrx::datum::Interval;
use pgrx::pg_sys::Oid;

use super::run::unless_locked;
use super::tiers;
use crate::catalog::partition::{self, Facts};
use crate::catalog::partition_policy::PartitionPolicy;
use crate::catalog::partition_state::{self, PartitionState};
use crate::catalog::retention_guard;
use crate::catalog::retention_rule::{self, RetentionRule};
use crate::error::IotResult;
use crate::pg::relation::OpenRelation;
use crate::pg::statement::Session;
use crate::pg::{clock, partition_bounds};

/// A table at a moment, and the plan for it.
pub struct Survey {
    /// Its partitions in order of time, as the plan counts them.
    pub partitions: Vec<(Oid, PartitionRange)>,
    /// The same as the plan sees them.
    pub existing: Vec<Existing>,
    /// Facts about them: only where the plan touches one, or everything was asked for.
    pub facts: HashMap<Oid, Facts>,
    /// How it is kept.
    pub settings: Settings,
    /// Its retention rules.
    pub rules: Vec<RetentionRule>,
    /// What is remembered of partitions.
    pub states: Vec<PartitionState>,
    /// What is to be done.
    pub plan: Plan,
}

/// What to plan.
#[derive(Clone, Copy)]
pub struct Scope {
    /// Go over guards.
    pub force: bool,
    /// Read sizes even where nothing is due.
    pub with_facts: bool,
    /// The moment.
    pub now: Timestamp,
}

impl Survey {
    /// Looks at `table`, and gives its lock back at once: what is done later looks again.
    ///
    /// # Errors
    /// 42809 when it is not partitioned by time; what PostgreSQL and guards raise.
    pub fn take(
        session: &mut Session<'_>,
        table: Oid,
        policy: &PartitionPolicy,
        scope: Scope,
    ) -> IotResult<Self> {
        let partitions = OpenRelation::look(table, partition_bounds::partitions)?;
        let rules = retention_rule::of_parent(session, table)?;
        let settings = settings(policy, &rules);
        let states = partition_state::of_parent(session, table)?;
        let mut facts = HashMap::new();
        if scope.with_facts || settings.maximum_bytes.is_some() {
            facts = partition::facts(session, table, true)?;
        }
        let has_tiers = settings.indexes.iter().any(|keys| !keys.is_empty());
        let mut indexes = if has_tiers { tiers::found(session, table)? } else { HashMap::new() };
        let existing: Vec<Existing> = partitions
            .iter()
            .map(|&(oid, range)| Existing {
                range,
                bytes: facts.get(&oid).and_then(|facts| facts.bytes).map_or(0, i64::unsigned_abs),
                indexes: indexes.remove(&oid).unwrap_or_default(),
                settled: states
                    .iter()
                    .find(|state| state.partition == oid)
                    .and_then(|state| state.settled.clone()),
            })
            .collect();
        let mut guards = None;
        let mut failure = None;
        let plan = maintain(&existing, &settings, scope.now, scope.force, |number| {
            let mut ask = || {
                let guards = match &mut guards {
                    Some(known) => known,
                    none => none.insert(retention_guard::of_parent(session, table)?),
                };
                retention_guard::objection(session, guards, table, partitions[number].1)
            };
            ask().unwrap_or_else(|error| {
                failure = Some(error);
                None
            })
        });
        if let Some(error) = failure {
            return Err(error);
        }
        if facts.is_empty() && plan.steps.iter().any(|step| !matches!(step, Step::Create(_))) {
            // Sizes are for people here: who has a partition to himself must not keep the others.
            facts = match unless_locked(|| partition::facts(session, table, true))? {
                Some(facts) => facts,
                None => partition::facts(session, table, false)?,
            };
        }
        Ok(Self { partitions, existing, facts, settings, rules, states, plan })
    }
}

fn settings(policy: &PartitionPolicy, rules: &[RetentionRule]) -> Settings {
    let management = &policy.management;
    Settings {
        interval: policy.interval,
        premake: u32::try_from(policy.premake).unwrap_or(0),
        drop_after: management.drop_after.as_ref().and_then(age),
        maximum_bytes: management.maximum_bytes.map(i64::unsigned_abs),
        warm_after: management.warm_after.as_ref().and_then(age),
        cold_after: management.cold_after.as_ref().and_then(age),
        indexes: management
            .tier_indexes
            .each_ref()
            .map(|definitions| definitions.iter().map(|definition| index_key(definition)).collect()),
        rules: rules
            .iter()
            .filter_map(|rule| {
                let lifetime = match &rule.keep_for {
                    Some(keep_for) => Lifetime::For(age(keep_for)?),
                    None => Lifetime::Hold {
                        from: clock::from_pg(rule.held_from),
                        until: clock::from_pg(rule.held_until),
                    },
                };
                Some(Rule { id: rule.id, lifetime })
            })
            .collect(),
    }
}

/// An interval as an age; `None` when it is not one.
pub fn age(interval: &Interval) -> Option<Age> {
    Age::new(interval.months(), interval.days(), interval.micros())
}

/// The time before which rows of that age were measured, at the start of the transaction, as text for a column with or without
/// a time zone. Ages that are none, or beyond all time, are those of no row.
pub fn horizon(age: Option<Age>, has_zone: bool) -> String {
    let at = age.map_or(Timestamp::NEGATIVE_INFINITY, |age| age.before(clock::transaction_start()));
    let text = at.to_utc_literal();
    if has_zone { text } else { text.replacen("+00", "", 1) }
}
