//! The state of sensors as this transaction sees it: the shared state, and on top what the transaction did itself.
//!
//! Shared memory learns of it when the transaction commits, and never of what rolled back.

use std::cell::RefCell;
use std::collections::HashSet;

use iot_core::sensor_state::{SensorChange, SensorState};
use iot_core::time::Timestamp;
use pgrx::Uuid;

use super::directory::KeyMap;
use super::learned::{Arrival, Detector, Keeping, Learned};
use super::memory::{self, Basis, Found};
use super::profile::Profile;
use crate::catalog::sensor_state;
use crate::error::{IotResult, OrRaise};
use crate::pg::shared::flush;
use crate::pg::shared::sensors::{self, DetectorCopy, Encoded, Handle, SensorKey, Touched};
pub use crate::pg::shared::slabs::Room;
use crate::pg::statement::with_session;
use crate::pg::transaction::{self, Listener};

pub use written::{spoil_checkpoints, states_for_table, untracked};

mod written;

/// A sensor touched by this transaction.
#[derive(Default)]
struct Local {
    /// The touch to end with the transaction; none where there is no shared memory.
    handle: Option<Handle>,
    /// The state, where one is kept: a private one is read anew by each call.
    kept: Option<Kept>,
    /// Its detector.
    detector: Detector,
    /// The state of that, made before the commit.
    encoded: Option<Encoded>,
    /// The shared entry cannot be brought forward by `kept`: rows were written that are not in it.
    stale: bool,
    /// Its checkpoint on disk was declared incomplete.
    spoiled: bool,
    /// What to go back to when the subtransaction at that level rolls back, innermost last.
    saved: Vec<Saved>,
}

/// A sensor as it was when a subtransaction first worked on it.
struct Saved {
    level: i32,
    kept: Option<Kept>,
    detector: Detector,
    /// The touch that tells the version of the shared state in `kept`: the two belong together.
    handle: Option<Handle>,
}

/// A sensor's state with this transaction's own readings, and those readings by themselves.
#[derive(Clone)]
pub struct Kept {
    /// What readings are scored against.
    pub state: Box<SensorState>,
    /// What this transaction added to it.
    pub change: SensorChange,
    /// Only this session has it.
    private: bool,
    /// It was made of what everybody will see once the transaction has committed.
    common: bool,
}

#[derive(Default)]
struct Transaction {
    sensors: KeyMap<Local>,
    /// Every sensor's stored readings may have changed past the engine (TRUNCATE, DROP).
    all_stale: bool,
    announced: bool,
    /// It changes readings of sensors whose entries do not know of it.
    untracked: bool,
    /// Entries whose change this transaction writes down, and whether all of it.
    flushed: Vec<(SensorKey, bool)>,
}

thread_local! {
    static TRANSACTION: RefCell<Transaction> = RefCell::default();
}

static LISTENER: Listener = Listener {
    is_concerned: || {
        TRANSACTION.with_borrow(|transaction| {
            transaction.all_stale || !transaction.sensors.is_empty() || !transaction.flushed.is_empty()
        })
    },
    before_commit,
    committed: || end(true),
    rolled_back: || end(false),
    subtransaction_committed,
    subtransaction_rolled_back,
};

/// What [`enter`] found.
pub struct Entered {
    /// Readings of that sensor newer than this time are in no other transaction either. `None`: the state has to be built
    /// from the stored readings and then given to [`provide`].
    pub claimed: Option<Timestamp>,
    /// From what the state of its detector has to be found, to be given to [`provide_detector`] before that.
    pub detector: Option<Basis>,
    /// The detector's state is kept in the table: sessions with the same sensor are to follow each other.
    pub is_in_table: bool,
}

thread_local! {
    static COPY: RefCell<DetectorCopy> = RefCell::default();
}

/// Begins to work on a sensor in one call, with readings up to `newest`. `sees_all`: no row security hides readings from
/// the caller; else he works with a state of his own, made of what he may see. `room`: for the state of its detector.
pub fn enter(profile: &Profile, newest: Timestamp, sees_all: bool, room: Room) -> Entered {
    transaction::listen(&LISTENER);
    COPY.with_borrow_mut(|copy| {
        TRANSACTION.with_borrow_mut(|transaction| {
            let kind = memory::has_detector(profile).then_some(profile.detector);
            let key = *profile.sensor_id.as_bytes();
            copy.clear();
            let wanted = kind.map(|_| &mut *copy);
            let all_stale = transaction.all_stale;
            let local = transaction.sensors.get_mut(&key);
            let is_known = local.is_some();
            let (local, claimed, arrival) = match local {
                Some(local) => {
                    local.save();
                    let (claimed, arrival) = local.touch_again(newest, sees_all, wanted);
                    (local, claimed, arrival)
                }
                None => {
                    let device_id = *profile.device_id.as_bytes();
                    let (local, claimed) = touch(key, device_id, newest, all_stale, sees_all, wanted);
                    let arrival = if claimed.is_some() { Arrival::Same } else { Arrival::Missing };
                    (transaction.sensors.entry(key).or_insert(local), claimed, arrival)
                }
            };
            let detector = local.detector.enter(kind, local.handle.as_mut(), room, copy, arrival);
            if !is_known {
                local.save();
            }
            Entered { claimed, detector, is_in_table: local.detector.keeping() == Keeping::Table }
        })
    })
}

