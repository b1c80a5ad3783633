//! The lifecycle of a device.

use std::fmt;
use std::str::FromStr;

/// Where a device is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceStatus {
    /// Registered, not yet in service.
    Provisioning,
    /// In service.
    Active,
    /// Out of service for work on it; still reachable.
    Maintenance,
    /// Out of service.
    Inactive,
    /// Gone for good.
    Decommissioned,
}

impl DeviceStatus {
    /// All states, in order of life.
    pub const ALL: [Self; 5] =
        [Self::Provisioning, Self::Active, Self::Maintenance, Self::Inactive, Self::Decommissioned];

    /// The name under which it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::Maintenance => "maintenance",
            Self::Inactive => "inactive",
            Self::Decommissioned => "decommissioned",
        }
    }

    /// The states to which a device can move from here.
    pub fn allowed_next(self) -> &'static [Self] {
        match self {
            Self::Provisioning => &[Self::Active, Self::Inactive, Self::Decommissioned],
            Self::Active => &[Self::Maintenance, Self::Inactive, Self::Decommissioned],
            Self::Maintenance => &[Self::Active, Self::Inactive, Self::Decommissioned],
            Self::Inactive => &[Self::Active, Self::Maintenance, Self::Decommissioned],
            Self::Decommissioned => &[],
        }
    }

    /// Whether the state may be set to `next`. Setting the same state again is no move, and always allowed.
    pub fn can_become(self, next: Self) -> bool {
        self == next || self.allowed_next().contains(&next)
    }

    /// Whether commands may be sent to the device.
    pub fn accepts_commands(self) -> bool {
        matches!(self, Self::Active | Self::Maintenance)
    }
}

impl fmt::Display for DeviceStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for DeviceStatus {
    type Err = UnknownDeviceStatus;

    fn from_str(name: &str) -> Result<Self, UnknownDeviceStatus> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == name)
            .ok_or_else(|| UnknownDeviceStatus { name: name.to_owned() })
    }
}

/// There is no device status of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownDeviceStatus {
    /// The name.
    pub name: String,
}

impl UnknownDeviceStatus {
    /// What to do about it.
    pub fn hint(&self) -> String {
        format!("Use one of {}.", DeviceStatus::ALL.map(DeviceStatus::as_str).join(", "))
    }
}

impl fmt::Display for UnknownDeviceStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "unknown device status \"{}\"", self.name)
    }
}

impl std::error::Error for UnknownDeviceStatus {}

#[cfg(test)]
mod tests {
    use super::DeviceStatus::{Active, Decommissioned, Inactive, Maintenance, Provisioning};
    use super::*;

    #[test]
    fn every_pair_of_states() {
        let allowed = [
            (Provisioning, Active),
            (Provisioning, Inactive),
            (Provisioning, Decommissioned),
            (Active, Maintenance),
            (Active, Inactive),
            (Active, Decommissioned),
            (Maintenance, Active),
            (Maintenance, Inactive),
            (Maintenance, Decommissioned),
            (Inactive, Active),
            (Inactive, Maintenance),
            (Inactive, Decommissioned),
        ];
        for from in DeviceStatus::ALL {
            for to in DeviceStatus::ALL {
                assert_eq!(
                    from.can_become(to),
                    from == to || allowed.contains(&(from, to)),
                    "{from} to {to}"
                );
                assert_eq!(
                    from.allowed_next().contains(&to),
                    allowed.contains(&(from, to)),
                    "{from} to {to}"
                );
            }
        }
    }

    #[test]
    fn commands_go_to_devices_that_can_be_reached() {
        let reachable: Vec<_> =
            DeviceStatus::ALL.into_iter().filter(|status| status.accepts_commands()).collect();
        assert_eq!(reachable, [Active, Maintenance]);
    }

    #[test]
    fn names_read_back() {
        for status in DeviceStatus::ALL {
            assert_eq!(status.to_string().parse(), Ok(status));
        }
        let error = "Active".parse::<DeviceStatus>().unwrap_err();
        assert_eq!(error.to_string(), "unknown device status \"Active\"");
        assert_eq!(error.hint(), "Use one of provisioning, active, maintenance, inactive, decommissioned.");
    }
}
