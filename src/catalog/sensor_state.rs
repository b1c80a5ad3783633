//! `iot.sensor_state`: what outlives a restart. Written as the table's owner: whoever stores readings may not write it.

use iot_core::sensor_state::{NEVER, SensorState};
use iot_core::time::Timestamp;
use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;

use crate::error::{IotError, IotResult};
use crate::pg::bulk_insert;
use crate::pg::clock;
use crate::pg::relation::{self, Lock, OpenRelation, in_schema_iot};
use crate::pg::security::ActingAs;
use crate::pg::statement::Session;
use crate::statement;

/// Until dropped, statements run as the owner of `iot.sensor_state`.
fn as_owner() -> Option<ActingAs> {
    let table = in_schema_iot(c"sensor_state")?;
    let owner = OpenRelation::open(table, Lock::AccessShare).owner();
    Some(ActingAs::restricted(owner))
}

/// A state as it was written down.
pub struct Kept {
    /// The sensor.
    pub sensor_id: Uuid,
    /// Whether every reading up to the newest is in its window.
    pub is_checkpoint: bool,
    /// The state.
    pub state: SensorState,
}

statement!(LOAD: by_index (UUIDARRAYOID)
    "SELECT s.sensor_id, s.is_checkpoint, s.state FROM iot.sensor_state s
      WHERE s.sensor_id OPERATOR(pg_catalog.=) ANY ($1) AND s.state IS NOT NULL");

/// The states of `sensor_ids` that were written down and can be read.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn load(session: &mut Session<'_>, sensor_ids: Vec<Uuid>) -> IotResult<Vec<Kept>> {
    let _owner = as_owner();
    let rows = session.execute(&LOAD, &[sensor_ids.into()])?;
    let mut kept = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        let bytes: Vec<u8> = row.get(3)?;
        if let Some(state) = SensorState::decode(&bytes) {
            kept.push(Kept { sensor_id: row.get(1)?, is_checkpoint: row.get(2)?, state });
        }
        Ok(())
    })?;
    Ok(kept)
}

statement!(WRITTEN: ()
    "SELECT s.sensor_id FROM iot.sensor_state s WHERE s.state IS NOT NULL
      ORDER BY s.last_received_at DESC NULLS LAST");

/// The sensors whose states are written down, those heard of last first.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn written(session: &mut Session<'_>) -> IotResult<Vec<Uuid>> {
    let _owner = as_owner();
    let rows = session.execute(&WRITTEN, &[])?;
    let mut found = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        found.push(row.get(1)?);
        Ok(())
    })?;
    Ok(found)
}

statement!(
    /// In key order, so that two sessions with the same sensors do not deadlock. The newest reading decides. NULL leaves what
    /// is there.
    STORE: (
        UUIDARRAYOID, UUIDARRAYOID, TIMESTAMPTZARRAYOID, FLOAT8ARRAYOID, TIMESTAMPTZARRAYOID, BOOLARRAYOID,
        BYTEAARRAYOID, BYTEAARRAYOID,
    )
    "INSERT INTO iot.sensor_state AS s (
         sensor_id, device_id, latest_timestamp, latest_value, last_received_at, is_checkpoint, state, detector_state)
     SELECT o.sensor_id, o.device_id, o.latest_timestamp, o.latest_value, o.last_received_at, o.is_checkpoint, o.state,
            o.detector_state
       FROM ROWS FROM (
            pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),
            pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8))
         AS o (sensor_id, device_id, latest_timestamp, latest_value, last_received_at, is_checkpoint, state,
               detector_state)
      WHERE EXISTS (SELECT FROM iot.sensors r WHERE r.sensor_id OPERATOR(pg_catalog.=) o.sensor_id)
      ORDER BY o.sensor_id
     ON CONFLICT (sensor_id) DO UPDATE
        SET device_id = EXCLUDED.device_id,
            latest_timestamp = COALESCE(EXCLUDED.latest_timestamp, s.latest_timestamp),
            latest_value = CASE WHEN EXCLUDED.state IS NULL THEN s.latest_value ELSE EXCLUDED.latest_value END,
            last_received_at = GREATEST(s.last_received_at, EXCLUDED.last_received_at),
            is_checkpoint = CASE WHEN EXCLUDED.state IS NULL THEN s.is_checkpoint ELSE EXCLUDED.is_checkpoint END,
            state = COALESCE(EXCLUDED.state, s.state),
            detector_state = COALESCE(EXCLUDED.detector_state, s.detector_state),
            flushed_at = pg_catalog.clock_timestamp()
      WHERE EXCLUDED.state IS NULL OR s.latest_timestamp IS NULL
         OR EXCLUDED.latest_timestamp OPERATOR(pg_catalog.>=) s.latest_timestamp");

