//! Upkeep and retention as jobs run them.

use std::ffi::CStr;

use iot_core::partition::Step;
use pgrx::datum::{Interval, JsonB};
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_identifier, quote_literal};
use pgrx::{PgSqlErrorCode, pg_extern};

use super::drop_old;
use super::run::{self, Action, Order, Outcome};
use super::survey::{Scope, Survey, age, horizon};
use super::{require_owner, retire};
use crate::catalog::partition::{column_type, last_analyzed};
use crate::catalog::partition_policy::{self, PartitionPolicy};
use crate::error::{IotError, IotResult, OrRaise};
use crate::guc;
use crate::pg::clock;
use crate::pg::relation::{self, OpenRelation};
use crate::pg::security::{self, ActingAs};
use crate::pg::statement::{Session, with_session};
use crate::pg::top_level::Part;
use crate::pg::transaction::{self, Attempt};
use crate::pg::{parse, partition_bounds};

#[pg_extern(sql = false)]
fn partition_upkeep(parent: Option<Oid>) -> JsonB {
    let done = with_session(|session| upkeep(session, parent)).or_raise();
    JsonB(done.iter().map(Upkeep::to_json).collect())
}

#[pg_extern(sql = false)]
fn delete_old_rows(
    relation: Option<Oid>,
    time_column: Option<&CStr>,
    older_than: Option<Interval>,
    condition: Option<String>,
    dry_run: Option<bool>,
) -> i64 {
    let delete = || {
        let relation = relation.ok_or_else(|| IotError::null_argument("relation"))?;
        let time_column = time_column.ok_or_else(|| IotError::null_argument("time_column"))?;
        let older_than = older_than.ok_or_else(|| IotError::null_argument("older_than"))?;
        if age(&older_than).is_none() {
            return Err(IotError::invalid_argument(format!("older_than {older_than} is not positive"))
                .hint("Give how long rows are kept, such as '90 days'."));
        }
        let wanted = Retention {
            drop_after: older_than,
            time_column: Some(time_column.to_string_lossy().into_owned()),
            condition,
            dry_run: dry_run == Some(true),
            force: false,
        };
        with_session(|session| retain(session, relation, &wanted))
    };
    i64::try_from(delete().or_raise().rows).unwrap_or(i64::MAX)
}

/// What upkeep did to one table.
pub struct Upkeep {
    /// The table, schema and name quoted.
    pub table: String,
    /// What it did, and what it left.
    pub actions: Vec<Action>,
    /// Whether the table was analyzed.
    pub analyzed: bool,
}

impl Upkeep {
    /// Whether something is left for the next run because a lock was not to be had.
    pub fn is_deferred(&self) -> bool {
        self.actions.iter().any(|action| action.outcome == Outcome::Deferred)
    }

    /// Counts by what was done and what became of it, for the history of jobs.
    pub fn to_json(&self) -> serde_json::Value {
        let mut counts = std::collections::BTreeMap::<String, u64>::new();
        for action in &self.actions {
            let outcome = match &action.outcome {
                Outcome::Failed(_) => "failed".to_owned(),
                other => other.to_text(),
            };
            *counts.entry(format!("{} {outcome}", action.verb)).or_default() += 1;
        }
        serde_json::json!({
            "table": self.table,
            "actions": counts,
            "analyzed": self.analyzed,
            "deferred": self.is_deferred(),
        })
    }
}

