//! Kept query plans: each statement is parsed and planned once per backend.

use std::cell::OnceCell;
use std::mem::ManuallyDrop;
use std::thread::LocalKey;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::spi::{OwnedPreparedStatement, Spi, SpiClient, SpiTupleTable};
use pgrx::{FromDatum, IntoDatum};

use super::jsonb::Jsonb;
use crate::error::{IotError, IotResult};

/// A statement of the catalogue layer, declared with [`statement!`](crate::statement).
pub struct Statement {
    text: &'static str,
    arguments: &'static [pg_sys::Oid],
    /// Never freed: a plan lives as long as its backend, and at process exit there is nothing left to free it with.
    plan: OnceCell<ManuallyDrop<OwnedPreparedStatement>>,
}

impl Statement {
    /// `text` with `$1 …` of the given types.
    pub const fn new(text: &'static str, arguments: &'static [pg_sys::Oid]) -> Self {
        Self { text, arguments, plan: OnceCell::new() }
    }
}

/// Declares a kept statement: `statement!(NAME: (TYPEOID, …) "text")`.
#[macro_export]
macro_rules! statement {
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
    client: &'connection mut SpiClient<'connection>,
}

/// Opens the connection for the length of `work`.
pub fn with_session<T>(work: impl FnOnce(&mut Session<'_>) -> IotResult<T>) -> IotResult<T> {
    Spi::connect_mut(|client| {
        // SAFETY: only shortens the borrow's two lifetimes to the common one of this closure, in which both live.
        let client = unsafe { std::mem::transmute::<&mut SpiClient<'_>, &mut SpiClient<'_>>(client) };
        work(&mut Session { client })
    })
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
            if statement.plan.get().is_none() {
                let types: Vec<pgrx::PgOid> = statement.arguments.iter().map(|&oid| oid.into()).collect();
                let plan = self.client.prepare_mut(statement.text, &types)?.keep();
                // Planning may have run a function of ours that prepared the same statement: then keep the first.
                let _ = statement.plan.set(ManuallyDrop::new(plan));
            }
            let Some(plan) = statement.plan.get() else {
                return Err(IotError::from(pgrx::spi::Error::NoTupleTable));
            };
            Ok(Rows(self.client.update(&**plan, None, arguments)?))
        })
    }

    /// Runs statements whose text is made at run time (DDL) or read from a migration file.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub fn run(&mut self, text: &str) -> IotResult<()> {
        self.client.update(text, None, &[])?;
        Ok(())
    }
}

/// Result rows, valid while the session lives.
pub struct Rows<'connection>(SpiTupleTable<'connection>);

impl<'connection> Rows<'connection> {
    /// Rows returned, or changed by a statement that returns none.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The first row, if there is one.
    pub fn first(self) -> Option<Row<'connection>> {
        if self.0.is_empty() { None } else { Some(Row(self.0.first())) }
    }

    /// Calls `visit` for each row.
    ///
    /// # Errors
    /// The first error of `visit`.
    pub fn for_each(self, mut visit: impl FnMut(&Row<'connection>) -> IotResult<()>) -> IotResult<()> {
        let mut row = Row(self.0);
        while row.0.next().is_some() {
            visit(&row)?;
        }
        Ok(())
    }
}

/// One result row; columns count from 1.
pub struct Row<'connection>(SpiTupleTable<'connection>);

impl<'connection> Row<'connection> {
    /// A column that may be NULL.
    ///
    /// # Errors
    /// XX000 when the column has another type.
    pub fn optional<T: FromDatum + IntoDatum>(&self, column: usize) -> IotResult<Option<T>> {
        Ok(self.0.get(column)?)
    }

    /// A column that is never NULL.
    ///
    /// # Errors
    /// XX000 when it is NULL or has another type.
    pub fn get<T: FromDatum + IntoDatum>(&self, column: usize) -> IotResult<T> {
        self.optional(column)?.ok_or_else(|| {
            IotError::new(
                pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
                format!("unexpected NULL in column {column} of an internal query"),
            )
        })
    }

    /// A `jsonb` column, in the session's memory.
    ///
    /// # Errors
    /// As [`Row::optional`].
    pub fn jsonb(&self, column: usize) -> IotResult<Option<Jsonb<'connection>>> {
        let datum = self.0.get_datum_by_ordinal(column)?;
        // SAFETY: callers name a jsonb column; the tuple table lives as long as the session.
        Ok(datum.and_then(|datum| unsafe { Jsonb::from_datum(datum, false) }))
    }
}
