//! `iot.sensor_data`: the stored window of sensors, stored readings by key, and storing through the executor.

use std::collections::HashMap;
use std::thread::LocalKey;

use iot_core::detect::SubBucket;
use iot_core::ingest::{Observation, QualityFlags, QualityLimits};
use iot_core::sensor_state::{SensorState, Stored};
use iot_core::time::Timestamp;
use pgrx::Uuid;

use crate::engine::directory::KeyMap;
use crate::engine::memory::Replayed;
use crate::error::IotResult;
use crate::pg::clock;
use crate::pg::statement::{Rows, Session, Statement};
use crate::statement;

/// Values whose squares leave double precision stay outside of statistics: one absurd reading must not keep the sensor
/// from storing the next ones.
pub const LARGEST_COUNTED: f64 = 1e150;

statement!(
    /// Per sensor its newest accepted reading (a backward scan of the primary key), and from there the window by half
    /// hours: partitions before it are pruned as the scan starts.
    WINDOWS: by_index (UUIDARRAYOID, INT4OID)
    "SELECT s.sensor_id, n.measurement_timestamp, n.measurement_value, n.received_at,
            w.bucket, w.readings, w.mean, w.deviations, w.minimum, w.maximum
       FROM pg_catalog.unnest($1) AS s (sensor_id)
      CROSS JOIN LATERAL (
            SELECT r.measurement_timestamp, r.measurement_value, r.received_at
              FROM iot.sensor_data r
             WHERE r.sensor_id OPERATOR(pg_catalog.=) s.sensor_id
               AND (r.quality_flags OPERATOR(pg_catalog.&) $2) OPERATOR(pg_catalog.=) 0
             ORDER BY r.measurement_timestamp DESC LIMIT 1) AS n
       LEFT JOIN LATERAL (
            SELECT pg_catalog.date_bin('30 minutes', r.measurement_timestamp, '2000-01-01 00:00+00') AS bucket,
                   pg_catalog.count(*) AS readings,
                   pg_catalog.avg(r.measurement_value) AS mean,
                   pg_catalog.regr_sxx(r.measurement_value, r.measurement_value) AS deviations,
                   pg_catalog.min(r.measurement_value) AS minimum,
                   pg_catalog.max(r.measurement_value) AS maximum
              FROM iot.sensor_data r
             WHERE r.sensor_id OPERATOR(pg_catalog.=) s.sensor_id
               AND r.measurement_timestamp OPERATOR(pg_catalog.>=) (
                   pg_catalog.date_bin('30 minutes', n.measurement_timestamp, '2000-01-01 00:00+00')
                   OPERATOR(pg_catalog.-) '24 hours'::pg_catalog.interval)
               AND (r.quality_flags OPERATOR(pg_catalog.&) $2) OPERATOR(pg_catalog.=) 0
               AND r.measurement_value OPERATOR(pg_catalog.>=) -1e150::pg_catalog.float8
               AND r.measurement_value OPERATOR(pg_catalog.<=) 1e150::pg_catalog.float8
             GROUP BY 1) AS w ON true");

/// The states of `sensor_ids` after what is stored of them; sensors without readings are left out.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn windows(session: &mut Session<'_>, sensor_ids: Vec<Uuid>) -> IotResult<KeyMap<SensorState>> {
    let mut states: KeyMap<SensorState> = KeyMap::default();
    session.execute(&WINDOWS, &[sensor_ids.into(), QualityFlags::FUTURE.0.into()])?.for_each(|row| {
        let sensor_id: Uuid = row.get(1)?;
        let newest = clock::from_pg(row.get(2)?);
        let received_at = clock::from_pg(row.get(4)?);
        let latest_value: Option<f64> = row.optional(3)?;
        let state = states.entry(*sensor_id.as_bytes()).or_insert_with(|| {
            let mut state = SensorState::default();
            let value = latest_value.unwrap_or(f64::NAN);
            let observation = Observation { received_at, ..Observation::new(value, newest) };
            state.observe(&Stored { observation, counted: false }, &QualityLimits::default());
            state
        });
        let Some(bucket) = row.optional(5)? else { return Ok(()) };
        let (minimum, maximum): (f64, f64) = (row.get(9)?, row.get(10)?);
        // Summing equal numbers leaves rounding noise; the extremes tell that they are equal.
        let constant = minimum == maximum;
        state.window.add_bucket(
            clock::from_pg(bucket),
            SubBucket {
                count: u32::try_from(row.get::<i64>(6)?).unwrap_or(u32::MAX),
                mean: if constant { minimum } else { row.get(7)? },
                m2: if constant { 0.0 } else { row.get(8)? },
            },
        );
        Ok(())
    })?;
    Ok(states)
}

