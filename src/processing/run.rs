//! The rules of a batch's devices at work.
//!
//! In two steps. Before the rows are stored, the states that may change are locked and what the rules need is read: the
//! newest values of other sensors are then those of earlier transactions, to which the batch adds its own in order of
//! arrival, so that a batch and single calls come to the same. After it, the rules run for what was stored.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use iot_core::ingest::QualityFlags;
use iot_core::processing::{Memory, Observation, ProcessingState, Reading};
use iot_core::time::Timestamp;
use pgrx::Uuid;

use super::rules::DeviceRules;
use crate::catalog::processed_data::{self, Columns};
use crate::catalog::processing_state::{self, Series, StoredState};
use crate::catalog::reading;
use crate::engine::batch::Group;
use crate::engine::directory::KeyMap;
use crate::engine::judge::{Fate, Judged};
use crate::engine::offered::Offered;
use crate::error::{IotError, IotResult};
use crate::partition;
use crate::pg::clock;
use crate::pg::statement::{Session, with_session};

/// A device with rules, and its readings in the batch.
struct Device {
    rules: Rc<DeviceRules>,
    organization_id: Option<Uuid>,
    /// Numbers in the batch, each with the key of its sensor.
    readings: Vec<(u32, u32)>,
    memory: Memory,
}

/// What a batch has to do, with all that it needs at hand.
pub struct Prepared(Vec<Device>);

/// Locks and loads what the rules need for the readings that are still open; nothing where no rule runs.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn prepare(
    rules: KeyMap<Rc<DeviceRules>>,
    groups: &[Group],
    judged: &[Judged],
) -> IotResult<Option<Prepared>> {
    if rules.is_empty() {
        return Ok(None);
    }
    // By device: whatever is locked and written for several of them is so in one order.
    let mut devices: BTreeMap<[u8; 16], Device> = BTreeMap::new();
    for group in groups {
        let Some(profile) = &group.profile else { continue };
        let Some(rules) = rules.get(profile.device_id.as_bytes()) else { continue };
        let Some(key) = rules.key(profile.sensor_id.as_bytes()) else { continue };
        let counts = |number: &&u32| {
            let reading = &judged[**number as usize];
            reading.fate == Fate::Open
                && !reading.value.is_nan()
                && !reading.quality.contains(QualityFlags::FUTURE)
        };
        let device = devices.entry(rules.device_id).or_insert_with(|| Device {
            rules: Rc::clone(rules),
            organization_id: profile.organization_id,
            readings: Vec::new(),
            memory: Memory::default(),
        });
        device.readings.extend(group.readings.iter().filter(counts).map(|&number| (number, key)));
    }
    devices.retain(|_, device| device.runs_a_rule());
    if devices.is_empty() {
        return Ok(None);
    }
    let mut prepared = Prepared(devices.into_values().collect());
    with_session(|session| prepared.load(session))?;
    Ok(Some(prepared))
}

impl Device {
    fn keys(&self) -> BTreeSet<u32> {
        self.readings.iter().map(|&(_, key)| key).collect()
    }

    fn runs_a_rule(&self) -> bool {
        self.keys().into_iter().any(|key| self.rules.needs(key).is_some_and(|needs| needs.runs))
    }

    fn remember(&mut self, stored: StoredState) {
        let Some(series) = self.rules.series(stored.series) else { return };
        // Another version of the rule meant something else.
        let Some(rule) = self.rules.rule(series.rule).filter(|rule| rule.version == stored.rule_version)
        else {
            return;
        };
        if let Some((at, value)) = stored.last_output {
            self.memory.note_output(series, Observation { time: clock::from_pg(at), value });
        }
        let Some(bytes) = stored.state else { return };
        match ProcessingState::decode(&rule.rule.operation, &bytes) {
            Ok(state) => self.memory.set_state(series, state),
            Err(error) => IotError::wrong_state(error.to_string())
                .detail(format!("Rule \"{}\" begins anew on device \"{}\".", rule.name, self.device_id()))
                .hint(error.hint())
                .warn(),
        }
    }

    fn device_id(&self) -> Uuid {
        Uuid::from_bytes(self.rules.device_id)
    }
}

