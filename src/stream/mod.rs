//! The stream road: readings that are inserted or copied into `iot.readings` and `iot.raw_readings`.
//!
//! Rows of the typed table become [`StreamedReading`]s directly, rows of the raw one where their text can be read. Both go
//! to one [`ReadingSink`] per statement.

mod buffer;
mod raw;
mod typed;

use iot_core::time::Timestamp;
use pgrx::datum::{Internal, Uuid};
use pgrx::{PgSqlErrorCode, pg_extern, pg_sys};

use crate::catalog;
use crate::error::{IotError, IotResult};
use crate::pg::foreign_insert::{self, Column, OpenSink, RowSink, TargetTable};
use crate::pg::jsonb::Jsonb;
use crate::pg::relation::in_schema_iot;

/// One row as the client gave it. `None` is NULL or a column that the statement does not list.
#[derive(Clone, Copy)]
pub struct StreamedReading<'a> {
    /// The sensor it names.
    pub sensor_id: Option<Uuid>,
    /// When it was measured.
    pub measured_at: Option<Timestamp>,
    /// The value, where it is a number.
    pub value: Option<f64>,
    /// The value, where it is text.
    pub text_value: Option<&'a str>,
    /// The value, where it is yes or no.
    pub boolean_value: Option<bool>,
    /// The value, where it is a structure.
    pub json_value: Option<Jsonb<'a>>,
    /// What the device said beside the value.
    pub metadata: Option<Jsonb<'a>>,
}

/// Takes the readings of one statement. Rejects by itself what cannot be accepted.
pub trait ReadingSink {
    /// Takes one reading and copies what it keeps.
    ///
    /// # Errors
    /// Ends the statement.
    fn push(&mut self, reading: &StreamedReading<'_>) -> IotResult<()>;

    /// Stores what is still held back. Not called when the statement failed.
    ///
    /// # Errors
    /// Ends the statement.
    fn finish(&mut self) -> IotResult<()>;
}

/// Makes the sink of a statement.
fn sink() -> Box<dyn ReadingSink> {
    Box::new(buffer::Buffer::default())
}

/// The columns of both tables, by their names.
const COLUMNS: [&str; 7] = [
    "sensor_id",
    "measurement_timestamp",
    "measurement_value",
    "measurement_metadata",
    "text_value",
    "boolean_value",
    "json_value",
];

/// Where the columns of a table are; a column that somebody dropped is NULL in every row.
struct Columns {
    sensor_id: Option<Column>,
    measured_at: Option<Column>,
    value: Option<Column>,
    metadata: Option<Column>,
    text_value: Option<Column>,
    boolean_value: Option<Column>,
    json_value: Option<Column>,
}

impl Columns {
    /// Finds the columns, whose types must be `types`, in the order of [`COLUMNS`].
    fn find(table: &TargetTable<'_>, types: [pg_sys::Oid; 7]) -> IotResult<Self> {
        let mut found = [const { None }; 7];
        for column in table.columns() {
            let Some(place) = COLUMNS.iter().position(|&name| name == column.name) else {
                // Its values would be lost without a word.
                return Err(IotError::new(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                    format!("foreign table \"{}\" has an unknown column \"{}\"", table.name(), column.name),
                )
                .hint("Drop the column; measurement_metadata takes what has no column."));
            };
            if column.type_oid != types[place] {
                return Err(IotError::new(
                    PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
                    format!(
                        "column \"{}\" of foreign table \"{}\" has a foreign type",
                        column.name,
                        table.name()
                    ),
                )
                .hint("Give the column the type back that the extension gave it."));
            }
            found[place] = Some(column);
        }
        let [sensor_id, measured_at, value, metadata, text_value, boolean_value, json_value] = found;
        Ok(Self { sensor_id, measured_at, value, metadata, text_value, boolean_value, json_value })
    }
}

/// The two tables.
struct Tables;

impl OpenSink for Tables {
    fn open(table: &TargetTable<'_>) -> IotResult<Box<dyn RowSink>> {
        catalog::require_setup()?;
        let ours = [c"readings", c"raw_readings"].into_iter().filter_map(in_schema_iot);
        let format = table.option("format");
        match (ours.into_iter().any(|ours| ours == table.oid()), format.as_deref()) {
            (true, Some("typed")) => Ok(Box::new(typed::TypedRows::new(table, sink())?)),
            (true, Some("raw")) => Ok(Box::new(raw::RawRows::new(table, sink())?)),
            _ => Err(IotError::new(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("foreign table \"{}\" is not one of the extension's own", table.name()),
            )
            .hint("Insert into iot.readings or iot.raw_readings.")),
        }
    }
}

#[pg_extern(sql = false)]
fn readings_handler() -> Internal {
    foreign_insert::handler::<Tables>()
}

#[pg_extern(sql = false)]
fn readings_validator(options: Vec<String>, catalog: pg_sys::Oid) {
    for option in options {
        let (name, value) = option.split_once('=').unwrap_or((option.as_str(), ""));
        if catalog != pg_sys::ForeignTableRelationId || name != "format" {
            IotError::new(
                PgSqlErrorCode::ERRCODE_FDW_INVALID_OPTION_NAME,
                format!("option \"{name}\" is not known here"),
            )
            .hint("The only option is format, of a foreign table.")
            .raise();
        }
        if !matches!(value, "typed" | "raw") {
            IotError::invalid_argument(format!("option format cannot be \"{value}\""))
                .hint("Use 'typed' or 'raw'.")
                .raise();
        }
    }
}
