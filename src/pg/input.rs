//! PostgreSQL's input functions, with malformed text as a value instead of an ERROR.

use std::ffi::{CStr, CString};
use std::panic::AssertUnwindSafe;

use iot_core::ingest::text::is_plain_json;
use pgrx::datum::{TimestampWithTimeZone, Uuid};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{FromDatum, IntoDatum, PgSqlErrorCode, PgTryBuilder, pg_sys};

use super::jsonb::{Jsonb, JsonbImage};
use super::settings::Scoped;
use super::transaction;
use crate::error::{IotError, IotResult};

/// Reads a `uuid` as PostgreSQL does.
///
/// # Errors
/// What the input function has against `text`. The same holds for the other functions of this module.
pub fn uuid(text: &str) -> IotResult<Uuid> {
    read(text)
}

/// Reads a `timestamptz` as PostgreSQL does, with the session's time zone and date style.
pub fn timestamp(text: &str) -> IotResult<TimestampWithTimeZone> {
    read(text)
}

/// Reads a `boolean` as PostgreSQL does.
pub fn boolean(text: &str) -> IotResult<bool> {
    read(text)
}

/// Reads a `jsonb`; text that the core vouches for needs no subtransaction.
pub fn jsonb(text: &str) -> IotResult<JsonbImage> {
    match CString::new(text) {
        Ok(plain) if is_plain_json(text) => Ok(JsonbImage::from_text(&plain)),
        _ => read::<Jsonb<'_>>(text).map(Jsonb::to_image),
    }
}

/// Reads `text` as a value of a type, as this session reads it, and writes that as every session reads it
/// ([`Scoped::canonical`]).
pub fn canonical(type_oid: pg_sys::Oid, text: &str) -> IotResult<String> {
    let c_text = CString::new(text).map_err(|_| malformed("text contains a NUL character"))?;
    transaction::catch(|| {
        let (mut function, mut parameter, mut is_varlena) = (pg_sys::InvalidOid, pg_sys::InvalidOid, false);
        // SAFETY: the pointers are valid; the text is NUL-terminated and only read; the output function belongs to the type
        // of the datum, and returns a NUL-terminated copy. No modifier: a value that does not fit is none of the column's.
        unsafe {
            pg_sys::getTypeInputInfo(type_oid, &mut function, &mut parameter);
            let value = pg_sys::OidInputFunctionCall(function, c_text.as_ptr().cast_mut(), parameter, -1);
            pg_sys::getTypeOutputInfo(type_oid, &mut function, &mut is_varlena);
            let _settings = Scoped::canonical();
            Ok(CStr::from_ptr(pg_sys::OidOutputFunctionCall(function, value)).to_string_lossy().into_owned())
        }
    })
    .map_err(IotError::from)
}

/// The operator by which two values of a type are the same, if it has one.
pub fn equality_operator(type_oid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: looks in the type cache, whose entries are never freed.
    let operator = unsafe { (*pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_EQ_OPR as i32)).eq_opr };
    (operator != pg_sys::InvalidOid).then_some(operator)
}

/// Calls the input function inside a subtransaction. PostgreSQL 16 and later could report errors softly; one way for all
/// versions is worth more here, because only unusual text comes this far.
fn read<T: FromDatum + IntoDatum>(text: &str) -> IotResult<T> {
    let text = CString::new(text).map_err(|_| malformed("text contains a NUL character"))?;
    // SAFETY: reads two variables of the backend, restored below.
    let (memory, owner) = unsafe { (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner) };
    // SAFETY: the subtransaction is ended below on both ways; the value is made in the caller's memory.
    unsafe {
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(memory);
    }
    let outcome = PgTryBuilder::new(AssertUnwindSafe(|| {
        let (mut function, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        // SAFETY: both pointers are valid; the text is NUL-terminated and only read; the datum is of T's type.
        Ok(unsafe {
            pg_sys::getTypeInputInfo(T::type_oid(), &mut function, &mut parameter);
            T::from_datum(
                pg_sys::OidInputFunctionCall(function, text.as_ptr().cast_mut(), parameter, -1),
                false,
            )
        })
    }))
    .catch_others(|error| Err(Box::new(error)))
    .execute();
    // SAFETY: ends the subtransaction begun above, as PL/pgSQL does.
    unsafe {
        match outcome {
            Ok(_) => pg_sys::ReleaseCurrentSubTransaction(),
            Err(_) => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(memory);
        pg_sys::CurrentResourceOwner = owner;
    }
    match outcome {
        Ok(value) => value.ok_or_else(|| malformed("input function returned NULL")),
        Err(error) => about_the_text(*error),
    }
}

/// What an input function has against its text, as a value. Everything else, such as a cancelled query, goes on.
fn about_the_text<T>(error: CaughtError) -> IotResult<T> {
    if let CaughtError::PostgresError(report) = &error {
        let refusal = IotError::new(report.sql_error_code(), report.message());
        // Data exceptions, and limits such as the depth of nesting.
        if matches!(refusal.sqlstate().get(..2), Some("22" | "54")) {
            return Err(match report.detail() {
                Some(detail) => refusal.detail(detail),
                None => refusal,
            });
        }
    }
    error.rethrow()
}

fn malformed(message: &str) -> IotError {
    IotError::new(PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION, message)
}
