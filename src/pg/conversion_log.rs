//! The trigger that writes down which keys of a table change while it is being converted.
//!
//! It adds a row to a heap without indexes, past the executor: nobody needs a privilege on the log, and a change costs
//! little more than before.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::trigger::trigger_data;

function_info!(pg_finfo_iot_conversion_changed);

/// More columns no key has.
const MOST_COLUMNS: usize = pg_sys::INDEX_MAX_KEYS as usize;

/// Row and TRUNCATE trigger on a table that is being converted. Its arguments: oid of the table, oid of the log, numbers of
/// the columns of the key. A TRUNCATE is a row of NULLs.
///
/// # Safety
/// Called by PostgreSQL as declared in `sql/schema/34_conversion.sql`.
#[unsafe(no_mangle)]
#[pgrx::pg_guard]
pub unsafe extern "C-unwind" fn iot_conversion_changed(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: passed on from the caller; the relation of a trigger call is open, and the trigger has as many arguments as
    // it says, NUL-terminated.
    let (data, table, arguments) = unsafe {
        let data = &*trigger_data(call);
        let trigger = &*data.tg_trigger;
        let count = usize::try_from(trigger.tgnargs).unwrap_or(0);
        let arguments: Vec<&CStr> = (0..count).map(|at| CStr::from_ptr(*trigger.tgargs.add(at))).collect();
        (data, (*data.tg_relation).rd_id, arguments)
    };
    let number = |at: usize| arguments.get(at).and_then(|text| text.to_str().ok()?.parse::<u32>().ok());
    // A restored copy has the trigger as well, but is another table.
    let (true, Some(log), Some(columns)) = (number(0) == Some(table.to_u32()), number(1), arguments.get(2))
    else {
        return pg_sys::Datum::from(0);
    };
    let columns: Vec<i32> = columns
        .to_str()
        .map(|text| text.split(' ').filter_map(|number| number.parse().ok()).take(MOST_COLUMNS).collect())
        .unwrap_or_default();
    // SAFETY: opens and closes the log, keeping the lock to the end of the transaction, as an INSERT does. Without the log
    // the conversion cannot go on, which is no reason to fail the change.
    unsafe {
        let lock = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
        let log = pg_sys::try_table_open(pg_sys::Oid::from(log), lock);
        if log.is_null() {
            return pg_sys::Datum::from(0);
        }
        if (*(*log).rd_att).natts == columns.len() as i32 {
            if data.tg_event & pg_sys::TRIGGER_EVENT_ROW == 0 {
                add(log, &[pg_sys::Datum::from(0); MOST_COLUMNS], &[true; MOST_COLUMNS]);
            } else {
                add_rows(data, log, &columns);
            }
        }
        pg_sys::table_close(log, pg_sys::NoLock as pg_sys::LOCKMODE);
    }
    pg_sys::Datum::from(0)
}

/// The keys of the row before and after, once where they are the same.
///
/// # Safety
/// `data` is that of a row trigger; `log` is open and has as many columns as there are numbers, of the same types.
unsafe fn add_rows(data: &pg_sys::TriggerData, log: pg_sys::Relation, columns: &[i32]) {
    // SAFETY: a row trigger has its row, and for UPDATE the new one too; both have the form of its relation.
    unsafe {
        let form = (*data.tg_relation).rd_att;
        let mut before: Option<(Vec<pg_sys::Datum>, Vec<bool>)> = None;
        for row in [data.tg_trigtuple, data.tg_newtuple] {
            if row.is_null() {
                continue;
            }
            let (mut values, mut nulls) =
                (Vec::with_capacity(columns.len()), Vec::with_capacity(columns.len()));
            for &column in columns {
                let mut is_null = false;
                values.push(pg_sys::SPI_getbinval(row, form, column, &mut is_null));
                nulls.push(is_null);
            }
            let is_same = before.as_ref().is_some_and(|(earlier, earlier_nulls)| {
                *earlier_nulls == nulls
                    && columns
                        .iter()
                        .enumerate()
                        .all(|(at, _)| nulls[at] || is_same_value((*log).rd_att, at, earlier[at], values[at]))
            });
            if !is_same {
                add(log, &values, &nulls);
            }
            before = Some((values, nulls));
        }
    }
}

/// Whether two values are the same, byte by byte. What is equal otherwise counts as different, which does no harm.
///
/// # Safety
/// Both values have the type of column number `at` (from 0) of `form`.
unsafe fn is_same_value(
    form: pg_sys::TupleDesc,
    at: usize,
    one: pg_sys::Datum,
    other: pg_sys::Datum,
) -> bool {
    // SAFETY: the number is that of a column; sizes are read from the values, as their type says.
    unsafe {
        let (mut length, mut by_value) = (0, false);
        pg_sys::get_typlenbyval(pg_sys::SPI_gettypeid(form, at as i32 + 1), &mut length, &mut by_value);
        if by_value {
            return one == other;
        }
        let bytes = |value: pg_sys::Datum| {
            let start = value.cast_mut_ptr::<u8>();
            let length = match length {
                -1 => pgrx::varsize_any(start.cast()),
                -2 => CStr::from_ptr(start.cast()).count_bytes(),
                fixed => usize::try_from(fixed).unwrap_or(0),
            };
            std::slice::from_raw_parts(start, length)
        };
        bytes(one) == bytes(other)
    }
}

/// # Safety
/// `log` is open; there are at least as many values as it has columns, of their types.
unsafe fn add(log: pg_sys::Relation, values: &[pg_sys::Datum], nulls: &[bool]) {
    // SAFETY: the row is made, written and freed here; both arrays are only read.
    unsafe {
        let row =
            pg_sys::heap_form_tuple((*log).rd_att, values.as_ptr().cast_mut(), nulls.as_ptr().cast_mut());
        pg_sys::simple_heap_insert(log, row);
        pg_sys::heap_freetuple(row);
    }
}
