//! One step: a transaction that does the next piece of work and writes down how far it came, or why it could not.

use std::cell::Cell;
use std::time::{Duration, Instant};

use iot_core::conversion::{Phase, pause_before};
use pgrx::PgSqlErrorCode;
use pgrx::spi::quote_literal;

use super::shape::Shape;
use super::{begin, copy, finish, indexes, require_owner, swap, verify};
use crate::catalog::conversion::{self, Conversion, State};
use crate::catalog::conversion_source;
use crate::error::{IotError, IotResult};
use crate::guc;
use crate::pg::relation::{self, OpenRelation};
use crate::pg::security::ActingAs;
use crate::pg::session_lock::Converter;
use crate::pg::settings::{self, Scoped};
use crate::pg::statement::{Session, with_session};
use crate::pg::transaction;

/// What another try may get over: locks, and rows whose partners in other tables are on their way out.
const PASSING: [PgSqlErrorCode; 5] = [
    PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
    PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED,
    PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
    PgSqlErrorCode::ERRCODE_FOREIGN_KEY_VIOLATION,
    // A value that went from one row to another, of which only the second is known yet.
    PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
];

/// Texts of values must read the same in every session that goes on with a conversion.
const PLAIN_OUTPUT: [(&std::ffi::CStr, &std::ffi::CStr); 8] = [
    (c"DateStyle", c"ISO, YMD"),
    (c"IntervalStyle", c"postgres"),
    (c"TimeZone", c"UTC"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"lc_monetary", c"C"),
    // Rows that a policy hides must be an error, not lost.
    (c"row_security", c"off"),
    (c"synchronize_seqscans", c"off"),
];

