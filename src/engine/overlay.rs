//! The state of sensors as this transaction sees it: the shared state, and on top what the transaction did itself.
//!
//! Shared memory learns of it when the transaction commits, and never of what rolled back.

use std::cell::RefCell;

use iot_core::sensor_state::{SensorChange, SensorState};
use iot_core::time::Timestamp;
use pgrx::Uuid;

use super::directory::KeyMap;
use super::profile::Profile;
use crate::catalog::sensor_state::{self, Written};
use crate::error::IotResult;
use crate::pg::shared::sensors::{self, Handle, SensorKey, Touched};
use crate::pg::statement::with_session;
use crate::pg::transaction::{self, Listener};

/// A sensor touched by this transaction.
struct Local {
    /// The touch to end with the transaction; none where there is no shared memory.
    handle: Option<Handle>,
    /// The state, where one is kept: a private one is read anew by each call.
    kept: Option<Kept>,
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
    /// The version of the shared state that `kept` began with.
    version: Option<u64>,
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
}

#[derive(Default)]
struct Transaction {
    sensors: KeyMap<Local>,
    /// Every sensor's stored readings may have changed past the engine (TRUNCATE, DROP).
    all_stale: bool,
    announced: bool,
    /// Entries whose change this transaction writes down.
    flushed: Vec<SensorKey>,
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
pub enum Entered {
    /// The state is there. Readings of that sensor newer than this time are in no other transaction either.
    Ready(Timestamp),
    /// The state has to be built from the stored readings and then given to [`provide`].
    Missing,
}

/// Begins to work on a sensor in one call, with readings up to `newest`.
pub fn enter(sensor_id: Uuid, device_id: Uuid, newest: Timestamp) -> Entered {
    transaction::listen(&LISTENER);
    TRANSACTION.with_borrow_mut(|transaction| {
        let key = *sensor_id.as_bytes();
        let all_stale = transaction.all_stale;
        let Some(local) = transaction.sensors.get_mut(&key) else {
            let (local, entered) = touch(key, *device_id.as_bytes(), newest, all_stale);
            transaction.sensors.insert(key, local);
            return entered;
        };
        local.save();
        let usable = local.kept.as_ref().is_some_and(|kept| !kept.private) && !local.stale;
        let Some(handle) = local.handle.as_mut().filter(|_| usable) else {
            return Entered::Missing;
        };
        let newer = sensors::touch_again(handle, newest.0);
        let claimed = handle.claimed_before;
        if let (Some(kept), Some(mut state)) = (&mut local.kept, newer) {
            state.merge(&kept.change);
            kept.state = state;
        }
        Entered::Ready(Timestamp(claimed))
    })
}

fn touch(key: [u8; 16], device_id: [u8; 16], newest: Timestamp, all_stale: bool) -> (Local, Entered) {
    let mut local = Local { handle: None, kept: None, stale: all_stale, spoiled: false, saved: Vec::new() };
    if !sensors::is_available() {
        return (local, Entered::Missing);
    }
    let entered = match sensors::touch(SensorKey::here(key), device_id, newest.0) {
        Touched::Valid(handle, state) if !all_stale => {
            let claimed = handle.claimed_before;
            local.handle = Some(handle);
            local.kept = Some(Kept { state, change: SensorChange::default(), private: false });
            Entered::Ready(Timestamp(claimed))
        }
        Touched::Valid(handle, _) | Touched::Private(handle) | Touched::Build(handle) => {
            local.handle = Some(handle);
            Entered::Missing
        }
    };
    local.save();
    (local, entered)
}

/// Gives a sensor the state that was built from its stored readings, as this transaction sees them.
pub fn provide(sensor_id: Uuid, state: SensorState) {
    TRANSACTION.with_borrow_mut(|transaction| {
        let Some(local) = transaction.sensors.get_mut(sensor_id.as_bytes()) else { return };
        // What we see is what everybody sees only with a snapshot of now, and without rows of our own among it.
        let common = !transaction::keeps_its_snapshot() && !local.stale && local.kept.is_none();
        let installed = match &mut local.handle {
            Some(handle) if common => sensors::install(handle, &state),
            Some(handle) => {
                sensors::abandon(handle);
                false
            }
            None => false,
        };
        local.save();
        local.kept =
            Some(Kept { state: Box::new(state), change: SensorChange::default(), private: !installed });
    });
}

/// Runs `work` on the state of a sensor that was entered (and provided, if it was missing).
pub fn with_state<T>(sensor_id: Uuid, work: impl FnOnce(&mut Kept) -> T) -> Option<T> {
    TRANSACTION.with_borrow_mut(|transaction| {
        transaction.sensors.get_mut(sensor_id.as_bytes()).and_then(|local| local.kept.as_mut()).map(work)
    })
}

/// The states that only this session has, of those of `profiles` that the transaction changed.
pub fn private_states<'a>(profiles: impl Iterator<Item = &'a Profile>) -> Vec<Written> {
    TRANSACTION.with_borrow(|transaction| {
        profiles
            .filter_map(|profile| {
                let kept = transaction.sensors.get(profile.sensor_id.as_bytes())?.kept.as_ref()?;
                (kept.private && !kept.change.is_empty()).then_some(Written {
                    sensor_id: profile.sensor_id,
                    device_id: profile.device_id,
                    is_checkpoint: false,
                    state: *kept.state,
                })
            })
            .collect()
    })
}

