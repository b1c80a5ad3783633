//! Results of processing rules follow readings that are replaced or calibrated anew.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::datum::Uuid;
    use pgrx::prelude::*;

    use crate::in_database_tests::{factory, one, process};

    fn processing_rule(name: &str, rule_type: &str, definition: &str) {
        Spi::run(&format!(
            "INSERT INTO iot.data_processing_rules (rule_name, rule_type, rule_definition)
             VALUES ('{name}', '{rule_type}', '{definition}')"
        ))
        .unwrap();
    }

    fn last_one_counts() -> (Uuid, Uuid) {
        let keys = factory();
        Spi::run("SELECT iot.setup(duplicates => 'last')").unwrap();
        keys
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

    fn sensor_of(device: Uuid, name: &str) -> Uuid {
        one(&format!(
            "INSERT INTO iot.sensors (device_id, sensor_name, sensor_type, unit_of_measure)
             VALUES ('{device}', '{name}', '{name}', 'x') RETURNING sensor_id"
        ))
    }

    /// A batch of (sensor, second, value).
    fn send(readings: &[(Uuid, u32, f64)]) {
        let rows: Vec<String> = readings
            .iter()
            .map(|(sensor, second, value)| format!("('{sensor}', {}::timestamptz, {value})", at(*second)))
            .collect();
        Spi::run(&format!(
            "INSERT INTO iot.readings (sensor_id, measurement_timestamp, measurement_value) VALUES {}",
            rows.join(", ")
        ))
        .unwrap();
    }

    /// Corrects the sensor's calibration for all times, and its readings.
    fn recalibrate(sensor: Uuid, calibration: &str) {
        Spi::run(&format!("UPDATE iot.sensor_calibrations SET calibration_data = '{calibration}'")).unwrap();
        let number: i64 = one(&format!(
            "INSERT INTO iot.recalibrations (sensor_id, range_start, range_end)
             VALUES ('{sensor}', '-infinity', 'infinity') RETURNING recalibration_id"
        ));
        Spi::run(&format!(
            "SELECT * FROM iot.recalibrate_batch('{sensor}', 'infinity', {number}, '-infinity', NULL, NULL, NULL, NULL, NULL)"
        ))
        .unwrap();
    }

    #[pg_test]
    fn results_follow_a_reading_that_is_replaced() {
        let (_, sensor) = last_one_counts();
        processing_rule("double", "scale", r#"{"factor": 2}"#);
        processing_rule("smooth", "moving_average", r#"{"readings": 2}"#);
        processing_rule("smooth by time", "moving_average", r#"{"seconds": 15}"#);
        processing_rule("change", "difference", "{}");
        processing_rule("change of smooth", "difference", r#"{"input": "smooth"}"#);
        for (second, value) in [(0, "10"), (10, "20"), (20, "40"), (30, "50")] {
            process(sensor, value, &at(second));
        }
        let rows = "SELECT string_agg(data_id::text, ' ' ORDER BY output_name, measurement_timestamp) FROM iot.processed_data";
        let before: String = one(rows);
        process(sensor, "30", &at(10));
        assert_eq!(outputs("double"), "20 60 80 100");
        assert_eq!(outputs("smooth"), "10 20 35 45");
        assert_eq!(outputs("smooth by time"), "10 20 35 45");
        assert_eq!(outputs("change"), "20 10 10");
        assert_eq!(outputs("change of smooth"), "10 15 10");
        assert_eq!(one::<String>(rows), before, "each is still of its reading");
        // The newest one, which the rules have in mind.
        process(sensor, "90", &at(30));
        process(sensor, "0", &at(40));
        assert_eq!(outputs("smooth"), "10 20 35 65 45");
        assert_eq!(outputs("smooth by time"), "10 20 35 65 45");
        assert_eq!(outputs("change"), "20 10 50 -90");
        assert_eq!(outputs("change of smooth"), "10 15 30 -20");
    }

    /// A station that was told the truth late, in batches and single calls, comes to what one has that knew it at once.
    #[pg_test]
    fn late_truth_comes_to_the_same_as_truth() {
        let (device, _) = last_one_counts();
        let other: Uuid =
            one("INSERT INTO iot.devices (device_serial_number) VALUES ('D-2') RETURNING device_id");
        let [corrected, right] =
            [device, other].map(|device| ["t", "h", "p"].map(|name| sensor_of(device, name)));
        processing_rule("smooth", "moving_average", r#"{"readings": 5}"#);
        processing_rule("rate", "difference", r#"{"input": "smooth", "per": "second"}"#);
        processing_rule("inverse", "expression", r#"{"expression": "1 / (value % 4)"}"#);
        processing_rule("inverse scaled", "scale", r#"{"input": "inverse", "factor": 3}"#);
        processing_rule("inverse window", "moving_average", r#"{"input": "inverse", "seconds": 9}"#);
        processing_rule(
            "both",
            "expression",
            r#"{"expression": "t * 100 + h + s", "inputs": {"t": {"sensor_type": "t"}, "h": {"sensor_type": "h"},
                "s": {"output": "smooth", "sensor_name": "t"}}}"#,
        );
        processing_rule("trend", "difference", r#"{"input": "both"}"#);
        processing_rule(
            "beside",
            "expression",
            r#"{"expression": "value - coalesce(x, 0)", "inputs": {"x": {"output": "inverse scaled", "sensor_name": "h", "max_age_seconds": 7}}}"#,
        );
        let value = |number: u32| f64::from(number * 7919 % 97);
        // Sensors in turn, all of them with the same times.
        let series: Vec<(usize, u32, f64)> =
            (0..240).map(|number| ((number * 5 % 3) as usize, 1 + number / 3 * 2, value(number))).collect();
        let mut truth = series.clone();
        let corrections: Vec<usize> =
            (0..40).map(|number| number * 101 % 234).chain([239, 238, 234]).collect();
        for place in &corrections {
            truth[*place].2 += 3.0 + f64::from((*place % 4) as u32);
        }
        let of =
            |sensors: [Uuid; 3], (sensor, second, value): (usize, u32, f64)| (sensors[sensor], second, value);
        for part in truth.chunks(50) {
            send(&part.iter().map(|reading| of(right, *reading)).collect::<Vec<_>>());
        }
        send(&series[..234].iter().map(|reading| of(corrected, *reading)).collect::<Vec<_>>());
        for places in corrections[..30].chunks(7) {
            send(&places.iter().map(|place| of(corrected, truth[*place])).collect::<Vec<_>>());
        }
        for place in &corrections[30..40] {
            let (sensor, second, value) = of(corrected, truth[*place]);
            process(sensor, &value.to_string(), &at(second));
        }
        // One batch of new ones and of such that replace them, for all that.
        send(&series[234..].iter().map(|reading| of(corrected, *reading)).collect::<Vec<_>>());
        send(&corrections[40..].iter().map(|place| of(corrected, truth[*place])).collect::<Vec<_>>());
        for (sensor, second, value) in [(0, 200, 5.0), (1, 201, 6.0), (2, 202, 7.0), (1, 203, 9.0)] {
            send(&[of(corrected, (sensor, second, value)), of(right, (sensor, second, value))]);
        }
        let [one_device, another] = [device, other].map(|device| {
            format!(
                "SELECT p.output_name, s.sensor_name, p.measurement_timestamp, p.processed_value,
                        CASE WHEN p.evaluation_error NOT LIKE '%missing%' THEN p.evaluation_error END,
                        r.measurement_timestamp, rs.sensor_name
                   FROM iot.processed_data p LEFT JOIN iot.sensors s USING (sensor_id)
                   JOIN iot.sensor_data r USING (data_id) JOIN iot.sensors rs ON rs.sensor_id = r.sensor_id
                  WHERE p.device_id = '{device}' AND coalesce(p.evaluation_error, '') NOT LIKE '%missing%'"
            )
        });
        assert_eq!(
            one::<String>(&format!(
                "SELECT coalesce(string_agg(concat_ws(' ', side, x), E'\\n'), '') FROM (
                    SELECT 'corrected' AS side, * FROM ({one_device} EXCEPT {another}) AS x
                     UNION ALL SELECT 'right', * FROM ({another} EXCEPT {one_device}) AS y) AS x"
            )),
            ""
        );
        assert!(one::<i64>("SELECT count(*) FROM iot.processed_data WHERE evaluation_error IS NULL") > 1_500);
        assert_eq!(
            one::<i64>(
                "SELECT count(*) FROM (
                    SELECT p.processing_rule_id, s.sensor_name, p.state, p.last_output_at, p.last_output_value
                      FROM iot.processing_states p LEFT JOIN iot.sensors s USING (sensor_id)
                     WHERE p.state IS NOT NULL OR p.last_output_at IS NOT NULL
                     GROUP BY 1, 2, 3, 4, 5 HAVING count(*) <> 2) AS d"
            ),
            0,
            "they remember the same"
        );
    }

    #[pg_test]
    fn results_about_other_sensors_follow_too() {
        let (device, sensor) = last_one_counts();
        let humidity = sensor_of(device, "humidity");
        processing_rule(
            "sum",
            "expression",
            r#"{"expression": "t + h", "inputs": {"t": {"sensor_type": "temperature"}, "h": {"sensor_type": "humidity"}}}"#,
        );
        send(&[
            (sensor, 0, 1.0),
            (humidity, 1, 10.0),
            (humidity, 2, 20.0),
            (sensor, 3, 2.0),
            (humidity, 4, 30.0),
        ]);
        assert_eq!(outputs("sum"), "11 21 22 32");
        process(sensor, "5", &at(0));
        assert_eq!(outputs("sum"), "15 25 22 32");
        process(humidity, "90", &at(2));
        assert_eq!(outputs("sum"), "15 95 92 32");
    }

    #[pg_test]
    fn a_result_that_is_no_more_says_so() {
        let (_, sensor) = last_one_counts();
        processing_rule("inverse", "expression", r#"{"expression": "1 / value"}"#);
        processing_rule("scaled", "scale", r#"{"input": "inverse", "factor": 4}"#);
        process(sensor, "2", &at(0));
        assert_eq!(outputs("scaled"), "2");
        process(sensor, "0", &at(0));
        assert_eq!((outputs("inverse"), outputs("scaled")), ("!".to_owned(), "!".to_owned()));
        assert_eq!(
            one::<String>("SELECT evaluation_error FROM iot.processed_data WHERE output_name = 'scaled'"),
            "an input is missing since a reading was changed"
        );
        process(sensor, "8", &at(0));
        assert_eq!((outputs("inverse"), outputs("scaled")), ("0.125".to_owned(), "0.5".to_owned()));
    }

    #[pg_test]
    fn results_follow_a_calibration() {
        let (_, sensor) = factory();
        processing_rule("double", "scale", r#"{"factor": 2}"#);
        processing_rule("sent", "scale", r#"{"input": "raw", "factor": 1}"#);
        processing_rule("smooth", "moving_average", r#"{"readings": 2}"#);
        for (second, value) in [(0, "10"), (10, "20"), (20, "40")] {
            process(sensor, value, &at(second));
        }
        recalibrate(sensor, r#"{"offset": 100}"#);
        assert_eq!(outputs("double"), "220 240 280");
        assert_eq!(outputs("sent"), "10 20 40");
        assert_eq!(outputs("smooth"), "110 115 130");
        process(sensor, "60", &at(30));
        assert_eq!(outputs("smooth"), "110 115 130 150");
        assert_eq!(outputs("sent"), "10 20 40 60");
        // Again: nothing changes, and nothing is written.
        let versions =
            "SELECT string_agg(xmin::text || ctid::text, ' ' ORDER BY output_name, measurement_timestamp)
                          FROM iot.processed_data";
        let before: String = one(versions);
        recalibrate(sensor, r#"{"offset": 100}"#);
        assert_eq!(one::<String>(versions), before);
    }

    /// What is stored of it, so that it is the same when results are computed again.
    #[pg_test]
    fn the_raw_value_is_in_the_unit_of_the_sensor() {
        let (_, sensor) = last_one_counts();
        Spi::run(&format!(
            r#"UPDATE iot.sensors SET calibration_data = '{{"offset": 1}}' WHERE sensor_id = '{sensor}'"#
        ))
        .unwrap();
        processing_rule("sent", "scale", r#"{"input": "raw", "factor": 1}"#);
        processing_rule("smooth", "moving_average", r#"{"input": "raw", "readings": 1}"#);
        let send = |value: &str, time: &str| {
            Spi::run(&format!(
                r#"SELECT iot.ingest('[{{"sensor_id": "{sensor}", "value": {value}, "time": "{time}"}}]')"#
            ))
            .unwrap();
        };
        // Times after the calibration was written.
        let times: Vec<String> = (1..4)
            .map(|second| {
                one(&format!(
                    "SELECT to_char(clock_timestamp() + interval '{second} s', 'YYYY-MM-DD\"T\"HH24:MI:SSOF')"
                ))
            })
            .collect();
        for _ in 0..2 {
            send(r#"50, "unit": "degF""#, &times[0]);
            send("\"20\"", &times[1]);
            send("30", &times[2]);
            assert_eq!((outputs("sent"), outputs("smooth")), ("10 20 30".to_owned(), "10 20 30".to_owned()));
        }
    }

    #[pg_test]
    fn rules_have_no_results_for_what_was_there_before_them() {
        let (_, sensor) = last_one_counts();
        process(sensor, "1", &at(0));
        process(sensor, "3", &at(1));
        processing_rule("smooth", "moving_average", r#"{"readings": 3}"#);
        process(sensor, "5", &at(2));
        assert_eq!(outputs("smooth"), "5");
        recalibrate(sensor, r#"{"offset": 10}"#);
        // From the stored readings, among which are those that the rule has not seen.
        assert_eq!(outputs("smooth"), "13");
        process(sensor, "7", &at(1));
        assert_eq!(outputs("smooth"), "14 14.333333", "one that comes now has a result");
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.processed_data"), 2);
    }

    #[pg_test]
    fn another_version_of_the_rule_is_written_down() {
        let (_, sensor) = last_one_counts();
        processing_rule("double", "scale", r#"{"factor": 2}"#);
        process(sensor, "1", &at(0));
        process(sensor, "2", &at(1));
        Spi::run(r#"UPDATE iot.data_processing_rules SET rule_definition = '{"factor": 3, "unit": "x"}'"#)
            .unwrap();
        process(sensor, "10", &at(0));
        assert_eq!(outputs("double"), "30 4");
        let versions: String = one(
            "SELECT string_agg(concat(rule_version, unit), ' ' ORDER BY measurement_timestamp) FROM iot.processed_data",
        );
        assert_eq!(versions, "2x 1");
        Spi::run("UPDATE iot.data_processing_rules SET is_active = false").unwrap();
        process(sensor, "20", &at(0));
        assert_eq!(outputs("double"), "30 4", "nothing says any more how it was made");
    }

    #[pg_test]
    fn a_loop_costs_neither_the_reading_nor_the_other_rules() {
        let (_, sensor) = last_one_counts();
        processing_rule("a", "scale", r#"{"factor": 2}"#);
        processing_rule("b", "scale", r#"{"input": "a", "factor": 2}"#);
        processing_rule("sound", "moving_average", r#"{"readings": 2}"#);
        Spi::run("SET session_replication_role = replica").unwrap();
        Spi::run(
            r#"UPDATE iot.data_processing_rules SET rule_definition = '{"input": "b", "factor": 2}' WHERE rule_name = 'a'"#,
        )
        .unwrap();
        Spi::run("SET session_replication_role = origin").unwrap();
        process(sensor, "1", &at(0));
        process(sensor, "3", &at(1));
        process(sensor, "5", &at(0));
        recalibrate(sensor, r#"{"offset": 1}"#);
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.sensor_data"), 2);
        assert_eq!((outputs("sound"), outputs("a")), ("6 5".to_owned(), String::new()));
    }

    #[pg_test]
    fn long_histories_are_read_in_parts() {
        let (_, sensor) = factory();
        processing_rule("smooth", "moving_average", r#"{"readings": 1000}"#);
        Spi::run(&format!(
            "INSERT INTO iot.readings (sensor_id, measurement_timestamp, measurement_value)
             SELECT '{sensor}', timestamptz {} + n * interval '1 second', n FROM generate_series(0, 2999) n",
            at(0)
        ))
        .unwrap();
        let wrong = "SELECT count(*) FROM (
                         SELECT p.processed_value, avg(r.measurement_value) OVER (
                                    ORDER BY measurement_timestamp ROWS BETWEEN 999 PRECEDING AND CURRENT ROW) AS mean
                           FROM iot.processed_data p JOIN iot.sensor_data r USING (data_id, measurement_timestamp)) AS x
                      WHERE abs(processed_value - mean) > 1e-9";
        assert_eq!(one::<i64>(wrong), 0);
        recalibrate(sensor, r#"{"multiplier": 2, "offset": 1}"#);
        assert_eq!(one::<i64>(wrong), 0);
        assert_eq!(one::<f64>("SELECT max(processed_value) FROM iot.processed_data"), 2.0 * 2_499.5 + 1.0);
        process(sensor, "0", "'2026-01-05 13:00+00'");
        assert_eq!(one::<i64>(wrong), 0);
    }
}
