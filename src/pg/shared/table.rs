//! Where the entries live: a fixed array, hash chains over it, a free list and a clock hand.
//!
//! Chains are spread over [`PARTITIONS`] locks; the order of locks is partition, then allocation.

use std::sync::atomic::{AtomicU64, Ordering};

use iot_core::sensor_state::SensorState;
use pgrx::pg_sys;

use super::lock::Held;
use super::slabs::Attached;

/// Locks over the hash chains.
const PARTITIONS: usize = 128;

const TRANCHE: &std::ffi::CStr = c"iot_ext sensors";
pub(super) const NO_ENTRY: u32 = u32::MAX;

/// A sensor of a database of this cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct SensorKey {
    /// Oid of the database.
    pub database: u32,
    /// `iot.sensors.sensor_id`.
    pub sensor_id: [u8; 16],
}

impl SensorKey {
    /// The sensor `sensor_id` of the current database.
    pub fn here(sensor_id: [u8; 16]) -> Self {
        // SAFETY: set once when the backend connects to its database.
        Self { database: unsafe { pg_sys::MyDatabaseId }.to_u32(), sensor_id }
    }

    fn hash(&self) -> u64 {
        const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
        let id = u128::from_ne_bytes(self.sensor_id);
        let mixed = (id as u64 ^ u64::from(self.database)).wrapping_mul(MULTIPLIER) ^ (id >> 64) as u64;
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(MULTIPLIER);
        mixed ^ (mixed >> 29)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Status {
    Free,
    /// Not to be used before it is built anew.
    Stale,
    /// One session builds it.
    Building,
    Valid,
}

#[repr(C)]
pub(super) struct Entry {
    pub(super) key: SensorKey,
    pub(super) next: u32,
    pub(super) status: Status,
    /// Touched since the clock hand last came by.
    pub(super) used: bool,
    /// A commit came while it was being built.
    pub(super) missed: bool,
    /// The checkpoint on disk does not have its last change.
    pub(super) dirty: bool,
    /// There may be a checkpoint on disk.
    pub(super) checkpointed: bool,
    /// Transactions that write its state down and have not ended.
    pub(super) flushing: u32,
    /// How often somebody said that what is being written down is incomplete.
    pub(super) spoils: u32,
    /// Transactions that touched it and have not ended.
    pub(super) in_flight: u32,
    /// Transactions between announcing their commit and its end.
    pub(super) committing: u32,
    /// Changes with each build: tells a commit whether the entry is still the one it touched.
    pub(super) incarnation: u64,
    /// Changes with each commit.
    pub(super) version: u64,
    /// Newest time that any transaction ever offered; higher than the state's when one rolled back.
    pub(super) claimed: i64,
    pub(super) device_id: [u8; 16],
    pub(super) detector: Attached,
    pub(super) state: SensorState,
}

#[repr(C)]
pub(super) struct Header {
    pub(super) capacity: u32,
    chain_mask: u32,
    free: u32,
    clock_hand: u32,
    pub(super) incarnations: AtomicU64,
    pub(super) tracked: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) rebuilt: AtomicU64,
    pub(super) merged: AtomicU64,
    /// Transactions that change readings of sensors without having touched an entry, and have not ended.
    pub(super) untracked: AtomicU64,
    /// How many of them there ever were.
    pub(super) untracked_begun: AtomicU64,
}

static mut HEADER: *mut Header = std::ptr::null_mut();
static mut CHAINS: *mut u32 = std::ptr::null_mut();
static mut ENTRIES: *mut Entry = std::ptr::null_mut();
static mut LOCKS: *mut pg_sys::LWLockPadded = std::ptr::null_mut();

fn capacity() -> usize {
    crate::guc::max_tracked_sensors()
}

/// At least one chain per two entries, so that chains stay short.
fn chains(capacity: usize) -> usize {
    (capacity / 2).next_power_of_two().max(PARTITIONS)
}

fn bytes(capacity: usize) -> usize {
    size_of::<Header>() + chains(capacity) * size_of::<u32>() + 64 + capacity * size_of::<Entry>()
}

pub(super) fn request() {
    // SAFETY: called from the request hook.
    unsafe {
        pg_sys::RequestAddinShmemSpace(bytes(capacity()));
        pg_sys::RequestNamedLWLockTranche(TRANCHE.as_ptr(), PARTITIONS as i32 + 1);
    }
}

pub(super) fn startup() {
    let capacity = capacity();
    let chain_count = chains(capacity);
    // SAFETY: called from the startup hook, in the postmaster, before it has children (there is no EXEC_BACKEND on the
    // systems we build for): nobody else sees the memory yet. It has the size asked for above; PostgreSQL aligns it to
    // a cache line, and the entries are aligned by hand.
    unsafe {
        let mut found = false;
        let start: *mut u8 = pg_sys::ShmemInitStruct(TRANCHE.as_ptr(), bytes(capacity), &mut found).cast();
        HEADER = start.cast();
        CHAINS = start.add(size_of::<Header>()).cast();
        let entries = start.add(size_of::<Header>() + chain_count * size_of::<u32>());
        ENTRIES = entries.add(entries.align_offset(64)).cast();
        LOCKS = pg_sys::GetNamedLWLockTranche(TRANCHE.as_ptr());
        if found {
            return;
        }
        HEADER.write(Header {
            capacity: capacity as u32,
            chain_mask: chain_count as u32 - 1,
            free: if capacity == 0 { NO_ENTRY } else { 0 },
            clock_hand: 0,
            incarnations: AtomicU64::new(0),
            tracked: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            rebuilt: AtomicU64::new(0),
            merged: AtomicU64::new(0),
            untracked: AtomicU64::new(0),
            untracked_begun: AtomicU64::new(0),
        });
        for chain in 0..chain_count {
            CHAINS.add(chain).write(NO_ENTRY);
        }
        for index in 0..capacity {
            let entry = ENTRIES.add(index);
            std::ptr::write_bytes(entry.cast::<u8>(), 0, size_of::<Entry>());
            (*entry).next = if index + 1 == capacity { NO_ENTRY } else { index as u32 + 1 };
        }
    }
}

/// Whether there is a table: the library is preloaded and the setting is not 0.
pub fn is_available() -> bool {
    // SAFETY: set by the postmaster before this process was forked.
    unsafe { !HEADER.is_null() && (*HEADER).capacity > 0 }
}

pub(super) fn header() -> &'static Header {
    // SAFETY: callers checked `is_available`; the fields read through this reference are atomic or never change.
    unsafe { &*HEADER }
}

