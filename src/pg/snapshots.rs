//! Who may still see the database as it was before.

use std::collections::HashSet;

use pgrx::pg_sys;

/// Transactions of this database with snapshots that may be older than now, as `pg_locks.virtualtransaction` calls them.
/// (Snapshots of other databases, of VACUUM and of safe index builds read no table of ours.)
pub fn older() -> HashSet<String> {
    let flags = pg_sys::PROC_IS_AUTOVACUUM | pg_sys::PROC_IN_VACUUM | pg_sys::PROC_IN_SAFE_IC;
    let mut count = 0;
    // SAFETY: the snapshot is only read; the array has as many entries as it is said to have, and lives in the current
    // memory.
    unsafe {
        let limit = (*pg_sys::GetLatestSnapshot()).xmin;
        let list = pg_sys::GetCurrentVirtualXIDs(limit, true, false, flags as i32, &mut count);
        let found = std::slice::from_raw_parts(list, usize::try_from(count).unwrap_or(0));
        let names =
            found.iter().map(|each| format!("{}/{}", backend(each), each.localTransactionId)).collect();
        pg_sys::pfree(list.cast());
        names
    }
}

#[cfg(not(any(feature = "pg17", feature = "pg18")))]
fn backend(transaction: &pg_sys::VirtualTransactionId) -> i32 {
    transaction.backendId
}

#[cfg(any(feature = "pg17", feature = "pg18"))]
fn backend(transaction: &pg_sys::VirtualTransactionId) -> i32 {
    transaction.procNumber
}
