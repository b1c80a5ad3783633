//! The rows of a batch.

use std::collections::HashSet;
use std::ffi::CStr;
use std::rc::Rc;

use iot_core::ingest::DataQuality;
use iot_core::time::Timestamp;
use pgrx::pg_sys::{BOOLOID, FLOAT8OID, INT4OID, JSONBOID, TEXTOID, TIMESTAMPTZOID, UUIDOID};
use pgrx::{PgSqlErrorCode, Uuid};

use super::batch::Group;
use super::judge::{Fate, Judged, Place};
use super::offered::{Measured, Offered};
use super::overlay;
use super::profile::Profile;
use crate::catalog::partition_policy::Duplicates;
use crate::catalog::reading::{self, Columns};
use crate::error::{IotError, IotResult};
use crate::pg::bulk_insert::{self, BulkInsert};
use crate::pg::clock;
use crate::pg::relation::{Lock, OpenRelation, in_schema_iot};
use crate::pg::shared::counters::{self, Counter};
use crate::pg::statement::with_session;
use crate::pg::transaction;
use crate::pg::value::{ColumnValue, TextImage};

/// Columns that the engine gives, in the order of [`values`].
const COLUMNS: bulk_insert::Columns = &[
    (c"measurement_timestamp", TIMESTAMPTZOID),
    (c"received_at", TIMESTAMPTZOID),
    (c"anomaly_score", FLOAT8OID),
    (c"data_id", UUIDOID),
    (c"sensor_id", UUIDOID),
    (c"device_id", UUIDOID),
    (c"quality_flags", INT4OID),
    (c"is_anomaly", BOOLOID),
    (c"is_onset", BOOLOID),
    (c"measurement_value", FLOAT8OID),
    (c"raw_value", FLOAT8OID),
    (c"organization_id", UUIDOID),
    (c"data_quality", TEXTOID),
    (c"measurement_unit", TEXTOID),
    (c"sensor_type", TEXTOID),
    (c"measurement_metadata", JSONBOID),
    (c"text_value", TEXTOID),
    (c"boolean_value", BOOLOID),
    (c"json_value", JSONBOID),
];

/// Our own triggers on `iot.sensor_data`, which would only learn what the engine knows.
const OWN_TRIGGERS: &[&CStr] = &[c"sensor_data_changed", c"sensor_data_truncated"];

thread_local! {
    /// The words of `data_quality` as stored.
    static QUALITIES: [TextImage; 3] =
        [DataQuality::Valid, DataQuality::Suspect, DataQuality::Invalid].map(|quality| TextImage::new(quality.as_str()));
}

/// Stores every reading that is still open, and settles its fate. Returns those that were neither stored nor found: a trigger
/// discards them, or row security hides the stored one.
///
/// # Errors
/// What PostgreSQL raises.
pub fn write(
    offered: &[Offered<'_>],
    groups: &[Group],
    received_at: Timestamp,
    judged: &mut [Judged],
    policy: Duplicates,
) -> IotResult<Vec<(u32, IotError)>> {
    let Some(table) = in_schema_iot(c"sensor_data") else { return Ok(Vec::new()) };
    let parent = OpenRelation::open(table, Lock::RowExclusive);
    let open = judged.iter().filter(|reading| reading.fate == Fate::Open).count();
    let mut left = Vec::new();
    if open > 1 {
        // Rows of a batch are stored without waiting for anybody, in the order of the sensors in the batch. When one of
        // them meets another session's row, or only the executor can store some, all of them are taken back, so that nobody
        // waits for us while we wait.
        let mut tried = judged.to_vec();
        let outcome = transaction::in_subtransaction(
            || without_waiting(&parent, offered, groups, received_at, &mut tried, &mut left),
            |outcome| outcome.is_kept,
        )?;
        counters::add(Counter::Conflicts, outcome.conflicts);
        if outcome.is_kept {
            judged.copy_from_slice(&tried);
        } else {
            left.clear();
            leave_all(groups, judged, &mut left)?;
        }
    } else {
        // A single row may wait where it is. Nobody else comes with it, or whoever does knows that we came first: else it must
        // leave nothing behind.
        let mut traces = Traces::Left;
        visit_open(groups, judged, |group, _, _, reading| {
            if !group.is_first_at(reading.at) {
                traces = Traces::None;
            }
            Ok(())
        })?;
        let conflicts = past_the_executor(&parent, offered, groups, received_at, traces, judged, &mut left)?;
        left.extend(conflicts);
    }
    if left.is_empty() {
        return Ok(Vec::new());
    }
    // What a trigger of the user makes of a row, the state of its sensor does not know: such rows count as written past the
    // engine.
    let unchanged = !bulk_insert::fires_triggers(&parent, OWN_TRIGGERS);
    drop(parent);
    through_the_executor(left, offered, received_at, unchanged, judged, policy)
}

/// The value of a reading that is text; a number that came as text is a number.
fn text_of<'a>(offer: &Offered<'a>, reading: &Judged) -> Option<&'a str> {
    match offer.value {
        Measured::Text(text) if reading.value.is_nan() => Some(text),
        _ => None,
    }
}

