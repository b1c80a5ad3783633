//! VACUUM, ANALYZE and REINDEX: statements for the top level.

use iot_core::job::Kind;
use pgrx::PgSqlErrorCode;

use crate::catalog::job::Job;
use crate::catalog::maintenance::{left_behind_indexes, owned};
use crate::error::{IotError, IotResult};
use crate::pg::relation;
use crate::pg::statement::Session;
use crate::pg::top_level::Part;

/// Kinds of relations (`pg_class.relkind`) that these commands take: tables, partitioned ones, materialized views.
pub const KINDS: [&str; 3] = ["r", "p", "m"];

/// The work of a run, a part for each table. A partitioned table stands for its partitions, and is analyzed itself, which autovacuum never does.
///
/// # Errors
/// 42P01 when the target is gone.
pub fn statements(session: &mut Session<'_>, job: &Job) -> IotResult<Vec<Part>> {
    let targets = match job.target {
        Some(target) => vec![target],
        None => owned(session, job.owner, &KINDS)?,
    };
    let command = match job.kind {
        Kind::Vacuum => "VACUUM",
        Kind::Analyze => "ANALYZE",
        Kind::VacuumAnalyze => "VACUUM (ANALYZE)",
        _ => "REINDEX TABLE CONCURRENTLY",
    };
    let mut parts = Vec::with_capacity(targets.len());
    for target in targets {
        let name = relation::qualified_name_of(target).ok_or_else(|| {
            IotError::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                "the target of the job does not exist any more",
            )
        })?;
        let mut statements = Vec::new();
        if job.kind == Kind::Reindex {
            for index in left_behind_indexes(session, target)? {
                if let Some(index) = relation::qualified_name_of(index) {
                    statements.push(format!("DROP INDEX CONCURRENTLY IF EXISTS {index}"));
                }
            }
        }
        statements.push(format!("{command} {name}"));
        parts.push(Part { about: name, statements });
    }
    Ok(parts)
}
