//! The end: writers are held back, the last changes carried over, and when nobody can see the copy as it was before that,
//! names change.
//!
//! Two transactions, so that a reader with an old snapshot does not miss what was carried over last: the first commits that,
//! with a lock that outlives it; the second waits for those who might not see it (readers go on meanwhile) and then takes
//! the table for a moment. All of it is shorter than PostgreSQL's deadlock timeout, or is given up and tried again.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use iot_core::conversion::Phase;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_literal;

use super::shape::Shape;
use super::{carry, copy, import};
use crate::catalog::conversion::{Conversion, State};
use crate::catalog::conversion_source;
use crate::error::{IotError, IotResult};
use crate::guc;
use crate::pg::relation::{self, Lock, OpenRelation};
use crate::pg::session_lock::Kept;
use crate::pg::settings::{self, Scoped};
use crate::pg::snapshots;
use crate::pg::statement::Session;
use crate::statement;

/// Row and TRUNCATE trigger.
pub const TRIGGERS: [&str; 2] = ["iot_ext_conversion", "iot_ext_conversion_truncate"];

/// As many changes are carried over at the end in any case: they take a part of a second.
const LAST_CHANGES: i32 = 5_000;

/// How long to sleep between two looks.
const PAUSE: Duration = Duration::from_millis(5);

thread_local! {
    /// The locks that hold writers back, and until when.
    static HELD: RefCell<Option<(Vec<Kept>, Instant)>> = const { RefCell::new(None) };
}

/// How long writers may be held back.
pub fn longest_hold() -> Duration {
    iot_core::conversion::longest_hold(settings::deadlock_timeout())
}

/// Lets writers go on.
pub fn release() {
    for kept in HELD.with_borrow_mut(Option::take).into_iter().flat_map(|(held, _)| held) {
        kept.give_back();
    }
}

/// Holds writers back and carries the last changes over.
///
/// # Errors
/// 55P03 when the lock is not to be had.
pub fn close(session: &mut Session<'_>, conversion: &Conversion, shape: &Shape) -> IotResult<State> {
    release();
    let limit = conversion.order.batch_rows;
    copy::premake(session, conversion)?;
    // Who is in the way for long must not cost writers anything.
    let hold = longest_hold();
    let tables = tables(session, conversion)?;
    await_snapshots(session, &tables, Instant::now() + hold)?;
    for &table in &tables {
        await_lock(session, table)?;
    }
    let deadline = Instant::now() + hold;
    // What came while we waited for the lock comes on top.
    let mut from_start = conversion.clone();
    from_start.state.log_block = 0;
    from_start.order.batch_rows = limit.max(LAST_CHANGES);
    let (mut state, is_all) = copy::replay(session, &from_start, shape)?;
    if state.phase == Phase::Copying {
        return Ok(state);
    }
    if !is_all {
        return Err(locked("the log of changes grew too fast"));
    }
    let kept = tables.into_iter().map(|table| Kept::keep(table, Lock::ShareRowExclusive)).collect();
    HELD.set(Some((kept, deadline)));
    state.phase = Phase::Swapping;
    Ok(state)
}

/// Changes names, as soon as everybody sees what was carried over last.
///
/// # Errors
/// 55P03 when that takes too long.
pub fn swap(session: &mut Session<'_>, conversion: &Conversion, shape: &Shape) -> IotResult<State> {
    let deadline = HELD.with_borrow(|held| match held {
        Some((kept, deadline)) if kept.iter().all(Kept::is_held) => Some(*deadline),
        _ => None,
    });
    // After a crash, or in another session: writers have written since.
    let Some(deadline) = deadline else {
        return Ok(State { phase: Phase::Closing, ..conversion.state.clone() });
    };
    let tables = tables(session, conversion)?;
    await_snapshots(session, &tables, deadline)?;
    for table in tables {
        take_alone(table, deadline)?;
    }
    // What was refused at the beginning may have come since.
    super::check::require_convertible(session, conversion)?;
    match conversion.parent {
        Some(parent) => import::attach(session, conversion, shape, parent, Hurry(deadline))?,
        None => carry::rename(session, conversion, shape, Hurry(deadline))?,
    }
    Ok(State { phase: Phase::Cleaning, ..conversion.state.clone() })
}

/// All that the swap takes, in the order in which others come to them: rows of referenced tables go before those that go with
/// them, and the table of partitions before a partition. (A foreign key comes and goes with triggers on the table that it
/// references, so that table is needed alone as well.)
fn tables(session: &mut Session<'_>, conversion: &Conversion) -> IotResult<Vec<Oid>> {
    let mut tables: Vec<Oid> = conversion_source::foreign_keys(session, conversion.relation)?
        .into_iter()
        .map(|key| key.referenced)
        .collect();
    tables.sort_unstable_by_key(|table| table.to_u32());
    tables.dedup();
    tables.extend(conversion.parent);
    tables.push(conversion.relation);
    Ok(tables)
}

