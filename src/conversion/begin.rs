//! The beginning: the copy and the log of changes are made; the table itself is not touched yet.

use iot_core::conversion::{Phase, suffixed};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_identifier, quote_literal, quote_qualified_identifier};

use super::check::{self, Plan};
use super::{indexes, require_owner};
use crate::catalog::conversion::{self, Beginning, Conversion, Order};
use crate::catalog::conversion_source;
use crate::catalog::{partition, partition_policy};
use crate::error::{IotError, IotResult};
use crate::partition::free_name;
use crate::pg::policy;
use crate::pg::relation::{self, OpenRelation};
use crate::pg::security::ActingAs;
use crate::pg::session_lock::Converter;
use crate::pg::statement::{Session, with_session};

/// Begins the conversion of `table`, or finds the one to go on with; its key, `None` for a dry run.
///
/// # Errors
/// Those of [`check::check`]; 42501 for callers who do not own the table.
pub fn conversion(table: Oid, order: Order, dry_run: bool) -> IotResult<Option<i64>> {
    let owner = require_owner(table)?;
    let interval = partition_policy::interval(&order.interval_given)?;
    with_session(|session| {
        let unfinished =
            conversion::of_table(session, table)?.filter(|found| found.state.phase != Phase::Finished);
        if let Some(found) = unfinished {
            return resume(session, found, order, dry_run);
        }
        let plan = check::check(session, table, &order.time_column, (interval, order.premake), false)?;
        plan.warn(session, table, &order.time_column)?;
        if dry_run {
            plan.tell(&order.interval_given);
            return Ok(None);
        }
        begin(session, table, owner, None, &plan, order).map(Some)
    })
}

/// Goes on with a conversion under way.
///
/// # Errors
/// 55000 when it was ordered otherwise; 55P03 when another session is at it.
pub fn resume(
    session: &mut Session<'_>,
    found: Conversion,
    order: Order,
    dry_run: bool,
) -> IotResult<Option<i64>> {
    let name = OpenRelation::look(found.relation, OpenRelation::qualified_name);
    let interval = partition_policy::interval(&order.interval_given)?;
    if found.order.time_column != order.time_column || found.interval != interval {
        return Err(IotError::wrong_state(format!(
            "table {name} is being converted by column {} with partitions of {}",
            quote_identifier(&found.order.time_column),
            found.order.interval_given
        ))
        .hint(
            "Call it with the same column and interval, or take it back first with iot.cancel_conversion().",
        ));
    }
    let phase = found.state.phase.as_str();
    if dry_run {
        super::notice(&format!("conversion of table {name} is under way: {phase}"));
        return Ok(None);
    }
    take(found.id, &name)?;
    super::notice(&format!("going on with the conversion of table {name}: {phase}"));
    conversion::reorder(session, found.id, &order)?;
    let mut state = found.state;
    state.attempts = 0;
    conversion::save(session, found.id, &state)?;
    Ok(Some(found.id))
}

/// Takes the conversion for this session.
///
/// # Errors
/// 55P03 when another one has it.
pub fn take(id: i64, name: &str) -> IotResult<()> {
    if Converter::of(id).try_keep() {
        return Ok(());
    }
    Err(busy(name))
}

/// Somebody else is at it.
pub fn busy(name: &str) -> IotError {
    IotError::new(
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
        format!("table {name} is being converted by another session"),
    )
    .hint("SELECT * FROM iot.conversions shows how far it is. End that session's CALL before you cancel the conversion or go on with it here.")
}

