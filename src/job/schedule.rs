//! Schedules as SQL gives them: an interval or a cron expression.

use iot_core::job::{Cron, Every, Recurrence, Schedule};
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::iter::SetOfIterator;
use pgrx::pg_extern;

use crate::catalog::job::{Job, micros, zone};
use crate::error::{IotError, IotResult, OrRaise};
use crate::pg::clock;
use crate::pg::statement::{Session, with_session};
use crate::statement;

statement!(INTERVAL: (TEXTOID) "SELECT $1::pg_catalog.interval");

/// The interval that a text stands for.
///
/// # Errors
/// 22007 when it stands for none.
pub fn interval(session: &mut Session<'_>, text: &str) -> IotResult<Interval> {
    session
        .execute(&INTERVAL, &[text.into()])?
        .first()
        .ok_or_else(|| IotError::null_argument("interval"))?
        .get(1)
}

/// What `text` is: an interval such as `10 minutes`, or a cron expression.
///
/// # Errors
/// 22023 or 22007 when it is neither.
pub fn read(session: &mut Session<'_>, text: &str) -> IotResult<(Option<Interval>, Option<String>)> {
    if Cron::is_meant_by(text) {
        Cron::parse(text)?;
        return Ok((None, Some(text.trim().to_owned())));
    }
    let every = interval(session, text)?;
    Every::new(every.months(), every.days(), every.micros())?;
    Ok((Some(every), None))
}

/// Refuses delays and limits that make no sense.
///
/// # Errors
/// 22023 with the argument.
pub fn check_times(job: &Job) -> IotResult<()> {
    job.schedule()?;
    let longest_jitter = job.schedule_interval.as_ref().map_or(iot_core::time::MICROS_PER_DAY, micros);
    if micros(&job.jitter) < 0 || micros(&job.jitter) > longest_jitter {
        return Err(IotError::invalid_argument(format!(
            "jitter {} is not between 0 and the time between two starts",
            job.jitter
        ))
        .hint("Give less than the schedule's interval, and at most a day."));
    }
    if job.timeout.as_ref().is_some_and(|limit| micros(limit) < 0) {
        return Err(IotError::invalid_argument("timeout is negative")
            .hint("Give how long a run may take; 0 means no limit."));
    }
    if micros(&job.retry_delay) < 0 {
        return Err(IotError::invalid_argument(format!("retry_delay {} is negative", job.retry_delay))
            .hint("Give how long to wait before the first attempt after a failure."));
    }
    if !(0..=1000).contains(&job.max_retries) {
        return Err(IotError::invalid_argument(format!(
            "max_retries {} is not between 0 and 1000",
            job.max_retries
        ))
        .hint("Give the number of attempts after a start that failed."));
    }
    Ok(())
}

#[pg_extern(sql = false)]
fn schedule_starts(
    schedule: &str,
    time_zone: &str,
    after: TimestampWithTimeZone,
    count: i32,
) -> SetOfIterator<'static, TimestampWithTimeZone> {
    if !(1..=10_000).contains(&count) {
        IotError::invalid_argument(format!("count {count} is not between 1 and 10000"))
            .hint("Give the number of starts to show.")
            .raise();
    }
    let zone = zone(time_zone).or_raise();
    let after = clock::from_pg(after);
    let recurrence = with_session(|session| {
        Ok(match read(session, schedule)? {
            (_, Some(expression)) => Recurrence::Cron(Box::new(Cron::parse(&expression)?)),
            (every, None) => {
                let every = every.ok_or_else(|| IotError::null_argument("schedule"))?;
                Recurrence::Every(Every::new(every.months(), every.days(), every.micros())?)
            }
        })
    })
    .or_raise();
    let schedule = Schedule::new(recurrence, after, 0, 0);
    let starts = std::iter::successors(schedule.next(&zone, after), |&at| schedule.next(&zone, at));
    let starts: Vec<_> = starts.take(count.unsigned_abs() as usize).map(clock::to_pg).collect();
    SetOfIterator::new(starts)
}

#[pg_extern(sql = false)]
fn describe_cron(expression: &str) -> String {
    Cron::parse(expression).map_or_else(|_| expression.to_owned(), |cron| cron.describe())
}
