//! Laws of the calendar and of times of day.

#![allow(clippy::unwrap_used)]

use iot_core::time::{CivilDate, MICROS_PER_DAY, MICROS_PER_MINUTE, TimeOfDay, Timestamp};
use proptest::prelude::*;

fn time_of_day() -> impl Strategy<Value = TimeOfDay> {
    (0..=MICROS_PER_DAY).prop_map(TimeOfDay)
}

proptest! {
    #[test]
    fn dates_there_and_back(micros in Timestamp::EARLIEST.0..Timestamp::RANGE_END.0) {
        let at = Timestamp(micros);
        let CivilDate { year, month, day } = at.utc_civil();
        let midnight = Timestamp::from_utc_civil(year, month, day).unwrap();
        prop_assert_eq!(midnight.checked_add(at.utc_time_of_day().0), Some(at));
        prop_assert!((0..MICROS_PER_DAY).contains(&at.utc_time_of_day().0));
    }

    #[test]
    fn no_timestamp_panics(micros in any::<i64>(), added in any::<i64>(), year: i32, month: u32, day: u32) {
        let at = Timestamp(micros);
        prop_assert!(!at.to_utc_literal().is_empty());
        let _ = at.checked_add(added);
        let _ = Timestamp::from_utc_civil(year, month, day);
    }

    #[test]
    fn times_of_day_read_back(time in time_of_day()) {
        prop_assert_eq!(TimeOfDay::parse(&time.to_string()), Some(time));
    }

    #[test]
    fn no_text_panics(text in "[0-9:.]{0,16}|\\PC{0,12}") {
        if let Some(time) = TimeOfDay::parse(&text) {
            prop_assert!((0..=MICROS_PER_DAY).contains(&time.0));
        }
    }

    /// Walks a clock from the start, minute by minute, and sees whether it passes the time before the end.
    #[test]
    fn windows_against_a_walking_clock(start in 0..1440_i64, end in 0..1440_i64, at in 0..1440_i64) {
        let mut clock = start;
        let mut passed = clock == at;
        while clock != end {
            clock = (clock + 1) % 1440;
            passed |= clock == at;
        }
        let [start, end, at] = [start, end, at].map(|minute| TimeOfDay(minute * MICROS_PER_MINUTE));
        prop_assert_eq!(at.is_within(start, end), passed);
    }

    /// Beyond the ends, the window from `start` to `end` and the one from `end` to `start` share out the day.
    #[test]
    fn a_window_and_its_reverse_cover_the_day(times in [time_of_day(), time_of_day(), time_of_day()]) {
        let [start, end, at] = times;
        prop_assume!(start != end && at != start && at != end);
        prop_assert_ne!(at.is_within(start, end), at.is_within(end, start));
    }
}
