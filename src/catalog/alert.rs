//! `iot.alert_rules` and `iot.alerts`: which rules look at a sensor, and recording what they found.

use iot_core::time::Timestamp;
use pgrx::Uuid;

use crate::alert::Rule;
use crate::engine::profile::Profile;
use crate::error::IotResult;
use crate::pg::clock;
use crate::pg::jsonb::Jsonb;
use crate::pg::statement::{Row, Session};
use crate::statement;

/// The conditions of a rule's scope columns that a branch of [`COVERING`] has not seen to.
macro_rules! also_of {
    (device) => {
        " AND (r.device_id IS NULL OR r.device_id OPERATOR(pg_catalog.=) s.device_id)"
    };
    (sensor_type) => {
        " AND (r.sensor_type IS NULL OR r.sensor_type OPERATOR(pg_catalog.=) s.sensor_type)"
    };
    (device_type) => {
        " AND (r.device_type_id IS NULL OR r.device_type_id OPERATOR(pg_catalog.=) s.device_type_id)"
    };
    (group) => {
        " AND (r.group_id IS NULL OR EXISTS (
                SELECT FROM iot.device_group_members m
                 WHERE m.group_id OPERATOR(pg_catalog.=) r.group_id AND m.device_id OPERATOR(pg_catalog.=) s.device_id))"
    };
    (organization) => {
        " AND (r.organization_id IS NULL OR EXISTS (
                SELECT FROM lineage l
                 WHERE l.organization_id OPERATOR(pg_catalog.=) s.organization_id
                   AND l.ancestor_id OPERATOR(pg_catalog.=) r.organization_id))"
    };
}

statement!(
    /// Each branch finds the rules whose first scope column is a certain one, by a hash or an index, and keeps those of which
    /// the other columns that are set match as well: so no rule is found twice. A rule of an organization covers the
    /// organizations below it.
    COVERING: (UUIDARRAYOID, UUIDARRAYOID, TEXTARRAYOID, UUIDARRAYOID, UUIDARRAYOID)
    concat!(
    "WITH RECURSIVE sensor (sensor_id, device_id, sensor_type, device_type_id, organization_id) AS MATERIALIZED (
         SELECT * FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
                                  pg_catalog.unnest($4), pg_catalog.unnest($5))),
     lineage (organization_id, ancestor_id) AS (
         SELECT s.organization_id, s.organization_id FROM sensor s WHERE s.organization_id IS NOT NULL
          UNION
         SELECT l.organization_id, o.parent_organization_id
           FROM lineage l
           JOIN iot.organizations o ON o.organization_id OPERATOR(pg_catalog.=) l.ancestor_id
          WHERE o.parent_organization_id IS NOT NULL)
     SELECT s.sensor_id, r.rule_id FROM sensor s
       JOIN iot.alert_rules r ON r.sensor_id OPERATOR(pg_catalog.=) s.sensor_id
      WHERE r.is_active", also_of!(device), also_of!(sensor_type), also_of!(device_type), also_of!(group), also_of!(organization), "
      UNION ALL
     SELECT s.sensor_id, r.rule_id FROM sensor s
       JOIN iot.alert_rules r ON r.device_id OPERATOR(pg_catalog.=) s.device_id
      WHERE r.is_active AND r.sensor_id IS NULL", also_of!(sensor_type), also_of!(device_type), also_of!(group), also_of!(organization), "
      UNION ALL
     SELECT s.sensor_id, r.rule_id FROM sensor s
       JOIN iot.alert_rules r ON r.sensor_type OPERATOR(pg_catalog.=) s.sensor_type
      WHERE r.is_active AND r.sensor_id IS NULL AND r.device_id IS NULL", also_of!(device_type), also_of!(group), also_of!(organization), "
      UNION ALL
     SELECT s.sensor_id, r.rule_id FROM sensor s
       JOIN iot.alert_rules r ON r.device_type_id OPERATOR(pg_catalog.=) s.device_type_id
      WHERE r.is_active AND r.sensor_id IS NULL AND r.device_id IS NULL AND r.sensor_type IS NULL", also_of!(group), also_of!(organization), "
      UNION ALL
     SELECT s.sensor_id, r.rule_id FROM sensor s
       JOIN iot.device_group_members g ON g.device_id OPERATOR(pg_catalog.=) s.device_id
       JOIN iot.alert_rules r ON r.group_id OPERATOR(pg_catalog.=) g.group_id
      WHERE r.is_active AND r.sensor_id IS NULL AND r.device_id IS NULL AND r.sensor_type IS NULL
        AND r.device_type_id IS NULL", also_of!(organization), "
      UNION ALL
     SELECT s.sensor_id, r.rule_id FROM sensor s
       JOIN lineage a ON a.organization_id OPERATOR(pg_catalog.=) s.organization_id
       JOIN iot.alert_rules r ON r.organization_id OPERATOR(pg_catalog.=) a.ancestor_id
      WHERE r.is_active AND r.sensor_id IS NULL AND r.device_id IS NULL AND r.sensor_type IS NULL
        AND r.device_type_id IS NULL AND r.group_id IS NULL
      ORDER BY 2"));

