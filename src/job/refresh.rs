//! Materialized views of the user.

use pgrx::PgSqlErrorCode;
use serde_json::{Value, json};

use super::{Claimed, Progress};
use crate::catalog::maintenance::{owned, refreshes_concurrently};
use crate::error::{IotError, IotResult};
use crate::pg::relation;
use crate::pg::statement::Session;

/// Refreshes the next view: readers go on meanwhile, where a unique index allows it.
///
/// # Errors
/// 55P03 when readers hold it for long and it cannot be refreshed beside them; what its query raises.
pub fn step(session: &mut Session<'_>, claimed: &mut Claimed) -> IotResult<Progress> {
    let mut left = match (claimed.left.take(), claimed.job.target) {
        (Some(left), _) => left,
        (None, Some(target)) => vec![target],
        (None, None) => {
            let mut views = owned(session, claimed.owner, &["m"])?;
            views.reverse();
            views
        }
    };
    if let Some(view) = left.pop() {
        match relation::qualified_name_of(view) {
            Some(name) => {
                let concurrently = if refreshes_concurrently(session, view)? { " CONCURRENTLY" } else { "" };
                session.run(&format!("REFRESH MATERIALIZED VIEW{concurrently} {name}"))?;
                let key = if concurrently.is_empty() { "refreshed" } else { "refreshed_concurrently" };
                if let Value::Array(names) = claimed.detail.entry(key).or_insert_with(|| json!([])) {
                    names.push(json!(name));
                }
            }
            None if claimed.job.target.is_some() => {
                return Err(IotError::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                    "the materialized view of the job does not exist any more",
                ));
            }
            // Dropped since the list was made.
            None => (),
        }
    }
    let progress = if left.is_empty() { Progress::Done } else { Progress::Again };
    claimed.left = Some(left);
    Ok(progress)
}
