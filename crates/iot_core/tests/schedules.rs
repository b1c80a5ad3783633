//! Laws of schedules: no start is lost, none is doubled, whatever the clocks do.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;

use iot_core::job::{Cron, Every, Failure, Outcome, Recurrence, Retries, Schedule, Utc, Zone, next_start};
use iot_core::time::{MICROS_PER_DAY, MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND, Timestamp};
use proptest::prelude::*;

/// A zone given by its changes: from when, and which offset in minutes then.
struct Changes {
    standard: i64,
    changes: Vec<(Timestamp, i64)>,
}

impl Zone for Changes {
    fn offset_at(&self, at: Timestamp) -> i64 {
        let last = self.changes.iter().rev().find(|(from, _)| *from <= at);
        last.map_or(self.standard, |(_, offset)| *offset) * MICROS_PER_MINUTE
    }

    fn next_change(&self, at: Timestamp) -> Option<Timestamp> {
        self.changes.iter().map(|(from, _)| *from).find(|from| *from > at)
    }
}

fn utc(year: i32, month: u32, day: u32, hour: i64, minute: i64) -> Timestamp {
    let midnight = Timestamp::from_utc_civil(year, month, day).unwrap();
    Timestamp(midnight.0 + hour * MICROS_PER_HOUR + minute * MICROS_PER_MINUTE)
}

/// The last Sunday of a month.
fn last_sunday(year: i32, month: u32) -> u32 {
    (22..=31).rev().find(|&day| is_sunday(year, month, day)).unwrap()
}

/// The Sunday number `count` of a month.
fn sunday(year: i32, month: u32, count: usize) -> u32 {
    (1..=28).filter(|&day| is_sunday(year, month, day)).nth(count - 1).unwrap()
}

fn is_sunday(year: i32, month: u32, day: u32) -> bool {
    Timestamp::from_utc_civil(year, month, day)
        .is_some_and(|at| (at.0 / MICROS_PER_DAY + 6).rem_euclid(7) == 0)
}

const YEARS: std::ops::RangeInclusive<i32> = 2024..=2034;

fn berlin() -> Changes {
    let changes = YEARS.flat_map(|year| {
        [(utc(year, 3, last_sunday(year, 3), 1, 0), 120), (utc(year, 10, last_sunday(year, 10), 1, 0), 60)]
    });
    Changes { standard: 60, changes: changes.collect() }
}

fn new_york() -> Changes {
    let changes = YEARS.flat_map(|year| {
        [(utc(year, 3, sunday(year, 3, 2), 7, 0), -240), (utc(year, 11, sunday(year, 11, 1), 6, 0), -300)]
    });
    Changes { standard: -300, changes: changes.collect() }
}

/// Half an hour, and in the south.
fn lord_howe() -> Changes {
    let changes = YEARS.flat_map(|year| {
        let (april, october) = (sunday(year, 4, 1), sunday(year, 10, 1));
        let (april, october) = (utc(year, 4, april, 0, 0), utc(year, 10, october, 0, 0));
        [
            (Timestamp(april.0 - 9 * MICROS_PER_HOUR), 630),
            (Timestamp(october.0 - 8 * MICROS_PER_HOUR - 30 * MICROS_PER_MINUTE), 660),
        ]
    });
    Changes { standard: 660, changes: changes.collect() }
}

/// Clocks change at midnight, back into the day before.
fn havana() -> Changes {
    let changes = YEARS.flat_map(|year| {
        [(utc(year, 3, sunday(year, 3, 2), 5, 0), -240), (utc(year, 11, sunday(year, 11, 1), 5, 0), -300)]
    });
    Changes { standard: -300, changes: changes.collect() }
}

/// A day that never was, as in Apia at the end of 2011; and one that was twice.
fn date_line() -> Changes {
    Changes { standard: -600, changes: vec![(utc(2026, 12, 30, 10, 0), 840), (utc(2028, 5, 1, 0, 0), -600)] }
}

fn zones() -> Vec<(&'static str, Changes)> {
    vec![
        ("UTC", Changes { standard: 0, changes: vec![] }),
        ("Kolkata", Changes { standard: 330, changes: vec![] }),
        ("Berlin", berlin()),
        ("New York", new_york()),
        ("Lord Howe", lord_howe()),
        ("Havana", havana()),
        ("date line", date_line()),
    ]
}

fn cron(expression: &str, origin: Timestamp) -> Schedule {
    Schedule::new(Recurrence::Cron(Box::new(Cron::parse(expression).unwrap())), origin, 0, 1)
}

