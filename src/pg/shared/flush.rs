//! Changed entries on their way to disk.
//!
//! An entry is written down in three steps: taken, written, and asked whether it was spoiled meanwhile.

use std::ops::Range;
use std::sync::atomic::Ordering;

use iot_core::detect::DetectorState;
use iot_core::sensor_state::SensorState;

use super::sensors::{Handle, SensorKey, with_touched};
use super::slabs;
use super::table::{Entry, Status, header, visit_database, with_entry};

/// A changed entry on its way to disk.
pub struct Unflushed {
    /// The sensor.
    pub sensor_id: [u8; 16],
    /// Its device.
    pub device_id: [u8; 16],
    /// Its state; `None` where that is stale, and only the detector's is to be written.
    pub state: Option<SensorState>,
    /// Whether the state may serve as a checkpoint: no transaction was writing the sensor.
    pub is_checkpoint: bool,
    /// Where [`Flushing::detectors`] has the state of its detector, if that has changed.
    pub detector: Option<Range<usize>>,
    /// It has no detector with a state.
    pub has_no_detector: bool,
    /// Tells [`was_spoiled`] what happened since.
    spoils: u32,
    untracked_begun: u64,
}

/// Changed entries on their way to disk.
pub struct Flushing {
    /// The entries.
    pub taken: Vec<Unflushed>,
    /// Byte forms of detectors.
    pub detectors: Vec<u8>,
    /// How many of the keys were looked at.
    pub seen: usize,
}

/// Whether it holds what is not on disk.
pub(super) fn is_unflushed(entry: &Entry) -> bool {
    entry.dirty && entry.status == Status::Valid || entry.detector.dirty
}

/// The current database's changed entries, in the order in which everybody locks their rows.
pub fn unflushed() -> Vec<SensorKey> {
    let most = usize::try_from(header().tracked.load(Ordering::Relaxed)).unwrap_or(0);
    let mut keys = Vec::with_capacity(most);
    visit_database(|entry| {
        // Under a lock no memory is taken; entries that came meanwhile are for the next time.
        if is_unflushed(entry) && keys.len() < most {
            keys.push(entry.key);
        }
    });
    keys.sort_unstable_by_key(|key| key.sensor_id);
    keys
}

/// Copies of the entries of the first of `keys`, as far as they are still changed; they count as flushed from now on.
///
/// Memory for `limit` of them, and for `detector_limit` states of detectors, is taken before any lock is.
pub fn take_unflushed(keys: &[SensorKey], limit: usize, detector_limit: usize) -> Flushing {
    let most = detector_limit.min(slabs::slab_occupancy().in_use as usize).max(1);
    let mut batch = Flushing {
        taken: Vec::with_capacity(limit.min(keys.len())),
        detectors: Vec::with_capacity(most * DetectorState::LARGEST_ENCODED_LEN),
        seen: 0,
    };
    // Read first: who begins after this is noticed by `was_spoiled`.
    let untracked_begun = header().untracked_begun.load(Ordering::SeqCst);
    let all_tracked = header().untracked.load(Ordering::SeqCst) == 0;
    for key in &keys[..limit.min(keys.len())] {
        let has_room = with_entry(key, |_, entry| {
            if !is_unflushed(entry) {
                return true;
            }
            let start = batch.detectors.len();
            if entry.detector.dirty && !entry.detector.copy_to(&mut batch.detectors) {
                // What does not fit into an empty copy is not there.
                return start == 0;
            }
            let detector = entry.detector.dirty.then_some(start..batch.detectors.len());
            entry.detector.dirty = false;
            let has_state = entry.dirty && entry.status == Status::Valid;
            let is_checkpoint = has_state && entry.in_flight == 0 && all_tracked;
            entry.dirty &= !is_checkpoint;
            entry.checkpointed |= is_checkpoint;
            entry.flushing += 1;
            batch.taken.push(Unflushed {
                sensor_id: entry.key.sensor_id,
                device_id: entry.device_id,
                state: has_state.then_some(entry.state),
                is_checkpoint,
                detector,
                has_no_detector: entry.detector.unwanted,
                spoils: entry.spoils,
                untracked_begun,
            });
            true
        });
        if has_room == Some(false) {
            break;
        }
        batch.seen += 1;
    }
    batch
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

/// The transaction that took the entry to write it down has ended; if it rolled back, or left something out, the change is
/// still to be written.
pub fn end_flush(key: &SensorKey, committed: bool) {
    with_entry(key, |_, entry| {
        entry.flushing = entry.flushing.saturating_sub(1);
        entry.dirty |= !committed;
        entry.detector.dirty |= !committed && entry.detector.has_state();
    });
}
