//! Looking a primary key up without inserting it.

use pgrx::pg_sys;

use super::compat;

/// The primary key of an open partition, ready to be looked up.
pub(super) struct KeyProbe {
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    keys: Vec<pg_sys::ScanKeyData>,
    /// The highest number of a key column in the table.
    last_attribute: std::ffi::c_int,
    /// Where the row that was found is put, and nothing else.
    found: *mut pg_sys::TupleTableSlot,
    scan: pg_sys::IndexScanDesc,
    /// Sees what is committed, what others have in progress, and what this command did itself. PostgreSQL writes to it
    /// during a scan, so it stays in one place.
    snapshot: Box<pg_sys::SnapshotData>,
}

impl KeyProbe {
    /// # Safety
    /// Both relations stay open, and the current memory context alive, until [`KeyProbe::close`]. `index` is a B-tree
    /// over plain columns, as every immediate primary key is.
    pub(super) unsafe fn new(table: pg_sys::Relation, index: pg_sys::Relation) -> Self {
        // SAFETY: as the caller promises; the arrays of an index's cache entry have one place per key column.
        unsafe {
            let count = usize::try_from((*(*index).rd_index).indnkeyatts).unwrap_or(0);
            let keys = (0..count)
                .map(|column| {
                    let (family, of_type) =
                        (*(*index).rd_opfamily.add(column), *(*index).rd_opcintype.add(column));
                    let equal = pg_sys::get_opfamily_member(
                        family,
                        of_type,
                        of_type,
                        pg_sys::BTEqualStrategyNumber as i16,
                    );
                    let mut key = pg_sys::ScanKeyData::default();
                    pg_sys::ScanKeyEntryInitialize(
                        &mut key,
                        0,
                        column as i16 + 1,
                        pg_sys::BTEqualStrategyNumber as u16,
                        pg_sys::InvalidOid,
                        *(*index).rd_indcollation.add(column),
                        pg_sys::get_opcode(equal),
                        pg_sys::Datum::null(),
                    );
                    key
                })
                .collect();
            let attributes = (*(*index).rd_index).indkey.values.as_slice(count);
            let last_attribute = attributes.iter().copied().max().unwrap_or(0).into();
            let found = pg_sys::table_slot_create(table, std::ptr::null_mut());
            let snapshot = Box::new(pg_sys::SnapshotData {
                snapshot_type: pg_sys::SnapshotType::SNAPSHOT_DIRTY,
                ..Default::default()
            });
            Self { table, index, keys, last_attribute, found, scan: std::ptr::null_mut(), snapshot }
        }
    }

    /// Whether the key of the row in `slot` is taken: committed, or in progress in some session. Waits for nobody.
    ///
    /// # Safety
    /// As [`KeyProbe::new`]; `slot` holds a row of the table without NULL in the key.
    pub(super) unsafe fn is_taken(&mut self, slot: *mut pg_sys::TupleTableSlot) -> bool {
        let count = self.keys.len() as i32;
        // SAFETY: as the caller promises; key columns of the index are attributes of the table, counted from 1.
        unsafe {
            pg_sys::slot_getsomeattrs(slot, self.last_attribute);
            let attributes = (*(*self.index).rd_index).indkey.values.as_ptr();
            for (column, key) in self.keys.iter_mut().enumerate() {
                key.sk_argument = *(*slot).tts_values.add(*attributes.add(column) as usize - 1);
            }
            if self.scan.is_null() {
                self.scan = compat::begin_index_scan(self.table, self.index, &mut *self.snapshot, count);
            }
            pg_sys::index_rescan(self.scan, self.keys.as_mut_ptr(), count, std::ptr::null_mut(), 0);
            let taken = pg_sys::index_getnext_slot(
                self.scan,
                pg_sys::ScanDirection::ForwardScanDirection,
                self.found,
            );
            pg_sys::ExecClearTuple(self.found);
            taken
        }
    }

    /// Lets go of the pages that the last look-up holds. To be called before anything is written.
    pub(super) fn rest(&mut self) {
        if !self.scan.is_null() {
            // SAFETY: the scan is open, and is forgotten here.
            unsafe { pg_sys::index_endscan(self.scan) };
            self.scan = std::ptr::null_mut();
        }
    }

    /// Frees what is tracked by PostgreSQL.
    pub(super) fn close(mut self) {
        self.rest();
        // SAFETY: made by `new`, dropped once.
        unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.found) };
    }
}