impl Prepared {
    fn load(&mut self, session: &mut Session<'_>) -> IotResult<()> {
        let mut changed: BTreeSet<Series> = BTreeSet::new();
        let mut read: BTreeSet<Series> = BTreeSet::new();
        let mut sensors: BTreeSet<[u8; 16]> = BTreeSet::new();
        for Device { rules, readings, .. } in &self.0 {
            let keys: BTreeSet<u32> = readings.iter().map(|&(_, key)| key).collect();
            for needs in keys.into_iter().filter_map(|key| rules.needs(key)) {
                changed.extend(needs.changed.iter().map(|&series| rules.stored(series)));
                read.extend(needs.read.iter().map(|&series| rules.stored(series)));
                sensors.extend(needs.sensors.iter().filter_map(|&key| rules.sensor(key)));
            }
        }
        let changed: Vec<Series> = changed.into_iter().collect();
        let read: Vec<Series> = read.into_iter().filter(|one| changed.binary_search(one).is_err()).collect();
        if !changed.is_empty() {
            self.remember(processing_state::lock(session, &changed)?);
        }
        if !read.is_empty() {
            self.remember(processing_state::read(session, &read)?);
        }
        if !sensors.is_empty() {
            let sensor_ids = sensors.iter().map(|&id| Uuid::from_bytes(id)).collect();
            let latest = reading::latest(session, sensor_ids)?;
            for device in &mut self.0 {
                for (sensor_id, &(time, value)) in &latest {
                    // What plain SQL has stored may be infinite.
                    if let Some(key) = device.rules.key(sensor_id).filter(|_| value.is_finite()) {
                        device.memory.note_sensor(key, Observation { time, value });
                    }
                }
            }
        }
        Ok(())
    }

    fn remember(&mut self, stored: Vec<StoredState>) {
        for state in stored {
            let device =
                self.0.binary_search_by_key(&state.series.device_id, |device| device.rules.device_id);
            if let Ok(place) = device {
                self.0[place].remember(state);
            }
        }
    }

    /// Runs the rules for the readings that were stored, in order of arrival, and writes results and states.
    ///
    /// # Errors
    /// Only what PostgreSQL raises.
    pub fn run(mut self, offered: &[Offered<'_>], judged: &[Judged]) -> IotResult<()> {
        let mut results = Results::default();
        let mut states = Vec::new();
        for device in &mut self.0 {
            device.readings.sort_unstable();
            for &(number, sensor) in &device.readings {
                let reading = &judged[number as usize];
                if reading.fate != Fate::Stored {
                    continue;
                }
                let offer = &offered[number as usize];
                let raw = offer.value.number().unwrap_or(reading.value);
                let reading = Reading { sensor, time: reading.at, raw, value: reading.value };
                for output in device.rules.set.run(&reading, &mut device.memory) {
                    let stored = device.rules.stored(output.series);
                    let key = (stored.device_id, output.name, reading.time, stored.sensor_id);
                    let Some(rule) = device.rules.set.rules().get(output.rule) else { continue };
                    results.0.insert(
                        key,
                        Computed {
                            rule_id: stored.rule_id,
                            rule_version: rule.version,
                            unit: rule.rule.unit.as_deref(),
                            data_id: judged[number as usize].data_id,
                            organization_id: device.organization_id,
                            result: output.result.map_err(|error| error.to_string()),
                        },
                    );
                }
            }
            for series in device.memory.take_changed() {
                states.push(StoredState {
                    series: device.rules.stored(series),
                    rule_version: device.rules.rule(series.rule).map_or(0, |rule| rule.version),
                    state: device.memory.state(series).map(ProcessingState::encode),
                    last_output: device
                        .memory
                        .output(series)
                        .map(|output| (clock::to_pg(output.time), output.value)),
                });
            }
        }
        results.write()?;
        if states.is_empty() {
            Ok(())
        } else {
            with_session(|session| processing_state::write(session, states))
        }
    }
}

/// A result: what is stored beside its key.
struct Computed<'a> {
    rule_id: [u8; 16],
    rule_version: i32,
    unit: Option<&'a str>,
    data_id: [u8; 16],
    organization_id: Option<Uuid>,
    result: Result<f64, String>,
}

/// Device, name, time and sensor of a result.
type ResultKey<'a> = ([u8; 16], &'a str, Timestamp, Option<[u8; 16]>);

/// Results in the order of their key, the last one of each.
#[derive(Default)]
struct Results<'a>(BTreeMap<ResultKey<'a>, Computed<'a>>);

impl Results<'_> {
    fn write(self) -> IotResult<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        partition::ensure_for(c"processed_data", self.0.keys().map(|&(_, _, at, _)| at))?;
        let mut columns = Columns::default();
        for ((device_id, name, at, sensor_id), computed) in self.0 {
            columns.measured_at.push(clock::to_pg(at));
            columns.device_id.push(Uuid::from_bytes(device_id));
            columns.sensor_id.push(sensor_id.map(Uuid::from_bytes));
            columns.rule_id.push(Uuid::from_bytes(computed.rule_id));
            columns.rule_version.push(computed.rule_version);
            columns.data_id.push(Uuid::from_bytes(computed.data_id));
            columns.output_name.push(name.to_owned());
            columns.organization_id.push(computed.organization_id);
            columns.unit.push(computed.unit.map(str::to_owned));
            let (value, error) = match computed.result {
                Ok(value) => (Some(value), None),
                Err(error) => (None, Some(error)),
            };
            columns.value.push(value);
            columns.error.push(error);
        }
        with_session(|session| processed_data::insert(session, columns))
    }
}
