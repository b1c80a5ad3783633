//! Readings that were refused, offered again.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, factory, one, process};

    const NOBODY: &str = "00000000-0000-0000-0000-000000000001";

    fn replay(arguments: &str) -> String {
        one(&format!(
            "SELECT concat_ws(' ', replayed, accepted, rejected, duplicates) FROM iot.replay_rejected({arguments})"
        ))
    }

    fn waiting() -> String {
        one("SELECT coalesce(string_agg(reason, ' ' ORDER BY received_at, rejection_id), '')
               FROM iot.rejected_readings WHERE replayed_at IS NULL")
    }

    fn kept() -> i64 {
        one("SELECT count(*) FROM iot.rejected_readings")
    }

    fn insert(columns: &str, values: &str) {
        Spi::run(&format!("INSERT INTO iot.readings ({columns}) VALUES {values}")).unwrap();
    }

    #[pg_test]
    fn what_is_accepted_now_is_stored_once() {
        let (_, sensor) = factory();
        Spi::run("UPDATE iot.sensors SET sensor_status = 'inactive'").unwrap();
        insert(
            "sensor_id, measurement_value, measurement_metadata",
            &format!("('{sensor}', 7, '{{\"a\": [1]}}')"),
        );
        Spi::run("UPDATE iot.sensors SET sensor_status = 'active'").unwrap();
        assert_eq!(replay(""), "1 1 0 0");
        assert_eq!(replay(""), "0 0 0 0");
        let stored: String =
            one("SELECT concat_ws(' ', measurement_value, measurement_metadata) FROM iot.sensor_data");
        assert_eq!(stored, "7 {\"a\": [1]}");
        assert_eq!((waiting(), kept()), (String::new(), 1));
    }

    #[pg_test]
    fn what_is_refused_again_says_why_as_of_now() {
        let (_, sensor) = factory();
        insert("sensor_id, measurement_value", &format!("('{NOBODY}', 7), ('{sensor}', 'NaN')"));
        assert_eq!(waiting(), "unknown_sensor not_finite");
        assert_eq!(replay(""), "2 0 2 0");
        let device: pgrx::datum::Uuid = one("SELECT device_id FROM iot.devices");
        Spi::run(&format!(
            "INSERT INTO iot.sensors (sensor_id, device_id, sensor_name, sensor_type, unit_of_measure, sensor_status)
             VALUES ('{NOBODY}', '{device}', 'second', 'temperature', 'degC', 'inactive')"
        ))
        .unwrap();
        assert_eq!(replay("reason => 'unknown_sensor'"), "1 0 1 0");
        assert!(waiting().starts_with("inactive_sensor "), "{}", waiting());
        assert_eq!(kept(), 2);
        let state: String =
            one("SELECT sqlstate FROM iot.rejected_readings WHERE reason = 'inactive_sensor'");
        assert_eq!(state, "55000");
    }

    #[pg_test]
    fn a_reading_may_be_mended_first() {
        let (_, sensor) = factory();
        Spi::run(&format!(
            "SELECT iot.ingest('[{{\"sensor_id\": \"{sensor}\", \"value\": 1, \"timestamp\": \"not yet\"}}, 5,
                                {{\"sensor_id\": \"{sensor}\", \"value\": 2, \"unit\": \"parsec\"}}]')"
        ))
        .unwrap();
        assert_eq!(waiting(), "bad_time not_an_object unit");
        assert_eq!(replay(""), "3 0 3 0");
        assert_eq!(waiting(), "bad_time not_an_object unit");
        Spi::run(&format!(
            "UPDATE iot.rejected_readings SET reading = CASE reason
                    WHEN 'bad_time' THEN reading || '{{\"timestamp\": \"2026-01-05 12:00+00\"}}'
                    WHEN 'unit' THEN reading - 'unit'
                    ELSE '{{\"reading\": {{\"sensor_id\": \"{sensor}\", \"value\": 3}}}}' END"
        ))
        .unwrap();
        assert_eq!(replay(""), "3 3 0 0");
        assert_eq!(one::<f64>("SELECT sum(measurement_value) FROM iot.sensor_data"), 6.0);
    }

    #[pg_test]
    fn rows_of_text_are_read_as_their_table_reads_them() {
        let (_, sensor) = factory();
        Spi::run(&format!(
            "INSERT INTO iot.raw_readings (sensor_id, measurement_timestamp, measurement_value, measurement_metadata,
                                           boolean_value, json_value)
             VALUES ('{sensor}', '', '61,5', '{{\"a\": 1}}', '', ''), ('{sensor}', 'noon', ' 2 ', '', '', ''),
                    ('{{{NOBODY}}}', '2026-01-05 12:00+00', '1;5', '', '', '')"
        ))
        .unwrap();
        assert_eq!(waiting(), "malformed malformed malformed");
        assert_eq!(replay("reason => 'malformed'"), "3 0 3 0");
        assert!(waiting().starts_with("malformed "), "{}", waiting());
        Spi::run(
            "UPDATE iot.rejected_readings
                SET reading = reading || jsonb_build_object('measurement_value', translate(reading ->> 'measurement_value', ',;', '..'),
                        'measurement_timestamp', replace(reading ->> 'measurement_timestamp', 'noon', '2026-01-05 12:00+00'))",
        )
        .unwrap();
        assert_eq!(replay(""), "3 2 1 0");
        assert_eq!(waiting(), "unknown_sensor");
        let stored: String = one(
            "SELECT string_agg(measurement_value || ' ' || measurement_metadata, ', ' ORDER BY measurement_value)
               FROM iot.sensor_data",
        );
        assert_eq!(stored, "2 {}, 61.5 {\"a\": 1}");
        Spi::run(&format!(
            "UPDATE iot.rejected_readings SET reading = reading || '{{\"sensor_id\": \"{sensor}\"}}'"
        ))
        .unwrap();
        assert_eq!(replay(""), "1 0 0 1", "its text stayed read, and its time is taken");
    }

    #[pg_test]
    fn readings_without_a_time_have_that_of_their_arrival() {
        let (_, sensor) = factory();
        Spi::run("UPDATE iot.sensors SET sensor_status = 'inactive'").unwrap();
        insert("sensor_id, measurement_value", &format!("('{sensor}', 1), ('{sensor}', 2), ('{sensor}', 3)"));
        Spi::run("UPDATE iot.sensors SET sensor_status = 'active'").unwrap();
        Spi::run("UPDATE iot.rejected_readings SET received_at = received_at - interval '2 hours'").unwrap();
        assert_eq!(replay("maximum => 2"), "2 2 0 0");
        assert_eq!(replay(""), "1 1 0 0");
        let near: i64 = one(
            "SELECT count(*) FROM iot.sensor_data
              WHERE measurement_timestamp BETWEEN now() - interval '121 minutes' AND now() - interval '119 minutes'",
        );
        assert_eq!(near, 3);
    }

    #[pg_test]
    fn arguments_choose_among_them() {
        let (_, sensor) = factory();
        insert(
            "sensor_id, measurement_value",
            &format!("('{NOBODY}', 1), ('{sensor}', 'NaN'), ('{NOBODY}', 2)"),
        );
        assert_eq!(replay("maximum => 0"), "0 0 0 0");
        assert_eq!(replay("maximum => 2"), "2 0 2 0");
        assert_eq!(replay("reason => 'not_finite'"), "1 0 1 0");
        assert_eq!(replay("since => now() + interval '1 hour'"), "0 0 0 0");
        assert_eq!(replay("since => now() - interval '1 hour', reason => 'unknown_sensor'"), "2 0 2 0");
        assert_fails("SELECT iot.replay_rejected(maximum => -1)", "22023", "maximum -1", "at most");
        assert_fails("SELECT iot.replay_rejected(NULL)", "22004", "since", "");
    }

    #[pg_test]
    fn strict_mode_ends_with_the_first_refusal() {
        let (_, sensor) = factory();
        insert("sensor_id, measurement_value", &format!("('{NOBODY}', 1), ('{sensor}', 'NaN')"));
        Spi::run("SET iot_ext.strict = on").unwrap();
        assert_fails("SELECT iot.replay_rejected()", "42704", NOBODY, "iot.sensors");
        assert_eq!(waiting(), "unknown_sensor not_finite");
    }

    #[pg_test]
    fn what_is_stored_meanwhile_counts_as_a_duplicate() {
        let (_, sensor) = factory();
        let at = "'2026-01-05 12:00+00'";
        Spi::run("UPDATE iot.sensors SET sensor_status = 'inactive'").unwrap();
        insert("sensor_id, measurement_timestamp, measurement_value", &format!("('{sensor}', {at}, 1)"));
        Spi::run("UPDATE iot.sensors SET sensor_status = 'active'").unwrap();
        process(sensor, "2", at);
        assert_eq!(replay(""), "1 0 0 1");
        assert_eq!(waiting(), "");
        assert_eq!(one::<f64>("SELECT sum(measurement_value) FROM iot.sensor_data"), 2.0);
    }

    #[pg_test]
    fn devices_can_be_registered_on_the_way() {
        factory();
        Spi::run(
            "SELECT iot.ingest('{\"external_id\": \"pump-7\", \"sensor_type\": \"flow\", \"value\": 3, \"unit\": \"l/min\"}')",
        )
        .unwrap();
        assert_eq!(waiting(), "unknown_sensor");
        assert_eq!(replay(""), "1 0 1 0");
        assert_eq!(replay("register_unknown => true"), "1 1 0 0");
    }

    /// More levels than serde follows.
    fn deep() -> String {
        format!("{}{}", "[".repeat(300), "]".repeat(300))
    }

    #[pg_test]
    fn a_message_is_kept_and_replayed_however_deep_it_is() {
        let (device, _) = factory();
        let message = |value: &str| {
            format!(
                "{{\"sensor_id\": \"{NOBODY}\", \"value\": {value}, \"metadata\": {{\"a\": {}}}}}",
                deep()
            )
        };
        let (good, bare) = (message("12345678901234567890.125"), deep());
        Spi::run(&format!("SELECT iot.ingest('[{good}, {bare}, 7]')")).unwrap();
        assert_eq!(kept(), 3);
        for kept_as in [good.clone(), format!("{{\"reading\": {bare}}}"), "{\"reading\": 7}".to_owned()] {
            let found: i64 = one(&format!(
                "SELECT count(*) FROM iot.rejected_readings WHERE reading::text = '{kept_as}'::jsonb::text"
            ));
            assert_eq!(found, 1, "{kept_as}");
        }
        assert_eq!(replay(""), "3 0 3 0");
        Spi::run(&format!(
            "INSERT INTO iot.sensors (sensor_id, device_id, sensor_name, sensor_type, unit_of_measure)
             VALUES ('{NOBODY}', '{device}', 'second', 'temperature', 'degC')"
        ))
        .unwrap();
        assert_eq!(replay("reason => 'unknown_sensor'"), "1 1 0 0");
        let same: bool =
            one(&format!("SELECT measurement_metadata = '{good}'::jsonb -> 'metadata' FROM iot.sensor_data"));
        assert!(same);
    }

    #[pg_test]
    fn a_mended_text_is_replayed_however_deep_its_metadata_are() {
        let (_, sensor) = factory();
        let metadata = format!("{{\"a\": {}}}", deep());
        Spi::run(&format!(
            "INSERT INTO iot.raw_readings (sensor_id, measurement_timestamp, measurement_value, measurement_metadata, json_value)
             VALUES ('{sensor}', '2026-11-01 00:00+00', '1,5', '{metadata}', '')"
        ))
        .unwrap();
        assert_eq!(waiting(), "malformed");
        Spi::run("UPDATE iot.rejected_readings SET reading = reading || '{\"measurement_value\": \"1.5\"}'")
            .unwrap();
        assert_eq!(replay(""), "1 1 0 0");
        let stored: bool = one(&format!(
            "SELECT measurement_value = 1.5 AND measurement_metadata = '{metadata}'::jsonb FROM iot.sensor_data"
        ));
        assert!(stored);
    }

    #[pg_test]
    fn a_text_under_the_columns_name_is_kept_as_metadata() {
        factory();
        Spi::run(&format!(
            "SELECT iot.ingest('{{\"sensor_id\": \"{NOBODY}\", \"value\": 1, \"measurement_metadata\": \"{{}}\"}}')"
        ))
        .unwrap();
        let kept: String = one("SELECT (reading - 'sensor_id')::text FROM iot.rejected_readings");
        assert_eq!(kept, "{\"value\": 1, \"metadata\": \"{}\"}");
    }

    #[pg_test]
    fn nothing_is_lost_over_any_road() {
        let (_, sensor) = factory();
        Spi::run(&format!(
            "CREATE TEMP TABLE offered AS
             SELECT n % 4 AS road,
                    CASE abs(hashint4(n)) % 10 WHEN 0 THEN '{NOBODY}' ELSE '{sensor}' END AS sensor,
                    CASE abs(hashint4(n + 7000)) % 10 WHEN 0 THEN '1999-01-01 00:00+00'
                         ELSE (timestamptz '2026-01-05 12:00+00'
                               + abs(hashint4(n + 8000)) % 400 * interval '1 second')::text END AS at,
                    CASE abs(hashint4(n + 9000)) % 10 WHEN 0 THEN 'NaN' WHEN 1 THEN NULL
                         ELSE (abs(hashint4(n)) % 100)::text END AS value
               FROM generate_series(1, 1000) n"
        ))
        .unwrap();
        let columns = "sensor_id, measurement_timestamp, measurement_value";
        let reported: i64 =
            one("SELECT a.accepted + a.rejected + a.duplicates + j.accepted + j.rejected + j.duplicates
               FROM (SELECT array_agg(sensor::uuid) AS sensors, array_agg(at::timestamptz) AS times,
                            array_agg(value::float8) AS readings FROM offered WHERE road = 0) o,
                    iot.ingest(o.sensors, o.times, o.readings) a,
                    (SELECT jsonb_agg(jsonb_build_object('sensor_id', sensor, 'measurement_timestamp', at,
                                                         'measurement_value', value)) AS readings
                       FROM offered WHERE road = 1) m,
                    iot.ingest(m.readings) j");
        assert_eq!(reported, 500);
        Spi::run(&format!(
            "INSERT INTO iot.readings ({columns})
             SELECT sensor::uuid, at::timestamptz, value::float8 FROM offered WHERE road = 2;
             INSERT INTO iot.raw_readings ({columns})
             SELECT sensor, at, replace(value, 'NaN', '6;5') FROM offered WHERE road = 3"
        ))
        .unwrap();
        let good = format!("FROM offered WHERE sensor = '{sensor}' AND at > '2000' AND value <> 'NaN'");
        let accepted: i64 = one(&format!("SELECT count(DISTINCT at) {good}"));
        let duplicates: i64 = one(&format!("SELECT count(*) - count(DISTINCT at) {good}"));
        let stored = || one::<i64>("SELECT count(*) FROM iot.sensor_data");
        assert_eq!(stored(), accepted);
        assert_eq!(stored() + duplicates + kept(), 1000);
        let refused = kept();
        assert!(refused > 300 && duplicates > 50, "{refused} {duplicates}");

        assert_eq!(replay(""), format!("{refused} 0 {refused} 0"));
        assert_eq!(kept(), refused, "none is kept twice");
        Spi::run(&format!(
            "UPDATE iot.rejected_readings r
                SET reading = reading || jsonb_build_object('sensor_id', '{sensor}', 'measurement_value', 20.5,
                        'measurement_timestamp', timestamptz '2026-01-05 14:00+00' + n / 2 * interval '1 second')
               FROM (SELECT rejection_id, row_number() OVER () AS n FROM iot.rejected_readings) o
              WHERE o.rejection_id = r.rejection_id"
        ))
        .unwrap();
        let mended = refused / 2 + 1;
        assert_eq!(replay(""), format!("{refused} {mended} 0 {}", refused - mended));
        assert_eq!((waiting(), kept()), (String::new(), refused));
        assert_eq!(stored() + duplicates + (refused - mended), 1000);
    }
}
