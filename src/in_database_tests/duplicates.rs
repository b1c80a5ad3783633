//! Readings of the same sensor and time, under each policy and over each road.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::datum::Uuid;
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, factory, one, process, rule};

    const AT: &str = "'2026-01-05 12:00+00'";

    fn choose(policy: &str) -> Uuid {
        let (_, sensor) = factory();
        Spi::run(&format!("SELECT iot.setup(duplicates => '{policy}')")).unwrap();
        sensor
    }

    fn arrays(sensor: Uuid, readings: &[(i64, f64)]) -> String {
        let list = |each: fn(&(i64, f64)) -> String| readings.iter().map(each).collect::<Vec<_>>().join(", ");
        let times = list(|(second, _)| format!("timestamptz {AT} + interval '{second} seconds'"));
        let sensors = format!("array_fill('{sensor}'::uuid, ARRAY[{}])", readings.len());
        let values = list(|(_, value)| value.to_string());
        format!("{sensors}, ARRAY[{times}], ARRAY[{values}]::float8[]")
    }

    /// Offers (second, value) as one batch of arrays; the totals.
    fn offer(sensor: Uuid, readings: &[(i64, f64)]) -> String {
        let arguments = arrays(sensor, readings);
        one(&format!("SELECT concat_ws(' ', accepted, rejected, duplicates) FROM iot.ingest({arguments})"))
    }

    /// As [`offer`], over the stream road.
    fn stream(sensor: Uuid, readings: &[(i64, f64)]) {
        let arguments = arrays(sensor, readings);
        Spi::run(&format!(
            "INSERT INTO iot.readings (sensor_id, measurement_timestamp, measurement_value)
             SELECT * FROM unnest({arguments})"
        ))
        .unwrap();
    }

    fn stored() -> String {
        one("SELECT coalesce(string_agg(
                        concat(extract(second FROM measurement_timestamp)::integer, '=', measurement_value,
                               CASE WHEN quality_flags & 32 <> 0 THEN '*' END),
                        ' ' ORDER BY measurement_timestamp, data_id), '')
               FROM iot.sensor_data")
    }

    /// Makes the engine go through the executor.
    fn add_trigger_of_the_user() {
        Spi::run(
            "CREATE FUNCTION public.look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
             CREATE TRIGGER look BEFORE INSERT ON iot.sensor_data FOR EACH ROW EXECUTE FUNCTION public.look()",
        )
        .unwrap();
    }

    const BATCH: &[(i64, f64)] = &[(0, 1.0), (1, 2.0), (0, 3.0), (2, 4.0), (1, 5.0), (0, 6.0)];

    #[pg_test]
    fn first_keeps_the_first_and_replays_change_nothing() {
        let sensor = choose("first");
        for totals in ["3 0 3", "0 0 6", "0 0 6"] {
            assert_eq!(offer(sensor, BATCH), totals);
            assert_eq!(stored(), "0=1 1=2 2=4");
        }
        stream(sensor, &[(2, 9.0), (3, 7.0)]);
        assert_eq!(stored(), "0=1 1=2 2=4 3=7");
    }

    #[pg_test]
    fn last_keeps_the_last_of_a_batch_and_replaces_what_is_stored() {
        let sensor = choose("last");
        for totals in ["3 0 3", "0 0 6", "0 0 6"] {
            assert_eq!(offer(sensor, BATCH), totals);
            assert_eq!(stored(), "0=6 1=5 2=4");
        }
        assert_eq!(offer(sensor, &[(3, 7.0), (2, 8.0), (2, 9.0), (3, 8.0)]), "1 0 3");
        assert_eq!(stored(), "0=6 1=5 2=9 3=8");
        stream(sensor, &[(0, 1.0), (4, 2.0), (4, 3.0)]);
        assert_eq!(stored(), "0=1 1=5 2=9 3=8 4=3");
    }

    #[pg_test]
    fn last_goes_through_the_executor_as_well() {
        let sensor = choose("last");
        add_trigger_of_the_user();
        for totals in ["3 0 3", "0 0 6"] {
            assert_eq!(offer(sensor, BATCH), totals);
            assert_eq!(stored(), "0=6 1=5 2=4");
        }
    }

    #[pg_test]
    fn what_replaces_a_reading_keeps_its_key_and_brings_everything_else() {
        let sensor = choose("last");
        let first = process(sensor, "1", AT);
        let said: String = one(&format!(
            "SELECT concat_ws(' ', data_id = '{first}', is_duplicate, measurement_value)
               FROM iot.process_sensor_data_ex('{sensor}', 201, '{{\"try\": 2}}', {AT})"
        ));
        assert_eq!(said, "t t 201");
        let row: String = one(
            "SELECT concat_ws(' ', data_id, measurement_value, data_quality, measurement_metadata) FROM iot.sensor_data",
        );
        assert_eq!(row, format!("{first} 201 invalid {{\"try\": 2}}"));
        assert_eq!(process(sensor, "7", AT), first);
    }

    #[pg_test]
    fn what_was_replaced_is_not_in_the_window() {
        let sensor = choose("last");
        assert_eq!(offer(sensor, &[(0, 10.0), (1, 100.0)]), "2 0 0");
        assert_eq!(offer(sensor, &[(1, 14.0)]), "0 0 1");
        process(sensor, "12", "'2026-01-05 12:00:02+00'");
        let score: f64 = one("SELECT anomaly_score FROM iot.sensor_data WHERE measurement_value = 12");
        assert_eq!(score, 0.0, "12 is the mean of 10 and 14");
    }

    #[pg_test]
    fn rules_look_at_the_replacing_value() {
        let sensor = choose("last");
        rule("sensor_type='temperature'", "{\"threshold_high\": 80}");
        let first = process(sensor, "20", AT);
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.alerts"), 0);
        process(sensor, "90", AT);
        let alert: String = one("SELECT concat_ws(' ', data_id, actual_value) FROM iot.alerts");
        assert_eq!(alert, format!("{first} 90"));
    }

    #[pg_test]
    fn readings_without_a_time_replace_nothing() {
        let sensor = choose("last");
        Spi::run(&format!(
            "SELECT * FROM iot.ingest(array_fill('{sensor}'::uuid, ARRAY[300]), array_fill(NULL::timestamptz, ARRAY[300]),
                                      ARRAY(SELECT generate_series(1, 300)::float8))"
        ))
        .unwrap();
        assert_eq!(one::<i64>("SELECT count(DISTINCT measurement_value) FROM iot.sensor_data"), 300);
    }

    #[pg_test]
    fn both_keeps_all_and_flags_the_later_ones() {
        let sensor = choose("both");
        assert_eq!(offer(sensor, BATCH), "6 0 0");
        assert_eq!(stored(), "0=1 0=3* 0=6* 1=2 1=5* 2=4");
        assert_eq!(offer(sensor, &[(2, 7.0), (3, 8.0)]), "2 0 0");
        assert_eq!(stored(), "0=1 0=3* 0=6* 1=2 1=5* 2=4 2=7* 3=8");
        stream(sensor, &[(3, 9.0)]);
        let said: String = one(&format!(
            "SELECT concat_ws(' ', is_duplicate, data_quality, quality_reasons)
               FROM iot.process_sensor_data_ex('{sensor}', 5, measurement_timestamp => {AT})"
        ));
        assert_eq!(said, "f suspect {duplicate}");
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.sensor_data WHERE quality_flags & 32 <> 0"), 6);
    }

    #[pg_test]
    fn both_goes_through_the_executor_as_well() {
        let sensor = choose("both");
        add_trigger_of_the_user();
        assert_eq!(offer(sensor, BATCH), "6 0 0");
        assert_eq!(offer(sensor, &[(2, 7.0)]), "1 0 0");
        assert_eq!(stored(), "0=1 0=3* 0=6* 1=2 1=5* 2=4 2=7*");
    }

    #[pg_test]
    fn whether_times_are_shared_is_chosen_while_there_are_no_readings() {
        let sensor = choose("first");
        process(sensor, "1", AT);
        assert_fails("SELECT iot.setup(duplicates => 'both')", "55000", "has readings", "empty");
        Spi::run("SELECT iot.setup(duplicates => 'last')").unwrap();
        assert_eq!(
            one::<String>(
                "SELECT duplicates FROM iot.partition_settings WHERE parent = 'iot.sensor_data'::regclass"
            ),
            "last"
        );
        Spi::run("TRUNCATE iot.sensor_data; SELECT iot.setup(duplicates => 'both'); SELECT iot.setup()")
            .unwrap();
        assert_eq!(
            one::<String>(
                "SELECT duplicates FROM iot.partition_settings WHERE parent = 'iot.sensor_data'::regclass"
            ),
            "both"
        );
        process(sensor, "1", AT);
        process(sensor, "2", AT);
        let identities = "SELECT string_agg(DISTINCT c.relreplident::text, '')
                            FROM pg_partition_tree('iot.sensor_data') t JOIN pg_class c ON c.oid = t.relid";
        assert_eq!(one::<String>(identities), "f", "of partitions made before and after");
        for policy in ["first", "last"] {
            let back = format!("SELECT iot.setup(duplicates => '{policy}')");
            assert_fails(&back, "55000", "has readings", "empty");
        }
        Spi::run("TRUNCATE iot.sensor_data; SELECT iot.setup(duplicates => 'first')").unwrap();
        assert_eq!(one::<String>(identities), "d");
        assert_eq!(process(sensor, "1", AT), process(sensor, "2", AT));
        assert_eq!(
            one::<String>(
                "SELECT pg_get_constraintdef(oid) FROM pg_constraint
                            WHERE conrelid = 'iot.sensor_data'::regclass AND contype = 'p'"
            ),
            "PRIMARY KEY (sensor_id, measurement_timestamp)"
        );
        assert!(one::<bool>("SELECT to_regclass('iot.idx_sensor_data_sensor_time') IS NULL"));
    }

    #[pg_test]
    fn unknown_policies_are_refused() {
        factory();
        assert_fails("SELECT iot.setup(duplicates => 'newest')", "22023", "newest", "first, last, both");
    }

    #[pg_test]
    fn recalibration_keeps_readings_of_one_time_apart() {
        let sensor = choose("both");
        assert_eq!(offer(sensor, &[(0, 1.0), (0, 2.0), (0, 3.0)]), "3 0 0");
        Spi::run("UPDATE iot.sensor_calibrations SET calibration_data = '{\"multiplier\": 2}'").unwrap();
        Spi::run(&format!(
            "SELECT * FROM iot.recalibrate_batch('{sensor}', 'infinity',
                    iot.begin_recalibration('{sensor}', '-infinity', 'infinity', true), '-infinity', 0, 0, NULL, NULL, NULL)"
        ))
        .unwrap();
        let changed: i64 = one(&format!(
            "WITH run AS (INSERT INTO iot.recalibrations (sensor_id, range_start, range_end)
                          VALUES ('{sensor}', '-infinity', 'infinity') RETURNING recalibration_id)
             SELECT b.rows_changed FROM run, iot.recalibrate_batch('{sensor}', 'infinity', run.recalibration_id,
                    '-infinity', 0, 0, NULL, NULL, NULL) b"
        ));
        assert_eq!(changed, 3);
        assert_eq!(stored(), "0=2 0=4* 0=6*");
    }
}
