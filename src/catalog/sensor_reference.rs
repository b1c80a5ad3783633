//! Sensors by what a message says of them, and registering those that are new.

use pgrx::Uuid;

use crate::error::IotResult;
use crate::pg::statement::Session;
use crate::statement;

/// Which key of a device a message gives, and the key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceKey {
    /// `id`, `serial`, `external`, or `any` of the last two.
    pub kind: &'static str,
    /// The key.
    pub key: String,
}

/// How a message names a sensor: by a device and what the sensor is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SensorReference {
    /// The device.
    pub device: DeviceKey,
    /// Name of the sensor on the device.
    pub sensor_name: Option<String>,
    /// What it measures.
    pub sensor_type: Option<String>,
}

statement!(
    /// Rank 1 is what the message means first: an external id before a serial number, a name before a type.
    RESOLVE: (TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID)
    "SELECT o.number, s.sensor_id,
            CASE WHEN o.device_key OPERATOR(pg_catalog.=) 'any' AND d.external_id IS DISTINCT FROM o.device
                 THEN 2 ELSE 1 END
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4))
            WITH ORDINALITY AS o (device_key, device, sensor_name, sensor_type, number)
      CROSS JOIN LATERAL (
            SELECT c.device_id, c.external_id FROM iot.devices c
             WHERE o.device_key OPERATOR(pg_catalog.=) 'id'
               AND c.device_id OPERATOR(pg_catalog.=)
                   (CASE WHEN o.device_key OPERATOR(pg_catalog.=) 'id' THEN o.device END)::pg_catalog.uuid
             UNION ALL
            SELECT c.device_id, c.external_id FROM iot.devices c
             WHERE o.device_key OPERATOR(pg_catalog.=) ANY ('{external,any}'::pg_catalog.text[])
               AND c.external_id OPERATOR(pg_catalog.=) o.device
             UNION ALL
            SELECT c.device_id, c.external_id FROM iot.devices c
             WHERE o.device_key OPERATOR(pg_catalog.=) ANY ('{serial,any}'::pg_catalog.text[])
               AND c.device_serial_number OPERATOR(pg_catalog.=) o.device) AS d
       JOIN iot.sensors s ON s.device_id OPERATOR(pg_catalog.=) d.device_id
        AND (o.sensor_name IS NULL OR s.sensor_name OPERATOR(pg_catalog.=) o.sensor_name)
        AND (o.sensor_type IS NULL OR s.sensor_type OPERATOR(pg_catalog.=) o.sensor_type)");

/// The sensors that `references` name: number from 0, sensor, rank. A reference may have none, or several.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn resolve(
    session: &mut Session<'_>,
    references: &[SensorReference],
) -> IotResult<Vec<(usize, Uuid, i32)>> {
    let column = |of: fn(&SensorReference) -> Option<String>| references.iter().map(of).collect::<Vec<_>>();
    let rows = session.execute(
        &RESOLVE,
        &[
            column(|reference| Some(reference.device.kind.to_owned())).into(),
            column(|reference| Some(reference.device.key.clone())).into(),
            column(|reference| reference.sensor_name.clone()).into(),
            column(|reference| reference.sensor_type.clone()).into(),
        ],
    )?;
    let mut found = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        found.push((usize::try_from(row.get::<i64>(1)?).unwrap_or(1) - 1, row.get(2)?, row.get(3)?));
        Ok(())
    })?;
    Ok(found)
}

/// A device to be registered because a message named it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NewDevice {
    /// Key of the device in the application.
    pub external_id: Option<String>,
    /// Serial number of the device.
    pub serial_number: Option<String>,
    /// Key of the device, where the message gave one.
    pub device_id: Option<[u8; 16]>,
    /// Name of the device.
    pub device_name: Option<String>,
    /// Name of the device's type; used where such a type exists.
    pub device_type: Option<String>,
    /// Where the device is.
    pub location: Option<String>,
}

/// A sensor to be registered because a message named it.
#[derive(Clone, Debug)]
pub struct NewSensor {
    /// Key of the sensor, where the message gave one.
    pub sensor_id: Option<Uuid>,
    /// Name of the sensor.
    pub sensor_name: String,
    /// What it measures.
    pub sensor_type: String,
    /// Its unit.
    pub unit: String,
    /// Type of its values.
    pub value_type: &'static str,
}

statement!(
    REGISTERED: (UUIDARRAYOID)
    "SELECT s.sensor_id FROM iot.sensors s WHERE s.sensor_id OPERATOR(pg_catalog.=) ANY ($1)");

