//! What the copy gets once it is filled: indexes, statistics, foreign keys. Built partition by partition, one transaction
//! each, and then joined under the copy itself, which finds those of the partitions and builds nothing.

use iot_core::conversion::{Definition, Phase, staged_name};
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_identifier, quote_literal, quote_qualified_identifier};

use super::shape::Shape;
use crate::catalog::conversion::Conversion;
use crate::catalog::conversion_carry;
use crate::catalog::conversion_source::{self, ForeignKey, Index};
use crate::error::{IotError, IotResult};
use crate::pg::relation::{self, Lock, OpenRelation};
use crate::pg::statement::Session;
use crate::statement;

statement!(
    /// The next partition of $1 without a valid index that is defined by $2, of a key if $3.
    WITHOUT_INDEX: (OIDOID, TEXTOID, BOOLOID)
    "SELECT c.oid FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      WHERE i.inhparent = $1
        AND NOT EXISTS (
            SELECT FROM pg_index x JOIN pg_class xc ON xc.oid = x.indexrelid
             WHERE x.indrelid = c.oid AND x.indisvalid
               AND substr(pg_get_indexdef(xc.oid), 1 + length(format('CREATE %sINDEX %I ON %I.%I USING ',
                          CASE WHEN x.indisunique THEN 'UNIQUE ' ELSE '' END, xc.relname, n.nspname, c.relname))) = $2
               AND (NOT $3 OR EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = xc.oid AND k.contype IN ('p', 'u'))))
      ORDER BY c.oid LIMIT 1");

/// One index more. The phase is over when nothing is left.
///
/// # Errors
/// What PostgreSQL raises.
pub fn build(session: &mut Session<'_>, conversion: &Conversion, shape: &Shape) -> IotResult<Phase> {
    let time = quote_identifier(&conversion.order.time_column);
    let copy_schema = OpenRelation::look(conversion.partitioned, OpenRelation::schema);
    for index in conversion_source::indexes(session, conversion.relation)? {
        if relation::named(&copy_schema, &staged_name(&index.name)).is_some() {
            continue;
        }
        let wanted = wanted(&index, &time)?;
        let arguments = [conversion.partitioned.into(), wanted.into(), index.constraint.is_some().into()];
        let partition = session.execute(&WITHOUT_INDEX, &arguments)?.first();
        match partition.map(|row| row.get::<Oid>(1)).transpose()? {
            Some(partition) => {
                let partition = OpenRelation::look(partition, OpenRelation::qualified_name);
                create(session, &index, &partition, None, &time)?;
            }
            None => create(session, &index, &shape.copy, Some(&index.name), &time)?,
        }
        return Ok(Phase::Indexing);
    }
    Ok(Phase::Analyzing)
}

/// What follows `USING` in the definition of the index on the copy: unique ones hold the time as well.
fn wanted(index: &Index, time: &str) -> IotResult<String> {
    if !index.is_unique {
        return Ok(index.definition.clone());
    }
    let definition = parse(&index.definition, index)?;
    Ok(words(&[
        definition.head,
        &format!("({})", with_time(&definition, time)),
        definition.options,
        definition.condition,
    ]))
}

/// Makes `index` on `table` (quoted), with a name that waits for that of `staged_for`, or one that PostgreSQL chooses.
///
/// # Errors
/// What PostgreSQL raises.
pub fn create(
    session: &mut Session<'_>,
    index: &Index,
    table: &str,
    staged_for: Option<&str>,
    time: &str,
) -> IotResult<()> {
    let name = staged_for.map(|name| quote_identifier(staged_name(name)));
    let parameters = match index.storage_parameters.as_slice() {
        [] => String::new(),
        list => format!("WITH ({})", list.join(", ")),
    };
    let statement = match &index.constraint {
        Some(constraint) => {
            let definition = parse(constraint, index)?;
            let place = index
                .tablespace
                .as_ref()
                .map_or(String::new(), |name| format!("USING INDEX TABLESPACE {name}"));
            // The rest of a key is INCLUDE, then what is said of its deferral.
            let (include, deferral) = match definition.options.find("DEFERRABLE") {
                Some(at) => definition.options.split_at(at),
                None => (definition.options, ""),
            };
            words(&[
                &format!("ALTER TABLE {table} ADD"),
                &name.map_or(String::new(), |name| format!("CONSTRAINT {name}")),
                definition.head,
                &format!("({})", with_time(&definition, time)),
                include,
                &parameters,
                &place,
                deferral,
            ])
        }
        None => {
            let definition = parse(&index.definition, index)?;
            let columns =
                if index.is_unique { with_time(&definition, time) } else { definition.columns.to_owned() };
            let place = index.tablespace.as_ref().map_or(String::new(), |name| format!("TABLESPACE {name}"));
            words(&[
                if index.is_unique { "CREATE UNIQUE INDEX" } else { "CREATE INDEX" },
                name.as_deref().unwrap_or(""),
                &format!("ON {table} USING"),
                definition.head,
                &format!("({columns})"),
                definition.options,
                &place,
                definition.condition,
            ])
        }
    };
    session.run(&statement)
}