statement!(
    /// In order of arrival for each sensor, as keys increase with it: a late reading is to be seen as one again. Partitions
    /// before are pruned as the scan starts.
    SINCE: by_index (UUIDARRAYOID, TIMESTAMPTZARRAYOID, INT4OID)
    "SELECT o.sensor_id, r.measurement_timestamp, r.measurement_value, r.received_at, r.is_anomaly, r.quality_flags
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS o (sensor_id, after)
      CROSS JOIN LATERAL (
            SELECT * FROM iot.sensor_data c
             WHERE c.sensor_id OPERATOR(pg_catalog.=) o.sensor_id
               AND c.measurement_timestamp OPERATOR(pg_catalog.>) o.after
               AND (c.quality_flags OPERATOR(pg_catalog.&) $3) OPERATOR(pg_catalog.=) 0
             ORDER BY c.data_id) AS r");

/// A sensor, and the time after which its readings are wanted.
pub struct Since {
    /// The sensor.
    pub sensor_id: Uuid,
    /// The time, exclusive.
    pub after: Timestamp,
}

/// Calls `visit` for each accepted reading of each sensor after its time, in order of arrival.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn visit_since(
    session: &mut Session<'_>,
    since: &[Since],
    mut visit: impl FnMut(Uuid, &Replayed),
) -> IotResult<()> {
    if since.is_empty() {
        return Ok(());
    }
    let sensor_ids: Vec<Uuid> = since.iter().map(|since| since.sensor_id).collect();
    let times: Vec<_> = since.iter().map(|since| clock::to_pg(since.after)).collect();
    let arguments = [sensor_ids.into(), times.into(), QualityFlags::FUTURE.0.into()];
    session.execute(&SINCE, &arguments)?.for_each(|row| {
        let value: Option<f64> = row.optional(3)?;
        let flags = QualityFlags(row.get(6)?);
        let observation = Observation {
            received_at: clock::from_pg(row.get(4)?),
            outside_calibration: flags.contains(QualityFlags::OUTSIDE_CALIBRATION),
            ..Observation::new(value.unwrap_or(f64::NAN), clock::from_pg(row.get(2)?))
        };
        visit(row.get(1)?, &Replayed { observation, is_anomaly: row.get(5)? });
        Ok(())
    })
}

statement!(
    /// The newest ones of each sensor, in order of arrival.
    TAILS: by_index (UUIDARRAYOID, INT8OID, INT4OID)
    "SELECT o.sensor_id, l.measurement_timestamp, l.measurement_value, l.received_at, l.is_anomaly, l.is_onset
       FROM pg_catalog.unnest($1) AS o (sensor_id)
      CROSS JOIN LATERAL (
            SELECT t.* FROM (
                SELECT r.measurement_timestamp, r.measurement_value, r.received_at, r.is_anomaly, r.is_onset, r.data_id
                  FROM iot.sensor_data r
                 WHERE r.sensor_id OPERATOR(pg_catalog.=) o.sensor_id
                   AND (r.quality_flags OPERATOR(pg_catalog.&) $3) OPERATOR(pg_catalog.=) 0
                 ORDER BY r.measurement_timestamp DESC LIMIT $2) AS t
             ORDER BY t.data_id) AS l");

/// Calls `visit` for the last `count` accepted readings of each sensor, in order of arrival: sensor, reading, and whether an
/// episode began with it.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn visit_tails(
    session: &mut Session<'_>,
    sensor_ids: Vec<Uuid>,
    count: i64,
    mut visit: impl FnMut(Uuid, &Replayed, bool),
) -> IotResult<()> {
    let arguments = [sensor_ids.into(), count.into(), QualityFlags::FUTURE.0.into()];
    session.execute(&TAILS, &arguments)?.for_each(|row| {
        let value: Option<f64> = row.optional(3)?;
        let observation = Observation {
            received_at: clock::from_pg(row.get(4)?),
            ..Observation::new(value.unwrap_or(f64::NAN), clock::from_pg(row.get(2)?))
        };
        visit(row.get(1)?, &Replayed { observation, is_anomaly: row.get(5)? }, row.get(6)?);
        Ok(())
    })
}

