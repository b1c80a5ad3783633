//! Processing rules and what they derive.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::datum::Uuid;
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, factory, one, process};

    fn processing_rule(name: &str, rule_type: &str, definition: &str, scope: &str) -> Uuid {
        one(&insert_rule(name, rule_type, definition, scope))
    }

    fn insert_rule(name: &str, rule_type: &str, definition: &str, scope: &str) -> String {
        let (column, value) = scope.split_once('=').unwrap_or(("sensor_id", "NULL"));
        format!(
            "INSERT INTO iot.data_processing_rules (rule_name, rule_type, rule_definition, {column})
             VALUES ('{name}', '{rule_type}', '{definition}', {value}) RETURNING processing_rule_id"
        )
    }

    fn at(second: u32) -> String {
        format!("'2026-01-05 12:{:02}:{:02}+00'", second / 60, second % 60)
    }

    /// Values of a series in the order of their times, `!` standing for an error.
    fn outputs(name: &str) -> String {
        one(&format!(
            "SELECT COALESCE(string_agg(COALESCE(round(processed_value::numeric, 6)::float8::text, '!'), ' '
                                        ORDER BY measurement_timestamp), '')
               FROM iot.processed_data WHERE output_name = '{name}'"
        ))
    }

    fn second_sensor(device: Uuid, name: &str, kind: &str) -> Uuid {
        one(&format!(
            "INSERT INTO iot.sensors (device_id, sensor_name, sensor_type, unit_of_measure)
             VALUES ('{device}', '{name}', '{kind}', 'x') RETURNING sensor_id"
        ))
    }

    /// The Magnus formula; of sensors whose values are at most a minute older than the reading.
    const DEW_POINT: &str = r#"{"unit": "degC",
        "expression": "243.5 * (ln(h / 100) + 17.67 * t / (243.5 + t))
                       / (17.67 - (ln(h / 100) + 17.67 * t / (243.5 + t)))",
        "inputs": {"t": {"sensor_type": "temperature"},
                   "h": {"sensor_name": "hygrometer", "max_age_seconds": 60}}}"#;

    #[pg_test]
    fn every_kind_of_rule_derives_its_values() {
        let (_, sensor) = factory();
        let scope = "sensor_type='temperature'";
        processing_rule("fahrenheit", "scale", r#"{"factor": 1.8, "offset": 32, "unit": "degF"}"#, scope);
        processing_rule("limited", "clamp", r#"{"minimum": 10, "maximum": 30}"#, scope);
        processing_rule("smooth", "moving_average", r#"{"readings": 2}"#, scope);
        processing_rule("smooth by time", "moving_average", r#"{"seconds": 15}"#, scope);
        processing_rule("change", "difference", "{}", scope);
        processing_rule("rate", "difference", r#"{"per": "minute"}"#, scope);
        processing_rule("squared", "expression", r#"{"expression": "value ^ 2"}"#, scope);
        for (second, value) in [(0, "0"), (10, "20"), (20, "40")] {
            process(sensor, value, &at(second));
        }
        assert_eq!(outputs("fahrenheit"), "32 68 104");
        assert_eq!(outputs("limited"), "10 20 30");
        assert_eq!(outputs("smooth"), "0 10 30");
        assert_eq!(outputs("smooth by time"), "0 10 30");
        assert_eq!(outputs("change"), "20 20");
        assert_eq!(outputs("rate"), "120 120");
        assert_eq!(outputs("squared"), "0 400 1600");
        let row: String = one(
            "SELECT concat_ws('|', p.unit, p.rule_version, p.series_id = p.sensor_id, p.sensor_id = r.sensor_id,
                              p.device_id = r.device_id, p.evaluation_error IS NULL)
               FROM iot.processed_data p JOIN iot.sensor_data r USING (data_id)
              WHERE p.output_name = 'fahrenheit' AND r.measurement_value = 20",
        );
        assert_eq!(row, "degF|1|t|t|t|t");
        assert_eq!(
            one::<i64>("SELECT count(*) FROM iot.processing_states"),
            4,
            "only rules that remember have a state"
        );
    }

    #[pg_test]
    fn rules_read_each_others_outputs_whatever_their_order() {
        let (_, sensor) = factory();
        let scope = "sensor_type='temperature'";
        Spi::run(
            r#"INSERT INTO iot.data_processing_rules (rule_name, sensor_type, rule_type, rule_definition, execution_order)
               VALUES ('rate', 'temperature', 'difference', '{"input": "smooth", "per": "second"}', 1),
                      ('smooth', 'temperature', 'moving_average', '{"input": "double", "readings": 2}', 2),
                      ('double', 'temperature', 'scale', '{"factor": 2, "output": "double"}', 3)"#,
        )
        .unwrap();
        processing_rule(
            "sum",
            "expression",
            r#"{"expression": "value + r", "inputs": {"r": {"output": "rate"}}}"#,
            scope,
        );
        for (second, value) in [(0, "1"), (1, "2"), (2, "6")] {
            process(sensor, value, &at(second));
        }
        assert_eq!(outputs("double"), "2 4 12");
        assert_eq!(outputs("smooth"), "2 3 8");
        assert_eq!(outputs("rate"), "1 5");
        assert_eq!(outputs("sum"), "3 11", "nothing to add to the first reading");
    }

    #[pg_test]
    fn an_expression_over_two_sensors_is_about_the_device() {
        let (device, temperature) = factory();
        let humidity = second_sensor(device, "hygrometer", "humidity");
        processing_rule("dew point", "expression", &DEW_POINT.replace('\n', " "), "");
        process(temperature, "20", &at(0));
        assert_eq!(outputs("dew point"), "", "no humidity yet");
        process(humidity, "50", &at(10));
        process(temperature, "25", &at(20));
        process(temperature, "25", &at(200));
        assert_eq!(outputs("dew point"), "9.270086 13.867617", "the humidity is too old for the last one");
        let row: String = one(&format!(
            "SELECT concat_ws('|', count(*), bool_and(sensor_id IS NULL), bool_and(series_id = '{device}'))
               FROM iot.processed_data"
        ));
        assert_eq!(row, "2|t|t");
        // Both sensors at once: the second reading completes the picture, and its result is the one that stays.
        process(temperature, "30", &at(300));
        process(humidity, "50", &at(300));
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.processed_data"), 3);
        assert_eq!(
            one::<f64>(
                "SELECT round(processed_value) FROM iot.processed_data ORDER BY measurement_timestamp DESC LIMIT 1"
            ),
            18.0
        );
    }

    #[pg_test]
    fn a_result_that_another_sensors_readings_need_is_kept() {
        let (device, temperature) = factory();
        let humidity = second_sensor(device, "hygrometer", "humidity");
        processing_rule("smooth", "moving_average", r#"{"readings": 2}"#, "sensor_type='temperature'");
        processing_rule(
            "both",
            "expression",
            r#"{"expression": "value + s", "inputs": {"s": {"output": "smooth"}}}"#,
            "sensor_type='humidity'",
        );
        process(temperature, "10", &at(0));
        process(temperature, "20", &at(1));
        process(humidity, "50", &at(2));
        assert_eq!(outputs("both"), "65");
        assert_eq!(one::<f64>("SELECT last_output_value FROM iot.processing_states"), 15.0);
    }

    #[pg_test]
    fn loops_and_missing_references_are_refused() {
        let (device, sensor) = factory();
        let scope = "sensor_type='temperature'";
        assert_fails(
            &insert_rule("a", "scale", r#"{"factor": 2, "input": "a"}"#, scope),
            "22023",
            "loop: a → a",
            "read something else",
        );
        Spi::run(&insert_rule("a", "scale", r#"{"factor": 2, "input": "b"}"#, scope)).unwrap();
        assert_fails(
            &insert_rule("b", "scale", r#"{"factor": 2, "input": "a"}"#, ""),
            "22023",
            "loop",
            "read something else",
        );
        Spi::run(&insert_rule("b", "scale", r#"{"factor": 2}"#, scope)).unwrap();
        assert_fails(
            "UPDATE iot.data_processing_rules SET rule_definition = '{\"factor\": 2, \"input\": \"a\"}'
              WHERE rule_name = 'b'",
            "22023",
            "loop",
            "",
        );
        assert_fails(
            &insert_rule("c", "scale", r#"{"factor": 3, "output": "b"}"#, &format!("sensor_id='{sensor}'")),
            "22023",
            "both have the output",
            "another \"output\"",
        );
        let own = format!("sensor_id='{sensor}'");
        assert_fails(
            &insert_rule(
                "d",
                "expression",
                r#"{"expression": "value - h", "inputs": {"h": {"sensor_type": "humidity"}}}"#,
                &own,
            ),
            "22023",
            "which does not exist",
            "same device",
        );
        // About many devices, of which some may have it.
        Spi::run(&insert_rule(
            "d",
            "expression",
            r#"{"expression": "value - h", "inputs": {"h": {"sensor_type": "humidity"}}}"#,
            scope,
        ))
        .unwrap();
        // On no device yet.
        Spi::run(&insert_rule("e", "scale", r#"{"factor": 2, "input": "f"}"#, "sensor_type='pressure'"))
            .unwrap();
        assert_fails(
            &insert_rule("f", "clamp", r#"{"minimum": 2, "input": "e"}"#, "sensor_type='pressure'"),
            "22023",
            "loop",
            "",
        );
        process(sensor, "1", &at(0));
        assert_eq!(outputs("a"), "4");
        second_sensor(device, "hygrometer", "humidity");
        process(sensor, "1", &at(1));
        assert_eq!(outputs("a"), "4 4", "a new sensor on the device is taken in");
    }

    #[pg_test]
    fn malformed_definitions_are_refused() {
        factory();
        for (rule_type, definition, message, hint) in [
            ("sql", "{}", "sql", "scale, clamp"),
            ("scale", "{}", "factor", ""),
            ("scale", r#"{"factor": "warm"}"#, "warm", "finite number"),
            ("scale", r#"{"faktor": 1}"#, "faktor", "factor"),
            ("clamp", r#"{"minimum": 2, "maximum": 1}"#, "minimum", ""),
            ("moving_average", r#"{"readings": 0}"#, "readings", ""),
            ("difference", r#"{"per": "day"}"#, "per", "minute"),
            ("expression", r#"{"expression": "value +"}"#, "expression", ""),
            ("expression", r#"{"expression": "1; DROP TABLE x"}"#, "expression", ""),
            ("expression", r#"{"expression": "value + t"}"#, "t", ""),
        ] {
            assert_fails(&insert_rule("r", rule_type, definition, ""), "22023", message, hint);
        }
        assert_fails(&insert_rule("value", "scale", r#"{"factor": 2}"#, ""), "22023", "value", "");
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.data_processing_rules"), 0);
    }

    #[pg_test]
    fn versions_count_changes_of_what_a_rule_does() {
        let (_, sensor) = factory();
        processing_rule("smooth", "moving_average", r#"{"readings": 3}"#, "sensor_type='temperature'");
        process(sensor, "10", &at(0));
        Spi::run("UPDATE iot.data_processing_rules SET description = 'x'").unwrap();
        process(sensor, "20", &at(1));
        assert_eq!(outputs("smooth"), "10 15");
        Spi::run("UPDATE iot.data_processing_rules SET rule_version = 7").unwrap();
        Spi::run(
            r#"UPDATE iot.data_processing_rules SET rule_definition = '{"readings": 3, "input": "raw"}'"#,
        )
        .unwrap();
        process(sensor, "40", &at(2));
        assert_eq!(outputs("smooth"), "10 15 40", "another definition begins anew");
        let versions: String = one(
            "SELECT string_agg(rule_version::text, ' ' ORDER BY measurement_timestamp) FROM iot.processed_data",
        );
        assert_eq!(versions, "1 1 8");
    }

    #[pg_test]
    fn disabled_and_deleted_rules_do_nothing() {
        let (_, sensor) = factory();
        processing_rule("change", "difference", "{}", "sensor_type='temperature'");
        process(sensor, "1", &at(0));
        Spi::run("UPDATE iot.data_processing_rules SET is_active = false").unwrap();
        process(sensor, "2", &at(1));
        assert_eq!(outputs("change"), "");
        Spi::run("UPDATE iot.data_processing_rules SET is_active = true").unwrap();
        process(sensor, "4", &at(2));
        assert_eq!(outputs("change"), "3", "since the last reading that it saw");
        Spi::run("DELETE FROM iot.data_processing_rules").unwrap();
        process(sensor, "8", &at(3));
        assert_eq!(outputs("change"), "3");
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.processing_states"), 0);
    }

    #[pg_test]
    fn late_readings_and_those_from_the_future() {
        let (_, sensor) = factory();
        processing_rule("change", "difference", "{}", "sensor_type='temperature'");
        processing_rule("double", "scale", r#"{"factor": 2}"#, "sensor_type='temperature'");
        process(sensor, "1", &at(10));
        process(sensor, "100", &at(5));
        process(sensor, "7", "clock_timestamp() + interval '1 day'");
        process(sensor, "3", &at(20));
        process(sensor, "3", &at(20));
        assert_eq!(outputs("change"), "2", "a late reading changes nothing that needs order");
        assert_eq!(outputs("double"), "200 2 6");
    }

    #[pg_test]
    fn a_rule_that_fails_on_a_reading_says_why() {
        let (_, sensor) = factory();
        processing_rule(
            "inverse",
            "expression",
            r#"{"expression": "1 / value"}"#,
            "sensor_type='temperature'",
        );
        process(sensor, "0", &at(0));
        process(sensor, "4", &at(1));
        assert_eq!(outputs("inverse"), "! 0.25");
        let error: String =
            one("SELECT evaluation_error FROM iot.processed_data WHERE processed_value IS NULL");
        assert!(error.contains("zero"), "{error}");
    }

    #[pg_test]
    fn what_is_rolled_back_leaves_no_state() {
        let (_, sensor) = factory();
        processing_rule("smooth", "moving_average", r#"{"readings": 10}"#, "sensor_type='temperature'");
        process(sensor, "10", &at(0));
        let attempt = format!(
            "DO $$ BEGIN
                 PERFORM iot.process_sensor_data('{sensor}', 50, measurement_timestamp => {});
                 RAISE EXCEPTION 'no';
             EXCEPTION WHEN raise_exception THEN NULL;
             END $$",
            at(1)
        );
        Spi::run(&attempt).unwrap();
        process(sensor, "20", &at(2));
        assert_eq!(outputs("smooth"), "10 15");
        Spi::run(&format!(
            r#"DO $$ BEGIN
                 INSERT INTO iot.data_processing_rules (rule_name, sensor_type, rule_type, rule_definition)
                 VALUES ('double', 'temperature', 'scale', '{{"factor": 2}}');
                 PERFORM iot.process_sensor_data('{sensor}', 10, measurement_timestamp => {});
                 RAISE EXCEPTION 'no';
             EXCEPTION WHEN raise_exception THEN NULL;
             END $$"#,
            at(3)
        ))
        .unwrap();
        process(sensor, "30", &at(4));
        assert_eq!(outputs("smooth"), "10 15 20");
        assert_eq!(outputs("double"), "", "nor does a rule that was never committed");
    }

    #[pg_test]
    fn a_batch_comes_to_the_same_as_single_calls() {
        let (device, temperature) = factory();
        let humidity = second_sensor(device, "hygrometer", "humidity");
        let other: Uuid =
            one("INSERT INTO iot.devices (device_serial_number) VALUES ('D-2') RETURNING device_id");
        let (other_temperature, other_humidity) =
            (second_sensor(other, "probe", "temperature"), second_sensor(other, "hygrometer", "humidity"));
        processing_rule("smooth", "moving_average", r#"{"readings": 5}"#, "sensor_type='temperature'");
        processing_rule("rate", "difference", r#"{"input": "smooth", "per": "second"}"#, "");
        processing_rule(
            "both",
            "expression",
            r#"{"expression": "t * 100 + h + s", "inputs": {"t": {"sensor_type": "temperature"},
                "h": {"sensor_type": "humidity"}, "s": {"output": "smooth"}}}"#,
            "",
        );
        processing_rule("trend", "difference", r#"{"input": "both"}"#, "");
        // What the rules find when they begin.
        for (one, another) in [(temperature, other_temperature), (humidity, other_humidity)] {
            process(one, "5", &at(0));
            process(another, "5", &at(0));
        }
        // Two sensors in turn, some of it late, some of it twice.
        let readings: Vec<(bool, u32, u32)> =
            (0..200_u32).map(|n| (n % 3 == 0, (n * 7919) % 97, 1 + n % 5 + n)).collect();
        let rows: Vec<String> = readings
            .iter()
            .map(|&(is_humidity, value, second)| {
                let sensor = if is_humidity { humidity } else { temperature };
                format!("('{sensor}', {}::timestamptz, {value})", at(second))
            })
            .collect();
        Spi::run(&format!(
            "INSERT INTO iot.readings (sensor_id, measurement_timestamp, measurement_value) VALUES {}",
            rows.join(", ")
        ))
        .unwrap();
        for (is_humidity, value, second) in readings {
            let sensor = if is_humidity { other_humidity } else { other_temperature };
            process(sensor, &value.to_string(), &at(second));
        }
        assert!(one::<i64>("SELECT count(*) FROM iot.processed_data") > 900);
        let differences = one::<i64>(&format!(
            "WITH one AS (SELECT p.output_name, s.sensor_name, p.measurement_timestamp, p.processed_value, p.evaluation_error
                            FROM iot.processed_data p LEFT JOIN iot.sensors s USING (sensor_id) WHERE p.device_id = '{device}'),
                  two AS (SELECT p.output_name, s.sensor_name, p.measurement_timestamp, p.processed_value, p.evaluation_error
                            FROM iot.processed_data p LEFT JOIN iot.sensors s USING (sensor_id) WHERE p.device_id = '{other}')
             SELECT (SELECT count(*) FROM (TABLE one EXCEPT TABLE two) AS a)
                  + (SELECT count(*) FROM (TABLE two EXCEPT TABLE one) AS b)"
        ));
        assert_eq!(differences, 0);
        assert!(one::<bool>(
            "SELECT count(*) = 2 * count(DISTINCT (processing_rule_id, state, last_output_at, last_output_value))
               FROM iot.processing_states"
        ));
    }

    #[pg_test]
    fn scopes_narrow_rules_down() {
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
        Spi::run("INSERT INTO iot.device_types (device_type_name) VALUES ('fan')").unwrap();
        for (number, scope) in [
            String::new(),
            format!("sensor_id='{sensor}'"),
            "sensor_type='temperature'".to_owned(),
            "device_type_id=(SELECT device_type_id FROM iot.device_types WHERE device_type_name = 'pump')".to_owned(),
            "organization_id=(SELECT organization_id FROM iot.organizations WHERE organization_name = 'site')".to_owned(),
            "organization_id=(SELECT organization_id FROM iot.organizations WHERE organization_name = 'top')".to_owned(),
            "sensor_type='humidity'".to_owned(),
            "device_type_id=(SELECT device_type_id FROM iot.device_types WHERE device_type_name = 'fan')".to_owned(),
        ]
        .into_iter()
        .enumerate()
        {
            processing_rule(&format!("r{number}"), "scale", r#"{"factor": 2}"#, &scope);
        }
        Spi::run(
            r#"INSERT INTO iot.data_processing_rules (rule_name, sensor_type, organization_id, rule_type, rule_definition)
               SELECT 'half', 'humidity', organization_id, 'scale', '{"factor": 2}' FROM iot.organizations"#,
        )
        .unwrap();
        process(sensor, "2", &at(0));
        let names: String =
            one("SELECT string_agg(output_name, ' ' ORDER BY output_name) FROM iot.processed_data");
        assert_eq!(names, "r0 r1 r2 r3 r4 r5");
    }

    #[pg_test]
    fn a_broken_processing_rule_costs_no_reading() {
        let (_, sensor) = factory();
        processing_rule("broken", "scale", r#"{"factor": 2}"#, "sensor_type='temperature'");
        Spi::run("SET session_replication_role = replica").unwrap();
        Spi::run(r#"UPDATE iot.data_processing_rules SET rule_definition = '{"faktor": 2}'"#).unwrap();
        Spi::run("SET session_replication_role = origin").unwrap();
        processing_rule("sound", "scale", r#"{"factor": 3}"#, "sensor_type='temperature'");
        process(sensor, "90", &at(0));
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.sensor_data"), 1);
        assert_eq!(outputs("sound"), "270");
    }

    #[pg_test]
    fn a_damaged_state_begins_anew() {
        let (_, sensor) = factory();
        processing_rule("smooth", "moving_average", r#"{"readings": 10}"#, "sensor_type='temperature'");
        process(sensor, "10", &at(0));
        Spi::run("UPDATE iot.processing_states SET state = '\\xdeadbeef'").unwrap();
        process(sensor, "20", &at(1));
        assert_eq!(outputs("smooth"), "10 20");
    }

    #[pg_test]
    fn results_find_their_partition() {
        let (_, sensor) = factory();
        processing_rule("double", "scale", r#"{"factor": 2}"#, "");
        process(sensor, "1", "'2023-02-03 00:00+00'");
        assert_eq!(one::<f64>("SELECT processed_value FROM iot.processed_data_2023_02"), 2.0);
    }

    #[pg_test]
    fn without_rules_nothing_is_asked() {
        let (_, sensor) = factory();
        // The first one makes a partition, which makes every cache begin anew; the second fills them.
        process(sensor, "1", "'2026-01-05 11:00+00'");
        process(sensor, "1", &at(0));
        let scans = || {
            one::<i64>(
                "SELECT sum(seq_scan + COALESCE(idx_scan, 0))::bigint FROM pg_stat_xact_user_tables
                  WHERE relname ~ '^(data_processing_rules|processing_states|processed_data)'",
            )
        };
        let before = scans();
        for second in 1..10 {
            process(sensor, "1", &at(second));
        }
        assert_eq!(scans(), before);
    }
}
