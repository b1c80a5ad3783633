//! `iot.data_processing_rules`: which active rules apply to which sensors of a device.

use pgrx::Uuid;

use crate::error::IotResult;
use crate::pg::jsonb::Jsonb;
use crate::pg::statement::Session;
use crate::statement;

statement!(ANY_ACTIVE: ()
    "SELECT EXISTS (SELECT FROM iot.data_processing_rules r WHERE r.is_active)");

/// Whether there is any active rule.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn any_active(session: &mut Session<'_>) -> IotResult<bool> {
    session.execute(&ANY_ACTIVE, &[])?.first().map_or(Ok(false), |row| row.get(1))
}

/// A sensor whose readings are numbers.
pub struct NumericSensor {
    /// The device that carries it.
    pub device_id: Uuid,
    /// Its key.
    pub sensor_id: Uuid,
    /// Its name, unique on the device.
    pub sensor_name: String,
    /// What it measures.
    pub sensor_type: String,
}

statement!(
    /// A sensor that was replaced keeps its row; it must not make the type of its successor ambiguous.
    SENSORS: (UUIDARRAYOID)
    "SELECT s.device_id, s.sensor_id, s.sensor_name, s.sensor_type
       FROM iot.sensors s
      WHERE s.device_id OPERATOR(pg_catalog.=) ANY ($1)
        AND s.value_type OPERATOR(pg_catalog.=) 'numeric'
        AND s.sensor_status OPERATOR(pg_catalog.<>) 'decommissioned'
      ORDER BY s.device_id, s.sensor_id");

/// The sensors of `device_ids` that rules can be about, by device and key.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn sensors(session: &mut Session<'_>, device_ids: Vec<Uuid>) -> IotResult<Vec<NumericSensor>> {
    let rows = session.execute(&SENSORS, &[device_ids.into()])?;
    let mut sensors = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        sensors.push(NumericSensor {
            device_id: row.get(1)?,
            sensor_id: row.get(2)?,
            sensor_name: row.get(3)?,
            sensor_type: row.get(4)?,
        });
        Ok(())
    })?;
    Ok(sensors)
}

statement!(
    /// Each branch finds the rules whose first scope is of one kind, by an index or a hash; the conditions at the end
    /// keep those of which every other scope matches too. A rule of an organization covers the organizations below it.
    COVERING: (UUIDARRAYOID)
    "WITH RECURSIVE sensor AS MATERIALIZED (
         SELECT s.device_id, s.sensor_id, s.sensor_type, d.device_type_id, d.organization_id
           FROM iot.sensors s
           JOIN iot.devices d ON d.device_id OPERATOR(pg_catalog.=) s.device_id
          WHERE s.device_id OPERATOR(pg_catalog.=) ANY ($1)),
     lineage (organization_id, ancestor_id) AS (
         SELECT s.organization_id, s.organization_id FROM sensor s WHERE s.organization_id IS NOT NULL
          UNION
         SELECT l.organization_id, o.parent_organization_id
           FROM lineage l
           JOIN iot.organizations o ON o.organization_id OPERATOR(pg_catalog.=) l.ancestor_id
          WHERE o.parent_organization_id IS NOT NULL),
     candidate (sensor_id, processing_rule_id) AS (
         SELECT s.sensor_id, r.processing_rule_id FROM sensor s
           JOIN iot.data_processing_rules r ON r.sensor_id OPERATOR(pg_catalog.=) s.sensor_id
          UNION ALL
         SELECT s.sensor_id, r.processing_rule_id FROM sensor s
           JOIN iot.data_processing_rules r ON r.sensor_type OPERATOR(pg_catalog.=) s.sensor_type
          WHERE r.sensor_id IS NULL
          UNION ALL
         SELECT s.sensor_id, r.processing_rule_id FROM sensor s
           JOIN iot.data_processing_rules r ON r.device_type_id OPERATOR(pg_catalog.=) s.device_type_id
          WHERE r.sensor_id IS NULL AND r.sensor_type IS NULL
          UNION ALL
         SELECT s.sensor_id, r.processing_rule_id FROM sensor s
           JOIN lineage l ON l.organization_id OPERATOR(pg_catalog.=) s.organization_id
           JOIN iot.data_processing_rules r ON r.organization_id OPERATOR(pg_catalog.=) l.ancestor_id
          WHERE r.sensor_id IS NULL AND r.sensor_type IS NULL AND r.device_type_id IS NULL
          UNION ALL
         SELECT s.sensor_id, r.processing_rule_id FROM sensor s, iot.data_processing_rules r
          WHERE r.sensor_id IS NULL AND r.sensor_type IS NULL AND r.device_type_id IS NULL
            AND r.organization_id IS NULL)
     SELECT s.device_id, s.sensor_id, r.processing_rule_id
       FROM candidate c
       JOIN sensor s ON s.sensor_id OPERATOR(pg_catalog.=) c.sensor_id
       JOIN iot.data_processing_rules r ON r.processing_rule_id OPERATOR(pg_catalog.=) c.processing_rule_id
      WHERE r.is_active
        AND (r.sensor_type IS NULL OR r.sensor_type OPERATOR(pg_catalog.=) s.sensor_type)
        AND (r.device_type_id IS NULL OR r.device_type_id OPERATOR(pg_catalog.=) s.device_type_id)
        AND (r.organization_id IS NULL OR EXISTS (
                SELECT FROM lineage l
                 WHERE l.organization_id OPERATOR(pg_catalog.=) s.organization_id
                   AND l.ancestor_id OPERATOR(pg_catalog.=) r.organization_id))
      ORDER BY r.processing_rule_id, s.sensor_id");

