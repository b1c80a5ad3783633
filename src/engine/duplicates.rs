//! Readings whose sensor and time are taken already: by a stored reading, or by one earlier in the batch.

use std::collections::BTreeMap;

use iot_core::time::Timestamp;
use pgrx::Uuid;

use super::batch::Group;
use super::directory::KeyMap;
use super::judge::{Fate, Judged, Place};
use super::offered::Offered;
use crate::catalog::partition_policy::Duplicates;
use crate::catalog::reading;
use crate::error::{IotError, IotResult};
use crate::pg::statement::with_session;

/// A reading that may be stored already.
struct Suspect {
    number: u32,
    sensor_id: Uuid,
    at: Timestamp,
}

/// The times of one sensor that are taken within the batch.
#[derive(Default)]
struct Times {
    /// Most readings are newer than all before: they need no search tree.
    in_order: Vec<Timestamp>,
    /// Who has them.
    numbers: Vec<u32>,
    /// The others, each with its place among the suspects.
    others: BTreeMap<Timestamp, usize>,
}

/// Marks duplicates as the policy wants, and moves readings without a time of their own on to a free microsecond.
///
/// A reading newer than all that anybody has offered cannot be a duplicate; only the others are looked for, all at once.
///
/// # Errors
/// 54000 when there is no free microsecond; what PostgreSQL raises.
pub fn find(
    offered: &[Offered<'_>],
    groups: &[Group],
    judged: &mut [Judged],
    policy: Duplicates,
) -> IotResult<()> {
    let mut suspects = Vec::new();
    for group in groups {
        find_within(offered, group, judged, policy, &mut suspects);
    }
    if suspects.is_empty() {
        return Ok(());
    }
    // Where the last one of a sensor ended: the next one begins there, and they do not meet.
    let mut assigned: KeyMap<Timestamp> = KeyMap::default();
    let wanted: Vec<_> = suspects.iter().map(|suspect| (suspect.sensor_id, suspect.at)).collect();
    for (suspect, data_id) in with_session(|session| reading::find(session, &wanted))? {
        let suspect = &suspects[suspect];
        let reading = &mut judged[suspect.number as usize];
        if offered[suspect.number as usize].measured_at.is_none() {
            let last = assigned.get(suspect.sensor_id.as_bytes()).copied();
            let taken = last.filter(|&last| last >= suspect.at).unwrap_or(suspect.at);
            reading.at = next_free(suspect.sensor_id, taken)?;
            assigned.insert(*suspect.sensor_id.as_bytes(), reading.at);
            continue;
        }
        match policy {
            Duplicates::First => reading.fate = Fate::Duplicate(Some(*data_id.as_bytes())),
            Duplicates::Last => reading.place = Place::Taken,
            Duplicates::Both => reading.place = Place::Shared,
        }
    }
    Ok(())
}

fn find_within(
    offered: &[Offered<'_>],
    group: &Group,
    judged: &mut [Judged],
    policy: Duplicates,
    suspects: &mut Vec<Suspect>,
) {
    let Some(profile) = &group.profile else { return };
    let mut times = Times::default();
    times.in_order.reserve(group.readings.len());
    times.numbers.reserve(group.readings.len());
    let mut newest = group.claimed;
    for &number in &group.readings {
        let reading = &mut judged[number as usize];
        if reading.fate != Fate::Open {
            continue;
        }
        if offered[number as usize].measured_at.is_none() {
            // Ties of the clock within the batch move on by a microsecond each.
            while times.holder(reading.at, suspects).is_some() {
                reading.at = Timestamp(reading.at.0 + 1);
            }
        }
        let at = reading.at;
        if at > newest && !reading.from_future {
            newest = at;
            times.in_order.push(at);
            times.numbers.push(number);
            continue;
        }
        match (times.holder(at, suspects), policy) {
            (None, _) => {
                times.others.insert(at, suspects.len());
                suspects.push(Suspect { number, sensor_id: profile.sensor_id, at });
            }
            (Some(_), Duplicates::First) => reading.fate = Fate::Duplicate(None),
            (Some(_), Duplicates::Both) => reading.place = Place::Shared,
            // One without a time of its own is never a duplicate.
            (Some(holder), Duplicates::Last) if offered[holder as usize].measured_at.is_none() => {
                reading.fate = Fate::Duplicate(None);
            }
            (Some(holder), Duplicates::Last) => {
                judged[holder as usize].fate = Fate::Duplicate(None);
                times.give(at, number, suspects);
            }
        }
    }
}

impl Times {
    /// The number of the reading that has this time.
    fn holder(&self, at: Timestamp, suspects: &[Suspect]) -> Option<u32> {
        match self.in_order.binary_search(&at) {
            Ok(place) => Some(self.numbers[place]),
            Err(_) => self.others.get(&at).map(|&place| suspects[place].number),
        }
    }

    /// Gives a time that is taken to the reading `number`.
    fn give(&mut self, at: Timestamp, number: u32, suspects: &mut [Suspect]) {
        match self.in_order.binary_search(&at) {
            Ok(place) => self.numbers[place] = number,
            Err(_) => {
                if let Some(&place) = self.others.get(&at) {
                    suspects[place].number = number;
                }
            }
        }
    }
}

/// The first microsecond after `taken` at which the sensor has no stored reading.
fn next_free(sensor_id: Uuid, taken: Timestamp) -> IotResult<Timestamp> {
    /// More than this many in a row are not a tie but a defect.
    const MAXIMUM_TIES: i64 = 100_000;
    with_session(|session| {
        for tie in 1..MAXIMUM_TIES {
            let at = Timestamp(taken.0 + tie);
            if reading::find(session, &[(sensor_id, at)])?.is_empty() {
                return Ok(at);
            }
        }
        Err(IotError::new(
            pgrx::PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("sensor \"{sensor_id}\" has a reading for every microsecond around now"),
        )
        .hint("Pass measurement_timestamp."))
    })
}