statement!(
    /// In key order, and never backwards.
    SEEN: (UUIDARRAYOID, TIMESTAMPTZARRAYOID)
    "WITH seen AS (
         SELECT d.device_id, o.at
           FROM (SELECT u.device_id, pg_catalog.max(u.at) AS at
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS u (device_id, at)
                  GROUP BY u.device_id) AS o
           JOIN iot.devices d ON d.device_id OPERATOR(pg_catalog.=) o.device_id
          WHERE d.last_seen_at IS NULL OR d.last_seen_at OPERATOR(pg_catalog.<) o.at
          ORDER BY d.device_id
            FOR NO KEY UPDATE OF d)
     UPDATE iot.devices d SET last_seen_at = s.at FROM seen s WHERE d.device_id OPERATOR(pg_catalog.=) s.device_id");

statement!(
    /// As SEEN, for those that nobody else has locked; returns the others.
    SEEN_IF_FREE: (UUIDARRAYOID, TIMESTAMPTZARRAYOID)
    "WITH older AS MATERIALIZED (
         SELECT d.device_id, o.at
           FROM (SELECT u.device_id, pg_catalog.max(u.at) AS at
                   FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS u (device_id, at)
                  GROUP BY u.device_id) AS o
           JOIN iot.devices d ON d.device_id OPERATOR(pg_catalog.=) o.device_id
          WHERE d.last_seen_at IS NULL OR d.last_seen_at OPERATOR(pg_catalog.<) o.at),
     free AS MATERIALIZED (
         SELECT d.device_id, o.at
           FROM older o JOIN iot.devices d ON d.device_id OPERATOR(pg_catalog.=) o.device_id
          WHERE d.last_seen_at IS NULL OR d.last_seen_at OPERATOR(pg_catalog.<) o.at
            FOR NO KEY UPDATE OF d SKIP LOCKED),
     seen AS (
         UPDATE iot.devices d SET last_seen_at = f.at FROM free f
          WHERE d.device_id OPERATOR(pg_catalog.=) f.device_id)
     SELECT o.device_id FROM older o
      WHERE NOT EXISTS (SELECT FROM free f WHERE f.device_id OPERATOR(pg_catalog.=) o.device_id)");

