//! `iot.schema_migrations`: which migrations of the user's tables have run in this database.

use crate::error::IotResult;
use crate::pg::statement::Session;
use crate::statement;

/// A migration file: what `setup()` runs once.
pub struct Migration {
    /// Its number, which orders it.
    pub version: i32,
    /// Its name without number.
    pub name: &'static str,
    /// Its statements.
    pub text: &'static str,
}

statement!(APPLIED: () "SELECT m.version FROM iot.schema_migrations m ORDER BY m.version");

/// Numbers of the migrations that have run.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn applied(session: &mut Session<'_>) -> IotResult<Vec<i32>> {
    let mut versions = Vec::new();
    session.execute(&APPLIED, &[])?.for_each(|row| {
        versions.push(row.get(1)?);
        Ok(())
    })?;
    Ok(versions)
}

statement!(RECORD: (INT4OID, TEXTOID, TEXTOID)
    "INSERT INTO iot.schema_migrations (version, migration_name, extension_version) VALUES ($1, $2, $3)");

/// Records that `migration` has run.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn record(session: &mut Session<'_>, migration: &Migration) -> IotResult<()> {
    let arguments = [migration.version.into(), migration.name.into(), env!("CARGO_PKG_VERSION").into()];
    session.execute(&RECORD, &arguments)?;
    Ok(())
}
