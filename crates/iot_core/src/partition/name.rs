//! Names of partitions.

use super::{PartitionInterval, PartitionRange};
use crate::time::{CivilDate, MICROS_PER_HOUR, MICROS_PER_MINUTE, MICROS_PER_SECOND};

/// Longest name in PostgreSQL, in bytes (NAMEDATALEN − 1).
const MAXIMUM_NAME_LENGTH: usize = 63;

/// The name of the partition of `parent` for `range`: the parent's name and the start of the range in UTC.
///
/// `sensor_data_2026` for years, `_2026_q4` for quarters, `_2026_11` for months, `_2026_11_19` for weeks and days,
/// `_2026_11_19_07` for hours. A range that starts inside its year, quarter, month, day or hour takes as many more fields
/// as its start needs, so that no two ranges share a name. The parent's name is cut, between characters, to fit 63 bytes.
pub fn partition_name(parent: &str, interval: PartitionInterval, range: PartitionRange) -> String {
    let suffix = suffix(interval, range);
    let room = MAXIMUM_NAME_LENGTH.saturating_sub(suffix.len());
    format!("{}{suffix}", &parent[..parent.floor_char_boundary(room)])
}

/// The name of a sub-partition, from that of its partition and what tells it from the others: the letters and digits of
/// its value, or its number. Cut as [`partition_name`] is.
pub fn subpartition_name(partition: &str, value: &str) -> String {
    let mut suffix = String::from("_");
    for letter in value.chars() {
        suffix.push(if letter.is_alphanumeric() { letter.to_ascii_lowercase() } else { '_' });
        if suffix.len() > MAXIMUM_NAME_LENGTH / 2 {
            suffix.pop();
            break;
        }
    }
    let room = MAXIMUM_NAME_LENGTH.saturating_sub(suffix.len());
    format!("{}{suffix}", &partition[..partition.floor_char_boundary(room)])
}

/// What tells an index of a tier from the others: the same for definitions that differ only in white space.
pub fn index_key(definition: &str) -> String {
    let words = definition.split_whitespace();
    // FNV-1a: short, and the same for ever; the key is a part of names that dumps carry on.
    let hash = words
        .flat_map(|word| word.bytes().chain([b' ']))
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("tier_{hash:08x}")
}

/// The name of the index with that key on a partition. Cut as [`partition_name`] is.
pub fn index_name(partition: &str, key: &str) -> String {
    let room = MAXIMUM_NAME_LENGTH.saturating_sub(key.len() + 1);
    format!("{}_{key}", &partition[..partition.floor_char_boundary(room)])
}

/// `name` itself, then `name_1`, `name_2` …, within 63 bytes.
pub fn numbered_name(name: &str, attempt: u32) -> String {
    if attempt == 0 {
        return name.to_owned();
    }
    let suffix = format!("_{attempt}");
    let end = name.floor_char_boundary(name.len().min(MAXIMUM_NAME_LENGTH - suffix.len()));
    format!("{}{suffix}", &name[..end])
}

fn suffix(interval: PartitionInterval, range: PartitionRange) -> String {
    let CivilDate { year, month, day } = range.start.utc_civil();
    let time = range.start.utc_time_of_day().0;
    let starts_month = day == 1 && time == 0;
    match interval {
        PartitionInterval::Year if starts_month && month == 1 => return format!("_{year:04}"),
        PartitionInterval::Quarter if starts_month && month % 3 == 1 => {
            return format!("_{year:04}_q{}", month / 3 + 1);
        }
        _ => {}
    }
    let mut suffix = format!("_{year:04}_{month:02}");
    let is_short =
        matches!(interval, PartitionInterval::Hour | PartitionInterval::Day | PartitionInterval::Week);
    if is_short || !starts_month {
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
        let first = |month| PartitionRange {
            start: Timestamp::from_utc_civil(2026, month, 1).unwrap(),
            end: Timestamp::INFINITY,
        };
        for (interval, month, expected) in [
            (PartitionInterval::Year, 1, "sensor_data_2026"),
            (PartitionInterval::Year, 4, "sensor_data_2026_04"),
            (PartitionInterval::Quarter, 1, "sensor_data_2026_q1"),
            (PartitionInterval::Quarter, 10, "sensor_data_2026_q4"),
            (PartitionInterval::Quarter, 11, "sensor_data_2026_11"),
        ] {
            assert_eq!(partition_name("sensor_data", interval, first(month)), expected);
        }
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

    #[test]
    fn subpartitions_are_called_by_their_value() {
        assert_eq!(
            subpartition_name("readings_2026_11", "Temperature (°C)"),
            "readings_2026_11_temperature___c_"
        );
        assert_eq!(subpartition_name("readings_2026_11", "3"), "readings_2026_11_3");
        assert!(subpartition_name(&"x".repeat(63), &"é".repeat(63)).len() <= 63);
        assert_eq!(subpartition_name(&"x".repeat(63), "ab"), format!("{}_ab", "x".repeat(60)));
    }

    #[test]
    fn indexes_of_tiers_are_known_by_their_names() {
        let key = index_key("(device_id,  at DESC)\n");
        assert_eq!(key, index_key("(device_id, at DESC)"));
        assert_ne!(key, index_key("(device_id, at)"));
        assert_eq!((key.len(), index_key("").as_str()), (13, "tier_811c9dc5"));
        assert_eq!(index_name("a_2026_11", &key), format!("a_2026_11_{key}"));
        assert_eq!(index_name(&"x".repeat(63), &key).len(), 63);
    }

    #[test]
    fn taken_names_are_numbered() {
        assert_eq!(numbered_name("a_2026", 0), "a_2026");
        assert_eq!(numbered_name("a_2026", 12), "a_2026_12");
        assert_eq!(numbered_name(&"x".repeat(63), 1), format!("{}_1", "x".repeat(61)));
    }
}
