//! What of the states has to be in `iot.sensor_state` when the transaction commits, and what there is not true any more.

use pgrx::Uuid;

use super::{Local, TRANSACTION};
use crate::catalog::sensor_state::{self, NO_DETECTOR, Written};
use crate::engine::learned::Keeping;
use crate::engine::profile::Profile;
use crate::error::IotResult;
use crate::pg::shared::flush;
use crate::pg::shared::sensors::{self, Handle};
use crate::pg::statement::with_session;

/// The states that shared memory does not hold, of those of `profiles` that the transaction changed.
pub fn states_for_table<'a>(profiles: impl Iterator<Item = &'a Profile>) -> Vec<Written> {
    TRANSACTION.with_borrow(|transaction| {
        profiles
            .filter_map(|profile| {
                let local = transaction.sensors.get(profile.sensor_id.as_bytes())?;
                let kept = local.kept.as_ref()?;
                // An entry that another session is building is going to be built again, from what is written down now and
                // the rows since.
                let is_held =
                    !kept.private || (kept.common && local.handle.as_ref().is_some_and(Handle::has_entry));
                let state = (!is_held && !kept.change.is_empty()).then_some(*kept.state);
                let has_none = state.is_some() && local.detector.keeping() == Keeping::Nowhere;
                let detector = if has_none { Some(NO_DETECTOR) } else { local.detector.for_table() };
                (state.is_some() || detector.is_some()).then_some(Written {
                    sensor_id: profile.sensor_id,
                    device_id: profile.device_id,
                    is_checkpoint: false,
                    state,
                    detector,
                })
            })
            .collect()
    })
}

/// Readings older than their sensor's newest were stored: a checkpoint on disk does not have them, and nobody could tell.
/// The same holds of any reading stored by a transaction that the sensor's entry does not know of. Where a flush has not
/// committed its checkpoint yet, this waits for it. `others`: sensors whose states are written after that; all rows are locked
/// in one order then.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn spoil_checkpoints(sensor_ids: Vec<Uuid>, others: &[Uuid]) -> IotResult<()> {
    let (mut there, mut on_the_way) = (Vec::new(), Vec::new());
    TRANSACTION.with_borrow_mut(|transaction| {
        let mut has_untracked = false;
        for sensor_id in sensor_ids {
            let Some(local) = transaction.sensors.get_mut(sensor_id.as_bytes()) else { continue };
            if local.spoiled {
                continue;
            }
            local.spoiled = true;
            match &local.handle {
                Some(handle) if handle.flushing => {
                    flush::spoil_flushing(handle);
                    on_the_way.push(sensor_id);
                }
                Some(handle) if !handle.has_entry() => {
                    has_untracked = true;
                    on_the_way.push(sensor_id);
                }
                Some(handle) if !handle.checkpointed => (),
                None if sensors::is_available() => {
                    has_untracked = true;
                    on_the_way.push(sensor_id);
                }
                Some(_) | None => there.push(sensor_id),
            }
        }
        if has_untracked {
            transaction.begin_untracked();
        }
    });
    if there.is_empty() && on_the_way.is_empty() {
        return Ok(());
    }
    with_session(|session| {
        let parts: [&[Uuid]; 3] = [&there, &on_the_way, others];
        if parts.iter().filter(|part| !part.is_empty()).count() > 1 {
            sensor_state::lock(session, parts.concat())?;
        }
        if !on_the_way.is_empty() {
            sensor_state::spoil_awaited(session, on_the_way)?;
        }
        if there.is_empty() { Ok(()) } else { sensor_state::spoil(session, there) }
    })
}

/// The sensors of which this transaction stores readings without an entry that knows of it.
pub fn untracked<'a>(profiles: impl Iterator<Item = &'a Profile>) -> Vec<Uuid> {
    if !sensors::is_available() {
        return Vec::new();
    }
    let has_no_entry = |local: &Local| local.handle.as_ref().is_none_or(|handle| !handle.has_entry());
    TRANSACTION.with_borrow(|transaction| {
        let local_of = |profile: &Profile| transaction.sensors.get(profile.sensor_id.as_bytes());
        profiles.filter(|p| local_of(p).is_some_and(has_no_entry)).map(|p| p.sensor_id).collect()
    })
}