statement!(
    /// Rows that nobody else has locked.
    LOCK_IF_FREE: by_index (UUIDARRAYOID)
    "SELECT s.sensor_id FROM iot.sensor_state s
      WHERE s.sensor_id OPERATOR(pg_catalog.=) ANY ($1)
        FOR NO KEY UPDATE SKIP LOCKED");

statement!(
    /// Sensors without a row, whose own row, which the foreign key locks, nobody is about to delete.
    LACKING: (UUIDARRAYOID)
    "SELECT r.sensor_id FROM iot.sensors r
      WHERE r.sensor_id OPERATOR(pg_catalog.=) ANY ($1)
        AND NOT EXISTS (SELECT FROM iot.sensor_state s WHERE s.sensor_id OPERATOR(pg_catalog.=) r.sensor_id)
        FOR KEY SHARE OF r SKIP LOCKED");

statement!(GONE: (UUIDARRAYOID)
    "SELECT k.sensor_id FROM pg_catalog.unnest($1) AS k (sensor_id)
      WHERE NOT EXISTS (SELECT FROM iot.sensors r WHERE r.sensor_id OPERATOR(pg_catalog.=) k.sensor_id)");

/// Sensors whose states can be written down without waiting for anybody.
#[derive(Default)]
pub struct Free {
    /// Those whose rows were locked, and those that are not registered any more, of which nothing is written.
    pub locked: Vec<[u8; 16]>,
    /// Those that have no row. Another session may make it before we do.
    pub lacking: Vec<[u8; 16]>,
}

/// Locks what there is of `sensor_ids`, except what somebody else has locked.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn lock_if_free(session: &mut Session<'_>, sensor_ids: Vec<Uuid>) -> IotResult<Free> {
    let Some(table) = in_schema_iot(c"sensor_state") else { return Ok(Free::default()) };
    // Whoever wants a table for himself is waited for before a row is locked.
    let table = OpenRelation::open(table, Lock::RowExclusive);
    let _devices = in_schema_iot(c"devices").map(|devices| OpenRelation::open(devices, Lock::RowExclusive));
    let _owner = as_owner();
    let mut ids = |statement, sensor_ids: Vec<Uuid>| {
        let rows = session.execute(statement, &[sensor_ids.into()])?;
        let mut found: Vec<[u8; 16]> = Vec::with_capacity(rows.count());
        rows.for_each(|row| {
            found.push(*row.get::<Uuid>(1)?.as_bytes());
            Ok(())
        })?;
        Ok::<_, IotError>(found)
    };
    let mut locked = ids(&LOCK_IF_FREE, sensor_ids.clone())?;
    if locked.len() == sensor_ids.len() {
        return Ok(Free { locked, lacking: Vec::new() });
    }
    locked.extend(ids(&GONE, sensor_ids.clone())?);
    let lacking = ids(&LACKING, sensor_ids)?;
    Ok(Free { locked, lacking: bulk_insert::free_keys(&table, &lacking) })
}

/// A state on its way to the table.
pub struct Written {
    /// The sensor.
    pub sensor_id: Uuid,
    /// Its device.
    pub device_id: Uuid,
    /// Whether every reading up to the newest is in its window.
    pub is_checkpoint: bool,
    /// The state; `None` leaves the one that is there.
    pub state: Option<SensorState>,
    /// The state of its detector, which need not be of the same moment; `None` leaves the one that is there.
    pub detector: Option<Vec<u8>>,
}

/// In place of the state of a detector: the sensor has none.
pub const NO_DETECTOR: Vec<u8> = Vec::new();

/// When devices were last heard of.
#[derive(Default)]
pub struct Seen {
    device_ids: Vec<Uuid>,
    received: Vec<Option<TimestampWithTimeZone>>,
}

impl Seen {
    /// Adds what `other` has.
    pub fn add(&mut self, other: Self) {
        self.device_ids.extend(other.device_ids);
        self.received.extend(other.received);
    }
}

/// Writes states down, and when their devices were last heard of.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn store(session: &mut Session<'_>, written: Vec<Written>) -> IotResult<()> {
    let mut seen = Seen::default();
    store_states(session, written, &mut seen)?;
    store_seen(session, seen)
}

/// Writes down when devices were last heard of.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn store_seen(session: &mut Session<'_>, seen: Seen) -> IotResult<()> {
    if !seen.device_ids.is_empty() {
        let _owner = as_owner();
        session.execute(&SEEN, &[seen.device_ids.into(), seen.received.into()])?;
    }
    Ok(())
}

/// As [`store_seen`], without waiting for anybody. Returns the devices that somebody else has locked.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn store_seen_if_free(session: &mut Session<'_>, seen: Seen) -> IotResult<Vec<[u8; 16]>> {
    let mut skipped = Vec::new();
    if !seen.device_ids.is_empty() {
        let _owner = as_owner();
        session.execute(&SEEN_IF_FREE, &[seen.device_ids.into(), seen.received.into()])?.for_each(|row| {
            skipped.push(*row.get::<Uuid>(1)?.as_bytes());
            Ok(())
        })?;
    }
    Ok(skipped)
}

/// Writes states down; when their devices were last heard of is added to `seen`.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn store_states(session: &mut Session<'_>, written: Vec<Written>, seen: &mut Seen) -> IotResult<()> {
    let at = |micros: i64| (micros != NEVER).then(|| clock::to_pg(Timestamp(micros)));
    let states = || written.iter().map(|written| written.state.as_ref());
    let received: Vec<Option<TimestampWithTimeZone>> =
        states().map(|state| state.and_then(|state| at(state.last_received))).collect();
    let device_ids: Vec<Uuid> = written.iter().map(|written| written.device_id).collect();
    let newest = |state: &SensorState| state.window.high_water().map(clock::to_pg);
    let value = |state: &SensorState| Some(state.latest_value).filter(|value| !value.is_nan());
    let _owner = as_owner();
    session.execute(
        &STORE,
        &[
            written.iter().map(|written| written.sensor_id).collect::<Vec<Uuid>>().into(),
            device_ids.clone().into(),
            states().map(|state| state.and_then(newest)).collect::<Vec<_>>().into(),
            states().map(|state| state.and_then(value)).collect::<Vec<_>>().into(),
            received.clone().into(),
            written.iter().map(|written| written.is_checkpoint).collect::<Vec<bool>>().into(),
            states().map(|state| state.map(SensorState::encode)).collect::<Vec<Option<Vec<u8>>>>().into(),
            written.into_iter().map(|written| written.detector).collect::<Vec<Option<Vec<u8>>>>().into(),
        ],
    )?;
    seen.device_ids.extend(device_ids);
    seen.received.extend(received);
    Ok(())
}

