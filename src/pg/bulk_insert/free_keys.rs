//! Keys that nobody has, not even a session that has not committed yet.

use pgrx::pg_sys;

use super::compat;
use super::key_probe::KeyProbe;
use crate::pg::relation::OpenRelation;

/// Of `keys`, those that no row of `table` has, committed or in progress, whose primary key is one column of type uuid.
/// Waits for nobody.
pub fn free_keys(table: &OpenRelation, keys: &[[u8; 16]]) -> Vec<[u8; 16]> {
    let relation = table.cache_entry();
    // SAFETY: the relation is open. The slot has its descriptor, and every attribute of it is set before it is looked at; the
    // key that it points to lives during the look-up. Everything opened here is closed here, or by the abort after an ERROR.
    unsafe {
        let Some(key) = compat::primary_key(relation) else { return keys.to_vec() };
        let index = pg_sys::index_open(key, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let column = *(*(*index).rd_index).indkey.values.as_ptr() as usize - 1;
        let attributes = (*(*relation).rd_att).natts as usize;
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        let mut probe = KeyProbe::new(relation, index);
        let is_free = |key: &&[u8; 16]| {
            pg_sys::ExecClearTuple(slot);
            for attribute in 0..attributes {
                (*slot).tts_isnull.add(attribute).write(attribute != column);
            }
            (*slot).tts_values.add(column).write(pg_sys::Datum::from(key.as_ptr()));
            pg_sys::ExecStoreVirtualTuple(slot);
            !probe.is_taken(slot)
        };
        let free = keys.iter().filter(is_free).copied().collect();
        probe.close();
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::index_close(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        free
    }
}
