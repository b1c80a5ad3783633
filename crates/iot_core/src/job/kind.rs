//! What jobs do.

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Makes, moves and drops the partitions of a managed table.
    PartitionUpkeep,
    /// Deletes what is old enough.
    Retention,
    /// Refreshes a materialized view.
    RefreshMaterializedView,
    /// Brings a roll-up up to date.
    RefreshRollup,
    /// VACUUM.
    Vacuum,
    /// ANALYZE.
    Analyze,
    /// Both.
    VacuumAnalyze,
    /// REINDEX CONCURRENTLY.
    Reindex,
    /// Writes down what the ingest engine holds in memory.
    FlushState,
    /// Alerts that time raises or ends.
    AlertTimers,
    /// Commands whose time is over.
    CommandTimeouts,
    /// Looks after the health of the database.
    HealthCheck,
    /// SQL of the user.
    Sql,
}

/// Whether a kind works on a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// On none.
    Never,
    /// On one, or on every one of the job's owner.
    Optional,
    /// On one.
    Required,
}

/// Parameters that every kind has: settings of PostgreSQL for the time of a run.
pub const MEMORY: [&str; 2] = ["work_mem", "maintenance_work_mem"];

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::PartitionUpkeep,
        Self::Retention,
        Self::RefreshMaterializedView,
        Self::RefreshRollup,
        Self::Vacuum,
        Self::Analyze,
        Self::VacuumAnalyze,
        Self::Reindex,
        Self::FlushState,
        Self::AlertTimers,
        Self::CommandTimeouts,
        Self::HealthCheck,
        Self::Sql,
    ];

    /// Its name in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PartitionUpkeep => "partition_upkeep",
            Self::Retention => "retention",
            Self::RefreshMaterializedView => "refresh_materialized_view",
            Self::RefreshRollup => "refresh_rollup",
            Self::Vacuum => "vacuum",
            Self::Analyze => "analyze",
            Self::VacuumAnalyze => "vacuum_analyze",
            Self::Reindex => "reindex",
            Self::FlushState => "flush_state",
            Self::AlertTimers => "alert_timers",
            Self::CommandTimeouts => "command_timeouts",
            Self::HealthCheck => "health_check",
            Self::Sql => "sql",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether it works on a relation.
    pub fn target(self) -> Target {
        match self {
            Self::Retention | Self::RefreshRollup => Target::Required,
            Self::PartitionUpkeep
            | Self::RefreshMaterializedView
            | Self::Vacuum
            | Self::Analyze
            | Self::VacuumAnalyze
            | Self::Reindex
            | Self::Sql => Target::Optional,
            Self::FlushState | Self::AlertTimers | Self::CommandTimeouts | Self::HealthCheck => Target::Never,
        }
    }

    /// The keys that its parameters may have beside [`MEMORY`]; `None` for any.
    pub fn parameters(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Sql => None,
            Self::Retention => Some(&["drop_after", "time_column", "condition", "batch_size", "force"]),
            _ => Some(&[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.as_str()), Some(kind));
        }
        assert_eq!(Kind::from_name("SQL"), None);
    }
}
