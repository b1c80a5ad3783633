//! The rules of devices, built once and kept by each backend with its directory of sensors.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use iot_core::processing::{
    DeviceSensor, Needs, RuleSet, RuleSetError, RuleSetProblem, RuleSource, SeriesKey, SetRule,
};
use pgrx::Uuid;

use crate::catalog::processing_rule::{self, StoredRule};
use crate::catalog::processing_state::Series;
use crate::engine::directory::KeyMap;
use crate::error::{IotError, IotResult};
use crate::pg::relation::in_schema_iot;
use crate::pg::statement::{Session, with_session};

/// Devices kept at most, some kilobytes each; beyond that the cache starts anew.
const MAXIMUM_DEVICES: usize = 20_000;

/// The rules of one device, ready to be run.
pub struct DeviceRules {
    /// The device.
    pub device_id: [u8; 16],
    /// Its rules in order.
    pub set: RuleSet,
    /// Its sensors; their places are their keys in the set.
    sensors: Vec<[u8; 16]>,
    /// By key of a sensor, what its readings need.
    needs: Vec<SensorNeeds>,
    /// Rules of the set, by id.
    rules: BTreeMap<u128, usize>,
}

/// What the readings of a sensor need and change.
#[derive(Default)]
pub struct SensorNeeds {
    /// Whether they run any rule, or may run some when they change.
    pub matter: bool,
    /// Whether nothing but the results for the reading itself follows from it.
    pub is_local: bool,
    /// Other sensors whose newest values are read.
    pub sensors: Vec<u32>,
    /// Series that may change, or that nobody may change meanwhile.
    pub changed: Vec<SeriesKey>,
    /// Series that are only read.
    pub read: Vec<SeriesKey>,
}

impl DeviceRules {
    fn new(device_id: Uuid, sensors: Vec<[u8; 16]>, set: RuleSet) -> Self {
        let needs = (0..).zip(&sensors).map(|(key, _)| SensorNeeds::of(&set, key)).collect();
        let rules = set.rules().iter().enumerate().map(|(index, rule)| (rule.id, index)).collect();
        Self { device_id: *device_id.as_bytes(), set, sensors, needs, rules }
    }

    /// The key of a sensor in the set.
    pub fn key(&self, sensor_id: &[u8; 16]) -> Option<u32> {
        self.sensors.binary_search(sensor_id).ok().and_then(|place| u32::try_from(place).ok())
    }

    /// The sensor of a key.
    pub fn sensor(&self, key: u32) -> Option<[u8; 16]> {
        self.sensors.get(key as usize).copied()
    }

    /// What the readings of a sensor need.
    pub fn needs(&self, key: u32) -> Option<&SensorNeeds> {
        self.needs.get(key as usize)
    }

    /// A rule of the set.
    pub fn rule(&self, id: u128) -> Option<&SetRule> {
        self.rules.get(&id).and_then(|&index| self.set.rules().get(index))
    }

    /// The series as it is stored.
    pub fn stored(&self, series: SeriesKey) -> Series {
        Series {
            rule_id: series.rule.to_be_bytes(),
            device_id: self.device_id,
            sensor_id: series.sensor.and_then(|key| self.sensor(key)),
        }
    }

    /// The stored series as the set calls it.
    pub fn series(&self, stored: Series) -> Option<SeriesKey> {
        let sensor = match stored.sensor_id {
            Some(sensor_id) => Some(self.key(&sensor_id)?),
            None => None,
        };
        Some(SeriesKey { rule: u128::from_be_bytes(stored.rule_id), sensor })
    }
}

impl SensorNeeds {
    fn of(set: &RuleSet, key: u32) -> Self {
        let own: BTreeSet<u128> = set.rules_for(key).map(|rule| rule.id).collect();
        let Needs { sensors, outputs, states, shared } = set.needs(key);
        let replay = set.replay(BTreeSet::from([key]));
        let (written, read): (BTreeSet<SeriesKey>, _) = outputs.into_iter().partition(|series| {
            own.contains(&series.rule) && series.sensor.is_none_or(|sensor| sensor == key)
        });
        Self {
            matter: !own.is_empty() || !replay.is_empty(),
            is_local: replay.is_local(),
            sensors: sensors.into_iter().collect(),
            changed: written
                .into_iter()
                .chain(states)
                .chain(shared)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            read: read.into_iter().collect(),
        }
    }
}

