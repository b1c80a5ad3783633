//! `replay_rejected`: readings that could not be accepted, offered again.

use iot_core::ingest::parse_number;
use iot_core::jsonb::{Document, Value};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::{name, pg_extern};
use serde_json::Value as Json;

use super::CHUNK;
use super::json::{self, Element};
use crate::catalog::rejected_reading::{self, Cursor, Refusal, Waiting};
use crate::engine::batch::Totals;
use crate::engine::rejection::number;
use crate::error::{IotError, IotResult, OrRaise};
use crate::guc;
use crate::pg::input;
use crate::pg::jsonb::JsonbImage;
use crate::pg::shared::counters;
use crate::pg::statement::with_session;

/// Why a row of `iot.raw_readings` was kept whose text cannot be read.
const MALFORMED: &str = "malformed";

/// The same where the text is a number, but too large or too small.
const OUT_OF_RANGE: &str = "out_of_range";

#[pg_extern(sql = false)]
fn replay_rejected(
    since: Option<TimestampWithTimeZone>,
    reason: Option<String>,
    maximum: Option<i32>,
    register_unknown: Option<bool>,
) -> TableIterator<
    'static,
    (name!(replayed, i64), name!(accepted, i64), name!(rejected, i64), name!(duplicates, i64)),
> {
    let since = since.ok_or_else(|| IotError::null_argument("since")).or_raise();
    let maximum = maximum.map(at_most).transpose().or_raise().unwrap_or(usize::MAX);
    let totals = replay(since, reason.as_deref(), maximum, register_unknown.unwrap_or(false)).or_raise();
    let Totals { accepted, rejected, duplicates, .. } = totals;
    TableIterator::once((accepted + rejected + duplicates, accepted, rejected, duplicates))
}

fn at_most(maximum: i32) -> IotResult<usize> {
    usize::try_from(maximum).map_err(|_| {
        IotError::invalid_argument(format!("maximum {maximum} is below 0"))
            .hint("Give the number of readings to offer again at most, or NULL for all.")
    })
}

fn replay(
    since: TimestampWithTimeZone,
    reason: Option<&str>,
    maximum: usize,
    register_unknown: bool,
) -> IotResult<Totals> {
    crate::catalog::require_setup()?;
    let mut totals = Totals::default();
    let mut left = maximum;
    let mut after: Option<Cursor> = None;
    loop {
        let wanted = left.min(CHUNK);
        if wanted == 0 {
            return Ok(totals);
        }
        let waiting = with_session(|session| rejected_reading::lock(session, since, reason, after, wanted))?;
        let found = waiting.len();
        after = waiting.last().map(Waiting::cursor).or(after);
        left -= found;
        totals.add(replay_chunk(waiting, register_unknown)?);
        if found < wanted {
            return Ok(totals);
        }
    }
}

fn replay_chunk(waiting: Vec<Waiting>, register_unknown: bool) -> IotResult<Totals> {
    let mut refused: Vec<Refusal> = Vec::new();
    let mut refuse = |waiting: &Waiting, mended: Option<String>, error: IotError| {
        if guc::strict() || error.is_defect() {
            return Err(error);
        }
        refused.push(Refusal { rejection_id: waiting.rejection_id, error, reading: mended });
        Ok(())
    };
    // Rows of text become readings first; what still cannot be read stays as it is.
    let mut readable: Vec<(&Waiting, Option<JsonbImage>)> = Vec::with_capacity(waiting.len());
    for row in &waiting {
        let is_text = matches!(row.reason.as_str(), MALFORMED | OUT_OF_RANGE);
        match if is_text { read_texts(&row.reading) } else { Ok(None) } {
            Ok(read) => readable.push((row, read)),
            Err(error) => {
                counters::add_refused();
                refuse(row, None, error.because(MALFORMED))?;
            }
        }
    }
    let elements: Vec<Element<'_>> = readable
        .iter()
        .map(|(row, read)| Element {
            value: message(Document::new(read.as_ref().unwrap_or(&row.reading).body()).root()),
            arrived_at: Some(row.received_at),
        })
        .collect();
    let mut totals = json::offer(&elements, register_unknown, |number, offered, error| {
        if offered.is_none() {
            counters::add_refused();
        }
        let (row, read) = &readable[number];
        refuse(row, read.as_ref().map(|read| read.as_jsonb().to_text()), error)
    })?;
    totals.rejected = refused.len() as i64;
    let kept: std::collections::HashSet<_> =
        refused.iter().map(|refusal| *refusal.rejection_id.as_bytes()).collect();
    let done: Vec<_> = waiting
        .iter()
        .map(|row| row.rejection_id)
        .filter(|rejection_id| !kept.contains(rejection_id.as_bytes()))
        .collect();
    with_session(|session| {
        if !done.is_empty() {
            rejected_reading::mark_replayed(session, done)?;
        }
        if !refused.is_empty() {
            rejected_reading::refresh(session, refused)?;
        }
        Ok(())
    })?;
    Ok(totals)
}

/// What is no object was kept under a key of its own, alone.
fn message(kept: Value<'_>) -> Value<'_> {
    const ALONE: &str = "reading";
    let Value::Object(object) = kept else { return kept };
    let mut pairs = object.iter();
    match (pairs.next(), pairs.next()) {
        (Some((ALONE, inner)), None) => inner,
        _ => kept,
    }
}

/// A row of `iot.raw_readings` holds text in every column. Those whose type is not text are read as that table reads them:
/// an empty one is none. `None` when there is nothing to read.
fn read_texts(reading: &JsonbImage) -> IotResult<Option<JsonbImage>> {
    let document = Document::new(reading.body());
    let Value::Object(fields) = document.root() else { return Ok(None) };
    // Only what changes is taken to pieces, as metadata may be nested more deeply than we would like to follow.
    let mut read: Vec<String> = Vec::new();
    let mut empty: Vec<&str> = Vec::new();
    for name in [
        "sensor_id",
        "measurement_timestamp",
        "measurement_value",
        "measurement_metadata",
        "boolean_value",
        "json_value",
    ] {
        let Some(Value::String(text)) = fields.get(name) else { continue };
        let value = match name {
            "sensor_id" => Json::from(input::uuid(text)?.to_string()).to_string(),
            _ if text.is_empty() => {
                empty.push(name);
                continue;
            }
            // What it cannot be is for the engine to say, who knows the sensor.
            "measurement_value" => match parse_number(text) {
                Ok(value) => number(value).to_string(),
                Err(_) => continue,
            },
            "boolean_value" => input::boolean(text)?.to_string(),
            "measurement_timestamp" => continue,
            _ => {
                input::jsonb(text)?;
                text.to_owned()
            }
        };
        read.push(format!("\"{name}\": {value}"));
    }
    if read.is_empty() && empty.is_empty() {
        return Ok(None);
    }
    let read = input::jsonb(&format!("{{{}}}", read.join(", ")))?;
    let mut changed = reading.as_jsonb().with(read.as_jsonb());
    for name in empty {
        changed = changed.as_jsonb().without(name);
    }
    Ok(Some(changed))
}
