//! Memory contexts.

use std::ffi::CStr;

use pgrx::pg_sys;

/// Runs `work` with a memory context of its own, and frees what PostgreSQL allocated in it. Nothing allocated there may be
/// in the result. An ERROR leaves the context to its parent's end.
pub fn in_scratch<T>(name: &'static CStr, work: impl FnOnce() -> T) -> T {
    // SAFETY: the context is a child of the current one, made here and deleted here once nothing uses it.
    unsafe {
        let scratch = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            name.as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        let previous = pg_sys::MemoryContextSwitchTo(scratch);
        let result = work();
        pg_sys::MemoryContextSwitchTo(previous);
        pg_sys::MemoryContextDelete(scratch);
        result
    }
}
