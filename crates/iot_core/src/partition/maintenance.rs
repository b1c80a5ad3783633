//! The whole plan for a table: what goes, what is thinned out, what gets other indexes, what is made.

use std::fmt;

use super::retention::{self, Fate};
use super::{Age, Keep, PartitionInterval, PartitionRange, Reason, Rule, plan};
use crate::time::Timestamp;

/// A partition as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// Its times.
    pub range: PartitionRange,
    /// Its size with indexes; only a budget asks for it.
    pub bytes: u64,
    /// The tier indexes that it has, by their keys.
    pub indexes: Vec<String>,
    /// Signature of the [`Keep`] by which it was last rewritten.
    pub settled: Option<String>,
}

/// How a table is to be kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Width of new partitions.
    pub interval: PartitionInterval,
    /// Partitions kept ready beyond the current one.
    pub premake: u32,
    /// Age at which rows of no rule go.
    pub drop_after: Option<Age>,
    /// What all partitions together may take.
    pub maximum_bytes: Option<u64>,
    /// Age at which a partition is warm.
    pub warm_after: Option<Age>,
    /// Age at which it is cold.
    pub cold_after: Option<Age>,
    /// Keys of the indexes of each tier, hot first.
    pub indexes: [Vec<String>; 3],
    /// Rows that live longer or shorter.
    pub rules: Vec<Rule>,
}

/// How often a partition is still asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Being written, or read all the time.
    Hot,
    /// Read now and then.
    Warm,
    /// Kept.
    Cold,
}

impl Tier {
    /// Its name in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}

/// One thing to do. Partitions are meant by their place in the list that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a partition.
    Create(PartitionRange),
    /// Drop one.
    Drop {
        /// Which.
        partition: usize,
        /// Why.
        reason: Reason,
        /// What a guard had to say against it, where force went over it.
        forced: Option<String>,
    },
    /// Replace one by what stays of it.
    Rewrite {
        /// Which.
        partition: usize,
        /// What stays.
        keep: Keep,
        /// Why the rest goes.
        reason: Reason,
        /// As in [`Step::Drop`].
        forced: Option<String>,
    },
    /// Rows that should go and must not yet.
    Blocked {
        /// Which partition.
        partition: usize,
        /// Why they should go.
        reason: Reason,
        /// What stands against it.
        guard: String,
    },
    /// Give one the indexes of its tier.
    Index {
        /// Which.
        partition: usize,
        /// The tier.
        tier: Tier,
        /// Keys of indexes to make.
        create: Vec<String>,
        /// Keys of indexes to drop.
        drop: Vec<String>,
    },
}

/// What is to be done for a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which it should happen: what frees space first.
    pub steps: Vec<Step>,
    /// The budget in percent that is used before any of it, if there is one.
    pub budget_percent: Option<u64>,
}

impl Settings {
    /// The tier of a partition.
    pub fn tier(&self, range: PartitionRange, now: Timestamp) -> Tier {
        let is_past = |age: Option<Age>| age.is_some_and(|age| range.end <= age.before(now));
        match () {
            () if is_past(self.cold_after) => Tier::Cold,
            () if is_past(self.warm_after) => Tier::Warm,
            () => Tier::Hot,
        }
    }

    /// Keys of the indexes of `tier`.
    pub fn indexes_of(&self, tier: Tier) -> &[String] {
        &self.indexes[tier as usize]
    }
}