/// The lock of a partition, or that of allocation.
fn exclusive(number: usize) -> Held {
    // SAFETY: `number` is at most PARTITIONS, and one more lock was asked for.
    unsafe { Held::acquire(&raw mut (*LOCKS.add(number)).lock) }
}

fn try_exclusive(number: usize) -> Option<Held> {
    // SAFETY: as above.
    unsafe { Held::try_acquire(&raw mut (*LOCKS.add(number)).lock) }
}

/// The lock over the free list and the clock hand.
const ALLOCATION: usize = PARTITIONS;

fn chain_of(key: &SensorKey) -> usize {
    key.hash() as usize & header().chain_mask as usize
}

fn partition_of(chain: usize) -> usize {
    chain % PARTITIONS
}

/// Runs `work` on the entry of `key`, if there is one, under its lock.
pub(super) fn with_entry<T>(key: &SensorKey, work: impl FnOnce(u32, &mut Entry) -> T) -> Option<T> {
    let chain = chain_of(key);
    let _held = exclusive(partition_of(chain));
    // SAFETY: the chain and every entry on it belong to the partition whose lock is held; indexes on a chain are below
    // the capacity. The reference ends with `work`, before the lock does.
    unsafe {
        let mut index = *CHAINS.add(chain);
        while index != NO_ENTRY {
            let entry = &mut *ENTRIES.add(index as usize);
            if entry.key == *key {
                return Some(work(index, entry));
            }
            index = entry.next;
        }
    }
    None
}

