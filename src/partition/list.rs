//! What the view `iot.partitions` shows.

use iot_core::partition::{Outlook, Step, outlook};
use iot_core::time::Timestamp;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::Oid;
use pgrx::{name, pg_extern};

use super::survey::{Scope, Survey};
use crate::catalog::partition_policy;
use crate::error::{IotResult, OrRaise};
use crate::pg::statement::with_session;
use crate::pg::{clock, security};

type Line = (
    Oid,
    Option<TimestampWithTimeZone>,
    Option<TimestampWithTimeZone>,
    Option<i64>,
    Option<i64>,
    String,
    String,
    Option<TimestampWithTimeZone>,
    Option<String>,
);

#[pg_extern(sql = false)]
#[expect(clippy::type_complexity, reason = "the columns of a SQL function")]
fn partition_list(
    parent: Oid,
) -> TableIterator<
    'static,
    (
        name!(partition, Oid),
        name!(range_start, Option<TimestampWithTimeZone>),
        name!(range_end, Option<TimestampWithTimeZone>),
        name!(row_estimate, Option<i64>),
        name!(bytes, Option<i64>),
        name!(tier, String),
        name!(next_action, String),
        name!(next_action_at, Option<TimestampWithTimeZone>),
        name!(reason, Option<String>),
    ),
> {
    TableIterator::new(list(parent).or_raise())
}

fn list(parent: Oid) -> IotResult<Vec<Line>> {
    if !security::may_read(parent) {
        return Ok(Vec::new());
    }
    with_session(|session| {
        let Some(policy) = partition_policy::load(session, parent)? else { return Ok(Vec::new()) };
        let now = clock::now();
        let survey = Survey::take(session, parent, &policy, Scope { force: false, with_facts: true, now })?;
        let due = |number: usize| {
            survey.plan.steps.iter().find_map(|step| {
                let (partition, action) = match step {
                    Step::Create(_) => return None,
                    Step::Drop { partition, .. } => (*partition, "drop"),
                    Step::Rewrite { partition, .. } => (*partition, "rewrite"),
                    Step::Blocked { partition, .. } => (*partition, "blocked"),
                    Step::Index { partition, .. } => (*partition, "index"),
                };
                (partition == number)
                    .then(|| (action.to_owned(), Some(clock::transaction_start()), Some(step.to_string())))
            })
        };
        Ok(survey
            .partitions
            .iter()
            .enumerate()
            .map(|(number, &(oid, range))| {
                let facts = survey.facts.get(&oid);
                let (action, at, reason) = due(number)
                    .unwrap_or_else(|| told(outlook(&survey.existing[number], &survey.settings, now)));
                (
                    oid,
                    Some(clock::to_pg(range.start)),
                    Some(clock::to_pg(range.end)),
                    facts.and_then(|facts| facts.rows),
                    facts.and_then(|facts| facts.bytes),
                    survey.settings.tier(range, now).as_str().to_owned(),
                    action,
                    at.map(clock::to_pg),
                    reason,
                )
            })
            .collect())
    })
}

fn told(next: Outlook) -> (String, Option<Timestamp>, Option<String>) {
    (next.action.to_owned(), next.at, next.reason)
}
