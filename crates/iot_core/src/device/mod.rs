//! Devices.

mod lifecycle;

pub use lifecycle::{DeviceStatus, UnknownDeviceStatus};
