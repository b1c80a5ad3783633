//! `iot.setup()`: makes the user's tables, brings them forward, and attaches what hangs on the extension.

use iot_core::partition::{PartitionInterval, plan};
use pgrx::datum::{Interval, JsonB};
use pgrx::pg_sys::Oid;
use pgrx::{PgSqlErrorCode, pg_extern};
use serde::Serialize;

use crate::catalog::migration::{self, Migration};
use crate::catalog::partition_policy::{self, Duplicates, Management, PartitionPolicy};
use crate::catalog::sensor_state;
use crate::catalog::uniqueness;
use crate::engine::overlay;
use crate::error::{IotError, IotResult, OrRaise};
use crate::job;
use crate::partition;
use crate::pg::relation::{self, Lock, OpenRelation, in_schema_iot};
use crate::pg::security::{self, ActingAs};
use crate::pg::shared::schedule;
use crate::pg::statement::{Session, with_session};
use crate::pg::{clock, partition_bounds};

/// The migrations, in order. A released one is never edited: what changes is a new file.
const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "registry", text: include_str!("../sql/setup/0001_registry.sql") },
    Migration { version: 2, name: "sensor_data", text: include_str!("../sql/setup/0002_sensor_data.sql") },
    Migration { version: 3, name: "alert", text: include_str!("../sql/setup/0003_alert.sql") },
    Migration { version: 4, name: "command", text: include_str!("../sql/setup/0004_command.sql") },
    Migration { version: 5, name: "ingest", text: include_str!("../sql/setup/0005_ingest.sql") },
    Migration { version: 6, name: "calibration", text: include_str!("../sql/setup/0006_calibration.sql") },
    Migration {
        version: 7,
        name: "processed_data",
        text: include_str!("../sql/setup/0007_processed_data.sql"),
    },
    Migration { version: 8, name: "health", text: include_str!("../sql/setup/0008_health.sql") },
    Migration { version: 9, name: "device_logs", text: include_str!("../sql/setup/0009_device_logs.sql") },
];

/// Makes the table that records migrations.
const BOOTSTRAP: &str = include_str!("../sql/setup/0000_schema_migrations.sql");

/// Run by every call: what depends on functions of the extension, which DROP EXTENSION … CASCADE takes away.
const ATTACHMENTS: &[&str] = &[
    include_str!("../sql/setup/always/10_triggers.sql"),
    include_str!("../sql/setup/always/20_defaults.sql"),
    include_str!("../sql/setup/always/30_views.sql"),
    include_str!("../sql/setup/always/40_latest_views.sql"),
];

/// An index of `iot.sensor_data` that the index policy can name. The primary key is always there.
struct OptionalIndex {
    policy: &'static str,
    name: &'static str,
    definition: &'static str,
    by_default: bool,
}

const OPTIONAL_INDEXES: &[OptionalIndex] = &[
    OptionalIndex {
        policy: "device_time",
        name: "idx_sensor_data_device_time",
        definition: "(device_id, measurement_timestamp DESC)",
        by_default: true,
    },
    OptionalIndex {
        policy: "time_brin",
        name: "idx_sensor_data_time_brin",
        definition: "USING brin (measurement_timestamp)",
        by_default: true,
    },
    OptionalIndex {
        policy: "metadata_gin",
        name: "idx_sensor_data_metadata",
        definition: "USING gin (measurement_metadata pg_catalog.jsonb_path_ops)",
        by_default: false,
    },
    OptionalIndex {
        policy: "time_bucket",
        name: "idx_sensor_data_time_bucket",
        definition: "(hour_bucket, sensor_id)",
        by_default: false,
    },
    OptionalIndex {
        policy: "quality",
        name: "idx_sensor_data_quality",
        definition: "(measurement_timestamp) WHERE data_quality OPERATOR(pg_catalog.<>) 'valid'",
        by_default: false,
    },
];

