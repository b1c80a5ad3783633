//! Tables that are partitioned already: rows leave the default partition, and the table is managed from then on.
//!
//! The default partition is converted as a plain table is. At the end it is detached, and the partitions of its copy are
//! attached in its place: no row is deleted from one table and inserted into another while somebody looks.

use iot_core::conversion::Phase;
use pgrx::PgSqlErrorCode;
use pgrx::datum::Interval;
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_identifier, quote_literal, quote_qualified_identifier};

use super::shape::Shape;
use super::swap::Hurry;
use super::{begin, carry, check, copy, finish, partman, require_owner, swap};
use crate::catalog::conversion::{self, Conversion, Order};
use crate::catalog::{conversion_source, partition_policy};
use crate::engine;
use crate::error::{IotError, IotResult};
use crate::partition::{self, BOUNDS, free_name};
use crate::pg::partition_bounds;
use crate::pg::relation::{Lock, OpenRelation};
use crate::pg::security::ActingAs;
use crate::pg::statement::{Session, with_session};

/// What the caller wants of the table; `None` is left to `pg_partman`'s configuration, or to what is there.
pub struct Wishes {
    /// Width of new partitions.
    pub partition_interval: Option<Interval>,
    /// Partitions kept ready.
    pub premake: Option<i32>,
    /// Age at which partitions are dropped.
    pub retention: Option<Interval>,
}

/// What is to hold for the table.
struct Chosen {
    interval: Interval,
    premake: i32,
    retention: Option<Interval>,
    partman: Option<partman::Configuration>,
}

fn choose(session: &mut Session<'_>, parent: Oid, wishes: Wishes) -> IotResult<Chosen> {
    let stored = partition_policy::load(session, parent)?;
    let partman = partman::configuration(session, parent)?;
    let told = partman.as_ref();
    let interval = match wishes
        .partition_interval
        .or_else(|| told.map(|told| told.interval))
        .or_else(|| stored.as_ref().map(|stored| stored.interval_given))
    {
        Some(interval) => interval,
        None => partition_policy::as_given(
            partition::newest_interval(parent)?.unwrap_or(iot_core::partition::PartitionInterval::Month),
        )?,
    };
    let premake = wishes
        .premake
        .or_else(|| told.map(|told| told.premake))
        .or_else(|| stored.as_ref().map(|stored| stored.premake))
        .unwrap_or(3);
    let retention = wishes.retention.or_else(|| told.and_then(|told| told.retention));
    partition_policy::interval(&interval)?;
    if !(0..=1_000).contains(&premake) {
        return Err(IotError::invalid_argument(format!("premake {premake} is not between 0 and 1000"))
            .hint("Give the number of partitions to keep ready beyond the current one."));
    }
    Ok(Chosen { interval, premake, retention, partman })
}

/// Begins to empty the default partition of `parent`, or finds the import to go on with; its key, `None` where there is
/// nothing to move.
///
/// # Errors
/// 42809 when the table is not partitioned by time; those of [`check::check`] about its default partition.
pub fn begin(
    parent: Oid,
    wishes: Wishes,
    (batch_rows, lock_retries): (i32, i32),
    (keep_default, keep_original): (bool, bool),
    dry_run: bool,
) -> IotResult<Option<i64>> {
    require_owner(parent)?;
    let (time_column, default) = OpenRelation::look(parent, |table| {
        Ok::<_, IotError>((
            partition_bounds::time_column(table)?,
            partition_bounds::default_partition(table)?,
        ))
    })?;
    with_session(|session| {
        let chosen = choose(session, parent, wishes)?;
        let order = Order {
            time_column: time_column.clone(),
            interval_given: chosen.interval,
            premake: chosen.premake,
            batch_rows,
            keep_original,
            keep_default,
            lock_retries,
        };
        if let Some(found) = conversion::unfinished_of_parent(session, parent)? {
            return begin::resume(session, found, order, dry_run);
        }
        let Some(default) = default else { return Ok(None) };
        let owner = require_owner(default)?;
        let source = conversion_source::load(session, default)?;
        let name = source.qualified_name;
        if source.kind != "r" {
            return Err(IotError::new(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!("default partition {name} is not a plain table"),
            )
            .hint("Move its rows by hand, then detach it."));
        }
        if keep_default {
            let _owner = ActingAs::seeing_own_rows(owner);
            if session.query(&format!("SELECT 1 FROM ONLY {name} LIMIT 1"))?.count() == 0 {
                return Ok(None);
            }
        }
        let interval = partition_policy::interval(&chosen.interval)?;
        let plan = check::check(session, default, &time_column, (interval, chosen.premake), true)?;
        if dry_run {
            plan.tell(&chosen.interval);
            return Ok(None);
        }
        begin::begin(session, default, owner, Some(parent), &plan, order).map(Some)
    })
}

