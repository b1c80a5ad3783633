//! `iot.sensor_data` as processing rules read it again: the numbers of sensors in the order of their times.

use iot_core::ingest::QualityFlags;
use iot_core::time::Timestamp;
use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;

use crate::error::IotResult;
use crate::pg::clock;
use crate::pg::statement::Session;
use crate::statement;

/// A stored number.
#[derive(Clone, Copy, Debug)]
pub struct SeriesReading {
    /// When it was measured.
    pub at: Timestamp,
    /// Key of the row; keys increase with arrival.
    pub data_id: [u8; 16],
    /// Value as the device sent it, in the sensor's unit.
    pub raw: f64,
    /// The calibrated value.
    pub value: f64,
}

/// Which rows rules are run for: numbers, those flagged as from the future aside. Comparisons leave out NULL and NaN.
macro_rules! counts {
    ($flags:literal) => {
        concat!(
            "(r.quality_flags OPERATOR(pg_catalog.&) ",
            $flags,
            ") OPERATOR(pg_catalog.=) 0
               AND r.measurement_value OPERATOR(pg_catalog.>) '-Infinity'::pg_catalog.float8
               AND r.measurement_value OPERATOR(pg_catalog.<) 'Infinity'::pg_catalog.float8"
        )
    };
}

statement!(
    /// The newest ones of each sensor by backward scans of the primary key, and of these the newest.
    EARLIER: (UUIDARRAYOID, TIMESTAMPTZOID, INT8OID, INT4OID)
    concat!(
        "SELECT pg_catalog.min(l.measurement_timestamp)
           FROM (
                SELECT t.measurement_timestamp
                  FROM pg_catalog.unnest($1) AS s (sensor_id)
                 CROSS JOIN LATERAL (
                       SELECT r.measurement_timestamp FROM iot.sensor_data r
                        WHERE r.sensor_id OPERATOR(pg_catalog.=) s.sensor_id
                          AND r.measurement_timestamp OPERATOR(pg_catalog.<) $2
                          AND ", counts!("$4"), "
                        ORDER BY r.measurement_timestamp DESC LIMIT $3) AS t
                 ORDER BY t.measurement_timestamp DESC LIMIT $3) AS l"));

/// The time of the `number`-th last reading of `sensor_ids` before a time, all of them together; of the first one where
/// there are fewer.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn earlier(
    session: &mut Session<'_>,
    sensor_ids: Vec<Uuid>,
    before: Timestamp,
    number: usize,
) -> IotResult<Option<Timestamp>> {
    let arguments = [
        sensor_ids.into(),
        clock::to_pg(before).into(),
        i64::try_from(number).unwrap_or(i64::MAX).into(),
        QualityFlags::FUTURE.0.into(),
    ];
    let found: Option<TimestampWithTimeZone> = match session.execute(&EARLIER, &arguments)?.first() {
        Some(row) => row.optional(1)?,
        None => None,
    };
    Ok(found.map(clock::from_pg))
}

statement!(
    /// Those that share a time are not torn apart. Partitions before are pruned as the scans start.
    NEXT: (UUIDARRAYOID, TIMESTAMPTZARRAYOID, INT8OID, INT4OID)
    concat!(
        "SELECT o.sensor_id, t.measurement_timestamp, t.data_id, t.measurement_value, t.raw_value
           FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS o (sensor_id, since)
          CROSS JOIN LATERAL (
                SELECT r.measurement_timestamp, r.data_id, r.measurement_value, r.raw_value
                  FROM iot.sensor_data r
                 WHERE r.sensor_id OPERATOR(pg_catalog.=) o.sensor_id
                   AND r.measurement_timestamp OPERATOR(pg_catalog.>=) o.since
                   AND ", counts!("$4"), "
                 ORDER BY r.measurement_timestamp FETCH FIRST ($3) ROWS WITH TIES) AS t"));

/// For each sensor, with its key, the first `limit` readings since a time, and all others of the last one's time.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn next(
    session: &mut Session<'_>,
    since: &[([u8; 16], Timestamp)],
    limit: usize,
) -> IotResult<Vec<([u8; 16], SeriesReading)>> {
    let sensor_ids: Vec<Uuid> = since.iter().map(|(sensor_id, _)| Uuid::from_bytes(*sensor_id)).collect();
    let times: Vec<_> = since.iter().map(|(_, at)| clock::to_pg(*at)).collect();
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let arguments = [sensor_ids.into(), times.into(), limit.into(), QualityFlags::FUTURE.0.into()];
    let rows = session.execute(&NEXT, &arguments)?;
    let mut readings = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        let value: f64 = row.get(4)?;
        let sensor_id: Uuid = row.get(1)?;
        let reading = SeriesReading {
            at: clock::from_pg(row.get(2)?),
            data_id: *row.get::<Uuid>(3)?.as_bytes(),
            raw: row.optional(5)?.unwrap_or(value),
            value,
        };
        readings.push((*sensor_id.as_bytes(), reading));
        Ok(())
    })?;
    Ok(readings)
}