thread_local! {
    /// How long the next step waits, because this one has failed.
    static PAUSE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Does the next step of a conversion; whether there is another one.
///
/// # Errors
/// 55P03 when it could not get its locks as often as was ordered; 55000 when the table has changed or the conversion is gone;
/// what PostgreSQL raises.
pub fn step(id: i64) -> IotResult<bool> {
    with_session(|session| {
        let Some(conversion) = conversion::load(session, id)? else {
            return Err(IotError::wrong_state("the conversion was cancelled, or its table dropped")
                .hint("Begin again with iot.convert_to_partitioned() if that was a mistake."));
        };
        if !relation::exists(conversion.relation) {
            return Err(conversion_source::gone());
        }
        let name = OpenRelation::look(conversion.relation, OpenRelation::qualified_name);
        begin::take(id, &name)?;
        let owner = require_owner(conversion.relation)?;
        show(&conversion, &name);
        relation::pause(PAUSE.take());
        let tried = {
            let plain = Scoped::new();
            for (setting, value) in PLAIN_OUTPUT {
                plain.set(setting, value);
            }
            transaction::unless(&PASSING, || {
                let _owner = ActingAs::seeing_own_rows(owner);
                // Given up before PostgreSQL looks for deadlocks: it must not be the others who pay for them.
                let _settings =
                    swap::limited(Instant::now() + guc::maintenance_lock_timeout().min(swap::longest_hold()));
                let state = work(session, &conversion)?;
                // What is checked at the end of the transaction, while it can still be tried again.
                session.run("SET CONSTRAINTS ALL IMMEDIATE")?;
                Ok(state)
            })?
        };
        let state = match tried {
            Ok(state) => state,
            Err((code, why)) => {
                swap::release();
                copy::replay_all(code == PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION);
                let mut state = conversion.state.clone();
                // Writers were held back in vain.
                if state.phase == Phase::Swapping {
                    state.phase = Phase::Closing;
                }
                if state.attempts >= conversion.order.lock_retries {
                    return Err(gave_up(&name, state.phase, &why, state.attempts + 1));
                }
                state.attempts += 1;
                PAUSE.set(pause_before(u32::try_from(state.attempts).unwrap_or(u32::MAX)));
                state.last_obstacle = Some(why);
                state
            }
        };
        conversion::save(session, id, &state)?;
        if state.phase == Phase::Finished {
            Converter::of(id).give_back();
            return Ok(false);
        }
        Ok(true)
    })
}

fn work(session: &mut Session<'_>, conversion: &Conversion) -> IotResult<State> {
    if conversion.state.phase == Phase::Cleaning {
        let phase = finish::clean(session, conversion)?;
        return Ok(State { phase, attempts: 0, last_obstacle: None, ..conversion.state.clone() });
    }
    require_unchanged(session, conversion)?;
    let shape = &Shape::load(session, conversion)?;
    let phase = conversion.state.phase;
    // In a transaction of its own: work that fails must not keep the log from being read.
    let only_replays = phase > Phase::Copying && phase < Phase::Swapping && phase != Phase::Verifying;
    if only_replays && copy::has_changes(session, conversion, shape)? {
        return Ok(copy::replay(session, conversion, shape)?.0);
    }
    let state = next(session, conversion, shape)?;
    // The swap takes several steps, which fail and succeed as one.
    if matches!(state.phase, Phase::Closing | Phase::Swapping) && phase >= Phase::Closing {
        return Ok(state);
    }
    Ok(State { attempts: 0, last_obstacle: None, ..state })
}

/// The piece of work that the phase is about.
fn next(session: &mut Session<'_>, conversion: &Conversion, shape: &Shape) -> IotResult<State> {
    let reached = |phase| State { phase, ..conversion.state.clone() };
    match conversion.state.phase {
        Phase::Starting => start(session, conversion, shape),
        Phase::Partitioning => {
            let (state, _) = copy::replay(session, conversion, shape)?;
            Ok(State { phase: copy::make_partitions(session, conversion)?, ..state })
        }
        Phase::Copying => copy::copy(session, conversion, shape),
        Phase::Verifying => verify::verify(session, conversion, shape),
        Phase::Indexing => Ok(reached(indexes::build(session, conversion, shape)?)),
        Phase::Analyzing => Ok(reached(indexes::analyze(session, conversion, shape)?)),
        Phase::Referencing => Ok(reached(indexes::reference(session, conversion)?)),
        Phase::Closing => swap::close(session, conversion, shape),
        Phase::Swapping => swap::swap(session, conversion, shape),
        Phase::Cleaning | Phase::Finished => Ok(conversion.state.clone()),
    }
}

/// From here on changes are logged.
fn start(session: &mut Session<'_>, conversion: &Conversion, shape: &Shape) -> IotResult<State> {
    let numbers: Vec<_> = shape.full_key.iter().map(|column| column.number.to_string()).collect();
    let arguments = [
        conversion.relation.to_u32().to_string(),
        conversion.change_log.to_u32().to_string(),
        numbers.join(" "),
        shape.copy.clone(),
        shape.log.clone(),
    ]
    .map(quote_literal)
    .join(", ");
    let source = &shape.source;
    swap::await_lock(session, conversion.relation)?;
    for (trigger, when) in swap::TRIGGERS.into_iter().zip([
        "AFTER INSERT OR UPDATE OR DELETE ON {} FOR EACH ROW",
        "AFTER TRUNCATE ON {} FOR EACH STATEMENT",
    ]) {
        let when = when.replace("{}", source);
        session.run(&format!(
            "CREATE TRIGGER {trigger} {when} EXECUTE FUNCTION iot.log_conversion_change({arguments})"
        ))?;
        session.run(&format!("ALTER TABLE {source} ENABLE ALWAYS TRIGGER {trigger}"))?;
    }
    let (file, end_block) = copy::file_and_blocks(session, conversion.relation)?;
    Ok(State { phase: Phase::Partitioning, file, next_block: 0, end_block, ..conversion.state.clone() })
}

/// How long to wait before a definition that differs is read again.
const SECOND_LOOK: Duration = Duration::from_millis(20);

/// REINDEX CONCURRENTLY swaps indexes without a lock that we would wait for, and `pg_get_indexdef` looks past the snapshot of
/// the query that calls it: such a moment reads differently the next time. A definition has changed when two looks agree.
fn require_unchanged(session: &mut Session<'_>, conversion: &Conversion) -> IotResult<()> {
    let mut seen = conversion_source::definition(session, conversion.relation)?;
    while seen != conversion.definition {
        relation::pause(SECOND_LOOK);
        let again = conversion_source::definition(session, conversion.relation)?;
        if again == seen {
            return Err(has_changed(conversion));
        }
        seen = again;
    }
    Ok(())
}

fn has_changed(conversion: &Conversion) -> IotError {
    IotError::wrong_state(format!(
        "the definition of table {} has changed since its conversion began",
        OpenRelation::look(conversion.relation, OpenRelation::qualified_name)
    ))
    .detail("Columns, keys, constraints, indexes, statistics, policies and owner must stay as they are meanwhile.")
    .hint("Undo the change and call it again, or take the conversion back with iot.cancel_conversion() and begin anew.")
}

fn show(conversion: &Conversion, name: &str) {
    let State { phase, rows_copied, row_estimate, .. } = &conversion.state;
    settings::show_activity(&format!(
        "iot_ext: converting {name} ({}, {rows_copied} of about {row_estimate} rows copied)",
        phase.as_str()
    ));
}

fn gave_up(name: &str, phase: Phase, why: &str, attempts: i32) -> IotError {
    IotError::new(
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
        format!("conversion of table {name} stopped at step \"{}\" after {attempts} attempts: {why}", phase.as_str()),
    )
    .hint("Nothing is lost: call it again to go on, at a quieter time or with more lock_retries. iot.cancel_conversion() takes it back.")
}