/// Puts the partitions of the copy into the place of the default partition. The caller has table and partition to himself.
///
/// # Errors
/// What PostgreSQL raises.
pub fn attach(
    session: &mut Session<'_>,
    conversion: &Conversion,
    shape: &Shape,
    parent: Oid,
    hurry: Hurry,
) -> IotResult<()> {
    let default = &shape.source;
    let [(table, _), (_, default_name)] = [parent, conversion.relation]
        .map(|table| OpenRelation::look(table, |table| (table.qualified_name(), table.name())));
    let schema = OpenRelation::look(conversion.relation, OpenRelation::schema);
    let (time_type, taken) = OpenRelation::look(parent, |table| {
        Ok::<_, IotError>((partition_bounds::time_type(table)?, partition_bounds::ranges(table)?))
    })?;
    swap::drop_triggers(session, conversion.relation)?;
    engine::writing(|| hurry.run(session, &format!("ALTER TABLE {table} DETACH PARTITION {default}")))?;
    let aside = free_name(&schema, &finish::kept_default(&default_name))?;
    hurry.run(session, &format!("ALTER TABLE {default} RENAME TO {}", quote_identifier(&aside)))?;
    let foreign_keys = conversion_source::foreign_keys(session, conversion.relation)?;
    let kept = quote_qualified_identifier(schema.as_str(), aside.as_str());
    carry::drop_foreign_keys(session, &kept, &foreign_keys, hurry)?;
    for (partition, range) in copy::partitions(session, conversion)? {
        // Somebody else made one meanwhile: rows of that time went there.
        let overlaps = taken.iter().any(|other| other.start < range.end && range.start < other.end);
        if overlaps && session.query(&format!("SELECT 1 FROM {partition} LIMIT 1"))?.count() == 0 {
            continue;
        }
        let [start, end] = [range.start, range.end].map(|at| quote_literal(time_type.literal(at)));
        engine::writing(|| {
            hurry.run(session, &format!("ALTER TABLE {} DETACH PARTITION {partition}", shape.copy))?;
            hurry.run(
                session,
                &format!(
                    "ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ({start}) TO ({end})"
                ),
            )
        })?;
        hurry.run(session, &format!("ALTER TABLE {partition} DROP CONSTRAINT {BOUNDS}"))?;
    }
    if conversion.order.keep_default {
        let empty = quote_qualified_identifier(schema.as_str(), default_name.as_str());
        hurry.run(session, &format!("CREATE TABLE {empty} PARTITION OF {table} DEFAULT"))?;
        for role in crate::catalog::partition::grantees(session, &empty)? {
            hurry.run(session, &format!("REVOKE ALL ON TABLE {empty} FROM {role}"))?;
        }
    }
    conversion::renamed(session, conversion.id, conversion.relation, conversion.relation)
}

/// Manages the table from now on, and says what is to be done about `pg_partman`.
///
/// # Errors
/// Those of `manage_partitions()`.
pub fn end(parent: Oid, wishes: Wishes, dry_run: bool) -> IotResult<()> {
    require_owner(parent)?;
    let chosen = with_session(|session| choose(session, parent, wishes))?;
    let name = OpenRelation::look(parent, OpenRelation::qualified_name);
    let keeps = partition::Wishes {
        partition_interval: Some(chosen.interval),
        premake: Some(chosen.premake),
        retention: chosen.retention,
        ..partition::Wishes::default()
    };
    // What is old is left to the next upkeep, so that there is time to look at what was imported.
    let order = partition::Order { dry_run, only_premake: true, ..partition::Order::default() };
    let actions = partition::manage(parent, keeps, order)?;
    let retention = chosen.retention.map_or("no retention".to_owned(), |age| format!("retention {age}"));
    super::notice(&format!(
        "table {name} {} managed with partitions of {}, premake {}, {retention}; {} partitions {} made ahead",
        if dry_run { "would be" } else { "is" },
        chosen.interval,
        chosen.premake,
        actions.len(),
        if dry_run { "would be" } else { "were" },
    ));
    if let Some(partman) = chosen.partman {
        partman.tell(&name);
    }
    Ok(())
}

/// Ranges of the table that rows of its default partition cannot have.
///
/// # Errors
/// 42809 when it is not partitioned by time.
pub fn taken_ranges(conversion: &Conversion) -> IotResult<Vec<iot_core::partition::PartitionRange>> {
    match conversion.parent {
        Some(parent) if conversion.state.phase < Phase::Cleaning => {
            partition_bounds::ranges(&OpenRelation::open(parent, Lock::AccessShare))
        }
        _ => Ok(Vec::new()),
    }
}