fn every(months: i32, days: i32, micros: i64, origin: Timestamp) -> Schedule {
    Schedule::new(Recurrence::Every(Every::new(months, days, micros).unwrap()), origin, 0, 1)
}

fn starts(schedule: &Schedule, zone: &impl Zone, from: Timestamp, to: Timestamp) -> Vec<Timestamp> {
    let mut at = Timestamp(from.0 - 1);
    let mut found = Vec::new();
    while let Some(next) = schedule.next(zone, at).filter(|next| *next < to) {
        assert!(next > at);
        found.push(next);
        at = next;
    }
    found
}

/// The same, minute by minute: an oracle that knows nothing of stretches.
fn starts_by_walking(
    expression: &str,
    zone: &Changes,
    (from, to): (Timestamp, Timestamp),
    matches: impl Fn(i64) -> bool,
) -> Vec<Timestamp> {
    let every_hour = expression.split_whitespace().nth(1) == Some("*");
    let mut shown = BTreeSet::new();
    let mut found = BTreeSet::new();
    // Two days earlier, to know which minutes were shown before.
    let first = from.0 - 2 * MICROS_PER_DAY;
    let mut before = None;
    for at in (first..to.0).step_by(MICROS_PER_MINUTE as usize) {
        let local = at + zone.offset_at(Timestamp(at));
        let is_first_time = shown.insert(local);
        let skipped = before.map_or(local, |before: i64| before + MICROS_PER_MINUTE)..local;
        let is_made_up = !every_hour
            && skipped
                .step_by(MICROS_PER_MINUTE as usize)
                .any(|left_out| shown.insert(left_out) && matches(left_out));
        before = Some(local);
        if is_made_up || (matches(local) && (every_hour || is_first_time)) {
            found.insert(at);
        }
    }
    found.into_iter().filter(|at| *at >= from.0).map(Timestamp).collect()
}

/// Whether an expression names the minute, found in UTC, where nothing ever changes.
fn names(expression: &str) -> impl Fn(i64) -> bool {
    let schedule = cron(expression, Timestamp::EARLIEST);
    move |local| schedule.next(&Utc, Timestamp(local - 1)) == Some(Timestamp(local))
}

#[test]
fn around_every_change_the_starts_are_those_of_a_walk_by_minutes() {
    let expressions = [
        "30 2 * * *",
        "0 * * * *",
        "*/7 * * * *",
        "*/30 1-3 * * *",
        "0 0 * * *",
        "15 23 * * 6,0",
        "59 1,2 * * sun",
    ];
    for (name, zone) in zones() {
        let quiet = [(utc(2026, 6, 1, 0, 0), 0)];
        for (change, _) in zone.changes.iter().take(6).chain(&quiet) {
            let range = (Timestamp(change.0 - MICROS_PER_DAY), Timestamp(change.0 + 2 * MICROS_PER_DAY));
            for expression in expressions {
                let expected = starts_by_walking(expression, &zone, range, names(expression));
                let found = starts(&cron(expression, Timestamp::EARLIEST), &zone, range.0, range.1);
                assert_eq!(found, expected, "{expression} in {name} around {}", change.to_utc_literal());
            }
        }
    }
}

/// Five years: one start for each day of the calendar, in order, and at the time of day that was asked for except right after a gap.
#[test]
fn a_daily_job_starts_once_a_day_for_five_years() {
    for (name, zone) in zones() {
        if name == "date line" {
            continue;
        }
        for (expression, of_day) in [("30 2 * * *", 150), ("0 0 * * *", 0), ("45 23 * * *", 1425)] {
            let found = starts(
                &cron(expression, Timestamp::EARLIEST),
                &zone,
                utc(2026, 1, 1, 0, 0),
                utc(2031, 1, 1, 0, 0),
            );
            let days: Vec<i64> = found
                .iter()
                .map(|at| {
                    let local = at.0 + zone.offset_at(*at);
                    let late = local.rem_euclid(MICROS_PER_DAY) - of_day * MICROS_PER_MINUTE;
                    let after_gap = zone.changes.iter().any(|(change, _)| change == at);
                    assert!(
                        late == 0 || (after_gap && late > 0),
                        "{expression} in {name}: {}",
                        at.to_utc_literal()
                    );
                    local.div_euclid(MICROS_PER_DAY)
                })
                .collect();
            assert!(
                days.len() >= 1825 && days.windows(2).all(|pair| pair[1] == pair[0] + 1),
                "{expression} in {name}"
            );
        }
    }
}