/// What `settings` want done about `existing` partitions, in any order. `guard` is asked about a partition before rows of
/// it go, and answers what stands against it; `force` goes over that.
pub fn maintain(
    existing: &[Existing],
    settings: &Settings,
    now: Timestamp,
    force: bool,
    mut guard: impl FnMut(usize) -> Option<String>,
) -> Plan {
    let mut plan = Plan::default();
    let mut left: Vec<usize> = (0..existing.len()).collect();
    left.sort_by_key(|&partition| existing[partition].range.start);
    let mut by_age = Vec::new();
    left.retain(|&partition| {
        let fate = retention::fate(existing[partition].range, settings.drop_after, &settings.rules, now);
        let (keep, reason) = match fate {
            Fate::Stays => return true,
            Fate::Goes(reason) => (None, reason),
            Fate::Partly(keep, reason) => (Some(keep), reason),
        };
        let thinned = keep.is_some();
        if let Some(step) = removal(existing, partition, keep, reason, force, &mut guard) {
            let goes = matches!(step, Step::Drop { .. });
            by_age.push(step);
            return !goes;
        }
        thinned
    });
    plan.steps = by_age;
    spend_budget(existing, settings, now, force, &mut guard, &left, &mut plan);
    let is_touched = |partition: usize, steps: &[Step]| {
        steps.iter().any(|step| match step {
            Step::Drop { partition: other, .. } | Step::Rewrite { partition: other, .. } => {
                *other == partition
            }
            _ => false,
        })
    };
    if settings.indexes.iter().any(|keys| !keys.is_empty())
        || existing.iter().any(|one| !one.indexes.is_empty())
    {
        let touched: Vec<_> = left.iter().map(|&partition| is_touched(partition, &plan.steps)).collect();
        for (&partition, touched) in left.iter().zip(touched) {
            if !touched {
                plan.steps.extend(other_indexes(partition, &existing[partition], settings, now));
            }
        }
    }
    let ranges: Vec<_> = existing.iter().map(|each| each.range).collect();
    let missing = plan::plan(&ranges, settings.interval, now, settings.premake);
    plan.steps.extend(missing.into_iter().map(Step::Create));
    plan
}

/// The step that takes rows from a partition; `None` when it was taken already.
fn removal(
    existing: &[Existing],
    partition: usize,
    keep: Option<Keep>,
    reason: Reason,
    force: bool,
    guard: &mut impl FnMut(usize) -> Option<String>,
) -> Option<Step> {
    if let Some(keep) = &keep
        && existing[partition].settled.as_ref() == Some(&keep.signature())
    {
        return None;
    }
    let against = guard(partition);
    Some(match (against, keep) {
        (Some(guard), _) if !force => Step::Blocked { partition, reason, guard },
        (forced, None) => Step::Drop { partition, reason, forced },
        (forced, Some(keep)) => Step::Rewrite { partition, keep, reason, forced },
    })
}

/// Oldest first, until the rest fits; what holds the present or the future never goes.
fn spend_budget(
    existing: &[Existing],
    settings: &Settings,
    now: Timestamp,
    force: bool,
    guard: &mut impl FnMut(usize) -> Option<String>,
    left: &[usize],
    plan: &mut Plan,
) {
    let Some(maximum) = settings.maximum_bytes.filter(|&maximum| maximum > 0) else { return };
    let all: u64 = existing.iter().map(|each| each.bytes).sum();
    plan.budget_percent =
        Some(u64::try_from(u128::from(all) * 100 / u128::from(maximum)).unwrap_or(u64::MAX));
    let mut total: u64 = left.iter().map(|&partition| existing[partition].bytes).sum();
    for &partition in left {
        let range = existing[partition].range;
        if total <= maximum || range.end > now {
            break;
        }
        // To drop it would free nothing.
        if existing[partition].bytes == 0 {
            continue;
        }
        let keep = retention::held(range, &settings.rules, now);
        let reason = Reason::Budget(maximum);
        // A rewriting by age gives way to the sharper one.
        let is_same =
            |step: &Step| matches!(step, Step::Rewrite { partition: other, .. } if *other == partition);
        let step = removal(existing, partition, keep, reason, force, guard);
        if let Some(step) = step {
            if !matches!(step, Step::Blocked { .. }) {
                total = total.saturating_sub(existing[partition].bytes);
                plan.steps.retain(|other| !is_same(other));
            } else if plan
                .steps
                .iter()
                .any(|other| matches!(other, Step::Blocked { partition: other, .. } if *other == partition))
            {
                continue;
            }
            plan.steps.push(step);
        }
    }
}

fn other_indexes(partition: usize, found: &Existing, settings: &Settings, now: Timestamp) -> Option<Step> {
    let tier = settings.tier(found.range, now);
    let wanted = settings.indexes_of(tier);
    let missing = |here: &[String], there: &[String]| -> Vec<String> {
        here.iter().filter(|key| !there.contains(key)).cloned().collect()
    };
    let (create, drop) = (missing(wanted, &found.indexes), missing(&found.indexes, wanted));
    (!create.is_empty() || !drop.is_empty()).then_some(Step::Index { partition, tier, create, drop })
}

