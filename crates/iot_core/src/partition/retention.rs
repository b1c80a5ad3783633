//! Which rows of a partition have had their time.

use std::fmt;

use super::{Age, PartitionRange};
use crate::time::Timestamp;

/// Rows of a table that live longer or shorter than the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its key in the catalogue.
    pub id: i64,
    /// How long its rows stay.
    pub lifetime: Lifetime,
}

/// How long the rows of a rule stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as their partition is younger than that.
    For(Age),
    /// For good, if they are from that time: a legal hold.
    Hold {
        /// First time that is held.
        from: Timestamp,
        /// First time after it.
        until: Timestamp,
    },
}

impl Rule {
    /// Whether it is a legal hold.
    pub fn is_hold(&self) -> bool {
        matches!(self.lifetime, Lifetime::Hold { .. })
    }

    /// Whether its rows in `range` stay; `None` when it says nothing about them.
    fn keeps(&self, range: PartitionRange, now: Timestamp) -> Option<bool> {
        match self.lifetime {
            Lifetime::For(age) => Some(range.end > age.before(now)),
            Lifetime::Hold { from, until } => {
                range.overlaps(&PartitionRange { start: from, end: until }).then_some(true)
            }
        }
    }
}

/// What stays of a partition: a row of one of `live`, and with `default_rows` also a row of no rule at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Whether rows of no rule stay.
    pub default_rows: bool,
    /// Rules whose rows stay, whatever others say.
    pub live: Vec<i64>,
    /// Rules whose other rows go.
    pub expired: Vec<i64>,
}

impl Keep {
    /// The same as text: a partition that was rewritten so need not be looked at again.
    pub fn signature(&self) -> String {
        let list = |ids: &[i64]| ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
        let default = if self.default_rows { "others" } else { "" };
        format!("keep {}|{default} drop {}", list(&self.live), list(&self.expired))
    }
}

/// Why rows go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The table keeps rows that long.
    Age(Age),
    /// The table may take that many bytes.
    Budget(u64),
    /// Rules say so.
    Rules,
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Age(age) => write!(formatter, "older than {age}"),
            Self::Budget(bytes) => write!(formatter, "over the budget of {bytes} bytes"),
            Self::Rules => formatter.write_str("rows of shorter lived rules"),
        }
    }
}

/// What age and rules make of a partition.
pub(super) enum Fate {
    Stays,
    Goes(Reason),
    Partly(Keep, Reason),
}

pub(super) fn fate(range: PartitionRange, drop_after: Option<Age>, rules: &[Rule], now: Timestamp) -> Fate {
    let expired_after = drop_after.filter(|age| range.end <= age.before(now));
    let mut keep = Keep { default_rows: expired_after.is_none(), ..Keep::default() };
    for rule in rules {
        match rule.keeps(range, now) {
            Some(true) => keep.live.push(rule.id),
            Some(false) => keep.expired.push(rule.id),
            None => {}
        }
    }
    match expired_after {
        Some(age) if keep.live.is_empty() => Fate::Goes(Reason::Age(age)),
        Some(age) => Fate::Partly(keep, Reason::Age(age)),
        None if keep.expired.is_empty() => Fate::Stays,
        None => Fate::Partly(keep, Reason::Rules),
    }
}

/// What a budget leaves of a partition: held rows only. `None` when there are none.
pub(super) fn held(range: PartitionRange, rules: &[Rule], now: Timestamp) -> Option<Keep> {
    let (live, expired): (Vec<_>, Vec<_>) =
        rules.iter().partition(|rule| rule.is_hold() && rule.keeps(range, now) == Some(true));
    let ids = |rules: Vec<&Rule>| rules.into_iter().map(|rule| rule.id).collect();
    (!live.is_empty()).then(|| Keep { default_rows: false, live: ids(live), expired: ids(expired) })
}