fn touch(
    key: [u8; 16],
    device_id: [u8; 16],
    newest: Timestamp,
    all_stale: bool,
    sees_all: bool,
    detector: Option<&mut DetectorCopy>,
) -> (Local, Option<Timestamp>) {
    let mut local = Local { stale: all_stale, ..Local::default() };
    if !sensors::is_available() {
        return (local, None);
    }
    let claimed = match sensors::touch(SensorKey::here(key), device_id, newest.0, detector) {
        Touched::Valid(handle, state) if sees_all && !all_stale => {
            let claimed = handle.claimed_before;
            local.handle = Some(handle);
            local.kept = Some(Kept { state, change: SensorChange::default(), private: false, common: true });
            Some(Timestamp(claimed))
        }
        Touched::Valid(handle, _) | Touched::Private(handle) | Touched::Build(handle) => {
            local.handle = Some(handle);
            None
        }
    };
    (local, claimed)
}

/// Gives a sensor the state of its detector that was found.
pub fn provide_detector(sensor_id: Uuid, found: Found) {
    TRANSACTION.with_borrow_mut(|transaction| {
        if let Some(local) = transaction.sensors.get_mut(sensor_id.as_bytes()) {
            local.detector.provide(found);
        }
    });
}

/// Gives a sensor the state that was built from its stored readings, as this transaction sees them. `sees_all`: no row
/// security hides any of them.
pub fn provide(sensor_id: Uuid, state: SensorState, sees_all: bool) {
    TRANSACTION.with_borrow_mut(|transaction| {
        let Some(local) = transaction.sensors.get_mut(sensor_id.as_bytes()) else { return };
        // What we see is what everybody sees only with a snapshot of now, and without rows of our own among it.
        let common = sees_all && !transaction::keeps_its_snapshot() && !local.stale;
        let installed = match &mut local.handle {
            Some(handle) if common && local.kept.is_none() => {
                local.detector.install(|detector| sensors::install(handle, &state, detector))
            }
            Some(handle) => {
                sensors::abandon(handle);
                false
            }
            None => false,
        };
        local.save();
        // What was built anew has the transaction's own rows as well, as far as they may be seen; for everybody else all of
        // them remain a change.
        let change = local.kept.take().map(|kept| kept.change).unwrap_or_default();
        local.kept = Some(Kept { state: Box::new(state), change, private: !installed, common });
    });
}

/// Runs `work` on the state of a sensor that was entered (and provided, if it was missing), and on that of its detector, if
/// it has one.
pub fn with_state<T>(sensor_id: Uuid, work: impl FnOnce(&mut Kept, Option<&mut Learned>) -> T) -> Option<T> {
    TRANSACTION.with_borrow_mut(|transaction| {
        let local = transaction.sensors.get_mut(sensor_id.as_bytes())?;
        Some(work(local.kept.as_mut()?, local.detector.learned()))
    })
}

/// The stored readings of a sensor changed, or will, without its state following: by plain SQL.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn mark_stale(sensor_id: [u8; 16]) -> IotResult<()> {
    mark_stale_in_memory(sensor_id);
    spoil_checkpoints(vec![Uuid::from_bytes(sensor_id)], &[])
}

/// The state of a sensor that this transaction has entered cannot be trusted: it holds a reading that another session stored
/// first, or one that was replaced. Nothing is locked for that in the middle of a batch. The checkpoint on disk is true: what
/// the batch stores beneath it is late, or takes the place of a reading, and that is known before; and while the
/// sensor is touched, no new one is made.
pub fn mark_stale_in_memory(sensor_id: [u8; 16]) {
    transaction::listen(&LISTENER);
    TRANSACTION.with_borrow_mut(|transaction| {
        let local = transaction.sensors.entry(sensor_id).or_insert_with(|| Local {
            handle: sensors::is_available()
                .then(|| sensors::touch_absent(SensorKey::here(sensor_id)))
                .flatten(),
            ..Local::default()
        });
        // Stays when a subtransaction rolls back: a needless rebuild does no harm.
        local.stale = true;
    });
}

/// As [`mark_stale`] for every sensor.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn mark_all_stale() -> IotResult<()> {
    transaction::listen(&LISTENER);
    TRANSACTION.with_borrow_mut(|transaction| {
        transaction.all_stale = true;
        transaction.sensors.values_mut().for_each(|local| local.stale = true);
        if sensors::is_available() {
            transaction.begin_untracked();
        }
    });
    if sensors::is_available() {
        sensor_state::await_writers();
    }
    with_session(sensor_state::spoil_all)
}

/// Whether this transaction has stored readings of the sensor, or changed stored ones past the engine.
pub fn has_touched(sensor_id: Uuid) -> bool {
    TRANSACTION.with_borrow(|transaction| {
        transaction.all_stale || transaction.sensors.contains_key(sensor_id.as_bytes())
    })
}

