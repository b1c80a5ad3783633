//! The only home of hand-written `unsafe`: small safe wrappers over the parts of PostgreSQL's C interface that pgrx
//! does not wrap. Every block states why it is sound.
#![allow(unsafe_code)]

pub mod array;
pub mod background;
mod background_entry;
pub mod bulk_insert;
pub mod clock;
mod first_last;
pub mod foreign_insert;
pub mod input;
pub mod invalidation;
pub mod jsonb;
pub mod partition_bounds;
pub mod random;
pub mod relation;
pub mod security;
pub mod settings;
pub mod shared;
pub mod statement;
pub mod transaction;
mod trigger;
pub mod value;