/// Premakes, drops, rewrites and reindexes as policies want, for `table` or every managed table that the current user
/// owns, and analyzes tables once in each of their intervals (autovacuum never does that for a partitioned table).
///
/// # Errors
/// 42501 for a table of somebody else; 55000 for one that is not managed; what ends more than one step.
pub fn upkeep(session: &mut Session<'_>, table: Option<Oid>) -> IotResult<Vec<Upkeep>> {
    let tables = managed(session, table)?;
    let mut done = Vec::new();
    for (table, policy) in &tables {
        let order = Order { no_retention: true, ..Order::default() };
        let actions = run::run(session, *table, policy, order)?;
        let analyzed =
            !is_put_off(&actions) && is_analyze_due(session, *table, policy)? && analyze(session, *table)?;
        let table = relation::qualified_name_of(*table).unwrap_or_default();
        done.push(Upkeep { table, actions, analyzed });
    }
    // What locks a table against everybody comes last: the locks stay until the transaction ends.
    for ((table, policy), upkeep) in tables.iter().zip(&mut done) {
        if is_put_off(&upkeep.actions) {
            continue;
        }
        let order = Order { only_retention: true, ..Order::default() };
        upkeep.actions.extend(run::run(session, *table, policy, order)?);
    }
    Ok(done)
}

/// Whether nothing could be seen of a table: then each look would only take its time again.
fn is_put_off(actions: &[Action]) -> bool {
    actions.iter().any(|action| action.verb == "plan")
}

/// The same as statements for the top level of a session, where partitions are detached concurrently. Run them one by one;
/// when one fails, the next call knows what is left.
///
/// # Errors
/// As [`upkeep`].
pub fn statements(session: &mut Session<'_>, table: Option<Oid>) -> IotResult<Vec<Part>> {
    let mut first = Vec::new();
    let mut then = Vec::new();
    let mut put_off = Vec::new();
    let (_, _settings) = run::Patience::begin();
    for (table, policy) in managed(session, table)? {
        let Some(name) = relation::qualified_name_of(table) else { continue };
        let tried = transaction::attempt(|| statements_for(session, table, &policy, &name))?;
        match tried {
            Attempt::Done((premake, rest)) => {
                first.extend(premake);
                then.extend(rest);
            }
            // Last, as it fails if somebody still has the table to himself: what is not done must not look done.
            Attempt::Locked => {
                let literal = quote_literal(&name);
                put_off.push(Part::one(
                    &name,
                    format!("SELECT iot.premake_partitions({literal}::pg_catalog.regclass)"),
                ));
            }
            // It fails again there, and tells why, without keeping the other tables waiting.
            Attempt::Failed(_) => {
                let literal = quote_literal(&name);
                first.push(Part::one(
                    &name,
                    format!("SELECT iot.partition_upkeep({literal}::pg_catalog.regclass)"),
                ));
            }
        }
    }
    then.append(&mut put_off);
    if first.is_empty() && then.is_empty() {
        return Ok(Vec::new());
    }
    let patience = guc::maintenance_lock_timeout().as_millis().max(1);
    // What a crash takes back of this, the next run does again; a mark is always written before what it marks.
    let begin = [format!("SET lock_timeout = '{patience}ms'"), "SET synchronous_commit = off".to_owned()];
    let end = ["RESET synchronous_commit".to_owned(), "RESET lock_timeout".to_owned()];
    let settings = |statements: [String; 2]| Part { about: String::new(), statements: statements.into() };
    let mut all = vec![settings(begin)];
    all.append(&mut first);
    all.append(&mut then);
    all.push(settings(end));
    Ok(all)
}

/// What makes the partitions of one table, and the rest.
fn statements_for(
    session: &mut Session<'_>,
    table: Oid,
    policy: &PartitionPolicy,
    name: &str,
) -> IotResult<(Option<Part>, Vec<Part>)> {
    let scope = Scope { force: false, with_facts: false, now: clock::now() };
    let survey = Survey::take(session, table, policy, scope)?;
    let literal = format!("{}::pg_catalog.regclass", quote_literal(name));
    let steps = &survey.plan.steps;
    let makes = steps.iter().any(|step| matches!(step, Step::Create(_)));
    // What can be made is committed by the first call; where something is left, the second one fails and tells why.
    let premake = format!("SELECT iot.premake_partitions({literal})");
    let premake = makes.then(|| Part { about: name.to_owned(), statements: vec![premake; 2] });
    let has_default = OpenRelation::look(table, partition_bounds::default_partition)?.is_some();
    let mut rest = retire::statements(table, &survey, has_default);
    let analyze = !rest.is_empty() || is_analyze_due(session, table, policy)?;
    let is_other = |step: &Step| !matches!(step, Step::Create(_) | Step::Drop { .. } | Step::Blocked { .. });
    if steps.iter().any(is_other) {
        rest.push(Part::one(name, format!("SELECT m.* FROM iot.manage_partitions({literal}) m")));
    }
    if analyze {
        rest.push(Part::one(name, format!("ANALYZE {name}")));
    }
    Ok((premake, rest))
}

