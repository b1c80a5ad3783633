//! The rules of a batch's devices at work.
//!
//! In two steps. Before the rows are stored, the states that may change are locked and what the rules need is read: the
//! newest values of other sensors are then those of earlier transactions, to which the batch adds its own in order of
//! arrival, so that a batch and single calls come to the same. After it, the rules run for what was stored.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use iot_core::ingest::QualityFlags;
use iot_core::processing::{Memory, Observation, ProcessingState, Reading, Replay};
use pgrx::Uuid;

use super::replay::{self, Changed};
use super::results::{Computed, Results};
use super::rules::DeviceRules;
use crate::catalog::processing_state::{self, Series, StoredState};
use crate::catalog::reading;
use crate::catalog::series_reading::SeriesReading;
use crate::engine::batch::Group;
use crate::engine::directory::KeyMap;
use crate::engine::judge::{Fate, Judged, Place};
use crate::error::{IotError, IotResult};
use crate::pg::clock;
use crate::pg::statement::{Session, with_session};

/// A device with rules, and its readings in the batch.
struct Device {
    rules: Rc<DeviceRules>,
    organization_id: Option<Uuid>,
    /// Numbers in the batch, each with the key of its sensor.
    readings: Vec<(u32, u32)>,
    /// Sensors of which a stored reading gives way to one of the batch.
    taken: BTreeSet<u32>,
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
            taken: BTreeSet::new(),
            memory: Memory::default(),
        });
        let before = device.readings.len();
        device.readings.extend(group.readings.iter().filter(counts).map(|&number| (number, key)));
        let is_taken = |(number, _): &(u32, u32)| judged[*number as usize].place == Place::Taken;
        if device.readings[before..].iter().any(is_taken) {
            device.taken.insert(key);
        }
    }
    devices.retain(|_, device| device.has_rules());
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

    fn has_rules(&self) -> bool {
        self.keys().into_iter().any(|key| self.rules.needs(key).is_some_and(|needs| needs.matter))
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
        for Device { rules, readings, taken, .. } in &self.0 {
            if !taken.is_empty() {
                changed.extend(replay::series(rules, taken.clone()));
            }
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

    /// Runs the rules for the readings that were stored, in order of arrival, and writes results and states; then once
    /// more for those that replace others.
    ///
    /// # Errors
    /// Only what PostgreSQL raises.
    pub fn run(mut self, judged: &[Judged]) -> IotResult<()> {
        let mut results = Results::default();
        let mut corrected = Results::default();
        let mut states = Vec::new();
        let mut replaced: Vec<(Rc<DeviceRules>, Option<Uuid>, Changed)> = Vec::new();
        for device in &mut self.0 {
            let mut changed = Changed::new();
            let mut local: BTreeMap<u32, Replay<'_>> = BTreeMap::new();
            device.readings.sort_unstable();
            for &(number, sensor) in &device.readings {
                let reading = &judged[number as usize];
                match reading.fate {
                    Fate::Stored => {}
                    Fate::Replaced if device.rules.needs(sensor).is_some_and(|needs| needs.is_local) => {
                        let stored = SeriesReading {
                            at: reading.at,
                            data_id: reading.data_id,
                            raw: reading.raw,
                            value: reading.value,
                        };
                        let replay = local
                            .entry(sensor)
                            .or_insert_with(|| device.rules.set.replay(BTreeSet::from([sensor])));
                        let rows = replay.observe(&replay::as_read(sensor, &stored), true);
                        let tenant = device.organization_id;
                        replay::collect(
                            &device.rules,
                            tenant,
                            &stored,
                            rows,
                            true,
                            (&mut results, &mut corrected),
                        );
                        continue;
                    }
                    Fate::Replaced => {
                        changed.insert((sensor, reading.at));
                        continue;
                    }
                    _ => continue,
                }
                let reading = Reading { sensor, time: reading.at, raw: reading.raw, value: reading.value };
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
            if !changed.is_empty() {
                replaced.push((Rc::clone(&device.rules), device.organization_id, changed));
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
        corrected.correct()?;
        if !states.is_empty() {
            with_session(|session| processing_state::write(session, states))?;
        }
        for (rules, organization_id, changed) in replaced {
            replay::run(&rules, organization_id, &changed, true)?;
        }
        Ok(())
    }
}
