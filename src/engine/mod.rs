//! The ingest engine: batches of readings through the whole pipeline.
//!
//! Every road (function calls, arrays, jsonb, the stream road) hands its readings to [`batch`], which works sensor by
//! sensor: profile ([`directory`]) → accepted time and value → calibration → quality → duplicates → score against the
//! sensor's state ([`overlay`]) → rules → rows ([`store`]) → alerts and rejected readings.

pub mod batch;
pub mod directory;
mod duplicates;
pub mod judge;
pub mod learned;
mod matches;
pub mod memory;
pub mod offered;
pub mod overlay;
mod pieces;
pub mod profile;
pub mod recall;
pub mod rejection;
mod store;

use std::cell::Cell;

thread_local! {
    static WRITING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, whose rows the sensors' states already know.
pub fn writing<T>(work: impl FnOnce() -> T) -> T {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            WRITING.set(self.0);
        }
    }
    let _reset = Reset(WRITING.replace(true));
    work()
}

/// Whether rows of `iot.sensor_data` are being written by the engine, not past it.
pub fn is_writing() -> bool {
    WRITING.get()
}
