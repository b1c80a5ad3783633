//! Which rules matched which readings of a batch: written as one alert per (rule, sensor) when the readings are stored.

use std::rc::Rc;

use super::judge::Judged;
use super::offered::Offered;
use super::profile::Profile;
use crate::alert::{self, Facts, Rule};
use crate::error::IotResult;
use crate::pg::statement::with_session;
use pgrx::Uuid;

/// Readings of one sensor that one rule matched.
struct Match {
    rule: Rc<Rule>,
    profile: Rc<Profile>,
    /// The bound that the first one crossed.
    threshold: Option<f64>,
    /// Their numbers in the batch, in order of arrival.
    readings: Vec<u32>,
}

/// All matches of a batch.
#[derive(Default)]
pub struct Matches {
    found: Vec<Match>,
    current_sensor: usize,
}

impl Matches {
    /// The readings that follow are of another sensor.
    pub fn next_sensor(&mut self) {
        self.current_sensor = self.found.len();
    }

    /// `rule` matched reading number `reading` of the current sensor.
    pub fn add(&mut self, rule: &Rc<Rule>, profile: &Rc<Profile>, reading: u32, threshold: Option<f64>) {
        let of_sensor = &mut self.found[self.current_sensor..];
        match of_sensor.iter_mut().find(|known| Rc::ptr_eq(&known.rule, rule)) {
            Some(known) => known.readings.push(reading),
            None => self.found.push(Match {
                rule: Rc::clone(rule),
                profile: Rc::clone(profile),
                threshold,
                readings: vec![reading],
            }),
        }
    }

    /// Whether nothing matched.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Writes the alerts of the readings that were stored, always in the same order, so that sessions do not deadlock.
    /// Returns their keys, by rule.
    ///
    /// # Errors
    /// Only what PostgreSQL raises.
    pub fn write(mut self, offered: &[Offered<'_>], judged: &[Judged]) -> IotResult<Vec<Uuid>> {
        self.found.sort_by_key(|found| (*found.rule.rule_id.as_bytes(), *found.profile.sensor_id.as_bytes()));
        with_session(|session| {
            let mut alerts = Vec::new();
            for found in &self.found {
                let stored = |number: &&u32| judged[**number as usize].fate.is_kept();
                let readings: Vec<&u32> = found.readings.iter().filter(stored).collect();
                let (Some(&&first), Some(&&last)) = (readings.first(), readings.last()) else { continue };
                let verdict = &judged[first as usize];
                let facts = Facts {
                    value: verdict.value,
                    metadata: offered[first as usize].metadata,
                    at: verdict.at,
                    data_id: Some(Uuid::from_bytes(verdict.data_id)),
                    threshold: found.threshold,
                    count: readings.len() as i64,
                    last_value: judged[last as usize].value,
                    last_at: readings.iter().map(|&&n| judged[n as usize].at).max().unwrap_or(verdict.at),
                };
                alerts.extend(alert::record(session, &found.rule, &found.profile, &facts)?);
            }
            Ok(alerts)
        })
    }
}
