//! A lightweight lock, held while a value lives.

use pgrx::pg_sys;

/// A lock held until dropped.
pub struct Held(*mut pg_sys::LWLock);

impl Held {
    /// Waits for it. Interrupts are held off while it is held.
    ///
    /// # Safety
    /// `lock` is in shared memory and initialised, and this process does not hold it.
    pub unsafe fn acquire(lock: *mut pg_sys::LWLock) -> Self {
        // SAFETY: promised by the caller.
        unsafe { pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE) };
        Self(lock)
    }

    /// Takes it if it is free.
    ///
    /// # Safety
    /// As [`Held::acquire`].
    pub unsafe fn try_acquire(lock: *mut pg_sys::LWLock) -> Option<Self> {
        // SAFETY: promised by the caller. A value is made only when it was acquired: dropping one releases the lock.
        unsafe { pg_sys::LWLockConditionalAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE) }
            .then(|| Self(lock))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: held by this process; nothing between acquiring and here raises.
        unsafe { pg_sys::LWLockRelease(self.0) }
    }
}
