//! Cron expressions of five fields, as Vixie cron and pg_cron read them. `croner` parses them and knows which days they
//! mean; finding the next one by a zone's clocks is ours, so that zones are those of the server.

use std::fmt;

use croner::Weekday;
use croner::parser::{CronParser, Seconds, Year};

use super::ScheduleError;
use super::zone::Local;
use crate::time::{MICROS_PER_DAY, MICROS_PER_MINUTE, Timestamp};

/// Days after which the calendar has shown every combination of a day of the month, a day of the week and a leap year, also
/// around years such as 2100.
const SEARCHED_DAYS: i64 = 41 * 366;

const MINUTES_PER_HOUR: i64 = 60;
const HOURS_PER_DAY: i64 = 24;

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A cron expression.
#[derive(Clone, Debug)]
pub struct Cron {
    text: String,
    parsed: croner::Cron,
    /// Minutes of the hour, and hours of the day, that it names.
    minutes: Vec<i64>,
    hours: Vec<i64>,
}

impl Cron {
    /// Whether `text` is meant to be one, and not an interval such as `1 hour`.
    pub fn is_meant_by(text: &str) -> bool {
        let text = text.trim();
        let mut fields = text.split_whitespace();
        match fields.nth(1) {
            // `1 year 2 mons 04:05:06` has five fields, too.
            Some(second) => {
                !second.starts_with(|c: char| c.is_ascii_alphabetic() || c == ':') && fields.count() >= 2
            }
            None => text.starts_with('@'),
        }
    }

    /// Reads an expression.
    ///
    /// # Errors
    /// When it is none, or names no day that exists.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let invalid = |reason: String| ScheduleError::Cron { text: text.to_owned(), reason };
        let fields = fields(text).map_err(invalid)?;
        // As in Vixie cron: of a day of the month and a day of the week one is enough, unless one of them begins with `*`.
        let both_days = fields[2].starts_with('*') || fields[4].starts_with('*');
        let parsed = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .dom_and_dow(both_days)
            .build()
            .parse(&fields.join(" "))
            .map_err(|error| invalid(reason(&error)))?;
        let values =
            |component: &croner::CronComponent| component.values().into_iter().map(i64::from).collect();
        let cron = Self {
            text: text.trim().to_owned(),
            minutes: values(&parsed.pattern.minutes),
            hours: values(&parsed.pattern.hours),
            parsed,
        };
        if cron.next(Local(0)).is_none() {
            return Err(invalid("it names no day that exists".to_owned()));
        }
        Ok(cron)
    }

    /// In English, such as `At 02:00.`
    pub fn describe(&self) -> String {
        self.parsed.describe()
    }

    /// Whether it runs in every hour of its days. Such a schedule goes on through a change of the clocks; one that names hours
    /// has each of them once.
    pub(super) fn is_every_hour(&self) -> bool {
        self.hours.len() == HOURS_PER_DAY as usize
    }

    /// The first time not before `from` that it names.
    pub(super) fn next(&self, from: Local) -> Option<Local> {
        let first_day = from.0.div_euclid(MICROS_PER_DAY);
        let minute = from.0.rem_euclid(MICROS_PER_DAY).div_euclid(MICROS_PER_MINUTE)
            + i64::from(from.0.rem_euclid(MICROS_PER_MINUTE) != 0);
        let from_minute = |day: i64| if day == first_day { minute } else { 0 };
        (first_day..first_day + SEARCHED_DAYS)
            .filter(|day| self.has_day(*day))
            .find_map(|day| Some((day, self.minute_of_day(from_minute(day))?)))
            .and_then(|(day, minute)| {
                day.checked_mul(MICROS_PER_DAY)?.checked_add(minute * MICROS_PER_MINUTE).map(Local)
            })
    }

    fn has_day(&self, day: i64) -> bool {
        let Some(start) = day.checked_mul(MICROS_PER_DAY) else { return false };
        let date = Timestamp(start).utc_civil();
        // 2000-01-01, day 0, was a Saturday.
        let weekday = Weekday::from_days_from_sunday((day + 6).rem_euclid(7) as u32);
        let pattern = &self.parsed.pattern;
        matches!(pattern.month_match(date.month), Ok(true))
            && matches!(pattern.day_match(date.year, date.month, date.day, weekday), Ok(true))
    }

    /// The first minute of the day, not before `from`, that it names.
    fn minute_of_day(&self, from: i64) -> Option<i64> {
        let (from_hour, from_minute) = (from / MINUTES_PER_HOUR, from % MINUTES_PER_HOUR);
        self.hours.iter().filter(|hour| **hour >= from_hour).find_map(|&hour| {
            let floor = if hour == from_hour { from_minute } else { 0 };
            let minute = self.minutes.iter().find(|minute| **minute >= floor)?;
            Some(hour * MINUTES_PER_HOUR + minute)
        })
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// The five fields, in the spelling that `croner` reads.
fn fields(text: &str) -> Result<[String; 5], String> {
    let text = text.trim();
    let long = match NICKNAMES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)) {
        Some((_, long)) => long,
        None if text.starts_with('@') => return Err(format!("\"{text}\" is no known nickname")),
        None => text,
    };
    let mut fields: Vec<String> = long.split_whitespace().map(str::to_ascii_uppercase).collect();
    for (number, field) in fields.iter_mut().enumerate() {
        // What pg_cron calls the last day of the month.
        if number == 2 && field == "$" {
            "L".clone_into(field);
        }
        check_words(number, field)?;
    }
    <[String; 5]>::try_from(fields).map_err(|fields| format!("it has {} fields instead of 5", fields.len()))
}

/// Names stand in their own field only: `croner` would take MON for January in the field of months.
fn check_words(number: usize, field: &str) -> Result<(), String> {
    for word in field.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty()) {
        let is_known = match number {
            2 => ["L", "W", "LW"].contains(&word),
            3 => MONTHS.contains(&word),
            4 => word == "L" || DAYS.contains(&word.strip_suffix('L').unwrap_or(word)),
            _ => false,
        };
        if !is_known {
            return Err(format!("\"{word}\" is not known in field {}", number + 1));
        }
    }
    Ok(())
}

/// The error of `croner`, in the style of PostgreSQL.
fn reason(error: &croner::errors::CronError) -> String {
    use croner::errors::CronError::{ComponentError, IllegalCharacters, InvalidPattern};
    let text = match error {
        ComponentError(text) | IllegalCharacters(text) | InvalidPattern(text) => text.clone(),
        other => other.to_string(),
    };
    let text = text.trim_end_matches('.');
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}