/// Waits in line for a lock on `table` against writers.
///
/// Nobody waits for anything of ours meanwhile, so there can be no deadlock. Behind us writers queue, so not for long; only
/// autovacuum takes PostgreSQL the deadlock timeout to send away.
///
/// # Errors
/// What PostgreSQL raises: 55P03.
pub fn await_lock(session: &mut Session<'_>, table: Oid) -> IotResult<()> {
    let mut patience = guc::maintenance_lock_timeout();
    if session.execute(&AUTOVACUUM, &[table.into()])?.count() > 0 {
        patience = patience.max(settings::deadlock_timeout() * 3 / 2);
    }
    let _settings = limited(Instant::now() + patience);
    drop(OpenRelation::open(table, Lock::ShareRowExclusive));
    Ok(())
}

statement!(AUTOVACUUM: (OIDOID)
    "SELECT 1 FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
      WHERE l.locktype = 'relation' AND l.relation = $1 AND l.granted AND l.mode = 'ShareUpdateExclusiveLock'
        AND a.backend_type = 'autovacuum worker'");

/// Statements that together may wait for locks up to a moment, and no longer.
#[derive(Clone, Copy)]
pub struct Hurry(Instant);

impl Hurry {
    /// Runs one.
    ///
    /// # Errors
    /// What PostgreSQL raises.
    pub fn run(self, session: &mut Session<'_>, statement: &str) -> IotResult<()> {
        let _settings = limited(self.0);
        session.run(statement)
    }
}

/// `lock_timeout` up to `deadline`.
pub fn limited(deadline: Instant) -> Scoped {
    let settings = Scoped::new();
    let left = deadline.saturating_duration_since(Instant::now()).as_millis().max(1);
    if let Ok(text) = std::ffi::CString::new(format!("{left}ms")) {
        settings.set(c"lock_timeout", &text);
    }
    settings
}

/// Takes `table` alone: at first without standing in line, so that readers go on; in the second half of the time in line, or
/// a busy table would never be free.
fn take_alone(table: Oid, deadline: Instant) -> IotResult<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if relation::try_lock(table, Lock::AccessExclusive, left / 2) {
        return Ok(());
    }
    let now = Instant::now();
    if now >= deadline {
        return Err(locked("readers did not leave the table in time"));
    }
    let _settings = limited(deadline.min(now + guc::maintenance_lock_timeout()));
    drop(OpenRelation::open(table, Lock::AccessExclusive));
    Ok(())
}

statement!(
    /// Who waits for us cannot be waited for.
    WAITING: (OIDARRAYOID)
    "SELECT l.virtualtransaction FROM pg_locks l
      WHERE l.locktype = 'relation' AND l.relation = ANY ($1) AND NOT l.granted");

/// Waits until nobody has a snapshot older than now.
fn await_snapshots(session: &mut Session<'_>, tables: &[Oid], deadline: Instant) -> IotResult<()> {
    let mut older = snapshots::older();
    loop {
        if !older.is_empty() {
            session.execute(&WAITING, &[tables.to_vec().into()])?.for_each(|row| {
                older.remove(&row.get::<String>(1)?);
                Ok(())
            })?;
        }
        if older.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(locked(&format!(
                "{} transactions of the database began earlier and may still read it as it was",
                older.len()
            )));
        }
        relation::pause(PAUSE);
        let now = snapshots::older();
        older.retain(|transaction| now.contains(transaction));
    }
}

fn locked(why: &str) -> IotError {
    IotError::new(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, why)
        .hint("It is tried again; long transactions keep it from coming to its end.")
}

statement!(HAS_TRIGGERS: (OIDOID)
    "SELECT quote_ident(t.tgname) FROM pg_trigger t
      WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgname = ANY ('{iot_ext_conversion,iot_ext_conversion_truncate}')");

/// Drops the triggers that log changes of `table`.
///
/// # Errors
/// What PostgreSQL raises.
pub fn drop_triggers(session: &mut Session<'_>, table: Oid) -> IotResult<()> {
    let name = OpenRelation::look(table, OpenRelation::qualified_name);
    for trigger in conversion_source::list(session, &HAS_TRIGGERS, table, |row| row.get::<String>(1))? {
        session.run(&format!("DROP TRIGGER {trigger} ON {name}"))?;
    }
    Ok(())
}

/// Drops `table` if it exists still.
///
/// # Errors
/// What PostgreSQL raises.
pub fn drop_table(session: &mut Session<'_>, table: Oid) -> IotResult<()> {
    if relation::exists(table) {
        let name = OpenRelation::look(table, OpenRelation::qualified_name);
        session.run(&format!("DROP TABLE {name}"))?;
    }
    Ok(())
}

/// The value of `text` in `regclass` form, for a statement.
pub fn regclass(text: &str) -> String {
    format!("{}::regclass", quote_literal(text))
}
