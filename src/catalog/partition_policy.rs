//! `iot.partition_policy`: how each managed table is partitioned. Belongs to the extension, so it is written as the
//! extension's owner, after the caller has been found to own the table.

use iot_core::partition::PartitionInterval;
use pgrx::datum::Interval;
use pgrx::pg_sys::Oid;

use crate::error::{IotError, IotResult};
use crate::pg::relation::{Lock, OpenRelation, in_schema_iot};
use crate::pg::security::ActingAs;
use crate::pg::statement::Session;
use crate::statement;

/// How a table is partitioned.
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
    "SELECT p.partition_interval, p.premake, p.retention, p.index_policy, p.duplicates
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
    }))
}

/// The partition width that an SQL interval stands for.
///
/// # Errors
/// 22023 for any but one hour, day, week or month.
pub fn interval(given: &Interval) -> IotResult<PartitionInterval> {
    Ok(PartitionInterval::from_interval(given.months(), given.days(), given.micros())?)
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
    };
    Interval::new(months, days, hours * iot_core::time::MICROS_PER_HOUR)
        .map_err(|error| IotError::invalid_argument(format!("partition interval: {error}")))
}

statement!(STORE: (REGCLASSOID, TEXTOID, INTERVALOID, INT4OID, INTERVALOID, TEXTARRAYOID, TEXTOID)
    "INSERT INTO iot.partition_policy AS p (
         parent, time_column, partition_interval, premake, retention, index_policy, duplicates)
     VALUES ($1, $2, $3, $4, $5, $6, $7)
     ON CONFLICT (parent) DO UPDATE
        SET time_column = EXCLUDED.time_column, partition_interval = EXCLUDED.partition_interval,
            premake = EXCLUDED.premake, retention = EXCLUDED.retention, index_policy = EXCLUDED.index_policy,
            duplicates = EXCLUDED.duplicates");

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
    let catalogue = in_schema_iot(c"partition_policy")
        .ok_or_else(|| IotError::wrong_state("table iot.partition_policy does not exist"))?;
    let owner = OpenRelation::open(catalogue, Lock::AccessShare).owner();
    let _owner = ActingAs::restricted(owner);
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
        ],
    )?;
    Ok(())
}
