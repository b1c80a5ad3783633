//! Alert rules: evaluating conditions, validating rules when they are written, and recording what they find.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use iot_core::alert::{CompiledCondition, Environment, MessageFields, MessageTemplate};
use iot_core::ingest::accept_value;
use iot_core::time::{TimeOfDay, Timestamp};
use pgrx::datum::Uuid;
use pgrx::pg_extern;

use crate::catalog::alert::{self as table, AlertRule, Occurrence};
use crate::catalog::reading::Reading;
use crate::catalog::sensor::{self, Sensor};
use crate::catalog::{self, server};
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::clock::{self, Zone};
use crate::pg::jsonb::{Jsonb, JsonbImage};
use crate::pg::statement::{Session, with_session};

/// A condition with everything evaluation needs at hand: operands of `@>` in binary form, zones resolved.
struct PreparedCondition {
    condition: CompiledCondition,
    metadata_checks: Vec<JsonbImage>,
    zones: Vec<Zone>,
}

impl PreparedCondition {
    fn compile(conditions: Jsonb<'_>) -> IotResult<Self> {
        let condition = CompiledCondition::parse(&conditions.parse()?)?;
        let metadata_checks =
            condition.metadata_checks().iter().map(JsonbImage::from_value).collect::<IotResult<_>>()?;
        let zones = condition.time_zones().iter().map(|name| known_zone(name)).collect::<IotResult<_>>()?;
        Ok(Self { condition, metadata_checks, zones })
    }

    /// The compiled form of `conditions`, from the backend's cache.
    ///
    /// The key is the binary image itself: an edited rule has another image, so nothing needs invalidation.
    fn cached(conditions: Jsonb<'_>) -> IotResult<Rc<Self>> {
        /// Far above the number of different rules a backend meets; a bound against generated conditions.
        const MAXIMUM_ENTRIES: usize = 4096;
        thread_local! {
            static CACHE: RefCell<HashMap<Box<[u8]>, Rc<PreparedCondition>>> = RefCell::default();
        }
        if let Some(found) = CACHE.with_borrow(|cache| cache.get(conditions.image()).cloned()) {
            return Ok(found);
        }
        let compiled = Rc::new(Self::compile(conditions)?);
        CACHE.with_borrow_mut(|cache| {
            if cache.len() >= MAXIMUM_ENTRIES {
                cache.clear();
            }
            cache.insert(conditions.image().into(), Rc::clone(&compiled));
        });
        Ok(compiled)
    }
}

/// What a condition may ask beside the value.
struct Surroundings<'a> {
    prepared: &'a PreparedCondition,
    metadata: Jsonb<'a>,
    at: Timestamp,
    default_zone: Option<Zone>,
}

impl Environment for Surroundings<'_> {
    fn metadata_contains(&self, check: usize) -> bool {
        self.prepared.metadata_checks.get(check).is_some_and(|operand| operand.is_contained_in(self.metadata))
    }

    fn time_of_day(&self, zone: Option<usize>) -> TimeOfDay {
        let zone = zone.map_or(self.default_zone, |index| self.prepared.zones.get(index).copied());
        zone.map_or(TimeOfDay(0), |zone| zone.time_of_day(self.at))
    }
}

fn known_zone(name: &str) -> IotResult<Zone> {
    Zone::named(name).ok_or_else(|| {
        IotError::invalid_argument(format!("time zone \"{name}\" is not known"))
            .hint("Use a name from pg_timezone_names, such as 'Europe/Berlin'.")
    })
}

#[pg_extern(sql = false)]
fn evaluate_alert_condition(
    rule_conditions: Option<Jsonb<'_>>,
    sensor_value: Option<f64>,
    sensor_metadata: Option<Jsonb<'_>>,
) -> Option<bool> {
    let prepared = PreparedCondition::cached(rule_conditions?).or_raise();
    let value = sensor_value?;
    if value.is_nan() {
        accept_value(value).or_raise();
    }
    let no_metadata = JsonbImage::empty_object();
    let surroundings = Surroundings {
        prepared: &prepared,
        metadata: sensor_metadata.unwrap_or(no_metadata.as_jsonb()),
        at: clock::transaction_start(),
        default_zone: Zone::of_session(),
    };
    Some(prepared.condition.evaluate(value, &surroundings).matched)
}

