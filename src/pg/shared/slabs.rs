//! States of detectors in shared memory: slabs of one size, each attached to the entry of a tracked sensor.
//!
//! A slab is on the free list, in the hands of the one session that took it, or attached to an entry. What is attached, and
//! its bytes, change under the lock of that entry; the free list and the clock hand are under the lock of allocation.

use std::sync::atomic::{AtomicU64, Ordering};

use iot_core::detect::DetectorState;
use pgrx::pg_sys;

use super::table::{self, NO_ENTRY, SensorKey, try_with_entry_at, with_allocation};

/// Room for the byte form of every detector, in whole cache lines.
const SLAB_BYTES: usize = DetectorState::LARGEST_ENCODED_LEN.next_multiple_of(64);

const NO_SLAB: u32 = u32::MAX;

/// What an entry knows of its sensor's detector.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Attached {
    slab: u32,
    /// Bytes in use; 0 for none: the state has to be found again.
    length: u32,
    /// Newest reading that the state has learned from.
    newest: i64,
    /// Changes whenever the state does.
    pub(super) version: u64,
    /// It has seen every reading that the window has.
    pub(super) current: bool,
    /// What is on disk is older.
    pub(super) dirty: bool,
    /// The sensor has no such detector, by whoever committed last: what is on disk is of no use.
    pub(super) unwanted: bool,
}

impl Attached {
    pub(super) const NONE: Self = Self {
        slab: NO_SLAB,
        length: 0,
        newest: i64::MIN,
        version: 0,
        current: false,
        dirty: false,
        unwanted: false,
    };

    pub(super) fn has_slab(&self) -> bool {
        self.slab != NO_SLAB
    }

    pub(super) fn has_state(&self) -> bool {
        self.has_slab() && self.length > 0
    }

    /// The slab was used since the clock hand last came by.
    pub(super) fn use_slab(&self) {
        if self.has_slab() {
            // SAFETY: attached, and the caller holds the entry's lock, as for every method here.
            unsafe { (*slab(self.slab)).used = true };
        }
    }

    /// Appends the state's bytes to `copy`, whose memory was taken before the lock was: where it does not suffice, nothing is
    /// copied. Tells whether it was.
    pub(super) fn copy_to(&self, copy: &mut Vec<u8>) -> bool {
        let length = self.length as usize;
        let fits = self.has_state() && copy.capacity() - copy.len() >= length;
        if fits {
            // SAFETY: attached; `length` bytes were written there.
            copy.extend_from_slice(unsafe { &(&(*slab(self.slab)).bytes)[..length] });
        }
        fits
    }

    /// Replaces the state, if there is a slab for it.
    pub(super) fn replace(&mut self, state: &Encoded, current: bool) {
        if !self.has_slab() || state.bytes.len() > SLAB_BYTES {
            return;
        }
        // SAFETY: attached; the length was compared.
        unsafe { (&mut (*slab(self.slab)).bytes)[..state.bytes.len()].copy_from_slice(&state.bytes) };
        self.length = state.bytes.len() as u32;
        self.newest = state.newest;
        self.version += 1;
        self.current = current;
        self.dirty = true;
        self.unwanted = false;
    }

    /// As [`Self::replace`], unless another session changed it since `version` and has the newer reading.
    pub(super) fn settle(&mut self, version: u64, state: &Encoded, current: bool) {
        if self.version != version {
            header().overruled.fetch_add(1, Ordering::Relaxed);
            if self.has_state() && self.newest > state.newest {
                return;
            }
        }
        self.replace(state, current);
    }

    /// The state is not that of the sensor any more; the slab stays.
    pub(super) fn forget(&mut self) {
        *self = Self { slab: self.slab, version: self.version + 1, ..Self::NONE };
    }

    /// Gives the slab back. The order of locks is entry, then allocation.
    pub(super) fn detach(&mut self) {
        let detached = self.unhand();
        if detached != NO_SLAB {
            give_back(detached);
        }
    }

    fn unhand(&mut self) -> u32 {
        let detached = self.slab;
        self.forget();
        self.slab = NO_SLAB;
        if detached != NO_SLAB {
            // SAFETY: attached until now, and the caller holds the entry's lock.
            unsafe { (*slab(detached)).owner = NO_ENTRY };
        }
        detached
    }

