//! The sensors that messages name, and registering those that are new.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use iot_core::ingest::parse_number;
use iot_core::ingest::payload::{
    DeviceReference, OfferedReading, OfferedValue, PayloadError, SensorReference as Named,
};
use pgrx::PgSqlErrorCode;
use pgrx::datum::Uuid;

use crate::catalog::sensor_reference::{self, DeviceKey, NewDevice, NewSensor, SensorReference};
use crate::error::{IotError, IotResult};
use crate::pg::statement::{Session, with_session};

/// What is known of a reference.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Sensor([u8; 16]),
    Several(usize),
}

type Known = HashMap<SensorReference, Found>;

/// The sensor of each message, or why there is none.
///
/// # Errors
/// Only what PostgreSQL raises.
pub(super) fn find(
    readings: &[&OfferedReading<'_>],
    register_unknown: bool,
) -> IotResult<Vec<IotResult<[u8; 16]>>> {
    let references: Vec<Option<SensorReference>> =
        readings.iter().map(|reading| reference(reading)).collect();
    let mut known = Known::new();
    with_session(|session| {
        look_up(session, references.iter().flatten(), &mut known)?;
        if register_unknown {
            let unknown = find_unknown(session, readings, &references, &known)?;
            if !unknown.is_empty() {
                register(session, unknown)?;
                known.retain(|_, found| *found != Found::Nothing);
                look_up(session, references.iter().flatten(), &mut known)?;
            }
        }
        Ok(())
    })?;
    Ok(readings
        .iter()
        .zip(&references)
        .map(|(reading, reference)| match (reading.sensor, reference) {
            (Named::ById(sensor_id), _) => Ok(sensor_id),
            (_, Some(reference)) => match known.get(reference) {
                Some(Found::Sensor(sensor_id)) => Ok(*sensor_id),
                Some(Found::Several(count)) => Err(ambiguous(reference, *count)),
                Some(Found::Nothing) | None => Err(unknown(reference)),
            },
            (_, None) => Err(PayloadError::MissingSensor.into()),
        })
        .collect())
}

fn device_key(device: DeviceReference<'_>) -> DeviceKey {
    let (kind, key) = match device {
        DeviceReference::ById(id) => ("id", Uuid::from_bytes(id).to_string()),
        DeviceReference::BySerial(serial) => ("serial", serial.to_owned()),
        DeviceReference::ByExternalId(id) => ("external", id.to_owned()),
        DeviceReference::AnyKey(key) => ("any", key.to_owned()),
        DeviceReference::AnyNumber(number) => ("any", number.to_string()),
    };
    DeviceKey { kind, key }
}

/// How a message names its sensor, unless by the sensor's own key.
fn reference(reading: &OfferedReading<'_>) -> Option<SensorReference> {
    let Named::ByDevice { device, sensor } = reading.sensor else { return None };
    Some(SensorReference {
        device: device_key(device),
        sensor_name: sensor.name.map(str::to_owned),
        sensor_type: sensor.sensor_type.map(str::to_owned),
    })
}

fn look_up<'a>(
    session: &mut Session<'_>,
    references: impl Iterator<Item = &'a SensorReference>,
    known: &mut Known,
) -> IotResult<()> {
    let mut wanted: Vec<SensorReference> = Vec::new();
    for reference in references {
        if !known.contains_key(reference) {
            known.insert(reference.clone(), Found::Nothing);
            wanted.push(reference.clone());
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let mut best: HashMap<usize, (i32, Vec<Uuid>)> = HashMap::new();
    for (number, sensor_id, rank) in sensor_reference::resolve(session, &wanted)? {
        let entry = best.entry(number).or_insert((rank, Vec::new()));
        if rank < entry.0 {
            *entry = (rank, Vec::new());
        }
        if rank == entry.0 && !entry.1.contains(&sensor_id) {
            entry.1.push(sensor_id);
        }
    }
    for (number, (_, sensors)) in best {
        let found = match sensors.as_slice() {
            [sensor_id] => Found::Sensor(*sensor_id.as_bytes()),
            several => Found::Several(several.len()),
        };
        known.insert(wanted[number].clone(), found);
    }
    Ok(())
}

/// What a message would register.
struct Unknown {
    device: DeviceKey,
    new_device: NewDevice,
    new_sensor: NewSensor,
    /// Says what is measured, and not by which sensor.
    by_type_only: bool,
}

/// What the messages name that is not there. What stands for several sensors is there.
fn find_unknown(
    session: &mut Session<'_>,
    readings: &[&OfferedReading<'_>],
    references: &[Option<SensorReference>],
    known: &Known,
) -> IotResult<Vec<Unknown>> {
    let named = |reading: &OfferedReading<'_>| match reading.sensor {
        Named::ById(sensor_id) if reading.origin.device.is_some() => Some(sensor_id),
        _ => None,
    };
    let sensor_ids: HashSet<[u8; 16]> = readings.iter().filter_map(|reading| named(reading)).collect();
    let registered: HashSet<[u8; 16]> = if sensor_ids.is_empty() {
        HashSet::new()
    } else {
        let sensor_ids = sensor_ids.into_iter().map(Uuid::from_bytes).collect();
        sensor_reference::registered(session, sensor_ids)?.iter().map(|id| *id.as_bytes()).collect()
    };
    let is_unknown = |reading: &OfferedReading<'_>, reference: &Option<SensorReference>| match reference {
        Some(reference) => known.get(reference) == Some(&Found::Nothing),
        None => named(reading).is_some_and(|sensor_id| !registered.contains(&sensor_id)),
    };
    Ok(readings
        .iter()
        .zip(references)
        .filter(|(reading, reference)| is_unknown(reading, reference))
        .filter_map(|(reading, _)| what_is_new(reading))
        .collect())
}

fn what_is_new(reading: &OfferedReading<'_>) -> Option<Unknown> {
    let origin = &reading.origin;
    let owned = |text: Option<&str>| text.map(str::to_owned);
    let device = origin.device?;
    let mut new_device = NewDevice {
        external_id: owned(origin.external_id),
        serial_number: owned(origin.serial_number),
        device_name: owned(origin.device_name),
        device_type: owned(origin.device_type),
        location: owned(origin.location),
        device_id: None,
    };
    match device {
        DeviceReference::ById(id) => new_device.device_id = Some(id),
        DeviceReference::BySerial(serial) => new_device.serial_number = Some(serial.to_owned()),
        DeviceReference::ByExternalId(id) | DeviceReference::AnyKey(id) => {
            new_device.external_id.get_or_insert_with(|| id.to_owned());
        }
        DeviceReference::AnyNumber(number) => {
            new_device.external_id.get_or_insert_with(|| number.to_string());
        }
    }
    let sensor_id = match reading.sensor {
        Named::ById(id) => Some(Uuid::from_bytes(id)),
        Named::ByDevice { .. } => None,
    };
    let new_sensor = NewSensor {
        sensor_id,
        sensor_name: owned(origin.sensor.name.or(origin.sensor.sensor_type))?,
        sensor_type: owned(origin.sensor.sensor_type.or(origin.sensor.name))?,
        unit: reading.unit.unwrap_or_default().to_owned(),
        value_type: match reading.value {
            OfferedValue::Number(_) | OfferedValue::Missing => "numeric",
            OfferedValue::Text(text) if parse_number(text).is_ok() => "numeric",
            OfferedValue::Text(_) => "text",
            OfferedValue::Boolean(_) => "boolean",
            OfferedValue::Json(_) => "json",
        },
    };
    let by_type_only = sensor_id.is_none() && origin.sensor.name.is_none();
    Some(Unknown { device: device_key(device), new_device, new_sensor, by_type_only })
}

/// Registers devices and sensors where they are not there yet: the devices in the order of what names them, then the sensors
/// in the order of their key, whatever the order of the messages, as sessions that register the same ones wait for each
/// other.
fn register(session: &mut Session<'_>, mut unknown: Vec<Unknown>) -> IotResult<()> {
    let mut numbers: HashMap<DeviceKey, usize> = HashMap::new();
    let mut keys: Vec<DeviceKey> = Vec::new();
    let mut first: Vec<&NewDevice> = Vec::new();
    for new in &unknown {
        numbers.entry(new.device.clone()).or_insert_with(|| {
            keys.push(new.device.clone());
            first.push(&new.new_device);
            keys.len() - 1
        });
    }
    let mut devices = sensor_reference::find_devices(session, &keys)?;
    let missing: BTreeSet<&NewDevice> =
        first.iter().zip(&devices).filter(|(_, found)| found.is_none()).map(|(new, _)| *new).collect();
    if !missing.is_empty() {
        for new in missing {
            sensor_reference::register_device(session, new)?;
        }
        devices = sensor_reference::find_devices(session, &keys)?;
    }
    // A type stands for the sensors of that type, so those that have a key or a name come first.
    unknown.sort_by_key(|new| (new.by_type_only, new.new_sensor.sensor_id.is_none()));
    let mut sensors: BTreeMap<([u8; 16], &str), &NewSensor> = BTreeMap::new();
    let mut types: HashSet<([u8; 16], &str)> = HashSet::new();
    for new in &unknown {
        let Some(device_id) = numbers.get(&new.device).and_then(|&number| devices[number]) else { continue };
        let device_id = *device_id.as_bytes();
        let sensor = &new.new_sensor;
        let is_first_of_type = types.insert((device_id, &sensor.sensor_type));
        if is_first_of_type || !new.by_type_only {
            sensors.entry((device_id, &sensor.sensor_name)).or_insert(sensor);
        }
    }
    for ((device_id, _), sensor) in sensors {
        sensor_reference::register_sensor(session, Uuid::from_bytes(device_id), sensor)?;
    }
    Ok(())
}

fn describe(reference: &SensorReference) -> String {
    let of = |what: &str, value: &Option<String>| {
        value.as_ref().map(|value| format!(" {what} \"{value}\"")).unwrap_or_default()
    };
    format!(
        "sensor{}{} of device \"{}\"",
        of("named", &reference.sensor_name),
        of("of type", &reference.sensor_type),
        reference.device.key
    )
}

fn unknown(reference: &SensorReference) -> IotError {
    IotError::unknown_object(format!("{} does not exist", describe(reference)))
        .hint("Register it, or pass register_unknown => true.")
        .because("unknown_sensor")
}

fn ambiguous(reference: &SensorReference, count: usize) -> IotError {
    IotError::new(
        PgSqlErrorCode::ERRCODE_AMBIGUOUS_PARAMETER,
        format!("{} stands for {count} sensors", describe(reference)),
    )
    .hint("Name the sensor, or give its sensor_id.")
    .because("ambiguous_sensor")
}