#[test]
fn berlin_by_name() {
    let zone = berlin();
    let nightly = cron("30 2 * * *", Timestamp::EARLIEST);
    // 2026-03-29: 02:30 does not exist; 03:00 summer time is 01:00 UTC.
    assert_eq!(nightly.next(&zone, utc(2026, 3, 28, 12, 0)), Some(utc(2026, 3, 29, 1, 0)));
    assert_eq!(nightly.next(&zone, utc(2026, 3, 29, 1, 0)), Some(utc(2026, 3, 30, 0, 30)));
    // 2026-10-25: 02:30 is at 00:30 and at 01:30 UTC; the first counts.
    assert_eq!(nightly.next(&zone, utc(2026, 10, 24, 12, 0)), Some(utc(2026, 10, 25, 0, 30)));
    assert_eq!(nightly.next(&zone, utc(2026, 10, 25, 0, 30)), Some(utc(2026, 10, 26, 1, 30)));
    // Seen from within the hour that comes again.
    assert_eq!(nightly.next(&zone, utc(2026, 10, 25, 1, 10)), Some(utc(2026, 10, 26, 1, 30)));
    // By the hour: neither a hole nor a double.
    let hourly = cron("@hourly", Timestamp::EARLIEST);
    assert_eq!(starts(&hourly, &zone, utc(2026, 10, 24, 22, 0), utc(2026, 10, 25, 22, 0)).len(), 24);
    assert_eq!(starts(&hourly, &zone, utc(2026, 3, 28, 22, 0), utc(2026, 3, 29, 22, 0)).len(), 24);
}

#[test]
fn the_day_that_never_was_is_made_up_for_once() {
    let zone = date_line();
    let found = starts(
        &cron("0 6 * * *", Timestamp::EARLIEST),
        &zone,
        utc(2026, 12, 29, 0, 0),
        utc(2027, 1, 1, 0, 0),
    );
    assert_eq!(
        found,
        [
            utc(2026, 12, 29, 16, 0),
            utc(2026, 12, 30, 10, 0),
            utc(2026, 12, 30, 16, 0),
            utc(2026, 12, 31, 16, 0)
        ]
    );
}

#[test]
fn an_interval_in_days_keeps_the_time_of_day() {
    let zone = berlin();
    let daily = every(0, 1, 0, utc(2026, 3, 27, 1, 30));
    let found = starts(&daily, &zone, utc(2026, 3, 27, 0, 0), utc(2026, 3, 31, 0, 0));
    assert_eq!(
        found,
        [utc(2026, 3, 27, 1, 30), utc(2026, 3, 28, 1, 30), utc(2026, 3, 29, 1, 0), utc(2026, 3, 30, 0, 30)]
    );
    let monthly = every(1, 0, 0, utc(2026, 1, 31, 12, 0));
    let found = starts(&monthly, &Utc, utc(2026, 1, 1, 0, 0), utc(2026, 6, 1, 0, 0));
    assert_eq!(
        found,
        [(1, 31), (2, 28), (3, 31), (4, 30), (5, 31)].map(|(month, day)| utc(2026, month, day, 12, 0))
    );
}

#[test]
fn a_start_long_ago_is_no_burden() {
    let second = every(0, 0, MICROS_PER_SECOND, Timestamp(0));
    let now = utc(2026, 11, 21, 12, 0);
    assert_eq!(second.next(&Utc, now), Some(Timestamp(now.0 + MICROS_PER_SECOND)));
    assert_eq!(every(1, 1, 1, Timestamp::EARLIEST).next(&Utc, Timestamp(Timestamp::RANGE_END.0 - 1)), None);
}

#[test]
fn a_failed_start_is_repeated_later_and_later() {
    let schedule = every(0, 1, 0, utc(2026, 1, 1, 0, 0));
    let retries = Retries { most: 3, delay: MICROS_PER_MINUTE };
    let failure = || Failure { sqlstate: "22012".into(), message: "division by zero".into() };
    let now = utc(2026, 1, 5, 12, 0);
    let after = |outcome: Outcome, failures| {
        let next = next_start(&schedule, &Utc, retries, &outcome, failures, now).unwrap();
        (next.0 - now.0) / MICROS_PER_MINUTE
    };
    assert_eq!(
        [1, 2, 3, 4, 400].map(|failures| after(Outcome::Failed(failure()), failures)),
        [1, 2, 4, 720, 720]
    );
    assert_eq!(after(Outcome::Succeeded, 0), 720);
    assert_eq!(after(Outcome::Interrupted, 2), 2);
    assert_eq!(after(Outcome::TimedOut(failure()), 3), 4);
    assert_eq!(after(Outcome::Deferred(failure()), 0), 1);
    assert_eq!(after(Outcome::Cancelled(failure()), 0), 1);
    // At most an hour, and never later than planned.
    assert_eq!(Retries { most: 99, delay: MICROS_PER_MINUTE }.delay_after(98), Some(MICROS_PER_HOUR));
    let often = every(0, 0, 10 * MICROS_PER_SECOND, utc(2026, 1, 1, 0, 0));
    let next = next_start(&often, &Utc, retries, &Outcome::Failed(failure()), 1, now);
    assert_eq!(next, Some(Timestamp(now.0 + 10 * MICROS_PER_SECOND)));
}

