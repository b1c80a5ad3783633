//! Making partitions: stand-alone tables that are then attached, so that readers and writers of the parent go on meanwhile
//! (SHARE UPDATE EXCLUSIVE on the parent, nothing stronger).

use iot_core::partition::{
    PartitionInterval, PartitionRange, Tier, numbered_name, partition_name, subpartition_name,
};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_identifier, quote_literal, quote_qualified_identifier};

use super::tiers;
use crate::catalog::partition::{self, Model, Policy, Trigger};
use crate::catalog::partition_policy::Management;
use crate::engine;
use crate::error::{IotError, IotResult};
use crate::pg::partition_bounds::{self, TimeType};
use crate::pg::policy;
use crate::pg::relation::{self, Lock, OpenRelation};
use crate::pg::statement::Session;

/// Makes the partitions that `choose` picks as `management` wants them, given those that exist; takes no lock worth mentioning when it picks none.
///
/// Sessions that race for the same partition meet at the lock that ATTACH needs anyway, which also holds off partitions
/// made by hand; the later one looks again and finds nothing left to do. (An advisory lock would be one that anybody can
/// take and keep.)
///
/// Reads PostgreSQL's own catalogue only: the current user may be an owner who cannot read ours.
///
/// # Errors
/// 42809 when `table` is not partitioned by time; else what PostgreSQL raises.
pub fn create_missing(
    session: &mut Session<'_>,
    table: Oid,
    interval: PartitionInterval,
    management: &Management,
    choose: impl Fn(&[PartitionRange]) -> Vec<PartitionRange>,
) -> IotResult<Vec<(String, PartitionRange)>> {
    create_missing_for(session, table, interval, management, None, choose)
}

/// The table whose name partitions are called after when it is not the one that they are made for.
#[derive(Clone)]
pub struct Namesake {
    /// Its name.
    pub name: String,
    /// Schema and name, quoted.
    pub qualified_name: String,
    /// Whether each partition gets a CHECK constraint that says what its range is, called [`BOUNDS`].
    pub with_bounds: bool,
}

/// Name of the constraint by which a partition can be attached elsewhere without being read.
pub const BOUNDS: &str = "iot_ext_bounds";

/// As [`create_missing`], for the sake of another table.
///
/// # Errors
/// As [`create_missing`].
pub fn create_missing_for(
    session: &mut Session<'_>,
    table: Oid,
    interval: PartitionInterval,
    management: &Management,
    namesake: Option<&Namesake>,
    choose: impl Fn(&[PartitionRange]) -> Vec<PartitionRange>,
) -> IotResult<Vec<(String, PartitionRange)>> {
    if choose(&partition_bounds::ranges(&OpenRelation::open(table, Lock::AccessShare))?).is_empty() {
        return Ok(Vec::new());
    }
    let parent = OpenRelation::open_fresh(table, Lock::ShareUpdateExclusive);
    let chosen = choose(&partition_bounds::ranges(&parent)?);
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let mut workshop = Workshop::open(session, &parent, management)?;
    workshop.namesake = namesake.cloned();
    let base = namesake.map_or_else(|| parent.name(), |namesake| namesake.name.clone());
    let names: Vec<_> = chosen
        .iter()
        .map(|&range| free_name(&parent.schema(), &partition_name(&base, interval, range)))
        .collect::<IotResult<_>>()?;
    // ATTACH wants the parent unused by this session.
    drop(parent);
    let made: Vec<_> = names.into_iter().zip(chosen).collect();
    for (name, range) in &made {
        workshop.make(session, name, *range, Indexes::ByAttach)?;
        workshop.attach(session, name, *range)?;
    }
    Ok(made)
}

/// When a partition gets the indexes of its table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Indexes {
    /// When it is attached: right for an empty one.
    ByAttach,
    /// Before, so that attaching one with rows does not take the time to build them; with those of that tier.
    Before(Tier),
}

/// What must be known of a table to make partitions like it.
pub struct Workshop {
    parent: Oid,
    schema: String,
    qualified_parent: String,
    time_column: String,
    time_type: TimeType,
    row_security: (bool, bool),
    model: Model,
    policies: Vec<Policy>,
    triggers: Vec<Trigger>,
    management: Management,
    namesake: Option<Namesake>,
}

impl Workshop {
    /// Looks at `parent` once for all partitions to come.
    ///
    /// # Errors
    /// As [`create_missing`].
    pub fn open(
        session: &mut Session<'_>,
        parent: &OpenRelation,
        management: &Management,
    ) -> IotResult<Self> {
        let oid = parent.oid();
        let model = partition::model(session, oid)?
            .ok_or_else(|| IotError::wrong_state(format!("table {} is gone", parent.qualified_name())))?;
        let policies = if model.has_policies { partition::policies(session, oid)? } else { Vec::new() };
        Ok(Self {
            parent: oid,
            schema: parent.schema(),
            qualified_parent: parent.qualified_name(),
            time_column: partition_bounds::time_column(parent)?,
            time_type: partition_bounds::time_type(parent)?,
            row_security: parent.row_security(),
            model,
            policies,
            triggers: partition::truncate_triggers(session, oid)?,
            management: management.clone(),
            namesake: None,
        })
    }

