//! The backend's cache of sensor profiles, and when it may be used.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use pgrx::datum::Interval;
use pgrx::{Uuid, pg_sys};

use super::profile::Profile;
use crate::catalog::partition_policy::{self, Duplicates};
use crate::catalog::{self, retention_rule, sensor};
use crate::error::IotResult;
use crate::pg::relation::in_schema_iot;
use crate::pg::statement::{Session, with_session};
use crate::pg::{invalidation, security, transaction};
use crate::processing::{self, DeviceRules};

/// Tables whose rows are cached here.
const CACHED_TABLES: [&std::ffi::CStr; 10] = [
    c"sensors",
    c"devices",
    c"sensor_calibrations",
    c"alert_rules",
    c"data_processing_rules",
    c"device_groups",
    c"device_group_members",
    c"organizations",
    c"partition_policy",
    c"sensor_data",
];

/// Profiles kept at most, some 2 kB each; beyond that the cache starts anew.
const MAXIMUM_PROFILES: usize = 100_000;

/// Sensor keys are random already (or chosen by the owner of the registry, who gains nothing from collisions).
#[derive(Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0_u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(29) ^ u64::from_ne_bytes(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        self.0 ^= self.0 >> 32;
    }

    fn write_usize(&mut self, _length_prefix: usize) {}
}

/// A map keyed by uuid bytes.
pub type KeyMap<V> = HashMap<[u8; 16], V, BuildHasherDefault<KeyHasher>>;

/// What `setup()` was told about readings.
#[derive(Clone, Default)]
pub struct Intake {
    /// How far back they are accepted; `None` is the default.
    pub retention: Option<Interval>,
    /// Which of the same sensor and time are kept.
    pub duplicates: Duplicates,
    /// Those that are kept for a time of their own, and so accepted as long.
    pub rules: Rc<[IntakeRule]>,
}

/// A retention rule, as far as it concerns what is accepted.
pub struct IntakeRule {
    column: String,
    value: Option<String>,
    /// How long its readings are kept.
    pub keep_for: Interval,
}

impl IntakeRule {
    /// Whether readings of the sensor may be those of the rule: it says so of what is the same for all of them.
    pub fn may_concern(&self, profile: &Profile) -> bool {
        let value = self.value.as_deref();
        let is = |id: Option<Uuid>| match (id, value) {
            (Some(id), Some(value)) => id.to_string().eq_ignore_ascii_case(value),
            (id, value) => id.is_none() && value.is_none(),
        };
        match self.column.as_str() {
            "sensor_id" => is(Some(profile.sensor_id)),
            "device_id" => is(Some(profile.device_id)),
            "organization_id" => is(profile.organization_id),
            "sensor_type" => value == Some(profile.sensor_type.as_str()),
            _ => true,
        }
    }
}

/// Profiles by sensor. `None` stands for a sensor that does not exist (or is hidden): asked for, and not found.
#[derive(Default)]
pub struct Directory {
    profiles: KeyMap<Option<Rc<Profile>>>,
    processing: processing::Cache,
    intake: Option<Intake>,
    /// Sensors to load beside the next one that is missing.
    ahead: usize,
    generation: u64,
    tables: Vec<pg_sys::Oid>,
}

thread_local! {
    static CACHE: RefCell<Option<Directory>> = const { RefCell::new(None) };
}

/// The directory for one call; give it back with [`Directory::give_back`].
pub struct Lent {
    directory: Directory,
    shared: bool,
}

impl Lent {
    /// The backend's cache where the caller sees the registry as everybody does, else an empty directory that is filled
    /// with what row security shows him.
    pub fn new() -> IotResult<Self> {
        catalog::require_setup()?;
        invalidation::accept_messages();
        let mut directory = CACHE.take().unwrap_or_default();
        if directory.generation != invalidation::generation() || directory.tables.is_empty() {
            let tables: Vec<_> = CACHED_TABLES.iter().filter_map(|name| in_schema_iot(name)).collect();
            invalidation::watch(tables.clone());
            directory = Directory { tables, generation: invalidation::generation(), ..Directory::default() };
        }
        // A snapshot older than the cache, or a cache older than the snapshot, would show what this transaction must not see.
        let shared = !transaction::keeps_its_snapshot()
            && directory.tables.iter().all(|&table| security::sees_all_rows(table));
        if shared {
            return Ok(Self { directory, shared });
        }
        CACHE.set(Some(directory));
        Ok(Self { directory: Directory::default(), shared })
    }

    /// Ends the call. What was loaded while the registry changed is not kept.
    pub fn give_back(self) {
        if !self.shared || self.directory.generation != invalidation::generation() {
            return;
        }
        if self.directory.profiles.len() <= MAXIMUM_PROFILES {
            CACHE.set(Some(self.directory));
        }
    }

