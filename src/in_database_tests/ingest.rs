//! Readings: what is stored, what is refused, calibration, duplicates.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::datum::Uuid;
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, factory, one, process};

    #[pg_test]
    fn a_reading_is_stored_with_everything_known_about_it() {
        let (device, sensor) = factory();
        let data_id: Uuid = one(&format!(
            "SELECT iot.process_sensor_data(sensor_uuid => '{sensor}', measurement_value => 21.5,
                                            measurement_metadata => '{{\"rssi\": -60}}')"
        ));
        let stored: String = one(&format!(
            "SELECT concat_ws('|', sensor_id, device_id, measurement_value, raw_value IS NULL, measurement_unit,
                              data_quality, is_anomaly, anomaly_score, measurement_metadata, sensor_type,
                              hour_bucket = date_trunc('hour', measurement_timestamp, 'UTC'),
                              received_at - measurement_timestamp < '1 second')
               FROM iot.sensor_data WHERE data_id = '{data_id}'"
        ));
        assert_eq!(
            stored,
            format!("{sensor}|{device}|21.5|t|degC|valid|f|0|{{\"rssi\": -60}}|temperature|t|t")
        );
    }

    /// Such a plan would be kept while the table grows, and read all of it for every sensor.
    #[pg_test]
    fn plans_made_while_the_tables_are_empty_follow_indexes() {
        let (device, sensor) = factory();
        Spi::run("ANALYZE iot.sensor_data; ANALYZE iot.sensor_state").unwrap();
        let scans = || {
            one::<i64>(
                "SELECT sum(seq_scan)::bigint FROM pg_stat_xact_user_tables
                  WHERE schemaname = 'iot' AND (relname LIKE 'sensor_data%' OR relname = 'sensor_state')",
            )
        };
        let before = scans();
        Spi::run(&format!(
            "INSERT INTO iot.sensors (device_id, sensor_name, sensor_type, unit_of_measure)
             SELECT '{device}', 'probe ' || n, 'temperature', 'degC' FROM generate_series(1, 20) n"
        ))
        .unwrap();
        // New sensors, then late readings.
        for minutes in [1, 2] {
            Spi::run(&format!(
                "SELECT iot.process_sensor_data(sensor_id, 1, '{{}}', now() - interval '{minutes} minutes') FROM iot.sensors"
            ))
            .unwrap();
        }
        Spi::run(&format!("SELECT iot.process_sensor_data('{sensor}', 1)")).unwrap();
        assert_eq!(scans() - before, 0);
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.sensor_data"), 43);
    }

    #[pg_test]
    fn null_metadata_counts_as_empty() {
        let (_, sensor) = factory();
        Spi::run(&format!("SELECT iot.process_sensor_data('{sensor}', 1, NULL)")).unwrap();
        assert_eq!(one::<String>("SELECT measurement_metadata::text FROM iot.sensor_data"), "{}");
    }

    #[pg_test]
    fn unknown_and_inactive_sensors_have_their_own_errors() {
        let (_, sensor) = factory();
        let unknown = "00000000-0000-0000-0000-000000000001";
        assert_fails(
            &format!("SELECT iot.process_sensor_data('{unknown}', 1)"),
            "42704",
            unknown,
            "iot.sensors",
        );
        Spi::run("UPDATE iot.sensors SET sensor_status = 'inactive'").unwrap();
        let call = format!("SELECT iot.process_sensor_data('{sensor}', 1)");
        assert_fails(&call, "55000", "is not active", "sensor_status");
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.sensor_data"), 0);
    }

    #[pg_test]
    fn values_that_are_not_numbers_are_refused() {
        let (_, sensor) = factory();
        for (value, state, message) in [
            ("'NaN'", "22003", "NaN"),
            ("'Infinity'", "22003", "inf"),
            ("'-Infinity'", "22003", "inf"),
            ("NULL", "22004", "measurement_value"),
        ] {
            assert_fails(&format!("SELECT iot.process_sensor_data('{sensor}', {value})"), state, message, "");
        }
        assert_fails("SELECT iot.process_sensor_data(NULL, 1)", "22004", "sensor_uuid", "sensor_uuid");
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.sensor_data"), 0);
    }

    #[pg_test]
    fn times_outside_the_accepted_range_are_refused() {
        let (_, sensor) = factory();
        for at in ["now() - interval '11 years'", "now() + interval '25 hours'", "'infinity'", "'-infinity'"]
        {
            let call = format!("SELECT iot.process_sensor_data('{sensor}', 1, '{{}}', {at})");
            assert_fails(&call, "22008", "", "");
        }
        Spi::run("SELECT iot.setup(retention => '20 years')").unwrap();
        process(sensor, "1", "now() - interval '11 years'");
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.sensor_data"), 1);
    }

    #[pg_test]
    fn a_reading_from_the_future_is_suspect_and_moves_no_window() {
        let (_, sensor) = factory();
        process(sensor, "10", "now() - interval '2 hours'");
        process(sensor, "12", "now() - interval '1 hour'");
        process(sensor, "500", "now() + interval '20 hours'");
        let quality: String =
            one("SELECT data_quality || ' ' || array_to_string(iot.quality_reasons(quality_flags), ',')
               FROM iot.sensor_data WHERE measurement_timestamp > now()");
        assert!(quality.starts_with("invalid "), "beyond the physical range as well: {quality}");
        assert!(quality.contains("future"), "{quality}");
        process(sensor, "11", "now()");
        let score: f64 = one("SELECT anomaly_score FROM iot.sensor_data WHERE measurement_value = 11");
        assert_eq!(score, 0.0, "the mean of 10 and 12 is 11 as long as the future 500 does not count");
    }

    #[pg_test]
    fn clock_skew_is_configurable() {
        let (_, sensor) = factory();
        process(sensor, "1", "clock_timestamp() + interval '4 minutes'");
        Spi::run("SET iot_ext.clock_skew = '1min'").unwrap();
        process(sensor, "2", "clock_timestamp() + interval '4 minutes'");
        let qualities: String =
            one("SELECT string_agg(data_quality, ',' ORDER BY measurement_value) FROM iot.sensor_data");
        assert_eq!(qualities, "valid,suspect");
    }

    #[pg_test]
    fn physical_range_makes_a_reading_invalid() {
        let (_, sensor) = factory();
        process(sensor, "200", "now() - interval '2 minutes'");
        process(sensor, "200.1", "now() - interval '1 minute'");
        let found: String = one(
            "SELECT string_agg(data_quality || array_to_string(iot.quality_reasons(quality_flags), ','), ' '
                               ORDER BY measurement_value) FROM iot.sensor_data",
        );
        assert_eq!(found, "valid invalidout_of_range");
    }

    #[pg_test]
    fn duplicates_keep_the_first_and_return_its_key() {
        let (_, sensor) = factory();
        let at = "'2026-01-05 12:00+00'";
        let first = process(sensor, "1", at);
        let second = process(sensor, "2", at);
        assert_eq!(first, second);
        assert_eq!(one::<f64>("SELECT sum(measurement_value) FROM iot.sensor_data"), 1.0);
    }

    #[pg_test]
    fn readings_without_a_time_are_never_duplicates() {
        let (_, sensor) = factory();
        Spi::run(&format!("SELECT iot.process_sensor_data('{sensor}', n) FROM generate_series(1, 500) n"))
            .unwrap();
        assert_eq!(one::<i64>("SELECT count(DISTINCT measurement_timestamp) FROM iot.sensor_data"), 500);
    }

    #[pg_test]
    fn data_ids_are_ordered_by_time() {
        let (_, sensor) = factory();
        Spi::run(&format!("SELECT iot.process_sensor_data('{sensor}', n) FROM generate_series(1, 200) n"))
            .unwrap();
        let disordered: i64 = one(
            "SELECT count(*) FROM (SELECT data_id < lag(data_id) OVER (ORDER BY measurement_value) AS back
                                     FROM iot.sensor_data) ordered WHERE back",
        );
        assert_eq!(disordered, 0);
    }

    #[pg_test]
    fn calibration_is_applied_and_the_raw_value_kept() {
        let (_, sensor) = factory();
        Spi::run("UPDATE iot.sensors SET calibration_data = '{\"multiplier\": 2, \"offset\": \"0.5\"}'")
            .unwrap();
        process(sensor, "10", "clock_timestamp()");
        let found: String = one("SELECT measurement_value || ' ' || raw_value FROM iot.sensor_data");
        assert_eq!(found, "20.5 10");
    }

    #[pg_test]
    fn outside_the_calibration_table_is_suspect() {
        let (_, sensor) = factory();
        Spi::run("UPDATE iot.sensors SET calibration_data = '{\"piecewise\": [[0, 0], [10, 20]]}'").unwrap();
        process(sensor, "5", "clock_timestamp()");
        process(sensor, "11", "clock_timestamp()");
        let found: String = one(
            "SELECT string_agg(measurement_value || data_quality, ' ' ORDER BY raw_value) FROM iot.sensor_data",
        );
        assert_eq!(found, "10valid 20suspect");
    }

    #[pg_test]
    fn the_calibration_of_the_readings_time_counts() {
        let (_, sensor) = factory();
        Spi::run("UPDATE iot.sensors SET calibration_data = '{\"multiplier\": 3}'").unwrap();
        process(sensor, "10", "now() - interval '1 day'");
        process(sensor, "10", "clock_timestamp()");
        let found: String = one(
            "SELECT string_agg(measurement_value::text, ' ' ORDER BY measurement_timestamp) FROM iot.sensor_data",
        );
        assert_eq!(found, "10 30");
    }

    #[pg_test]
    fn malformed_calibrations_are_refused_when_written() {
        factory();
        for (calibration, message) in [
            ("{\"multiplyer\": 2}", "multiplyer"),
            ("{\"multiplier\": \"two\"}", "multiplier"),
            ("{\"polynomial\": [1], \"piecewise\": [[0, 0], [1, 1]]}", "polynomial"),
            ("[1]", ""),
        ] {
            assert_fails(
                &format!("UPDATE iot.sensors SET calibration_data = '{calibration}'"),
                "22023",
                message,
                "",
            );
        }
    }

    #[pg_test]
    fn a_calibrated_value_that_overflows_is_refused() {
        let (_, sensor) = factory();
        Spi::run("UPDATE iot.sensors SET calibration_data = '{\"multiplier\": 1e300}'").unwrap();
        let call = format!("SELECT iot.process_sensor_data('{sensor}', 1e300)");
        assert_fails(&call, "22003", "", "");
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.sensor_data"), 0);
    }

    #[pg_test]
    fn a_planned_calibration_survives_a_change_of_the_current_one() {
        let (_, sensor) = factory();
        Spi::run("UPDATE iot.sensor_calibrations SET valid_to = now() + interval '10 days'").unwrap();
        Spi::run(&format!(
            "INSERT INTO iot.sensor_calibrations (sensor_id, calibration_data, valid_from, reason)
             VALUES ('{sensor}', '{{\"offset\": 9}}', now() + interval '10 days', 'planned')"
        ))
        .unwrap();
        Spi::run("UPDATE iot.sensors SET calibration_data = '{\"offset\": 0.5}'").unwrap();
        let history: String = one(
            "SELECT string_agg(calibration_data::text, ' ' ORDER BY valid_from) || ' ' ||
                    bool_and(valid_to = coalesce(next_from, 'infinity'))::text
               FROM (SELECT *, lead(valid_from) OVER (ORDER BY valid_from) AS next_from FROM iot.sensor_calibrations) c",
        );
        assert_eq!(history, "{} {\"offset\": 0.5} {\"offset\": 9} true", "and no gap between them");
    }

    #[pg_test]
    fn a_row_that_a_trigger_discards_is_not_called_a_tie() {
        let (_, sensor) = factory();
        Spi::run(
            "CREATE FUNCTION public.discard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
             CREATE TRIGGER discard BEFORE INSERT ON iot.sensor_data FOR EACH ROW EXECUTE FUNCTION public.discard()",
        )
        .unwrap();
        for time in ["", ", '{}', now()"] {
            let call = format!("SELECT iot.process_sensor_data('{sensor}', 1{time})");
            assert_fails(&call, "23505", "was not stored", "triggers");
        }
    }

    /// A trigger that discards every 13.
    fn discard_13() {
        Spi::run(
            "CREATE FUNCTION public.discard() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RETURN CASE WHEN NEW.measurement_value <> 13 THEN NEW END; END $$;
             CREATE TRIGGER discard BEFORE INSERT ON iot.sensor_data FOR EACH ROW EXECUTE FUNCTION public.discard()",
        )
        .unwrap();
    }

    fn counted() -> String {
        one("SELECT concat_ws(' ', offered, stored, duplicates, rejected) FROM iot.iot_stat_ingest")
    }

    fn what_a_trigger_discards(policy: &str) {
        let (_, sensor) = factory();
        Spi::run(&format!("SELECT iot.setup(duplicates => '{policy}')")).unwrap();
        discard_13();
        for (day, road) in [
            "SELECT accepted + 10 * rejected FROM iot.ingest(ARRAY['SENSOR','SENSOR','SENSOR']::uuid[],
                    ARRAY['DAY 00:00+00', 'DAY 00:01+00', 'DAY 00:02+00']::timestamptz[], '{12,13,12.5}')",
            "SELECT accepted + 10 * rejected FROM iot.ingest('[
                {\"sensor_id\": \"SENSOR\", \"ts\": \"DAY 00:00+00\", \"value\": 12},
                {\"sensor_id\": \"SENSOR\", \"ts\": \"DAY 00:01+00\", \"value\": 13},
                {\"sensor_id\": \"SENSOR\", \"ts\": \"DAY 00:02+00\", \"value\": 12.5}]')",
            "WITH stored AS (INSERT INTO iot.readings (sensor_id, measurement_timestamp, measurement_value)
                 VALUES ('SENSOR', 'DAY 00:00+00', 12), ('SENSOR', 'DAY 00:01+00', 13), ('SENSOR', 'DAY 00:02+00', 12.5))
             SELECT 12::bigint",
        ]
        .into_iter()
        .enumerate()
        {
            Spi::run("SELECT iot.iot_stat_reset()").unwrap();
            let day = format!("2026-11-0{}", 2 * day + 1);
            let reported: i64 = one(&road.replace("SENSOR", &sensor.to_string()).replace("DAY", &day));
            assert_eq!(reported, 12, "{policy}: {road}");
            assert_eq!(counted(), "3 2 0 1", "{policy}: {road}");
            let stored: String = one(&format!(
                "SELECT string_agg(measurement_value::text, ' ' ORDER BY measurement_timestamp) FROM iot.sensor_data
                  WHERE measurement_timestamp >= '{day} 00:00+00'"
            ));
            assert_eq!(stored, "12 12.5", "{policy}: {road}");
            let kept: String = one(&format!(
                "SELECT concat_ws(' ', reason, sqlstate, measurement_value) FROM iot.rejected_readings
                  WHERE measurement_timestamp >= '{day} 00:00+00'"
            ));
            assert_eq!(kept, "not_stored 23505 13", "{policy}: {road}");
        }
        let call =
            format!("SELECT iot.process_sensor_data('{sensor}', VALUE, '{{}}', '2026-11-05 00:03+00')");
        let statistics = |value: &str| {
            one::<f64>(&format!(
                "SELECT anomaly_score FROM iot.process_sensor_data_ex('{sensor}', {value}, '{{}}', '2026-11-05 00:04+00')"
            ))
        };
        Spi::run("SELECT iot.iot_stat_reset()").unwrap();
        assert_fails(&call.replace("VALUE", "13"), "23505", "was not stored", "triggers");
        assert_eq!(counted(), "1 0 0 1");
        // Mean 12.25, deviation 0.3536: nothing of 13 is left in the window.
        let score = statistics("12.75");
        assert!((score - 2_f64.sqrt()).abs() < 1e-9, "{policy}: {score}");
        Spi::run("SET iot_ext.strict = on").unwrap();
        assert_fails(
            &format!(
                "SELECT iot.ingest(ARRAY['{sensor}','{sensor}']::uuid[], ARRAY[now(), now() - interval '1 second'], '{{14,13}}')"
            ),
            "23505",
            "was not stored",
            "triggers",
        );
        Spi::run("RESET iot_ext.strict; DROP TRIGGER discard ON iot.sensor_data").unwrap();
        let replayed: String = one("SELECT concat_ws(' ', accepted, rejected) FROM iot.replay_rejected()");
        assert_eq!(replayed, "3 0");
    }

    #[pg_test]
    fn what_a_trigger_discards_is_rejected_and_the_rest_is_stored() {
        what_a_trigger_discards("first");
    }

    #[pg_test]
    fn what_a_trigger_discards_is_rejected_where_the_last_counts() {
        what_a_trigger_discards("last");
    }

    #[pg_test]
    fn what_a_trigger_discards_is_rejected_where_both_are_kept() {
        what_a_trigger_discards("both");
    }

    #[pg_test]
    fn what_meets_a_hidden_reading_is_rejected_and_the_rest_is_stored() {
        let (_, sensor) = factory();
        process(sensor, "150", "'2026-11-01 00:00+00'");
        Spi::run(
            "CREATE ROLE narrow;
             GRANT USAGE ON SCHEMA iot TO narrow;
             GRANT ALL ON ALL TABLES IN SCHEMA iot TO narrow;
             ALTER TABLE iot.sensor_data ENABLE ROW LEVEL SECURITY;
             CREATE POLICY stores ON iot.sensor_data FOR INSERT WITH CHECK (true);
             CREATE POLICY sees ON iot.sensor_data FOR SELECT USING (measurement_value < 100);
             SET ROLE narrow",
        )
        .unwrap();
        let totals: String = one(&format!(
            "SELECT concat_ws(' ', accepted, rejected, duplicates) FROM iot.ingest(ARRAY['{sensor}','{sensor}']::uuid[],
                    '{{2026-11-01 00:00+00,2026-11-01 00:01+00}}', '{{20,21}}')"
        ));
        Spi::run("RESET ROLE").unwrap();
        assert_eq!(totals, "1 1 0");
        assert_eq!(one::<String>("SELECT reason FROM iot.rejected_readings"), "not_stored");
        assert_eq!(one::<f64>("SELECT sum(measurement_value) FROM iot.sensor_data"), 171.0);
    }

    #[pg_test]
    fn rows_that_a_trigger_renames_are_not_taken_for_discarded_ones() {
        let (_, sensor) = factory();
        Spi::run(
            "CREATE FUNCTION public.rename() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 NEW.data_id := gen_random_uuid();
                 NEW.measurement_timestamp := NEW.measurement_timestamp + interval '1 day';
                 RETURN NEW;
             END $$;
             CREATE TRIGGER rename BEFORE INSERT ON iot.sensor_data FOR EACH ROW EXECUTE FUNCTION public.rename();
             SELECT iot.create_monthly_partition('iot.sensor_data', 2026, 10)",
        )
        .unwrap();
        for policy in ["first", "last"] {
            Spi::run(&format!("SELECT iot.setup(duplicates => '{policy}')")).unwrap();
            assert_fails(
                &format!(
                    "SELECT iot.ingest(ARRAY['{sensor}','{sensor}']::uuid[], '{{2026-10-01 00:00+00,2026-10-01 00:01+00}}', '{{1,2}}')"
                ),
                "23505",
                "was not stored",
                "triggers",
            );
            assert_eq!(one::<i64>("SELECT count(*) FROM iot.rejected_readings"), 0);
        }
    }

    #[pg_test]
    fn a_broken_calibration_names_its_sensor() {
        let (_, sensor) = factory();
        Spi::run("SET session_replication_role = replica").unwrap();
        Spi::run("UPDATE iot.sensor_calibrations SET calibration_data = '{\"multiplyer\": 2}'").unwrap();
        Spi::run("SET session_replication_role = origin").unwrap();
        assert_fails(
            &format!("SELECT iot.process_sensor_data('{sensor}', 1)"),
            "22023",
            "multiplyer",
            "multiplier",
        );
    }
}