    /// `name` in the schema of the parent, quoted.
    pub fn qualified(&self, name: &str) -> String {
        quote_qualified_identifier(self.schema.as_str(), name)
    }

    /// The schema of the parent and its partitions.
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The condition by which a row belongs to `range`.
    pub fn condition(&self, range: PartitionRange) -> String {
        let column = quote_identifier(&self.time_column);
        let [start, end] = [range.start, range.end].map(|at| quote_literal(self.time_type.literal(at)));
        format!(
            "{column} IS NOT NULL AND {column} OPERATOR(pg_catalog.>=) {start} AND {column} OPERATOR(pg_catalog.<) {end}"
        )
    }

    /// Makes the table `name`, with everything that the partition of `range` has, but stand-alone.
    ///
    /// # Errors
    /// What PostgreSQL raises.
    pub fn make(
        &self,
        session: &mut Session<'_>,
        name: &str,
        range: PartitionRange,
        indexes: Indexes,
    ) -> IotResult<()> {
        let partition = self.qualified(name);
        let parent = &self.qualified_parent;
        let (with_indexes, tier) = match indexes {
            Indexes::ByAttach => ("", Tier::Hot),
            Indexes::Before(tier) => (" INCLUDING INDEXES", tier),
        };
        let subpartitions = self.management.subpartition_by.as_ref();
        let place =
            self.model.tablespace.as_ref().map_or(String::new(), |name| format!(" TABLESPACE {name}"));
        let method = self.model.access_method.as_ref().map_or(String::new(), |name| format!(" USING {name}"));
        let parameters = match self.management.storage_parameters.as_slice() {
            [] => String::new(),
            list => format!(" WITH ({})", list.join(", ")),
        };
        let like = format!(
            "LIKE {parent} INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS INCLUDING STORAGE \
             INCLUDING COMPRESSION INCLUDING COMMENTS{with_indexes}"
        );
        match subpartitions {
            None => {
                session.run(&format!(
                    "CREATE TABLE {partition} ({like}{}){method}{parameters}{place}",
                    self.key()
                ))?;
            }
            Some((strategy, column)) => {
                let by = format!("{} ({})", strategy.to_uppercase(), quote_identifier(column));
                session.run(&format!("CREATE TABLE {partition} ({like}) PARTITION BY {by}{place}"))?;
                for (leaf_name, values) in self.leaves(name)? {
                    let leaf = self.qualified(&leaf_name);
                    let key = self.key();
                    let key = key.strip_prefix(", ").map_or(String::new(), |key| format!(" ({key})"));
                    session.run(&format!(
                        "CREATE TABLE {leaf} PARTITION OF {partition}{key} {values}{method}{parameters}{place}"
                    ))?;
                    self.finish(session, &leaf_name)?;
                }
            }
        }
        self.finish(session, name)?;
        let called = self.namesake.as_ref().map_or(parent, |namesake| &namesake.qualified_name);
        if self.namesake.as_ref().is_some_and(|namesake| namesake.with_bounds) {
            let bounds = self.condition(range);
            session.run(&format!("ALTER TABLE {partition} ADD CONSTRAINT {BOUNDS} CHECK ({bounds})"))?;
        }
        let comment = quote_literal(format!(
            "Rows of {called} from {} (inclusive) to {} (exclusive).",
            self.time_type.literal(range.start),
            self.time_type.literal(range.end)
        ));
        session.run(&format!("COMMENT ON TABLE {partition} IS {comment}"))?;
        tiers::create(session, &partition, name, &self.management.tier_indexes[tier as usize])
    }

    /// Attaches what [`Workshop::make`] made.
    ///
    /// # Errors
    /// What PostgreSQL raises.
    pub fn attach(&self, session: &mut Session<'_>, name: &str, range: PartitionRange) -> IotResult<()> {
        let partition = self.qualified(name);
        let parent = &self.qualified_parent;
        let [start, end] = [range.start, range.end].map(|at| quote_literal(self.time_type.literal(at)));
        // What it holds, the state of sensors knows or never counted.
        engine::writing(|| {
            session.run(&format!(
                "ALTER TABLE {parent} ATTACH PARTITION {partition} FOR VALUES FROM ({start}) TO ({end})"
            ))
        })?;
        if let Some(index) = self.model.identity_index
            && let Some(own) = partition::child_index(session, index, &partition)?
        {
            engine::writing(|| {
                session.run(&format!("ALTER TABLE {partition} REPLICA IDENTITY USING INDEX {own}"))
            })?;
        }
        Ok(())
    }