/// That an active rule covers a sensor.
pub struct Coverage {
    /// The device that carries the sensor.
    pub device_id: Uuid,
    /// The sensor.
    pub sensor_id: Uuid,
    /// The rule.
    pub rule_id: Uuid,
}

/// Which active rules cover which sensors of `device_ids`, by rule.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn covering(session: &mut Session<'_>, device_ids: Vec<Uuid>) -> IotResult<Vec<Coverage>> {
    let rows = session.execute(&COVERING, &[device_ids.into()])?;
    let mut pairs = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        pairs.push(Coverage { device_id: row.get(1)?, sensor_id: row.get(2)?, rule_id: row.get(3)? });
        Ok(())
    })?;
    Ok(pairs)
}

/// A rule as stored.
pub struct StoredRule<'session> {
    /// Its key.
    pub rule_id: Uuid,
    /// Display name.
    pub rule_name: String,
    /// Kind of rule.
    pub rule_type: String,
    /// Its parameters.
    pub definition: Option<Jsonb<'session>>,
    /// Rules of lower order run first.
    pub execution_order: i32,
    /// Version of the definition.
    pub rule_version: i32,
    /// Whether it is about one sensor, and so about one device.
    pub names_a_sensor: bool,
}

statement!(LOAD: (UUIDARRAYOID)
    "SELECT r.processing_rule_id, r.rule_name, r.rule_type, r.rule_definition, r.execution_order, r.rule_version,
            r.sensor_id IS NOT NULL
       FROM iot.data_processing_rules r
      WHERE r.processing_rule_id OPERATOR(pg_catalog.=) ANY ($1)
      ORDER BY r.processing_rule_id");

/// Calls `visit` for each of the rules `rule_ids`.
///
/// # Errors
/// The first error of `visit`.
pub fn load(
    session: &mut Session<'_>,
    rule_ids: Vec<Uuid>,
    mut visit: impl FnMut(StoredRule<'_>) -> IotResult<()>,
) -> IotResult<()> {
    session.execute(&LOAD, &[rule_ids.into()])?.for_each(|row| {
        visit(StoredRule {
            rule_id: row.get(1)?,
            rule_name: row.get(2)?,
            rule_type: row.get(3)?,
            definition: row.jsonb(4)?,
            execution_order: row.get(5)?,
            rule_version: row.get(6)?,
            names_a_sensor: row.get(7)?,
        })
    })
}

statement!(
    /// Organizations as above, from the top down here. LATERAL makes the rule come first: one about a sensor must not
    /// read all of them, since rules may be written by the thousand.
    DEVICES_IN_SCOPE: (UUIDOID, INT4OID)
    "WITH RECURSIVE rule AS MATERIALIZED (
         SELECT r.sensor_id, r.sensor_type, r.device_type_id, r.organization_id
           FROM iot.data_processing_rules r
          WHERE r.processing_rule_id OPERATOR(pg_catalog.=) $1 AND r.is_active),
     tenant (organization_id) AS (
         SELECT r.organization_id FROM rule r WHERE r.organization_id IS NOT NULL
          UNION
         SELECT o.organization_id
           FROM tenant t
           JOIN iot.organizations o ON o.parent_organization_id OPERATOR(pg_catalog.=) t.organization_id),
     covered (device_id, sensor_type, device_type_id, organization_id) AS (
         SELECT s.device_id, r.sensor_type, r.device_type_id, r.organization_id
           FROM rule r
           JOIN iot.sensors s ON s.sensor_id OPERATOR(pg_catalog.=) r.sensor_id
          WHERE r.sensor_type IS NULL OR r.sensor_type OPERATOR(pg_catalog.=) s.sensor_type
          UNION ALL
         SELECT o.device_id, r.sensor_type, r.device_type_id, r.organization_id
           FROM rule r
          CROSS JOIN LATERAL (
                SELECT s.device_id FROM iot.sensors s
                 WHERE s.sensor_type OPERATOR(pg_catalog.=) r.sensor_type OFFSET 0) AS o
          WHERE r.sensor_id IS NULL AND r.sensor_type IS NOT NULL
          UNION ALL
         SELECT o.device_id, r.sensor_type, r.device_type_id, r.organization_id
           FROM rule r
          CROSS JOIN LATERAL (
                SELECT s.device_id FROM iot.sensors s WHERE r.sensor_type IS NULL OFFSET 0) AS o
          WHERE r.sensor_id IS NULL AND r.sensor_type IS NULL)
     SELECT c.device_id
       FROM covered c
       JOIN iot.devices d ON d.device_id OPERATOR(pg_catalog.=) c.device_id
      WHERE (c.device_type_id IS NULL OR d.device_type_id OPERATOR(pg_catalog.=) c.device_type_id)
        AND (c.organization_id IS NULL OR EXISTS (
                SELECT FROM tenant t WHERE t.organization_id OPERATOR(pg_catalog.=) d.organization_id))
      GROUP BY c.device_id
      LIMIT $2");

/// Some devices, at most `limit`, with sensors that the rule covers; none if it is not active.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn devices_in_scope(session: &mut Session<'_>, rule_id: Uuid, limit: i32) -> IotResult<Vec<Uuid>> {
    let rows = session.execute(&DEVICES_IN_SCOPE, &[rule_id.into(), limit.into()])?;
    let mut devices = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        devices.push(row.get(1)?);
        Ok(())
    })?;
    Ok(devices)
}

statement!(
    /// Which rules could meet on a device: those whose device type and organization do not exclude each other.
    PEERS: (UUIDOID)
    "SELECT p.processing_rule_id, p.sensor_type
       FROM iot.data_processing_rules r
       JOIN iot.data_processing_rules p
         ON (r.device_type_id IS NULL OR p.device_type_id IS NULL
             OR r.device_type_id OPERATOR(pg_catalog.=) p.device_type_id)
        AND (r.organization_id IS NULL OR p.organization_id IS NULL
             OR r.organization_id OPERATOR(pg_catalog.=) p.organization_id)
      WHERE r.processing_rule_id OPERATOR(pg_catalog.=) $1 AND r.is_active
        AND p.is_active AND p.sensor_id IS NULL");

/// The active rules, about no single sensor, that could apply to a device together with the active rule `rule_id`, each
/// with the type of sensor that it is about.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn peers(session: &mut Session<'_>, rule_id: Uuid) -> IotResult<Vec<([u8; 16], Option<String>)>> {
    let rows = session.execute(&PEERS, &[rule_id.into()])?;
    let mut peers = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        peers.push((*row.get::<Uuid>(1)?.as_bytes(), row.optional(2)?));
        Ok(())
    })?;
    Ok(peers)
}
