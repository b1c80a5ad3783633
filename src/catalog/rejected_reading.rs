//! `iot.rejected_readings`: readings that could not be accepted, kept so that they can be mended and offered again.

use iot_core::time::Timestamp;
use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;

use crate::error::{IotError, IotResult};
use crate::pg::clock;
use crate::pg::jsonb::{Jsonb, JsonbImage};
use crate::pg::statement::Session;
use crate::statement;

/// A reading that could not be accepted: what could be read of it, and all of it as it came.
pub struct RejectedReading<'a> {
    /// Key of the row.
    pub rejection_id: Uuid,
    /// When it reached the server.
    pub received_at: Timestamp,
    /// The sensor it named, registered or not.
    pub sensor_id: Option<Uuid>,
    /// The time it named.
    pub measured_at: Option<Timestamp>,
    /// The value it named.
    pub value: Option<f64>,
    /// The reading as it came, without the two documents below. What is no object is kept under the key `reading`.
    pub reading: Jsonb<'a>,
    /// Its metadata: kept apart so that they need not be taken to pieces.
    pub metadata: Option<Jsonb<'a>>,
    /// Its value, where that is a structure.
    pub json_value: Option<Jsonb<'a>>,
}

statement!(INSERT: (
        UUIDOID, TIMESTAMPTZOID, UUIDOID, TIMESTAMPTZOID, FLOAT8OID, JSONBOID, JSONBOID, JSONBOID, TEXTOID, TEXTOID,
        TEXTOID,
    )
    "INSERT INTO iot.rejected_readings (
         rejection_id, received_at, sensor_id, device_id, measurement_timestamp, measurement_value, reading,
         reason, sqlstate, message)
     VALUES ($1, $2, $3,
         (SELECT s.device_id FROM iot.sensors s WHERE s.sensor_id OPERATOR(pg_catalog.=) $3),
         $4, $5,
         CASE WHEN pg_catalog.jsonb_typeof($6) OPERATOR(pg_catalog.=) 'object' THEN $6
              ELSE pg_catalog.jsonb_build_object('reading', $6) END
         OPERATOR(pg_catalog.||)
             CASE WHEN $7 IS NULL THEN '{}' ELSE pg_catalog.jsonb_build_object('measurement_metadata', $7) END
         OPERATOR(pg_catalog.||)
             CASE WHEN $8 IS NULL THEN '{}' ELSE pg_catalog.jsonb_build_object('json_value', $8) END,
         $9, $10, $11)");

/// Keeps `rejected` with the `error` that a single call would have raised.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn insert(session: &mut Session<'_>, rejected: &RejectedReading<'_>, error: &IotError) -> IotResult<()> {
    session.execute(
        &INSERT,
        &[
            rejected.rejection_id.into(),
            clock::to_pg(rejected.received_at).into(),
            rejected.sensor_id.into(),
            rejected.measured_at.map(clock::to_pg).into(),
            rejected.value.into(),
            rejected.reading.into(),
            rejected.metadata.into(),
            rejected.json_value.into(),
            error.reason().into(),
            error.sqlstate().into(),
            error.message().into(),
        ],
    )?;
    Ok(())
}

/// A kept reading that was not offered again yet, locked by this transaction.
pub struct Waiting {
    /// Key of the row.
    pub rejection_id: Uuid,
    /// When it reached the server.
    pub received_at: Timestamp,
    /// Why it was kept.
    pub reason: String,
    /// The reading as it came, or as somebody mended it.
    pub reading: JsonbImage,
}

/// Where to go on: the last row that was seen.
pub type Cursor = (Timestamp, Uuid);

impl Waiting {
    /// To go on after this one.
    pub fn cursor(&self) -> Cursor {
        (self.received_at, self.rejection_id)
    }
}

