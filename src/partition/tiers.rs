//! Indexes of the tiers: partitions carry them beside those of their table, and know them by the end of their names.

use std::collections::HashMap;

use iot_core::partition::{index_key, index_name};
use pgrx::pg_sys::Oid;
use pgrx::spi::quote_identifier;

use crate::catalog::partition;
use crate::error::{IotError, IotResult};
use crate::pg::parse;
use crate::pg::statement::Session;

/// Makes the indexes of `definitions` on `partition` (quoted), called `name`.
///
/// # Errors
/// What PostgreSQL raises.
pub fn create(
    session: &mut Session<'_>,
    partition: &str,
    name: &str,
    definitions: &[String],
) -> IotResult<()> {
    for definition in definitions {
        let index = quote_identifier(index_name(name, &index_key(definition)));
        session.run(&format!("CREATE INDEX {index} ON {partition} {definition}"))?;
    }
    Ok(())
}

/// Gives a partition the indexes of its tier: those of the keys `create` among `definitions`, without those of `drop`.
///
/// # Errors
/// What PostgreSQL raises.
pub fn change(
    session: &mut Session<'_>,
    partition: (Oid, &str, &str),
    definitions: &[Vec<String>; 3],
    create_keys: &[String],
    drop_keys: &[String],
    parent: Oid,
) -> IotResult<()> {
    let (oid, qualified_name, name) = partition;
    let mut wanted: Vec<String> = definitions.iter().flatten().cloned().collect();
    wanted.sort_unstable();
    wanted.dedup();
    wanted.retain(|definition| create_keys.contains(&index_key(definition)));
    create(session, qualified_name, name, &wanted)?;
    for index in partition::tier_indexes(session, parent)? {
        if index.partition == oid && drop_keys.contains(&index.key) {
            session.run(&format!("DROP INDEX {}", index.qualified_name))?;
        }
    }
    Ok(())
}

/// Keys of the tier indexes of each partition of `parent`.
///
/// # Errors
/// Only what PostgreSQL raises.
pub fn found(session: &mut Session<'_>, parent: Oid) -> IotResult<HashMap<Oid, Vec<String>>> {
    let mut keys: HashMap<Oid, Vec<String>> = HashMap::new();
    for index in partition::tier_indexes(session, parent)? {
        keys.entry(index.partition).or_default().push(index.key);
    }
    Ok(keys)
}

/// Refuses what is not the end of one CREATE INDEX.
///
/// # Errors
/// 22023; 42601 from the parser.
pub fn check(argument: &str, definitions: &[String]) -> IotResult<()> {
    for definition in definitions {
        if !parse::is_one_index(&format!("CREATE INDEX ON t {definition}")) {
            return Err(IotError::invalid_argument(format!("{argument} has \"{definition}\", which is no index"))
                .hint("Give what stands behind the table in CREATE INDEX, such as (device_id, at) or USING brin (at)."));
        }
    }
    Ok(())
}