/// What a call to `setup()` did.
#[derive(Default, Serialize)]
struct Report {
    schema_version: i32,
    migrations_applied: Vec<&'static str>,
    partitions_created: Vec<String>,
    indexes_created: Vec<&'static str>,
    indexes_dropped: Vec<&'static str>,
    jobs_created: Vec<String>,
}

/// What the caller asked for; `None` keeps what an earlier call chose.
struct Wishes {
    partition_interval: Option<Interval>,
    premake: Option<i32>,
    retention: Option<Interval>,
    index_policy: Option<Vec<String>>,
    duplicates: Option<Duplicates>,
}

#[pg_extern(sql = false)]
fn setup(
    partition_interval: Option<Interval>,
    premake: Option<i32>,
    retention: Option<Interval>,
    index_policy: Option<Vec<Option<String>>>,
    duplicates: Option<&str>,
) -> JsonB {
    let index_policy = index_policy.map(|names| names.into_iter().map(Option::unwrap_or_default).collect());
    let duplicates = duplicates.map(duplicates_named).transpose().or_raise();
    let wishes = Wishes { partition_interval, premake, retention, index_policy, duplicates };
    check(&wishes).or_raise();
    let report = with_session(|session| run(session, wishes)).or_raise();
    if !schedule::is_available() {
        IotError::new(
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            "iot_ext is not preloaded: nothing runs by itself",
        )
        .detail("Jobs start only when they are called for, and the statistics of sensors are read from the tables for each batch.")
        .hint(
            "Add iot_ext to shared_preload_libraries in postgresql.conf and restart the server. Until then have cron or \
             pg_cron CALL iot.run_job() for each job in iot.jobs.",
        )
        .notice();
    }
    JsonB(serde_json::to_value(report).unwrap_or_default())
}

fn duplicates_named(name: &str) -> IotResult<Duplicates> {
    Duplicates::from_name(name).ok_or_else(|| {
        IotError::invalid_argument(format!("duplicates cannot be \"{name}\""))
            .hint(format!("Choose among: {}.", Duplicates::ALL.map(Duplicates::as_str).join(", ")))
    })
}

fn check(wishes: &Wishes) -> IotResult<()> {
    if let Some(interval) = &wishes.partition_interval {
        partition_policy::interval(interval)?;
    }
    if let Some(premake) = wishes.premake
        && !(0..=1000).contains(&premake)
    {
        return Err(IotError::invalid_argument(format!("premake {premake} is not between 0 and 1000"))
            .hint("Give the number of partitions to keep ready beyond the current one."));
    }
    if let Some(retention) = &wishes.retention
        && (retention.months() < 0
            || retention.days() < 0
            || retention.micros() < 0
            || (retention.months() == 0 && retention.days() == 0))
    {
        return Err(IotError::invalid_argument(format!("retention {retention} is shorter than a day"))
            .hint("Give how far back readings are accepted, such as '2 years'."));
    }
    for policy in wishes.index_policy.iter().flatten() {
        if !OPTIONAL_INDEXES.iter().any(|index| index.policy == policy) {
            let known: Vec<_> = OPTIONAL_INDEXES.iter().map(|index| index.policy).collect();
            return Err(IotError::invalid_argument(format!("index_policy has no index \"{policy}\""))
                .hint(format!("Choose among: {}.", known.join(", "))));
        }
    }
    Ok(())
}