    /// Attaches a slab that was taken.
    pub(super) fn attach(&mut self, taken: Taken, index: u32, key: &SensorKey) {
        // SAFETY: taken, so nobody else has it.
        unsafe {
            let slab = slab(taken.0);
            (*slab).key = *key;
            (*slab).owner = index;
            (*slab).used = true;
        }
        self.slab = taken.0;
        self.length = 0;
    }
}

/// The byte form of a detector's state, on its way into a slab.
pub struct Encoded {
    bytes: Vec<u8>,
    newest: i64,
}

impl Encoded {
    /// `None` where there is no memory for it.
    pub fn of(state: &DetectorState) -> Option<Self> {
        let length = DetectorState::encoded_len(state.kind());
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).ok()?;
        bytes.resize(length, 0);
        state.encode(&mut bytes).then(|| Self { bytes, newest: state.newest().0 })
    }
}

#[repr(C, align(64))]
struct Slab {
    bytes: [u8; SLAB_BYTES],
    /// The sensor whose entry it is attached to.
    key: SensorKey,
    /// That entry; [`NO_ENTRY`] while it is attached to none.
    owner: u32,
    /// Next on the free list.
    next: u32,
    /// Used since the clock hand last came by.
    used: bool,
}

#[repr(C, align(64))]
struct Header {
    capacity: u32,
    free: u32,
    clock_hand: u32,
    in_use: AtomicU64,
    evicted: AtomicU64,
    refused: AtomicU64,
    overruled: AtomicU64,
}

static mut HEADER: *mut Header = std::ptr::null_mut();
static mut SLABS: *mut Slab = std::ptr::null_mut();

/// Without tracked sensors there is nothing to attach slabs to.
fn capacity() -> usize {
    if crate::guc::max_tracked_sensors() == 0 { 0 } else { crate::guc::max_tracked_detectors() }
}

fn bytes(capacity: usize) -> usize {
    size_of::<Header>() + 64 + capacity * size_of::<Slab>()
}

pub(super) fn request() {
    // SAFETY: called from the request hook.
    unsafe { pg_sys::RequestAddinShmemSpace(bytes(capacity())) };
}

pub(super) fn startup() {
    let capacity = capacity();
    // SAFETY: as for the table of sensors: nobody else sees the memory yet, which has the size asked for.
    unsafe {
        let mut found = false;
        let start: *mut u8 =
            pg_sys::ShmemInitStruct(c"iot_ext detectors".as_ptr(), bytes(capacity), &mut found).cast();
        let aligned = start.add(start.align_offset(64));
        HEADER = aligned.cast();
        SLABS = aligned.add(size_of::<Header>()).cast();
        if found {
            return;
        }
        HEADER.write(Header {
            capacity: capacity as u32,
            free: if capacity == 0 { NO_SLAB } else { 0 },
            clock_hand: 0,
            in_use: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            overruled: AtomicU64::new(0),
        });
        for index in 0..capacity {
            let slab = SLABS.add(index);
            std::ptr::write_bytes(slab.cast::<u8>(), 0, size_of::<Slab>());
            (*slab).owner = NO_ENTRY;
            (*slab).next = if index + 1 == capacity { NO_SLAB } else { index as u32 + 1 };
        }
    }
}

fn header() -> &'static Header {
    // SAFETY: set by the postmaster before this process was forked; callers have seen an entry, or checked that there are
    // any. The fields read through this reference are atomic or never change.
    unsafe { &*HEADER }
}

/// # Safety
/// `index` is below the capacity. What is behind the pointer belongs to whoever has the slab (see the head of this file).
unsafe fn slab(index: u32) -> *mut Slab {
    // SAFETY: within the array.
    unsafe { SLABS.add(index as usize) }
}

/// A slab in the hands of this session.
pub(super) struct Taken(u32);

/// Where room for a detector comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// A free slab, or that of a quiet sensor; it is counted when there is neither.
    Made,
    /// A free slab.
    IfFree,
}

/// Takes a slab.
pub(super) fn take(room: Room) -> Option<Taken> {
    if header().capacity == 0 {
        return None;
    }
    let taken = take_free().or_else(|| if room == Room::Made { evict() } else { None });
    if taken.is_none() && room == Room::Made {
        header().refused.fetch_add(1, Ordering::Relaxed);
    }
    taken.map(Taken)
}