/// Rules of devices. `None` stands for a device without any: asked for, and not found.
#[derive(Default)]
pub struct Cache {
    any_active: Option<bool>,
    devices: KeyMap<Option<Rc<DeviceRules>>>,
    /// Rules whose errors have been reported.
    reported: BTreeSet<u128>,
}

impl Cache {
    /// The rules of those of `device_ids` that have any.
    ///
    /// # Errors
    /// Only what PostgreSQL raises.
    pub fn of_devices(
        &mut self,
        device_ids: impl Iterator<Item = [u8; 16]> + Clone,
    ) -> IotResult<KeyMap<Rc<DeviceRules>>> {
        let mut found = KeyMap::default();
        if !self.any_active()? {
            return Ok(found);
        }
        let mut missing: Vec<[u8; 16]> =
            device_ids.clone().filter(|id| !self.devices.contains_key(id)).collect();
        if !missing.is_empty() {
            missing.sort_unstable();
            missing.dedup();
            if self.devices.len() + missing.len() > MAXIMUM_DEVICES {
                self.devices.clear();
                missing = device_ids.clone().collect();
                missing.sort_unstable();
                missing.dedup();
            }
            with_session(|session| self.load(session, missing))?;
        }
        for device_id in device_ids {
            if let Some(Some(rules)) = self.devices.get(&device_id) {
                found.insert(device_id, Rc::clone(rules));
            }
        }
        Ok(found)
    }

    fn any_active(&mut self) -> IotResult<bool> {
        if let Some(known) = self.any_active {
            return Ok(known);
        }
        // Before setup() has brought the tables forward, there is nowhere to put results.
        let any = in_schema_iot(c"processed_data").is_some()
            && in_schema_iot(c"processing_states").is_some()
            && with_session(processing_rule::any_active)?;
        self.any_active = Some(any);
        Ok(any)
    }

    fn load(&mut self, session: &mut Session<'_>, missing: Vec<[u8; 16]>) -> IotResult<()> {
        let device_ids = missing.iter().map(|&id| Uuid::from_bytes(id)).collect();
        self.devices.extend(missing.into_iter().map(|id| (id, None)));
        for device in load(session, device_ids)? {
            let (set, errors) = RuleSet::build_skipping(&device.described, &device.sources);
            for error in errors {
                self.report(&device, error);
            }
            if !set.rules().is_empty() {
                let rules = DeviceRules::new(device.device_id, device.sensors, set);
                self.devices.insert(rules.device_id, Some(Rc::new(rules)));
            }
        }
        Ok(())
    }

    /// Says once what is wrong with a rule. That a rule about many devices does not fit some of them is no error.
    fn report(&mut self, device: &Device, error: RuleSetError) {
        let is_about_a_sensor = error.rules.iter().any(|id| device.about_a_sensor.contains(id));
        let is_ambiguous = matches!(error.problem, RuleSetProblem::Ambiguous { .. });
        if !is_about_a_sensor && !is_ambiguous && !is_wrong_everywhere(&error.problem) {
            return;
        }
        let mut is_news = false;
        for &id in &error.rules {
            is_news |= self.reported.insert(id);
        }
        if is_news {
            let left_out: Vec<String> =
                error.rules.iter().map(|id| format!("\"{}\"", Uuid::from_bytes(id.to_be_bytes()))).collect();
            let detail = format!("Left out on device \"{}\": {}.", device.device_id, left_out.join(", "));
            IotError::from(error).detail(detail).warn();
        }
    }
}

/// Whether it is an error wherever it occurs, and not only where the rule is about one sensor.
pub fn is_wrong_everywhere(problem: &RuleSetProblem) -> bool {
    matches!(
        problem,
        RuleSetProblem::Definition { .. }
            | RuleSetProblem::Loop { .. }
            | RuleSetProblem::DuplicateOutput { .. }
    )
}

