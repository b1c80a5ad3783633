//! What happens to a reading on its way in: accepted or refused, calibrated, judged, named.

mod acceptance;
mod calibration;
mod calibration_error;
mod identifier;
mod number;
pub mod payload;
mod quality;
mod recalibration;
pub mod text;

pub use acceptance::{MAXIMUM_LEAD, TimeRejection, TimeVerdict, ValueRejection, accept_time, accept_value};
pub use calibration::{Calibrated, Calibration};
pub use calibration_error::CalibrationError;
pub use identifier::DataIdGenerator;
pub use number::{NumberError, parse_number};
pub use quality::{
    DataQuality, Observation, PhysicalRange, QualityContext, QualityFlags, QualityLimits, QualityLimitsError,
    assess, assess_observation,
};
pub use recalibration::{Differences, RecalibrationTotals, StoredReading};
