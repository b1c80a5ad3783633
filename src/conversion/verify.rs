//! Comparing both tables, a range of keys at a time. Nobody waits for it: one statement sees the table, the copy and the log
//! as of one moment, and what is in the log at that moment does not count.

use iot_core::conversion::Phase;
use pgrx::PgSqlErrorCode;

use super::copy;
use super::shape::Shape;
use crate::catalog::conversion::{Conversion, State};
use crate::error::{IotError, IotResult};
use crate::pg::statement::Session;

/// Compares one range.
///
/// # Errors
/// 55000 with the range where they differ; what PostgreSQL raises.
pub fn verify(session: &mut Session<'_>, conversion: &Conversion, shape: &Shape) -> IotResult<State> {
    let (mut state, is_short) = copy::replay(session, conversion, shape)?;
    if !is_short || state.phase == Phase::Copying {
        return Ok(state);
    }
    let after = state.verified_to.as_deref();
    // The end of a range is the key of a row; the last range has none, and holds what only the copy might have beyond it.
    let upto: Option<Vec<String>> = session
        .query(&format!(
            "SELECT {} FROM ONLY {} WHERE {} ORDER BY {} OFFSET {} LIMIT 1",
            shape.key_text(),
            shape.source,
            shape.between(after, None),
            shape.key_list(),
            conversion.order.batch_rows - 1
        ))?
        .first()
        .map(|row| row.get(1))
        .transpose()?;
    let range = shape.between(after, upto.as_deref());
    let side = |table: &str| {
        format!(
            "(SELECT count(*), coalesce(sum(hashtextextended((r.*)::text COLLATE \"C\", 0)), 0)::text FROM {table} r
               WHERE {range} AND NOT EXISTS (SELECT FROM l WHERE {}))",
            shape.matches("r", "l")
        )
    };
    let statement = format!(
        "WITH l AS MATERIALIZED (SELECT DISTINCT {} FROM {})
         SELECT EXISTS (SELECT FROM l WHERE l.key_1 IS NULL), s.*, c.*
           FROM {} AS s (rows, checksum), {} AS c (rows, checksum)",
        shape.logged(),
        shape.log,
        side(&format!("ONLY {}", shape.source)),
        side(&shape.copy)
    );
    let Some(row) = session.query(&statement)?.first() else {
        return Err(IotError::wrong_state("nothing came back from a comparison"));
    };
    // A TRUNCATE is seen to by the next step.
    if row.get(1)? {
        return Ok(state);
    }
    let (rows, checksum): (i64, String) = (row.get(2)?, row.get(3)?);
    let (copied, copied_checksum): (i64, String) = (row.get(4)?, row.get(5)?);
    if (rows, &checksum) != (copied, &copied_checksum) {
        return Err(differs(shape, (after, upto.as_deref()), (rows, &checksum), (copied, &copied_checksum)));
    }
    state.rows_verified += rows;
    state.phase = match upto {
        Some(_) => Phase::Verifying,
        None if conversion.parent.is_some() => Phase::Referencing,
        None => Phase::Closing,
    };
    state.verified_to = upto;
    Ok(state)
}

fn differs(
    shape: &Shape,
    (after, upto): (Option<&[String]>, Option<&[String]>),
    (rows, checksum): (i64, &str),
    (copied, copied_checksum): (i64, &str),
) -> IotError {
    let key = |value: Option<&[String]>, none: &str| {
        value.map_or(none.to_owned(), |value| format!("({})", value.join(", ")))
    };
    IotError::new(
        PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
        format!("table {} and its copy differ", shape.source),
    )
    .detail(format!(
        "Of keys ({}) above {} up to {}, the table has {rows} rows (checksum {checksum}) and the copy {copied} (checksum {copied_checksum}).",
        shape.key_list(),
        key(after, "the first"),
        key(upto, "the last")
    ))
    .hint("The table is as it was. If nobody has written to the copy, this is a defect: please report it. iot.cancel_conversion() takes the conversion back.")
}
