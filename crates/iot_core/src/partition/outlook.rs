//! What becomes of a partition in time, by the same decisions that a run will take then.

use super::retention::{self, Fate};
use super::{Age, Existing, Lifetime, Settings};
use crate::time::Timestamp;

/// The next thing that happens to a partition for which nothing is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// `drop`, `rewrite`, `warm`, `cold` or `keep`.
    pub action: &'static str,
    /// When; `None` for what is kept, as far as can be told.
    pub at: Option<Timestamp>,
    /// Why, in words.
    pub reason: Option<String>,
}

/// What comes next for `partition`. A budget is not looked at: nobody knows when it will be spent.
pub fn outlook(partition: &Existing, settings: &Settings, now: Timestamp) -> Outlook {
    let range = partition.range;
    let fate = |at| Decision::of(retention::fate(range, settings.drop_after, &settings.rules, at));
    let before = fate(now);
    let tier = settings.tier(range, now);
    for (at, age, rule) in turns(partition, settings, now) {
        let by = rule.map_or(String::new(), |rule| format!(" (rule {rule})"));
        let next = fate(at);
        let action = match &next {
            _ if next == before => match settings.tier(range, at) {
                same if same == tier => continue,
                other => other.as_str(),
            },
            Decision::Goes => "drop",
            Decision::Stays | Decision::Partly { .. } => "rewrite",
        };
        let stays = next
            .live()
            .filter(|_| action == "rewrite")
            .map_or(String::new(), |live| format!("; {live} stay"));
        return Outlook { action, at: Some(at), reason: Some(format!("{action} after {age}{by}{stays}")) };
    }
    Outlook { action: "keep", at: None, reason: before.live().map(|live| format!("{live} stay")) }
}

/// The times at which something about `partition` may be decided otherwise, with the age that is reached then and its rule.
fn turns(partition: &Existing, settings: &Settings, now: Timestamp) -> Vec<(Timestamp, Age, Option<i64>)> {
    let of_table = [settings.drop_after, settings.warm_after, settings.cold_after];
    let of_rules = settings.rules.iter().filter_map(|rule| match rule.lifetime {
        Lifetime::For(age) => Some((age, Some(rule.id))),
        Lifetime::Hold { .. } => None,
    });
    let mut turns: Vec<_> = of_table
        .into_iter()
        .flatten()
        .map(|age| (age, None))
        .chain(of_rules)
        .filter_map(|(age, rule)| Some((age.reached(partition.range.end)?, age, rule)))
        .filter(|(at, ..)| *at > now)
        .collect();
    turns.sort_by_key(|(at, ..)| *at);
    turns
}

/// A [`Fate`] without its reason.
#[derive(PartialEq)]
enum Decision {
    Stays,
    Goes,
    Partly { default_rows: bool, live: Vec<i64>, expired: Vec<i64> },
}

impl Decision {
    fn of(fate: Fate) -> Self {
        match fate {
            Fate::Stays => Self::Stays,
            Fate::Goes(_) => Self::Goes,
            Fate::Partly(keep, _) => {
                Self::Partly { default_rows: keep.default_rows, live: keep.live, expired: keep.expired }
            }
        }
    }

    /// What of a partition is left, where that is not all of it.
    fn live(&self) -> Option<String> {
        let Self::Partly { default_rows, live, .. } = self else { return None };
        let rules = live.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        match (live.as_slice(), default_rows) {
            ([], _) => Some("rows of no rule".to_owned()),
            (live, others) => {
                let word = if live.len() == 1 { "rule" } else { "rules" };
                let others = if *others { " and of none" } else { "" };
                Some(format!("rows of {word} {rules}{others}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::{PartitionInterval, PartitionRange, Rule};

    fn day(month: u32, day: u32) -> Timestamp {
        Timestamp::from_utc_civil(2026, month, day).unwrap()
    }

    fn days(count: u32) -> Option<Age> {
        Age::days(count)
    }

    fn partition(end: Timestamp) -> Existing {
        let start = Timestamp(end.0 - crate::time::MICROS_PER_DAY);
        Existing { range: PartitionRange { start, end }, bytes: 1, indexes: Vec::new(), settled: None }
    }

    fn settings() -> Settings {
        Settings {
            interval: PartitionInterval::Day,
            premake: 0,
            drop_after: None,
            maximum_bytes: None,
            warm_after: None,
            cold_after: None,
            indexes: [Vec::new(), Vec::new(), Vec::new()],
            rules: Vec::new(),
        }
    }

    fn told(
        settings: &Settings,
        end: Timestamp,
        now: Timestamp,
    ) -> (&'static str, Option<Timestamp>, String) {
        let Outlook { action, at, reason } = outlook(&partition(end), settings, now);
        (action, at, reason.unwrap_or_default())
    }

    #[test]
    fn one_thing_after_the_other() {
        let settings =
            Settings { warm_after: days(7), cold_after: days(30), drop_after: days(90), ..settings() };
        let end = day(1, 10);
        for (now, expected) in [
            (day(1, 1), ("warm", Some(day(1, 17)), "warm after 7 days")),
            (day(1, 17), ("cold", Some(day(2, 9)), "cold after 30 days")),
            (day(2, 9), ("drop", Some(day(4, 10)), "drop after 90 days")),
            (day(4, 10), ("keep", None, "")),
        ] {
            let (action, at, reason) = told(&settings, end, now);
            assert_eq!((action, at, reason.as_str()), expected);
        }
        assert_eq!(told(&settings, Timestamp::INFINITY, day(1, 1)), ("keep", None, String::new()));
    }

    #[test]
    fn rules_make_it_a_rewrite_and_the_longest_a_drop() {
        let rule = |id, age| Rule { id, lifetime: Lifetime::For(Age::days(age).unwrap()) };
        let hold = Rule { id: 3, lifetime: Lifetime::Hold { from: day(1, 1), until: day(1, 5) } };
        let settings =
            Settings { drop_after: days(60), rules: vec![rule(1, 90), rule(2, 5), hold], ..settings() };
        let end = day(1, 10);
        for (now, expected) in [
            (
                day(1, 1),
                (
                    "rewrite",
                    Some(day(1, 15)),
                    "rewrite after 5 days (rule 2); rows of rule 1 and of none stay",
                ),
            ),
            (day(1, 15), ("rewrite", Some(day(3, 11)), "rewrite after 60 days; rows of rule 1 stay")),
            (day(3, 11), ("drop", Some(day(4, 10)), "drop after 90 days (rule 1)")),
        ] {
            let (action, at, reason) = told(&settings, end, now);
            assert_eq!((action, at, reason.as_str()), expected);
        }
        // What is held is never dropped.
        let held = told(&settings, day(1, 5), day(12, 1));
        assert_eq!(held, ("keep", None, "rows of rule 3 stay".to_owned()));
        assert_eq!(told(&settings, day(1, 5), day(3, 8)).0, "rewrite");
    }

    #[test]
    fn ages_beyond_all_time_never_come() {
        let forever = Age::new(1_200_000_000, 0, 0);
        let settings = Settings {
            warm_after: forever,
            cold_after: forever,
            drop_after: days(999_999_999),
            ..settings()
        };
        assert_eq!(told(&settings, day(1, 10), day(2, 1)), ("keep", None, String::new()));
    }
}
