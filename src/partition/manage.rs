//! `manage_partitions()`, and what it remembers.

use iot_core::partition::PartitionInterval;
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::iter::{SetOfIterator, TableIterator};
use pgrx::pg_sys::Oid;
use pgrx::{PgSqlErrorCode, name, pg_extern};

use super::run::{self, Action, Order, Patience};
use super::survey::age;
use super::{newest_interval, probe, require_owner, tiers, upkeep, warn_of_locks};
use crate::catalog::partition::column_type;
use crate::catalog::partition_policy::{self, Duplicates, Management, PartitionPolicy};
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::clock;
use crate::pg::partition_bounds::{self, TimeType};
use crate::pg::relation::{self, OpenRelation, in_schema_iot};
use crate::pg::statement::{Session, with_session};

/// What the caller asked for; `None` keeps what an earlier call chose.
#[derive(Default, PartialEq)]
pub struct Wishes {
    /// Width of partitions.
    pub partition_interval: Option<Interval>,
    /// Partitions kept ready beyond the current one.
    pub premake: Option<i32>,
    /// Age at which partitions are dropped.
    pub retention: Option<Interval>,
    /// What all of them may take.
    pub maximum_bytes: Option<i64>,
    /// Age at which one is warm.
    pub warm_after: Option<Interval>,
    /// Age at which one is cold.
    pub cold_after: Option<Interval>,
    /// Definitions of the indexes of the tiers, hot first.
    pub tier_indexes: [Option<Vec<String>>; 3],
    /// `list`, `hash` or `none`.
    pub subpartition_by: Option<String>,
    /// By which column.
    pub subpartition_column: Option<String>,
    /// Values with a sub-partition each.
    pub subpartition_values: Option<Vec<String>>,
    /// Number of sub-partitions.
    pub subpartition_count: Option<i32>,
    /// Columns of the primary key of each leaf.
    pub leaf_key: Option<Vec<String>>,
    /// Storage parameters of new leaves.
    pub storage_parameters: Option<Vec<String>>,
}

#[pg_extern(sql = false)]
#[expect(clippy::too_many_arguments, clippy::type_complexity, reason = "the parameters of a SQL function")]
fn manage_partitions(
    parent: Option<Oid>,
    partition_interval: Option<Interval>,
    premake: Option<i32>,
    retention: Option<Interval>,
    maximum_bytes: Option<i64>,
    warm_after: Option<Interval>,
    cold_after: Option<Interval>,
    hot_indexes: Option<Vec<Option<String>>>,
    warm_indexes: Option<Vec<Option<String>>>,
    cold_indexes: Option<Vec<Option<String>>>,
    subpartition_by: Option<String>,
    subpartition_column: Option<&std::ffi::CStr>,
    subpartition_values: Option<Vec<Option<String>>>,
    subpartition_count: Option<i32>,
    leaf_key: Option<Vec<Option<String>>>,
    storage_parameters: Option<Vec<Option<String>>>,
    dry_run: Option<bool>,
    force: Option<bool>,
) -> TableIterator<
    'static,
    (
        name!(action, String),
        name!(partition_name, String),
        name!(range_start, Option<TimestampWithTimeZone>),
        name!(range_end, Option<TimestampWithTimeZone>),
        name!(row_estimate, Option<i64>),
        name!(bytes, Option<i64>),
        name!(reason, String),
        name!(outcome, String),
    ),