statement!(
    /// The newest ones of each sensor, in order of arrival. Whoever wrote rows by hand may have made keys of his own, so the
    /// clock comes first.
    LAST: by_index (UUIDARRAYOID, INT8OID, INT4OID)
    "SELECT o.sensor_id, l.measurement_timestamp, l.measurement_value
       FROM pg_catalog.unnest($1) AS o (sensor_id)
      CROSS JOIN LATERAL (
            SELECT t.* FROM (
                SELECT r.measurement_timestamp, r.measurement_value, r.received_at, r.data_id
                  FROM iot.sensor_data r
                 WHERE r.sensor_id OPERATOR(pg_catalog.=) o.sensor_id
                   AND (r.quality_flags OPERATOR(pg_catalog.&) $3) OPERATOR(pg_catalog.=) 0
                   AND r.measurement_value IS NOT NULL
                 ORDER BY r.measurement_timestamp DESC LIMIT $2) AS t
             ORDER BY t.received_at, t.data_id) AS l");

/// The last `count` numeric readings of each sensor, in order of arrival, are given to `visit`.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn visit_last(
    session: &mut Session<'_>,
    sensor_ids: &[Uuid],
    count: i64,
    mut visit: impl FnMut(Uuid, Timestamp, f64),
) -> IotResult<()> {
    let arguments = [sensor_ids.to_vec().into(), count.into(), QualityFlags::FUTURE.0.into()];
    session.execute(&LAST, &arguments)?.for_each(|row| {
        visit(row.get(1)?, clock::from_pg(row.get(2)?), row.get(3)?);
        Ok(())
    })
}

statement!(
    /// One index probe each.
    FIND: by_index (UUIDARRAYOID, TIMESTAMPTZARRAYOID)
    "SELECT o.number, f.data_id
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) WITH ORDINALITY AS o (sensor_id, at, number)
      CROSS JOIN LATERAL (
            SELECT r.data_id FROM iot.sensor_data r
             WHERE r.sensor_id OPERATOR(pg_catalog.=) o.sensor_id
               AND r.measurement_timestamp OPERATOR(pg_catalog.=) o.at
             LIMIT 1) AS f");

/// Which of the given (sensor, time) are stored already, by number from 0, with their keys; only those that the caller
/// may see.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn find(session: &mut Session<'_>, wanted: &[(Uuid, Timestamp)]) -> IotResult<Vec<(usize, Uuid)>> {
    let sensor_ids: Vec<Uuid> = wanted.iter().map(|&(sensor_id, _)| sensor_id).collect();
    let times: Vec<_> = wanted.iter().map(|&(_, at)| clock::to_pg(at)).collect();
    let rows = session.execute(&FIND, &[sensor_ids.into(), times.into()])?;
    let mut found = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        found.push((usize::try_from(row.get::<i64>(1)?).unwrap_or(1) - 1, row.get(2)?));
        Ok(())
    })?;
    Ok(found)
}

statement!(
    /// Only those that nobody else has locked.
    LOCK_IF_FREE: by_index (UUIDARRAYOID, TIMESTAMPTZARRAYOID)
    "SELECT pg_catalog.count(*)
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS o (sensor_id, at)
      CROSS JOIN LATERAL (
            SELECT r.data_id FROM iot.sensor_data r
             WHERE r.sensor_id OPERATOR(pg_catalog.=) o.sensor_id
               AND r.measurement_timestamp OPERATOR(pg_catalog.=) o.at
             LIMIT 1
               FOR NO KEY UPDATE SKIP LOCKED) AS f");

/// Locks stored readings without waiting for anybody; how many could be.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn lock_if_free(session: &mut Session<'_>, wanted: &[SensorAndTime]) -> IotResult<usize> {
    let sensor_ids: Vec<Uuid> = wanted.iter().map(|&(sensor_id, _)| Uuid::from_bytes(sensor_id)).collect();
    let times: Vec<_> = wanted.iter().map(|&(_, at)| clock::to_pg(at)).collect();
    let rows = session.execute(&LOCK_IF_FREE, &[sensor_ids.into(), times.into()])?;
    let locked: i64 = rows.first().map_or(Ok(0), |row| row.get(1))?;
    Ok(usize::try_from(locked).unwrap_or(0))
}

