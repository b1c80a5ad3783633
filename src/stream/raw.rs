//! Rows of `iot.raw_readings`: text, of which some may not be what it should be.

use iot_core::ingest::{parse_number, text};
use iot_core::time::Timestamp;
use pgrx::datum::Uuid;
use pgrx::pg_sys;

use super::{Columns, ReadingSink, StreamedReading};
use crate::engine::rejection::Rejection;
use crate::error::IotResult;
use crate::pg::foreign_insert::{Column, Row, RowSink, TargetTable};
use crate::pg::jsonb::JsonbImage;
use crate::pg::{clock, input};

/// Why a row is kept whose text cannot be read.
const MALFORMED: &str = "malformed";

const MEND: &str = "Correct the text, or turn iot_ext.strict off to have such rows kept in iot.rejected_readings while the rest goes on.";

/// Reads each row's text and hands it on; what cannot be read is rejected.
pub struct RawRows {
    columns: Columns,
    readings: Box<dyn ReadingSink>,
}

impl RawRows {
    /// Finds the columns of `table`.
    ///
    /// # Errors
    /// When the table is not as the extension made it.
    pub fn new(table: &TargetTable<'_>, readings: Box<dyn ReadingSink>) -> IotResult<Self> {
        Ok(Self { columns: Columns::find(table, [pg_sys::TEXTOID; 7])?, readings })
    }

    fn text<'row>(&self, row: &Row<'row>) -> IotResult<RawReading<'row>> {
        let text = |column: &Option<Column>| column.as_ref().map_or(Ok(None), |column| row.text(column));
        Ok(RawReading {
            sensor_id: text(&self.columns.sensor_id)?,
            measured_at: text(&self.columns.measured_at)?,
            value: text(&self.columns.value)?,
            metadata: text(&self.columns.metadata)?,
            text_value: text(&self.columns.text_value)?,
            boolean_value: text(&self.columns.boolean_value)?,
            json_value: text(&self.columns.json_value)?,
        })
    }
}

impl RowSink for RawRows {
    fn push(&mut self, row: &Row<'_>) -> IotResult<()> {
        let raw = self.text(row)?;
        let sensor_id = read(raw.sensor_id, "sensor_id", read_uuid);
        let measured_at = read(given(raw.measured_at), "measurement_timestamp", read_timestamp);
        let value = read(given(raw.value), "measurement_value", read_number);
        let metadata = read(given(raw.metadata), "measurement_metadata", input::jsonb);
        let boolean_value = read(given(raw.boolean_value), "boolean_value", read_boolean);
        let json_value = read(given(raw.json_value), "json_value", input::jsonb);
        let rejection = Rejection {
            received_at: clock::now(),
            sensor_id: sensor_id.as_ref().ok().copied().flatten(),
            measured_at: measured_at.as_ref().ok().copied().flatten(),
            value: value.as_ref().ok().copied().flatten(),
            message: None,
            fields: raw.fields(),
            metadata: None,
            json_value: None,
        };
        let all = || -> IotResult<_> {
            Ok((sensor_id?, measured_at?, value?, metadata?, boolean_value?, json_value?))
        };
        match all() {
            Ok((sensor_id, measured_at, value, metadata, boolean_value, json_value)) => {
                self.readings.push(&StreamedReading {
                    sensor_id,
                    measured_at,
                    value,
                    text_value: raw.text_value,
                    boolean_value,
                    json_value: json_value.as_ref().map(JsonbImage::as_jsonb),
                    metadata: metadata.as_ref().map(JsonbImage::as_jsonb),
                })
            }
            Err(error) => rejection.keep_unoffered(error.or_because(MALFORMED).or_hint(MEND)),
        }
    }

    fn finish(&mut self) -> IotResult<()> {
        self.readings.finish()
    }
}

/// The text of a row.
struct RawReading<'row> {
    sensor_id: Option<&'row str>,
    measured_at: Option<&'row str>,
    value: Option<&'row str>,
    metadata: Option<&'row str>,
    text_value: Option<&'row str>,
    boolean_value: Option<&'row str>,
    json_value: Option<&'row str>,
}

impl RawReading<'_> {
    fn fields(&self) -> serde_json::Map<String, serde_json::Value> {
        let RawReading { sensor_id, measured_at, value, metadata, text_value, boolean_value, json_value } =
            self;
        super::COLUMNS
            .into_iter()
            .zip([sensor_id, measured_at, value, metadata, text_value, boolean_value, json_value])
            .filter_map(|(name, text)| text.map(|text| (name.to_owned(), text.into())))
            .collect()
    }
}

/// Gateways write "nothing" as an empty field, quoted or not.
fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// Reads the text of a column, if there is one.
fn read<T>(text: Option<&str>, column: &str, by: impl FnOnce(&str) -> IotResult<T>) -> IotResult<Option<T>> {
    text.map(by).transpose().map_err(|error| error.in_column(column))
}

fn read_uuid(text: &str) -> IotResult<Uuid> {
    text::uuid(text).map_or_else(|| input::uuid(text), |bytes| Ok(Uuid::from_bytes(bytes)))
}

fn read_number(text: &str) -> IotResult<f64> {
    Ok(parse_number(text)?)
}

fn read_timestamp(text: &str) -> IotResult<Timestamp> {
    text::timestamp(text).map_or_else(|| input::timestamp(text).map(clock::from_pg), Ok)
}

fn read_boolean(text: &str) -> IotResult<bool> {
    text::boolean(text).map_or_else(|| input::boolean(text), Ok)
}