/// Gives back one that was not needed after all.
pub(super) fn put_back(taken: Taken) {
    give_back(taken.0);
}

fn take_free() -> Option<u32> {
    // SAFETY: the free list is changed under the lock of allocation only; what is on it belongs to nobody.
    let free = with_allocation(|| unsafe {
        let index = (*HEADER).free;
        (index != NO_SLAB).then(|| {
            (*HEADER).free = (*slab(index)).next;
            index
        })
    })?;
    header().in_use.fetch_add(1, Ordering::Relaxed);
    Some(free)
}

fn give_back(index: u32) {
    // SAFETY: as above; the caller has the slab.
    with_allocation(|| unsafe {
        (*slab(index)).next = (*HEADER).free;
        (*HEADER).free = index;
    });
    header().in_use.fetch_sub(1, Ordering::Relaxed);
}

/// Second chance, as for entries: a slab goes alone, while its sensor stays tracked. A search gives up before it has seen all
/// of very many: the next one goes on where it ended.
fn evict() -> Option<u32> {
    const LONGEST_SEARCH: u64 = 512;
    let capacity = header().capacity;
    let mut unwritten = None;
    for step in 0..(2 * u64::from(capacity)).min(LONGEST_SEARCH) {
        // SAFETY: the hand moves under the lock of allocation only.
        let index = with_allocation(|| unsafe {
            let hand = (*HEADER).clock_hand;
            (*HEADER).clock_hand = (hand + 1) % capacity;
            hand
        });
        match try_evict(index, false) {
            Eviction::Done => return Some(index),
            Eviction::Unwritten if step < u64::from(capacity) => unwritten = unwritten.or(Some(index)),
            Eviction::Unwritten | Eviction::Refused => (),
        }
    }
    let index = unwritten.filter(|&index| matches!(try_evict(index, true), Eviction::Done))?;
    // SAFETY: as above. The next search begins behind it.
    with_allocation(|| unsafe { (*HEADER).clock_hand = (index + 1) % capacity });
    Some(index)
}

enum Eviction {
    Done,
    /// Quiet, but its state is not on disk.
    Unwritten,
    /// In use, or in somebody's hands.
    Refused,
}

fn try_evict(index: u32, even_unwritten: bool) -> Eviction {
    // SAFETY: read without the entry's lock, so both may be torn or of different moments; they only choose which entry to
    // look at, and are compared under its lock.
    let (key, owner) = unsafe {
        let slab = slab(index);
        (std::ptr::read_volatile(&raw const (*slab).key), std::ptr::read_volatile(&raw const (*slab).owner))
    };
    if owner >= table::header().capacity {
        return Eviction::Refused;
    }
    let outcome = try_with_entry_at(owner, &key, |entry| {
        if entry.detector.slab != index {
            return Eviction::Refused;
        }
        // SAFETY: attached to this entry, whose lock is held.
        let used = unsafe { &mut (*slab(index)).used };
        if *used || entry.in_flight > 0 || entry.flushing > 0 {
            *used = false;
            return Eviction::Refused;
        }
        if entry.detector.dirty && !even_unwritten {
            return Eviction::Unwritten;
        }
        entry.detector.unhand();
        header().evicted.fetch_add(1, Ordering::Relaxed);
        Eviction::Done
    });
    outcome.unwrap_or(Eviction::Refused)
}

/// Figures of the slabs for people.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlabOccupancy {
    /// Slabs there are.
    pub capacity: u64,
    /// Slabs in use, over all databases.
    pub in_use: u64,
    /// Slabs taken from quiet sensors that stay tracked.
    pub evicted: u64,
    /// Times that a detector found no room.
    pub refused: u64,
    /// Commits that met another session's on the same detector: that with the newest reading decided.
    pub overruled: u64,
    /// Bytes per slab.
    pub slab_bytes: u64,
}

/// Counts a state that gave way before its commit.
pub(super) fn count_overruled() {
    header().overruled.fetch_add(1, Ordering::Relaxed);
}

/// Figures over all databases.
pub fn slab_occupancy() -> SlabOccupancy {
    let header = header();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    SlabOccupancy {
        capacity: u64::from(header.capacity),
        in_use: read(&header.in_use),
        evicted: read(&header.evicted),
        refused: read(&header.refused),
        overruled: read(&header.overruled),
        slab_bytes: size_of::<Slab>() as u64,
    }
}