fn parse<'text>(text: &'text str, index: &Index) -> IotResult<Definition<'text>> {
    Definition::parse(text).ok_or_else(|| {
        IotError::new(
            pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            format!("definition of index \"{}\" is not understood: {text}", index.name),
        )
    })
}

fn with_time(definition: &Definition<'_>, time: &str) -> String {
    if definition.has_column(time) {
        definition.columns.to_owned()
    } else {
        format!("{}, {time}", definition.columns)
    }
}

fn words(parts: &[&str]) -> String {
    parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Column options and extended statistics, then the statistics themselves.
///
/// # Errors
/// What PostgreSQL raises.
pub fn analyze(session: &mut Session<'_>, conversion: &Conversion, shape: &Shape) -> IotResult<Phase> {
    for option in conversion_carry::column_options(session, conversion.relation)? {
        session.run(&format!("ALTER TABLE {} {option}", shape.copy))?;
    }
    for each in conversion_carry::statistics(session, conversion.relation)? {
        let staged = staged_name(&each.name);
        let exists = format!(
            "SELECT 1 FROM pg_statistic_ext s WHERE s.stxname = {} AND s.stxnamespace = {}::regnamespace",
            quote_literal(&staged),
            quote_literal(quote_identifier(&each.schema))
        );
        if session.query(&exists)?.count() > 0 {
            continue;
        }
        let name = quote_qualified_identifier(each.schema.as_str(), staged.as_str());
        session.run(&format!("CREATE STATISTICS {name}{} FROM {}", each.body, shape.copy))?;
        if let Some(target) = each.target {
            session.run(&format!("ALTER STATISTICS {name} SET STATISTICS {target}"))?;
        }
    }
    session.run(&format!("ANALYZE {}", shape.copy))?;
    Ok(Phase::Verifying)
}

statement!(
    /// The next partition of $1 whose foreign key $2 is missing or not validated, and whether it is there.
    WITHOUT_FOREIGN_KEY: (OIDOID, TEXTOID)
    "SELECT i.inhrelid, k.oid IS NOT NULL FROM pg_inherits i
       LEFT JOIN pg_constraint k ON k.conrelid = i.inhrelid AND k.conname = $2 AND k.contype = 'f'
      WHERE i.inhparent = $1 AND k.convalidated IS NOT TRUE ORDER BY k.oid IS NOT NULL, i.inhrelid LIMIT 1");

/// One foreign key of one partition of an import more, first without a look at its rows, then with one that nobody waits for:
/// attached without it, it would be read while nobody may do anything.
///
/// # Errors
/// What PostgreSQL raises.
pub fn reference(session: &mut Session<'_>, conversion: &Conversion) -> IotResult<Phase> {
    for ForeignKey { name, definition, referenced } in
        conversion_source::foreign_keys(session, conversion.relation)?
    {
        let quoted = quote_identifier(&name);
        let arguments = [conversion.partitioned.into(), name.into()];
        let Some(row) = session.execute(&WITHOUT_FOREIGN_KEY, &arguments)?.first() else { continue };
        let partition = OpenRelation::look(row.get(1)?, OpenRelation::qualified_name);
        if row.get(2)? {
            session.run(&format!("ALTER TABLE {partition} VALIDATE CONSTRAINT {quoted}"))?;
        } else {
            // First the table that others write: who has it and comes to ours must not find us the other way round.
            drop(OpenRelation::open(referenced, Lock::ShareRowExclusive));
            session
                .run(&format!("ALTER TABLE {partition} ADD CONSTRAINT {quoted} {definition} NOT VALID"))?;
        }
        return Ok(Phase::Referencing);
    }
    Ok(Phase::Closing)
}

/// After the swap: foreign keys that partitions got unseen are validated, one in each transaction, and then become those of
/// the table. Whether one was left to do.
///
/// # Errors
/// What PostgreSQL raises: 55P03 where referenced tables are in use.
pub fn validate(session: &mut Session<'_>, table: Oid) -> IotResult<bool> {
    let Some(ForeignKey { name, definition, referenced }) =
        conversion_source::foreign_keys_of_partitions(session, table)?.into_iter().next()
    else {
        return Ok(false);
    };
    let quoted = quote_identifier(&name);
    if let Some(row) = session.execute(&NOT_VALIDATED, &[table.into(), name.into()])?.first() {
        let partition = OpenRelation::look(row.get(1)?, OpenRelation::qualified_name);
        session.run(&format!("ALTER TABLE {partition} VALIDATE CONSTRAINT {quoted}"))?;
        return Ok(true);
    }
    // They become parts of one, and lose triggers on the referenced table.
    drop(OpenRelation::open(referenced, Lock::AccessExclusive));
    let table = OpenRelation::look(table, OpenRelation::qualified_name);
    session.run(&format!("ALTER TABLE {table} ADD CONSTRAINT {quoted} {definition}"))?;
    Ok(true)
}

statement!(NOT_VALIDATED: (OIDOID, TEXTOID)
    "SELECT k.conrelid FROM pg_inherits i JOIN pg_constraint k ON k.conrelid = i.inhrelid
      WHERE i.inhparent = $1 AND k.contype = 'f' AND k.conname = $2 AND NOT k.convalidated ORDER BY k.conrelid LIMIT 1");
