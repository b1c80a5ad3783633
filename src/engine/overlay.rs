//! The state of sensors as this transaction sees it: the shared state, and on top what the transaction did itself.
//!
//! Shared memory learns of it when the transaction commits, and never of what rolled back.

use std::cell::RefCell;

use iot_core::sensor_state::{SensorChange, SensorState};
use iot_core::time::Timestamp;
use pgrx::Uuid;

use super::directory::KeyMap;
use crate::pg::shared::sensors::{self, Handle, SensorKey, Touched};
use crate::pg::transaction::{self, Listener};

/// A sensor touched by this transaction.
struct Local {
    /// The touch to end with the transaction; none where there is no shared memory.
    handle: Option<Handle>,
    /// The state, where one is kept: a private one is read anew by each call.
    kept: Option<Kept>,
    /// The shared entry cannot be brought forward by `kept`: rows were written that are not in it.
    stale: bool,
    /// What to go back to when the subtransaction at that level rolls back, innermost last. A state and the touch that
    /// tells its version belong together: with a newer version the commit would overwrite what others did.
    saved: Vec<(i32, Option<Kept>, Option<Handle>)>,
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
}

thread_local! {
    static TRANSACTION: RefCell<Transaction> = RefCell::default();
}

static LISTENER: Listener = Listener {
    is_concerned: || {
        TRANSACTION.with_borrow(|transaction| transaction.all_stale || !transaction.sensors.is_empty())
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
        let usable = local.kept.as_ref().is_some_and(|kept| !kept.private) && !local.stale;
        if usable {
            local.save();
        }
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
    let mut local = Local { handle: None, kept: None, stale: all_stale, saved: Vec::new() };
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

/// The stored readings of a sensor changed, or will, without its state following: by plain SQL, or at a conflict.
pub fn mark_stale(sensor_id: [u8; 16]) {
    transaction::listen(&LISTENER);
    TRANSACTION.with_borrow_mut(|transaction| {
        let local = transaction.sensors.entry(sensor_id).or_insert_with(|| Local {
            handle: sensors::is_available()
                .then(|| sensors::touch_absent(SensorKey::here(sensor_id)))
                .flatten(),
            kept: None,
            stale: false,
            saved: Vec::new(),
        });
        // Stays when a subtransaction rolls back: a needless rebuild does no harm.
        local.stale = true;
    });
}

/// As [`mark_stale`] for every sensor.
pub fn mark_all_stale() {
    transaction::listen(&LISTENER);
    TRANSACTION.with_borrow_mut(|transaction| {
        transaction.all_stale = true;
        transaction.sensors.values_mut().for_each(|local| local.stale = true);
    });
}

impl Local {
    /// Keeps the present state for a rollback of the current subtransaction, once per level.
    fn save(&mut self) {
        let level = transaction::nesting_level();
        if level > 1 && self.saved.last().is_none_or(|&(saved, ..)| saved < level) {
            self.saved.push((level, self.kept.clone(), self.handle));
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
    for local in transaction.sensors.values() {
        let Some(handle) = &local.handle else { continue };
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
        sensors::commit(handle, outcome);
    }
}

fn subtransaction_committed(level: i32) {
    TRANSACTION.with_borrow_mut(|transaction| {
        for local in transaction.sensors.values_mut() {
            let Some(last) = local.saved.pop_if(|(saved, ..)| *saved == level) else { continue };
            let above = level - 1;
            if above > 1 && local.saved.last().is_none_or(|&(saved, ..)| saved < above) {
                local.saved.push((above, last.1, last.2));
            }
        }
    });
}

fn subtransaction_rolled_back(level: i32) {
    TRANSACTION.with_borrow_mut(|transaction| {
        for local in transaction.sensors.values_mut() {
            while let Some((_, kept, handle)) = local.saved.pop_if(|(saved, ..)| *saved >= level) {
                local.kept = kept;
                local.handle = handle;
            }
        }
    });
}
