//! The rules of a device run again, after stored readings of it have changed.

use std::collections::{BTreeMap, BTreeSet};

use iot_core::processing::{Memory, ProcessingState, Reading, Replay, Replayed, SeriesKey};
use iot_core::time::Timestamp;
use pgrx::Uuid;

use super::results::{Computed, Results};
use super::rules::DeviceRules;
use crate::catalog::processing_state::{self, Series, StoredState};
use crate::catalog::series_reading::{self, SeriesReading};
use crate::error::IotResult;
use crate::pg::clock;
use crate::pg::statement::{Session, with_session};

/// Readings of each sensor in the first query; further ones ask for more, since more seem to be wanted.
const FIRST_CHUNK: usize = 256;
/// Most of them.
const LARGEST_CHUNK: usize = 8_192;
/// How many times as many readings as a rule remembers are looked through for those on which it has a result.
const MOST_LOOKED_THROUGH: usize = 64;

/// In place of a result that has come to be missing.
const MISSING: &str = "an input is missing since a reading was changed";

/// Readings that have changed: key of the sensor and time.
pub type Changed = BTreeSet<(u32, Timestamp)>;

/// Takes from everybody else what running the rules again for readings of these sensors reads and writes, to the end of
/// the transaction. To be called before the readings are locked or changed.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn lock(session: &mut Session<'_>, rules: &DeviceRules, sensors: BTreeSet<u32>) -> IotResult<()> {
    let series = series(rules, sensors);
    if !series.is_empty() {
        processing_state::lock(session, &series)?;
    }
    Ok(())
}

/// The series that are locked.
pub fn series(rules: &DeviceRules, sensors: BTreeSet<u32>) -> Vec<Series> {
    rules.set.replay(sensors).series().into_iter().map(|series| rules.stored(series)).collect()
}

/// Brings `iot.processed_data` and what the rules remember to what follows from the stored readings of the device, of which
/// those `changed` have changed. `are_new` stores also such results of theirs as have not been there before.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn run(
    rules: &DeviceRules,
    organization_id: Option<Uuid>,
    changed: &Changed,
    are_new: bool,
) -> IotResult<()> {
    let sensors: BTreeSet<u32> = changed.iter().map(|(sensor, _)| *sensor).collect();
    let times = || changed.iter().map(|(_, at)| *at);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return Ok(()) };
    if rules.set.replay(sensors.clone()).is_empty() {
        return Ok(());
    }
    // Who changed them without knowing that they would be has not locked it yet.
    with_session(|session| lock(session, rules, sensors.clone()))?;
    let nothing = Changed::new();
    let mut rerun = Rerun { rules, organization_id, changed, are_new, sensors };
    let (mut replay, mut walk) = rerun.begin(first)?;
    let mut settled = false;
    while let Some(chunk) = walk.next_chunk(rules)? {
        settled = rerun.take(&mut replay, &chunk, last)?;
        if settled {
            break;
        }
    }
    if settled {
        // What rules remember is made of the newest readings, in whatever order they came.
        rerun.changed = &nothing;
        let Some(newest) = rerun.newest(&replay)? else { return Ok(()) };
        let (mut tail, mut walk) = rerun.begin(Timestamp(newest.0.saturating_add(1)))?;
        while let Some(chunk) = walk.next_chunk(rules)? {
            rerun.take(&mut tail, &chunk, Timestamp::INFINITY)?;
        }
        replay = tail;
    }
    rerun.keep(&replay)
}

struct Rerun<'a> {
    rules: &'a DeviceRules,
    organization_id: Option<Uuid>,
    changed: &'a Changed,
    are_new: bool,
    sensors: BTreeSet<u32>,
}

impl<'a> Rerun<'a> {
    /// The rules with all in mind that they need when the readings reach `first`, and the way on from there.
    fn begin(&self, first: Timestamp) -> IotResult<(Replay<'a>, Walk)> {
        let mut known = None;
        let mut more = 1;
        loop {
            let mut replay = self.rules.set.replay(self.sensors.clone());
            let begin = with_session(|session| {
                replay.begin(first, more, |sensors, before, number| {
                    let sensor_ids = self.sensor_ids(sensors);
                    Ok(series_reading::earlier(session, sensor_ids, before, number)?.unwrap_or(before))
                })
            })?;
            let mut walk = Walk::new(self.rules, &begin, Some(first));
            while let Some(chunk) = walk.next_chunk(self.rules)? {
                for (sensor, reading) in chunk {
                    replay.observe(&as_read(sensor, &reading), false);
                }
            }
            more *= 4;
            if replay.is_warm() || more > MOST_LOOKED_THROUGH || known.as_ref() == Some(&begin) {
                let begin = begin.into_iter().map(|(sensor, at)| (sensor, at.max(first))).collect();
                return Ok((replay, Walk::new(self.rules, &begin, None)));
            }
            known = Some(begin);
        }
    }

    /// Runs the rules for the readings of a chunk and stores what follows from changed ones. Says whether nothing will
    /// follow from those after it.
    fn take(
        &self,
        replay: &mut Replay<'a>,
        chunk: &[(u32, SeriesReading)],
        last: Timestamp,
    ) -> IotResult<bool> {
        let mut new = Results::default();
        let mut corrected = Results::default();
        let mut settled = false;
        for (place, (sensor, reading)) in chunk.iter().enumerate() {
            let is_changed = self.changed.contains(&(*sensor, reading.at));
            let rows = replay.observe(&as_read(*sensor, reading), is_changed);
            let tenant = self.organization_id;
            collect(
                self.rules,
                tenant,
                reading,
                rows,
                self.are_new && is_changed,
                (&mut new, &mut corrected),
            );
            let is_torn = chunk.get(place + 1).is_some_and(|(_, next)| next.at == reading.at);
            if !is_torn && reading.at >= last && replay.is_settled() {
                settled = true;
                break;
            }
        }
        new.write()?;
        corrected.correct()?;
        Ok(settled)
    }