/// Only makes partitions of `table`; returns how many.
///
/// # Errors
/// As [`upkeep`]; 55P03 when the lock was not to be had.
pub fn premake(session: &mut Session<'_>, table: Oid) -> IotResult<usize> {
    let mut made = 0;
    for (table, policy) in managed(session, Some(table))? {
        let order = Order { only_premake: true, ..Order::default() };
        let mut failure = None;
        for action in run::run(session, table, &policy, order)? {
            match action.outcome {
                Outcome::Done => made += 1,
                Outcome::Failed(why) => failure = Some(why),
                _ => run::locked(),
            }
        }
        // An error would take back those that were made; the next run fails with what is left.
        if let Some(why) = failure.filter(|_| made == 0) {
            return Err(IotError::wrong_state(why));
        }
    }
    Ok(made)
}

/// What is to be looked after: `table`, or every managed table that the current user owns.
fn managed(session: &mut Session<'_>, table: Option<Oid>) -> IotResult<Vec<(Oid, PartitionPolicy)>> {
    let tables = match table {
        Some(table) => {
            require_owner(table)?;
            vec![table]
        }
        None => {
            let mut tables = partition_policy::all(session)?;
            tables.retain(|&table| {
                relation::kind_and_owner(table)
                    .is_some_and(|(_, owner)| security::current_user_has_privileges_of(owner))
            });
            tables
        }
    };
    let mut managed = Vec::new();
    for each in tables {
        match partition_policy::load(session, each)? {
            Some(policy) => managed.push((each, policy)),
            None if table.is_none() => {}
            None => {
                return Err(IotError::wrong_state(format!(
                    "table {} is not managed",
                    relation::qualified_name_of(each).unwrap_or_default()
                ))
                .hint("Begin with SELECT iot.manage_partitions('<table>', …)."));
            }
        }
    }
    Ok(managed)
}

/// Whether the current interval has begun since the table was last analyzed.
fn is_analyze_due(session: &mut Session<'_>, table: Oid, policy: &PartitionPolicy) -> IotResult<bool> {
    let Some(last) = last_analyzed(session, table)? else { return Ok(true) };
    Ok(policy.interval.range_containing(clock::now()).is_some_and(|range| clock::from_pg(last) < range.start))
}

fn analyze(session: &mut Session<'_>, table: Oid) -> IotResult<bool> {
    let (_, _settings) = run::Patience::begin();
    let (Some((_, owner)), Some(name)) =
        (relation::kind_and_owner(table), relation::qualified_name_of(table))
    else {
        return Ok(false);
    };
    let _owner = ActingAs::restricted(owner);
    let tried = transaction::attempt(|| session.run(&format!("ANALYZE {name}")))?;
    Ok(matches!(tried, Attempt::Done(())))
}

/// What a retention job wants.
pub struct Retention {
    /// Age at which rows go.
    pub drop_after: Interval,
    /// Of a plain table: the column that says how old a row is.
    pub time_column: Option<String>,
    /// Of a plain table: an SQL condition that rows must meet as well.
    pub condition: Option<String>,
    /// Change nothing.
    pub dry_run: bool,
    /// Go over retention guards.
    pub force: bool,
}

