//! Tests inside a server: what the SQL functions do and how each of their errors reads. Each runs in a transaction of
//! its own that is rolled back.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::datum::{TimestampWithTimeZone, Uuid};
    use pgrx::prelude::*;
    use statrs::statistics::Statistics;

    /// Sets the tables up and registers one active sensor on one active device.
    fn factory() -> (Uuid, Uuid) {
        Spi::run("SELECT iot.setup()").unwrap();
        let device: Uuid =
            one("INSERT INTO iot.devices (device_serial_number) VALUES ('D-1') RETURNING device_id");
        let sensor: Uuid = one(&format!(
            "INSERT INTO iot.sensors (device_id, sensor_name, sensor_type, unit_of_measure, physical_minimum,
                                      physical_maximum)
             VALUES ('{device}', 'probe', 'temperature', 'degC', -50, 200) RETURNING sensor_id"
        ));
        (device, sensor)
    }

    fn one<T: FromDatum + IntoDatum>(sql: &str) -> T {
        Spi::get_one(sql).unwrap().unwrap()
    }

    fn rule(scope: &str, conditions: &str) {
        Spi::run(&format!(
            "INSERT INTO iot.alert_rules (rule_name, {}, rule_conditions, severity)
             VALUES ('rule', {}, '{conditions}', 'high')",
            scope.split('=').next().unwrap(),
            scope.split_once('=').unwrap().1,
        ))
        .unwrap();
    }

    /// SQLSTATE, message and hint of the error that `sql` raises.
    fn failure(sql: &str) -> (String, String, String) {
        Spi::run(
            "CREATE OR REPLACE FUNCTION pg_temp.failure(statement text) RETURNS text[] LANGUAGE plpgsql AS $$
             DECLARE state text; message text; hint text;
             BEGIN
                 EXECUTE statement;
                 RETURN ARRAY['00000', 'no error', ''];
             EXCEPTION WHEN OTHERS THEN
                 GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
                 RETURN ARRAY[state, message, hint];
             END $$",
        )
        .unwrap();
        let parts: Vec<String> = Spi::get_one_with_args("SELECT pg_temp.failure($1)", &[sql.into()])
            .unwrap()
            .unwrap();
        (parts[0].clone(), parts[1].clone(), parts[2].clone())
    }

    #[track_caller]
    fn assert_fails(sql: &str, state: &str, message: &str, hint: &str) {
        let (found_state, found_message, found_hint) = failure(sql);
        assert_eq!(found_state, state, "{sql}: {found_message}");
        assert!(
            found_message.contains(message),
            "{sql}: message is {found_message:?}"
        );
        assert!(found_hint.contains(hint), "{sql}: hint is {found_hint:?}");
    }

    fn process(sensor: Uuid, value: &str, at: &str) -> Uuid {
        one(&format!(
            "SELECT iot.process_sensor_data('{sensor}', {value}, measurement_timestamp => {at})"
        ))
    }

    // ---- before setup ------------------------------------------------------------------------------------------

    #[pg_test]
    fn before_setup_every_function_says_what_to_do() {
        let id = "00000000-0000-0000-0000-000000000001";
        for call in [
            format!("SELECT iot.process_sensor_data('{id}', 1)"),
            format!("SELECT iot.check_alert_rules('{id}', 1)"),
            format!("SELECT iot.queue_device_command('{id}', 'restart')"),
        ] {
            assert_fails(
                &call,
                "55000",
                "do not exist in this database yet",
                "SELECT iot.setup()",
            );
        }
    }

    // ---- process_sensor_data -----------------------------------------------------------------------------------

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

    #[pg_test]
    fn null_metadata_counts_as_empty() {
        let (_, sensor) = factory();
        Spi::run(&format!("SELECT iot.process_sensor_data('{sensor}', 1, NULL)")).unwrap();
        assert_eq!(
            one::<String>("SELECT measurement_metadata::text FROM iot.sensor_data"),
            "{}"
        );
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
            assert_fails(
                &format!("SELECT iot.process_sensor_data('{sensor}', {value})"),
                state,
                message,
                "",
            );
        }
        assert_fails(
            "SELECT iot.process_sensor_data(NULL, 1)",
            "22004",
            "sensor_uuid",
            "sensor_uuid",
        );
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.sensor_data"), 0);
    }

    #[pg_test]
    fn times_outside_the_accepted_range_are_refused() {
        let (_, sensor) = factory();
        for at in [
            "now() - interval '11 years'",
            "now() + interval '25 hours'",
            "'infinity'",
            "'-infinity'",
        ] {
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
        let quality: String = one(
            "SELECT data_quality || ' ' || array_to_string(iot.quality_reasons(quality_flags), ',')
               FROM iot.sensor_data WHERE measurement_timestamp > now()",
        );
        assert!(
            quality.starts_with("invalid "),
            "beyond the physical range as well: {quality}"
        );
        assert!(quality.contains("future"), "{quality}");
        process(sensor, "11", "now()");
        let score: f64 = one("SELECT anomaly_score FROM iot.sensor_data WHERE measurement_value = 11");
        assert_eq!(
            score, 0.0,
            "the mean of 10 and 12 is 11 as long as the future 500 does not count"
        );
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
        assert_eq!(
            one::<f64>("SELECT sum(measurement_value) FROM iot.sensor_data"),
            1.0
        );
    }

    #[pg_test]
    fn readings_without_a_time_are_never_duplicates() {
        let (_, sensor) = factory();
        Spi::run(&format!(
            "SELECT iot.process_sensor_data('{sensor}', n) FROM generate_series(1, 500) n"
        ))
        .unwrap();
        assert_eq!(
            one::<i64>("SELECT count(DISTINCT measurement_timestamp) FROM iot.sensor_data"),
            500
        );
    }

    #[pg_test]
    fn data_ids_are_ordered_by_time() {
        let (_, sensor) = factory();
        Spi::run(&format!(
            "SELECT iot.process_sensor_data('{sensor}', n) FROM generate_series(1, 200) n"
        ))
        .unwrap();
        let disordered: i64 = one(
            "SELECT count(*) FROM (SELECT data_id < lag(data_id) OVER (ORDER BY measurement_value) AS back
                                     FROM iot.sensor_data) ordered WHERE back",
        );
        assert_eq!(disordered, 0);
    }

    // ---- calibration -------------------------------------------------------------------------------------------

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
            (
                "{\"polynomial\": [1], \"piecewise\": [[0, 0], [1, 1]]}",
                "polynomial",
            ),
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

    // ---- anomaly score -----------------------------------------------------------------------------------------

    /// The score of the last of `values`, one a minute, and the naive one over all before it.
    fn score_of_last(values: &[f64]) -> (f64, bool, f64) {
        let (_, sensor) = factory();
        let start = "now() - interval '6 hours'";
        for (minute, value) in values.iter().enumerate() {
            process(
                sensor,
                &format!("'{value}'"),
                &format!("{start} + interval '{minute} minutes'"),
            );
        }
        let (last, before) = values.split_last().unwrap();
        let naive = ((last - before.mean()).abs() / before.std_dev()).min(5.0);
        let score =
            one("SELECT anomaly_score FROM iot.sensor_data ORDER BY measurement_timestamp DESC LIMIT 1");
        let flagged =
            one("SELECT is_anomaly FROM iot.sensor_data ORDER BY measurement_timestamp DESC LIMIT 1");
        (score, flagged, naive)
    }

    #[pg_test]
    fn the_score_is_the_distance_in_standard_deviations() {
        let (score, flagged, naive) = score_of_last(&[20.0, 21.0, 19.5, 20.2, 20.4, 21.5]);
        assert!((score - naive).abs() < 1e-9, "{score} {naive}");
        assert!(!flagged);
    }

    #[pg_test]
    fn above_three_is_an_anomaly_capped_at_five() {
        let (score, flagged, _) = score_of_last(&[20.0, 21.0, 19.5, 20.2, 20.4, 190.0]);
        assert_eq!(score, 5.0);
        assert!(flagged);
    }

    #[pg_test]
    fn a_constant_signal_scores_zero_until_it_moves() {
        // 0.1 has no exact binary form: a computed deviation of its repeats need not be zero.
        let (score, flagged, _) = score_of_last(&[0.1; 40]);
        assert_eq!((score, flagged), (0.0, false));
    }

    #[pg_test]
    fn leaving_a_constant_signal_is_an_anomaly() {
        let (score, flagged, _) = score_of_last(&[0.1, 0.1, 0.1, 0.1, 0.2]);
        assert_eq!((score, flagged), (5.0, true));
    }

    #[pg_test]
    fn an_absurd_reading_does_not_stop_the_next_ones() {
        let (score, flagged, _) = score_of_last(&[1.0, 2.0, 1e300, -1e308, 1e200, 1.5]);
        assert_eq!((score, flagged), (0.0, false));
    }

    #[pg_test]
    fn fewer_than_two_readings_score_nothing() {
        let (score, flagged, _) = score_of_last(&[1.0, 100.0]);
        assert_eq!((score, flagged), (0.0, false));
    }

    #[pg_test]
    fn the_window_starts_at_a_half_hour_a_day_before_the_newest_reading() {
        let (_, sensor) = factory();
        process(sensor, "100", "'2026-03-01 11:59+00'");
        process(sensor, "10", "'2026-03-01 12:00+00'");
        process(sensor, "12", "'2026-03-01 12:01+00'");
        // 12:29 the next day: the window starts at 12:00, so 100 is out, and 10 and 12 are in.
        process(sensor, "11", "'2026-03-02 12:29+00'");
        assert_eq!(
            one::<f64>("SELECT anomaly_score FROM iot.sensor_data WHERE measurement_value = 11"),
            0.0
        );
        // A late reading is scored against the window of the newest one, to which it does not belong itself.
        process(sensor, "11", "'2026-03-01 03:00+00'");
        let late: f64 = one(
            "SELECT anomaly_score FROM iot.sensor_data WHERE measurement_timestamp = '2026-03-01 03:00+00'",
        );
        assert_eq!(late, 0.0);
    }

    // ---- partitions --------------------------------------------------------------------------------------------

    #[pg_test]
    fn a_missing_partition_is_made_on_demand() {
        let (_, sensor) = factory();
        process(sensor, "1", "'2024-02-29 23:59:59.999999+00'");
        process(sensor, "1", "'2024-03-01 00:00+00'");
        let partitions: String = one(
            "SELECT string_agg(DISTINCT tableoid::regclass::text, ' ' ORDER BY tableoid::regclass::text)
               FROM iot.sensor_data",
        );
        assert_eq!(partitions, "iot.sensor_data_2024_02 iot.sensor_data_2024_03");
    }

    #[pg_test]
    fn setup_makes_this_month_and_the_next_ones() {
        Spi::run("SELECT iot.setup(premake => 2)").unwrap();
        let found: Vec<String> = one(
            "SELECT array_agg(relid::regclass::text ORDER BY relid::regclass::text) FROM pg_partition_tree('iot.sensor_data') WHERE isleaf",
        );
        let expected: Vec<String> = one(
            "SELECT array_agg('iot.sensor_data_' || to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + n * interval '1 month', 'YYYY_MM') ORDER BY n)
               FROM generate_series(0, 2) n",
        );
        assert_eq!(found, expected);
    }

    #[pg_test]
    fn create_monthly_partition_is_idempotent() {
        Spi::run("SELECT iot.setup()").unwrap();
        let made: Option<String> =
            Spi::get_one("SELECT iot.create_monthly_partition('iot.sensor_data', 2023, 7)").unwrap();
        assert_eq!(made.as_deref(), Some("sensor_data_2023_07"));
        let again: Option<String> =
            Spi::get_one("SELECT iot.create_monthly_partition('iot.sensor_data', 2023, 7)").unwrap();
        assert_eq!(again, None);
    }

    #[pg_test]
    fn create_future_partitions_works_on_any_time_partitioned_table() {
        Spi::run(
            "CREATE TABLE public.\"Odd name\" (at timestamptz NOT NULL, note text) PARTITION BY RANGE (at)",
        )
        .unwrap();
        let made: Vec<String> = one("SELECT iot.create_future_partitions('public.\"Odd name\"', 1)");
        assert_eq!(made.len(), 2);
        assert!(made[0].starts_with("Odd name_20"), "{made:?}");
        Spi::run("INSERT INTO public.\"Odd name\" VALUES (now(), 'kept')").unwrap();
    }

    #[pg_test]
    fn partition_functions_refuse_what_they_cannot_do() {
        Spi::run("SELECT iot.setup()").unwrap();
        Spi::run("CREATE TABLE plain (at timestamptz)").unwrap();
        Spi::run("CREATE TABLE listed (kind text) PARTITION BY LIST (kind)").unwrap();
        for table in ["plain", "listed"] {
            let call = format!("SELECT iot.create_monthly_partition('{table}', 2023, 7)");
            assert_fails(&call, "42809", table, "PARTITION BY RANGE");
        }
        assert_fails(
            "SELECT iot.create_monthly_partition('iot.sensor_data', 2023, 13)",
            "22023",
            "13",
            "month",
        );
        assert_fails(
            "SELECT iot.create_future_partitions('iot.sensor_data', -1)",
            "22023",
            "-1",
            "months",
        );
    }

    #[pg_test]
    fn row_security_of_the_parent_is_carried_to_new_partitions() {
        let (_, sensor) = factory();
        Spi::run("ALTER TABLE iot.sensor_data ENABLE ROW LEVEL SECURITY").unwrap();
        process(sensor, "1", "'2024-02-01 00:00+00'");
        assert!(one::<bool>(
            "SELECT relrowsecurity FROM pg_class WHERE oid = 'iot.sensor_data_2024_02'::regclass"
        ));
    }

    #[pg_test]
    fn daily_partitions_can_be_chosen() {
        Spi::run("SELECT iot.setup(partition_interval => '1 day', premake => 0)").unwrap();
        let name: String =
            one("SELECT relid::regclass::text FROM pg_partition_tree('iot.sensor_data') WHERE isleaf");
        let expected: String =
            one("SELECT 'iot.sensor_data_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM_DD')");
        assert_eq!(name, expected);
        assert_fails(
            "SELECT iot.setup(partition_interval => '10 days')",
            "22023",
            "10",
            "",
        );
        assert_fails("SELECT iot.setup(premake => -1)", "22023", "premake -1", "");
        assert_fails(
            "SELECT iot.setup(retention => '1 hour')",
            "22023",
            "retention",
            "",
        );
        assert_fails(
            "SELECT iot.setup(index_policy => '{nonsense}')",
            "22023",
            "nonsense",
            "metadata_gin",
        );
    }

    #[pg_test]
    fn the_policy_is_forgotten_with_its_table() {
        Spi::run("SELECT iot.setup()").unwrap();
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.partition_settings"), 1);
        Spi::run("DROP TABLE iot.sensor_data CASCADE").unwrap();
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.partition_policy"), 0);
    }

    // ---- conditions and rules ----------------------------------------------------------------------------------

    #[pg_test]
    fn conditions_hold_together() {
        let cases = [
            ("{}", "1", "{}", "t"),
            ("{\"threshold_high\": 10}", "10", "{}", "f"),
            ("{\"threshold_high\": 10}", "10.5", "{}", "t"),
            ("{\"threshold_high\": \"10\"}", "10.5", "{}", "t"),
            ("{\"threshold_low\": 10}", "9", "{}", "t"),
            ("{\"threshold_high\": 10, \"threshold_low\": 5}", "11", "{}", "f"),
            (
                "{\"or\": [{\"threshold_high\": 10}, {\"threshold_low\": 5}]}",
                "11",
                "{}",
                "t",
            ),
            ("{\"not\": {\"threshold_high\": 10}}", "11", "{}", "f"),
            ("{\"between\": [1, 2]}", "2", "{}", "t"),
            ("{\"outside\": [1, 2]}", "2", "{}", "f"),
            (
                "{\"metadata_check\": {\"a\": {\"b\": 1.0}}}",
                "0",
                "{\"a\": {\"b\": 1, \"c\": 2}}",
                "t",
            ),
            ("{\"metadata_check\": {\"a\": [1]}}", "0", "{\"a\": [2, 1]}", "t"),
            ("{\"metadata_check\": {\"a\": 1}}", "0", "{\"a\": 2}", "f"),
        ];
        for (conditions, value, metadata, expected) in cases {
            let found: String = one(&format!(
                "SELECT left(iot.evaluate_alert_condition('{conditions}', {value}, '{metadata}')::text, 1)"
            ));
            assert_eq!(found, expected, "{conditions} {value} {metadata}");
        }
    }

    #[pg_test]
    fn null_arguments_of_a_condition() {
        for call in ["NULL, 1", "'{\"threshold_high\": 1}', NULL"] {
            let found: Option<bool> =
                Spi::get_one(&format!("SELECT iot.evaluate_alert_condition({call})")).unwrap();
            assert_eq!(found, None);
        }
        assert!(one::<bool>(
            "SELECT iot.evaluate_alert_condition('{\"threshold_high\": 1}', 2, NULL)"
        ));
    }

    #[pg_test]
    fn time_windows_use_now_and_the_sessions_zone() {
        Spi::run("SET TimeZone = 'Asia/Kolkata'").unwrap();
        let around: String = one(
            "SELECT format('{\"time_window\": {\"start\": \"%s\", \"end\": \"%s\"}}',
                           to_char(now() - interval '1 minute', 'HH24:MI'), to_char(now() + interval '1 minute', 'HH24:MI'))",
        );
        assert!(one::<bool>(&format!(
            "SELECT iot.evaluate_alert_condition('{around}', 1)"
        )));
        Spi::run("SET TimeZone = 'UTC'").unwrap();
        assert!(!one::<bool>(&format!(
            "SELECT iot.evaluate_alert_condition('{around}', 1)"
        )));
        let zoned = around.replace("\"start\"", "\"timezone\": \"Asia/Kolkata\", \"start\"");
        assert!(one::<bool>(&format!(
            "SELECT iot.evaluate_alert_condition('{zoned}', 1)"
        )));
    }

    #[pg_test]
    fn malformed_conditions_are_refused() {
        for (conditions, message) in [
            ("{\"threshhold_high\": 1}", "threshhold_high"),
            ("{\"threshold_high\": \"warm\"}", "warm"),
            ("{\"threshold_high\": \"NaN\"}", "threshold_high"),
            ("{\"between\": [2, 1]}", "between"),
            ("{\"or\": []}", "or"),
            ("{\"and\": [{}]}", "and[0]"),
            (
                "{\"time_window\": {\"start\": \"25:00\", \"end\": \"06:00\"}}",
                "25:00",
            ),
            (
                "{\"time_window\": {\"start\": \"01:00\", \"end\": \"06:00\", \"timezone\": \"Mars/Base\"}}",
                "Mars/Base",
            ),
            ("[1]", ""),
        ] {
            assert_fails(
                &format!("SELECT iot.evaluate_alert_condition('{conditions}', 1)"),
                "22023",
                message,
                "",
            );
        }
        assert_fails(
            "SELECT iot.evaluate_alert_condition('{\"nonsense\": 1}', 1)",
            "22023",
            "nonsense",
            "threshold_high",
        );
        assert_fails(
            "SELECT iot.evaluate_alert_condition('{}', 'NaN')",
            "22003",
            "NaN",
            "",
        );
        assert_fails(
            "SELECT iot.evaluate_alert_condition('{\"threshold_high\": 1e999}', 1)",
            "22003",
            "",
            "double",
        );
    }

    #[pg_test]
    fn a_rule_that_cannot_be_evaluated_is_refused_when_written() {
        let (_, sensor) = factory();
        let insert = |conditions: &str, more: (&str, &str)| {
            format!(
                "INSERT INTO iot.alert_rules (rule_name, sensor_id, rule_conditions, severity{})
                 VALUES ('r', '{sensor}', '{conditions}', 'high'{})",
                more.0, more.1
            )
        };
        assert_fails(
            &insert("{\"nonsense\": 1}", ("", "")),
            "22023",
            "nonsense",
            "threshold_high",
        );
        assert_fails(&insert("{}", ("", "")), "22023", "empty", "threshold_high");
        let good = "{\"threshold_high\": 1}";
        assert_fails(
            &insert(good, (", message_template", ", '{colour}'")),
            "22023",
            "colour",
            "value",
        );
        assert_fails(
            &insert(good, (", time_zone", ", 'Mars/Base'")),
            "22023",
            "Mars/Base",
            "pg_timezone_names",
        );
        Spi::run(&insert(good, ("", ""))).unwrap();
        assert_fails(
            "UPDATE iot.alert_rules SET rule_conditions = '{\"x\": 1}'",
            "22023",
            "x",
            "",
        );
        assert_fails(
            "INSERT INTO iot.alert_rules (rule_name, rule_conditions, severity) VALUES ('r', '{\"threshold_high\": 1}', 'high')",
            "23514",
            "",
            "",
        );
    }

    #[pg_test]
    fn one_open_alert_counts_its_repeats() {
        let (_, sensor) = factory();
        rule(&format!("sensor_id='{sensor}'"), "{\"threshold_high\": 80}");
        for value in ["79", "81", "85", "83"] {
            process(sensor, value, "clock_timestamp()");
        }
        let alert: String = one(
            "SELECT concat_ws('|', alert_status, severity, threshold_value, actual_value, last_value, occurrences, message,
                              measurement_timestamp < last_occurred_at)
               FROM iot.alerts",
        );
        assert_eq!(alert, "active|high|80|81|83|3|rule: probe is 81 degC|t");
        Spi::run("UPDATE iot.alerts SET alert_status = 'resolved', resolved_at = now()").unwrap();
        process(sensor, "90", "clock_timestamp()");
        assert_eq!(
            one::<i64>("SELECT count(*) FROM iot.alerts"),
            2,
            "resolved alerts stay closed"
        );
    }

    #[pg_test]
    fn duplicates_count_no_occurrence() {
        let (_, sensor) = factory();
        rule("sensor_type='temperature'", "{\"threshold_high\": 80}");
        process(sensor, "90", "'2026-01-05 12:00+00'");
        process(sensor, "90", "'2026-01-05 12:00+00'");
        assert_eq!(one::<i32>("SELECT occurrences FROM iot.alerts"), 1);
    }

    #[pg_test]
    fn every_scope_finds_its_sensors() {
        let (device, sensor) = factory();
        Spi::run(&format!(
            "WITH parent AS (INSERT INTO iot.organizations (organization_name) VALUES ('top') RETURNING organization_id),
                  child AS (INSERT INTO iot.organizations (organization_name, parent_organization_id)
                            SELECT 'site', organization_id FROM parent RETURNING organization_id),
                  kind AS (INSERT INTO iot.device_types (device_type_name) VALUES ('pump') RETURNING device_type_id)
             UPDATE iot.devices SET organization_id = (SELECT organization_id FROM child),
                                    device_type_id = (SELECT device_type_id FROM kind)
              WHERE device_id = '{device}'"
        ))
        .unwrap();
        let group: Uuid =
            one("INSERT INTO iot.device_groups (group_name) VALUES ('line 1') RETURNING group_id");
        Spi::run(&format!(
            "INSERT INTO iot.device_group_members (group_id, device_id) VALUES ('{group}', '{device}')"
        ))
        .unwrap();
        let condition = "{\"threshold_high\": 80}";
        for scope in [
            format!("sensor_id='{sensor}'"),
            format!("device_id='{device}'"),
            "sensor_type='temperature'".to_owned(),
            "device_type_id=(SELECT device_type_id FROM iot.device_types)".to_owned(),
            format!("group_id='{group}'"),
            "organization_id=(SELECT organization_id FROM iot.organizations WHERE organization_name = 'site')".to_owned(),
            "organization_id=(SELECT organization_id FROM iot.organizations WHERE organization_name = 'top')".to_owned(),
            // And those that must stay silent: another type of sensor, and a scope of which only one part fits.
            "sensor_type='humidity'".to_owned(),
        ] {
            rule(&scope, condition);
        }
        Spi::run(&format!(
            "INSERT INTO iot.alert_rules (rule_name, sensor_type, device_id, rule_conditions, severity)
             VALUES ('half', 'humidity', '{device}', '{condition}', 'low')"
        ))
        .unwrap();
        Spi::run(
            "INSERT INTO iot.alert_rules (rule_name, sensor_type, rule_conditions, severity, is_active)
                  VALUES ('off', 'temperature', '{\"threshold_high\": 80}', 'low', false)",
        )
        .unwrap();
        let alerts: Vec<Uuid> = one(&format!("SELECT iot.check_alert_rules('{sensor}', 81, '{{}}')"));
        assert_eq!(alerts.len(), 7);
        assert_eq!(
            one::<i64>("SELECT count(*) FROM iot.sensor_data"),
            0,
            "checking stores no reading"
        );
    }

    #[pg_test]
    fn an_edited_rule_is_used_at_once() {
        let (_, sensor) = factory();
        rule("sensor_type='temperature'", "{\"threshold_high\": 80}");
        process(sensor, "85", "clock_timestamp()");
        Spi::run("UPDATE iot.alert_rules SET rule_conditions = '{\"threshold_high\": 90}'").unwrap();
        process(sensor, "86", "clock_timestamp()");
        assert_eq!(one::<i32>("SELECT occurrences FROM iot.alerts"), 1);
        assert_eq!(one::<i32>("SELECT rule_version FROM iot.alert_rules"), 2);
    }

    #[pg_test]
    fn pipeline_time_windows_use_the_readings_time_and_the_rules_zone() {
        let (_, sensor) = factory();
        Spi::run("INSERT INTO iot.alert_rules (rule_name, sensor_id, rule_conditions, severity, time_zone)
                  SELECT 'night', sensor_id, '{\"threshold_high\": 0, \"time_window\": {\"start\": \"22:00\", \"end\": \"06:00\"}}',
                         'low', 'Europe/Berlin' FROM iot.sensors")
        .unwrap();
        Spi::run("SET TimeZone = 'Pacific/Auckland'").unwrap();
        // 21:30 UTC is 22:30 in Berlin in winter; 06:30 UTC is 07:30; 05:00 UTC is 06:00, inclusive.
        process(sensor, "1", "'2026-01-05 21:30+00'");
        process(sensor, "2", "'2026-01-06 06:30+00'");
        process(sensor, "3", "'2026-01-07 05:00+00'");
        let found: String =
            one("SELECT occurrences || ' ' || actual_value || ' ' || last_value FROM iot.alerts");
        assert_eq!(found, "2 1 3");
    }

    #[pg_test]
    fn check_alert_rules_refuses_bad_arguments() {
        let (_, sensor) = factory();
        let unknown = "00000000-0000-0000-0000-000000000001";
        assert_fails(
            &format!("SELECT iot.check_alert_rules('{unknown}', 1, '{{}}')"),
            "42704",
            unknown,
            "",
        );
        assert_fails(
            "SELECT iot.check_alert_rules(NULL, 1, '{}')",
            "22004",
            "sensor_uuid",
            "",
        );
        assert_fails(
            &format!("SELECT iot.check_alert_rules('{sensor}', NULL, '{{}}')"),
            "22004",
            "sensor_value",
            "",
        );
        assert_fails(
            &format!("SELECT iot.check_alert_rules('{sensor}', 'NaN', '{{}}')"),
            "22003",
            "NaN",
            "",
        );
    }

    // ---- commands ----------------------------------------------------------------------------------------------

    #[pg_test]
    fn commands_are_queued_as_pending() {
        let (device, _) = factory();
        let id: Uuid = one(&format!(
            "SELECT iot.queue_device_command(device_uuid => '{device}', command_type_param => 'restart')"
        ));
        let found: String = one(&format!(
            "SELECT concat_ws('|', command_type, command_parameters, execution_status, scheduled_at = now())
               FROM iot.device_commands WHERE command_id = '{id}'"
        ));
        assert_eq!(found, "restart|{}|pending|t");
        Spi::run("UPDATE iot.devices SET device_status = 'maintenance'").unwrap();
        Spi::run(&format!(
            "SELECT iot.queue_device_command('{device}', 'restart', NULL, NULL)"
        ))
        .unwrap();
    }

    #[pg_test]
    fn commands_refuse_bad_arguments_each_with_its_own_error() {
        let (device, _) = factory();
        let unknown = "00000000-0000-0000-0000-000000000001";
        assert_fails(
            &format!("SELECT iot.queue_device_command('{unknown}', 'x')"),
            "42704",
            unknown,
            "iot.devices",
        );
        assert_fails(
            &format!("SELECT iot.queue_device_command('{device}', ' ')"),
            "22023",
            "empty",
            "restart",
        );
        assert_fails(
            &format!("SELECT iot.queue_device_command('{device}', NULL)"),
            "22004",
            "command_type_param",
            "",
        );
        assert_fails(
            "SELECT iot.queue_device_command(NULL, 'x')",
            "22004",
            "device_uuid",
            "",
        );
        Spi::run("UPDATE iot.devices SET device_status = 'inactive'").unwrap();
        let call = format!("SELECT iot.queue_device_command('{device}', 'x')");
        assert_fails(&call, "55000", "does not accept commands", "maintenance");
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.device_commands"), 0);
    }

    // ---- devices -----------------------------------------------------------------------------------------------

    #[pg_test]
    fn devices_move_only_along_their_lifecycle() {
        let (device, _) = factory();
        Spi::run("UPDATE iot.devices SET device_status = 'maintenance', device_status_reason = 'belt'")
            .unwrap();
        assert_fails(
            "UPDATE iot.devices SET device_status = 'provisioning'",
            "IO001",
            "provisioning",
            "active",
        );
        Spi::run("UPDATE iot.devices SET device_status = 'decommissioned'").unwrap();
        assert_fails(
            "UPDATE iot.devices SET device_status = 'active'",
            "IO001",
            "decommissioned",
            "",
        );
        let history: String = one(&format!(
            "SELECT string_agg(concat_ws('>', from_status, to_status, reason), ' ' ORDER BY changed_at)
               FROM iot.device_status_history WHERE device_id = '{device}'"
        ));
        assert_eq!(
            history,
            "active active>maintenance>belt maintenance>decommissioned"
        );
    }

    #[pg_test]
    fn what_has_readings_is_not_deleted() {
        let (_, sensor) = factory();
        process(sensor, "1", "clock_timestamp()");
        assert_fails("DELETE FROM iot.sensors", "23503", "", "decommissioned");
        assert_fails("UPDATE iot.sensors SET sensor_type = 'x'", "55000", "", "");
    }

    // ---- buckets and aggregates --------------------------------------------------------------------------------

    #[pg_test]
    fn buckets_start_where_they_should() {
        Spi::run("SET TimeZone = 'America/New_York'").unwrap();
        for (call, expected) in [
            ("'15 minutes', '2026-11-19 10:29:59+00'", "2026-11-19 10:15:00+00"),
            ("'1 day', '2026-11-19 10:29:59+00'", "2026-11-19 00:00:00+00"),
            ("'1 week', '2026-11-19 10:29:59+00'", "2026-11-16 00:00:00+00"),
            ("'1 month', '2026-11-19 10:29:59+00'", "2026-11-01 00:00:00+00"),
            ("'3 months', '2026-11-19 10:29:59+00'", "2026-10-01 00:00:00+00"),
            ("'1 hour', '1999-12-31 23:59:59+00'", "1999-12-31 23:00:00+00"),
            (
                "'1 day', '2026-11-19 10:00+00', origin => '2000-01-01 06:00+00'",
                "2026-11-19 06:00:00+00",
            ),
            (
                "'1 day', '2026-11-19 10:00+00', \"offset\" => '12 hours'",
                "2026-11-18 12:00:00+00",
            ),
            ("'1 day', 'infinity'", "infinity"),
        ] {
            let found: bool = one(&format!(
                "SELECT iot.time_bucket({call}) = timestamptz '{expected}'"
            ));
            assert!(found, "{call}");
        }
    }

    #[pg_test]
    fn bucket_widths_that_have_no_meaning_are_refused() {
        for width in ["0", "-1 hour", "1 month 1 day"] {
            assert_fails(
                &format!("SELECT iot.time_bucket('{width}', now())"),
                "22023",
                "",
                "",
            );
        }
        assert_fails(
            "SELECT iot.time_bucket('1 day', now(), \"offset\" => '1 month')",
            "22023",
            "month",
            "origin",
        );
    }

    #[pg_test]
    fn first_and_last_follow_the_time_of_any_type() {
        let rows = "(VALUES (3, 'c', NULL::int, 9.5), (1, 'a', 10, NULL), (2, 'b', 20, 1.5)) v (t, word, number, small)";
        let found: String = one(&format!(
            "SELECT concat_ws('|', iot.first(word, t), iot.last(word, t), iot.first(number, t),
                              iot.last(number, t) IS NULL, iot.last(word, timestamptz '2026-01-01' + t * interval '1 day'),
                              iot.first(word, small))
               FROM {rows}"
        ));
        assert_eq!(found, "a|c|10|t|c|b");
        let none: Option<String> = Spi::get_one("SELECT iot.first('x'::text, NULL::int)").unwrap();
        assert_eq!(none, None);
        assert_fails(
            "SELECT iot.first(1, '(1,2)'::point)",
            "42883",
            "cannot be sorted",
            "timestamp",
        );
    }

    #[pg_test]
    fn first_and_last_copy_long_values() {
        let found: i64 =
            one("SELECT length(iot.last(repeat(n::text, 5000), n))::bigint FROM generate_series(1, 300) n");
        assert_eq!(found, 15000);
    }

    // ---- views and settings ------------------------------------------------------------------------------------

    #[pg_test]
    fn the_hourly_view_and_the_dashboard_have_the_required_columns() {
        let (_, sensor) = factory();
        process(sensor, "10", "date_trunc('hour', now())");
        process(
            sensor,
            "20",
            "date_trunc('hour', now()) + interval '1 microsecond'",
        );
        let columns = |view: &str| -> String {
            one(&format!(
                "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute
                  WHERE attrelid = 'iot.{view}'::regclass AND attnum > 0"
            ))
        };
        assert_eq!(
            columns("sensor_hourly_aggregates"),
            "sensor_id hour_bucket measurement_count avg_value min_value max_value value_stddev data_quality_ratio anomaly_count"
        );
        assert_eq!(
            columns("iot_operations_dashboard"),
            "active_devices offline_devices avg_battery_level todays_measurements todays_anomalies active_alerts todays_alerts avg_resolution_hours pending_commands active_processing_rules"
        );
        let hourly: String = one(
            "SELECT concat_ws('|', measurement_count, avg_value, min_value, max_value, round(value_stddev::numeric, 3),
                              data_quality_ratio::float8, anomaly_count) FROM iot.sensor_hourly_aggregates",
        );
        assert_eq!(hourly, "2|15|10|20|7.071|1|0");
    }

    #[pg_test]
    fn settings_are_reserved_and_bounded() {
        assert_fails(
            "SET iot_ext.no_such_setting = 1",
            "42602",
            "iot_ext.no_such_setting",
            "",
        );
        assert_fails(
            "SET iot_ext.clock_skew = '2 days'",
            "22023",
            "iot_ext.clock_skew",
            "",
        );
    }

    #[pg_test]
    fn setup_run_twice_changes_nothing() {
        Spi::run("SELECT iot.setup()").unwrap();
        let second: String = one("SELECT iot.setup() ->> 'migrations_applied'");
        assert_eq!(second, "[]");
        let made: String = one("SELECT iot.setup() ->> 'partitions_created'");
        assert_eq!(made, "[]");
    }

    #[pg_test]
    fn the_index_policy_can_be_changed() {
        Spi::run("SELECT iot.setup(index_policy => '{device_time,metadata_gin}')").unwrap();
        let found: String = one(
            "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relname LIKE 'idx_sensor_data%'
                AND relkind = 'I'",
        );
        assert_eq!(found, "idx_sensor_data_device_time idx_sensor_data_metadata");
        Spi::run("SELECT iot.setup(index_policy => '{}')").unwrap();
        assert_eq!(
            one::<i64>(
                "SELECT count(*) FROM pg_class WHERE relname LIKE 'idx_sensor_data%' AND relkind = 'I'"
            ),
            0
        );
    }

    #[pg_test]
    fn a_timestamp_survives_the_way_through_rust() {
        let back: TimestampWithTimeZone =
            one("SELECT iot.time_bucket('1 microsecond', '0001-01-01 00:00:00.000001+00')");
        let same: bool = Spi::get_one_with_args(
            "SELECT $1 = timestamptz '0001-01-01 00:00:00.000001+00'",
            &[back.into()],
        )
        .unwrap()
        .unwrap();
        assert!(same);
    }
}
