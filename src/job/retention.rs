//! What is old enough is dropped by the partition, or deleted in small batches.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_identifier, quote_literal};
use serde_json::{Map, Value, json};

use super::run::{count, target};
use super::schedule::interval;
use super::{Claimed, Progress};
use crate::catalog::maintenance::{TimeColumn, leaves, partition_column, time_columns};
use crate::error::{IotError, IotResult};
use crate::partition::{self, Outcome};
use crate::pg::statement::Session;
use crate::pg::{parse, relation};

/// Rows deleted in one transaction, unless the job says otherwise.
pub const BATCH: i64 = 10_000;

/// `pg_class.relkind` of a partitioned table.
const PARTITIONED: u8 = b'p';

/// What is to be deleted.
pub struct Retention {
    /// Interval, as text.
    pub drop_after: String,
    /// Column that tells the age of a row; `None` where partitions do.
    pub time_column: Option<String>,
    /// Only rows for which this holds.
    pub condition: Option<String>,
    /// Rows in one transaction.
    pub batch_size: i64,
    /// Whether partitions go although something still needs them.
    pub force: bool,
}

impl Retention {
    /// From the parameters of a job.
    ///
    /// # Errors
    /// 22023 for those that no such job can have.
    pub fn from_parameters(parameters: &Map<String, Value>) -> IotResult<Self> {
        let text = |key: &str| match parameters.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(IotError::invalid_argument(format!("parameter \"{key}\" is no text"))
                .hint("Give a JSON string.")),
        };
        let batch_size = match parameters.get("batch_size") {
            None | Some(Value::Null) => BATCH,
            Some(value) => value.as_i64().filter(|size| (1..=1_000_000).contains(size)).ok_or_else(|| {
                IotError::invalid_argument(format!("batch_size {value} is not between 1 and 1000000"))
                    .hint("Give the number of rows to delete in one transaction.")
            })?,
        };
        let condition = text("condition")?;
        if let Some(condition) = &condition {
            parse::check_expression("condition", condition)?;
        }
        Ok(Self {
            drop_after: text("drop_after")?.ok_or_else(|| {
                IotError::invalid_argument("parameter \"drop_after\" is missing")
                    .hint("Give the age from which rows are deleted, such as '90 days'.")
            })?,
            time_column: text("time_column")?,
            condition,
            batch_size,
            force: match parameters.get("force") {
                None | Some(Value::Null) => false,
                Some(value) => value.as_bool().ok_or_else(|| {
                    IotError::invalid_argument(format!("parameter \"force\" is {value}"))
                        .hint("Give true or false.")
                })?,
            },
        })
    }

    /// Whether whole partitions are dropped, and no single rows deleted.
    pub fn drops_partitions(&self, table: Oid) -> bool {
        self.condition.is_none()
            && self.time_column.is_none()
            && relation::kind_and_owner(table).is_some_and(|(kind, _)| kind == PARTITIONED)
    }

    /// The rows that are old enough at the start of the transaction, as a condition in SQL. Days and months are counted in UTC;
    /// an age beyond all time is that of no row.
    fn old_rows(&self, session: &mut Session<'_>, column: &TimeColumn) -> IotResult<String> {
        let age = interval(session, &self.drop_after)?;
        let horizon = partition::horizon(partition::age(&age), column.has_zone);
        // On a line of its own, should it end in a comment.
        let condition =
            self.condition.as_deref().map(|condition| format!(" AND ({condition}\n)")).unwrap_or_default();
        Ok(format!("{} < {}{condition}", quote_identifier(&column.name), quote_literal(horizon)))
    }

    /// The statement that deletes a batch of a table without partitions.
    ///
    /// # Errors
    /// 42P01 when it is gone; 22007 for an age that is no interval.
    pub fn statement(&self, session: &mut Session<'_>, table: Oid, column: &TimeColumn) -> IotResult<String> {
        let name = relation::qualified_name_of(table).ok_or_else(gone)?;
        let (old, batch) = (self.old_rows(session, column)?, self.batch_size);
        Ok(format!(
            "DELETE FROM ONLY {name} WHERE ctid = ANY (ARRAY(\
             SELECT ctid FROM ONLY {name} WHERE {old} LIMIT {batch} FOR UPDATE SKIP LOCKED))"
        ))
    }
}