    /// Profiles of `sensors`, in their order; `None` for one that does not exist.
    ///
    /// # Errors
    /// Only what PostgreSQL raises.
    pub fn profiles<'a>(
        &mut self,
        sensors: impl Iterator<Item = &'a [u8; 16]> + Clone,
    ) -> IotResult<Vec<Option<Rc<Profile>>>> {
        let known = &self.directory.profiles;
        let mut missing: Vec<Uuid> =
            sensors.clone().filter(|id| !known.contains_key(*id)).map(|&id| Uuid::from_bytes(id)).collect();
        if !missing.is_empty() {
            missing.sort_unstable_by_key(|id| *id.as_bytes());
            missing.dedup();
            let shared = self.shared;
            with_session(|session| {
                if shared {
                    self.directory.look_ahead(session, &mut missing)?;
                }
                self.directory.load(session, missing)
            })?;
        }
        Ok(sensors.map(|id| self.directory.profiles.get(id).cloned().flatten()).collect())
    }

    /// The processing rules of the devices that carry `sensors`, for those that have any.
    ///
    /// # Errors
    /// Only what PostgreSQL raises.
    pub fn processing_rules<'a>(
        &mut self,
        sensors: impl Iterator<Item = &'a Rc<Profile>> + Clone,
    ) -> IotResult<KeyMap<Rc<DeviceRules>>> {
        self.directory.processing.of_devices(sensors.map(|profile| *profile.device_id.as_bytes()))
    }

    /// The processing rules of a device, if it has any.
    ///
    /// # Errors
    /// Only what PostgreSQL raises.
    pub fn processing_rules_of(&mut self, device_id: Uuid) -> IotResult<Option<Rc<DeviceRules>>> {
        let device_id = *device_id.as_bytes();
        Ok(self.directory.processing.of_devices(std::iter::once(device_id))?.remove(&device_id))
    }

    /// Which readings are accepted.
    ///
    /// # Errors
    /// Only what PostgreSQL raises.
    pub fn intake(&mut self) -> IotResult<Intake> {
        if let Some(known) = &self.directory.intake {
            return Ok(known.clone());
        }
        let known = match in_schema_iot(c"sensor_data") {
            Some(table) => with_session(|session| {
                let Some(policy) = partition_policy::load(session, table)? else { return Ok(None) };
                Ok(Some((policy, retention_rule::of_parent(session, table)?)))
            })?,
            None => None,
        };
        let intake = known.map_or_else(Intake::default, |(policy, rules)| Intake {
            retention: policy.retention,
            duplicates: policy.duplicates,
            rules: rules
                .into_iter()
                .filter_map(|rule| {
                    let (column, value) = rule.rows?;
                    Some(IntakeRule { column, value, keep_for: rule.keep_for? })
                })
                .collect(),
        });
        self.directory.intake = Some(intake.clone());
        Ok(intake)
    }
}

impl Directory {
    /// A backend that asks for sensors one by one will ask for more: each time twice as many of them are loaded with the
    /// one that is missing, as loading many at once costs little more than loading one.
    fn look_ahead(&mut self, session: &mut Session<'_>, missing: &mut Vec<Uuid>) -> IotResult<()> {
        const MOST: usize = 1_024;
        let Some(&last) = missing.last() else { return Ok(()) };
        let more = self
            .ahead
            .saturating_sub(missing.len())
            .min(MAXIMUM_PROFILES - self.profiles.len().min(MAXIMUM_PROFILES));
        self.ahead = (self.ahead * 2).clamp(1, MOST);
        if more > 0 {
            // Those after the last one may come around to the first ones, which are wanted already.
            let known = |id: &Uuid| self.profiles.contains_key(id.as_bytes()) || missing.contains(id);
            let following: Vec<Uuid> =
                sensor::following(session, last, more)?.into_iter().filter(|id| !known(id)).collect();
            missing.extend(following);
        }
        Ok(())
    }

    fn load(&mut self, session: &mut Session<'_>, sensor_ids: Vec<Uuid>) -> IotResult<()> {
        let mut profiles: KeyMap<Profile> = sensor::load(session, sensor_ids.clone())?
            .into_iter()
            .map(|profile| (*profile.sensor_id.as_bytes(), profile))
            .collect();
        for (sensor_id, period) in sensor::load_calibrations(session, sensor_ids.clone())? {
            if let Some(profile) = profiles.get_mut(sensor_id.as_bytes()) {
                profile.calibrations.push(period);
            }
        }
        crate::alert::attach_rules(session, &mut profiles)?;
        for sensor_id in sensor_ids {
            let key = *sensor_id.as_bytes();
            self.profiles.insert(key, profiles.remove(&key).map(Rc::new));
        }
        Ok(())
    }
}
