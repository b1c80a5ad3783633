//! Advisory locks of the extension, all in one class so that they never meet an application's.

use pgrx::{IntoDatum, direct_function_call_as_datum, pg_sys};

/// First key of every advisory lock taken by the extension ("IOT" in ASCII).
const LOCK_CLASS: i32 = 0x0049_4F54;

/// Takes the exclusive lock on `key` until the transaction ends; waits for other holders, and sees in the caches what
/// they committed.
pub fn exclusive_until_commit(key: pg_sys::Oid) {
    let key = i32::from_ne_bytes(key.to_u32().to_ne_bytes());
    // SAFETY: the function takes two int4 values, returns void, and reports errors by ERROR; invalidations may be
    // accepted wherever a lock may be taken.
    unsafe {
        direct_function_call_as_datum(
            pg_sys::pg_advisory_xact_lock_int4,
            &[LOCK_CLASS.into_datum(), key.into_datum()],
        );
        // An advisory lock does not do this by itself, and a table lock that is held already does not do it again.
        pg_sys::AcceptInvalidationMessages();
    }
}
