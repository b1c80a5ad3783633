//! Copying rows by blocks, and carrying logged changes over.

use std::cell::Cell;

use iot_core::conversion::Phase;
use iot_core::partition::{PartitionRange, plan, range_for};
use iot_core::time::Timestamp;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::Oid;

use super::shape::Shape;
use crate::catalog::conversion::{Conversion, State};
use crate::catalog::partition_policy::Management;
use crate::catalog::{conversion_source, partition};
use crate::error::{IotError, IotResult};
use crate::partition::{Namesake, create_missing_for};
use crate::pg::relation::{Lock, OpenRelation};
use crate::pg::settings::Scoped;
use crate::pg::statement::Session;
use crate::pg::{clock, partition_bounds};
use crate::statement;

/// Partitions made in one transaction: each takes some locks until its end.
const PARTITIONS_AT_ONCE: usize = 25;

/// As many changes are carried over at once in any case: with fewer, a busy table would run away.
const FEWEST_CHANGES: i32 = 1_000;

/// Rows of a block of a table that was never analyzed: a guess, until some are copied.
const ROWS_OF_BLOCK: i64 = 50;

statement!(FILE: (OIDOID)
    "SELECT pg_relation_filenode($1), pg_relation_size($1) / current_setting('block_size')::int8");

/// File and length of `table` in blocks.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn file_and_blocks(session: &mut Session<'_>, table: Oid) -> IotResult<(Option<Oid>, i64)> {
    match session.execute(&FILE, &[table.into()])?.first() {
        Some(row) => Ok((row.optional(1)?, row.get(2)?)),
        None => Err(conversion_source::gone()),
    }
}

/// Makes a part of the partitions for the rows that were there at the start, and ahead. Copying is next when none is missing.
///
/// # Errors
/// What PostgreSQL raises.
pub fn make_partitions(session: &mut Session<'_>, conversion: &Conversion) -> IotResult<Phase> {
    let now = clock::now();
    let (first, last) = conversion.state.range.unwrap_or((now, now));
    let made = cover(session, conversion, (first.min(now), last.max(now)), PARTITIONS_AT_ONCE)?;
    Ok(if made < PARTITIONS_AT_ONCE { Phase::Copying } else { Phase::Partitioning })
}

/// Makes what is missing from the first time to the last and after that, but no more than `limit`; returns how many.
fn cover(
    session: &mut Session<'_>,
    conversion: &Conversion,
    (first, last): (Timestamp, Timestamp),
    limit: usize,
) -> IotResult<usize> {
    let interval = conversion.interval;
    let between = iot_core::conversion::ranges_between(interval, first, last).unwrap_or(0);
    let ahead = u32::try_from(conversion.order.premake).unwrap_or(0);
    make(session, conversion, |existing| {
        let mut missing = plan(existing, interval, first, (between + ahead).saturating_sub(1));
        missing.truncate(limit);
        missing
    })
}

/// Makes the partitions up to those that are to be ready now.
///
/// # Errors
/// What PostgreSQL raises.
pub fn premake(session: &mut Session<'_>, conversion: &Conversion) -> IotResult<()> {
    let now = clock::now();
    cover(session, conversion, (now, now), usize::MAX).map(drop)
}

fn make(
    session: &mut Session<'_>,
    conversion: &Conversion,
    choose: impl Fn(&[PartitionRange]) -> Vec<PartitionRange>,
) -> IotResult<usize> {
    let named_for = OpenRelation::look(conversion.parent.unwrap_or(conversion.relation), |table| {
        (table.name(), table.qualified_name())
    });
    let namesake = Namesake {
        name: named_for.0,
        qualified_name: named_for.1,
        // They are attached to another table in the end.
        with_bounds: conversion.parent.is_some(),
    };
    let management = management(session, conversion)?;
    let taken = super::import::taken_ranges(conversion)?;
    let choose = |existing: &[PartitionRange]| choose(&[existing, &taken].concat());
    let made = create_missing_for(
        session,
        conversion.partitioned,
        conversion.interval,
        &management,
        Some(&namesake),
        choose,
    )?;
    Ok(made.len())
}

/// How partitions are made: with the storage parameters of the table.
///
/// # Errors
/// 55000 when the table is gone.
pub fn management(session: &mut Session<'_>, conversion: &Conversion) -> IotResult<Management> {
    let source = conversion_source::load(session, conversion.relation)?;
    Ok(Management { storage_parameters: source.storage_parameters, ..Management::default() })
}

