//! Whether a table can be converted, and what changes with it.

use iot_core::conversion::{Definition, MOST_PARTITIONS, ranges_between, with_column};
use iot_core::partition::PartitionInterval;
use iot_core::time::Timestamp;
use pgrx::PgSqlErrorCode;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;

use super::shape::{as_timestamptz, pick};
use crate::catalog::conversion_source::{self, Column, Index, Source};
use crate::error::{IotError, IotResult};
use crate::pg::clock;
use crate::pg::security::ActingAs;
use crate::pg::statement::Session;

/// A table that can be converted.
pub struct Plan {
    /// The table.
    pub source: Source,
    /// The index by which rows are told apart.
    pub key_index: Oid,
    /// Its columns.
    pub key_columns: Vec<String>,
    /// All columns.
    pub columns: Vec<Column>,
    /// Valid indexes.
    pub indexes: Vec<Index>,
    /// Earliest and latest time.
    pub range: Option<(Timestamp, Timestamp)>,
    /// How many partitions that takes, with those made ahead.
    pub partitions: u32,
}

/// Looks at `table`; `is_default` says that it is a default partition.
///
/// # Errors
/// 42809 when it is no plain table, 42703 when there is no such column, 0A000 with a list of all that stands in the way.
pub fn check(
    session: &mut Session<'_>,
    table: Oid,
    time_column: &str,
    (interval, premake): (PartitionInterval, i32),
    is_default: bool,
) -> IotResult<Plan> {
    let source = conversion_source::load(session, table)?;
    let name = &source.qualified_name;
    if source.kind != "r" {
        let error =
            IotError::new(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, format!("{name} is not a plain table"));
        return Err(match source.kind.as_str() {
            "p" => error.detail("It is partitioned already.").hint(
                "Use iot.manage_partitions(), or iot.import_partitions() to move rows out of its default partition.",
            ),
            _ => error.hint("Name a table."),
        });
    }
    let columns = conversion_source::columns(session, table)?;
    let [time] = pick(&columns, &[time_column.to_owned()])?.try_into().unwrap_or_else(|_| unreachable());
    let mut obstacles = conversion_source::obstacles(session, table, is_default, false)?;
    let _owner = ActingAs::seeing_own_rows(source.owner);
    obstacles.extend(against_time(session, &source, &time, interval)?);
    let key = conversion_source::key(session, table)?;
    let mut hint = "Remove what is listed, or convert the table by hand.";
    if key.is_none() {
        obstacles.push(match source.replica_identity.as_str() {
            "i" => {
                "the index of its replica identity is not one by which rows can be put in order".to_owned()
            }
            _ => {
                "it has no primary key, and no unique index of NOT NULL columns of built-in types".to_owned()
            }
        });
        hint = "Add a primary key, by which rows are told apart, and remove what else is listed.";
    }
    let refuse = |obstacles: &[String]| {
        Err(IotError::new(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("table {name} cannot be converted"),
        )
        .detail(obstacles.join("\n"))
        .hint(hint))
    };
    let Some((key_index, key_columns)) = key.filter(|_| obstacles.is_empty()) else {
        return refuse(&obstacles);
    };
    // The first look at the rows: it may take its time.
    let range = time_range(session, name, &time)?;
    let now = clock::now();
    let (first, last) = range.map_or((now, now), |(first, last)| (first.min(now), last.max(now)));
    let partitions = match ranges_between(interval, first, last) {
        None => return refuse(&[format!("column {} has infinite values", time.quoted())]),
        Some(count) if count > MOST_PARTITIONS => {
            return refuse(&[format!(
                "its rows from {} to {} would take more than {MOST_PARTITIONS} partitions of that width",
                first.to_utc_literal(),
                last.to_utc_literal()
            )]);
        }
        Some(count) => count + u32::try_from(premake).unwrap_or(0),
    };
    let indexes = conversion_source::indexes(session, table)?;
    Ok(Plan { source, key_index, key_columns, columns, indexes, range, partitions })
}

fn unreachable() -> [Column; 1] {
    IotError::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "a column was found twice").raise()
}