/// Makes copy and log.
///
/// # Errors
/// What PostgreSQL raises.
pub fn begin(
    session: &mut Session<'_>,
    table: Oid,
    owner: Oid,
    parent: Option<Oid>,
    plan: &Plan,
    order: Order,
) -> IotResult<i64> {
    let source = &plan.source;
    // What the copy's partitions must be like is said by the table whose partitions they become.
    let model = conversion_source::load(session, parent.unwrap_or(table))?;
    let definition = conversion_source::definition(session, table)?;
    let copy_name = free_name(&model.schema, &suffixed(&source.name, "_partitioned"))?;
    let log_name = free_name(&model.schema, &suffixed(&source.name, "_conversion_log"))?;
    let [copy, log] =
        [&copy_name, &log_name].map(|name| quote_qualified_identifier(model.schema.as_str(), name.as_str()));
    {
        let _owner = ActingAs::seeing_own_rows(owner);
        let place = model.tablespace.as_ref().map_or(String::new(), |name| format!(" TABLESPACE {name}"));
        session.run(&format!(
            "CREATE TABLE {copy} (LIKE {} INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE \
             INCLUDING COMPRESSION INCLUDING COMMENTS) PARTITION BY RANGE ({}){place}",
            source.qualified_name,
            quote_identifier(&order.time_column)
        ))?;
        let key = super::shape::pick(&plan.columns, &plan.full_key(&order.time_column))?;
        let columns = key.iter().enumerate().map(|(at, column)| {
            let collate = column.collation.as_ref().map_or(String::new(), |name| format!(" COLLATE {name}"));
            format!("key_{} {}{collate}", at + 1, column.type_name)
        });
        // Read from its start again and again: what is dead must go soon.
        session.run(&format!(
            "CREATE TABLE {log} ({}) USING heap WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000)",
            columns.collect::<Vec<_>>().join(", ")
        ))?;
        for (made, what) in [(&copy, "Copy"), (&log, "Keys of changed rows")] {
            for role in partition::grantees(session, made)? {
                session.run(&format!("REVOKE ALL ON TABLE {made} FROM {role}"))?;
            }
            let comment = format!(
                "{what} of {}, which is being converted; see iot.conversions. Goes with iot.cancel_conversion().",
                source.qualified_name
            );
            session.run(&format!("COMMENT ON TABLE {made} IS {}", quote_literal(comment)))?;
        }
        row_security(session, parent.unwrap_or(table), &model, &copy, &copy_name)?;
        let index = plan.indexes.iter().find(|index| index.oid == plan.key_index);
        if let Some(index) = index {
            indexes::create(session, index, &copy, Some(&index.name), &quote_identifier(&order.time_column))?;
        }
        replica_identity(session, &model, index.map(|index| index.name.as_str()), &copy)?;
    }
    let made = |name: &str| {
        relation::named(&model.schema, name)
            .ok_or_else(|| IotError::wrong_state(format!("table \"{name}\" was dropped")))
    };
    let beginning = Beginning {
        relation: table,
        parent,
        partitioned: made(&copy_name)?,
        change_log: made(&log_name)?,
        key_columns: plan.key_columns.clone(),
        definition,
        range: plan.range,
        row_estimate: source.row_estimate,
    };
    let id = conversion::add(session, beginning, order)?.ok_or_else(|| busy(&source.qualified_name))?;
    take(id, &source.qualified_name)?;
    Ok(id)
}

/// Row security stands on the copy from the start, so that each partition gets it when it is made.
fn row_security(
    session: &mut Session<'_>,
    table: Oid,
    model: &conversion_source::Source,
    copy: &str,
    copy_name: &str,
) -> IotResult<()> {
    for (is_on, change) in [(model.row_security.0, "ENABLE"), (model.row_security.1, "FORCE")] {
        if is_on {
            session.run(&format!("ALTER TABLE {copy} {change} ROW LEVEL SECURITY"))?;
        }
    }
    for each in partition::policies(session, table)? {
        let expression = |word: &str, tree: &Option<String>| -> IotResult<String> {
            Ok(match tree {
                Some(tree) => format!(" {word} ({})", policy::deparse(tree, table, copy_name)?),
                None => String::new(),
            })
        };
        session.run(&format!(
            "CREATE POLICY {} ON {copy} AS {} FOR {} TO {}{}{}",
            each.name,
            if each.is_permissive { "PERMISSIVE" } else { "RESTRICTIVE" },
            each.command,
            each.roles,
            expression("USING", &each.using)?,
            expression("WITH CHECK", &each.with_check)?
        ))?;
    }
    Ok(())
}

fn replica_identity(
    session: &mut Session<'_>,
    model: &conversion_source::Source,
    key: Option<&str>,
    copy: &str,
) -> IotResult<()> {
    let identity = match (model.replica_identity.as_str(), key) {
        ("f", _) => "FULL".to_owned(),
        ("n", _) => "NOTHING".to_owned(),
        ("i", Some(key)) => {
            format!("USING INDEX {}", quote_identifier(iot_core::conversion::staged_name(key)))
        }
        _ => return Ok(()),
    };
    session.run(&format!("ALTER TABLE {copy} REPLICA IDENTITY {identity}"))
}