/// Copies one batch of blocks.
///
/// # Errors
/// What PostgreSQL raises.
pub fn copy(session: &mut Session<'_>, conversion: &Conversion, shape: &Shape) -> IotResult<State> {
    // Nobody moves rows to another file before the transaction ends.
    drop(OpenRelation::open(conversion.relation, Lock::AccessShare));
    let mut state = replay(session, conversion, shape)?.0;
    let (file, blocks) = file_and_blocks(session, conversion.relation)?;
    if file != state.file {
        // CLUSTER, VACUUM FULL: every row may be elsewhere. What is copied already is left out.
        (state.file, state.next_block, state.end_block) = (file, 0, blocks);
    }
    let rows_of_block = match (state.rows_copied, state.next_block) {
        (copied, done) if copied > 0 && done > 0 => (copied / done).max(1),
        _ if state.row_estimate > 0 => (state.row_estimate / state.end_block.max(1)).max(1),
        _ => ROWS_OF_BLOCK,
    };
    let count = (i64::from(conversion.order.batch_rows) / rows_of_block).max(1);
    let upto = (state.next_block + count).min(state.end_block);
    if state.next_block < upto {
        let rows = format!("ctid >= '({},0)'::tid AND ctid < '({upto},0)'::tid", state.next_block);
        let settings = Scoped::new();
        // These blocks and no others are read: an index on the time would be read from its ends.
        for method in [c"enable_indexscan", c"enable_indexonlyscan", c"enable_bitmapscan", c"enable_seqscan"]
        {
            settings.set(method, c"off");
        }
        let span = format!(
            "SELECT min(r.at), max(r.at) FROM (SELECT {} AS at FROM ONLY {} WHERE {rows} OFFSET 0) r",
            shape.time, shape.source
        );
        if let Some(row) = session.query(&span)?.first() {
            let at = |column| {
                Ok::<_, IotError>(row.optional::<TimestampWithTimeZone>(column)?.map(clock::from_pg))
            };
            if let Some((first, last)) = at(1)?.zip(at(2)?) {
                cover_rows(session, conversion, first, last)?;
            }
        }
        let copied = session.query(&format!(
            "INSERT INTO {} ({1}) SELECT {1} FROM ONLY {2} WHERE {rows} ON CONFLICT ({3}) DO NOTHING",
            shape.copy,
            shape.columns,
            shape.source,
            shape.full_key_list()
        ))?;
        state.rows_copied += i64::try_from(copied.count()).unwrap_or(0);
        state.next_block = upto;
    }
    state.phase = if state.next_block < state.end_block { Phase::Copying } else { Phase::Indexing };
    Ok(state)
}

/// The span of a batch lies within what was made at the start, but for rows that came before their changes were logged.
fn cover_rows(
    session: &mut Session<'_>,
    conversion: &Conversion,
    first: Timestamp,
    last: Timestamp,
) -> IotResult<()> {
    let interval = conversion.interval;
    let missing = {
        let copy = OpenRelation::open(conversion.partitioned, Lock::AccessShare);
        partition_bounds::uncovered(&copy, [first, last].into_iter())?
    };
    if missing.is_empty() {
        return Ok(());
    }
    let between = iot_core::conversion::ranges_between(interval, first, last)
        .filter(|&count| (1..=iot_core::conversion::MOST_PARTITIONS).contains(&count));
    let Some(between) = between else {
        return Err(IotError::wrong_state(format!(
            "rows from {} to {} would take too many partitions",
            first.to_utc_literal(),
            last.to_utc_literal()
        ))
        .hint("Correct or delete the rows that are out of line, then call it again."));
    };
    make(session, conversion, |existing| plan(existing, interval, first, between - 1)).map(drop)
}

thread_local! {
    static ALL: Cell<bool> = const { Cell::new(false) };
}

/// Whether the next replay takes the whole log at once: a row may have a unique value that another one, in the copy still,
/// has given up. With everything that changed out of the way first, there is nothing left to meet.
pub fn replay_all(all: bool) {
    ALL.set(all);
}

fn limit(conversion: &Conversion) -> i32 {
    if ALL.get() { i32::MAX } else { conversion.order.batch_rows.max(FEWEST_CHANGES) }
}

