//! Whether what new partitions are to be like can be: tried on a table that is never seen.

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;

use super::make::{Indexes, Workshop, free_name};
use crate::catalog::partition_policy::{Management, PartitionPolicy};
use crate::error::{IotError, IotResult};
use crate::pg::clock;
use crate::pg::failure::Failure;
use crate::pg::relation::{Lock, OpenRelation};
use crate::pg::security::ActingAs;
use crate::pg::statement::Session;
use crate::pg::transaction;

/// Refuses storage parameters and indexes of tiers that no partition of `table` could have: PostgreSQL is asked, and what it
/// made for that is undone.
///
/// # Errors
/// As PostgreSQL's, with the argument.
pub fn check(session: &mut Session<'_>, table: Oid, policy: &PartitionPolicy) -> IotResult<()> {
    let Management { tier_indexes, storage_parameters, .. } = &policy.management;
    if storage_parameters.is_empty() && tier_indexes.iter().all(Vec::is_empty) {
        return Ok(());
    }
    let Some(range) = policy.interval.range_containing(clock::now()) else { return Ok(()) };
    let owner = OpenRelation::look(table, OpenRelation::owner);
    let _owner = ActingAs::restricted(owner);
    let tried = || {
        let parent = OpenRelation::open(table, Lock::AccessShare);
        let workshop = Workshop::open(session, &parent, &Management::default())?;
        let name = free_name(workshop.schema(), &format!("{:.50}_probe", parent.name()))?;
        drop(parent);
        match transaction::catch(|| workshop.make(session, &name, range, Indexes::ByAttach)) {
            Ok(()) => {}
            // Who makes no tables here makes no partitions either, but may still have some looked after.
            Err(failure) if failure.code == PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE => return Ok(()),
            Err(failure) => return Err(failure.into()),
        }
        let probe = workshop.qualified(&name);
        for parameter in storage_parameters {
            transaction::catch(|| session.run(&format!("ALTER TABLE {probe} SET ({parameter})")))
                .map_err(|failure| refusal("storage_parameters", parameter, failure))?;
        }
        for (argument, definitions) in
            ["hot_indexes", "warm_indexes", "cold_indexes"].into_iter().zip(tier_indexes)
        {
            for definition in definitions {
                transaction::catch(|| session.run(&format!("CREATE INDEX ON {probe} {definition}")))
                    .map_err(|failure| refusal(argument, definition, failure))?;
            }
        }
        Ok(())
    };
    transaction::in_subtransaction(tried, |()| false)
}

fn refusal(argument: &str, given: &str, failure: Failure) -> IotError {
    let error = IotError::new(failure.code, format!("{argument} has \"{given}\": {}", failure.message));
    let error = match failure.detail {
        Some(detail) => error.detail(detail),
        None => error,
    };
    error.hint(match argument {
        "storage_parameters" => "Give storage parameters of tables, such as fillfactor=90.",
        _ => "Give what stands behind the table in CREATE INDEX, such as (device_id, at) or USING brin (at).",
    })
}