/// Readings older than their sensor's newest were stored: a checkpoint on disk does not have them, and nobody could tell.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn spoil_checkpoints(mut sensor_ids: Vec<Uuid>) -> IotResult<()> {
    TRANSACTION.with_borrow_mut(|transaction| {
        sensor_ids.retain(|sensor_id| {
            let Some(local) = transaction.sensors.get_mut(sensor_id.as_bytes()) else { return true };
            let may_be_there =
                local.handle.as_ref().is_none_or(|handle| handle.checkpointed) && !local.spoiled;
            local.spoiled = true;
            may_be_there
        });
    });
    if sensor_ids.is_empty() {
        return Ok(());
    }
    with_session(|session| sensor_state::spoil(session, sensor_ids))
}

/// The stored readings of a sensor changed, or will, without its state following: by plain SQL, or at a conflict.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn mark_stale(sensor_id: [u8; 16]) -> IotResult<()> {
    transaction::listen(&LISTENER);
    TRANSACTION.with_borrow_mut(|transaction| {
        let local = transaction.sensors.entry(sensor_id).or_insert_with(|| Local {
            handle: sensors::is_available()
                .then(|| sensors::touch_absent(SensorKey::here(sensor_id)))
                .flatten(),
            kept: None,
            stale: false,
            spoiled: false,
            saved: Vec::new(),
        });
        // Stays when a subtransaction rolls back: a needless rebuild does no harm.
        local.stale = true;
    });
    spoil_checkpoints(vec![Uuid::from_bytes(sensor_id)])
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
    });
    with_session(sensor_state::spoil_all)
}

/// These entries count as written down once the transaction commits.
pub fn note_flushed(keys: impl Iterator<Item = SensorKey>) {
    transaction::listen(&LISTENER);
    TRANSACTION.with_borrow_mut(|transaction| transaction.flushed.extend(keys));
}

impl Local {
    /// Keeps the present state for a rollback of the current subtransaction, once per level.
    fn save(&mut self) {
        let level = transaction::nesting_level();
        if level > 1 && self.saved.last().is_none_or(|saved| saved.level < level) {
            let version = self.handle.as_ref().map(Handle::version);
            self.saved.push(Saved { level, kept: self.kept.clone(), version });
        }
    }
}

fn before_commit() {
    TRANSACTION.with_borrow_mut(|transaction| {
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
    if !committed {
        transaction.flushed.iter().for_each(sensors::mark_dirty);
    }
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
        sensors::commit(handle, outcome, local.spoiled);
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
                // What other sessions committed meanwhile is not in it: the commit must not pass over it.
                if let (Some(handle), Some(version)) = (&mut local.handle, saved.version) {
                    handle.set_version(version);
                }
            }
        }
    });
}