/// Puts an entry for `key` into its chain, stale. Gives up a quiet entry when there is no free one.
pub(super) fn allocate(key: SensorKey, device_id: [u8; 16]) -> bool {
    let Some(index) = take_free().or_else(evict) else {
        return false;
    };
    let chain = chain_of(&key);
    let _held = exclusive(partition_of(chain));
    // SAFETY: `index` came off the free list, so no chain and no other process has it. The chain is walked and changed
    // under its lock.
    unsafe {
        let mut other = *CHAINS.add(chain);
        while other != NO_ENTRY {
            if (*ENTRIES.add(other as usize)).key == key {
                // Another session was faster.
                give_back(index);
                return true;
            }
            other = (*ENTRIES.add(other as usize)).next;
        }
        let entry = ENTRIES.add(index as usize);
        *entry = Entry {
            key,
            next: *CHAINS.add(chain),
            status: Status::Stale,
            used: true,
            missed: false,
            dirty: false,
            checkpointed: true,
            flushing: 0,
            spoils: 0,
            in_flight: 0,
            committing: 0,
            incarnation: 0,
            version: 0,
            claimed: i64::MAX,
            device_id,
            detector: Attached::NONE,
            state: SensorState::default(),
        };
        *CHAINS.add(chain) = index;
    }
    header().tracked.fetch_add(1, Ordering::Relaxed);
    true
}

/// Runs `work` under the lock of allocation. The order of locks is partition, then allocation.
pub(super) fn with_allocation<T>(work: impl FnOnce() -> T) -> T {
    let _held = exclusive(ALLOCATION);
    work()
}

fn take_free() -> Option<u32> {
    let _held = exclusive(ALLOCATION);
    // SAFETY: the free list is changed under this lock only; what is on it is in no chain.
    unsafe {
        let index = (*HEADER).free;
        (index != NO_ENTRY).then(|| {
            (*HEADER).free = (*ENTRIES.add(index as usize)).next;
            index
        })
    }
}

/// The order of locks is that of [`with_allocation`].
fn give_back(index: u32) {
    let _held = exclusive(ALLOCATION);
    // SAFETY: the caller took the entry out of its chain, or never put it into one.
    unsafe {
        let entry = ENTRIES.add(index as usize);
        (*entry).status = Status::Free;
        (*entry).next = (*HEADER).free;
        (*HEADER).free = index;
    }
}

/// Steps of the clock hand in one search: making room must not cost more than being without.
const LONGEST_SEARCH: usize = 32;

/// Second chance: the clock hand passes over entries that were used since it last came by, and those that a transaction
/// holds. One whose change is on disk goes first; else a quiet one goes without being written down: what is lost with it is
/// found again in the stored readings, and neither a dead database nor more sensors than there is room for may fill the
/// table for ever.
fn evict() -> Option<u32> {
    let capacity = header().capacity as usize;
    let mut unwritten = None;
    for step in 0..LONGEST_SEARCH.min(2 * capacity) {
        let index = {
            let _held = exclusive(ALLOCATION);
            // SAFETY: the hand moves under this lock only.
            unsafe {
                let hand = (*HEADER).clock_hand;
                (*HEADER).clock_hand = (hand + 1) % (*HEADER).capacity;
                hand
            }
        };
        match try_evict(index, false) {
            Eviction::Done => return Some(index),
            // In the first round this tells that it was quiet since an earlier search.
            Eviction::Unwritten if step < capacity => unwritten = unwritten.or(Some(index)),
            Eviction::Unwritten | Eviction::Refused => (),
        }
    }
    let index = unwritten.filter(|&index| matches!(try_evict(index, true), Eviction::Done))?;
    if capacity < LONGEST_SEARCH {
        // The search went all around. The next one begins behind what was found: everybody gets a whole round.
        let _held = exclusive(ALLOCATION);
        // SAFETY: the hand moves under this lock only.
        unsafe { (*HEADER).clock_hand = (index + 1) % (*HEADER).capacity };
    }
    Some(index)
}

enum Eviction {
    Done,
    /// Quiet, but its change is not on disk.
    Unwritten,
    /// In use.
    Refused,
}

fn try_evict(index: u32, even_unwritten: bool) -> Eviction {
    // SAFETY: the key is read without its lock, so it may be torn; it only chooses which lock to try, and is compared
    // again under it.
    let key = unsafe { std::ptr::read_volatile(&raw const (*ENTRIES.add(index as usize)).key) };
    let chain = chain_of(&key);
    let Some(_held) = try_exclusive(partition_of(chain)) else { return Eviction::Refused };
    // SAFETY: under the lock of the chain on which this entry stands if its key is still the same.
    unsafe {
        let entry = ENTRIES.add(index as usize);
        if (*entry).status == Status::Free || (*entry).key != key {
            return Eviction::Refused;
        }
        // Whoever writes it down must find it again to say that it is done.
        if (*entry).used || (*entry).in_flight > 0 || (*entry).flushing > 0 {
            (*entry).used = false;
            return Eviction::Refused;
        }
        if ((*entry).dirty || (*entry).detector.dirty) && !even_unwritten {
            return Eviction::Unwritten;
        }
        if !unlink(chain, index) {
            return Eviction::Refused;
        }
        (*entry).detector.detach();
        (*entry).status = Status::Free;
    }
    header().evicted.fetch_add(1, Ordering::Relaxed);
    header().tracked.fetch_sub(1, Ordering::Relaxed);
    Eviction::Done
}

