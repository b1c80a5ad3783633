//! The stream road: `iot.readings` and `iot.raw_readings`.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, factory, failure, one};

    fn stored() -> i64 {
        one("SELECT count(*) FROM iot.sensor_data")
    }

    /// What was rejected: reason, SQLSTATE and the reading, in order of arrival.
    fn rejected() -> String {
        one("SELECT COALESCE(string_agg(concat_ws(' ', reason, sqlstate), ', ' ORDER BY rejection_id), '')
               FROM iot.rejected_readings")
    }

    #[pg_test]
    fn inserted_values_go_through_the_pipeline() {
        let (device, sensor) = factory();
        Spi::run(&format!(
            "INSERT INTO iot.readings VALUES ('{sensor}', now() - interval '1 hour', 21.5, '{{\"rssi\": -60}}'),
                                             ('{sensor}', NULL, 22.5, NULL)"
        ))
        .unwrap();
        let found: String = one(&format!(
            "SELECT string_agg(concat_ws('|', measurement_value, measurement_unit, data_quality, measurement_metadata,
                                         device_id = '{device}', measurement_timestamp <= clock_timestamp()), ' '
                               ORDER BY measurement_value) FROM iot.sensor_data"
        ));
        assert_eq!(found, "21.5|degC|valid|{\"rssi\": -60}|t|t 22.5|degC|valid|{}|t|t");
        assert_eq!(rejected(), "");
    }

    #[pg_test]
    fn any_columns_in_any_order() {
        let (_, sensor) = factory();
        Spi::run(&format!("INSERT INTO iot.readings (measurement_value, sensor_id) VALUES (1, '{sensor}')"))
            .unwrap();
        Spi::run(&format!(
            "INSERT INTO iot.raw_readings (measurement_value, sensor_id) VALUES (2, '{sensor}')"
        ))
        .unwrap();
        assert_eq!(one::<f64>("SELECT sum(measurement_value) FROM iot.sensor_data"), 3.0);
    }

    #[pg_test]
    fn twenty_five_thousand_rows_arrive() {
        let (_, sensor) = factory();
        Spi::run(&format!(
            "INSERT INTO iot.readings
             SELECT '{sensor}', '2026-01-01 00:00+00'::timestamptz + n * interval '15 minutes', n
               FROM generate_series(1, 25000) n"
        ))
        .unwrap();
        assert_eq!(stored(), 25_000);
        assert_eq!(one::<f64>("SELECT sum(measurement_value) FROM iot.sensor_data"), 312_512_500.0);
    }

    #[pg_test]
    fn what_cannot_be_accepted_is_rejected_and_the_rest_goes_on() {
        let (device, sensor) = factory();
        let unknown = "00000000-0000-0000-0000-000000000001";
        Spi::run(&format!(
            "INSERT INTO iot.readings VALUES
                 ('{sensor}', now(), 1, NULL, NULL, NULL, NULL),
                 ('{unknown}', now(), 2, '{{\"a\": {{\"b\": null}}}}', NULL, NULL, NULL),
                 ('{sensor}', now() - interval '1 second', 'NaN', NULL, NULL, NULL, NULL),
                 ('{sensor}', now() - interval '11 years', 4, NULL, NULL, NULL, NULL),
                 ('{sensor}', 'infinity', 5, NULL, NULL, NULL, NULL),
                 (NULL, now(), 6, NULL, NULL, NULL, NULL),
                 ('{sensor}', now(), NULL, NULL, NULL, NULL, NULL),
                 ('{sensor}', now(), NULL, NULL, 'open', true, '[1]'),
                 ('{sensor}', now() - interval '2 seconds', 8, NULL, NULL, NULL, NULL)"
        ))
        .unwrap();
        assert_eq!(stored(), 2);
        assert_eq!(
            rejected(),
            "missing_sensor 22004, missing_value 22004, ambiguous_value 22023, unknown_sensor 42704, not_finite 22003, \
             too_old 22008, too_new 22008"
        );
        let first: String =
            one("SELECT concat_ws('|', sensor_id, device_id IS NULL, measurement_value, message,
                             reading - 'measurement_timestamp', replayed_at IS NULL)
                FROM iot.rejected_readings WHERE reason = 'unknown_sensor'");
        assert_eq!(
            first,
            format!(
                "{unknown}|t|2|sensor \"{unknown}\" does not exist|{{\"sensor_id\": \"{unknown}\", \
                 \"measurement_value\": 2.0, \"measurement_metadata\": {{\"a\": {{\"b\": null}}}}}}|t"
            )
        );
        let other: String = one("SELECT concat_ws('|', device_id, reading ->> 'text_value', reading ->> 'boolean_value',
                             reading -> 'json_value') FROM iot.rejected_readings WHERE reason = 'ambiguous_value'");
        assert_eq!(other, format!("{device}|open|true|[1]"));
        let not_finite: String =
            one("SELECT (reading ->> 'measurement_value') || measurement_value FROM iot.rejected_readings
              WHERE reason = 'not_finite'");
        assert_eq!(not_finite, "NaNNaN");
    }

    #[pg_test]
    fn inactive_sensors_are_rejected() {
        let (_, sensor) = factory();
        Spi::run("UPDATE iot.sensors SET sensor_status = 'inactive'").unwrap();
        Spi::run(&format!("INSERT INTO iot.readings VALUES ('{sensor}', now(), 1)")).unwrap();
        assert_eq!(rejected(), "inactive_sensor 55000");
    }

    #[pg_test]
    fn a_duplicate_is_not_a_rejection() {
        let (_, sensor) = factory();
        for value in [1, 2] {
            Spi::run(&format!(
                "INSERT INTO iot.readings VALUES ('{sensor}', '2026-01-05 12:00+00', {value})"
            ))
            .unwrap();
        }
        assert_eq!(one::<f64>("SELECT sum(measurement_value) FROM iot.sensor_data"), 1.0);
        assert_eq!(rejected(), "");
    }

    #[pg_test]
    fn strict_fails_the_statement() {
        let (_, sensor) = factory();
        Spi::run("SET iot_ext.strict = on").unwrap();
        let good = format!("('{sensor}', now(), 1)");
        let bad = "('00000000-0000-0000-0000-000000000001', now(), 2)";
        assert_fails(
            &format!("INSERT INTO iot.readings VALUES {good}, {bad}"),
            "42704",
            "does not exist",
            "iot.sensors",
        );
        assert_fails(
            &format!("INSERT INTO iot.raw_readings VALUES ('{sensor}', '', 'warm')"),
            "22P02",
            "warm",
            "",
        );
        assert_eq!((stored(), rejected().as_str()), (0, ""));
    }

    #[pg_test]
    fn what_does_not_work_says_so() {
        let (_, sensor) = factory();
        for table in ["iot.readings", "iot.raw_readings"] {
            let insert =
                format!("INSERT INTO {table} (sensor_id, measurement_value) VALUES ('{sensor}', '1')");
            for (statement, message, hint) in [
                (format!("SELECT * FROM {table}"), "cannot read", "iot.sensor_data"),
                (format!("SELECT count(*) FROM {table} r JOIN iot.sensors USING (sensor_name)"), "", ""),
                (format!("SELECT 1 FROM {table} FOR UPDATE"), "cannot read", "iot.sensor_data"),
                (format!("EXPLAIN SELECT * FROM {table}"), "cannot read", "iot.sensor_data"),
                (format!("UPDATE {table} SET text_value = ''"), "cannot update", "iot.sensor_data"),
                (format!("EXPLAIN UPDATE {table} SET text_value = ''"), "cannot update", "iot.sensor_data"),
                (format!("DELETE FROM {table}"), "cannot update or delete", "iot.sensor_data"),
                (format!("EXPLAIN DELETE FROM {table} WHERE false"), "delete", "iot.sensor_data"),
                (format!("TRUNCATE {table}"), "cannot truncate", "Truncate iot.sensor_data"),
                (format!("{insert} RETURNING sensor_id"), "RETURNING", "iot.sensor_data"),
                (format!("EXPLAIN {insert} RETURNING sensor_id"), "RETURNING", "iot.sensor_data"),
                (format!("{insert} ON CONFLICT DO NOTHING"), "ON CONFLICT", "duplicates policy"),
            ] {
                let expected = if statement.contains("JOIN") { "42703" } else { "0A000" };
                assert_fails(&statement, expected, message, hint);
                if expected == "0A000" {
                    assert_fails(&statement, expected, &format!("foreign table \"{}\"", &table[4..]), hint);
                }
            }
        }
        assert_fails("COPY iot.readings TO '/dev/null'", "42809", "", "");
        assert_eq!((stored(), rejected().as_str()), (0, ""));
    }

    #[pg_test]
    fn a_rejected_number_that_came_as_text_is_kept_as_a_number() {
        let (_, sensor) = factory();
        Spi::run(&format!(
            "SELECT iot.ingest(ARRAY['{sensor}'::uuid], ARRAY[now()], '{{NaN}}');
             SELECT iot.ingest('{{\"sensor_id\": \"{sensor}\", \"value\": \"NaN\"}}');
             INSERT INTO iot.readings (sensor_id, measurement_value) VALUES ('{sensor}', 'NaN');
             INSERT INTO iot.readings (sensor_id, text_value) VALUES ('{sensor}', 'NaN');
             INSERT INTO iot.raw_readings (sensor_id, measurement_value) VALUES ('{sensor}', 'NaN')"
        ))
        .unwrap();
        let kept: String =
            one("SELECT string_agg(DISTINCT concat_ws(' ', reason, coalesce(measurement_value::text, 'none')), ', ')
                   || count(*) FROM iot.rejected_readings");
        assert_eq!(kept, "not_finite NaN5");
    }

    #[pg_test]
    fn explain_stores_nothing_and_explain_analyze_does() {
        let (_, sensor) = factory();
        let insert = format!("INSERT INTO iot.readings VALUES ('{sensor}', now(), 1)");
        let plan: Vec<String> = Spi::connect(|client| {
            client
                .select(&format!("EXPLAIN {insert}"), None, &[])
                .unwrap()
                .map(|row| row.get::<String>(1).unwrap().unwrap())
                .collect()
        });
        assert!(plan.iter().any(|line| line.contains("Stores in: iot.sensor_data")), "{plan:?}");
        assert_eq!(stored(), 0);
        Spi::run(&format!("EXPLAIN ANALYZE {insert}")).unwrap();
        assert_eq!(stored(), 1);
    }

    #[pg_test]
    fn rows_of_a_failed_statement_are_gone() {
        let (_, sensor) = factory();
        let (state, ..) = failure(&format!(
            "INSERT INTO iot.readings SELECT '{sensor}', now() - n * interval '1 minute', 100 / (50 - n)
               FROM generate_series(1, 60) n"
        ));
        assert_eq!(state, "22012");
        let (state, ..) = failure(&format!(
            "INSERT INTO iot.readings
             SELECT '{sensor}', '2024-01-01 00:00+00'::timestamptz + n * interval '1 hour', 1 / (11000 - n)
               FROM generate_series(1, 12000) n"
        ));
        assert_eq!(state, "22012", "after the first batch was stored");
        Spi::run(&format!("INSERT INTO iot.readings VALUES ('{sensor}', now(), 7)")).unwrap();
        assert_eq!(
            one::<String>("SELECT string_agg(measurement_value::text, ',') FROM iot.sensor_data"),
            "7"
        );
        assert_eq!(rejected(), "");
    }

    #[pg_test]
    fn statements_inside_each_other_keep_their_rows_apart() {
        let (_, sensor) = factory();
        Spi::run(&format!(
            "CREATE FUNCTION pg_temp.nested(n integer) RETURNS timestamptz LANGUAGE plpgsql AS $$
             BEGIN
                 IF n % 2 = 0 THEN
                     INSERT INTO iot.readings VALUES ('{sensor}', now() - n * interval '1 hour', -n);
                 ELSE
                     BEGIN
                         INSERT INTO iot.readings VALUES ('{sensor}', now() - n * interval '1 hour', -n);
                         RAISE division_by_zero;
                     EXCEPTION WHEN division_by_zero THEN NULL;
                     END;
                 END IF;
                 RETURN now() - n * interval '1 minute';
             END $$;
             INSERT INTO iot.readings SELECT '{sensor}', pg_temp.nested(n), n FROM generate_series(1, 4) n"
        ))
        .unwrap();
        let values: String = one(
            "SELECT string_agg(measurement_value::text, ',' ORDER BY measurement_value) FROM iot.sensor_data",
        );
        assert_eq!(values, "-4,-2,1,2,3,4");
    }

    #[pg_test]
    fn a_modifying_query_stores_too() {
        let (_, sensor) = factory();
        Spi::run(&format!("WITH w AS (INSERT INTO iot.readings VALUES ('{sensor}', now(), 1)) SELECT 1"))
            .unwrap();
        assert_eq!(stored(), 1);
    }

    #[pg_test]
    fn raw_rows_are_read_as_postgresql_reads_them() {
        let (_, sensor) = factory();
        Spi::run("SET timezone = 'Europe/Berlin'").unwrap();
        let bare = sensor.to_string().replace('-', "").to_uppercase();
        Spi::run(&format!(
            "INSERT INTO iot.raw_readings VALUES
                 ('{sensor}', '2026-01-05T12:00:00Z', '1', '{{\"a\": 1}}'),
                 ('{{{bare}}}', '2026-01-05 14:00', ' 2 ', '{{\"a\": 1e2}}'),
                 ('{sensor}', 'Mon Jan 5 15:00:00 2026 CET', '+3', ''),
                 ('{sensor}', '2026-01-05 15:30:00.1234567+01', '4e0', '{{\"a\": \"\\u00e9\"}}'),
                 ('{sensor}', '', '5', NULL)"
        ))
        .unwrap();
        assert_eq!(rejected(), "");
        let found: String = one("SELECT string_agg(concat_ws(' ', measurement_value,
                        to_char(measurement_timestamp AT TIME ZONE 'UTC', 'HH24:MI:SS.US'),
                        measurement_metadata), ', ' ORDER BY measurement_value)
               FROM iot.sensor_data WHERE measurement_value < 5");
        assert_eq!(
            found,
            "1 12:00:00.000000 {\"a\": 1}, 2 13:00:00.000000 {\"a\": 100}, 3 14:00:00.000000 {}, \
             4 14:30:00.123457 {\"a\": \"é\"}"
        );
        assert_eq!(stored(), 5);
    }

    #[pg_test]
    fn usual_text_is_read_without_postgresql_but_as_postgresql_would() {
        let (_, sensor) = factory();
        Spi::run(&format!(
            "CREATE TEMPORARY TABLE offered AS
             SELECT n, ((n * 7919 % 100003) / 1e7 * 10 ^ (n % 12))::text AS number,
                    to_char(timestamp '2020-02-27' + n * interval '7 days 11 hours 13.000017 seconds',
                            'YYYY-MM-DD\"T\"HH24:MI:SS.US')
                    || (ARRAY['Z', '+00', '-03:30', '+1245', '+15:59'])[n % 5 + 1] AS at
               FROM generate_series(1, 300) n;
             INSERT INTO iot.raw_readings (sensor_id, measurement_timestamp, measurement_value)
             SELECT '{sensor}', at, number FROM offered"
        ))
        .unwrap();
        let alike: i64 = one("SELECT count(*) FROM iot.sensor_data d JOIN offered o
                  ON d.measurement_timestamp = o.at::timestamptz AND d.measurement_value = o.number::float8");
        assert_eq!((alike, rejected().as_str()), (300, ""));
    }

    #[pg_test]
    fn malformed_rows_are_rejected_one_by_one() {
        let (_, sensor) = factory();
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        Spi::run(&format!(
            "INSERT INTO iot.raw_readings VALUES
                 ('{sensor}', now()::text, '1', NULL, NULL, NULL, NULL),
                 ('sensor 7', now()::text, '2', NULL, NULL, NULL, NULL),
                 ('', now()::text, '2', NULL, NULL, NULL, NULL),
                 ('{sensor}', 'yesterday noon', '3', NULL, NULL, NULL, NULL),
                 ('{sensor}', '2026-02-30 12:00Z', '4', NULL, NULL, NULL, NULL),
                 ('{sensor}', now()::text, 'warm', NULL, NULL, NULL, NULL),
                 ('{sensor}', now()::text, '1e999', NULL, NULL, NULL, NULL),
                 ('{sensor}', now()::text, '5', '{{', NULL, NULL, NULL),
                 ('{sensor}', now()::text, '5', '{{\"a\": \"\\u0000\"}}', NULL, NULL, NULL),
                 ('{sensor}', now()::text, '5', '{deep}', NULL, NULL, NULL),
                 ('{sensor}', now()::text, NULL, NULL, NULL, 'perhaps', NULL),
                 ('{sensor}', (now() - interval '1 second')::text, '', NULL, NULL, NULL, NULL),
                 ('{sensor}', (now() - interval '2 seconds')::text, '6', NULL, NULL, NULL, NULL)"
        ))
        .unwrap();
        assert_eq!(stored(), 2);
        assert_eq!(
            rejected(),
            "malformed 22P02, malformed 22P02, malformed 22007, malformed 22008, malformed 22P02, out_of_range 22003, \
             malformed 22P02, malformed 22P05, malformed 54001, malformed 22P02, missing_value 22004"
        );
        let kept: String = one("SELECT concat_ws('|', sensor_id IS NULL, measurement_timestamp = now(), measurement_value,
                             reading ->> 'sensor_id', message) FROM iot.rejected_readings ORDER BY rejection_id LIMIT 1");
        assert_eq!(kept, "t|t|2|sensor 7|invalid input syntax for type uuid: \"sensor 7\"");
    }

    #[pg_test]
    fn before_setup_an_insert_says_what_to_do() {
        let sensor = "00000000-0000-0000-0000-000000000001";
        for table in ["iot.readings", "iot.raw_readings"] {
            let insert = format!("INSERT INTO {table} (sensor_id) VALUES ('{sensor}')");
            assert_fails(&insert, "55000", "do not exist", "SELECT iot.setup()");
        }
    }

    #[pg_test]
    fn no_other_foreign_table_is_served() {
        factory();
        assert_fails(
            "CREATE FOREIGN TABLE public.other (sensor_id uuid) SERVER iot_readings OPTIONS (format 'csv')",
            "22023",
            "csv",
            "typed",
        );
        assert_fails(
            "CREATE FOREIGN TABLE public.other (sensor_id uuid) SERVER iot_readings OPTIONS (file 'x')",
            "HV00D",
            "file",
            "format",
        );
        assert_fails(
            "ALTER SERVER iot_readings OPTIONS (ADD format 'raw')",
            "HV00D",
            "format",
            "foreign table",
        );
        Spi::run(
            "CREATE FOREIGN TABLE public.other (sensor_id uuid) SERVER iot_readings OPTIONS (format 'typed');
             CREATE TABLE public.parent (sensor_id uuid) PARTITION BY LIST (sensor_id);
             CREATE FOREIGN TABLE public.child PARTITION OF public.parent DEFAULT SERVER iot_readings
                 OPTIONS (format 'typed')",
        )
        .unwrap();
        assert_fails("INSERT INTO public.other VALUES (NULL)", "0A000", "other", "iot.readings");
        assert_fails(
            "INSERT INTO public.parent VALUES (NULL)",
            "0A000",
            "\"child\" cannot take rows as a partition",
            "iot.readings",
        );
    }

    #[pg_test]
    fn a_changed_table_is_refused() {
        factory();
        Spi::run("ALTER FOREIGN TABLE iot.readings ADD COLUMN battery real").unwrap();
        assert_fails(
            "INSERT INTO iot.readings (text_value) VALUES ('')",
            "42703",
            "battery",
            "Drop the column",
        );
        Spi::run("ALTER FOREIGN TABLE iot.readings DROP COLUMN battery, DROP COLUMN text_value").unwrap();
        Spi::run("INSERT INTO iot.readings (sensor_id, json_value) VALUES (NULL, '1')").unwrap();
        assert_eq!(rejected(), "missing_sensor 22004");
        Spi::run("ALTER FOREIGN TABLE iot.readings ALTER COLUMN measurement_value TYPE real").unwrap();
        assert_fails(
            "INSERT INTO iot.readings (sensor_id) VALUES (NULL)",
            "42804",
            "measurement_value",
            "type",
        );
    }
}