/// What a device's rules are built from.
pub struct Device {
    /// The device.
    pub device_id: Uuid,
    /// Its sensors in order.
    pub sensors: Vec<[u8; 16]>,
    /// The same with the names that rules use.
    pub described: Vec<DeviceSensor>,
    /// The active rules that cover any of them.
    pub sources: Vec<RuleSource>,
    /// Those among them that are about one sensor.
    pub about_a_sensor: BTreeSet<u128>,
}

/// The devices among `device_ids` that have rules, with their sensors. A rule that cannot be read is left out with a
/// WARNING.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn load(session: &mut Session<'_>, device_ids: Vec<Uuid>) -> IotResult<Vec<Device>> {
    let covering = processing_rule::covering(session, device_ids)?;
    let mut rule_ids: Vec<Uuid> = covering.iter().map(|pair| pair.rule_id).collect();
    rule_ids.dedup();
    if rule_ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut rules: KeyMap<RuleSource> = KeyMap::default();
    let mut about_a_sensor = BTreeSet::new();
    processing_rule::load(session, rule_ids, |stored| {
        match source(&stored) {
            Ok(source) => {
                if stored.names_a_sensor {
                    about_a_sensor.insert(source.id);
                }
                rules.insert(*stored.rule_id.as_bytes(), source);
            }
            Err(error) => {
                error.detail(format!("Processing rule \"{}\" was left out.", stored.rule_id)).warn();
            }
        }
        Ok(())
    })?;
    let mut devices: BTreeMap<[u8; 16], Device> = BTreeMap::new();
    for pair in &covering {
        devices.entry(*pair.device_id.as_bytes()).or_insert_with(|| Device {
            device_id: pair.device_id,
            sensors: Vec::new(),
            described: Vec::new(),
            sources: Vec::new(),
            about_a_sensor: BTreeSet::new(),
        });
    }
    let with_rules = devices.values().map(|device| device.device_id).collect();
    for sensor in processing_rule::sensors(session, with_rules)? {
        let Some(device) = devices.get_mut(sensor.device_id.as_bytes()) else { continue };
        device.described.push(DeviceSensor {
            key: device.sensors.len() as u32,
            name: sensor.sensor_name,
            sensor_type: sensor.sensor_type,
        });
        device.sensors.push(*sensor.sensor_id.as_bytes());
    }
    for pair in covering {
        let (Some(device), Some(rule)) =
            (devices.get_mut(pair.device_id.as_bytes()), rules.get(pair.rule_id.as_bytes()))
        else {
            continue;
        };
        // By rule: the last one is the one at hand, or this one is new.
        if device.sources.last().is_none_or(|last| last.id != rule.id) {
            device.sources.push(rule.clone());
            if about_a_sensor.contains(&rule.id) {
                device.about_a_sensor.insert(rule.id);
            }
        }
        // A sensor whose readings are no numbers is not among them, and then the rule does not cover it.
        if let (Some(last), Ok(key)) =
            (device.sources.last_mut(), device.sensors.binary_search(pair.sensor_id.as_bytes()))
        {
            last.sensors.push(key as u32);
        }
    }
    for device in devices.values_mut() {
        // A rule about many sensors that covers none that counts here has nothing to say on this device.
        let about_a_sensor = &device.about_a_sensor;
        device.sources.retain(|source| !source.sensors.is_empty() || about_a_sensor.contains(&source.id));
    }
    Ok(devices.into_values().collect())
}

/// The rule as the core takes it, without its sensors.
///
/// # Errors
/// 54000 for a definition that is nested too deeply.
pub fn source(stored: &StoredRule<'_>) -> IotResult<RuleSource> {
    let definition = stored.definition.ok_or_else(|| IotError::null_argument("rule_definition"))?;
    Ok(RuleSource {
        id: number(stored.rule_id),
        name: stored.rule_name.clone(),
        order: stored.execution_order,
        version: stored.rule_version,
        rule_type: stored.rule_type.clone(),
        definition: definition.parse()?,
        sensors: Vec::new(),
    })
}

/// A rule's key as the core takes it.
pub fn number(rule_id: Uuid) -> u128 {
    u128::from_be_bytes(*rule_id.as_bytes())
}
