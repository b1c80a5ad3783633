//! Processing rules: checking them when they are written, keeping those of each device ready, and running them for the
//! readings of a batch, in the transaction that stores these; and again when stored readings change.

mod replay;
mod results;
mod rules;
mod run;

use std::collections::BTreeMap;
use std::rc::Rc;

use iot_core::processing::{DeviceSensor, RuleSet, RuleSetError, RuleSetProblem, RuleSource};
use pgrx::datum::Uuid;
use pgrx::pg_extern;

use crate::catalog::processing_rule;
use crate::engine::directory::Lent;
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::jsonb::Jsonb;
use crate::pg::statement::{Session, with_session};

pub use replay::{Changed, lock, run as run_again};
pub use rules::{Cache, DeviceRules};
pub use run::prepare;

/// Devices on which a rule is tried when it is written. More would make writing a rule about everything slow, and
/// devices of one type are alike.
const DEVICES_TRIED: i32 = 1_000;

/// The rules of a device as the caller sees them now, if it has any.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn rules_of(device_id: Uuid) -> IotResult<Option<Rc<DeviceRules>>> {
    let mut lent = Lent::new()?;
    let rules = lent.processing_rules_of(device_id)?;
    lent.give_back();
    Ok(rules)
}

/// Called by the trigger on `iot.data_processing_rules`: what could never run is refused when it is written.
#[pg_extern(sql = false)]
fn validate_processing_rule(
    rule_name: Option<&str>,
    rule_type: Option<&str>,
    rule_definition: Option<Jsonb<'_>>,
) {
    let rule_name = rule_name.ok_or_else(|| IotError::null_argument("rule_name")).or_raise();
    let rule_type = rule_type.ok_or_else(|| IotError::null_argument("rule_type")).or_raise();
    let definition = rule_definition
        .ok_or_else(|| IotError::null_argument("rule_definition"))
        .or_raise()
        .parse()
        .or_raise();
    let sensor = DeviceSensor { key: 0, name: String::new(), sensor_type: String::new() };
    let source = RuleSource {
        id: 0,
        name: rule_name.to_owned(),
        order: 0,
        version: 1,
        rule_type: rule_type.to_owned(),
        definition,
        sensors: vec![0],
    };
    // Alone on a sensor of no type: what it refers to is not there, which says nothing yet.
    let (_, errors) = RuleSet::build_skipping(&[sensor], &[source]);
    let wrong = |error: &RuleSetError| {
        matches!(error.problem, RuleSetProblem::Definition { .. } | RuleSetProblem::Loop { .. })
    };
    if let Some(error) = errors.into_iter().find(wrong) {
        IotError::from(error).raise();
    }
}

/// Called by the trigger on `iot.data_processing_rules` once the rows are in place.
#[pg_extern(sql = false)]
fn check_processing_rule(rule_uuid: Option<Uuid>) {
    let rule_id = rule_uuid.ok_or_else(|| IotError::null_argument("rule_uuid")).or_raise();
    with_session(|session| check(session, rule_id)).or_raise();
}

/// Tries the rule on devices in its scope, with and without it: what goes wrong only with it is its fault.
fn check(session: &mut Session<'_>, rule_id: Uuid) -> IotResult<()> {
    let own = rules::number(rule_id);
    let devices = processing_rule::devices_in_scope(session, rule_id, DEVICES_TRIED)?;
    if devices.is_empty() {
        let (sensors, sources) = imagined(session, rule_id)?;
        return refuse(own, &sensors, &sources, false).map_or(Ok(()), |error| Err(error.into()));
    }
    for device in rules::load(session, devices)? {
        let names_a_sensor = device.about_a_sensor.contains(&own);
        if let Some(error) = refuse(own, &device.described, &device.sources, names_a_sensor) {
            return Err(IotError::from(error).detail(format!("On device \"{}\".", device.device_id)));
        }
    }
    Ok(())
}

fn refuse(
    own: u128,
    sensors: &[DeviceSensor],
    sources: &[RuleSource],
    names_a_sensor: bool,
) -> Option<RuleSetError> {
    let (_, errors) = RuleSet::build_skipping(sensors, sources);
    if errors.is_empty() {
        return None;
    }
    let others: Vec<RuleSource> = sources.iter().filter(|source| source.id != own).cloned().collect();
    let (_, without) = RuleSet::build_skipping(sensors, &others);
    errors.into_iter().find(|error| {
        let is_about = names_a_sensor && error.rules.contains(&own);
        !without.contains(error) && (is_about || rules::is_wrong_everywhere(&error.problem))
    })
}

/// A device as it may come: with one sensor of each type that the rules which could meet on it are about.
fn imagined(session: &mut Session<'_>, rule_id: Uuid) -> IotResult<(Vec<DeviceSensor>, Vec<RuleSource>)> {
    let peers: BTreeMap<[u8; 16], Option<String>> =
        processing_rule::peers(session, rule_id)?.into_iter().collect();
    let mut types: Vec<&str> = peers.values().flatten().map(String::as_str).collect();
    types.sort_unstable();
    types.dedup();
    if types.is_empty() {
        types.push("");
    }
    let sensors: Vec<DeviceSensor> = (0..)
        .zip(&types)
        .map(|(key, name)| DeviceSensor { key, name: (*name).to_owned(), sensor_type: (*name).to_owned() })
        .collect();
    let mut sources = Vec::new();
    let rule_ids = peers.keys().map(|&id| Uuid::from_bytes(id)).collect();
    processing_rule::load(session, rule_ids, |stored| {
        let wanted = peers.get(stored.rule_id.as_bytes()).and_then(Option::as_deref);
        let mut source = rules::source(&stored)?;
        let fits = |sensor: &&DeviceSensor| wanted.is_none_or(|wanted| wanted == sensor.sensor_type);
        source.sensors = sensors.iter().filter(fits).map(|sensor| sensor.key).collect();
        sources.push(source);
        Ok(())
    })?;
    Ok((sensors, sources))
}