fn against_time(
    session: &mut Session<'_>,
    source: &Source,
    time: &Column,
    interval: PartitionInterval,
) -> IotResult<Vec<String>> {
    let column = time.quoted();
    let mut found = Vec::new();
    match time.base_type.as_str() {
        "date" if interval == PartitionInterval::Hour => {
            found.push(format!("column {column} is a date, and partition_interval is 1 hour"));
        }
        "timestamp with time zone" | "timestamp without time zone" | "date" => {}
        _ => found.push(format!(
            "column {column} has type {}, and not timestamptz, timestamp or date",
            time.type_name
        )),
    }
    if time.is_generated {
        found.push(format!("column {column} is generated"));
    }
    if time.is_nullable {
        let any = format!("SELECT 1 FROM ONLY {} WHERE {column} IS NULL LIMIT 1", source.qualified_name);
        let has_nulls = session.query(&any)?.count() > 0;
        found.push(if has_nulls {
            format!("column {column} has NULLs, which no partition takes")
        } else {
            format!("column {column} is not declared NOT NULL")
        });
    }
    Ok(found)
}

fn time_range(
    session: &mut Session<'_>,
    table: &str,
    time: &Column,
) -> IotResult<Option<(Timestamp, Timestamp)>> {
    let column = time.quoted();
    let [least, greatest] =
        ["min", "max"].map(|aggregate| as_timestamptz(&format!("{aggregate}({column})"), time));
    let Some(row) = session.query(&format!("SELECT {least}, {greatest} FROM ONLY {table}"))?.first() else {
        return Ok(None);
    };
    let at = |column| Ok::<_, IotError>(row.optional::<TimestampWithTimeZone>(column)?.map(clock::from_pg));
    Ok(at(1)?.zip(at(2)?))
}

impl Plan {
    /// Warns of everything that will not be as it was.
    ///
    /// # Errors
    /// Only what PostgreSQL raises.
    pub fn warn(&self, session: &mut Session<'_>, table: Oid, time_column: &str) -> IotResult<()> {
        let time = quote_identifier(time_column);
        for index in self.indexes.iter().filter(|index| index.is_unique) {
            let Some(definition) = Definition::parse(&index.definition) else { continue };
            if definition.has_column(&time) {
                continue;
            }
            let columns = definition.columns;
            warning(format!("unique index \"{}\" ({columns}) becomes ({columns}, {time})", index.name))
                .detail(format!(
                    "A partitioned table keeps keys unique within partitions only: rows that differ in {time} alone will not be refused any more."
                ))
                .hint("Let the application or a table of keys see to it, if it must not happen.")
                .warn();
        }
        for trigger in conversion_source::before_row_triggers(session, table)? {
            warning(format!("trigger \"{trigger}\" must leave {time} in its partition"))
                .detail("A BEFORE trigger sees a row when its partition is chosen already.")
                .hint("Nothing is to be done unless the trigger sets that column.")
                .warn();
        }
        if self.source.is_clustered {
            warning(format!("table {} loses its mark of CLUSTER", self.source.qualified_name))
                .hint("Run CLUSTER on partitions by name.")
                .warn();
        }
        Ok(())
    }

    /// Says what would be done.
    pub fn tell(&self, interval: &pgrx::datum::Interval) {
        let Self { source, partitions, indexes, .. } = self;
        let span = self.range.map_or("no rows".to_owned(), |(first, last)| {
            format!("rows from {} to {}", first.to_utc_literal(), last.to_utc_literal())
        });
        super::notice(&format!(
            "would convert table {} (about {} rows; {span}) into {partitions} partitions of {interval} with {} indexes each, telling rows apart by ({})",
            source.qualified_name,
            source.row_estimate,
            indexes.len(),
            self.key_columns.join(", ")
        ));
    }

    /// The columns of the copy's key.
    pub fn full_key(&self, time_column: &str) -> Vec<String> {
        with_column(&self.key_columns, time_column)
    }
}

fn warning(message: String) -> IotError {
    IotError::new(PgSqlErrorCode::ERRCODE_WARNING, message)
}

/// Looks again, when nobody can change anything any more.
///
/// # Errors
/// 0A000 with a list.
pub fn require_convertible(
    session: &mut Session<'_>,
    conversion: &crate::catalog::conversion::Conversion,
) -> IotResult<()> {
    let is_default = conversion.parent.is_some();
    let obstacles = conversion_source::obstacles(session, conversion.relation, is_default, true)?;
    if obstacles.is_empty() {
        return Ok(());
    }
    Err(IotError::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        "the table cannot be converted any more",
    )
    .detail(obstacles.join("\n"))
    .hint(
        "Remove what is listed and call it again, or take the conversion back with iot.cancel_conversion().",
    ))
}
