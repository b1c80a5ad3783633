//! Kept query plans: each statement is parsed once per backend, and planned once.

use std::cell::Cell;
use std::ffi::CString;
use std::marker::PhantomData;
use std::thread::LocalKey;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::spi::Spi;
use pgrx::{FromDatum, IntoDatum, PgSqlErrorCode};

use super::jsonb::Jsonb;
use super::settings::Scoped;
use super::transaction;
use crate::error::{IotError, IotResult};

/// A statement of the catalogue layer, declared with [`statement!`](crate::statement).
pub struct Statement {
    text: &'static str,
    arguments: &'static [pg_sys::Oid],
    by_index: bool,
    /// Never freed: a plan lives as long as its backend.
    plan: Cell<pg_sys::SPIPlanPtr>,
}

impl Statement {
    /// `text` with `$1 …` of the given types.
    pub const fn new(text: &'static str, arguments: &'static [pg_sys::Oid]) -> Self {
        Self { text, arguments, by_index: false, plan: Cell::new(std::ptr::null_mut()) }
    }

    /// The same, planned to follow indexes whatever the tables hold now: a plan made while a partition is empty would read all
    /// of it for each row asked for, and be kept until somebody analyzes the table.
    pub const fn by_index(text: &'static str, arguments: &'static [pg_sys::Oid]) -> Self {
        Self { by_index: true, ..Self::new(text, arguments) }
    }
}

