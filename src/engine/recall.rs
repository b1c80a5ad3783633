//! States back in memory before a reading asks for them.

use std::rc::Rc;

use iot_core::time::Timestamp;
use pgrx::Uuid;

use super::directory::Lent;
use super::memory;
use super::overlay::{self, Entered};
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
    absent.retain(|id| !sensors::is_tracked(&SensorKey::here(*id.as_bytes())));
    absent.truncate(room.min(limit));

    let mut lent = Lent::new()?;
    let known = lent.profiles(absent.iter().map(Uuid::as_bytes))?;
    lent.give_back();
    let missing: Vec<Rc<Profile>> = known
        .into_iter()
        .flatten()
        .filter(|profile| {
            let entered = overlay::enter(profile.sensor_id, profile.device_id, Timestamp(i64::MIN), sees_all);
            matches!(entered, Entered::Missing)
        })
        .collect();
    let wanted: Vec<&Profile> = missing.iter().map(Rc::as_ref).collect();
    let states = with_session(|session| memory::rebuild(session, &wanted))?;
    for profile in wanted {
        let state = states.get(profile.sensor_id.as_bytes()).copied().unwrap_or_default();
        overlay::provide(profile.sensor_id, state, sees_all);
    }
    Ok(missing.len() as i64)
}