/// Frees the entries of a database that no transaction holds.
pub(super) fn remove_database(database: u32) {
    for partition in 0..PARTITIONS {
        let _held = exclusive(partition);
        for chain in (partition..=header().chain_mask as usize).step_by(PARTITIONS) {
            // SAFETY: the chain and its entries belong to the lock held; what is freed is taken out of the chain first.
            unsafe {
                let mut link = CHAINS.add(chain);
                while *link != NO_ENTRY {
                    let index = *link;
                    let entry = ENTRIES.add(index as usize);
                    if (*entry).key.database == database && (*entry).in_flight == 0 {
                        *link = (*entry).next;
                        (*entry).detector.detach();
                        give_back(index);
                        header().tracked.fetch_sub(1, Ordering::Relaxed);
                    } else {
                        link = &raw mut (*entry).next;
                    }
                }
            }
        }
    }
}

/// Takes the entry out of its chain.
///
/// # Safety
/// The chain's lock is held.
unsafe fn unlink(chain: usize, index: u32) -> bool {
    // SAFETY: under the chain's lock, indexes on it are valid.
    unsafe {
        let mut link = CHAINS.add(chain);
        while *link != NO_ENTRY {
            if *link == index {
                *link = (*ENTRIES.add(index as usize)).next;
                return true;
            }
            link = &raw mut (*ENTRIES.add(*link as usize)).next;
        }
    }
    false
}

/// Calls `visit` for every entry of the current database, each under its lock.
pub(super) fn visit_database(mut visit: impl FnMut(&mut Entry)) {
    let database = SensorKey::here([0; 16]).database;
    visit_all(|entry| {
        if entry.key.database == database {
            visit(entry);
        }
    });
}

/// Calls `visit` for every entry, each under its lock.
pub(super) fn visit_all(mut visit: impl FnMut(&mut Entry)) {
    for partition in 0..PARTITIONS {
        let _held = exclusive(partition);
        let mut chain = partition;
        while chain <= header().chain_mask as usize {
            // SAFETY: chains `partition`, `partition + PARTITIONS`, … and their entries belong to the lock held.
            unsafe {
                let mut index = *CHAINS.add(chain);
                while index != NO_ENTRY {
                    let entry = &mut *ENTRIES.add(index as usize);
                    visit(entry);
                    index = entry.next;
                }
            }
            chain += PARTITIONS;
        }
    }
}

/// Runs `work` on the entry at `index`, if it is still that of `key`, under its lock.
pub(super) fn with_entry_at<T>(index: u32, key: &SensorKey, work: impl FnOnce(&mut Entry) -> T) -> Option<T> {
    let _held = exclusive(partition_of(chain_of(key)));
    // SAFETY: an entry with this key is on a chain of the partition whose lock is held. That the key stands there is
    // checked under the lock; an entry of another key is not looked at further.
    unsafe {
        let entry = ENTRIES.add(index as usize);
        if (*entry).status == Status::Free || (*entry).key != *key {
            return None;
        }
        Some(work(&mut *entry))
    }
}

/// As [`with_entry_at`], unless somebody holds the lock.
pub(super) fn try_with_entry_at<T>(
    index: u32,
    key: &SensorKey,
    work: impl FnOnce(&mut Entry) -> T,
) -> Option<T> {
    let _held = try_exclusive(partition_of(chain_of(key)))?;
    // SAFETY: as in `with_entry_at`.
    unsafe {
        let entry = ENTRIES.add(index as usize);
        if (*entry).status == Status::Free || (*entry).key != *key {
            return None;
        }
        Some(work(&mut *entry))
    }
}

/// Bytes per entry, its part of the hash chains included.
pub(super) const ENTRY_BYTES: usize = size_of::<Entry>() + 2 * size_of::<u32>();