fn visit_open<'a>(
    groups: &'a [Group],
    judged: &mut [Judged],
    mut visit: impl FnMut(&'a Group, u32, &'a Rc<Profile>, &mut Judged) -> IotResult<()>,
) -> IotResult<()> {
    for group in groups {
        let Some(profile) = &group.profile else { continue };
        for &number in &group.readings {
            let reading = &mut judged[number as usize];
            if reading.fate == Fate::Open {
                visit(group, number, profile, reading)?;
            }
        }
    }
    Ok(())
}

/// Leaves every open reading to `left`.
fn leave_all(groups: &[Group], judged: &mut [Judged], left: &mut Vec<(u32, Rc<Profile>)>) -> IotResult<()> {
    visit_open(groups, judged, |_, number, profile, _| {
        left.push((number, Rc::clone(profile)));
        Ok(())
    })
}

/// What became of readings that were stored without waiting.
struct Tried {
    /// How many met another session.
    conflicts: u64,
    /// Whether what is left can be stored without waiting, too, or nothing is held while it waits.
    is_kept: bool,
}

/// Stores what can be stored past the executor, and locks the stored readings that give way. What is left to `left` is to be
/// stored after that.
fn without_waiting(
    parent: &OpenRelation,
    offered: &[Offered<'_>],
    groups: &[Group],
    received_at: Timestamp,
    judged: &mut [Judged],
    left: &mut Vec<(u32, Rc<Profile>)>,
) -> IotResult<Tried> {
    let mut taken = Vec::new();
    let mut open = 0;
    visit_open(groups, judged, |_, _, profile, reading| {
        open += 1;
        if reading.place == Place::Taken {
            taken.push((*profile.sensor_id.as_bytes(), reading.at));
        }
        Ok(())
    })?;
    if taken.len() == open {
        leave_all(groups, judged, left)?;
        return Ok(Tried { conflicts: 0, is_kept: true });
    }
    let mut conflicts =
        past_the_executor(parent, offered, groups, received_at, Traces::Left, judged, left)?.len();
    let (holds_rows, needs_executor) = (left.len() < open, left.len() > taken.len());
    if conflicts == 0 && holds_rows && !needs_executor && !taken.is_empty() {
        let locked = with_session(|session| reading::lock_if_free(session, &taken))?;
        conflicts = taken.len().saturating_sub(locked);
    }
    Ok(Tried { conflicts: conflicts as u64, is_kept: conflicts == 0 && !(holds_rows && needs_executor) })
}

/// Whether rows that turn out to be duplicates may leave something that other sessions wait for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Traces {
    Left,
    None,
}

