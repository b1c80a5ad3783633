//! States that are missing, brought back; also before a reading asks for them.

use std::rc::Rc;
use std::time::Instant;

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

/// States that are built by one query.
const AT_ONCE: usize = 256;

/// Brings up to `limit` states that were written down back into memory, those heard of last first, while there is room:
/// none is given up for another. Returns how many.
///
/// Only what everybody would see goes into memory: nothing for a role from which row security hides readings, in a
/// transaction that keeps its snapshot, or on a standby, whose memory would not learn what it replays.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn recall(limit: usize) -> IotResult<i64> {
    let limit = limit.min(room());
    if limit == 0 {
        return Ok(0);
    }
    let mut absent: Vec<Uuid> = with_session(sensor_state::written)?;
    absent.retain(|id| !sensors::is_tracked(&SensorKey::here(*id.as_bytes())));
    absent.truncate(limit);

    let mut lent = Lent::new()?;
    let known = lent.profiles(absent.iter().map(Uuid::as_bytes))?;
    lent.give_back();
    let mut recalled = 0;
    // A few at a time: who needs one that is being built elsewhere builds it for himself.
    for some in known.chunks(AT_ONCE) {
        let wanted: Vec<Wanted> = some.iter().flatten().cloned().filter_map(want).collect();
        build(&wanted, Vec::new(), true)?;
        wanted.iter().for_each(|wanted| overlay::leave(wanted.profile.sensor_id));
        recalled += wanted.len() as i64;
    }
    Ok(recalled)
}

/// For how many more states there is room, as far as this transaction may bring any into memory.
fn room() -> usize {
    let sees_all = in_schema_iot(c"sensor_data").is_some_and(security::sees_all_rows);
    if !sensors::is_available()
        || !sees_all
        || transaction::keeps_its_snapshot()
        || transaction::is_in_recovery()
    {
        return 0;
    }
    let occupancy = sensors::occupancy();
    usize::try_from(occupancy.capacity.saturating_sub(occupancy.tracked)).unwrap_or(usize::MAX)
}

/// Enters a sensor that nobody has asked for yet.
fn want(profile: Rc<Profile>) -> Option<Wanted> {
    let entered = overlay::enter(&profile, Timestamp(i64::MIN), true, Room::IfFree);
    // What is kept in the table is read from there by whoever needs it.
    let detector = entered.detector.filter(|_| !entered.is_in_table);
    entered.claimed.is_none().then_some(Wanted { profile, state: true, detector })
}

/// As [`build`]. Where the caller asks for sensors one by one, states of others, which are likely to be asked for next, are
/// built along with those that are `wanted`: many at once take little longer than one.
///
/// # Errors
/// As [`build`].
pub fn build_ahead(
    mut wanted: Vec<Wanted>,
    locked: Vec<Uuid>,
    sees_all: bool,
) -> IotResult<KeyMap<SensorState>> {
    let asked = wanted.len();
    // Not kept from others who need it while the states are built.
    let mut lent = Lent::new()?;
    wanted.extend(others(&mut lent, asked));
    lent.give_back();
    let started = Instant::now();
    let states = build(&wanted, locked, sees_all)?;
    for wanted in wanted.split_off(asked) {
        overlay::leave(wanted.profile.sensor_id);
    }
    let mut lent = Lent::new()?;
    lent.has_built_states(started.elapsed());
    lent.give_back();
    Ok(states)
}

/// Sensors without state, not asked for yet, to be built along with `asked` ones.
fn others(lent: &mut Lent, asked: usize) -> Vec<Wanted> {
    let (most, profiles) = lent.states_ahead(asked);
    let most = if most == 0 { 0 } else { most.min(room()) };
    if most == 0 {
        return Vec::new();
    }
    let is_absent = |profile: &Rc<Profile>| {
        profile.require_active().is_ok()
            && !overlay::has_touched(profile.sensor_id)
            && !sensors::is_tracked(&SensorKey::here(*profile.sensor_id.as_bytes()))
    };
    profiles.filter(is_absent).take(most).filter_map(want).collect()
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