/// These entries count as written down once the transaction commits.
pub fn note_flushed(keys: impl Iterator<Item = SensorKey>) {
    transaction::listen(&LISTENER);
    TRANSACTION.with_borrow_mut(|transaction| transaction.flushed.extend(keys.map(|key| (key, true))));
}

/// Something about these was left out: they are to be written down again.
pub fn note_left_out(sensor_ids: &HashSet<[u8; 16]>) {
    TRANSACTION.with_borrow_mut(|transaction| {
        let left_out = |key: &SensorKey| sensor_ids.contains(&key.sensor_id);
        transaction.flushed.iter_mut().for_each(|(key, whole)| *whole &= !left_out(key));
    });
}

impl Transaction {
    fn begin_untracked(&mut self) {
        if !self.untracked {
            self.untracked = true;
            sensors::begin_untracked();
        }
    }
}

impl Local {
    /// Claims times up to `newest` again, and takes in what others have committed meanwhile.
    fn touch_again(
        &mut self,
        newest: Timestamp,
        sees_all: bool,
        detector: Option<&mut DetectorCopy>,
    ) -> (Option<Timestamp>, Arrival) {
        let usable = sees_all && !self.stale && self.kept.as_ref().is_some_and(|kept| kept.common);
        let Some(handle) = self.handle.as_mut().filter(|_| usable) else {
            return (None, Arrival::Missing);
        };
        if self.kept.as_ref().is_some_and(|kept| kept.private) {
            // Whoever was building the entry may have done so by now, without the rows of this transaction.
            handle.forget_version();
        }
        let since = sensors::touch_again(handle, newest.0, detector);
        let claimed = Some(Timestamp(handle.claimed_before));
        match (since, &mut self.kept) {
            (sensors::Since::Unchanged, _) => (claimed, Arrival::Same),
            (sensors::Since::Changed(mut state), Some(kept)) => {
                state.merge(&kept.change);
                kept.state = state;
                kept.private = false;
                (claimed, Arrival::Changed)
            }
            (sensors::Since::Lost, _) | (sensors::Since::Changed(_), None) => (None, Arrival::Missing),
        }
    }

    /// Keeps the present state for a rollback of the current subtransaction, once per level.
    fn save(&mut self) {
        let level = transaction::nesting_level();
        if level > 1 && self.saved.last().is_none_or(|saved| saved.level < level) {
            let detector = self.detector.clone();
            self.saved.push(Saved { level, kept: self.kept.clone(), detector, handle: self.handle });
        }
    }
}

fn before_commit() {
    TRANSACTION.with_borrow_mut(|transaction| {
        for local in transaction.sensors.values_mut() {
            local.encoded = local.detector.for_commit().or_raise();
        }
        transaction.announced = true;
        for handle in transaction.sensors.values().filter_map(|local| local.handle.as_ref()) {
            sensors::announce(handle);
        }
    });
}

/// Everything here only copies; the maps are freed without asking PostgreSQL anything.
fn end(committed: bool) {
    let transaction = TRANSACTION.take();
    if committed && transaction.all_stale && sensors::is_available() {
        sensors::mark_all_stale();
    }
    transaction.flushed.iter().for_each(|(key, whole)| flush::end_flush(key, committed && *whole));
    for (key, local) in &transaction.sensors {
        let Some(handle) = local.handle.as_ref().filter(|handle| handle.has_entry()) else {
            // Another session may have begun to track it without seeing our rows.
            if committed && sensors::is_available() {
                sensors::mark_stale(&SensorKey::here(*key));
            }
            continue;
        };
        if !committed {
            sensors::release(handle, transaction.announced);
            continue;
        }
        let outcome = match &local.kept {
            _ if local.stale => sensors::Outcome::Stale,
            Some(kept) if !kept.private => sensors::Outcome::Changed(&kept.state, &kept.change),
            // Private: the entry was absent, or being built by another session, which learns that it missed us.
            _ => sensors::Outcome::Unknown,
        };
        let detector = local.detector.outcome(local.encoded.as_ref());
        sensors::commit(handle, outcome, detector, local.spoiled);
    }
    if transaction.untracked {
        sensors::end_untracked();
    }
}

fn subtransaction_committed(level: i32) {
    TRANSACTION.with_borrow_mut(|transaction| {
        for local in transaction.sensors.values_mut() {
            let Some(last) = local.saved.pop_if(|saved| saved.level == level) else { continue };
            let above = level - 1;
            if above > 1 && local.saved.last().is_none_or(|saved| saved.level < above) {
                local.saved.push(Saved { level: above, ..last });
            }
        }
    });
}

fn subtransaction_rolled_back(level: i32) {
    TRANSACTION.with_borrow_mut(|transaction| {
        for local in transaction.sensors.values_mut() {
            // Whatever was written down about it may be undone.
            local.spoiled = false;
            while let Some(saved) = local.saved.pop_if(|saved| saved.level >= level) {
                local.kept = saved.kept;
                local.detector = saved.detector;
                // What other sessions committed meanwhile is not in it: the commit must not pass over it.
                local.handle = saved.handle;
            }
        }
    });
}
