//! A batch of readings through the whole pipeline, in the caller's transaction.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::Instant;

use iot_core::ingest::{DataIdGenerator, TimeVerdict, accept_time, accept_value};
use iot_core::time::{MICROS_PER_DAY, Timestamp};
use pgrx::Uuid;
use pgrx::datum::Interval;

use super::directory::{Intake, KeyMap, Lent};
use super::duplicates;
use super::judge::{Fate, Judged, Place, Scorer};
use super::matches::Matches;
use super::memory::{self, Wanted};
use super::offered::{Measured, Offered};
use super::overlay::{self, Room};
use super::pieces;
use super::profile::{self, Profile};
use super::recall;
use super::rejection::Rejection;
use super::store;
use crate::alert::DatabaseZone;
use crate::catalog::sensor_state;
use crate::error::{IotError, IotResult};
use crate::partition;
use crate::pg::memory::in_scratch;
use crate::pg::relation::in_schema_iot;
use crate::pg::shared::counters::{self, Counter};
use crate::pg::statement::with_session;
use crate::pg::{clock, random, security};
use crate::processing;

/// Days between 1970-01-01 (Unix) and 2000-01-01 (PostgreSQL).
const UNIX_EPOCH_OFFSET_DAYS: i64 = 10_957;

/// How far back readings are accepted when `setup()` was not told: ten years.
const DEFAULT_RETENTION_DAYS: i64 = 3_653;

/// What became of a batch.
#[derive(Default)]
pub struct Outcome {
    /// What was decided about each reading, in the order they were offered.
    pub judged: Vec<Judged>,
    /// Why readings were not accepted: number in the batch and error, in order.
    pub rejections: Vec<(u32, IotError)>,
    /// Alerts that were opened or occurred again.
    pub alerts: Vec<Uuid>,
}

impl Outcome {
    /// The figures of this batch.
    pub fn totals(&self) -> Totals {
        Totals {
            accepted: self.count(|judged| judged.fate == Fate::Stored) as i64,
            rejected: self.rejections.len() as i64,
            duplicates: self.count(|judged| judged.fate.is_duplicate()) as i64,
            anomalies: self.count(|judged| judged.fate.is_kept() && judged.is_anomaly) as i64,
            alerts: self.alerts.len() as i64,
        }
    }

    /// How many readings ended so.
    pub fn count(&self, wanted: impl Fn(&Judged) -> bool) -> usize {
        self.judged.iter().filter(|judged| wanted(judged)).count()
    }
}

/// Readings of one sensor in the batch.
pub struct Group {
    /// The sensor, if it is registered.
    pub profile: Option<Rc<Profile>>,
    /// Their numbers in the batch, in order of arrival.
    pub readings: Vec<u32>,
    /// What no other transaction can have beyond this time.
    pub claimed: Timestamp,
    /// Up to which time that was told to all others.
    told: Timestamp,
    /// The state is missing and has to be built.
    missing: bool,
}

impl Group {
    /// Whether others who come with the same reading know that somebody else came first. Not so where the state had to be
    /// built: who began before is not in it.
    pub fn is_first_at(&self, at: Timestamp) -> bool {
        !self.missing && self.claimed < at && at <= self.told
    }
}

struct Batch<'a> {
    offered: &'a [Offered<'a>],
    groups: Vec<Group>,
    now: Timestamp,
    /// No row security hides readings from the caller.
    sees_all: bool,
    /// The states of sensors with detectors were locked before they were read.
    has_locked: bool,
    outcome: Outcome,
}