/// Declares a kept statement: `statement!(NAME: (TYPEOID, …) "text")`, or `NAME: by_index (TYPEOID, …)` for
/// [`Statement::by_index`](crate::pg::statement::Statement::by_index).
#[macro_export]
macro_rules! statement {
    ($(#[$documentation:meta])* $name:ident : by_index ($($argument:ident),* $(,)?) $text:expr) => {
        ::std::thread_local! {
            $(#[$documentation])*
            static $name: $crate::pg::statement::Statement =
                const { $crate::pg::statement::Statement::by_index($text, &[$(::pgrx::pg_sys::$argument),*]) };
        }
    };
    ($(#[$documentation:meta])* $name:ident : ($($argument:ident),* $(,)?) $text:expr) => {
        ::std::thread_local! {
            $(#[$documentation])*
            static $name: $crate::pg::statement::Statement =
                const { $crate::pg::statement::Statement::new($text, &[$(::pgrx::pg_sys::$argument),*]) };
        }
    };
}

/// One SPI connection: everything a SQL function asks of the database while it runs.
///
/// Statements run with a fresh snapshot each and see what earlier ones of the same call wrote.
pub struct Session<'connection> {
    connection: PhantomData<&'connection ()>,
}

/// Opens the connection for the length of `work`.
pub fn with_session<T>(work: impl FnOnce(&mut Session<'_>) -> IotResult<T>) -> IotResult<T> {
    Spi::connect_mut(|_client| work(&mut Session { connection: PhantomData }))
}

impl<'connection> Session<'connection> {
    /// Runs a kept statement; arguments are as in `DatumWithOid::from`.
    ///
    /// # Errors
    /// Failing statements raise by themselves; an `Err` is a defect in the call.
    pub fn execute(
        &mut self,
        statement: &'static LocalKey<Statement>,
        arguments: &[DatumWithOid<'_>],
    ) -> IotResult<Rows<'connection>> {
        statement.with(|statement| {
            if arguments.len() != statement.arguments.len() {
                return Err(defect(format!("{} arguments for: {}", arguments.len(), statement.text)));
            }
            let plan = Self::plan(statement)?;
            let mut values: Vec<pg_sys::Datum> = arguments
                .iter()
                .map(|a| a.datum().map_or(pg_sys::Datum::from(0), |d| d.sans_lifetime()))
                .collect();
            let nulls: Vec<std::ffi::c_char> = arguments
                .iter()
                .map(|a| if a.datum().is_some() { b' ' } else { b'n' } as std::ffi::c_char)
                .collect();
            // PostgreSQL plans when a statement runs for the first time, and again when something has changed.
            let _settings = statement.by_index.then(Scoped::by_index);
            // SAFETY: the plan was made for that many arguments; the arrays live during the call; SPI is connected.
            let status =
                unsafe { pg_sys::SPI_execute_plan(plan, values.as_mut_ptr(), nulls.as_ptr(), false, 0) };
            Self::rows(status, statement.text)
        })
    }

    /// The plan. The generic one from the start: PostgreSQL would plan the first runs for their arguments, and for a
    /// partitioned table go on doing so, at a multiple of what our statements cost.
    fn plan(statement: &Statement) -> IotResult<pg_sys::SPIPlanPtr> {
        if !statement.plan.get().is_null() {
            return Ok(statement.plan.get());
        }
        let text = c_text(statement.text)?;
        let mut types = statement.arguments.to_vec();
        // SAFETY: SPI is connected; text and types live during the call, which copies them. A kept plan lives for good.
        unsafe {
            let plan = pg_sys::SPI_prepare_cursor(
                text.as_ptr(),
                types.len() as i32,
                types.as_mut_ptr(),
                pg_sys::CURSOR_OPT_GENERIC_PLAN as i32,
            );
            if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
                return Err(defect(format!("cannot prepare: {}", statement.text)));
            }
            statement.plan.set(plan);
            Ok(plan)
        }
    }

    /// Runs statements whose text is made at run time (DDL) or read from a migration file.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub fn run(&mut self, text: &str) -> IotResult<()> {
        self.query(text).map(drop)
    }

    /// The same, and the number of rows that the last of them changed.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub fn run_counting(&mut self, text: &str) -> IotResult<usize> {
        self.query(text).map(|rows| rows.count())
    }

    /// The same for a query, with its rows.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub fn query(&mut self, text: &str) -> IotResult<Rows<'connection>> {
        let c_text = c_text(text)?;
        // SAFETY: SPI is connected; the text lives during the call.
        let status = unsafe { pg_sys::SPI_execute(c_text.as_ptr(), false, 0) };
        Self::rows(status, text)
    }

    /// The same with `$1`, a text: what is long stays out of what errors and logs show.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub fn query_about(&mut self, text: &str, argument: &str) -> IotResult<Rows<'connection>> {
        let c_text = c_text(text)?;
        let argument = DatumWithOid::from(argument);
        let mut values = [argument.datum().map_or(pg_sys::Datum::from(0), |datum| datum.sans_lifetime())];
        let mut types = [pg_sys::TEXTOID];
        // SAFETY: SPI is connected; text and arrays, of one element each, live during the call.
        let status = unsafe {
            pg_sys::SPI_execute_with_args(
                c_text.as_ptr(),
                1,
                types.as_mut_ptr(),
                values.as_mut_ptr(),
                std::ptr::null(),
                false,
                0,
            )
        };
        Self::rows(status, text)
    }

    fn rows(status: i32, text: &str) -> IotResult<Rows<'connection>> {
        if status < 0 {
            return Err(defect(format!("SPI reports {status} for: {text:.200}")));
        }
        // SAFETY: set by the call that just returned; the table lives until the connection is closed.
        let (table, count) = unsafe { (pg_sys::SPI_tuptable, pg_sys::SPI_processed) };
        Ok(Rows { table, count: usize::try_from(count).unwrap_or(0), connection: PhantomData })
    }
}

/// Refuses a text that is no SQL, or holds no statement.
///
/// # Errors
/// 42601 with what PostgreSQL says.
pub fn check_syntax(text: &str) -> IotResult<()> {
    let c_text = c_text(text)?;
    // In a subtransaction, so that the error does not point into the statement that brought the text.
    let count = transaction::catch(|| {
        // SAFETY: the parser reads the text during the call, and catalogues not at all; the list is made in current memory.
        Ok(unsafe {
            pg_sys::list_length(pg_sys::raw_parser(c_text.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT))
        })
    })?;
    if count == 0 {
        return Err(IotError::new(PgSqlErrorCode::ERRCODE_SYNTAX_ERROR, "the SQL text holds no statement"));
    }
    Ok(())
}