/// Pairs of (sensor, rule): which active rules cover which of `profiles`, by rule id.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn covering<'a>(
    session: &mut Session<'_>,
    profiles: impl Iterator<Item = &'a Profile>,
) -> IotResult<Vec<(Uuid, Uuid)>> {
    let mut sensors = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for profile in profiles {
        sensors.0.push(profile.sensor_id);
        sensors.1.push(profile.device_id);
        sensors.2.push(profile.sensor_type.clone());
        sensors.3.push(profile.device_type_id);
        sensors.4.push(profile.organization_id);
    }
    let arguments =
        [sensors.0.into(), sensors.1.into(), sensors.2.into(), sensors.3.into(), sensors.4.into()];
    let rows = session.execute(&COVERING, &arguments)?;
    let mut pairs = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        pairs.push((row.get(1)?, row.get(2)?));
        Ok(())
    })?;
    Ok(pairs)
}

statement!(LOAD: (UUIDARRAYOID)
    "SELECT r.rule_id, r.rule_version, r.rule_name, r.rule_conditions, r.severity, r.alert_type, r.message_template,
            r.time_zone
       FROM iot.alert_rules r
      WHERE r.rule_id OPERATOR(pg_catalog.=) ANY ($1)");

/// A rule as stored.
pub struct StoredRule<'session> {
    /// Key of the rule.
    pub rule_id: Uuid,
    /// Version of its definition, kept with the alerts that it raises.
    pub rule_version: i32,
    /// Display name.
    pub rule_name: String,
    /// Its conditions.
    pub conditions: Option<Jsonb<'session>>,
    /// How bad a match is.
    pub severity: String,
    /// Kind of alert that it raises.
    pub alert_type: String,
    /// Template of the alert's message.
    pub message_template: String,
    /// Zone of its time windows that name none.
    pub time_zone: Option<String>,
}

/// Calls `visit` for each of the rules `rule_ids`.
///
/// # Errors
/// The first error of `visit`.
pub fn load(
    session: &mut Session<'_>,
    rule_ids: Vec<Uuid>,
    mut visit: impl FnMut(StoredRule<'_>) -> IotResult<()>,
) -> IotResult<()> {
    session.execute(&LOAD, &[rule_ids.into()])?.for_each(|row| visit(stored(row)?))
}

fn stored<'session>(row: &Row<'session>) -> IotResult<StoredRule<'session>> {
    Ok(StoredRule {
        rule_id: row.get(1)?,
        rule_version: row.get(2)?,
        rule_name: row.get(3)?,
        conditions: row.jsonb(4)?,
        severity: row.get(5)?,
        alert_type: row.get(6)?,
        message_template: row.get(7)?,
        time_zone: row.optional(8)?,
    })
}

/// Matches of one rule by readings of one sensor in one call.
pub struct Occurrence<'a> {
    /// The rule that matched.
    pub rule: &'a Rule,
    /// Text for people, about the first match.
    pub message: &'a str,
    /// The bound that the first value crossed, if the rule has one.
    pub threshold: Option<f64>,
    /// Value of the first match.
    pub value: f64,
    /// Time of the first match: the reading's, or that of the check.
    pub at: Timestamp,
    /// The first stored reading, if there is one.
    pub data_id: Option<Uuid>,
    /// Metadata of the first match.
    pub metadata: Jsonb<'a>,
    /// How many matches.
    pub count: i64,
    /// Value of the last match.
    pub last_value: f64,
    /// Latest time of any match.
    pub last_at: Timestamp,
}

statement!(
    /// The unique index over open alerts decides between sessions whether this is a new alert or one more occurrence.
    RECORD: (
        UUIDOID, INT4OID, UUIDOID, UUIDOID, UUIDOID, TEXTOID, TEXTOID, TEXTOID, FLOAT8OID, FLOAT8OID, TIMESTAMPTZOID,
        UUIDOID, JSONBOID, INT8OID, FLOAT8OID, TIMESTAMPTZOID,
    )
    "INSERT INTO iot.alerts AS a (
         rule_id, rule_version, sensor_id, device_id, organization_id, alert_type, severity, message, threshold_value,
         actual_value, measurement_timestamp, data_id, alert_metadata, occurrences, last_value, last_occurred_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
     ON CONFLICT (rule_id, sensor_id) WHERE alert_status OPERATOR(pg_catalog.<>) 'resolved'
     DO UPDATE SET occurrences = a.occurrences OPERATOR(pg_catalog.+) EXCLUDED.occurrences,
                   last_value = EXCLUDED.last_value,
                   last_occurred_at = GREATEST(a.last_occurred_at, EXCLUDED.last_occurred_at)
     RETURNING a.alert_id");

/// Opens an alert for (rule, sensor), or counts the occurrences on the one that is open.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn record(
    session: &mut Session<'_>,
    sensor: &Profile,
    occurrence: &Occurrence<'_>,
) -> IotResult<Option<Uuid>> {
    let rule = occurrence.rule;
    let rows = session.execute(
        &RECORD,
        &[
            rule.rule_id.into(),
            rule.rule_version.into(),
            sensor.sensor_id.into(),
            sensor.device_id.into(),
            sensor.organization_id.into(),
            rule.alert_type.as_str().into(),
            rule.severity.as_str().into(),
            occurrence.message.into(),
            occurrence.threshold.into(),
            occurrence.value.into(),
            clock::to_pg(occurrence.at).into(),
            occurrence.data_id.into(),
            occurrence.metadata.into(),
            occurrence.count.into(),
            occurrence.last_value.into(),
            clock::to_pg(occurrence.last_at).into(),
        ],
    )?;
    match rows.first() {
        Some(row) => row.optional(1),
        None => Ok(None),
    }
}
