//! The aggregates `first(value, time)` and `last(value, time)` over any value type and any sortable time type.
//!
//! They work on raw datums (polymorphic arguments), which is why they live here. There is no combine function yet:
//! rows of equal time would make the answer depend on how a parallel plan split them.

use pgrx::prelude::*;
use pgrx::{PgSqlErrorCode, pg_sys};

use crate::error::IotError;

/// The best row so far, in the aggregate's memory context.
struct Best {
    value: pg_sys::Datum,
    value_is_null: bool,
    value_type: Storage,
    time: pg_sys::Datum,
    time_type: Storage,
    /// Type cache entry of the time, which PostgreSQL never frees.
    time_cache: *mut pg_sys::TypeCacheEntry,
}

/// `typlen` of types with a length header; −2 is a C string.
const VARLENA: i16 = -1;

/// How values of a type are copied.
#[derive(Clone, Copy)]
struct Storage {
    length: i16,
    by_value: bool,
}

/// Which row wins: the one whose time compares so to the best one's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Earlier,
    Later,
}

function_info!(pg_finfo_iot_first_transition, pg_finfo_iot_last_transition, pg_finfo_iot_first_last_final);

/// # Safety
/// Called by PostgreSQL with the arguments declared in `sql/schema/10_bucket.sql`.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn iot_first_transition(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: passed on from the caller.
    unsafe { transition(call, Wanted::Earlier) }
}

/// # Safety
/// Called by PostgreSQL with the arguments declared in `sql/schema/10_bucket.sql`.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn iot_last_transition(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: passed on from the caller.
    unsafe { transition(call, Wanted::Later) }
}

/// # Safety
/// Called by PostgreSQL with the arguments declared in `sql/schema/10_bucket.sql`.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn iot_first_last_final(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: passed on from the caller.
    unsafe { finish(call) }
}

/// # Safety
/// `call` is a call of a transition function (state internal, value anyelement, time "any").
unsafe fn transition(call: pg_sys::FunctionCallInfo, wanted: Wanted) -> pg_sys::Datum {
    // SAFETY: the three arguments exist; what they point to lives as long as the call, and is copied to the
    // aggregate's context before it is kept.
    unsafe {
        let mut context = std::ptr::null_mut();
        if pg_sys::AggCheckCallContext(call, &mut context) == 0 {
            IotError::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "transition function of first and last called outside an aggregate",
            )
            .raise();
        }
        let arguments = (*call).args.as_slice(3);
        let (state, value, time) = (arguments[0], arguments[1], arguments[2]);
        if time.isnull {
            if state.isnull {
                (*call).isnull = true;
            }
            return state.value;
        }
        if state.isnull {
            return first_row(call, context, value, time).into();
        }
        let best: *mut Best = state.value.cast_mut_ptr();
        let order = pg_sys::FunctionCall2Coll(
            &raw mut (*(*best).time_cache).cmp_proc_finfo,
            (*call).fncollation,
            time.value,
            (*best).time,
        )
        .value() as i32;
        if (wanted == Wanted::Earlier && order < 0) || (wanted == Wanted::Later && order > 0) {
            replace(&mut *best, context, value, time);
        }
        best.into()
    }
}

/// # Safety
/// As [`transition`]; `context` is the aggregate's memory context.
unsafe fn first_row(
    call: pg_sys::FunctionCallInfo,
    context: pg_sys::MemoryContext,
    value: pg_sys::NullableDatum,
    time: pg_sys::NullableDatum,
) -> *mut Best {
    // SAFETY: the executor fills `flinfo` with the call's expression, from which the actual types are read.
    unsafe {
        let value_type = pg_sys::get_fn_expr_argtype((*call).flinfo, 1);
        let time_type = pg_sys::get_fn_expr_argtype((*call).flinfo, 2);
        let time_cache = pg_sys::lookup_type_cache(time_type, pg_sys::TYPECACHE_CMP_PROC_FINFO as i32);
        if (*time_cache).cmp_proc == pg_sys::InvalidOid {
            IotError::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
                "the time argument of first and last has a type that cannot be sorted",
            )
            .hint("Pass a timestamp, a date or a number.")
            .raise();
        }
        let best: *mut Best = pg_sys::MemoryContextAllocZero(context, size_of::<Best>()).cast();
        (*best).value_is_null = true;
        (*best).value_type = storage_of(value_type);
        (*best).time_type = storage_of(time_type);
        (*best).time_cache = time_cache;
        (*best).value_is_null = value.isnull;
        let previous = pg_sys::MemoryContextSwitchTo(context);
        (*best).value = copy(value, (*best).value_type);
        (*best).time = copy(time, (*best).time_type);
        pg_sys::MemoryContextSwitchTo(previous);
        best
    }
}

/// # Safety
/// `best` lives in `context`, and so do its two datums.
unsafe fn replace(
    best: &mut Best,
    context: pg_sys::MemoryContext,
    value: pg_sys::NullableDatum,
    time: pg_sys::NullableDatum,
) {
    // SAFETY: the old datums were copied into `context` by this module, so freeing them is ours to do.
    unsafe {
        if !best.value_type.by_value && !best.value_is_null {
            pg_sys::pfree(best.value.cast_mut_ptr());
        }
        if !best.time_type.by_value {
            pg_sys::pfree(best.time.cast_mut_ptr());
        }
        let previous = pg_sys::MemoryContextSwitchTo(context);
        best.value = copy(value, best.value_type);
        best.value_is_null = value.isnull;
        best.time = copy(time, best.time_type);
        pg_sys::MemoryContextSwitchTo(previous);
    }
}

/// # Safety
/// `datum` is of the type that `storage` describes.
unsafe fn copy(datum: pg_sys::NullableDatum, storage: Storage) -> pg_sys::Datum {
    if datum.isnull || storage.by_value {
        return datum.value;
    }
    // SAFETY: the datum points to a value of that type, guaranteed by the caller; every branch copies it whole into
    // the current memory context, varlenas without leaning on a toast table or an expanded object.
    unsafe {
        match usize::try_from(storage.length) {
            Ok(length) => {
                let copied = pg_sys::palloc(length);
                std::ptr::copy_nonoverlapping(datum.value.cast_mut_ptr::<u8>(), copied.cast::<u8>(), length);
                copied.into()
            }
            Err(_) if storage.length == VARLENA => {
                pg_sys::pg_detoast_datum_copy(datum.value.cast_mut_ptr()).into()
            }
            Err(_) => pg_sys::pstrdup(datum.value.cast_mut_ptr()).into(),
        }
    }
}

fn storage_of(type_oid: pg_sys::Oid) -> Storage {
    let mut storage = Storage { length: 0, by_value: false };
    // SAFETY: both pointers are valid; raises an ERROR for an unknown type.
    unsafe { pg_sys::get_typlenbyval(type_oid, &mut storage.length, &mut storage.by_value) };
    storage
}

/// # Safety
/// `call` is a call of the final function.
unsafe fn finish(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the first argument is the state, made by `first_row`, or NULL when no row had a time.
    unsafe {
        let state = (*call).args.as_slice(1)[0];
        let best: *const Best = state.value.cast_mut_ptr();
        if state.isnull || (*best).value_is_null {
            (*call).isnull = true;
            return pg_sys::Datum::from(0_usize);
        }
        (*best).value
    }
}