/// Called by the trigger on `iot.alert_rules`: a rule that could fail at ingest is refused when it is written.
#[pg_extern(sql = false)]
fn validate_alert_rule(
    rule_conditions: Option<Jsonb<'_>>,
    message_template: Option<&str>,
    time_zone: Option<&str>,
) {
    let conditions = rule_conditions.ok_or_else(|| IotError::null_argument("rule_conditions")).or_raise();
    let prepared = PreparedCondition::compile(conditions).or_raise();
    if prepared.condition.is_empty() {
        IotError::invalid_argument("rule_conditions must not be empty")
            .detail("An empty rule would match every reading.")
            .hint("Give at least one condition, such as '{\"threshold_high\": 80}'.")
            .raise();
    }
    let template = message_template.ok_or_else(|| IotError::null_argument("message_template")).or_raise();
    MessageTemplate::parse(template).or_raise();
    if let Some(name) = time_zone {
        known_zone(name).or_raise();
    }
}

#[pg_extern(sql = false)]
fn check_alert_rules(
    sensor_uuid: Option<Uuid>,
    sensor_value: Option<f64>,
    sensor_metadata: Option<Jsonb<'_>>,
) -> Vec<Uuid> {
    catalog::require_setup().or_raise();
    let sensor_id = sensor_uuid.ok_or_else(|| IotError::null_argument("sensor_uuid")).or_raise();
    let value = sensor_value.ok_or_else(|| IotError::null_argument("sensor_value")).or_raise();
    accept_value(value).or_raise();
    let no_metadata = JsonbImage::empty_object();
    let metadata = sensor_metadata.unwrap_or(no_metadata.as_jsonb());
    with_session(|session| {
        let now = clock::now();
        let sensor = sensor::load(session, sensor_id, now)?;
        check(session, &sensor, &Checked { value, metadata, at: now, data_id: None })
    })
    .or_raise()
}

/// Checks the rules that cover a reading just stored.
///
/// # Errors
/// Only what PostgreSQL raises while alerts are written.
pub fn check_reading(session: &mut Session<'_>, sensor: &Sensor<'_>, reading: &Reading<'_>) -> IotResult<()> {
    let checked = Checked {
        value: reading.value,
        metadata: reading.metadata,
        at: reading.measured_at,
        data_id: Some(reading.data_id),
    };
    check(session, sensor, &checked).map(drop)
}

/// What the rules look at.
struct Checked<'a> {
    value: f64,
    metadata: Jsonb<'a>,
    at: Timestamp,
    data_id: Option<Uuid>,
}

/// Evaluates every rule that covers the sensor and records the matches; returns the alerts, in order of rule id.
fn check(session: &mut Session<'_>, sensor: &Sensor<'_>, checked: &Checked<'_>) -> IotResult<Vec<Uuid>> {
    let mut alerts = Vec::new();
    let mut database_zone = None;
    for rule in table::active_rules(session, sensor)? {
        let prepared = PreparedCondition::cached(rule.conditions)?;
        let default_zone = match &rule.time_zone {
            Some(name) => Some(known_zone(name)?),
            None if prepared.condition.uses_default_zone() => {
                if database_zone.is_none() {
                    database_zone = server::database_time_zone(session)?.as_deref().and_then(Zone::named);
                }
                database_zone
            }
            None => None,
        };
        let surroundings =
            Surroundings { prepared: &prepared, metadata: checked.metadata, at: checked.at, default_zone };
        let verdict = prepared.condition.evaluate(checked.value, &surroundings);
        if verdict.matched {
            let message = message(&rule, sensor, checked, verdict.threshold)?;
            let occurrence = Occurrence {
                rule: &rule,
                message: &message,
                threshold: verdict.threshold,
                value: checked.value,
                at: checked.at,
                data_id: checked.data_id,
                metadata: checked.metadata,
            };
            alerts.extend(table::record(session, sensor, &occurrence)?);
        }
    }
    Ok(alerts)
}

fn message(
    rule: &AlertRule<'_>,
    sensor: &Sensor<'_>,
    checked: &Checked<'_>,
    threshold: Option<f64>,
) -> IotResult<String> {
    Ok(MessageTemplate::parse(&rule.message_template)?.render(&MessageFields {
        rule_name: &rule.rule_name,
        sensor_name: &sensor.sensor_name,
        sensor_type: &sensor.sensor_type,
        device_name: &sensor.device_name,
        value: checked.value,
        unit: &sensor.unit,
        threshold,
        severity: &rule.severity,
        time: checked.at,
    }))
}
