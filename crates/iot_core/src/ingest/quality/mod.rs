//! Quality of a reading: the reasons for doubt, and the verdict from them.
//!
//! The checks are those of the QARTOD project for data in real time, in the form that an ingest path can
//! afford: each reading is judged once, when it arrives, against its sensor's [`QualityLimits`] and the few
//! previous readings in its [`QualityContext`]. U.S. Integrated Ocean Observing System, *Manual for Real-Time
//! Quality Control of In-situ Temperature and Salinity Data*, version 2.0, January 2016,
//! doi:10.7289/V5V40SD4: test 1 gap, test 4 gross range, test 6 spike, test 7 rate of change, test 8 flat line.

mod assessment;
mod context;
mod flags;
mod limits;
mod limits_error;

pub use assessment::{Observation, assess, assess_observation};
pub use context::QualityContext;
pub use flags::{DataQuality, QualityFlags};
pub use limits::{PhysicalRange, QualityLimits};
pub use limits_error::QualityLimitsError;