fn run(session: &mut Session<'_>, wishes: Wishes) -> IotResult<Report> {
    if let Some(catalogue) = in_schema_iot(c"partition_policy") {
        // One setup at a time in a database; the catalogue table exists as long as the extension does, and the lock
        // lasts to the end of the transaction.
        drop(OpenRelation::open_fresh(catalogue, Lock::ShareUpdateExclusive));
    }
    let _owner = act_as_owner_of_tables()?;
    let mut report = Report::default();
    migrate(session, &mut report)?;
    let was_watched = sensor_state::is_watched(session)?;
    for attachment in ATTACHMENTS {
        session.run(attachment)?;
    }
    if !was_watched {
        // The extension was gone meanwhile, and nobody saw what happened to the readings.
        overlay::mark_all_stale()?;
    }
    let table = in_schema_iot(c"sensor_data").ok_or_else(|| {
        IotError::wrong_state("table iot.sensor_data does not exist after its migration ran")
    })?;
    if let Some(duplicates) = wishes.duplicates {
        let key = uniqueness::primary_key(session, table)?;
        uniqueness::align(session, key, duplicates == Duplicates::Both)?;
    }
    let policy = choose_policy(session, table, wishes, report.migrations_applied.contains(&"sensor_data"))?;
    align_indexes(session, table, &policy.index_policy, &mut report)?;
    let derived = derived_policy(session, &policy)?;
    for (table, policy) in
        std::iter::once((table, policy)).chain(in_schema_iot(c"processed_data").zip(derived))
    {
        let (interval, premake) = (policy.interval, u32::try_from(policy.premake).unwrap_or(0));
        let time_column = partition_bounds::time_column(&OpenRelation::open(table, Lock::AccessShare))?;
        partition_policy::store(session, table, &time_column, policy.clone())?;
        let made = partition::create_missing(session, table, interval, &policy.management, |existing| {
            plan(existing, interval, clock::now(), premake)
        })?;
        report.partitions_created.extend(made.into_iter().map(|(name, _)| name));
        partition::warn_of_locks(session, table)?;
    }
    manage_logs(session)?;
    report.jobs_created = job::schedule_upkeep(session)?.into_iter().collect();
    Ok(report)
}

/// The policy of the log lines is the user's own once it is there: made by the migration, lost with the extension.
fn manage_logs(session: &mut Session<'_>) -> IotResult<()> {
    let Some(table) = in_schema_iot(c"device_logs") else { return Ok(()) };
    let is_partitioned = OpenRelation::look(table, partition_bounds::time_type).is_ok();
    if is_partitioned && partition_policy::load(session, table)?.is_none() {
        session.run("SELECT iot.manage_partitions('iot.device_logs', premake => 7)")?;
    }
    Ok(())
}

/// Tables made by an earlier call keep one owner: a superuser, or a member of that role, goes on as the owner.
fn act_as_owner_of_tables() -> IotResult<Option<ActingAs>> {
    let Some(table) = in_schema_iot(c"sensor_data") else {
        return Ok(None);
    };
    let owner = OpenRelation::open(table, Lock::AccessShare).owner();
    if owner == security::current_user() {
        return Ok(None);
    }
    if security::current_user_has_privileges_of(owner) {
        return Ok(Some(ActingAs::restricted(owner)));
    }
    Err(IotError::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "must be owner of table iot.sensor_data to run setup()",
    )
    .hint("Run it as the role that ran it first, or as a member of that role."))
}

fn migrate(session: &mut Session<'_>, report: &mut Report) -> IotResult<()> {
    if in_schema_iot(c"schema_migrations").is_none() {
        session.run(BOOTSTRAP)?;
    }
    let applied = migration::applied(session)?;
    let newest_known = MIGRATIONS.last().map_or(0, |migration| migration.version);
    if let Some(&newest) = applied.last().filter(|&&newest| newest > newest_known) {
        return Err(IotError::wrong_state(format!(
            "the tables are at version {newest}, but this iot_ext knows versions up to {newest_known}"
        ))
        .hint("Install the newer iot_ext and run ALTER EXTENSION iot_ext UPDATE; there are no downgrades."));
    }
    for migration in MIGRATIONS.iter().filter(|migration| !applied.contains(&migration.version)) {
        session.run(migration.text)?;
        migration::record(session, migration)?;
        report.migrations_applied.push(migration.name);
    }
    report.schema_version = newest_known;
    Ok(())
}