fn any_expression() -> impl Strategy<Value = String> {
    let minute = prop_oneof![
        "[0-9]",
        "[1-5][0-9]",
        Just("*".to_owned()),
        Just("*/13".to_owned()),
        Just("5,35".to_owned())
    ];
    let hour =
        prop_oneof!["[0-9]", "1[0-9]", Just("*".to_owned()), Just("*/5".to_owned()), Just("1-3".to_owned())];
    let day = prop_oneof![3 => Just("*".to_owned()), 1 => "[1-9]", 1 => Just("L".to_owned()), 1 => Just("*/3".to_owned())];
    let month =
        prop_oneof![3 => Just("*".to_owned()), 1 => Just("3,10".to_owned()), 1 => Just("mar-nov".to_owned())];
    let weekday =
        prop_oneof![3 => Just("*".to_owned()), 1 => Just("sun".to_owned()), 1 => Just("1-5".to_owned())];
    (minute, hour, day, month, weekday)
        .prop_map(|(minute, hour, day, month, weekday)| format!("{minute} {hour} {day} {month} {weekday}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// The next start does not depend on when one asks, as long as none lies between.
    #[test]
    fn the_next_start_is_the_next_whenever_asked(
        expression in any_expression(), zone in 0..7_usize, minute in 0..(5 * 366 * 1440_i64), part in 0.0..1.0_f64,
    ) {
        let zone = &zones()[zone].1;
        let schedule = cron(&expression, Timestamp::EARLIEST);
        let after = Timestamp(utc(2026, 1, 1, 0, 0).0 + minute * MICROS_PER_MINUTE + 17);
        let next = schedule.next(zone, after).unwrap();
        prop_assert!(next > after);
        let between = Timestamp(after.0 + ((next.0 - 1 - after.0) as f64 * part) as i64);
        prop_assert_eq!(schedule.next(zone, between), Some(next));
        prop_assert!(schedule.next(zone, next).unwrap() > next);
    }

    #[test]
    fn an_interval_loses_and_doubles_nothing(
        months in 0..3_i32, days in 0..10_i32, hours in 0..50_i64, zone in 0..7_usize,
        origin in 0..(2000 * 1440_i64), later in 0..(2000 * 1440_i64),
    ) {
        prop_assume!(months > 0 || days > 0 || hours > 0);
        let zone = &zones()[zone].1;
        let origin = Timestamp(utc(2025, 1, 1, 0, 0).0 + origin * MICROS_PER_MINUTE);
        let schedule = every(months, days, hours * MICROS_PER_HOUR, origin);
        let after = Timestamp(origin.0 + later * MICROS_PER_MINUTE);
        let next = schedule.next(zone, after).unwrap();
        prop_assert!(next > after);
        // None between: asked from any start before, the way leads through `next`.
        let mut at = Timestamp(origin.0 - 1);
        while at < next {
            at = schedule.next(zone, at).unwrap();
        }
        prop_assert_eq!(at, next);
    }

    /// Jitter moves each start by less than told, always alike, and changes neither their number nor their order.
    #[test]
    fn jitter_keeps_number_and_order(job in 1..1000_i64, jitter in 0..(90 * 60_i64), expression in any_expression()) {
        let origin = utc(2026, 3, 1, 0, 0);
        let recurrence = || Recurrence::Cron(Box::new(Cron::parse(&expression).unwrap()));
        let plain = Schedule::new(recurrence(), origin, 0, job);
        let moved = Schedule::new(recurrence(), origin, jitter * MICROS_PER_SECOND, job);
        let mut at = (Timestamp(origin.0 - 1), Timestamp(origin.0 - 1));
        for _ in 0..20 {
            at = (plain.next(&Utc, at.0).unwrap(), moved.next(&Utc, at.1).unwrap());
            let following = plain.next(&Utc, at.0).unwrap();
            prop_assert!(at.1 >= at.0 && at.1 < following);
            prop_assert!(at.1.0 - at.0.0 < (jitter * MICROS_PER_SECOND).max(1));
        }
    }

    #[test]
    fn reading_an_expression_never_panics(text in "\\PC{0,30}") {
        let _ = Cron::is_meant_by(&text);
        let _ = Cron::parse(&text);
    }
}

#[test]
fn expressions_that_are_read() {
    let from = utc(2026, 11, 21, 12, 0);
    for (expression, next) in [
        ("*/15 * * * *", utc(2026, 11, 21, 12, 15)),
        ("5,10-12 13 * * *", utc(2026, 11, 21, 13, 5)),
        ("0 2 * * *", utc(2026, 11, 22, 2, 0)),
        ("0 3 * * 0", utc(2026, 11, 22, 3, 0)),
        ("0 3 * * 7", utc(2026, 11, 22, 3, 0)),
        ("0 3 * * Mon-Fri", utc(2026, 11, 23, 3, 0)),
        ("0 4 1 * *", utc(2026, 12, 1, 4, 0)),
        ("0 4 1 jan,jul *", utc(2027, 1, 1, 4, 0)),
        ("0 0 L * *", utc(2026, 11, 30, 0, 0)),
        ("0 0 $ * *", utc(2026, 11, 30, 0, 0)),
        ("0 0 * * 5L", utc(2026, 11, 27, 0, 0)),
        ("0 0 * * TUE#1", utc(2026, 12, 1, 0, 0)),
        ("0 0 29 2 *", utc(2028, 2, 29, 0, 0)),
        // One of both days is enough; with a star in front of one both must fit.
        ("0 0 13 * 5", utc(2026, 11, 27, 0, 0)),
        ("0 0 */2 * 1", utc(2026, 11, 23, 0, 0)),
        ("0 0 */7 * 1", utc(2027, 2, 1, 0, 0)),
        ("@daily", utc(2026, 11, 22, 0, 0)),
        ("@Midnight", utc(2026, 11, 22, 0, 0)),
        ("@weekly", utc(2026, 11, 22, 0, 0)),
        ("@monthly", utc(2026, 12, 1, 0, 0)),
        ("@yearly", utc(2027, 1, 1, 0, 0)),
        ("@hourly", utc(2026, 11, 21, 13, 0)),
        ("  0  2 * *  * ", utc(2026, 11, 22, 2, 0)),
    ] {
        assert!(Cron::is_meant_by(expression), "{expression}");
        let found = cron(expression, Timestamp::EARLIEST).next(&Utc, from).unwrap();
        assert_eq!(found.to_utc_literal(), next.to_utc_literal(), "{expression}");
    }
}

#[test]
fn expressions_that_are_refused() {
    for (expression, reason) in [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("0 0 2 * * *", "6 fields"),
        ("60 * * * *", "out of bounds"),
        ("* 24 * * *", "out of bounds"),
        ("* * 0 * *", "out of bounds"),
        ("* * * 13 *", "out of bounds"),
        ("* * * * 8", "out of bounds"),
        ("*/0 * * * *", "step"),
        ("5-1 * * * *", "range"),
        ("* * * MON *", "\"MON\" is not known in field 4"),
        ("* * * * JAN", "\"JAN\" is not known in field 5"),
        ("* * * * monday", "\"MONDAY\" is not known in field 5"),
        ("* L * * *", "\"L\" is not known in field 2"),
        ("@reboot", "no known nickname"),
        ("0 0 30 2 *", "no day that exists"),
        ("0 0 31 4,6 *", "no day that exists"),
    ] {
        let error = Cron::parse(expression).err().unwrap_or_else(|| panic!("{expression} was read"));
        assert!(error.to_string().contains(reason), "{expression}: {error}");
        assert!(!error.hint().is_empty());
    }
}

#[test]
fn intervals_are_told_from_expressions() {
    for interval in [
        "1 hour",
        "10 seconds",
        "1 year 2 mons 04:05:06",
        "1 day 02:00:00",
        "PT5M",
        "01:00",
        "3 days 4 hours 5 minutes",
    ] {
        assert!(!Cron::is_meant_by(interval), "{interval}");
    }
    for expression in ["* * * *", "0 2 * * *", "@daily", "@reboot", "0 0 0 2 * *"] {
        assert!(Cron::is_meant_by(expression), "{expression}");
    }
    for (months, days, micros) in [(0, 0, 0), (0, 0, 999_999), (-1, 0, 0), (1, -1, 0), (0, 1, -1)] {
        assert!(Every::new(months, days, micros).is_err());
    }
    assert!(Cron::parse("0 2 * * *").unwrap().describe().contains("02:00"));
}
