//! The rows of a batch.

use iot_core::time::Timestamp;
use pgrx::{PgSqlErrorCode, Uuid};

use super::batch::{Group, Offered};
use super::judge::{Fate, Judged};
use super::overlay;
use super::profile::Profile;
use crate::catalog::reading::{self, Columns};
use crate::error::{IotError, IotResult};
use crate::pg::clock;
use crate::pg::shared::counters::{self, Counter};
use crate::pg::statement::with_session;

/// Stores every reading that is still open, and settles its fate.
///
/// # Errors
/// What PostgreSQL raises.
pub fn write(
    offered: &[Offered<'_>],
    groups: &[Group],
    received_at: Timestamp,
    judged: &mut [Judged],
) -> IotResult<()> {
    let mut columns = Columns::default();
    let mut numbers = Vec::new();
    for group in groups {
        let Some(profile) = &group.profile else { continue };
        for &number in &group.readings {
            if judged[number as usize].fate == Fate::Open {
                push(
                    &mut columns,
                    profile,
                    &offered[number as usize],
                    &judged[number as usize],
                    received_at,
                )?;
                numbers.push((number, profile));
            }
        }
    }
    if numbers.is_empty() {
        return Ok(());
    }
    let stored = with_session(|session| super::writing(|| reading::insert(session, columns)))?;
    let stored: std::collections::HashSet<[u8; 16]> = stored.iter().map(|id| *id.as_bytes()).collect();
    for (number, profile) in numbers {
        let reading = &mut judged[number as usize];
        if stored.contains(&reading.data_id) {
            reading.fate = Fate::Stored;
        } else {
            settle_conflict(&offered[number as usize], profile, received_at, reading)?;
        }
    }
    Ok(())
}

/// A reading that met another one at the primary key: its state was counted with it, so it is read anew next time.
fn settle_conflict(
    offer: &Offered<'_>,
    profile: &Profile,
    received_at: Timestamp,
    reading: &mut Judged,
) -> IotResult<()> {
    counters::add(Counter::Conflicts, 1);
    overlay::mark_stale(*profile.sensor_id.as_bytes());
    loop {
        let mut columns = Columns::default();
        push(&mut columns, profile, offer, reading, received_at)?;
        let stored = with_session(|session| super::writing(|| reading::insert(session, columns)))?;
        if !stored.is_empty() {
            reading.fate = Fate::Stored;
            return Ok(());
        }
        let found = with_session(|session| reading::find(session, &[(profile.sensor_id, reading.at)]))?;
        let Some(&(_, data_id)) = found.first() else {
            return Err(neither_stored_nor_found(profile, reading));
        };
        if offer.measured_at.is_some() {
            reading.fate = Fate::Duplicate(Some(*data_id.as_bytes()));
            return Ok(());
        }
        reading.at = Timestamp(reading.at.0 + 1);
    }
}

fn push(
    columns: &mut Columns,
    profile: &Profile,
    offer: &Offered<'_>,
    reading: &Judged,
    received_at: Timestamp,
) -> IotResult<()> {
    columns.data_id.push(Uuid::from_bytes(reading.data_id));
    columns.sensor_id.push(profile.sensor_id);
    columns.device_id.push(profile.device_id);
    columns.organization_id.push(profile.organization_id);
    columns.sensor_type.push(profile.sensor_type.clone());
    columns.measured_at.push(clock::to_pg(reading.at));
    columns.received_at.push(clock::to_pg(received_at));
    columns.value.push(reading.value);
    columns.raw_value.push((offer.value != reading.value).then_some(offer.value));
    columns.unit.push(profile.unit.clone());
    columns.data_quality.push(reading.quality.verdict().as_str());
    columns.quality_flags.push(reading.quality.0);
    columns.is_anomaly.push(reading.is_anomaly);
    columns.is_onset.push(reading.is_onset);
    columns.anomaly_score.push(reading.score);
    columns.metadata.push(offer.metadata.to_text());
    Ok(())
}

fn neither_stored_nor_found(profile: &Profile, reading: &Judged) -> IotError {
    IotError::new(
        PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
        format!(
            "reading of sensor \"{}\" at {} was not stored, and none of that time is visible",
            profile.sensor_id,
            reading.at.to_utc_literal()
        ),
    )
    .detail("Either row security hides a stored one, or a trigger on iot.sensor_data discarded it.")
    .hint("Let the role's SELECT policies on iot.sensor_data show the readings it stores, and look at your triggers.")
}
