//! What the engine holds in memory, as SQL: writing it down, and asking it for the latest reading.

use std::collections::HashSet;

use iot_core::sensor_state::{NEVER, SensorState};
use iot_core::time::Timestamp;
use pgrx::datum::{TimestampWithTimeZone, Uuid};
use pgrx::{PgSqlErrorCode, pg_extern};

use crate::catalog::sensor_state::{self, NO_DETECTOR, Seen, Written};
use crate::engine::overlay;
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::clock;
use crate::pg::relation::in_schema_iot;
use crate::pg::security;
use crate::pg::settings::Scoped;
use crate::pg::shared::flush::{self, Flushing, Unflushed};
use crate::pg::shared::sensors::{self, SensorKey};
use crate::pg::statement::with_session;
use crate::pg::transaction;

/// States written by one statement: bounded memory, however many there are.
const CHUNK: usize = 10_000;

/// States of detectors, which are larger: 17 MB.
const DETECTOR_CHUNK: usize = 4_000;

#[pg_extern(sql = false)]
fn flush_state() -> i64 {
    crate::catalog::require_setup().or_raise();
    flush().or_raise()
}

/// Writes down what changed; returns how many sensors.
///
/// Waits for no row: sessions wait for what is written here, and a wait of ours could make one of them the victim of a
/// deadlock. What somebody else has locked is written down the next time.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn flush() -> IotResult<i64> {
    if !sensors::is_available() {
        return Ok(0);
    }
    let mut flushed = 0;
    let mut seen = Seen::default();
    // Sensors by device, in case that is locked.
    let mut written: Vec<([u8; 16], [u8; 16])> = Vec::new();
    for keys in flush::unflushed().chunks(CHUNK) {
        let sensor_ids = keys.iter().map(|key| Uuid::from_bytes(key.sensor_id)).collect();
        let free = with_session(|session| sensor_state::lock_if_free(session, sensor_ids))?;
        for (sensor_ids, has_rows) in [(free.locked, true), (free.lacking, false)] {
            let mut keys: Vec<SensorKey> = sensor_ids.into_iter().map(SensorKey::here).collect();
            keys.sort_unstable_by_key(|key| key.sensor_id);
            let mut left = keys.as_slice();
            while !left.is_empty() {
                let flushing = flush::take_unflushed(left, CHUNK, DETECTOR_CHUNK);
                left = &left[flushing.seen..];
                overlay::note_flushed(flushing.taken.iter().map(|taken| SensorKey::here(taken.sensor_id)));
                if has_rows {
                    write(&flushing, &mut seen)?;
                } else if !write_new(&flushing, &mut seen)? {
                    continue;
                }
                flushed += flushing.taken.len() as i64;
                written.extend(flushing.taken.iter().map(|taken| (taken.device_id, taken.sensor_id)));
            }
        }
    }
    let skipped = with_session(|session| sensor_state::store_seen_if_free(session, seen))?;
    if !skipped.is_empty() {
        let skipped: HashSet<[u8; 16]> = skipped.into_iter().collect();
        let of_skipped = written.iter().filter(|(device_id, _)| skipped.contains(device_id));
        overlay::note_left_out(&of_skipped.map(|&(_, sensor_id)| sensor_id).collect());
    }
    Ok(flushed)
}

/// Writes states down that have no rows yet; whether it did. A session that makes one of them at this very moment is not
/// waited for: all of them are left for the next time.
fn write_new(flushing: &Flushing, seen: &mut Seen) -> IotResult<bool> {
    let mut new = Seen::default();
    let outcome = transaction::unless(&[PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE], || {
        let settings = Scoped::new();
        settings.set(c"lock_timeout", c"1ms");
        write(flushing, &mut new)
    })?;
    if outcome.is_ok() {
        seen.add(new);
    } else {
        overlay::note_left_out(&flushing.taken.iter().map(|taken| taken.sensor_id).collect());
    }
    Ok(outcome.is_ok())
}

#[pg_extern(sql = false)]
fn load_state(maximum: i32) -> i64 {
    crate::catalog::require_setup().or_raise();
    let Ok(maximum) = usize::try_from(maximum) else {
        IotError::invalid_argument(format!("maximum {maximum} is negative"))
            .hint("Give the number of sensors to load at most.")
            .raise();
    };
    load(maximum).or_raise()
}

pub use crate::engine::recall::recall as load;

fn write(flushing: &Flushing, seen: &mut Seen) -> IotResult<()> {
    if flushing.taken.is_empty() {
        return Ok(());
    }
    let written = |taken: &Unflushed| {
        let detector = taken.detector.clone().map(|place| flushing.detectors[place].to_vec());
        Written {
            sensor_id: Uuid::from_bytes(taken.sensor_id),
            device_id: Uuid::from_bytes(taken.device_id),
            is_checkpoint: taken.is_checkpoint,
            state: taken.state,
            detector: if taken.has_no_detector { Some(NO_DETECTOR) } else { detector },
        }
    };
    with_session(|session| {
        sensor_state::store_states(session, flushing.taken.iter().map(written).collect(), seen)?;
        let was_spoiled = |taken: &&Unflushed| taken.is_checkpoint && flush::was_spoiled(taken);
        let spoiled: Vec<Uuid> = (flushing.taken.iter().filter(was_spoiled))
            .map(|taken| Uuid::from_bytes(taken.sensor_id))
            .collect();
        if spoiled.is_empty() { Ok(()) } else { sensor_state::spoil(session, spoiled) }
    })
}

/// The state of a sensor in memory, for those who may read its readings.
fn state_of(sensor_id: Uuid) -> Option<Box<SensorState>> {
    let readings = in_schema_iot(c"sensor_data")?;
    if !sensors::is_available() || !security::sees_all_rows(readings) {
        return None;
    }
    sensors::peek(&SensorKey::here(*sensor_id.as_bytes()))
}

/// Readings that this transaction can see are not newer than the answer. `None` wherever that is not certain.
#[pg_extern(sql = false)]
fn latest_time_in_memory(sensor_uuid: Uuid) -> Option<TimestampWithTimeZone> {
    // Its own readings come into memory with its commit; what was deleted since its snapshot is there for it alone.
    if transaction::keeps_its_snapshot() || overlay::has_touched(sensor_uuid) {
        return None;
    }
    state_of(sensor_uuid).and_then(|state| state.window.high_water()).map(clock::to_pg)
}

#[pg_extern(sql = false)]
fn last_received_in_memory(sensor_uuid: Uuid) -> Option<TimestampWithTimeZone> {
    let received = state_of(sensor_uuid)?.last_received;
    (received != NEVER).then(|| clock::to_pg(Timestamp(received)))
}