/// Readings as columns, for storing them through the executor: where row security, triggers of the user or partitions of
/// another kind have a say.
#[derive(Default)]
pub struct Columns {
    /// `data_id`.
    pub data_id: Vec<Uuid>,
    /// `sensor_id`.
    pub sensor_id: Vec<Uuid>,
    /// `device_id`.
    pub device_id: Vec<Uuid>,
    /// `organization_id`.
    pub organization_id: Vec<Option<Uuid>>,
    /// `sensor_type`.
    pub sensor_type: Vec<String>,
    /// `measurement_timestamp`.
    pub measured_at: Vec<pgrx::datum::TimestampWithTimeZone>,
    /// `received_at`.
    pub received_at: Vec<pgrx::datum::TimestampWithTimeZone>,
    /// `measurement_value`.
    pub value: Vec<Option<f64>>,
    /// `raw_value`, where calibration changed it.
    pub raw_value: Vec<Option<f64>>,
    /// `measurement_unit`.
    pub unit: Vec<String>,
    /// `data_quality`.
    pub data_quality: Vec<&'static str>,
    /// `quality_flags`.
    pub quality_flags: Vec<i32>,
    /// `is_anomaly`.
    pub is_anomaly: Vec<bool>,
    /// `is_onset`.
    pub is_onset: Vec<bool>,
    /// `anomaly_score`.
    pub anomaly_score: Vec<f64>,
    /// `measurement_metadata`, as text.
    pub metadata: Vec<String>,
    /// `text_value`.
    pub text_value: Vec<Option<String>>,
    /// `boolean_value`.
    pub boolean_value: Vec<Option<bool>>,
    /// `json_value`, as text.
    pub json_value: Vec<Option<String>>,
}

macro_rules! insert_statement {
    ($(#[$documentation:meta])* $name:ident, $ending:literal) => {
        statement!(
            $(#[$documentation])*
            $name: (
                UUIDARRAYOID, UUIDARRAYOID, UUIDARRAYOID, UUIDARRAYOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID,
                TIMESTAMPTZARRAYOID, FLOAT8ARRAYOID, FLOAT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, INT4ARRAYOID, BOOLARRAYOID,
                BOOLARRAYOID, FLOAT8ARRAYOID, TEXTARRAYOID, TEXTARRAYOID, BOOLARRAYOID, TEXTARRAYOID,
            )
            concat!(
    "INSERT INTO iot.sensor_data (
         data_id, sensor_id, device_id, organization_id, sensor_type, measurement_timestamp, received_at,
         measurement_value, raw_value, measurement_unit, data_quality, quality_flags, is_anomaly, is_onset,
         anomaly_score, measurement_metadata, text_value, boolean_value, json_value)
     SELECT o.data_id, o.sensor_id, o.device_id, o.organization_id, o.sensor_type, o.measured_at, o.received_at,
            o.value, o.raw_value, o.unit, o.data_quality, o.quality_flags, o.is_anomaly, o.is_onset,
            o.score, o.metadata::pg_catalog.jsonb, o.text_value, o.boolean_value,
            o.json_value::pg_catalog.jsonb
       FROM ROWS FROM (
            pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),
            pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8),
            pg_catalog.unnest($9), pg_catalog.unnest($10), pg_catalog.unnest($11), pg_catalog.unnest($12),
            pg_catalog.unnest($13), pg_catalog.unnest($14), pg_catalog.unnest($15), pg_catalog.unnest($16),
            pg_catalog.unnest($17), pg_catalog.unnest($18), pg_catalog.unnest($19))
         AS o (data_id, sensor_id, device_id, organization_id, sensor_type, measured_at, received_at, value, raw_value,
               unit, data_quality, quality_flags, is_anomaly, is_onset, score, metadata, text_value, boolean_value,
               json_value)
     ",
                $ending
            ));
    };
}

insert_statement!(
    /// The primary key is the arbiter between sessions that offer the same reading.
    INSERT_NEW,
    "ON CONFLICT (sensor_id, measurement_timestamp) DO NOTHING RETURNING data_id");
insert_statement!(
    /// Without a primary key there is nothing to arbitrate.
    INSERT_ALL,
    "RETURNING data_id");
