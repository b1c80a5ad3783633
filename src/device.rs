//! The lifecycle of devices, for the trigger that guards `iot.devices.device_status`.

use iot_core::device::DeviceStatus;
use pgrx::pg_extern;

#[pg_extern(sql = false)]
fn device_status_can_become(from_status: &str, to_status: &str) -> bool {
    match (from_status.parse::<DeviceStatus>(), to_status.parse::<DeviceStatus>()) {
        (Ok(from), Ok(to)) => from.can_become(to),
        // Unknown names are the CHECK constraint's to refuse.
        _ => false,
    }
}

#[pg_extern(sql = false)]
fn device_status_next(from_status: &str) -> Vec<&'static str> {
    from_status
        .parse::<DeviceStatus>()
        .map(|from| from.allowed_next().iter().map(|status| status.as_str()).collect())
        .unwrap_or_default()
}
