//! `iot.alert_rules` and `iot.alerts`: which rules look at a sensor, and recording what they found.

use pgrx::Uuid;

use super::sensor::Sensor;
use crate::error::IotResult;
use crate::pg::clock;
use crate::pg::jsonb::Jsonb;
use crate::pg::statement::Session;
use crate::statement;
use iot_core::time::Timestamp;

/// A rule whose scope covers the sensor.
pub struct AlertRule<'session> {
    /// Key of the rule.
    pub rule_id: Uuid,
    /// Version of its definition, kept with the alerts that it raises.
    pub rule_version: i32,
    /// Display name.
    pub rule_name: String,
    /// Its conditions as stored.
    pub conditions: Jsonb<'session>,
    /// How bad a match is.
    pub severity: String,
    /// Kind of alert that it raises.
    pub alert_type: String,
    /// Template of the alert's message.
    pub message_template: String,
    /// Zone of its time windows that name none.
    pub time_zone: Option<String>,
}

statement!(
    /// The OR finds candidates through the partial index of each scope column; the ANDs keep those of which every
    /// set column matches. A rule of an organization covers the organizations below it.
    ACTIVE_FOR_SENSOR: (UUIDOID, UUIDOID, TEXTOID, UUIDOID, UUIDOID)
    "WITH RECURSIVE lineage (organization_id, parent_organization_id) AS (
         SELECT o.organization_id, o.parent_organization_id FROM iot.organizations o
          WHERE o.organization_id OPERATOR(pg_catalog.=) $5
          UNION
         SELECT o.organization_id, o.parent_organization_id
           FROM lineage l
           JOIN iot.organizations o ON o.organization_id OPERATOR(pg_catalog.=) l.parent_organization_id),
     scope (group_ids, organization_ids) AS MATERIALIZED (
         SELECT ARRAY(SELECT m.group_id FROM iot.device_group_members m
                       WHERE m.device_id OPERATOR(pg_catalog.=) $2),
                ARRAY(SELECT l.organization_id FROM lineage l))
     SELECT r.rule_id, r.rule_version, r.rule_name, r.rule_conditions, r.severity, r.alert_type, r.message_template,
            r.time_zone
       FROM iot.alert_rules r
      WHERE r.is_active
        AND (r.sensor_id OPERATOR(pg_catalog.=) $1
             OR r.device_id OPERATOR(pg_catalog.=) $2
             OR r.sensor_type OPERATOR(pg_catalog.=) $3
             OR r.device_type_id OPERATOR(pg_catalog.=) $4
             OR r.group_id OPERATOR(pg_catalog.=) ANY ((SELECT s.group_ids FROM scope s)::pg_catalog.uuid[])
             OR r.organization_id OPERATOR(pg_catalog.=)
                ANY ((SELECT s.organization_ids FROM scope s)::pg_catalog.uuid[]))
        AND (r.sensor_id IS NULL OR r.sensor_id OPERATOR(pg_catalog.=) $1)
        AND (r.device_id IS NULL OR r.device_id OPERATOR(pg_catalog.=) $2)
        AND (r.sensor_type IS NULL OR r.sensor_type OPERATOR(pg_catalog.=) $3)
        AND (r.device_type_id IS NULL OR r.device_type_id OPERATOR(pg_catalog.=) $4)
        AND (r.group_id IS NULL
             OR r.group_id OPERATOR(pg_catalog.=) ANY ((SELECT s.group_ids FROM scope s)::pg_catalog.uuid[]))
        AND (r.organization_id IS NULL
             OR r.organization_id OPERATOR(pg_catalog.=)
                ANY ((SELECT s.organization_ids FROM scope s)::pg_catalog.uuid[]))
      ORDER BY r.rule_id");

/// The active rules whose scope covers `sensor`, by rule id.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn active_rules<'session>(
    session: &mut Session<'session>,
    sensor: &Sensor<'_>,
) -> IotResult<Vec<AlertRule<'session>>> {
    let rows = session.execute(
        &ACTIVE_FOR_SENSOR,
        &[
            sensor.sensor_id.into(),
            sensor.device_id.into(),
            sensor.sensor_type.as_str().into(),
            sensor.device_type_id.into(),
            sensor.organization_id.into(),
        ],
    )?;
    let mut rules = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        if let Some(conditions) = row.jsonb(4)? {
            rules.push(AlertRule {
                rule_id: row.get(1)?,
                rule_version: row.get(2)?,
                rule_name: row.get(3)?,
                conditions,
                severity: row.get(5)?,
                alert_type: row.get(6)?,
                message_template: row.get(7)?,
                time_zone: row.optional(8)?,
            });
        }
        Ok(())
    })?;
    Ok(rules)
}

/// One match of a rule.
pub struct Occurrence<'a> {
    /// The rule that matched.
    pub rule: &'a AlertRule<'a>,
    /// Text for people.
    pub message: &'a str,
    /// The bound that the value crossed, if the rule has one.
    pub threshold: Option<f64>,
    /// The value.
    pub value: f64,
    /// The reading's time, or the time of the check.
    pub at: Timestamp,
    /// The stored reading, if there is one.
    pub data_id: Option<Uuid>,
    /// The reading's metadata.
    pub metadata: Jsonb<'a>,
}

statement!(
    /// The unique index over open alerts decides between sessions whether this is a new alert or one more occurrence.
    RECORD: (
        UUIDOID, INT4OID, UUIDOID, UUIDOID, UUIDOID, TEXTOID, TEXTOID, TEXTOID, FLOAT8OID, FLOAT8OID, TIMESTAMPTZOID,
        UUIDOID, JSONBOID,
    )
    "INSERT INTO iot.alerts AS a (
         rule_id, rule_version, sensor_id, device_id, organization_id, alert_type, severity, message, threshold_value,
         actual_value, last_value, measurement_timestamp, last_occurred_at, data_id, alert_metadata)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11, $11, $12, $13)
     ON CONFLICT (rule_id, sensor_id) WHERE alert_status OPERATOR(pg_catalog.<>) 'resolved'
     DO UPDATE SET occurrences = a.occurrences OPERATOR(pg_catalog.+) 1,
                   last_value = EXCLUDED.last_value,
                   last_occurred_at = GREATEST(a.last_occurred_at, EXCLUDED.last_occurred_at)
     RETURNING a.alert_id");

/// Opens an alert for (rule, sensor), or counts one more occurrence on the one that is open.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn record(
    session: &mut Session<'_>,
    sensor: &Sensor<'_>,
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
        ],
    )?;
    match rows.first() {
        Some(row) => row.optional(1),
        None => Ok(None),
    }
}