> {
    let list = |argument: &str, given: Option<Vec<Option<String>>>| {
        let list = given.map(|list| list.into_iter().collect::<Option<Vec<String>>>());
        let is_null = || IotError::null_element(argument);
        list.map(|list| list.ok_or_else(is_null).or_raise())
    };
    let wishes = Wishes {
        partition_interval,
        premake,
        retention,
        maximum_bytes,
        warm_after,
        cold_after,
        tier_indexes: [
            list("hot_indexes", hot_indexes),
            list("warm_indexes", warm_indexes),
            list("cold_indexes", cold_indexes),
        ],
        subpartition_by: subpartition_by.map(|by| by.to_lowercase()),
        subpartition_column: subpartition_column.map(|name| name.to_string_lossy().into_owned()),
        subpartition_values: list("subpartition_values", subpartition_values),
        subpartition_count,
        leaf_key: list("leaf_key", leaf_key),
        storage_parameters: list("storage_parameters", storage_parameters),
    };
    let order = Order { dry_run: dry_run == Some(true), force: force == Some(true), ..Order::default() };
    let actions = parent
        .ok_or_else(|| IotError::null_argument("parent"))
        .and_then(|parent| manage_or_put_off(parent, wishes, order))
        .or_raise();
    TableIterator::new(actions.into_iter().map(|action| {
        (
            action.verb.to_owned(),
            action.partition,
            action.range.map(|range| clock::to_pg(range.start)),
            action.range.map(|range| clock::to_pg(range.end)),
            action.rows,
            action.bytes,
            action.reason,
            action.outcome.to_text(),
        )
    }))
}

/// As [`manage`]; where not even a look at the table is to be had, says so and has changed nothing.
fn manage_or_put_off(table: Oid, wishes: Wishes, order: Order) -> IotResult<Vec<Action>> {
    let wants_change = wishes != Wishes::default() && !order.dry_run;
    if let Some(actions) = run::unless_locked(|| manage(table, wishes, order))? {
        return Ok(actions);
    }
    if wants_change {
        IotError::new(
            PgSqlErrorCode::ERRCODE_WARNING,
            format!(
                "what iot.manage_partitions() was told about table \"{}\" is not remembered",
                relation::name_of(table).unwrap_or_default()
            ),
        )
        .hint("Somebody else has the table, or a partition of it, to himself: call it again later.")
        .warn();
    }
    Ok(vec![run::put_off(table)])
}

/// `manage_partitions()`.
///
/// # Errors
/// 42501 for callers who do not own the table; 22023 for wishes that do not fit; 55P03 when somebody else has it to himself;
/// what PostgreSQL raises.
pub fn manage(table: Oid, wishes: Wishes, order: Order) -> IotResult<Vec<Action>> {
    require_owner(table)?;
    if relation::is_temporary(table) {
        return Err(IotError::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("table \"{}\" is temporary", relation::name_of(table).unwrap_or_default()),
        )
        .hint("Name a table that stays: no other session could look after this one."));
    }
    let (_, _settings) = Patience::begin();
    with_session(|session| {
        let (time_column, time_type) = OpenRelation::look(table, |parent| {
            Ok::<_, IotError>((partition_bounds::time_column(parent)?, partition_bounds::time_type(parent)?))
        })?;
        let stored = partition_policy::load(session, table)?;
        // To write it tells every session to read it again.
        let is_news = stored.is_none() || wishes != Wishes::default();
        let stored = match stored {
            Some(stored) => stored,
            None => first_policy(table)?,
        };
        let wants_shape =
            wishes.storage_parameters.is_some() || wishes.tier_indexes.iter().any(Option::is_some);
        let policy = choose(session, table, wishes, stored, time_type)?;
        if wants_shape {
            probe::check(session, table, &policy)?;
        }
        if is_news && !order.dry_run {
            partition_policy::store(session, table, &time_column, policy.clone())?;
        }
        let actions = run::run(session, table, &policy, order)?;
        if actions.iter().any(|action| action.verb == "create") {
            warn_of_locks(session, table)?;
        }
        Ok(actions)
    })
}

/// Manages `table` from now on, in partitions of `interval`.
///
/// # Errors
/// As `manage_partitions()`.
pub fn begin(table: Oid, interval: Interval) -> IotResult<()> {
    let wishes = Wishes { partition_interval: Some(interval), ..Wishes::default() };
    manage(table, wishes, Order::default()).map(drop)
}

/// What holds for a table of which nobody has said anything.
///
/// # Errors
/// 42809 when it is not partitioned by time.
pub fn first_policy(table: Oid) -> IotResult<PartitionPolicy> {
    let interval = newest_interval(table)?.unwrap_or(PartitionInterval::Month);
    Ok(PartitionPolicy {
        interval,
        interval_given: partition_policy::as_given(interval)?,
        premake: 3,
        retention: None,
        index_policy: Vec::new(),
        duplicates: Duplicates::First,
        management: Management::default(),
    })
}

