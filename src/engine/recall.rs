//! States that are missing, brought back; also before a reading asks for them.

use std::rc::Rc;

use iot_core::sensor_state::SensorState;
use iot_core::time::Timestamp;
use pgrx::Uuid;

use super::directory::{KeyMap, Lent};
use super::memory::{self, Wanted};
use super::overlay::{self, Room};
use super::profile::Profile;
use crate::catalog::sensor_state;
use crate::error::IotResult;
use crate::pg::relation::in_schema_iot;
use crate::pg::shared::sensors::{self, SensorKey};
use crate::pg::statement::with_session;
use crate::pg::{security, transaction};

/// Brings up to `limit` states that were written down back into memory, those heard of last first, while there is room:
/// none is given up for another. Returns how many.
///
/// Only what everybody would see goes into memory: nothing for a role from which row security hides readings, in a
/// transaction that keeps its snapshot, or on a standby, whose memory would not learn what it replays.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn recall(limit: usize) -> IotResult<i64> {
    let sees_all = in_schema_iot(c"sensor_data").is_some_and(security::sees_all_rows);
    if !sensors::is_available()
        || !sees_all
        || transaction::keeps_its_snapshot()
        || transaction::is_in_recovery()
    {
        return Ok(0);
    }
    let occupancy = sensors::occupancy();
    let room = usize::try_from(occupancy.capacity.saturating_sub(occupancy.tracked)).unwrap_or(usize::MAX);
    if room.min(limit) == 0 {
        return Ok(0);
    }
    let mut absent: Vec<Uuid> = with_session(sensor_state::written)?;
    // Not those whose readings this transaction has changed: they are built anew once it has ended.
    absent.retain(|id| !overlay::has_touched(*id) && !sensors::is_tracked(&SensorKey::here(*id.as_bytes())));
    absent.truncate(room.min(limit));

    let mut lent = Lent::new()?;
    let known = lent.profiles(absent.iter().map(Uuid::as_bytes))?;
    lent.give_back();
    let wants = |profile: Rc<Profile>| {
        let entered = overlay::enter(&profile, Timestamp(i64::MIN), sees_all, Room::IfFree);
        // What is kept in the table is read from there by whoever needs it.
        let detector = entered.detector.filter(|_| !entered.is_in_table);
        entered.claimed.is_none().then_some(Wanted { profile, state: true, detector })
    };
    let wanted: Vec<Wanted> = known.into_iter().flatten().filter_map(wants).collect();
    build(&wanted, Vec::new(), sees_all)?;
    Ok(wanted.len() as i64)
}

/// Finds what is `wanted` of sensors that were entered, and gives it to the transaction; returns the states among it. The
/// rows of `locked` sensors are locked before.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn build(wanted: &[Wanted], locked: Vec<Uuid>, sees_all: bool) -> IotResult<KeyMap<SensorState>> {
    let mut rebuilt = with_session(|session| {
        if !locked.is_empty() {
            sensor_state::lock(session, locked)?;
        }
        memory::rebuild(session, wanted)
    })?;
    for wanted in wanted {
        let sensor_id = wanted.profile.sensor_id;
        if let Some(found) = rebuilt.detectors.remove(sensor_id.as_bytes()) {
            overlay::provide_detector(sensor_id, found);
        }
        if wanted.state {
            let state = *rebuilt.states.entry(*sensor_id.as_bytes()).or_default();
            overlay::provide(sensor_id, state, sees_all);
        }
    }
    Ok(rebuilt.states)
}
