//! Time partitions: which ranges a table needs, what they are called, and which have had their time.

mod age;
mod interval;
mod maintenance;
mod name;
mod outlook;
mod plan;
mod retention;

pub use age::Age;
pub use interval::{IntervalError, PartitionInterval, PartitionRange};
pub use maintenance::{Existing, Plan, Settings, Step, Tier, maintain};
pub use name::{index_key, index_name, numbered_name, partition_name, subpartition_name};
pub use outlook::{Outlook, outlook};
pub use plan::{plan, range_for};
pub use retention::{Keep, Lifetime, Reason, Rule};