/// The wishes, else what was chosen before, else what the table shows, else the defaults.
///
/// A policy is gone after DROP EXTENSION; the width of the newest partition and the indexes are still to be seen.
fn choose_policy(
    session: &mut Session<'_>,
    table: Oid,
    wishes: Wishes,
    is_new: bool,
) -> IotResult<PartitionPolicy> {
    let stored = match partition_policy::load(session, table)? {
        Some(stored) => stored,
        None => {
            let interval = partition::newest_interval(table)?.unwrap_or(PartitionInterval::Month);
            PartitionPolicy {
                interval,
                interval_given: partition_policy::as_given(interval)?,
                premake: 3,
                retention: None,
                index_policy: OPTIONAL_INDEXES
                    .iter()
                    .filter(
                        |index| if is_new { index.by_default } else { index.on(table).is_ok_and(|on| on) },
                    )
                    .map(|index| index.policy.to_owned())
                    .collect(),
                duplicates: match uniqueness::primary_key(session, table)? {
                    Some(_) => Duplicates::First,
                    None => Duplicates::Both,
                },
                management: Management::default(),
            }
        }
    };
    let interval_given = wishes.partition_interval.unwrap_or(stored.interval_given);
    Ok(PartitionPolicy {
        interval: partition_policy::interval(&interval_given)?,
        interval_given,
        premake: wishes.premake.unwrap_or(stored.premake),
        retention: wishes.retention.or(stored.retention),
        index_policy: wishes.index_policy.unwrap_or(stored.index_policy),
        duplicates: wishes.duplicates.unwrap_or(stored.duplicates),
        management: stored.management,
    })
}

/// The policy of derived readings: they grow as readings do, so interval and premake are the readings'. What
/// `manage_partitions()` was told of them beside that stays. `None` where their table is partitioned in a way of its own.
fn derived_policy(
    session: &mut Session<'_>,
    readings: &PartitionPolicy,
) -> IotResult<Option<PartitionPolicy>> {
    let Some(table) = in_schema_iot(c"processed_data") else { return Ok(None) };
    if OpenRelation::look(table, partition_bounds::time_type).is_err() {
        return Ok(None);
    }
    let before = partition_policy::load(session, table)?;
    Ok(Some(PartitionPolicy {
        interval: readings.interval,
        interval_given: readings.interval_given,
        premake: readings.premake,
        retention: None,
        index_policy: Vec::new(),
        duplicates: Duplicates::Last,
        management: before.map_or_else(Management::default, |before| before.management),
    }))
}

/// Creates the indexes that the policy names and drops those of ours that it does not.
fn align_indexes(
    session: &mut Session<'_>,
    table: Oid,
    policy: &[String],
    report: &mut Report,
) -> IotResult<()> {
    for index in OPTIONAL_INDEXES {
        let wanted = policy.iter().any(|name| name == index.policy);
        let exists = match index.on(table) {
            Ok(exists) => exists,
            Err(error) if wanted => return Err(error),
            // Somebody else's relation of that name, and none of ours is asked for.
            Err(_) => continue,
        };
        if wanted && !exists {
            session.run(&format!("CREATE INDEX {} ON iot.sensor_data {}", index.name, index.definition))?;
            report.indexes_created.push(index.name);
        } else if exists && !wanted {
            session.run(&format!("DROP INDEX iot.{}", index.name))?;
            report.indexes_dropped.push(index.name);
        }
    }
    Ok(())
}

impl OptionalIndex {
    /// Whether the index exists on `table`.
    ///
    /// # Errors
    /// 42P07 when its name belongs to something else.
    fn on(&self, table: Oid) -> IotResult<bool> {
        let name = std::ffi::CString::new(self.name).unwrap_or_default();
        match in_schema_iot(&name) {
            None => Ok(false),
            Some(found) if relation::table_of_index(found) == Some(table) => Ok(true),
            Some(_) => Err(IotError::new(
                PgSqlErrorCode::ERRCODE_DUPLICATE_TABLE,
                format!("relation iot.{} exists, but is no index of iot.sensor_data", self.name),
            )
            .hint("Rename it, or leave this index out of index_policy.")),
        }
    }
}