statement!(
    /// In order of arrival. What another session is replaying is left to it.
    LOCK: (TIMESTAMPTZOID, TEXTOID, TIMESTAMPTZOID, UUIDOID, INT8OID)
    "SELECT r.rejection_id, r.received_at, r.reason, r.reading
       FROM iot.rejected_readings r
      WHERE r.replayed_at IS NULL
        AND r.received_at OPERATOR(pg_catalog.>=) $1
        AND ($2 IS NULL OR r.reason OPERATOR(pg_catalog.=) $2)
        AND ($3 IS NULL OR ROW(r.received_at, r.rejection_id) OPERATOR(pg_catalog.>) ROW($3, $4))
      ORDER BY r.received_at, r.rejection_id LIMIT $5 FOR UPDATE SKIP LOCKED");

/// Locks and returns up to `limit` readings that arrived at `since` or later, and stand behind `after`, in order of arrival.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn lock(
    session: &mut Session<'_>,
    since: TimestampWithTimeZone,
    reason: Option<&str>,
    after: Option<Cursor>,
    limit: usize,
) -> IotResult<Vec<Waiting>> {
    let (after_time, after_key) = after.unzip();
    let rows = session.execute(
        &LOCK,
        &[
            since.into(),
            reason.into(),
            after_time.map(clock::to_pg).into(),
            after_key.into(),
            (limit as i64).into(),
        ],
    )?;
    let mut waiting = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        waiting.push(Waiting {
            rejection_id: row.get(1)?,
            received_at: clock::from_pg(row.get(2)?),
            reason: row.get(3)?,
            reading: row.jsonb(4)?.unwrap_or(Jsonb::empty_object()).to_image(),
        });
        Ok(())
    })?;
    Ok(waiting)
}

statement!(MARK_REPLAYED: (UUIDARRAYOID)
    "UPDATE iot.rejected_readings r SET replayed_at = pg_catalog.clock_timestamp()
      WHERE r.rejection_id OPERATOR(pg_catalog.=) ANY ($1)");

/// These were accepted, or are stored already.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn mark_replayed(session: &mut Session<'_>, rejection_ids: Vec<Uuid>) -> IotResult<()> {
    session.execute(&MARK_REPLAYED, &[rejection_ids.into()])?;
    Ok(())
}

/// Why a kept reading was refused again.
pub struct Refusal {
    /// Key of the row.
    pub rejection_id: Uuid,
    /// What a single call would raise now.
    pub error: IotError,
    /// The reading with its texts read, where they were.
    pub reading: Option<String>,
}

statement!(
    /// A row that says the same already is not written.
    REFRESH: (UUIDARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID)
    "UPDATE iot.rejected_readings r
        SET reason = o.reason, sqlstate = o.sqlstate, message = o.message,
            reading = COALESCE(o.reading::pg_catalog.jsonb, r.reading)
       FROM ROWS FROM (
            pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),
            pg_catalog.unnest($5)) AS o (rejection_id, reason, sqlstate, message, reading)
      WHERE r.rejection_id OPERATOR(pg_catalog.=) o.rejection_id
        AND (r.reason OPERATOR(pg_catalog.<>) o.reason OR r.sqlstate OPERATOR(pg_catalog.<>) o.sqlstate
             OR r.message OPERATOR(pg_catalog.<>) o.message OR o.reading IS NOT NULL)");

/// These were refused again, perhaps for another reason.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn refresh(session: &mut Session<'_>, refused: Vec<Refusal>) -> IotResult<()> {
    let rejection_ids: Vec<Uuid> = refused.iter().map(|refusal| refusal.rejection_id).collect();
    let reasons: Vec<&str> = refused.iter().map(|refusal| refusal.error.reason()).collect();
    let sqlstates: Vec<String> = refused.iter().map(|refusal| refusal.error.sqlstate()).collect();
    let messages: Vec<String> = refused.iter().map(|refusal| refusal.error.message().to_owned()).collect();
    let readings: Vec<Option<String>> = refused.into_iter().map(|refusal| refusal.reading).collect();
    session.execute(
        &REFRESH,
        &[rejection_ids.into(), reasons.into(), sqlstates.into(), messages.into(), readings.into()],
    )?;
    Ok(())
}
