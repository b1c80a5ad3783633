//! The decisions of `iot_ext`, as pure functions: which bucket, which score, which partition, which alert.
//!
//! What belongs here is everything that can be decided from its arguments alone. There is no clock, no
//! randomness, no I/O and no PostgreSQL in this crate: the shell reads those, passes them in, and stores what
//! comes out. So each rule can be tested without a server.
//!
//! Errors follow PostgreSQL's style: a lower-case message that names the offending value, and a `hint()` that
//! says in a full sentence what to do about it.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod alert;
pub mod bucket;
pub mod conversion;
pub mod detect;
pub mod device;
pub mod ingest;
pub mod job;
mod json;
pub mod jsonb;
mod number;
pub mod partition;
pub mod processing;
pub mod sensor_state;
pub mod time;
pub mod unit;
pub mod worker;
