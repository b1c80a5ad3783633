//! The table of tracked sensors in shared memory.
//!
//! A fixed array of entries, found through hash chains, each chain under one of [`PARTITIONS`] locks. What happens under
//! a lock is copying: nothing there can fail. An entry changes only when the transaction that changed it commits.
//!
//! # The life of an entry
//! A session *touches* a sensor once per transaction. An entry that is absent or stale is given to the first session
//! that touches it to be *built* from the stored readings; until that is done others build their own copy and keep it to
//! themselves. A built entry may be installed only if no commit fell between the builder's snapshot and the end of the
//! build: a committer *announces* itself before its commit can be seen, and marks an entry that is being built as missed.
//!
//! # Detectors
//! The state of a sensor's detector, where it has one of its own, is in a slab attached to the entry. It outlives the
//! entry's becoming stale: then it is no longer *current*, and whoever uses it adds the readings after its newest one.

use std::sync::atomic::{AtomicU64, Ordering};

use iot_core::detect::DetectorState;
use iot_core::sensor_state::{SensorChange, SensorState};

pub use super::slabs::Encoded;
use super::slabs::{self, Attached, Room};
use super::table::{
    ENTRY_BYTES, Entry, NO_ENTRY, Status, allocate, header, visit_database, with_entry, with_entry_at,
};
pub use super::table::{SensorKey, is_available};

/// Figures of the table for people.
#[derive(Clone, Copy, Debug, Default)]
pub struct Occupancy {
    /// Entries there is room for.
    pub capacity: u64,
    /// Entries in use, over all databases.
    pub tracked: u64,
    /// Entries given up to make room.
    pub evicted: u64,
    /// Touches that found no room.
    pub refused: u64,
    /// Entries built from stored readings.
    pub rebuilt: u64,
    /// Commits that met another session's commit on the same sensor.
    pub merged: u64,
    /// Bytes per entry, its part of the hash chains included.
    pub entry_bytes: u64,
}

/// What a session learns when it touches a sensor.
pub enum Touched {
    /// The state as of the last commit.
    Valid(Handle, Box<SensorState>),
    /// To be built by this session, and then [`install`]ed.
    Build(Handle),
    /// No room, or another session is building it: read the stored readings, keep the result private.
    Private(Handle),
}

/// What a transaction remembers of an entry that it touched.
#[derive(Clone, Copy, Debug)]
pub struct Handle {
    key: SensorKey,
    index: u32,
    incarnation: u64,
    version: u64,
    /// Newest time offered by anyone before this touch.
    pub claimed_before: i64,
    /// Whether a checkpoint of it may be on disk.
    pub checkpointed: bool,
    /// Whether one may be on its way there, in a transaction that has not ended.
    pub flushing: bool,
    /// Whether its detector has a slab.
    has_slab: bool,
    /// Version of the detector's state that this transaction goes on from.
    detector_version: u64,
}

/// A copy of the state of a sensor's detector as of the last commit.
#[derive(Default)]
pub struct DetectorCopy {
    bytes: Vec<u8>,
    /// It has seen every reading that the sensor's state has.
    pub is_current: bool,
    /// The sensor had no such detector when a reading came last.
    pub was_unwanted: bool,
}

impl DetectorCopy {
    /// Memory for a copy is taken here, before any lock is.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.reserve(DetectorState::LARGEST_ENCODED_LEN);
        self.is_current = false;
        self.was_unwanted = false;
    }

    fn take(&mut self, detector: &Attached) {
        detector.use_slab();
        self.was_unwanted = detector.unwanted;
        self.is_current = detector.copy_to(&mut self.bytes) && detector.current;
    }

    /// Whether there is nothing to decode.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The state, if there was one.
    pub fn decode(&self) -> Option<DetectorState> {
        DetectorState::decode(&self.bytes)
    }
}

/// Runs `work` on the entry that `handle` touched, if it is still that sensor's.
pub(super) fn with_touched<T>(handle: &Handle, work: impl FnOnce(&mut Entry) -> T) -> Option<T> {
    if handle.index == NO_ENTRY { None } else { with_entry_at(handle.index, &handle.key, work) }
}

