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

use std::sync::atomic::{AtomicU64, Ordering};

use iot_core::sensor_state::{SensorChange, SensorState};

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
}

/// Runs `work` on the entry that `handle` touched, if it is still that sensor's.
fn with_touched<T>(handle: &Handle, work: impl FnOnce(&mut Entry) -> T) -> Option<T> {
    if handle.index == NO_ENTRY { None } else { with_entry_at(handle.index, &handle.key, work) }
}

/// Touches a sensor for a reading of the time `newest` at the latest. Once per transaction until [`release`] or
/// [`commit`]; `device_id` is kept for the flush.
pub fn touch(key: SensorKey, device_id: [u8; 16], newest: i64) -> Touched {
    let absent = Handle {
        key,
        index: NO_ENTRY,
        incarnation: 0,
        version: 0,
        claimed_before: i64::MAX,
        checkpointed: true,
        flushing: false,
    };
    if let Some(touched) = with_entry(&key, |index, entry| touch_entry(index, entry, newest)) {
        return touched;
    }
    if !allocate(key, device_id) {
        header().refused.fetch_add(1, Ordering::Relaxed);
        return Touched::Private(absent);
    }
    with_entry(&key, |index, entry| touch_entry(index, entry, newest)).unwrap_or(Touched::Private(absent))
}

fn touch_entry(index: u32, entry: &mut Entry, newest: i64) -> Touched {
    entry.used = true;
    entry.in_flight += 1;
    let mut handle = Handle {
        key: entry.key,
        index,
        incarnation: entry.incarnation,
        version: entry.version,
        claimed_before: i64::MAX,
        checkpointed: entry.checkpointed,
        flushing: entry.flushing > 0,
    };
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
            entry.claimed = newest;
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
/// anyone before.
pub fn touch_again(handle: &mut Handle, newest: i64) -> Since {
    let (incarnation, version) = (handle.incarnation, handle.version);
    let found = with_touched(handle, |entry| {
        if entry.status != Status::Valid {
            return None;
        }
        let claimed = entry.claimed;
        entry.claimed = claimed.max(newest);
        let changed = entry.incarnation != incarnation || entry.version != version;
        Some((claimed, entry.incarnation, entry.version, changed.then(|| Box::new(entry.state))))
    });
    let Some(Some((claimed, incarnation, version, state))) = found else { return Since::Lost };
    handle.claimed_before = claimed;
    handle.incarnation = incarnation;
    handle.version = version;
    state.map_or(Since::Unchanged, Since::Changed)
}

/// Gives a built state to everybody, unless a commit was missed meanwhile. Tells whether it did.
pub fn install(handle: &mut Handle, state: &SensorState) -> bool {
    let incarnation = handle.incarnation;
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
        Some(entry.claimed)
    })
    .flatten();
    if installed.is_some() {
        handle.version = 0;
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

/// Ends a touch of a committed transaction that [`announce`]d itself; `spoiled` when it declared the checkpoint on disk
/// incomplete.
pub fn commit(handle: &Handle, outcome: Outcome<'_>, spoiled: bool) {
    with_touched(handle, |entry| {
        entry.in_flight = entry.in_flight.saturating_sub(1);
        entry.committing = entry.committing.saturating_sub(1);
        entry.checkpointed &= !spoiled;
        match (entry.status, outcome) {
            (Status::Building, _) => entry.missed = true,
            (Status::Valid, Outcome::Stale | Outcome::Unknown) => entry.status = Status::Stale,
            (Status::Valid, Outcome::Changed(state, change)) => {
                // Built anew since it was touched: before our rows could be seen (it would have been missed), but
                // without them.
                if change.is_empty() {
                    return;
                }
                if entry.incarnation == handle.incarnation && entry.version == handle.version {
                    entry.state = *state;
                } else {
                    entry.state.merge(change);
                    header().merged.fetch_add(1, Ordering::Relaxed);
                }
                entry.version += 1;
                entry.dirty = true;
            }
            (Status::Stale | Status::Free, _) => (),
        }
    });
}

/// Touches a sensor whose entry this transaction will make stale, if there is one.
pub fn touch_absent(key: SensorKey) -> Option<Handle> {
    with_entry(&key, |index, entry| {
        entry.in_flight += 1;
        Handle {
            key,
            index,
            incarnation: entry.incarnation,
            version: entry.version,
            claimed_before: i64::MAX,
            checkpointed: entry.checkpointed,
            flushing: entry.flushing > 0,
        }
    })
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

/// A changed entry on its way to disk.
pub struct Unflushed {
    /// The sensor.
    pub sensor_id: [u8; 16],
    /// Its device.
    pub device_id: [u8; 16],
    /// Its state.
    pub state: SensorState,
    /// Whether the state may serve as a checkpoint: no transaction was writing the sensor.
    pub is_checkpoint: bool,
    /// Tells [`was_spoiled`] what happened since.
    spoils: u32,
    untracked_begun: u64,
}

/// Copies of the current database's changed entries, which count as flushed from now on.
///
/// Memory for `limit` of them is taken before any lock is.
pub fn take_unflushed(limit: usize) -> Vec<Unflushed> {
    let mut taken = Vec::with_capacity(limit);
    // Read first: who begins after this is noticed by `was_spoiled`.
    let untracked_begun = header().untracked_begun.load(Ordering::SeqCst);
    let all_tracked = header().untracked.load(Ordering::SeqCst) == 0;
    visit_database(|entry| {
        if entry.dirty && entry.status == Status::Valid && taken.len() < limit {
            let is_checkpoint = entry.in_flight == 0 && all_tracked;
            entry.dirty = !is_checkpoint;
            entry.checkpointed |= is_checkpoint;
            entry.flushing += 1;
            taken.push(Unflushed {
                sensor_id: entry.key.sensor_id,
                device_id: entry.device_id,
                state: entry.state,
                is_checkpoint,
                spoils: entry.spoils,
                untracked_begun,
            });
        }
    });
    taken
}

/// Says that a state on its way to disk is incomplete, before the row on disk is told so.
///
/// A state is written down in three steps: take, write, ask [`was_spoiled`]. One that is spoiled tells its entry, and then
/// the row. If the question came too early for the first, then the row was there for the second, which waits for its writer.
pub fn spoil_flushing(handle: &Handle) {
    with_touched(handle, |entry| entry.spoils = entry.spoils.wrapping_add(1));
}

/// Whether a state that was taken and written as a checkpoint turned out not to be one. To be asked when it is written.
pub fn was_spoiled(taken: &Unflushed) -> bool {
    let key = SensorKey::here(taken.sensor_id);
    let spoils = with_entry(&key, |_, entry| entry.spoils);
    spoils != Some(taken.spoils) || header().untracked_begun.load(Ordering::SeqCst) != taken.untracked_begun
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

/// The transaction that wrote the entry down has ended; if it rolled back, the change is still to be written.
pub fn end_flush(key: &SensorKey, committed: bool) {
    with_entry(key, |_, entry| {
        entry.flushing = entry.flushing.saturating_sub(1);
        entry.dirty |= !committed;
    });
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
