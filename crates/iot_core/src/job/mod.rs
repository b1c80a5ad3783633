//! Jobs: when they start, and how their runs end.

mod outcome;

pub use outcome::{Failure, Outcome};