/// The wishes, else what was chosen before. An interval or a number of zero takes a choice back.
fn choose(
    session: &mut Session<'_>,
    table: Oid,
    wishes: Wishes,
    stored: PartitionPolicy,
    time_type: TimeType,
) -> IotResult<PartitionPolicy> {
    let before = stored.management;
    let interval_given = wishes.partition_interval.unwrap_or(stored.interval_given);
    let interval = partition_policy::interval_argument("partition_interval", &interval_given)?;
    if interval == PartitionInterval::Hour && time_type == TimeType::Date {
        return Err(IotError::invalid_argument("partition_interval 1 hour is shorter than a date")
            .hint("A table partitioned by a date takes intervals of 1 day or more."));
    }
    let premake = wishes.premake.unwrap_or(stored.premake);
    if !(0..=1000).contains(&premake) {
        return Err(IotError::invalid_argument(format!("premake {premake} is not between 0 and 1000"))
            .hint("Give the number of partitions to keep ready beyond the current one."));
    }
    let drop_after = age_or(wishes.retention, before.drop_after, "retention")?;
    let warm_after = age_or(wishes.warm_after, before.warm_after, "warm_after")?;
    let cold_after = age_or(wishes.cold_after, before.cold_after, "cold_after")?;
    if let (Some(warm), Some(cold)) = (warm_after.as_ref().and_then(age), cold_after.as_ref().and_then(age))
        && warm.before(clock::now()) < cold.before(clock::now())
    {
        return Err(IotError::invalid_argument(format!(
            "cold_after {cold} is shorter than warm_after {warm}"
        ))
        .hint("A partition is hot, then warm, then cold."));
    }
    let maximum_bytes = match wishes.maximum_bytes {
        Some(bytes) if bytes < 0 => {
            return Err(IotError::invalid_argument(format!("maximum_bytes {bytes} is negative"))
                .hint("Give the bytes that all partitions may take, or 0 for no limit."));
        }
        Some(bytes) => Some(bytes).filter(|&bytes| bytes > 0),
        None => before.maximum_bytes,
    };
    let mut tier_indexes = before.tier_indexes;
    for ((kept, wished), argument) in
        tier_indexes.iter_mut().zip(wishes.tier_indexes).zip(["hot_indexes", "warm_indexes", "cold_indexes"])
    {
        if let Some(wished) = wished {
            tiers::check(argument, &wished)?;
            *kept = wished;
        }
    }
    let storage_parameters = wishes.storage_parameters.unwrap_or(before.storage_parameters);
    check_parameters(&storage_parameters)?;
    let by = wishes.subpartition_by.or(before.subpartition_by.as_ref().map(|(by, _)| by.clone()));
    let column = wishes.subpartition_column.or(before.subpartition_by.map(|(_, column)| column));
    let mut management = Management {
        drop_after,
        maximum_bytes,
        warm_after,
        cold_after,
        tier_indexes,
        subpartition_by: None,
        subpartition_values: wishes.subpartition_values.unwrap_or(before.subpartition_values),
        subpartition_count: wishes.subpartition_count.or(before.subpartition_count),
        leaf_key: wishes.leaf_key.unwrap_or(before.leaf_key),
        storage_parameters,
    };
    if by.as_deref() != Some("none") {
        choose_subpartitions(session, table, by, column, &mut management)?;
    } else {
        management.subpartition_values.clear();
        management.subpartition_count = None;
        management.leaf_key.clear();
    }
    // What would be dropped at once is not accepted to begin with.
    let is_readings = in_schema_iot(c"sensor_data") == Some(table);
    let retention =
        if is_readings && wishes.retention.is_some() { management.drop_after } else { stored.retention };
    Ok(PartitionPolicy {
        interval,
        interval_given,
        premake,
        retention,
        index_policy: stored.index_policy,
        duplicates: stored.duplicates,
        management,
    })
}

