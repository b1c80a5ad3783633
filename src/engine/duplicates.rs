//! Readings whose sensor and time are taken already: by a stored reading, or by one earlier in the batch.

use std::collections::BTreeMap;

use iot_core::time::Timestamp;
use pgrx::Uuid;

use super::batch::Group;
use super::judge::{Fate, Judged};
use super::offered::Offered;
use crate::catalog::reading;
use crate::error::{IotError, IotResult};
use crate::pg::statement::with_session;

/// A reading that may be stored already.
struct Suspect {
    number: u32,
    sensor_id: Uuid,
    at: Timestamp,
}

/// Marks duplicates, and moves readings without a time of their own on to a free microsecond.
///
/// A reading newer than all that anybody has offered cannot be a duplicate; only the others are looked for, all at once.
///
/// # Errors
/// 54000 when there is no free microsecond; what PostgreSQL raises.
pub fn find(offered: &[Offered<'_>], groups: &[Group], judged: &mut [Judged]) -> IotResult<()> {
    let mut suspects = Vec::new();
    for group in groups {
        find_within(offered, group, judged, &mut suspects);
    }
    if suspects.is_empty() {
        return Ok(());
    }
    let wanted: Vec<_> = suspects.iter().map(|suspect| (suspect.sensor_id, suspect.at)).collect();
    for (suspect, data_id) in with_session(|session| reading::find(session, &wanted))? {
        let suspect = &suspects[suspect];
        let reading = &mut judged[suspect.number as usize];
        if offered[suspect.number as usize].measured_at.is_some() {
            reading.fate = Fate::Duplicate(Some(*data_id.as_bytes()));
        } else {
            reading.at = next_free(suspect.sensor_id, suspect.at)?;
        }
    }
    Ok(())
}

fn find_within(offered: &[Offered<'_>], group: &Group, judged: &mut [Judged], suspects: &mut Vec<Suspect>) {
    let Some(profile) = &group.profile else { return };
    // Times taken in this batch. Most readings are newer than all before: they need no search tree.
    let mut in_order: Vec<Timestamp> = Vec::with_capacity(group.readings.len());
    let mut others: BTreeMap<Timestamp, ()> = BTreeMap::new();
    let mut newest = group.claimed;
    for &number in &group.readings {
        let reading = &mut judged[number as usize];
        if reading.fate != Fate::Open {
            continue;
        }
        let is_taken = |at: &Timestamp| in_order.binary_search(at).is_ok() || others.contains_key(at);
        if offered[number as usize].measured_at.is_none() {
            // Ties of the clock within the batch move on by a microsecond each.
            while is_taken(&reading.at) {
                reading.at = Timestamp(reading.at.0 + 1);
            }
        }
        if reading.at > newest && !reading.from_future {
            newest = reading.at;
            in_order.push(reading.at);
        } else if is_taken(&reading.at) {
            reading.fate = Fate::Duplicate(None);
        } else {
            others.insert(reading.at, ());
            suspects.push(Suspect { number, sensor_id: profile.sensor_id, at: reading.at });
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
