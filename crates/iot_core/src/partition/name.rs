//! Names of partitions.

use super::{PartitionInterval, PartitionRange};
use crate::time::{CivilDate, MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND};

/// Longest name in PostgreSQL, in bytes (NAMEDATALEN − 1).
const MAXIMUM_NAME_LENGTH: usize = 63;

/// The name of the partition of `parent` for `range`: the parent's name and the start of the range in UTC.
///
/// `sensor_data_2026_11` for months, `_2026_11_19` for weeks and days, `_2026_11_19_07` for hours. A range
/// that starts inside its month, day or hour takes as many more fields as its start needs, so that no two
/// ranges share a name. The parent's name is cut, between characters, to fit 63 bytes.
pub fn partition_name(parent: &str, interval: PartitionInterval, range: PartitionRange) -> String {
    let suffix = suffix(interval, range);
    let room = MAXIMUM_NAME_LENGTH.saturating_sub(suffix.len());
    format!("{}{suffix}", &parent[..parent.floor_char_boundary(room)])
}

fn suffix(interval: PartitionInterval, range: PartitionRange) -> String {
    let CivilDate { year, month, day } = range.start.utc_civil();
    let time = range.start.utc_time_of_day().0;
    let mut suffix = format!("_{year:04}_{month:02}");
    if interval != PartitionInterval::Month || day != 1 || time != 0 {
        suffix += &format!("_{day:02}");
    }
    if interval == PartitionInterval::Hour || time != 0 {
        suffix += &format!("_{:02}", time / MICROS_PER_HOUR);
    }
    for (unit, smaller, width) in [
        (MICROS_PER_HOUR, MICROS_PER_MINUTE, 2),
        (MICROS_PER_MINUTE, MICROS_PER_SECOND, 2),
        (MICROS_PER_SECOND, 1, 6),
    ] {
        if time % unit != 0 {
            suffix += &format!("_{:0width$}", time % unit / smaller);
        }
    }
    suffix
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn name(interval: PartitionInterval, micros_after_midnight: i64) -> String {
        let start = Timestamp(Timestamp::from_utc_civil(2026, 11, 19).unwrap().0 + micros_after_midnight);
        partition_name("sensor_data", interval, PartitionRange { start, end: Timestamp::INFINITY })
    }

    #[test]
    fn the_usual_names() {
        let start = Timestamp::from_utc_civil(2026, 11, 1).unwrap();
        let november = PartitionRange { start, end: Timestamp::INFINITY };
        for (interval, expected) in [
            (PartitionInterval::Month, "sensor_data_2026_11"),
            (PartitionInterval::Week, "sensor_data_2026_11_01"),
            (PartitionInterval::Day, "sensor_data_2026_11_01"),
            (PartitionInterval::Hour, "sensor_data_2026_11_01_00"),
        ] {
            assert_eq!(partition_name("sensor_data", interval, november), expected);
        }
        assert_eq!(name(PartitionInterval::Day, 0), "sensor_data_2026_11_19");
        assert_eq!(name(PartitionInterval::Hour, 7 * MICROS_PER_HOUR), "sensor_data_2026_11_19_07");
    }

    #[test]
    fn ranges_that_were_cut_take_finer_names() {
        assert_eq!(name(PartitionInterval::Month, 0), "sensor_data_2026_11_19");
        assert_eq!(name(PartitionInterval::Month, 7 * MICROS_PER_HOUR), "sensor_data_2026_11_19_07");
        assert_eq!(name(PartitionInterval::Day, 7 * MICROS_PER_HOUR), "sensor_data_2026_11_19_07");
        assert_eq!(name(PartitionInterval::Hour, 30 * MICROS_PER_MINUTE), "sensor_data_2026_11_19_00_30");
        assert_eq!(name(PartitionInterval::Week, 5 * MICROS_PER_SECOND), "sensor_data_2026_11_19_00_00_05");
        assert_eq!(name(PartitionInterval::Day, 1), "sensor_data_2026_11_19_00_00_00_000001");
    }

    #[test]
    fn no_hour_of_the_first_day_looks_like_a_day() {
        let first = Timestamp::from_utc_civil(2026, 11, 1).unwrap();
        let seven =
            PartitionRange { start: Timestamp(first.0 + 7 * MICROS_PER_HOUR), end: Timestamp::INFINITY };
        let name = partition_name("sensor_data", PartitionInterval::Month, seven);
        assert_eq!(name, "sensor_data_2026_11_01_07");
    }

    #[test]
    fn long_parents_are_cut_between_characters() {
        let start = Timestamp::from_utc_civil(2026, 11, 1).unwrap();
        let november = PartitionRange { start, end: Timestamp::INFINITY };
        let cut = partition_name(&"x".repeat(63), PartitionInterval::Month, november);
        assert_eq!(cut, format!("{}_2026_11", "x".repeat(55)));
        let cut = partition_name(&"é".repeat(31), PartitionInterval::Month, november);
        assert_eq!(cut, format!("{}_2026_11", "é".repeat(27)));
    }
}