    /// Stores what the rules remember after the newest readings.
    fn keep(&self, replay: &Replay<'_>) -> IotResult<()> {
        let memory: &Memory = replay.memory();
        let stored = |series: SeriesKey| {
            let (state, output) = (memory.state(series), memory.output(series));
            (state.is_some() || output.is_some()).then(|| StoredState {
                series: self.rules.stored(series),
                rule_version: self.rules.rule(series.rule).map_or(0, |rule| rule.version),
                state: state.map(ProcessingState::encode),
                last_output: output.map(|output| (clock::to_pg(output.time), output.value)),
            })
        };
        let states: Vec<StoredState> = replay.series().into_iter().filter_map(stored).collect();
        if states.is_empty() {
            return Ok(());
        }
        with_session(|session| processing_state::write(session, states))
    }

    /// Time of the newest reading that the rules see; `None` where they remember nothing.
    fn newest(&self, replay: &Replay<'_>) -> IotResult<Option<Timestamp>> {
        let memory = replay.memory();
        let is_kept = |series: SeriesKey| memory.state(series).is_some() || memory.output(series).is_some();
        if !replay.series().into_iter().any(is_kept) {
            return Ok(None);
        }
        let sensor_ids = self.sensor_ids(&replay.sensors());
        with_session(|session| series_reading::earlier(session, sensor_ids, Timestamp::INFINITY, 1))
    }

    fn sensor_ids(&self, sensors: &BTreeSet<u32>) -> Vec<Uuid> {
        sensors.iter().filter_map(|key| self.rules.sensor(*key)).map(Uuid::from_bytes).collect()
    }
}

/// Adds what came of a reading to new results or to those that are only corrected.
pub fn collect<'a>(
    rules: &'a DeviceRules,
    organization_id: Option<Uuid>,
    reading: &SeriesReading,
    rows: Vec<Replayed<'a>>,
    are_new: bool,
    (new, corrected): (&mut Results<'a>, &mut Results<'a>),
) {
    for row in rows {
        let is_new = are_new && row.is_ok();
        let (rule, series, result) = match row {
            Ok(output) => (output.rule, output.series, output.result.map_err(|error| error.to_string())),
            Err((rule, series)) => (rule, series, Err(MISSING.to_owned())),
        };
        let Some(rule) = rules.set.rules().get(rule) else { continue };
        let stored = rules.stored(series);
        let key = (stored.device_id, rule.output.as_str(), reading.at, stored.sensor_id);
        let (results, other) =
            if is_new { (&mut *new, &mut *corrected) } else { (&mut *corrected, &mut *new) };
        // The last result of a time counts.
        other.0.remove(&key);
        results.0.insert(
            key,
            Computed {
                rule_id: stored.rule_id,
                rule_version: rule.version,
                unit: rule.rule.unit.as_deref(),
                data_id: reading.data_id,
                organization_id,
                result,
            },
        );
    }
}

/// The reading as the core takes it.
pub fn as_read(sensor: u32, reading: &SeriesReading) -> Reading {
    Reading { sensor, time: reading.at, raw: reading.raw, value: reading.value }
}

/// A way through the stored readings of several sensors, in the order of their times.
struct Walk {
    /// From where on each sensor is to be read.
    since: Vec<([u8; 16], Timestamp)>,
    /// Where it ends, exclusive.
    end: Option<Timestamp>,
    limit: usize,
    is_over: bool,
}

impl Walk {
    fn new(rules: &DeviceRules, begin: &BTreeMap<u32, Timestamp>, end: Option<Timestamp>) -> Self {
        let since = begin.iter().filter_map(|(key, at)| Some((rules.sensor(*key)?, *at)));
        // Nothing before the end is left of such a sensor.
        let since: Vec<_> = since.filter(|(_, at)| end.is_none_or(|end| *at < end)).collect();
        Self { is_over: since.is_empty(), since, end, limit: FIRST_CHUNK }
    }

    /// The next readings, each with the key of its sensor; those of a time come together.
    fn next_chunk(&mut self, rules: &DeviceRules) -> IotResult<Option<Vec<(u32, SeriesReading)>>> {
        if self.is_over {
            return Ok(None);
        }
        let mut readings = with_session(|session| series_reading::next(session, &self.since, self.limit))?;
        // A sensor that may have more is known up to its last reading here, and so are all together.
        let mut counts: BTreeMap<[u8; 16], (usize, Timestamp)> = BTreeMap::new();
        for (sensor_id, reading) in &readings {
            let (count, last) = counts.entry(*sensor_id).or_insert((0, reading.at));
            *count += 1;
            *last = reading.at.max(*last);
        }
        let full = counts.values().filter(|(count, _)| *count >= self.limit);
        let known_to = full.map(|(_, last)| *last).min();
        self.is_over = known_to.is_none_or(|known| self.end.is_some_and(|end| known >= end));
        if let Some(known) = known_to {
            readings.retain(|(_, reading)| reading.at <= known);
            for (_, since) in &mut self.since {
                *since = (*since).max(Timestamp(known.0.saturating_add(1)));
            }
        }
        if let Some(end) = self.end {
            readings.retain(|(_, reading)| reading.at < end);
        }
        readings.sort_unstable_by_key(|(_, reading)| (reading.at, reading.data_id));
        self.limit = (self.limit * 4).min(LARGEST_CHUNK);
        let known = |(sensor_id, reading)| Some((rules.key(&sensor_id)?, reading));
        Ok(Some(readings.into_iter().filter_map(known).collect()))
    }
}