/// Touches a sensor for a reading of the time `newest` at the latest. Once per transaction until [`release`] or
/// [`commit`]; `device_id` is kept for the flush. `detector`: gets a copy of the detector's state, where it is wanted.
pub fn touch(
    key: SensorKey,
    device_id: [u8; 16],
    newest: i64,
    mut detector: Option<&mut DetectorCopy>,
) -> Touched {
    let absent = Handle {
        key,
        index: NO_ENTRY,
        incarnation: 0,
        version: 0,
        claimed_before: i64::MAX,
        checkpointed: true,
        flushing: false,
        has_slab: false,
        detector_version: 0,
    };
    if let Some(touched) =
        with_entry(&key, |index, entry| touch_entry(index, entry, newest, detector.as_deref_mut()))
    {
        return touched;
    }
    if !allocate(key, device_id) {
        header().refused.fetch_add(1, Ordering::Relaxed);
        return Touched::Private(absent);
    }
    with_entry(&key, |index, entry| touch_entry(index, entry, newest, detector))
        .unwrap_or(Touched::Private(absent))
}

fn touch_entry(index: u32, entry: &mut Entry, newest: i64, detector: Option<&mut DetectorCopy>) -> Touched {
    entry.used = true;
    if let Some(copy) = detector {
        copy.take(&entry.detector);
    }
    let mut handle = Handle::touching(index, entry);
    match entry.status {
        Status::Valid => {
            handle.claimed_before = entry.claimed;
            entry.claimed = entry.claimed.max(newest);
            Touched::Valid(handle, Box::new(entry.state))
        }
        Status::Stale if entry.committing == 0 => {
            entry.status = Status::Building;
            entry.missed = false;
            entry.incarnation = header().incarnations.fetch_add(1, Ordering::Relaxed) + 1;
            // What others have claimed who are still at work stays claimed.
            entry.claimed = if entry.in_flight > 1 { entry.claimed.max(newest) } else { newest };
            handle.incarnation = entry.incarnation;
            Touched::Build(handle)
        }
        _ => {
            // Whoever builds it learns from this that newer times may be on their way.
            entry.claimed = entry.claimed.max(newest);
            Touched::Private(handle)
        }
    }
}

/// What became of an entry since this transaction touched it.
pub enum Since {
    /// Nothing.
    Unchanged,
    /// Other sessions committed readings (or built it anew, without this transaction's rows): this is the state now.
    Changed(Box<SensorState>),
    /// It is gone, or not to be trusted before it is built anew.
    Lost,
}

/// Claims times up to `newest` for a sensor that this transaction touched before; the handle tells what was claimed by
/// anyone before. `detector`: gets a copy of the detector's state if that is not the one which this transaction goes on from;
/// it then does.
pub fn touch_again(handle: &mut Handle, newest: i64, detector: Option<&mut DetectorCopy>) -> Since {
    let (incarnation, version, detector_version) =
        (handle.incarnation, handle.version, handle.detector_version);
    let found = with_touched(handle, |entry| {
        if entry.status != Status::Valid {
            return None;
        }
        let claimed = entry.claimed;
        entry.claimed = claimed.max(newest);
        if let Some(copy) = detector {
            if entry.detector.version != detector_version {
                copy.take(&entry.detector);
            }
            copy.is_current = entry.detector.current;
        }
        let changed = entry.incarnation != incarnation || entry.version != version;
        let state = changed.then(|| Box::new(entry.state));
        Some((claimed, entry.incarnation, entry.version, entry.detector.version, state))
    });
    let Some(Some((claimed, incarnation, version, detector_version, state))) = found else {
        return Since::Lost;
    };
    handle.claimed_before = claimed;
    handle.incarnation = incarnation;
    handle.version = version;
    handle.detector_version = detector_version;
    state.map_or(Since::Unchanged, Since::Changed)
}

/// Makes sure that the detector of a touched sensor has a slab: until the transaction ends nobody takes it away.
pub fn attach_slab(handle: &mut Handle, room: Room) -> bool {
    if handle.has_slab || !handle.has_entry() {
        return handle.has_slab;
    }
    let (key, index) = (handle.key, handle.index);
    let Some(taken) = slabs::take(room) else { return false };
    let mut taken = Some(taken);
    let attached = with_touched(handle, |entry| {
        // Another session may have been faster.
        if !entry.detector.has_slab()
            && let Some(taken) = taken.take()
        {
            entry.detector.attach(taken, index, &key);
        }
    });
    if let Some(left) = taken {
        slabs::put_back(left);
    }
    handle.has_slab = attached.is_some();
    handle.has_slab
}