/// What a retention job did.
#[allow(dead_code, reason = "jobs read it")]
pub struct Retained {
    /// What it did to partitions, and what it left.
    pub actions: Vec<Action>,
    /// Rows deleted from a plain table (with `dry_run`: that would be).
    pub rows: u64,
    /// Whether there may be more rows to delete: call it again in another transaction.
    pub has_more: bool,
}

/// Rows that a plain table loses in one call: a few seconds of locks and WAL.
const BATCH: u64 = 50_000;

/// `pg_class.relkind` of a table, and of a partitioned one.
const PLAIN: u8 = b'r';
const PARTITIONED: u8 = b'p';

/// Drops the partitions of `table` that are older than wanted; of a plain table, deletes old rows that meet a condition.
///
/// # Errors
/// 42501 for a table of somebody else; 22023 for a wish that does not fit the table; what PostgreSQL raises.
pub fn retain(session: &mut Session<'_>, table: Oid, wanted: &Retention) -> IotResult<Retained> {
    let owner = require_owner(table)?;
    let Some(age) = age(&wanted.drop_after) else {
        return Err(IotError::invalid_argument(format!("drop_after {} is not positive", wanted.drop_after))
            .hint("Give how long rows are kept, such as '90 days'."));
    };
    let kind = relation::kind_and_owner(table).map_or(0, |(kind, _)| kind);
    if kind == PARTITIONED {
        if wanted.condition.is_some() || wanted.time_column.is_some() {
            return Err(IotError::invalid_argument("a partitioned table loses whole partitions").hint(
                "Use iot.drop_old_partitions(), or a policy without condition and time_column; iot.add_retention_rule() tells which rows stay longer.",
            ));
        }
        let order =
            Order { dry_run: wanted.dry_run, force: wanted.force, only_retention: true, ..Order::default() };
        let actions = drop_old::drop_older(session, table, wanted.drop_after, order)?;
        return Ok(Retained { actions, rows: 0, has_more: false });
    }
    if kind != PLAIN {
        return Err(IotError::new(
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!("{} is not a table", relation::qualified_name_of(table).unwrap_or_default()),
        )
        .hint("Name a table that holds the rows itself."));
    }
    let column = wanted.time_column.as_ref().ok_or_else(|| IotError::null_argument("time_column"))?;
    let horizon = match column_type(session, table, column)?.as_deref() {
        Some("timestamp with time zone") => horizon(Some(age), true),
        Some("timestamp without time zone" | "date") => horizon(Some(age), false),
        _ => {
            return Err(IotError::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("time_column \"{column}\" is no timestamptz, timestamp or date column of the table"),
            )
            .hint("Name the column that says how old a row is."));
        }
    };
    let name = OpenRelation::look(table, OpenRelation::qualified_name);
    let is_old = format!("{} OPERATOR(pg_catalog.<) {}", quote_identifier(column), quote_literal(horizon));
    if let Some(condition) = &wanted.condition {
        parse::check_expression("condition", condition)?;
    }
    // On a line of its own, should it end in a comment.
    let is_wanted =
        wanted.condition.as_ref().map_or(String::new(), |condition| format!(" AND ({condition}\n)"));
    let chosen = format!("FROM ONLY {name} WHERE {is_old}{is_wanted}");
    let _owner = ActingAs::restricted(owner);
    if wanted.dry_run {
        let rows = match session.query(&format!("SELECT pg_catalog.count(*) {chosen}"))?.first() {
            Some(row) => row.get::<i64>(1)?.unsigned_abs(),
            None => 0,
        };
        return Ok(Retained { actions: Vec::new(), rows, has_more: false });
    }
    // Rows that somebody else holds are left for the next time.
    let rows = session
        .query(&format!(
            "DELETE FROM ONLY {name} WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY(\
             SELECT ctid {chosen} LIMIT {BATCH} FOR UPDATE SKIP LOCKED))"
        ))?
        .count() as u64;
    Ok(Retained { actions: Vec::new(), rows, has_more: rows == BATCH })
}