    /// Columns of the primary key of a leaf, as one more element of its definition.
    fn key(&self) -> String {
        match self.management.leaf_key.as_slice() {
            [] => String::new(),
            columns => format!(
                ", PRIMARY KEY ({})",
                columns.iter().map(quote_identifier).collect::<Vec<_>>().join(", ")
            ),
        }
    }

    /// Names of the sub-partitions of `name`, each with the values it takes.
    fn leaves(&self, name: &str) -> IotResult<Vec<(String, String)>> {
        let Management { subpartition_values, subpartition_count, .. } = &self.management;
        let mut wanted: Vec<(String, String)> = match subpartition_count {
            Some(count) => (0..*count)
                .map(|part| {
                    (part.to_string(), format!("FOR VALUES WITH (MODULUS {count}, REMAINDER {part})"))
                })
                .collect(),
            None => subpartition_values
                .iter()
                .map(|value| (value.clone(), format!("FOR VALUES IN ({})", quote_literal(value))))
                // A value that nobody thought of must not cost a row.
                .chain([("others".to_owned(), "DEFAULT".to_owned())])
                .collect(),
        };
        let mut taken: Vec<String> = Vec::new();
        for (value, _) in &mut wanted {
            *value = first_free(&subpartition_name(name, value), |name| {
                taken.iter().any(|other| other == name) || relation::named(&self.schema, name).is_some()
            })?;
            taken.push(value.clone());
        }
        Ok(wanted)
    }

    /// What LIKE and PARTITION OF leave out.
    fn finish(&self, session: &mut Session<'_>, name: &str) -> IotResult<()> {
        let table = &self.qualified(name);
        // Row security of the parent would not hold for those who read the partition by its own name.
        let mut changes = Vec::new();
        if self.row_security.0 {
            changes.push("ENABLE ROW LEVEL SECURITY");
        }
        if self.row_security.1 {
            changes.push("FORCE ROW LEVEL SECURITY");
        }
        match self.model.replica_identity.as_str() {
            "f" => changes.push("REPLICA IDENTITY FULL"),
            "n" => changes.push("REPLICA IDENTITY NOTHING"),
            _ => {}
        }
        if !changes.is_empty() {
            session.run(&format!("ALTER TABLE {table} {}", changes.join(", ")))?;
        }
        for each in &self.policies {
            self.copy_policy(session, each, name)?;
        }
        // A TRUNCATE trigger of the parent does not see a TRUNCATE of the partition.
        for Trigger { name, function, fires_always } in &self.triggers {
            session.run(&format!(
                "CREATE TRIGGER {name} AFTER TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION {function}"
            ))?;
            if *fires_always {
                session.run(&format!("ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}"))?;
            }
        }
        if !self.model.has_default_grants {
            return Ok(());
        }
        // Access goes through the parent: a grant on the partition would go past its policies.
        for role in partition::grantees(session, table)? {
            session.run(&format!("REVOKE ALL ON TABLE {table} FROM {role}"))?;
        }
        Ok(())
    }

    fn copy_policy(&self, session: &mut Session<'_>, copied: &Policy, name: &str) -> IotResult<()> {
        let table = self.qualified(name);
        let expression = |word: &str, tree: &Option<String>| -> IotResult<String> {
            Ok(match tree {
                Some(tree) => format!(" {word} ({})", policy::deparse(tree, self.parent, name)?),
                None => String::new(),
            })
        };
        let kind = if copied.is_permissive { "PERMISSIVE" } else { "RESTRICTIVE" };
        session.run(&format!(
            "CREATE POLICY {} ON {table} AS {kind} FOR {} TO {}{}{}",
            copied.name,
            copied.command,
            copied.roles,
            expression("USING", &copied.using)?,
            expression("WITH CHECK", &copied.with_check)?
        ))
    }
}

/// `usual`, or the next free name: a detached partition of the same range may still have it.
///
/// # Errors
/// 42P07 when a hundred are taken.
pub fn free_name(schema: &str, usual: &str) -> IotResult<String> {
    first_free(usual, |name| relation::named(schema, name).is_some())
}

fn first_free(usual: &str, is_taken: impl Fn(&str) -> bool) -> IotResult<String> {
    (0..100).map(|attempt| numbered_name(usual, attempt)).find(|name| !is_taken(name)).ok_or_else(|| {
        IotError::new(
            PgSqlErrorCode::ERRCODE_DUPLICATE_TABLE,
            format!("no free name for partition {}", quote_identifier(usual)),
        )
        .hint("Drop or rename the detached partitions of that range.")
    })
}