/// Copies the state of a touched sensor's detector, from which this transaction then goes on.
pub fn copy_detector(handle: &mut Handle, copy: &mut DetectorCopy) {
    copy.clear();
    let version = with_touched(handle, |entry| {
        copy.take(&entry.detector);
        entry.detector.version
    });
    handle.detector_version = version.unwrap_or(handle.detector_version);
}

/// What a build made of the state of a sensor's detector.
pub enum BuiltDetector<'a> {
    /// Nothing.
    None,
    /// It was in shared memory, and nothing had to be added.
    Unchanged,
    /// This.
    Built(&'a Encoded),
}

/// Gives a built state to everybody, unless a commit was missed meanwhile. Tells whether it did.
pub fn install(handle: &mut Handle, state: &SensorState, detector: BuiltDetector<'_>) -> bool {
    let (incarnation, detector_version) = (handle.incarnation, handle.detector_version);
    let installed = with_touched(handle, |entry| {
        if entry.status != Status::Building || entry.incarnation != incarnation {
            return None;
        }
        if entry.missed {
            entry.status = Status::Stale;
            return None;
        }
        entry.status = Status::Valid;
        entry.state = *state;
        entry.version = 0;
        let before = entry.claimed;
        entry.claimed = before.max(state.window.high_water().map_or(i64::MIN, |newest| newest.0));
        if entry.detector.version == detector_version {
            match detector {
                BuiltDetector::None => (),
                BuiltDetector::Unchanged => entry.detector.current = entry.detector.has_state(),
                BuiltDetector::Built(state) => entry.detector.replace(state, true),
            }
            return Some(entry.detector.version);
        }
        Some(detector_version)
    })
    .flatten();
    if let Some(detector_version) = installed {
        handle.version = 0;
        handle.detector_version = detector_version;
        header().rebuilt.fetch_add(1, Ordering::Relaxed);
    }
    installed.is_some()
}

/// Leaves the build to the next session: what this one can see is not what everybody will.
pub fn abandon(handle: &Handle) {
    with_touched(handle, |entry| {
        if entry.status == Status::Building && entry.incarnation == handle.incarnation {
            entry.status = Status::Stale;
        }
    });
}

/// Says that this transaction is about to commit: before anybody can see its rows.
pub fn announce(handle: &Handle) {
    with_touched(handle, |entry| {
        entry.committing += 1;
        entry.missed |= entry.status == Status::Building;
    });
}

impl Handle {
    /// Counts a transaction that touches the entry.
    fn touching(index: u32, entry: &mut Entry) -> Self {
        entry.in_flight += 1;
        Self {
            key: entry.key,
            index,
            incarnation: entry.incarnation,
            version: entry.version,
            claimed_before: i64::MAX,
            checkpointed: entry.checkpointed,
            flushing: entry.flushing > 0,
            has_slab: entry.detector.has_slab(),
            detector_version: entry.detector.version,
        }
    }

    /// Takes the entry for changed when it is touched again, whatever has become of it.
    pub fn forget_version(&mut self) {
        self.incarnation = 0;
    }

    /// Whether there was an entry to touch.
    pub fn has_entry(&self) -> bool {
        self.index != NO_ENTRY
    }
}

/// What a committed transaction means for an entry.
pub enum Outcome<'a> {
    /// It ends in this state, unless another session changed it since: then it takes in the change.
    Changed(&'a SensorState, &'a SensorChange),
    /// Its stored readings changed in a way that the entry cannot follow.
    Stale,
    /// The transaction stored readings while it had no valid entry.
    Unknown,
}

/// What a committed transaction means for the state of its sensor's detector.
pub enum DetectorOutcome<'a> {
    /// It learned nothing.
    Unchanged,
    /// The sensor has no such detector.
    Unwanted,
    /// It is in the table, where it found no room here.
    InTable,
    /// It ends in this state, unless another session has the newer reading.
    Learned(&'a Encoded),
}

