//! The moment when the copy becomes the table: everything that hangs on the name goes over to it.

use iot_core::conversion::{staged_name, suffixed};
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_identifier, quote_qualified_identifier};

use super::shape::Shape;
use super::swap::Hurry;
use super::{copy, swap};
use crate::catalog::conversion::{self, Conversion};
use crate::catalog::conversion_carry::{self, Identity};
use crate::catalog::conversion_source::{self, ForeignKey};
use crate::catalog::partition_policy::{self, Duplicates, PartitionPolicy};
use crate::error::IotResult;
use crate::partition::free_name;
use crate::pg::relation::OpenRelation;
use crate::pg::statement::Session;

/// What the names of the table before, and of all that belongs to it, end in.
const BEFORE: &str = "_before_conversion";

/// Gives the table's name, and the names of what belongs to it, to the copy. The caller has both to himself.
///
/// # Errors
/// What PostgreSQL raises.
pub fn rename(
    session: &mut Session<'_>,
    conversion: &Conversion,
    shape: &Shape,
    hurry: Hurry,
) -> IotResult<()> {
    let Conversion { relation, partitioned, .. } = *conversion;
    let source = conversion_source::load(session, relation)?;
    let afterwards = conversion_carry::afterwards(session, relation)?;
    let renamed = conversion_carry::renamed(session, relation)?;
    let identities = conversion_carry::identities(session, relation)?;
    let publications = conversion_carry::publications(session, relation)?;
    let management = copy::management(session, conversion)?;
    let foreign_keys = conversion_source::foreign_keys(session, relation)?;
    swap::drop_triggers(session, relation)?;

    let aside = free_name(&source.schema, &suffixed(&source.name, BEFORE))?;
    hurry.run(session, &format!("ALTER TABLE {} RENAME TO {}", shape.source, quote_identifier(&aside)))?;
    hurry
        .run(session, &format!("ALTER TABLE {} RENAME TO {}", shape.copy, quote_identifier(&source.name)))?;
    let original = quote_qualified_identifier(source.schema.as_str(), aside.as_str());
    drop_foreign_keys(session, &original, &foreign_keys, hurry)?;
    // Looked at only when everybody goes on; what comes from now on is checked at once.
    for (partition, _) in copy::partitions(session, conversion)? {
        for key in &foreign_keys {
            let name = quote_identifier(&key.name);
            hurry.run(
                session,
                &format!("ALTER TABLE {partition} ADD CONSTRAINT {name} {} NOT VALID", key.definition),
            )?;
        }
    }
    for publication in publications {
        hurry.run(session, &format!("ALTER PUBLICATION {publication} DROP TABLE {original}"))?;
    }
    for each in &renamed {
        let name = |name: &str| quote_qualified_identifier(each.schema.as_str(), name);
        let kind = &each.kind;
        let aside = free_name(&each.schema, &suffixed(&each.name, BEFORE))?;
        hurry.run(
            session,
            &format!("ALTER {kind} {} RENAME TO {}", name(&each.name), quote_identifier(&aside)),
        )?;
        hurry.run(
            session,
            &format!(
                "ALTER {kind} {} RENAME TO {}",
                name(&staged_name(&each.name)),
                quote_identifier(&each.name)
            ),
        )?;
    }
    for each in &identities {
        take_over_identity(session, each, hurry)?;
    }
    // It has the comment of a copy.
    hurry.run(session, &format!("COMMENT ON TABLE {} IS NULL", shape.source))?;
    for statement in &afterwards {
        hurry.run(session, statement)?;
    }
    let policy = PartitionPolicy {
        interval: conversion.interval,
        interval_given: conversion.order.interval_given,
        premake: conversion.order.premake,
        retention: None,
        index_policy: Vec::new(),
        duplicates: Duplicates::First,
        management,
    };
    partition_policy::store(session, partitioned, &conversion.order.time_column, policy)?;
    conversion::renamed(session, conversion.id, partitioned, relation)
}

/// Kept, the table before would stand in the way of changes of the tables that it references.
///
/// # Errors
/// What PostgreSQL raises.
pub fn drop_foreign_keys(
    session: &mut Session<'_>,
    original: &str,
    foreign_keys: &[ForeignKey],
    hurry: Hurry,
) -> IotResult<()> {
    for key in foreign_keys {
        let name = quote_identifier(&key.name);
        hurry.run(session, &format!("ALTER TABLE {original} DROP CONSTRAINT {name}"))?;
    }
    Ok(())
}

/// The new table's column goes on counting where the old one's is. Who still has a number of the old sequence in hand keeps
/// us from renaming it.
fn take_over_identity(session: &mut Session<'_>, identity: &Identity, hurry: Hurry) -> IotResult<()> {
    let name = |name: &str| quote_qualified_identifier(identity.schema.as_str(), name);
    let aside = free_name(&identity.schema, &suffixed(&identity.sequence, BEFORE))?;
    let new = name(&identity.sequence);
    hurry.run(session, &format!("ALTER SEQUENCE {new} RENAME TO {}", quote_identifier(&aside)))?;
    hurry.run(session, &identity.statement)?;
    hurry.run(
        session,
        &format!(
            "SELECT setval({}, s.last_value, s.is_called) FROM {} s",
            swap::regclass(&new),
            name(&aside)
        ),
    )?;
    for grant in &identity.grants {
        hurry.run(session, grant)?;
    }
    Ok(())
}

/// What is left to say when it is done.
pub fn qualified(table: Oid) -> String {
    OpenRelation::look(table, OpenRelation::qualified_name)
}
