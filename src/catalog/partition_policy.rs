//! `iot.partition_policy`: how each managed table is partitioned. Belongs to the extension, so it is written as the
//! extension's owner, after the caller has been found to own the table.

use std::ffi::CStr;

use iot_core::partition::PartitionInterval;
use pgrx::datum::Interval;
use pgrx::pg_sys::Oid;

use crate::error::{IotError, IotResult};
use crate::pg::relation::{Lock, OpenRelation, in_schema_iot};
use crate::pg::security::ActingAs;
use crate::pg::statement::Session;
use crate::statement;

/// How a table is partitioned.
#[derive(Clone)]
pub struct PartitionPolicy {
    /// Width of new partitions.
    pub interval: PartitionInterval,
    /// The same, as it was given.
    pub interval_given: Interval,
    /// Partitions kept ready beyond the current one.
    pub premake: i32,
    /// How far back rows are accepted; `None` is the default of ten years.
    pub retention: Option<Interval>,
    /// Optional indexes that the table carries.
    pub index_policy: Vec<String>,
    /// What becomes of readings whose sensor and time are taken.
    pub duplicates: Duplicates,
    /// What `manage_partitions()` was told beside that.
    pub management: Management,
}

/// What becomes of partitions, and what new ones are like.
#[derive(Clone, Default)]
pub struct Management {
    /// Age at which partitions are dropped.
    pub drop_after: Option<Interval>,
    /// What all of them may take.
    pub maximum_bytes: Option<i64>,
    /// Age at which one is warm.
    pub warm_after: Option<Interval>,
    /// Age at which one is cold.
    pub cold_after: Option<Interval>,
    /// Definitions of the indexes of the tiers, hot first.
    pub tier_indexes: [Vec<String>; 3],
    /// `list` or `hash`, and the column.
    pub subpartition_by: Option<(String, String)>,
    /// Values with a sub-partition each.
    pub subpartition_values: Vec<String>,
    /// Number of sub-partitions.
    pub subpartition_count: Option<i32>,
    /// Columns of the primary key of each leaf.
    pub leaf_key: Vec<String>,
    /// Storage parameters of new leaves.
    pub storage_parameters: Vec<String>,
}

/// What becomes of a reading whose sensor has one of that time already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duplicates {
    /// The stored one stays.
    #[default]
    First,
    /// The new one takes its place.
    Last,
    /// Both are kept.
    Both,
}

impl Duplicates {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::First, Self::Last, Self::Both];

    /// Its name in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Last => "last",
            Self::Both => "both",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.as_str() == name)
    }
}