/// Ends a touch of a committed transaction that [`announce`]d itself; `spoiled` when it declared the checkpoint on disk
/// incomplete.
pub fn commit(handle: &Handle, outcome: Outcome<'_>, detector: DetectorOutcome<'_>, spoiled: bool) {
    with_touched(handle, |entry| {
        entry.in_flight = entry.in_flight.saturating_sub(1);
        entry.committing = entry.committing.saturating_sub(1);
        entry.checkpointed &= !spoiled;
        match (entry.status, outcome) {
            (Status::Building, _) => entry.missed = true,
            (Status::Valid, Outcome::Stale | Outcome::Unknown) => stale(entry),
            // Built anew since it was touched: before our rows could be seen (it would have been missed), but without
            // them.
            (Status::Valid, Outcome::Changed(state, change)) if !change.is_empty() => {
                if entry.incarnation == handle.incarnation && entry.version == handle.version {
                    entry.state = *state;
                } else {
                    entry.state.merge(change);
                    header().merged.fetch_add(1, Ordering::Relaxed);
                }
                entry.version += 1;
                entry.dirty = true;
            }
            (Status::Valid, Outcome::Changed(..)) | (Status::Stale | Status::Free, _) => (),
        }
        let is_current = entry.status == Status::Valid;
        match detector {
            DetectorOutcome::Unchanged => (),
            DetectorOutcome::Unwanted => {
                entry.detector.detach();
                entry.detector.unwanted = true;
            }
            DetectorOutcome::InTable => entry.detector.forget(),
            DetectorOutcome::Learned(state) => {
                entry.detector.settle(handle.detector_version, state, is_current);
            }
        }
    });
}

/// Another session committed a state of the detector with a newer reading, or an older one, than this transaction has.
pub fn count_overruled() {
    slabs::count_overruled();
}

/// Touches a sensor whose entry this transaction will make stale, if there is one.
pub fn touch_absent(key: SensorKey) -> Option<Handle> {
    with_entry(&key, Handle::touching)
}

/// Ends a touch of a transaction that rolled back, whether it [`announce`]d a commit or not.
pub fn release(handle: &Handle, announced: bool) {
    with_touched(handle, |entry| {
        entry.in_flight = entry.in_flight.saturating_sub(1);
        if announced {
            entry.committing = entry.committing.saturating_sub(1);
        }
    });
    abandon(handle);
}

/// The stored readings of the sensor changed without its entry, if it has one: not at first, but perhaps by now.
///
/// To be called once they can be seen. Whoever built the entry without seeing them has either installed it by now, or is
/// still building, and misses them.
pub fn mark_stale(key: &SensorKey) {
    with_entry(key, |_, entry| stale(entry));
}

/// The stored readings of every sensor of the current database changed without us.
pub fn mark_all_stale() {
    visit_database(stale);
}

/// A build under way may have read what has changed.
fn stale(entry: &mut Entry) {
    entry.detector.current = false;
    match entry.status {
        Status::Valid => entry.status = Status::Stale,
        Status::Building => entry.missed = true,
        Status::Stale | Status::Free => (),
    }
}

/// Whether there is an entry for the sensor, of whatever worth.
pub fn is_tracked(key: &SensorKey) -> bool {
    with_entry(key, |_, _| ()).is_some()
}

/// Whether there is an entry for any sensor of the current database.
pub fn tracks_any() -> bool {
    let mut any = false;
    visit_database(|_| any = true);
    any
}

/// The committed state of a sensor, if it is tracked and valid, and no commit that can be seen already is yet to reach it.
pub fn peek(key: &SensorKey) -> Option<Box<SensorState>> {
    with_entry(key, |_, entry| {
        (entry.status == Status::Valid && entry.committing == 0).then(|| Box::new(entry.state))
    })
    .flatten()
}

/// This transaction will change readings of sensors whose entries do not know of it. Until [`end_untracked`] nothing is a
/// checkpoint.
pub fn begin_untracked() {
    header().untracked.fetch_add(1, Ordering::SeqCst);
    header().untracked_begun.fetch_add(1, Ordering::SeqCst);
}

/// Ends what [`begin_untracked`] began, once the entries concerned are stale.
pub fn end_untracked() {
    header().untracked.fetch_sub(1, Ordering::SeqCst);
}

/// Figures over all databases.
pub fn occupancy() -> Occupancy {
    let header = header();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Occupancy {
        capacity: u64::from(header.capacity),
        tracked: read(&header.tracked),
        evicted: read(&header.evicted),
        refused: read(&header.refused),
        rebuilt: read(&header.rebuilt),
        merged: read(&header.merged),
        entry_bytes: ENTRY_BYTES as u64,
    }
}
