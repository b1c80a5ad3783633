//! Time partitions: planned in the core, made stand-alone and then attached, so that readers and writers of the
//! parent go on meanwhile (SHARE UPDATE EXCLUSIVE on the parent, nothing stronger).

use std::ffi::{CStr, CString};

use iot_core::partition::{PartitionInterval, PartitionRange, partition_name, plan, range_for};
use iot_core::time::Timestamp;
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_identifier, quote_literal, quote_qualified_identifier};
use pgrx::{PgSqlErrorCode, pg_extern};

use crate::catalog::partition_policy;
use crate::engine;
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::relation::{Lock, OpenRelation, in_schema_iot};
use crate::pg::security::{self, ActingAs};
use crate::pg::statement::{Session, with_session};
use crate::pg::{clock, partition_bounds};

/// Makes sure that there is a partition of `iot.<name>` for each of `times`; the usual case costs a binary search
/// each. Only the making of a partition runs as the table's owner, so that a role with no more than INSERT can store the
/// first reading of a new month.
///
/// # Errors
/// What PostgreSQL raises while a partition is made.
pub fn ensure_for(name: &CStr, times: impl Iterator<Item = Timestamp>) -> IotResult<()> {
    let Some(table) = in_schema_iot(name) else {
        return Ok(());
    };
    let parent = OpenRelation::open(table, Lock::RowExclusive);
    let missing = partition_bounds::uncovered(&parent, times)?;
    if missing.is_empty() {
        return Ok(());
    }
    let owner = parent.owner();
    // ATTACH wants the parent unused by this session.
    drop(parent);
    with_session(|session| {
        let interval = interval_of(session, table)?;
        let _owner = ActingAs::restricted(owner);
        for at in missing {
            create_missing(session, table, interval, |existing| {
                range_for(existing, interval, at).into_iter().collect()
            })?;
        }
        Ok(())
    })
}

/// Makes the partitions that `choose` picks, given those that exist; takes no lock worth mentioning when it picks none.
///
/// Sessions that race for the same partition meet at the lock that ATTACH needs anyway, which also holds off partitions
/// made by hand; the later one looks again and finds nothing left to do. (An advisory lock would be one that anybody can
/// take and keep.)
///
/// # Errors
/// 42809 when `table` is not partitioned by time; else what PostgreSQL raises.
pub fn create_missing(
    session: &mut Session<'_>,
    table: Oid,
    interval: PartitionInterval,
    choose: impl Fn(&[PartitionRange]) -> Vec<PartitionRange>,
) -> IotResult<Vec<String>> {
    if choose(&partition_bounds::ranges(&OpenRelation::open(table, Lock::AccessShare))?).is_empty() {
        return Ok(Vec::new());
    }
    let parent = OpenRelation::open_fresh(table, Lock::ShareUpdateExclusive);
    let chosen = choose(&partition_bounds::ranges(&parent)?);
    let work = Work {
        schema: parent.schema(),
        qualified_parent: parent.qualified_name(),
        row_security: parent.row_security(),
        full_replica_identity: parent.has_full_replica_identity(),
        names: chosen.iter().map(|&range| free_name(&parent, interval, range)).collect::<IotResult<_>>()?,
        ranges: chosen,
    };
    drop(parent);
    for (name, range) in work.names.iter().zip(&work.ranges) {
        create(session, &work, name, *range)?;
    }
    Ok(work.names)
}

/// What `create` needs to know of the parent.
struct Work {
    schema: String,
    qualified_parent: String,
    row_security: (bool, bool),
    full_replica_identity: bool,
    names: Vec<String>,
    ranges: Vec<PartitionRange>,
}