statement!(LOAD: (REGCLASSOID)
    "SELECT p.partition_interval, p.premake, p.retention, p.index_policy, p.duplicates, p.drop_after, p.maximum_bytes,
            p.warm_after, p.cold_after, p.hot_indexes, p.warm_indexes, p.cold_indexes, p.subpartition_by,
            p.subpartition_column::pg_catalog.text, p.subpartition_values, p.subpartition_count, p.leaf_key,
            p.storage_parameters
       FROM iot.partition_policy p
      WHERE p.parent OPERATOR(pg_catalog.=) $1");

/// The policy of `table`, if it has one.
///
/// # Errors
/// 22023 for a stored interval that is not supported.
pub fn load(session: &mut Session<'_>, table: Oid) -> IotResult<Option<PartitionPolicy>> {
    let Some(row) = session.execute(&LOAD, &[table.into()])?.first() else {
        return Ok(None);
    };
    let interval_given: Interval = row.get(1)?;
    Ok(Some(PartitionPolicy {
        interval: interval(&interval_given)?,
        interval_given,
        premake: row.get(2)?,
        retention: row.optional(3)?,
        index_policy: row.get(4)?,
        duplicates: Duplicates::from_name(&row.get::<String>(5)?).unwrap_or_default(),
        management: Management {
            drop_after: row.optional(6)?,
            maximum_bytes: row.optional(7)?,
            warm_after: row.optional(8)?,
            cold_after: row.optional(9)?,
            tier_indexes: [row.get(10)?, row.get(11)?, row.get(12)?],
            subpartition_by: row.optional::<String>(13)?.zip(row.optional(14)?),
            subpartition_values: row.get(15)?,
            subpartition_count: row.optional(16)?,
            leaf_key: row.get(17)?,
            storage_parameters: row.get(18)?,
        },
    }))
}

/// The partition width that an SQL interval stands for.
///
/// # Errors
/// 22023 for any but one hour, day, week, month, quarter or year.
pub fn interval(given: &Interval) -> IotResult<PartitionInterval> {
    Ok(PartitionInterval::from_interval(given.months(), given.days(), given.micros())?)
}

/// The same, of what a caller gave as `argument`.
///
/// # Errors
/// As [`interval`], with the argument and its value.
pub fn interval_argument(argument: &str, given: &Interval) -> IotResult<PartitionInterval> {
    PartitionInterval::from_interval(given.months(), given.days(), given.micros()).map_err(|error| {
        IotError::invalid_argument(format!("{argument} {given} is not a width of partitions"))
            .hint(error.hint())
    })
}

/// The SQL interval of a partition width.
///
/// # Errors
/// None in practice: each width is an interval.
pub fn as_given(interval: PartitionInterval) -> IotResult<Interval> {
    let (months, days, hours) = match interval {
        PartitionInterval::Hour => (0, 0, 1),
        PartitionInterval::Day => (0, 1, 0),
        PartitionInterval::Week => (0, 7, 0),
        PartitionInterval::Month => (1, 0, 0),
        PartitionInterval::Quarter => (3, 0, 0),
        PartitionInterval::Year => (12, 0, 0),
    };
    Interval::new(months, days, hours * iot_core::time::MICROS_PER_HOUR)
        .map_err(|error| IotError::invalid_argument(format!("partition interval: {error}")))
}

statement!(STORE: (
        REGCLASSOID, TEXTOID, INTERVALOID, INT4OID, INTERVALOID, TEXTARRAYOID, TEXTOID, INTERVALOID, INT8OID, INTERVALOID,
        INTERVALOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTOID, TEXTOID, TEXTARRAYOID, INT4OID, TEXTARRAYOID,
        TEXTARRAYOID,
    )
    "INSERT INTO iot.partition_policy AS p (
         parent, time_column, partition_interval, premake, retention, index_policy, duplicates, drop_after, maximum_bytes,
         warm_after, cold_after, hot_indexes, warm_indexes, cold_indexes, subpartition_by, subpartition_column,
         subpartition_values, subpartition_count, leaf_key, storage_parameters)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
     ON CONFLICT (parent) DO UPDATE
        SET time_column = EXCLUDED.time_column, partition_interval = EXCLUDED.partition_interval,
            premake = EXCLUDED.premake, retention = EXCLUDED.retention, index_policy = EXCLUDED.index_policy,
            duplicates = EXCLUDED.duplicates, drop_after = EXCLUDED.drop_after, maximum_bytes = EXCLUDED.maximum_bytes,
            warm_after = EXCLUDED.warm_after, cold_after = EXCLUDED.cold_after, hot_indexes = EXCLUDED.hot_indexes,
            warm_indexes = EXCLUDED.warm_indexes, cold_indexes = EXCLUDED.cold_indexes,
            subpartition_by = EXCLUDED.subpartition_by, subpartition_column = EXCLUDED.subpartition_column,
            subpartition_values = EXCLUDED.subpartition_values, subpartition_count = EXCLUDED.subpartition_count,
            leaf_key = EXCLUDED.leaf_key, storage_parameters = EXCLUDED.storage_parameters");

statement!(ALL: ()
    "SELECT p.parent::pg_catalog.oid FROM iot.partition_policy p
       JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) p.parent
      ORDER BY p.parent::pg_catalog.oid");

/// Every managed table.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn all(session: &mut Session<'_>) -> IotResult<Vec<Oid>> {
    let mut tables = Vec::new();
    session.execute(&ALL, &[])?.for_each(|row| {
        tables.push(row.get(1)?);
        Ok(())
    })?;
    Ok(tables)
}

/// Acts as the owner of the catalogue's table `name`, which belongs to the extension.
///
/// # Errors
/// 55000 when it is gone.
pub fn as_owner_of(name: &CStr) -> IotResult<ActingAs> {
    let table = in_schema_iot(name).ok_or_else(|| {
        IotError::wrong_state(format!("table iot.{} does not exist", name.to_string_lossy()))
            .hint("It is made by CREATE EXTENSION, or by ALTER EXTENSION iot_ext UPDATE.")
    })?;
    Ok(ActingAs::restricted(OpenRelation::open(table, Lock::AccessShare).owner()))
}

/// Writes the policy of `table`; the caller has made sure that the current user owns it.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn store(
    session: &mut Session<'_>,
    table: Oid,
    time_column: &str,
    policy: PartitionPolicy,
) -> IotResult<()> {
    let _owner = as_owner_of(c"partition_policy")?;
    let Management {
        drop_after,
        maximum_bytes,
        warm_after,
        cold_after,
        tier_indexes: [hot_indexes, warm_indexes, cold_indexes],
        subpartition_by,
        subpartition_values,
        subpartition_count,
        leaf_key,
        storage_parameters,
    } = policy.management;
    let (subpartition_by, subpartition_column) = subpartition_by.unzip();
    session.execute(
        &STORE,
        &[
            table.into(),
            time_column.into(),
            policy.interval_given.into(),
            policy.premake.into(),
            policy.retention.into(),
            policy.index_policy.into(),
            policy.duplicates.as_str().into(),
            drop_after.into(),
            maximum_bytes.into(),
            warm_after.into(),
            cold_after.into(),
            hot_indexes.into(),
            warm_indexes.into(),
            cold_indexes.into(),
            subpartition_by.into(),
            subpartition_column.into(),
            subpartition_values.into(),
            subpartition_count.into(),
            leaf_key.into(),
            storage_parameters.into(),
        ],
    )?;
    Ok(())
}