/// Stores what can be stored so, and leaves the rest to `left`. Returns the readings whose sensor and time turned out to
/// be taken, committed or not: they are open again.
fn past_the_executor(
    parent: &OpenRelation,
    offered: &[Offered<'_>],
    groups: &[Group],
    received_at: Timestamp,
    traces: Traces,
    judged: &mut [Judged],
    left: &mut Vec<(u32, Rc<Profile>)>,
) -> IotResult<Vec<(u32, Rc<Profile>)>> {
    let Some(mut insert) = BulkInsert::open(parent, COLUMNS, OWN_TRIGGERS) else {
        leave_all(groups, judged, left)?;
        return Ok(Vec::new());
    };
    if traces == Traces::None {
        insert = insert.without_traces();
    }
    let mut appended = Vec::with_capacity(offered.len());
    QUALITIES.with(|qualities| {
        visit_open(groups, judged, |_, number, profile, reading| {
            if reading.place == Place::Taken {
                left.push((number, Rc::clone(profile)));
                return Ok(());
            }
            let offer = &offered[number as usize];
            let text = text_of(offer, reading).map(TextImage::new);
            let row = values(profile, offer, reading, received_at, qualities, text.as_ref());
            if insert.append_values(&row)? {
                reading.fate = Fate::Stored;
            } else {
                left.push((number, Rc::clone(profile)));
            }
            appended.push((number, profile));
            Ok(())
        })
    })?;
    let mut conflicts = Vec::new();
    for row in insert.finish() {
        let (number, profile) = appended[row as usize];
        judged[number as usize].fate = Fate::Open;
        conflicts.push((number, Rc::clone(profile)));
    }
    Ok(conflicts)
}

fn values<'a>(
    profile: &'a Profile,
    offer: &Offered<'a>,
    reading: &'a Judged,
    received_at: Timestamp,
    qualities: &'a [TextImage; 3],
    text: Option<&'a TextImage>,
) -> [ColumnValue<'a>; COLUMNS.len()] {
    let raw_value = reading.raw_value().map_or(ColumnValue::Null, ColumnValue::Float);
    let value = if reading.value.is_nan() { ColumnValue::Null } else { ColumnValue::Float(reading.value) };
    [
        ColumnValue::Timestamp(reading.at),
        ColumnValue::Timestamp(received_at),
        ColumnValue::Float(reading.score),
        ColumnValue::Uuid(&reading.data_id),
        ColumnValue::Uuid(profile.sensor_id.as_bytes()),
        ColumnValue::Uuid(profile.device_id.as_bytes()),
        ColumnValue::Integer(reading.quality.0),
        ColumnValue::Boolean(reading.is_anomaly),
        ColumnValue::Boolean(reading.is_onset),
        value,
        raw_value,
        profile.organization_id.as_ref().map_or(ColumnValue::Null, |id| ColumnValue::Uuid(id.as_bytes())),
        ColumnValue::Text(&qualities[reading.quality.verdict() as usize]),
        ColumnValue::Text(&profile.images.1),
        ColumnValue::Text(&profile.images.0),
        ColumnValue::Jsonb(offer.metadata),
        text.map_or(ColumnValue::Null, ColumnValue::Text),
        if let Measured::Boolean(value) = offer.value {
            ColumnValue::Boolean(value)
        } else {
            ColumnValue::Null
        },
        if let Measured::Json(value) = offer.value { ColumnValue::Jsonb(value) } else { ColumnValue::Null },
    ]
}