impl fmt::Display for Step {
    /// Why, in words.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = |ids: &[i64]| ids.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Self::Create(_) => formatter.write_str("to be ready for new rows"),
            Self::Drop { reason, forced, .. } => {
                write!(formatter, "{reason}")?;
                forced.as_ref().map_or(Ok(()), |guard| write!(formatter, "; forced although {guard}"))
            }
            Self::Rewrite { keep, reason, forced, .. } => {
                write!(formatter, "{reason}")?;
                if !keep.live.is_empty() {
                    let word = if keep.live.len() == 1 { "rule" } else { "rules" };
                    write!(formatter, "; rows of {word} {} stay", rules(&keep.live))?;
                }
                forced.as_ref().map_or(Ok(()), |guard| write!(formatter, "; forced although {guard}"))
            }
            Self::Blocked { reason, guard, .. } => write!(formatter, "{reason}, but {guard}"),
            Self::Index { tier, .. } => write!(formatter, "indexes of tier {}", tier.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Lifetime;
    use super::*;

    fn day(month: u32, day: u32) -> Timestamp {
        Timestamp::from_utc_civil(2026, month, day).unwrap()
    }

    fn days(count: u32) -> Option<Age> {
        Age::days(count)
    }

    fn settings() -> Settings {
        Settings {
            interval: PartitionInterval::Day,
            premake: 0,
            drop_after: None,
            maximum_bytes: None,
            warm_after: None,
            cold_after: None,
            indexes: Default::default(),
            rules: Vec::new(),
        }
    }

    /// Ten days of 100 bytes each, 10 November to 19 November, newest first.
    fn ten_days() -> Vec<Existing> {
        (10..20)
            .rev()
            .map(|first| Existing {
                range: PartitionRange { start: day(11, first), end: day(11, first + 1) },
                bytes: 100,
                indexes: Vec::new(),
                settled: None,
            })
            .collect()
    }

    fn now() -> Timestamp {
        Timestamp(day(11, 19).0 + 1)
    }

    fn dropped(plan: &Plan) -> Vec<usize> {
        plan.steps
            .iter()
            .filter_map(|step| if let Step::Drop { partition, .. } = step { Some(*partition) } else { None })
            .collect()
    }

    #[test]
    fn whole_partitions_go_by_age_the_oldest_first() {
        let settings = Settings { drop_after: days(7), ..settings() };
        let plan = maintain(&ten_days(), &settings, now(), false, |_| None);
        // 11 November ends at 12 November 00:00, just inside now - 7 days.
        assert_eq!(dropped(&plan), [9, 8]);
        assert_eq!(plan.steps[0].to_string(), "older than 7 days");
        assert_eq!(plan.budget_percent, None);
    }

    #[test]
    fn a_guard_stands_against_it_unless_forced() {
        let settings = Settings { drop_after: days(7), ..settings() };
        let guard = |partition| (partition == 9).then(|| "roll-up hourly is behind".to_owned());
        let plan = maintain(&ten_days(), &settings, now(), false, guard);
        assert_eq!(dropped(&plan), [8]);
        assert_eq!(plan.steps[0].to_string(), "older than 7 days, but roll-up hourly is behind");
        let plan = maintain(&ten_days(), &settings, now(), true, guard);
        assert_eq!(dropped(&plan), [9, 8]);
        assert_eq!(plan.steps[0].to_string(), "older than 7 days; forced although roll-up hourly is behind");
    }

    #[test]
    fn rules_keep_rows_longer_or_shorter_and_a_hold_beats_all() {
        let rule = |id, age| Rule { id, lifetime: Lifetime::For(Age::days(age).unwrap()) };
        let hold = Rule { id: 9, lifetime: Lifetime::Hold { from: day(11, 10), until: day(11, 11) } };
        let settings =
            Settings { drop_after: days(7), rules: vec![rule(1, 8), rule(2, 2), hold], ..settings() };
        let mut partitions = ten_days();
        let plan = maintain(&partitions, &settings, now(), false, |_| None);
        let keeps: Vec<_> = plan
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Rewrite { partition, keep, .. } => Some((*partition, keep.clone())),
                _ => None,
            })
            .collect();
        let keep = |default_rows, live: &[i64], expired: &[i64]| Keep {
            default_rows,
            live: live.to_vec(),
            expired: expired.to_vec(),
        };
        assert!(dropped(&plan).is_empty());
        assert_eq!(keeps[0], (9, keep(false, &[9], &[1, 2])));
        assert_eq!(keeps[1], (8, keep(false, &[1], &[2])));
        assert_eq!(keeps[2], (7, keep(true, &[1], &[2])));
        // 16 November ended less than two days ago.
        assert_eq!(keeps.len(), 7);
        // What was done is not done again.
        for (partition, keep) in keeps {
            partitions[partition].settled = Some(keep.signature());
        }
        assert_eq!(maintain(&partitions, &settings, now(), false, |_| None).steps, []);
    }

    #[test]
    fn a_budget_takes_the_oldest_and_never_the_present() {
        let mut settings = Settings { maximum_bytes: Some(750), ..settings() };
        let plan = maintain(&ten_days(), &settings, now(), false, |_| None);
        assert_eq!((dropped(&plan), plan.budget_percent), (vec![9, 8, 7], Some(133)));
        assert_eq!(plan.steps[0].to_string(), "over the budget of 750 bytes");
        settings.maximum_bytes = Some(1);
        let plan = maintain(&ten_days(), &settings, now(), false, |_| None);
        assert_eq!(dropped(&plan).len(), 9);
        // An empty one frees nothing.
        let mut with_empty = ten_days();
        with_empty[9].bytes = 0;
        settings.maximum_bytes = Some(850);
        assert_eq!(dropped(&maintain(&with_empty, &settings, now(), false, |_| None)), [8]);
        // A blocked one is passed over.
        settings.maximum_bytes = Some(950);
        let plan = maintain(&ten_days(), &settings, now(), false, |p| (p == 9).then(String::new));
        assert_eq!(dropped(&plan), [8]);
        // Held rows stay.
        let held = Lifetime::Hold { from: Timestamp::NEGATIVE_INFINITY, until: day(11, 11) };
        settings.rules = vec![Rule { id: 1, lifetime: held }];
        let plan = maintain(&ten_days(), &settings, now(), false, |_| None);
        assert!(matches!(&plan.steps[0], Step::Rewrite { partition: 9, keep, .. } if keep.live == [1]));
        assert!(dropped(&plan).is_empty());
    }

    #[test]
    fn age_and_budget_do_not_take_a_partition_twice() {
        let settings = Settings { drop_after: days(7), maximum_bytes: Some(700), ..settings() };
        let plan = maintain(&ten_days(), &settings, now(), false, |_| None);
        assert_eq!(dropped(&plan), [9, 8, 7]);
        let blocked = maintain(&ten_days(), &settings, now(), false, |_| Some("no".to_owned()));
        assert_eq!(
            blocked.steps.iter().filter(|step| matches!(step, Step::Blocked { partition: 9, .. })).count(),
            1
        );
    }

    #[test]
    fn tiers_change_indexes() {
        let key = |name: &str| name.to_owned();
        let settings = Settings {
            warm_after: days(2),
            cold_after: days(5),
            indexes: [vec![key("a"), key("b")], vec![key("b")], Vec::new()],
            ..settings()
        };
        let mut partitions = ten_days();
        let tiers: Vec<_> = partitions.iter().map(|each| settings.tier(each.range, now())).collect();
        assert_eq!(tiers[..4], [Tier::Hot, Tier::Hot, Tier::Hot, Tier::Warm]);
        assert_eq!(tiers[5..7], [Tier::Warm, Tier::Cold]);
        for (partition, tier) in partitions.iter_mut().zip(&tiers) {
            partition.indexes = settings.indexes_of(*tier).to_vec();
        }
        assert_eq!(maintain(&partitions, &settings, now(), false, |_| None).steps, []);
        partitions[3].indexes = vec![key("a")];
        partitions[9].indexes = vec![key("a")];
        let steps = maintain(&partitions, &settings, now(), false, |_| None).steps;
        assert_eq!(
            steps,
            [
                Step::Index { partition: 9, tier: Tier::Cold, create: vec![], drop: vec![key("a")] },
                Step::Index { partition: 3, tier: Tier::Warm, create: vec![key("b")], drop: vec![key("a")] },
            ]
        );
        assert_eq!(steps[1].to_string(), "indexes of tier warm");
    }

    #[test]
    fn what_is_missing_is_made_last() {
        let settings = Settings { drop_after: days(7), premake: 2, ..settings() };
        let plan = maintain(&ten_days(), &settings, now(), false, |_| None);
        let made: Vec<_> = plan.steps[2..].to_vec();
        assert_eq!(
            made,
            [20, 21]
                .map(|first| Step::Create(PartitionRange { start: day(11, first), end: day(11, first + 1) }))
        );
        assert_eq!(made[0].to_string(), "to be ready for new rows");
    }
}
