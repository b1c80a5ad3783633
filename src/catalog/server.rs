//! What the server's own catalogue says beyond the relation cache.

use crate::error::IotResult;
use crate::pg::statement::Session;
use crate::statement;

statement!(
    /// `ALTER DATABASE … SET timezone`, then `ALTER ROLE ALL SET timezone`, then the server's zone. The latter is read
    /// from `log_timezone`: initdb sets both alike, and no client can change this one for its session.
    DATABASE_TIME_ZONE: ()
    "SELECT COALESCE(
         (SELECT pg_catalog.substr(setting, pg_catalog.strpos(setting, '=') OPERATOR(pg_catalog.+) 1)
            FROM pg_catalog.pg_db_role_setting s, LATERAL pg_catalog.unnest(s.setconfig) AS setting
           WHERE s.setrole OPERATOR(pg_catalog.=) 0::pg_catalog.oid
             AND (s.setdatabase OPERATOR(pg_catalog.=) 0::pg_catalog.oid
                  OR s.setdatabase OPERATOR(pg_catalog.=) (
                     SELECT d.oid FROM pg_catalog.pg_database d
                      WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))
             AND pg_catalog.lower(setting) OPERATOR(pg_catalog.~~) 'timezone=%'
           ORDER BY s.setdatabase DESC LIMIT 1),
         pg_catalog.current_setting('log_timezone'))");

/// The database's time zone, whatever the session has set for itself.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn database_time_zone(session: &mut Session<'_>) -> IotResult<Option<String>> {
    match session.execute(&DATABASE_TIME_ZONE, &[])?.first() {
        Some(row) => row.optional(1),
        None => Ok(None),
    }
}