insert_statement!(
    /// The row stays where it is and keeps its key, which alerts refer to.
    REPLACE,
    "ON CONFLICT (sensor_id, measurement_timestamp) DO UPDATE
        SET device_id = EXCLUDED.device_id, organization_id = EXCLUDED.organization_id,
            sensor_type = EXCLUDED.sensor_type, received_at = EXCLUDED.received_at,
            measurement_value = EXCLUDED.measurement_value, raw_value = EXCLUDED.raw_value,
            measurement_unit = EXCLUDED.measurement_unit, data_quality = EXCLUDED.data_quality,
            quality_flags = EXCLUDED.quality_flags, is_anomaly = EXCLUDED.is_anomaly, is_onset = EXCLUDED.is_onset,
            anomaly_score = EXCLUDED.anomaly_score, measurement_metadata = EXCLUDED.measurement_metadata,
            text_value = EXCLUDED.text_value, boolean_value = EXCLUDED.boolean_value, json_value = EXCLUDED.json_value
     RETURNING data_id, sensor_id, measurement_timestamp");

impl Columns {
    fn execute<'connection>(
        self,
        session: &mut Session<'connection>,
        statement: &'static LocalKey<Statement>,
    ) -> IotResult<Rows<'connection>> {
        session.execute(
            statement,
            &[
                self.data_id.into(),
                self.sensor_id.into(),
                self.device_id.into(),
                self.organization_id.into(),
                self.sensor_type.into(),
                self.measured_at.into(),
                self.received_at.into(),
                self.value.into(),
                self.raw_value.into(),
                self.unit.into(),
                self.data_quality.into(),
                self.quality_flags.into(),
                self.is_anomaly.into(),
                self.is_onset.into(),
                self.anomaly_score.into(),
                self.metadata.into(),
                self.text_value.into(),
                self.boolean_value.into(),
                self.json_value.into(),
            ],
        )
    }
}

/// Stores readings; the keys of those that were. Those whose sensor and time are taken are not, unless several `may_share`
/// a time: then there must be no primary key.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn insert(session: &mut Session<'_>, columns: Columns, may_share: bool) -> IotResult<Vec<Uuid>> {
    let rows = columns.execute(session, if may_share { &INSERT_ALL } else { &INSERT_NEW })?;
    let mut stored = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        stored.push(row.get(1)?);
        Ok(())
    })?;
    Ok(stored)
}

/// What a primary key keeps unique.
pub type SensorAndTime = ([u8; 16], Timestamp);

/// Stores readings, each of another sensor or time, in place of those that are there; the keys under which they now stand,
/// by sensor and time. A key other than the one given is that of the reading that gave way.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn replace(session: &mut Session<'_>, columns: Columns) -> IotResult<HashMap<SensorAndTime, [u8; 16]>> {
    let rows = columns.execute(session, &REPLACE)?;
    let mut stored = HashMap::with_capacity(rows.count());
    rows.for_each(|row| {
        let (data_id, sensor_id): (Uuid, Uuid) = (row.get(1)?, row.get(2)?);
        stored.insert((*sensor_id.as_bytes(), clock::from_pg(row.get(3)?)), *data_id.as_bytes());
        Ok(())
    })?;
    Ok(stored)
}

statement!(
    /// A backward scan of the primary key each.
    LATEST: by_index (UUIDARRAYOID, INT4OID)
    "SELECT s.sensor_id, n.measurement_timestamp, n.measurement_value
       FROM pg_catalog.unnest($1) AS s (sensor_id)
      CROSS JOIN LATERAL (
            SELECT r.measurement_timestamp, r.measurement_value
              FROM iot.sensor_data r
             WHERE r.sensor_id OPERATOR(pg_catalog.=) s.sensor_id
               AND (r.quality_flags OPERATOR(pg_catalog.&) $2) OPERATOR(pg_catalog.=) 0
               AND r.measurement_value IS NOT NULL
             ORDER BY r.measurement_timestamp DESC LIMIT 1) AS n");

/// Time and value of the newest number of each of `sensor_ids`, those flagged as from the future aside.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn latest(session: &mut Session<'_>, sensor_ids: Vec<Uuid>) -> IotResult<KeyMap<(Timestamp, f64)>> {
    let mut latest = KeyMap::default();
    session.execute(&LATEST, &[sensor_ids.into(), QualityFlags::FUTURE.0.into()])?.for_each(|row| {
        latest.insert(*row.get::<Uuid>(1)?.as_bytes(), (clock::from_pg(row.get(2)?), row.get(3)?));
        Ok(())
    })?;
    Ok(latest)
}
