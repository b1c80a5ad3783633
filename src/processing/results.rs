//! Results on their way into `iot.processed_data`.

use std::collections::BTreeMap;

use iot_core::time::Timestamp;
use pgrx::Uuid;

use crate::catalog::processed_data::{self, Columns};
use crate::error::IotResult;
use crate::partition;
use crate::pg::clock;
use crate::pg::statement::with_session;

/// A result: what is stored beside its key.
pub struct Computed<'a> {
    /// The rule.
    pub rule_id: [u8; 16],
    /// Its version.
    pub rule_version: i32,
    /// The unit that it names.
    pub unit: Option<&'a str>,
    /// The reading that it was run for.
    pub data_id: [u8; 16],
    /// Tenant of the device.
    pub organization_id: Option<Uuid>,
    /// The value, or why there is none.
    pub result: Result<f64, String>,
}

/// Device, name, time and sensor of a result.
pub type ResultKey<'a> = ([u8; 16], &'a str, Timestamp, Option<[u8; 16]>);

/// Results in the order of their key, the last one of each.
#[derive(Default)]
pub struct Results<'a>(pub BTreeMap<ResultKey<'a>, Computed<'a>>);

impl Results<'_> {
    /// Stores them; partitions that are missing are made.
    ///
    /// # Errors
    /// Only what PostgreSQL raises.
    pub fn write(self) -> IotResult<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        partition::ensure_for(c"processed_data", self.0.keys().map(|&(_, _, at, _)| at))?;
        with_session(|session| processed_data::insert(session, self.columns()))
    }

    /// Stores those that were there before.
    ///
    /// # Errors
    /// Only what PostgreSQL raises.
    pub fn correct(self) -> IotResult<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        with_session(|session| processed_data::correct(session, self.columns()))
    }

    fn columns(self) -> Columns {
        let mut columns = Columns::default();
        for ((device_id, name, at, sensor_id), computed) in self.0 {
            columns.measured_at.push(clock::to_pg(at));
            columns.device_id.push(Uuid::from_bytes(device_id));
            columns.sensor_id.push(sensor_id.map(Uuid::from_bytes));
            columns.rule_id.push(Uuid::from_bytes(computed.rule_id));
            columns.rule_version.push(computed.rule_version);
            columns.data_id.push(Uuid::from_bytes(computed.data_id));
            columns.output_name.push(name.to_owned());
            columns.organization_id.push(computed.organization_id);
            columns.unit.push(computed.unit.map(str::to_owned));
            let (value, error) = match computed.result {
                Ok(value) => (Some(value), None),
                Err(error) => (None, Some(error)),
            };
            columns.value.push(value);
            columns.error.push(error);
        }
        columns
    }
}