fn create(session: &mut Session<'_>, work: &Work, name: &str, range: PartitionRange) -> IotResult<()> {
    let partition = quote_qualified_identifier(work.schema.as_str(), name);
    let parent = &work.qualified_parent;
    let start = quote_literal(range.start.to_utc_literal());
    let end = quote_literal(range.end.to_utc_literal());
    session.run(&format!(
        "CREATE TABLE {partition} (LIKE {parent} INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS \
         INCLUDING STORAGE INCLUDING COMPRESSION INCLUDING COMMENTS)"
    ))?;
    // Row security of the parent would not hold for those who read the partition by its own name.
    if work.row_security.0 {
        session.run(&format!("ALTER TABLE {partition} ENABLE ROW LEVEL SECURITY"))?;
    }
    if work.row_security.1 {
        session.run(&format!("ALTER TABLE {partition} FORCE ROW LEVEL SECURITY"))?;
    }
    if work.full_replica_identity {
        session.run(&format!("ALTER TABLE {partition} REPLICA IDENTITY FULL"))?;
    }
    let comment = quote_literal(format!(
        "Rows of {parent} from {} (inclusive) to {} (exclusive).",
        range.start.to_utc_literal(),
        range.end.to_utc_literal()
    ));
    session.run(&format!("COMMENT ON TABLE {partition} IS {comment}"))?;
    // A TRUNCATE trigger of the parent does not see a TRUNCATE of the partition.
    if work.qualified_parent == "iot.sensor_data" {
        session.run(&format!(
            "CREATE TRIGGER sensor_data_truncated AFTER TRUNCATE ON {partition} \
             FOR EACH STATEMENT EXECUTE FUNCTION iot.readings_changed()"
        ))?;
        session.run(&format!("ALTER TABLE {partition} ENABLE ALWAYS TRIGGER sensor_data_truncated"))?;
    }
    // It is empty: no reading comes with it.
    engine::writing(|| {
        session.run(&format!(
            "ALTER TABLE {parent} ATTACH PARTITION {partition} FOR VALUES FROM ({start}) TO ({end})"
        ))
    })
}

/// The partition's usual name, or the next free one: a detached partition of the same range may still have it.
fn free_name(parent: &OpenRelation, interval: PartitionInterval, range: PartitionRange) -> IotResult<String> {
    let usual = partition_name(&parent.name(), interval, range);
    for attempt in 0..100 {
        let name = numbered(&usual, attempt);
        let c_name = CString::new(name.as_str())
            .map_err(|_| IotError::invalid_argument("table name contains a NUL character"))?;
        if !parent.sibling_exists(&c_name) {
            return Ok(name);
        }
    }
    Err(IotError::new(
        PgSqlErrorCode::ERRCODE_DUPLICATE_TABLE,
        format!("no free name for partition {} of \"{}\"", quote_identifier(&usual), parent.name()),
    )
    .hint("Drop or rename the detached partitions of that range."))
}

/// `name` itself, then `name_1`, `name_2` …, within the 63 bytes of an identifier.
fn numbered(name: &str, attempt: u32) -> String {
    const IDENTIFIER_BYTES: usize = 63;
    if attempt == 0 {
        return name.to_owned();
    }
    let suffix = format!("_{attempt}");
    let end = name.floor_char_boundary(name.len().min(IDENTIFIER_BYTES - suffix.len()));
    format!("{}{suffix}", &name[..end])
}

/// The partition interval of `table`: its policy's, else that of the readings, else a month.
fn interval_of(session: &mut Session<'_>, table: Oid) -> IotResult<PartitionInterval> {
    for table in std::iter::once(table).chain(in_schema_iot(c"sensor_data")) {
        if let Some(policy) = partition_policy::load(session, table)? {
            return Ok(policy.interval);
        }
    }
    Ok(PartitionInterval::Month)
}

/// Refuses before any lock is taken: ATTACH would do so only after it.
fn require_owner(table: Oid) -> IotResult<()> {
    let table = OpenRelation::open(table, Lock::AccessShare);
    if security::current_user_has_privileges_of(table.owner()) {
        return Ok(());
    }
    Err(IotError::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        format!("must be owner of table {}", table.qualified_name()),
    )
    .hint("Call it as the owner of the table, or as a member of that role."))
}

#[pg_extern(sql = false)]
fn create_monthly_partition(parent: Oid, year: i32, month: i32) -> Option<String> {
    let first = u32::try_from(month).ok().and_then(|month| Timestamp::from_utc_civil(year, month, 1));
    let Some(first) = first.filter(|_| (1..=9999).contains(&year)) else {
        IotError::invalid_argument(format!("year {year}, month {month} is not a month"))
            .hint("Give a year from 1 to 9999 and a month from 1 to 12.")
            .raise();
    };
    require_owner(parent).or_raise();
    with_session(|session| {
        create_missing(session, parent, PartitionInterval::Month, |existing| {
            range_for(existing, PartitionInterval::Month, first).into_iter().collect()
        })
    })
    .or_raise()
    .pop()
}

#[pg_extern(sql = false)]
fn create_future_partitions(parent: Oid, months_ahead: i32) -> Vec<String> {
    let Some(premake) = u32::try_from(months_ahead).ok().filter(|&months| months <= 1000) else {
        IotError::invalid_argument(format!("months_ahead {months_ahead} is not between 0 and 1000"))
            .hint("Give the number of months to prepare beyond the current one.")
            .raise();
    };
    require_owner(parent).or_raise();
    with_session(|session| {
        create_missing(session, parent, PartitionInterval::Month, |existing| {
            plan(existing, PartitionInterval::Month, clock::now(), premake)
        })
    })
    .or_raise()
}