fn age_or(wished: Option<Interval>, before: Option<Interval>, argument: &str) -> IotResult<Option<Interval>> {
    let Some(wished) = wished else { return Ok(before) };
    if (wished.months(), wished.days(), wished.micros()) == (0, 0, 0) {
        return Ok(None);
    }
    match age(&wished) {
        Some(_) => Ok(Some(wished)),
        None => Err(IotError::invalid_argument(format!("{argument} {wished} is negative"))
            .hint("Give an age such as '90 days', or '0' for none.")),
    }
}

/// Sub-partitions as wished, if they fit the table.
fn choose_subpartitions(
    session: &mut Session<'_>,
    table: Oid,
    by: Option<String>,
    column: Option<String>,
    management: &mut Management,
) -> IotResult<()> {
    let Some(by) = by else {
        for (argument, is_given) in [
            ("subpartition_column", column.is_some()),
            ("subpartition_values", !management.subpartition_values.is_empty()),
            ("subpartition_count", management.subpartition_count.is_some()),
            ("leaf_key", !management.leaf_key.is_empty()),
        ] {
            if is_given {
                return Err(IotError::invalid_argument(format!(
                    "{argument} is given without subpartition_by"
                ))
                .hint("Say subpartition_by => 'list' or 'hash'."));
            }
        }
        return Ok(());
    };
    if !["list", "hash"].contains(&by.as_str()) {
        return Err(IotError::invalid_argument(format!("subpartition_by cannot be \"{by}\""))
            .hint("Choose among: list, hash, none."));
    }
    let column = column.ok_or_else(|| IotError::null_argument("subpartition_column"))?;
    for name in management.leaf_key.iter().chain([&column]) {
        if column_type(session, table, name)?.is_none() {
            return Err(IotError::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("column \"{name}\" of the table does not exist"),
            )
            .hint("Name a column of the partitioned table."));
        }
    }
    match by.as_str() {
        "list" if management.subpartition_values.is_empty() => {
            return Err(IotError::null_argument("subpartition_values"));
        }
        "list" => management.subpartition_count = None,
        _ => {
            if !management.subpartition_count.is_some_and(|count| (1..=1000).contains(&count)) {
                return Err(IotError::invalid_argument(format!(
                    "subpartition_count {} is not between 1 and 1000",
                    management.subpartition_count.map_or("NULL".to_owned(), |count| count.to_string())
                ))
                .hint("Give the number of sub-partitions of each partition."));
            }
            management.subpartition_values.clear();
        }
    }
    if in_schema_iot(c"sensor_data") == Some(table) {
        return Err(IotError::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "iot.sensor_data cannot have sub-partitions",
        )
        .hint("Its primary key finds readings that are sent twice, and would have to hold the column of the sub-partitions."));
    }
    management.subpartition_by = Some((by, column));
    Ok(())
}

/// Storage parameters become a part of CREATE TABLE: names and plain values only.
fn check_parameters(parameters: &[String]) -> IotResult<()> {
    let is_word = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    for parameter in parameters {
        let fits = parameter
            .split_once('=')
            .is_some_and(|(name, value)| is_word(name.trim(), "_.") && is_word(value.trim(), "_.-"));
        if !fits {
            return Err(IotError::invalid_argument(format!("storage_parameters has \"{parameter}\""))
                .hint("Give name=value, such as fillfactor=90."));
        }
    }
    Ok(())
}

#[pg_extern(sql = false)]
fn premake_partitions(parent: Oid) -> i32 {
    let made = with_session(|session| upkeep::premake(session, parent)).or_raise();
    i32::try_from(made).unwrap_or(i32::MAX)
}

#[pg_extern(sql = false)]
fn partition_statements(parent: Option<Oid>) -> SetOfIterator<'static, String> {
    let parts = with_session(|session| {
        if let Some(parent) = parent {
            require_owner(parent)?;
        }
        upkeep::statements(session, parent)
    })
    .or_raise();
    SetOfIterator::new(parts.into_iter().flat_map(|part| part.statements))
}