/// Which of `sensor_ids` are registered.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn registered(session: &mut Session<'_>, sensor_ids: Vec<Uuid>) -> IotResult<Vec<Uuid>> {
    let rows = session.execute(&REGISTERED, &[sensor_ids.into()])?;
    let mut found = Vec::with_capacity(rows.count());
    rows.for_each(|row| {
        found.push(row.get(1)?);
        Ok(())
    })?;
    Ok(found)
}

statement!(
    /// An external id counts within the caller's organization, where it is unique, and before a serial number.
    FIND_DEVICES: (TEXTARRAYOID, TEXTARRAYOID)
    "SELECT o.number, d.device_id
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) WITH ORDINALITY AS o (kind, key, number)
      CROSS JOIN LATERAL (
            SELECT f.device_id FROM (
                SELECT c.device_id, 1 AS rank FROM iot.devices c
                 WHERE o.kind OPERATOR(pg_catalog.=) 'id'
                   AND c.device_id OPERATOR(pg_catalog.=)
                       (CASE WHEN o.kind OPERATOR(pg_catalog.=) 'id' THEN o.key END)::pg_catalog.uuid
                 UNION ALL
                SELECT c.device_id, 1 FROM iot.devices c
                 WHERE o.kind OPERATOR(pg_catalog.=) ANY ('{external,any}'::pg_catalog.text[])
                   AND c.external_id OPERATOR(pg_catalog.=) o.key
                   AND c.organization_id IS NOT DISTINCT FROM
                       NULLIF(pg_catalog.current_setting('app.organization_id', true), '')::pg_catalog.uuid
                 UNION ALL
                SELECT c.device_id, 2 FROM iot.devices c
                 WHERE o.kind OPERATOR(pg_catalog.=) ANY ('{serial,any}'::pg_catalog.text[])
                   AND c.device_serial_number OPERATOR(pg_catalog.=) o.key) AS f
             ORDER BY f.rank LIMIT 1) AS d");

/// The device that each of `keys` stands for, if there is one.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn find_devices(session: &mut Session<'_>, keys: &[DeviceKey]) -> IotResult<Vec<Option<Uuid>>> {
    let kinds: Vec<&str> = keys.iter().map(|key| key.kind).collect();
    let texts: Vec<&str> = keys.iter().map(|key| key.key.as_str()).collect();
    let mut found = vec![None; keys.len()];
    session.execute(&FIND_DEVICES, &[kinds.into(), texts.into()])?.for_each(|row| {
        let number = usize::try_from(row.get::<i64>(1)?).unwrap_or(1) - 1;
        found[number] = Some(row.get(2)?);
        Ok(())
    })?;
    Ok(found)
}

statement!(
    /// A device of the caller's organization. Whoever registers it first wins.
    REGISTER_DEVICE: (UUIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID)
    "INSERT INTO iot.devices AS d (device_id, external_id, device_serial_number, device_name, device_type_id, location,
                                   organization_id)
     SELECT COALESCE($1, pg_catalog.gen_random_uuid()), $2, $3, $4,
            (SELECT t.device_type_id FROM iot.device_types t
              WHERE t.device_type_name OPERATOR(pg_catalog.=) $5 AND t.is_active),
            $6, NULLIF(pg_catalog.current_setting('app.organization_id', true), '')::pg_catalog.uuid
     ON CONFLICT DO NOTHING");

/// Registers a device, unless one of its keys is taken.
///
/// # Errors
/// Only what PostgreSQL raises: the caller needs INSERT on the table.
pub fn register_device(session: &mut Session<'_>, new: &NewDevice) -> IotResult<()> {
    session.execute(
        &REGISTER_DEVICE,
        &[
            new.device_id.map(Uuid::from_bytes).into(),
            new.external_id.clone().into(),
            new.serial_number.clone().into(),
            new.device_name.clone().into(),
            new.device_type.clone().into(),
            new.location.clone().into(),
        ],
    )?;
    Ok(())
}

statement!(
    /// A sensor on a device. Whoever registers it first wins.
    REGISTER_SENSOR: (UUIDOID, UUIDOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID)
    "INSERT INTO iot.sensors (sensor_id, device_id, sensor_name, sensor_type, unit_of_measure, value_type)
     SELECT COALESCE($1, pg_catalog.gen_random_uuid()), $2, $3, $4, $5, $6
     ON CONFLICT DO NOTHING");

/// Registers a sensor on a device, unless it has one of that name.
///
/// # Errors
/// Only what PostgreSQL raises: the caller needs INSERT on the table.
pub fn register_sensor(session: &mut Session<'_>, device_id: Uuid, new: &NewSensor) -> IotResult<()> {
    session.execute(
        &REGISTER_SENSOR,
        &[
            new.sensor_id.into(),
            device_id.into(),
            new.sensor_name.clone().into(),
            new.sensor_type.clone().into(),
            new.unit.clone().into(),
            new.value_type.into(),
        ],
    )?;
    Ok(())
}
