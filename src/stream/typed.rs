//! Rows of `iot.readings`.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::{FromDatum, IntoDatum, pg_sys};

use super::{Columns, ReadingSink, StreamedReading};
use crate::error::IotResult;
use crate::pg::clock;
use crate::pg::foreign_insert::{Column, Row, RowSink, TargetTable};

/// Types of the columns, in the order of [`super::COLUMNS`].
const TYPES: [pg_sys::Oid; 7] = [
    pg_sys::UUIDOID,
    pg_sys::TIMESTAMPTZOID,
    pg_sys::FLOAT8OID,
    pg_sys::JSONBOID,
    pg_sys::TEXTOID,
    pg_sys::BOOLOID,
    pg_sys::JSONBOID,
];

/// Hands each row on as a reading.
pub struct TypedRows {
    columns: Columns,
    readings: Box<dyn ReadingSink>,
}

impl TypedRows {
    /// Finds the columns of `table`.
    ///
    /// # Errors
    /// When the table is not as the extension made it.
    pub fn new(table: &TargetTable<'_>, readings: Box<dyn ReadingSink>) -> IotResult<Self> {
        Ok(Self { columns: Columns::find(table, TYPES)?, readings })
    }
}

impl RowSink for TypedRows {
    fn push(&mut self, row: &Row<'_>) -> IotResult<()> {
        let columns = &self.columns;
        let measured_at: Option<TimestampWithTimeZone> = value(row, &columns.measured_at)?;
        self.readings.push(&StreamedReading {
            sensor_id: value(row, &columns.sensor_id)?,
            measured_at: measured_at.map(clock::from_pg),
            value: value(row, &columns.value)?,
            metadata: columns.metadata.as_ref().map_or(Ok(None), |column| row.jsonb(column))?,
            text_value: columns.text_value.as_ref().map_or(Ok(None), |column| row.text(column))?,
            boolean_value: value(row, &columns.boolean_value)?,
            json_value: columns.json_value.as_ref().map_or(Ok(None), |column| row.jsonb(column))?,
        })
    }

    fn finish(&mut self) -> IotResult<()> {
        self.readings.finish()
    }
}

fn value<T: FromDatum + IntoDatum>(row: &Row<'_>, column: &Option<Column>) -> IotResult<Option<T>> {
    column.as_ref().map_or(Ok(None), |column| row.value(column))
}