/// Takes `offered` through the pipeline. What cannot be accepted is reported in the outcome, not stored anywhere.
///
/// # Errors
/// What concerns the whole batch, and what PostgreSQL raises.
pub fn run(offered: &[Offered<'_>]) -> IotResult<Outcome> {
    match offered {
        [] => Ok(Outcome::default()),
        // What one call takes for one reading is gone with the call.
        [_] => run_in_place(offered, Lent::new()?),
        _ => pieces::run(offered),
    }
}

/// As [`run`], of readings that do not replace each other.
///
/// # Errors
/// As [`run`].
pub(super) fn run_whole(offered: &[Offered<'_>], lent: Lent) -> IotResult<Outcome> {
    in_scratch(c"iot_ext batch", || run_in_place(offered, lent))
}

fn run_in_place(offered: &[Offered<'_>], mut lent: Lent) -> IotResult<Outcome> {
    let started = Instant::now();
    let mut batch = Batch {
        offered,
        groups: group(&mut lent, offered)?,
        now: clock::now(),
        sees_all: in_schema_iot(c"sensor_data").is_some_and(security::sees_all_rows),
        has_locked: false,
        outcome: Outcome { judged: vec![Judged::UNDECIDED; offered.len()], ..Outcome::default() },
    };
    let intake = lent.intake()?;
    let rules = lent.processing_rules(batch.groups.iter().filter_map(|group| group.profile.as_ref()))?;
    lent.give_back();
    let looked_up = Instant::now();

    batch.accept(&intake);
    batch.enter_states()?;
    duplicates::find(offered, &batch.groups, &mut batch.outcome.judged, intake.duplicates)?;
    let (matches, mut incomplete) = batch.score()?;
    if batch.sees_all {
        incomplete.extend(overlay::untracked(batch.profiles()));
    } else {
        // What is the newest reading to the caller may be a late one to a checkpoint, which was made of all of them.
        incomplete = batch.profiles().map(|profile| profile.sensor_id).collect();
    }
    let scored = Instant::now();

    // From here on in the order of ARCHITECTURE.md: no step locks what belongs to an earlier one.
    let written = overlay::states_for_table(batch.profiles());
    let mut to_lock = States { incomplete, written: written.iter().map(|state| state.sensor_id).collect() };
    batch.take_with_detectors(&mut to_lock).lock_first(batch.has_locked)?;
    let processing = processing::prepare(rules, &batch.groups, &batch.outcome.judged)?;
    partition::ensure_for(c"sensor_data", batch.open_times())?;
    let not_stored =
        store::write(offered, &batch.groups, batch.now, &mut batch.outcome.judged, intake.duplicates)?;
    batch.outcome.rejections.extend(not_stored);
    // After the rows, as plain SQL does it: the two wait for each other in one order.
    to_lock.lock()?;
    if !written.is_empty() {
        with_session(|session| sensor_state::store(session, written))?;
    }
    if let Some(processing) = processing {
        processing.run(&batch.outcome.judged)?;
    }
    let stored = Instant::now();

    if !matches.is_empty() {
        batch.outcome.alerts = matches.write(offered, &batch.outcome.judged)?;
    }
    batch.outcome.rejections.sort_by_key(|&(number, _)| number);
    for (counter, from, to) in [
        (Counter::LookUpNanoseconds, started, looked_up),
        (Counter::ScoreNanoseconds, looked_up, scored),
        (Counter::StoreNanoseconds, scored, stored),
        (Counter::AlertNanoseconds, stored, Instant::now()),
    ] {
        counters::add(counter, u64::try_from((to - from).as_nanos()).unwrap_or(u64::MAX));
    }
    batch.count();
    Ok(batch.outcome)
}

/// Sensors whose rows of `iot.sensor_state` a batch locks.
#[derive(Default)]
struct States {
    /// Those whose checkpoints come to be incomplete.
    incomplete: Vec<Uuid>,
    /// Those whose states are written.
    written: Vec<Uuid>,
}

impl States {
    /// As [`Self::lock`], before the rows; unless they are locked already.
    fn lock_first(self, is_locked: bool) -> IotResult<()> {
        if !is_locked && !self.written.is_empty() {
            let all = [self.incomplete.as_slice(), &self.written].concat();
            with_session(|session| sensor_state::lock(session, all))?;
        }
        overlay::spoil_checkpoints(self.incomplete, &[])
    }

    /// Locks them in one order, as far as they are not written in that order anyway, and spoils the checkpoints.
    fn lock(self) -> IotResult<()> {
        overlay::spoil_checkpoints(self.incomplete, &self.written)
    }
}

/// Figures of one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Readings stored.
    pub accepted: i64,
    /// Readings kept in `rejected_readings`.
    pub rejected: i64,
    /// Readings whose sensor had one of that time, whichever was kept; none where both are.
    pub duplicates: i64,
    /// Readings stored and flagged as anomalies.
    pub anomalies: i64,
    /// Alerts opened, or open and matched again.
    pub alerts: i64,
}

impl Totals {
    /// Adds another part of the call.
    pub fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.duplicates += other.duplicates;
        self.anomalies += other.anomalies;
        self.alerts += other.alerts;
    }
}

/// As [`run`], and keeps what cannot be accepted in `iot.rejected_readings`.
///
/// # Errors
/// As [`run`]; with `iot_ext.strict` also the first reading that cannot be accepted.
pub fn run_and_keep_rejections(offered: &[Offered<'_>]) -> IotResult<Totals> {
    let outcome = run(offered)?;
    let totals = outcome.totals();
    let received_at = clock::now();
    for (number, error) in outcome.rejections {
        Rejection::of(&offered[number as usize], received_at).keep_or_fail(error)?;
    }
    Ok(totals)
}

/// Sorts the readings by sensor, keeping the order of arrival within each.
fn group(lent: &mut Lent, offered: &[Offered<'_>]) -> IotResult<Vec<Group>> {
    let mut numbers: KeyMap<u32> = KeyMap::default();
    let mut groups: Vec<Group> = Vec::new();
    let mut sensors: Vec<[u8; 16]> = Vec::new();
    let mut last = None;
    for (reading, offer) in offered.iter().enumerate() {
        let number = match last {
            Some((sensor, number)) if sensor == offer.sensor_id => number,
            _ => *numbers.entry(offer.sensor_id).or_insert_with(|| {
                sensors.push(offer.sensor_id);
                groups.push(Group {
                    profile: None,
                    readings: Vec::new(),
                    claimed: Timestamp(i64::MAX),
                    told: Timestamp(i64::MIN),
                    missing: false,
                });
                groups.len() as u32 - 1
            }),
        };
        last = Some((offer.sensor_id, number));
        groups[number as usize].readings.push(reading as u32);
    }
    for (group, profile) in groups.iter_mut().zip(lent.profiles(sensors.iter())?) {
        group.profile = profile;
    }
    Ok(groups)
}

/// Start of the accepted past: the retention that `setup()` was told, else ten years.
fn oldest_accepted(now: Timestamp, retention: Option<Interval>) -> Timestamp {
    let micros = retention.map_or(DEFAULT_RETENTION_DAYS * MICROS_PER_DAY, |retention| {
        // Months count as 31 days here: a horizon that is a little generous rejects nothing that should be kept.
        (i64::from(retention.months()) * 31 + i64::from(retention.days()))
            .saturating_mul(MICROS_PER_DAY)
            .saturating_add(retention.micros())
    });
    Timestamp(now.0.saturating_sub(micros))
}

impl Batch<'_> {
    /// Sensor, value, time, calibration, quality.
    fn accept(&mut self, intake: &Intake) {
        let skew = crate::guc::clock_skew_micros();
        let usual = oldest_accepted(self.now, intake.retention);
        for group in &self.groups {
            let oldest = match &group.profile {
                Some(profile) if !intake.rules.is_empty() => {
                    let rules = intake.rules.iter().filter(|rule| rule.may_concern(profile));
                    let longest = rules.map(|rule| oldest_accepted(self.now, Some(rule.keep_for))).min();
                    longest.map_or(usual, |longest| longest.min(usual))
                }
                _ => usual,
            };
            for &number in &group.readings {
                let offer = &self.offered[number as usize];
                let judged = &mut self.outcome.judged[number as usize];
                let accepted = match &group.profile {
                    Some(profile) => accept_one(profile, offer, self.now, oldest, skew, judged),
                    None => Err(profile::unknown_sensor(Uuid::from_bytes(offer.sensor_id))),
                };
                if let Err(error) = accepted {
                    judged.fate = Fate::Rejected;
                    self.outcome.rejections.push((number, error));
                }
            }
        }
    }

    /// Touches the state of each sensor, and builds those that are missing, all at once.
    fn enter_states(&mut self) -> IotResult<()> {
        let sees_all = self.sees_all;
        let mut wanted: Vec<Wanted> = Vec::new();
        let (mut with_detector, mut is_any_in_table): (Vec<Uuid>, _) = (Vec::new(), false);
        for group in &mut self.groups {
            let open = group.readings.iter().map(|&n| &self.outcome.judged[n as usize]);
            // One from the future moves nothing: its time is not claimed either.
            let time = |judged: &Judged| if judged.from_future { Timestamp(i64::MIN) } else { judged.at };
            let newest = open.filter(|judged| judged.fate == Fate::Open).map(time).max();
            let (Some(profile), Some(newest)) = (&group.profile, newest) else { continue };
            let entered = overlay::enter(profile, newest, sees_all, Room::Made);
            group.missing = entered.claimed.is_none();
            group.told = newest;
            group.claimed = entered.claimed.unwrap_or(group.claimed);
            is_any_in_table |= entered.is_in_table;
            if memory::has_detector(profile) {
                with_detector.push(profile.sensor_id);
            }
            if group.missing || entered.detector.is_some() {
                let (profile, detector) = (Rc::clone(profile), entered.detector);
                wanted.push(Wanted { profile, state: group.missing, detector });
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        counters::add(Counter::WindowReads, wanted.iter().filter(|wanted| wanted.state).count() as u64);
        // A detector's state that is kept in the table is locked before it is read. Then so are those of all sensors with
        // detectors, as the batch may have to write one of these, too.
        self.has_locked = is_any_in_table;
        let locked = if is_any_in_table { with_detector } else { Vec::new() };
        let states = recall::build(&wanted, locked, sees_all)?;
        for group in self.groups.iter_mut().filter(|group| group.missing) {
            let state = group.profile.as_ref().and_then(|profile| states.get(profile.sensor_id.as_bytes()));
            let newest = state.and_then(|state| state.window.high_water());
            group.claimed = newest.unwrap_or(Timestamp(i64::MIN));
        }
        Ok(())
    }

    /// Takes the sensors with detectors out of `states`: their rows are locked before any others.
    fn take_with_detectors(&self, states: &mut States) -> States {
        if states.incomplete.is_empty() && states.written.is_empty() {
            return States::default();
        }
        let has_detector = |profile: &&Profile| memory::has_detector(profile);
        let them: HashSet<[u8; 16]> =
            self.profiles().filter(has_detector).map(|profile| *profile.sensor_id.as_bytes()).collect();
        let take = |ids: &mut Vec<Uuid>| ids.extract_if(.., |id| them.contains(id.as_bytes())).collect();
        States { incomplete: take(&mut states.incomplete), written: take(&mut states.written) }
    }

    fn profiles(&self) -> impl Iterator<Item = &Profile> {
        self.groups.iter().filter_map(|group| group.profile.as_deref())
    }

    /// Scores what will be stored and evaluates the rules. Returns what matched, and the sensors with late readings or such
    /// that take the place of others.
    fn score(&mut self) -> IotResult<(Matches, Vec<Uuid>)> {
        let mut matches = Matches::default();
        let zone = DatabaseZone::default();
        let mut late = Vec::new();
        for group in &self.groups {
            let Some(profile) = &group.profile else { continue };
            matches.next_sensor();
            overlay::with_state(profile.sensor_id, |kept, detector| {
                let mut scorer = Scorer::new(kept, &profile.limits, detector, self.now);
                let mut replaces = false;
                for &number in &group.readings {
                    let judged = &mut self.outcome.judged[number as usize];
                    if judged.fate != Fate::Open {
                        continue;
                    }
                    judged.data_id = next_data_id(self.now)?;
                    scorer.judge(judged);
                    replaces |= judged.place == Place::Taken;
                    let metadata = self.offered[number as usize].metadata;
                    if judged.value.is_nan() {
                        continue;
                    }
                    for rule in &profile.rules {
                        if let Some(threshold) = rule.matches(judged.value, metadata, judged.at, &zone) {
                            matches.add(rule, profile, number, threshold);
                        }
                    }
                }
                counters::add(Counter::Late, scorer.late);
                if scorer.late > 0 || replaces {
                    late.push(profile.sensor_id);
                }
                Ok::<(), IotError>(())
            })
            .transpose()?;
        }
        Ok((matches, late))
    }

    fn open_times(&self) -> impl Iterator<Item = Timestamp> {
        self.outcome.judged.iter().filter(|judged| judged.fate == Fate::Open).map(|judged| judged.at)
    }

    fn count(&self) {
        let count = |wanted: fn(&Judged) -> bool| self.outcome.count(wanted) as u64;
        counters::add(Counter::Batches, 1);
        counters::add(Counter::Offered, self.offered.len() as u64);
        counters::raise_to(Counter::LargestBatch, self.offered.len() as u64);
        counters::add(Counter::Stored, count(|judged| judged.fate == Fate::Stored));
        counters::add(Counter::Duplicates, count(|judged| judged.fate.is_duplicate()));
        // Here, whether they are kept or one of them ends the statement: so what was offered is always accounted for.
        counters::add(Counter::Rejected, self.outcome.rejections.len() as u64);
        counters::add(Counter::Anomalies, count(|judged| judged.fate.is_kept() && judged.is_anomaly));
        counters::add(Counter::Onsets, count(|judged| judged.fate.is_kept() && judged.is_onset));
        counters::add(Counter::AlertMatches, self.outcome.alerts.len() as u64);
    }
}

fn accept_one(
    profile: &Profile,
    offer: &Offered<'_>,
    now: Timestamp,
    oldest: Timestamp,
    skew: i64,
    judged: &mut Judged,
) -> IotResult<()> {
    if let Measured::Number(value) = offer.value {
        accept_value(value)?;
    }
    profile.require_active()?;
    let at = offer.measured_at.or(offer.arrived_at).unwrap_or(now);
    let verdict = accept_time(at, now, oldest, skew)?;
    judged.at = at;
    judged.from_future = verdict == TimeVerdict::Future;
    let Some(raw) = profile.number(&offer.value, offer.unit)? else {
        judged.value = f64::NAN;
        return Ok(());
    };
    let (calibrated, since) = profile.calibrate(raw, at)?;
    judged.raw = raw;
    judged.value = calibrated.value;
    judged.outside_calibration = calibrated.extrapolated;
    judged.calibrated_since = since;
    Ok(())
}

/// A time-ordered key for a row stored at `now`.
///
/// # Errors
/// XX000 when the operating system has no randomness.
pub fn next_data_id(now: Timestamp) -> IotResult<[u8; 16]> {
    use std::cell::RefCell;
    thread_local! {
        static GENERATOR: RefCell<DataIdGenerator> = RefCell::new(DataIdGenerator::default());
    }
    let unix_micros = now.0 + UNIX_EPOCH_OFFSET_DAYS * MICROS_PER_DAY;
    let random = random::bytes()?;
    Ok(GENERATOR.with_borrow_mut(|generator| generator.next(unix_micros, random)))
}