/// The column that tells the age of the rows of `table`.
///
/// # Errors
/// 22023 when there is none, or no telling which.
pub fn age_column(session: &mut Session<'_>, table: Oid, given: Option<&str>) -> IotResult<TimeColumn> {
    let mut columns = time_columns(session, table)?;
    let name = relation::qualified_name_of(table).unwrap_or_default();
    let wanted = match given {
        Some(given) => Some(given.to_owned()),
        None => partition_column(session, table)?,
    };
    let found = columns.iter().position(|column| Some(&column.name) == wanted.as_ref());
    let error = match (found, given, columns.len()) {
        (Some(position), ..) => return Ok(columns.swap_remove(position)),
        (None, None, 1) => return Ok(columns.swap_remove(0)),
        (None, Some(given), _) => {
            format!("table {name} has no column \"{given}\" of type timestamptz, timestamp or date")
        }
        (None, None, 0) => format!("table {name} has no column of type timestamptz, timestamp or date"),
        (None, None, _) => format!("table {name} has several columns that could tell the age of a row"),
    };
    let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
    let error = IotError::invalid_argument(error);
    let error =
        if names.is_empty() { error } else { error.detail(format!("Columns: {}.", names.join(", "))) };
    Err(error.hint("Name the column that tells the age of a row in time_column."))
}

/// Deletes the next batch, or drops what partitions are old enough.
///
/// # Errors
/// What PostgreSQL raises.
pub fn step(session: &mut Session<'_>, claimed: &mut Claimed) -> IotResult<Progress> {
    let table = target(claimed)?;
    let retention = Retention::from_parameters(&claimed.job.parameters)?;
    if retention.drops_partitions(table) {
        return drop_partitions(session, claimed, table, &retention);
    }
    let mut left = match claimed.left.take() {
        Some(left) => left,
        None => leaves(session, table)?,
    };
    let mut progress = Progress::Done;
    if let Some(&leaf) = left.last() {
        let batch = retention.batch_size;
        // Dropped since the list was made, unless it is the table itself.
        let deleted = if relation::qualified_name_of(leaf).is_none() && leaf != table {
            0
        } else {
            let column = age_column(session, leaf, retention.time_column.as_deref())?;
            {
                let statement = retention.statement(session, leaf, &column)?;
                session.run_counting(&statement)?
            }
        };
        progress = count(claimed, "rows_deleted", deleted, batch as usize);
        if progress == Progress::Done {
            left.pop();
        }
    }
    if !left.is_empty() {
        progress = Progress::Again;
    }
    claimed.left = Some(left);
    Ok(progress)
}

/// Drops the partitions whose rows are all old enough. Where something could be done and something could not, what could is
/// committed, and the rest tried again: so this ends with nothing left, or with an error that takes nothing back.
fn drop_partitions(
    session: &mut Session<'_>,
    claimed: &mut Claimed,
    table: Oid,
    retention: &Retention,
) -> IotResult<Progress> {
    let wanted = partition::Retention {
        drop_after: interval(session, &retention.drop_after)?,
        time_column: None,
        condition: None,
        dry_run: false,
        force: retention.force,
    };
    let actions = partition::retain(session, table, &wanted)?.actions;
    let of = |wanted: &Outcome| actions.iter().filter(|action| action.outcome == *wanted).count();
    let (done, blocked) = (of(&Outcome::Done), of(&Outcome::Blocked));
    if retention.force {
        claimed.detail.insert("forced".to_owned(), json!(true));
    }
    count(claimed, "partitions_dropped", done, 0);
    if blocked > 0 {
        let reasons: Vec<_> = actions.iter().filter(|action| action.outcome == Outcome::Blocked).collect();
        let reasons: Vec<_> =
            reasons.iter().map(|action| format!("{}: {}", action.partition, action.reason)).collect();
        claimed.detail.insert("blocked".to_owned(), json!(reasons));
    }
    let failure = actions.iter().find_map(|action| match &action.outcome {
        Outcome::Failed(why) => {
            Some(IotError::wrong_state(format!("partition \"{}\": {why}", action.partition)))
        }
        Outcome::Deferred => Some(IotError::new(
            PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
            format!("a lock on partition \"{}\" was not to be had in time", action.partition),
        )),
        _ => None,
    });
    match failure {
        None => Ok(Progress::Done),
        Some(_) if done > 0 => Ok(Progress::Again),
        Some(failure) => Err(failure),
    }
}

fn gone() -> IotError {
    IotError::new(PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE, "the target of the job does not exist any more")
}
