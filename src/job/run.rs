//! What a run of each kind consists of.

use std::ffi::CString;

use iot_core::job::Kind;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use serde_json::json;

use super::{Claimed, Progress, Work, maintenance, memory, refresh, retention};
use crate::catalog::{command, health};
use crate::error::{IotError, IotResult};
use crate::guc;
use crate::partition;
use crate::pg::security::ActingAs;
use crate::pg::statement::Session;
use crate::pg::top_level::Part;

/// What there is to do. Its errors are those of the job.
///
/// # Errors
/// What the kind refuses, such as a target that it cannot work on.
pub fn plan(session: &mut Session<'_>, claimed: &Claimed) -> IotResult<Work> {
    let job = &claimed.job;
    require_supported(job.kind)?;
    let mut parts: Vec<Part> = memory::statements(job).into_iter().collect();
    parts.extend(match job.kind {
        Kind::Vacuum | Kind::Analyze | Kind::VacuumAnalyze | Kind::Reindex => {
            maintenance::statements(session, job)?
        }
        Kind::PartitionUpkeep => partition::statements(session, job.target)?,
        Kind::Sql => job.command.iter().map(|command| Part::one("", command.as_str())).collect(),
        _ => return Ok(Work::InTransaction),
    });
    Ok(Work::Statements(parts))
}

/// Kinds that later versions fill with life.
///
/// # Errors
/// 0A000 for those.
pub fn require_supported(kind: Kind) -> IotResult<()> {
    let missing = match kind {
        Kind::RefreshRollup => "there are no roll-ups yet",
        Kind::AlertTimers => "no alert depends on a timer yet",
        _ => return Ok(()),
    };
    Err(IotError::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("jobs of kind {} cannot run: {missing}", kind.as_str()),
    )
    .hint("A later version of iot_ext brings them."))
}

/// Does the next piece of [`Work::InTransaction`], as the job's owner. Its errors are those of the job.
///
/// # Errors
/// Whatever goes wrong in the job.
pub fn step(session: &mut Session<'_>, claimed: &mut Claimed) -> IotResult<Progress> {
    let owner = claimed.owner;
    let acting = match claimed.job.kind {
        Kind::RefreshMaterializedView => ActingAs::for_restricting_command(owner),
        _ => ActingAs::unless_itself(owner),
    };
    // Whoever comes later stands in the queue behind it.
    let patience = format!("{}ms", guc::maintenance_lock_timeout().as_millis().max(1));
    acting.set(c"lock_timeout", &CString::new(patience).unwrap_or_default());
    memory::set(&claimed.job, |name, value| acting.set(name, value));
    match claimed.job.kind {
        Kind::RefreshMaterializedView => refresh::step(session, claimed),
        Kind::Retention => retention::step(session, claimed),
        Kind::FlushState => {
            let flushed = crate::state::flush()?;
            claimed.detail.insert("sensors".to_owned(), json!(flushed));
            Ok(Progress::Done)
        }
        Kind::CommandTimeouts => {
            let expired = command::expire(session, COMMANDS)?;
            Ok(count(claimed, "expired", expired, COMMANDS))
        }
        Kind::HealthCheck => {
            let findings = health::check(session)?;
            claimed.detail.insert("findings".to_owned(), json!(findings));
            Ok(Progress::Done)
        }
        kind => {
            require_supported(kind)?;
            Err(IotError::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("jobs of kind {} are not run in a transaction", kind.as_str()),
            ))
        }
    }
}

/// Commands that are given up in one transaction.
const COMMANDS: usize = 10_000;

/// Adds to a figure of the detail; a full batch is not the last.
pub fn count(claimed: &mut Claimed, name: &str, done: usize, batch: usize) -> Progress {
    let before = claimed.detail.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
    claimed.detail.insert(name.to_owned(), json!(before + done as u64));
    if done < batch { Progress::Done } else { Progress::Again }
}

/// The target of a job whose kind needs one.
///
/// # Errors
/// 22004 when it has none.
pub fn target(claimed: &Claimed) -> IotResult<Oid> {
    claimed.job.target.ok_or_else(|| IotError::null_argument("target"))
}