/// Whether at least a batch of changes waits in the log; any change, if the whole of it is to be taken.
///
/// # Errors
/// What PostgreSQL raises.
pub fn has_changes(session: &mut Session<'_>, conversion: &Conversion, shape: &Shape) -> IotResult<bool> {
    let limit = if ALL.get() { 1 } else { limit(conversion) };
    let waiting = session.query(&format!("SELECT 1 FROM {} LIMIT {limit}", shape.log))?.count();
    Ok(waiting >= usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Carries one batch of logged changes over, and starts anew where the table was truncated. How far that goes, and whether
/// nothing was left in the log when it was read.
///
/// # Errors
/// What PostgreSQL raises.
pub fn replay(session: &mut Session<'_>, conversion: &Conversion, shape: &Shape) -> IotResult<(State, bool)> {
    let mut state = conversion.state.clone();
    let limit = limit(conversion);
    if limit == i32::MAX {
        state.log_block = 0;
    }
    let settings = Scoped::new();
    // Few keys against many rows, whatever is known of either table yet.
    for method in [c"enable_seqscan", c"enable_hashjoin", c"enable_mergejoin"] {
        settings.set(method, c"off");
    }
    let Some(mut picked) = pick(session, shape, state.log_block, limit)? else {
        let was_whole = state.log_block == 0;
        state.log_block = 0;
        if was_whole {
            return Ok((state, true));
        }
        return replay_from_start(session, conversion, shape, state);
    };
    let is_all = state.log_block == 0 && picked.count < i64::from(limit);
    carry_over(session, conversion, shape, &mut state, &mut picked)?;
    Ok((state, is_all))
}

fn replay_from_start(
    session: &mut Session<'_>,
    conversion: &Conversion,
    shape: &Shape,
    mut state: State,
) -> IotResult<(State, bool)> {
    let limit = limit(conversion);
    let Some(mut picked) = pick(session, shape, 0, limit)? else { return Ok((state, true)) };
    let is_all = picked.count < i64::from(limit);
    carry_over(session, conversion, shape, &mut state, &mut picked)?;
    Ok((state, is_all))
}

/// Entries of the log, by their places: entries that others add meanwhile are not among them.
struct Picked {
    places: String,
    count: i64,
    truncated: bool,
    last_block: i64,
}

fn pick(session: &mut Session<'_>, shape: &Shape, from_block: i64, limit: i32) -> IotResult<Option<Picked>> {
    let row = session
        .query(&format!(
            "SELECT array_agg(l.ctid)::text, count(*), coalesce(bool_or(l.key_1 IS NULL), false),
                    coalesce(max((l.ctid::text::point)[0]), 0)::int8
               FROM (SELECT ctid, key_1 FROM {} WHERE ctid >= '({from_block},0)'::tid LIMIT {limit}) l",
            shape.log
        ))?
        .first();
    let Some(row) = row else { return Ok(None) };
    let Some(places) = row.optional::<String>(1)? else { return Ok(None) };
    Ok(Some(Picked { places, count: row.get(2)?, truncated: row.get(3)?, last_block: row.get(4)? }))
}

fn carry_over(
    session: &mut Session<'_>,
    conversion: &Conversion,
    shape: &Shape,
    state: &mut State,
    picked: &mut Picked,
) -> IotResult<()> {
    let among = "ctid = ANY ($1::tid[])";
    if picked.truncated {
        // Whatever else the log says, the table is read anew from its first block.
        session.run(&format!("TRUNCATE {}", shape.copy))?;
        let (file, blocks) = file_and_blocks(session, conversion.relation)?;
        (state.file, state.next_block, state.end_block) = (file, 0, blocks);
        (state.rows_copied, state.rows_verified, state.verified_to) = (0, 0, None);
        state.phase = Phase::Copying;
    } else {
        cover_changes(session, conversion, shape, among, &picked.places)?;
        let logged = shape.logged();
        let keys = format!("(SELECT DISTINCT {logged} FROM {} WHERE {among})", shape.log);
        let delete = format!("DELETE FROM {} c USING {keys} l WHERE {}", shape.copy, shape.matches("c", "l"));
        session.query_about(&delete, &picked.places)?;
        let insert = format!(
            "INSERT INTO {} ({1}) SELECT {1} FROM (SELECT s.* FROM {keys} l JOIN ONLY {2} s ON {3}) s",
            shape.copy,
            shape.columns,
            shape.source,
            shape.matches("s", "l")
        );
        session.query_about(&insert, &picked.places)?;
    }
    session.query_about(&format!("DELETE FROM {} WHERE {among}", shape.log), &picked.places)?;
    state.changes_replayed += picked.count;
    state.log_block = if picked.count < i64::from(limit(conversion)) { 0 } else { picked.last_block };
    ALL.set(false);
    Ok(())
}

/// Makes the partitions that changed rows need.
fn cover_changes(
    session: &mut Session<'_>,
    conversion: &Conversion,
    shape: &Shape,
    among: &str,
    places: &str,
) -> IotResult<()> {
    let mut times = Vec::new();
    let statement = format!("SELECT DISTINCT {} FROM {} WHERE {among}", shape.logged_time, shape.log);
    session.query_about(&statement, places)?.for_each(|row| {
        times.push(clock::from_pg(row.get(1)?));
        Ok(())
    })?;
    times.sort_unstable_by_key(|at| at.0);
    let missing = {
        let copy = OpenRelation::open(conversion.partitioned, Lock::AccessShare);
        partition_bounds::uncovered(&copy, times.into_iter().filter(|at| at.is_finite()))?
    };
    for at in missing {
        let interval = conversion.interval;
        make(session, conversion, |existing| range_for(existing, interval, at).into_iter().collect())?;
    }
    Ok(())
}

/// Partitions of the copy, with the names and ranges they have.
///
/// # Errors
/// What PostgreSQL raises.
pub fn partitions(
    session: &mut Session<'_>,
    conversion: &Conversion,
) -> IotResult<Vec<(String, PartitionRange)>> {
    let ranges = OpenRelation::look(conversion.partitioned, partition_bounds::partitions)?;
    let facts = partition::facts(session, conversion.partitioned, false)?;
    Ok(ranges
        .into_iter()
        .filter_map(|(oid, range)| Some((facts.get(&oid)?.qualified_name.clone(), range)))
        .collect())
}