statement!(
    /// In key order.
    SPOIL: by_index (UUIDARRAYOID)
    "WITH spoiled AS (
         SELECT s.sensor_id FROM iot.sensor_state s
          WHERE s.sensor_id OPERATOR(pg_catalog.=) ANY ($1) AND s.is_checkpoint
          ORDER BY s.sensor_id FOR NO KEY UPDATE)
     UPDATE iot.sensor_state s SET is_checkpoint = false FROM spoiled
      WHERE s.sensor_id OPERATOR(pg_catalog.=) spoiled.sensor_id");

/// The states written down of `sensor_ids` no longer hold every reading before their newest.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn spoil(session: &mut Session<'_>, sensor_ids: Vec<Uuid>) -> IotResult<()> {
    let _owner = as_owner();
    session.execute(&SPOIL, &[sensor_ids.into()])?;
    Ok(())
}

statement!(
    /// In key order. An INSERT, so that it waits for whoever writes the row now, and has the last word.
    SPOIL_AWAITED: (UUIDARRAYOID)
    "INSERT INTO iot.sensor_state AS s (sensor_id, device_id)
     SELECT r.sensor_id, r.device_id FROM iot.sensors r
      WHERE r.sensor_id OPERATOR(pg_catalog.=) ANY ($1)
      ORDER BY r.sensor_id
     ON CONFLICT (sensor_id) DO UPDATE SET is_checkpoint = false WHERE s.is_checkpoint");

/// As [`spoil`], and also for states that another transaction has written and not committed yet.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn spoil_awaited(session: &mut Session<'_>, sensor_ids: Vec<Uuid>) -> IotResult<()> {
    let _owner = as_owner();
    session.execute(&SPOIL_AWAITED, &[sensor_ids.into()])?;
    Ok(())
}

statement!(IS_WATCHED: ()
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger t
             WHERE t.tgrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass('iot.sensor_data')
               AND t.tgname OPERATOR(pg_catalog.=) 'sensor_data_changed')");

/// Whether changes of stored readings past the engine are noticed.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn is_watched(session: &mut Session<'_>) -> IotResult<bool> {
    session.execute(&IS_WATCHED, &[])?.first().map_or(Ok(false), |row| row.get(1))
}

/// Waits until every transaction that has written states down has ended, so that [`spoil_all`] sees what they wrote.
pub fn await_writers() {
    if let Some(table) = in_schema_iot(c"sensor_state") {
        relation::await_writers(table);
    }
}

statement!(SPOIL_ALL: ()
    "UPDATE iot.sensor_state s SET is_checkpoint = false WHERE s.is_checkpoint");

/// As [`spoil`] for every sensor.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn spoil_all(session: &mut Session<'_>) -> IotResult<()> {
    let _owner = as_owner();
    session.execute(&SPOIL_ALL, &[])?;
    Ok(())
}

statement!(
    /// In key order. An INSERT, so that sessions meet at the rows that are not there yet, too; it changes none.
    LOCK: (UUIDARRAYOID)
    "INSERT INTO iot.sensor_state AS s (sensor_id, device_id)
     SELECT r.sensor_id, r.device_id FROM iot.sensors r
      WHERE r.sensor_id OPERATOR(pg_catalog.=) ANY ($1)
      ORDER BY r.sensor_id
     ON CONFLICT (sensor_id) DO UPDATE SET device_id = s.device_id WHERE false");

/// Makes sessions that are about to write the states of the same sensors follow each other, until they end.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn lock(session: &mut Session<'_>, sensor_ids: Vec<Uuid>) -> IotResult<()> {
    let _owner = as_owner();
    session.execute(&LOCK, &[sensor_ids.into()])?;
    Ok(())
}

statement!(LOAD_DETECTORS: by_index (UUIDARRAYOID)
    "SELECT s.sensor_id, s.detector_state FROM iot.sensor_state s
      WHERE s.sensor_id OPERATOR(pg_catalog.=) ANY ($1) AND s.detector_state IS NOT NULL");

/// The detector states of `sensor_ids` that were written down.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn load_detectors(session: &mut Session<'_>, sensor_ids: Vec<Uuid>) -> IotResult<Vec<(Uuid, Vec<u8>)>> {
    let _owner = as_owner();
    let rows = session.execute(&LOAD_DETECTORS, &[sensor_ids.into()])?;
    let mut found = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        found.push((row.get(1)?, row.get(2)?));
        Ok(())
    })?;
    Ok(found)
}
