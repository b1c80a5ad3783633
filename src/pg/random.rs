//! Cryptographic randomness of the server.

use std::cell::RefCell;

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::error::{IotError, IotResult};

/// Asking the generator costs as much for a page of bytes as for eight.
const POOL: usize = 4096;

struct Pool {
    bytes: [u8; POOL],
    used: usize,
}

thread_local! {
    static RANDOM: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; POOL], used: POOL }) };
}

/// Eight random bytes, never given out before.
///
/// # Errors
/// XX000 when the operating system's generator fails.
pub fn bytes() -> IotResult<[u8; 8]> {
    RANDOM.with_borrow_mut(|pool| {
        if pool.used == POOL {
            // SAFETY: the buffer is valid for its length.
            let filled = unsafe { pg_sys::pg_strong_random(pool.bytes.as_mut_ptr().cast(), POOL) };
            if !filled {
                return Err(IotError::new(
                    PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                    "could not generate random values",
                ));
            }
            pool.used = 0;
        }
        let mut taken = [0; 8];
        taken.copy_from_slice(&pool.bytes[pool.used..pool.used + 8]);
        pool.used += 8;
        Ok(taken)
    })
}
