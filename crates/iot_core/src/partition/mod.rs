//! Time partitions: which ranges a table needs, and what they are called.

mod interval;
mod name;
mod plan;

pub use interval::{IntervalError, PartitionInterval, PartitionRange};
pub use name::partition_name;
pub use plan::{plan, range_for};