/// Stores `left` with an INSERT: under row security, with the triggers of the user, into partitions of any kind, waiting
/// for other sessions in the order of sensor and time. `unchanged`: rows are stored as they are. Returns the readings that were
/// not stored.
fn through_the_executor(
    mut left: Vec<(u32, Rc<Profile>)>,
    offered: &[Offered<'_>],
    received_at: Timestamp,
    unchanged: bool,
    judged: &mut [Judged],
    policy: Duplicates,
) -> IotResult<Vec<(u32, IotError)>> {
    left.sort_by_key(|(number, profile)| key_of(*number, profile, judged));
    let may_replace =
        |number: u32| policy == Duplicates::Last && offered[number as usize].measured_at.is_some();
    let (replacing, left): (Vec<_>, Vec<_>) = left.into_iter().partition(|&(number, _)| may_replace(number));
    let mut not_stored = Vec::new();
    if !replacing.is_empty() {
        replace(replacing, offered, received_at, unchanged, judged, &mut not_stored)?;
    }
    if left.is_empty() {
        return Ok(not_stored);
    }
    let may_share = policy == Duplicates::Both;
    let mut columns = Columns::default();
    for (number, profile) in &left {
        push(&mut columns, profile, &offered[*number as usize], &judged[*number as usize], received_at);
    }
    let mut stored: HashSet<[u8; 16]> =
        insert(columns, may_share, unchanged)?.iter().map(|data_id| *data_id.as_bytes()).collect();
    let (kept, others): (Vec<_>, Vec<_>) =
        left.into_iter().partition(|&(number, _)| stored.remove(&judged[number as usize].data_id));
    for (number, _) in kept {
        judged[number as usize].fate = Fate::Stored;
    }
    for (number, profile) in others {
        let reading = &mut judged[number as usize];
        let is_settled = !may_share
            && settle_conflict(&offered[number as usize], &profile, received_at, unchanged, reading)?;
        if !is_settled {
            not_stored.push((number, give_up(&profile, reading, !stored.is_empty())?));
        }
    }
    Ok(not_stored)
}

/// The reading was neither stored nor found. `is_doubtful`: rows were stored under keys that nobody offered, and it may be in
/// one of them; then nothing of the batch is stored.
fn give_up(profile: &Profile, reading: &mut Judged, is_doubtful: bool) -> IotResult<IotError> {
    let error = neither_stored_nor_found(profile, reading);
    if is_doubtful {
        return Err(error);
    }
    // The sensor's state was counted with it.
    overlay::mark_stale(*profile.sensor_id.as_bytes())?;
    reading.fate = Fate::Rejected;
    Ok(error)
}

/// What orders the readings of a batch where sessions may wait for each other.
fn key_of(number: u32, profile: &Profile, judged: &[Judged]) -> ([u8; 16], Timestamp) {
    (*profile.sensor_id.as_bytes(), judged[number as usize].at)
}

fn insert(columns: Columns, may_share: bool, unchanged: bool) -> IotResult<Vec<Uuid>> {
    let insert = || with_session(|session| reading::insert(session, columns, may_share));
    if unchanged { super::writing(insert) } else { insert() }
}

/// Stores `replacing`, each in place of the reading of its time if there is one.
fn replace(
    replacing: Vec<(u32, Rc<Profile>)>,
    offered: &[Offered<'_>],
    received_at: Timestamp,
    unchanged: bool,
    judged: &mut [Judged],
    not_stored: &mut Vec<(u32, IotError)>,
) -> IotResult<()> {
    let mut columns = Columns::default();
    for (number, profile) in &replacing {
        push(&mut columns, profile, &offered[*number as usize], &judged[*number as usize], received_at);
    }
    let replace = || with_session(|session| reading::replace(session, columns));
    let mut stored = if unchanged { super::writing(replace) } else { replace() }?;
    let mut missing = Vec::new();
    for (number, profile) in replacing {
        let key = key_of(number, &profile, judged);
        let reading = &mut judged[number as usize];
        let Some(data_id) = stored.remove(&key) else {
            missing.push((number, profile));
            continue;
        };
        let was_counted = reading.place != Place::Taken;
        reading.fate = if data_id == reading.data_id { Fate::Stored } else { Fate::Replaced };
        reading.data_id = data_id;
        // Stored as it was expected to be, the state is true; else it lacks this reading, or has one that went.
        if !was_counted || reading.fate == Fate::Replaced {
            overlay::mark_stale_in_memory(*profile.sensor_id.as_bytes());
        }
    }
    // A trigger may have moved some to another time or sensor.
    let mut moved: HashSet<[u8; 16]> = stored.into_values().collect();
    missing.retain(|(number, _)| {
        let reading = &mut judged[*number as usize];
        let is_moved = moved.remove(&reading.data_id);
        if is_moved {
            reading.fate = Fate::Stored;
        }
        !is_moved
    });
    for (number, profile) in missing {
        not_stored.push((number, give_up(&profile, &mut judged[number as usize], !moved.is_empty())?));
    }
    Ok(())
}

/// A reading that met another one at the primary key: its state was counted with it, so it is read anew next time. Whether it
/// was stored or found.
fn settle_conflict(
    offer: &Offered<'_>,
    profile: &Profile,
    received_at: Timestamp,
    unchanged: bool,
    reading: &mut Judged,
) -> IotResult<bool> {
    overlay::mark_stale_in_memory(*profile.sensor_id.as_bytes());
    loop {
        let found = with_session(|session| reading::find(session, &[(profile.sensor_id, reading.at)]))?;
        let Some(&(_, data_id)) = found.first() else { return Ok(false) };
        if offer.measured_at.is_some() {
            reading.fate = Fate::Duplicate(Some(*data_id.as_bytes()));
            return Ok(true);
        }
        reading.at = Timestamp(reading.at.0 + 1);
        let mut columns = Columns::default();
        push(&mut columns, profile, offer, reading, received_at);
        if !insert(columns, false, unchanged)?.is_empty() {
            reading.fate = Fate::Stored;
            return Ok(true);
        }
    }
}

fn push(
    columns: &mut Columns,
    profile: &Profile,
    offer: &Offered<'_>,
    reading: &Judged,
    received_at: Timestamp,
) {
    columns.data_id.push(Uuid::from_bytes(reading.data_id));
    columns.sensor_id.push(profile.sensor_id);
    columns.device_id.push(profile.device_id);
    columns.organization_id.push(profile.organization_id);
    columns.sensor_type.push(profile.sensor_type.clone());
    columns.measured_at.push(clock::to_pg(reading.at));
    columns.received_at.push(clock::to_pg(received_at));
    columns.value.push((!reading.value.is_nan()).then_some(reading.value));
    columns.raw_value.push(reading.raw_value());
    columns.unit.push(profile.unit.clone());
    columns.data_quality.push(reading.quality.verdict().as_str());
    columns.quality_flags.push(reading.quality.0);
    columns.is_anomaly.push(reading.is_anomaly);
    columns.is_onset.push(reading.is_onset);
    columns.anomaly_score.push(reading.score);
    columns.metadata.push(offer.metadata.to_text());
    columns.text_value.push(text_of(offer, reading).map(str::to_owned));
    columns.boolean_value.push(if let Measured::Boolean(value) = offer.value { Some(value) } else { None });
    columns.json_value.push(if let Measured::Json(value) = offer.value {
        Some(value.to_text())
    } else {
        None
    });
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
    .because("not_stored")
}
