//! Cryptographic randomness of the server.

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::error::{IotError, IotResult};

/// Eight random bytes.
///
/// # Errors
/// XX000 when the operating system's generator fails.
pub fn bytes() -> IotResult<[u8; 8]> {
    let mut buffer = [0_u8; 8];
    // SAFETY: the buffer is valid for its length.
    let filled = unsafe { pg_sys::pg_strong_random(buffer.as_mut_ptr().cast(), buffer.len()) };
    if filled {
        Ok(buffer)
    } else {
        Err(IotError::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "could not generate random values"))
    }
}