fn c_text(text: &str) -> IotResult<CString> {
    CString::new(text).map_err(|_| IotError::invalid_argument("statement contains a NUL character"))
}

fn defect(message: String) -> IotError {
    IotError::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, message)
}

/// Result rows, valid while the session lives.
pub struct Rows<'connection> {
    table: *mut pg_sys::SPITupleTable,
    count: usize,
    connection: PhantomData<&'connection ()>,
}

impl<'connection> Rows<'connection> {
    /// Rows returned, or changed by a statement that returns none.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The first row, if there is one.
    pub fn first(self) -> Option<Row<'connection>> {
        self.row(0)
    }

    /// Calls `visit` for each row.
    ///
    /// # Errors
    /// The first error of `visit`.
    pub fn for_each(self, mut visit: impl FnMut(&Row<'connection>) -> IotResult<()>) -> IotResult<()> {
        for number in 0..self.count {
            if let Some(row) = self.row(number) {
                visit(&row)?;
            }
        }
        Ok(())
    }

    fn row(&self, number: usize) -> Option<Row<'connection>> {
        if self.table.is_null() || number >= self.count {
            return None;
        }
        // SAFETY: the table has `count` rows, and lives as long as the connection.
        unsafe {
            Some(Row {
                tuple: *(*self.table).vals.add(number),
                descriptor: (*self.table).tupdesc,
                connection: PhantomData,
            })
        }
    }
}

/// One result row; columns count from 1.
pub struct Row<'connection> {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
    connection: PhantomData<&'connection ()>,
}

impl<'connection> Row<'connection> {
    /// A column that may be NULL.
    ///
    /// # Errors
    /// XX000 when the column has another type.
    pub fn optional<T: FromDatum + IntoDatum>(&self, column: usize) -> IotResult<Option<T>> {
        let (datum, is_null, found) = self.datum(column)?;
        if !T::is_compatible_with(found) {
            return Err(defect(format!("column {column} of an internal query has type {}", found.to_u32())));
        }
        // SAFETY: the type was checked; the datum lives as long as the connection, and by-reference values are copied.
        Ok(unsafe { T::from_polymorphic_datum(datum, is_null, found) })
    }

    /// A column that is never NULL.
    ///
    /// # Errors
    /// XX000 when it is NULL or has another type.
    pub fn get<T: FromDatum + IntoDatum>(&self, column: usize) -> IotResult<T> {
        self.optional(column)?
            .ok_or_else(|| defect(format!("unexpected NULL in column {column} of an internal query")))
    }

    /// A `jsonb` column, in the session's memory.
    ///
    /// # Errors
    /// As [`Row::optional`].
    pub fn jsonb(&self, column: usize) -> IotResult<Option<Jsonb<'connection>>> {
        let (datum, is_null, found) = self.datum(column)?;
        if found != pg_sys::JSONBOID {
            return Err(defect(format!("column {column} of an internal query is no jsonb")));
        }
        // SAFETY: a jsonb datum; the row lives as long as the session.
        Ok(unsafe { Jsonb::from_datum(datum, is_null) })
    }

    fn datum(&self, column: usize) -> IotResult<(pg_sys::Datum, bool, pg_sys::Oid)> {
        let number = i32::try_from(column).unwrap_or(0);
        // SAFETY: tuple and descriptor belong together and live as long as the connection; the number is checked.
        unsafe {
            if number < 1 || number > (*self.descriptor).natts {
                return Err(defect(format!("no column {column} in an internal query")));
            }
            let mut is_null = false;
            let datum = pg_sys::SPI_getbinval(self.tuple, self.descriptor, number, &mut is_null);
            Ok((datum, is_null, pg_sys::SPI_gettypeid(self.descriptor, number)))
        }
    }
}
