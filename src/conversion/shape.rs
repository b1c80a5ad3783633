//! The texts by which both tables, the log of changes and their keys appear in statements.

use iot_core::conversion::with_column;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_identifier, quote_literal};

use crate::catalog::conversion::Conversion;
use crate::catalog::conversion_source::{self, Column};
use crate::error::{IotError, IotResult};
use crate::pg::relation::{self, OpenRelation};
use crate::pg::statement::Session;

/// Names and columns of a conversion, quoted.
pub struct Shape {
    /// The table.
    pub source: String,
    /// The copy.
    pub copy: String,
    /// The log of changes.
    pub log: String,
    /// Columns that are written, in order.
    pub columns: String,
    /// The key of the table.
    pub key: Vec<Column>,
    /// That of the copy: the same, with the time.
    pub full_key: Vec<Column>,
    /// The time as `timestamptz`, by its column of the log.
    pub logged_time: String,
    /// The time as `timestamptz`.
    pub time: String,
}

impl Shape {
    /// Looks the names up.
    ///
    /// # Errors
    /// 55000 when one of the tables is gone.
    pub fn load(session: &mut Session<'_>, conversion: &Conversion) -> IotResult<Self> {
        let tables = [conversion.relation, conversion.partitioned, conversion.change_log];
        if !tables.into_iter().all(relation::exists) {
            return Err(IotError::wrong_state("a table of the conversion was dropped")
                .hint("Take it back with iot.cancel_conversion(), then begin again."));
        }
        let name = |table: Oid| OpenRelation::look(table, OpenRelation::qualified_name);
        let columns = conversion_source::columns(session, conversion.relation)?;
        let key = pick(&columns, &conversion.key_columns)?;
        let full_key = pick(&columns, &with_column(&conversion.key_columns, &conversion.order.time_column))?;
        let place =
            full_key.iter().position(|column| column.name == conversion.order.time_column).unwrap_or(0);
        Ok(Self {
            source: name(conversion.relation),
            copy: name(conversion.partitioned),
            log: name(conversion.change_log),
            columns: written(&columns),
            time: as_timestamptz(&quote_identifier(&conversion.order.time_column), &full_key[place]),
            logged_time: as_timestamptz(&format!("key_{}", place + 1), &full_key[place]),
            key,
            full_key,
        })
    }

    /// The condition that row `one` has the full key of the log's row `logged`.
    pub fn matches(&self, one: &str, logged: &str) -> String {
        let pairs = self.full_key.iter().enumerate();
        let pairs = pairs.map(|(at, column)| format!("{one}.{} = {logged}.key_{}", column.quoted(), at + 1));
        pairs.collect::<Vec<_>>().join(" AND ")
    }

    /// Columns of the log, as a list.
    pub fn logged(&self) -> String {
        (1..=self.full_key.len()).map(|at| format!("key_{at}")).collect::<Vec<_>>().join(", ")
    }

    /// The key, as a list.
    pub fn key_list(&self) -> String {
        self.key.iter().map(Column::quoted).collect::<Vec<_>>().join(", ")
    }

    /// The key of the copy, as a list.
    pub fn full_key_list(&self) -> String {
        self.full_key.iter().map(Column::quoted).collect::<Vec<_>>().join(", ")
    }

    /// The key as an array of text.
    pub fn key_text(&self) -> String {
        let columns = self.key.iter().map(|column| format!("{}::text", column.quoted()));
        format!("ARRAY[{}]", columns.collect::<Vec<_>>().join(", "))
    }

    /// A value of the key, given as text, as a row.
    pub fn key_value(&self, value: &[String]) -> String {
        let values = self.key.iter().zip(value).map(|(column, value)| {
            let collate = column.collation.as_ref().map_or(String::new(), |name| format!(" COLLATE {name}"));
            format!("{}::{}{collate}", quote_literal(value), column.type_name)
        });
        format!("ROW({})", values.collect::<Vec<_>>().join(", "))
    }

    /// The condition of a range of keys: above `after`, up to `upto`.
    pub fn between(&self, after: Option<&[String]>, upto: Option<&[String]>) -> String {
        let row = format!("ROW({})", self.key_list());
        let mut conditions = vec!["true".to_owned()];
        conditions.extend(after.map(|value| format!("{row} > {}", self.key_value(value))));
        conditions.extend(upto.map(|value| format!("{row} <= {}", self.key_value(value))));
        conditions.join(" AND ")
    }
}

impl Column {
    /// Its name, quoted.
    pub fn quoted(&self) -> String {
        quote_identifier(&self.name)
    }
}

/// Columns that are written, as a list.
pub fn written(columns: &[Column]) -> String {
    let written = columns.iter().filter(|column| !column.is_generated).map(Column::quoted);
    written.collect::<Vec<_>>().join(", ")
}

/// `expression` of the type of `column` as `timestamptz`; times without a zone and dates count as UTC.
pub fn as_timestamptz(expression: &str, column: &Column) -> String {
    match column.base_type.as_str() {
        "timestamp with time zone" => expression.to_owned(),
        _ => format!("timezone('UTC', {expression}::timestamp)"),
    }
}

/// The columns of those names, in that order.
///
/// # Errors
/// 42703 when there is none of a name.
pub fn pick(columns: &[Column], names: &[String]) -> IotResult<Vec<Column>> {
    let one = |name: &String| {
        columns.iter().find(|column| column.name == *name).cloned().ok_or_else(|| {
            IotError::new(
                PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
                format!("column \"{name}\" of the table does not exist"),
            )
            .hint("Name a column of the table.")
        })
    };
    names.iter().map(one).collect()
}
