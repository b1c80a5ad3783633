//! Quality: the limits of a sensor, and each flag from the reading to the stored row, over single calls and batches.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::datum::Uuid;
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, factory, one};

    /// A sensor's limits, what is to be done to it first, and its readings: seconds from now, value, reasons.
    struct Case {
        limits: &'static str,
        prepare: &'static str,
        readings: &'static [(i64, f64, &'static str)],
    }

    const CASES: &[Case] = &[
        Case {
            limits: r#"{"maximum_rate": 0.5}"#,
            prepare: "",
            readings: &[(-60, 20.0, ""), (-50, 24.0, ""), (-40, 30.0, "rate_of_change"), (-30, 30.0, "")],
        },
        Case {
            limits: r#"{"spike_threshold": 5}"#,
            prepare: "",
            readings: &[(-60, 20.0, ""), (-50, 21.0, ""), (-40, 40.0, "spike"), (-30, 21.0, "")],
        },
        Case {
            limits: r#"{"flatline_after_seconds": 20, "flatline_tolerance": "0.1"}"#,
            prepare: "",
            readings: &[(-60, 20.0, ""), (-50, 20.05, ""), (-40, 20.0, "flatline"), (-30, 25.0, "")],
        },
        Case {
            limits: r#"{"gap_after_seconds": 15}"#,
            prepare: "",
            readings: &[(-60, 20.0, ""), (-50, 20.0, ""), (-20, 20.0, "gap"), (-10, 20.0, "")],
        },
        Case {
            limits: r#"{"late_after_seconds": 45}"#,
            prepare: "",
            readings: &[(-300, 20.0, "late"), (0, 20.0, "")],
        },
        Case {
            limits: r#"{"calibration_valid_days": 30}"#,
            prepare: "UPDATE iot.sensor_calibrations SET valid_from = now() - interval '40 days' WHERE sensor_id = ",
            readings: &[(-3_024_000, 20.0, ""), (-60, 20.0, "stale_calibration")],
        },
        Case {
            limits: "{}",
            prepare: "UPDATE iot.sensors SET calibration_data = '{\"piecewise\": [[0, 0], [100, 100]]}' WHERE sensor_id = ",
            readings: &[(2, 20.0, ""), (3, 150.0, "outside_calibration")],
        },
        Case {
            limits: "{}",
            prepare: "",
            readings: &[(-60, 20.0, ""), (-50, 201.0, "out_of_range"), (-40, -50.1, "out_of_range")],
        },
        Case { limits: "{}", prepare: "", readings: &[(-60, 20.0, ""), (7_200, 20.0, "future")] },
        Case {
            limits: r#"{"maximum_rate": 1, "gap_after_seconds": 15, "spike_threshold": 5, "late_after_seconds": 1}"#,
            prepare: "",
            readings: &[(-60, 20.0, "late"), (-20, 201.0, "out_of_range,rate_of_change,gap,late")],
        },
    ];

    fn sensor(device: Uuid, case: &Case) -> Uuid {
        let sensor: Uuid = one(&format!(
            "INSERT INTO iot.sensors (device_id, sensor_name, sensor_type, unit_of_measure, physical_minimum,
                                      physical_maximum, quality_limits)
             VALUES ('{device}', gen_random_uuid()::text, 'temperature', 'degC', -50, 200, '{}')
             RETURNING sensor_id",
            case.limits
        ));
        if !case.prepare.is_empty() {
            Spi::run(&format!("{}'{sensor}'", case.prepare)).unwrap();
        }
        sensor
    }

    fn at(seconds: i64) -> String {
        format!("now() + interval '{seconds} seconds'")
    }

    fn ingest(sensor: Uuid, readings: &[(i64, f64, &str)]) {
        let list =
            |each: fn(&(i64, f64, &str)) -> String| readings.iter().map(each).collect::<Vec<_>>().join(", ");
        Spi::run(&format!(
            "SELECT * FROM iot.ingest(array_fill('{sensor}'::uuid, ARRAY[{}]), ARRAY[{}], ARRAY[{}]::float8[])",
            readings.len(),
            list(|reading| at(reading.0)),
            list(|reading| reading.1.to_string()),
        ))
        .unwrap();
    }

    /// Reasons and verdicts of what is stored of the sensor, in order of time.
    fn stored(sensor: Uuid) -> Vec<String> {
        one(&format!(
            "SELECT array_agg(array_to_string(iot.quality_reasons(quality_flags), ',') || ' ' || data_quality
                              ORDER BY measurement_timestamp)
               FROM iot.sensor_data WHERE sensor_id = '{sensor}'"
        ))
    }

    fn expected(case: &Case) -> Vec<String> {
        let verdict = |reasons: &str| match reasons {
            "" => "valid",
            reasons if reasons.contains("out_of_range") => "invalid",
            _ => "suspect",
        };
        case.readings.iter().map(|(_, _, reasons)| format!("{reasons} {}", verdict(reasons))).collect()
    }

    #[pg_test]
    fn each_flag_is_set_by_single_calls() {
        let (device, _) = factory();
        for case in CASES {
            let sensor = sensor(device, case);
            for (seconds, value, reasons) in case.readings {
                let said: String = one(&format!(
                    "SELECT array_to_string(quality_reasons, ',')
                       FROM iot.process_sensor_data_ex('{sensor}', {value}, measurement_timestamp => {})",
                    at(*seconds)
                ));
                assert_eq!(&said, reasons, "{} at {seconds}", case.limits);
            }
            assert_eq!(stored(sensor), expected(case), "{}", case.limits);
        }
    }

    #[pg_test]
    fn each_flag_is_set_within_a_batch() {
        let (device, _) = factory();
        for case in CASES {
            let sensor = sensor(device, case);
            ingest(sensor, case.readings);
            assert_eq!(stored(sensor), expected(case), "{}", case.limits);
        }
    }

    #[pg_test]
    fn each_flag_is_set_from_batch_to_batch() {
        let (device, _) = factory();
        for case in CASES {
            let sensor = sensor(device, case);
            for reading in case.readings {
                ingest(sensor, std::slice::from_ref(reading));
            }
            assert_eq!(stored(sensor), expected(case), "{}", case.limits);
        }
    }

    #[pg_test]
    fn changed_limits_hold_from_the_next_reading_on() {
        let (_, sensor) = factory();
        ingest(sensor, &[(-60, 20.0, ""), (-50, 60.0, "")]);
        Spi::run(r#"UPDATE iot.sensors SET quality_limits = '{"maximum_rate": 0.5}'"#).unwrap();
        ingest(sensor, &[(-40, 100.0, "")]);
        assert_eq!(stored(sensor), [" valid", " valid", "rate_of_change suspect"]);
    }

    #[pg_test]
    fn malformed_limits_are_refused_when_written() {
        let (device, _) = factory();
        for (limits, message, hint) in [
            (r#"{"max_rate": 1}"#, "unknown quality limit \"max_rate\"", "maximum_rate"),
            (r#"{"spike_threshold": "five"}"#, "spike_threshold", "finite number"),
            (r#"{"gap_after_seconds": -1}"#, "must not be negative", "gap_after_seconds"),
            (r#"{"maximum_rate": [1]}"#, "maximum_rate", ""),
        ] {
            let update = format!("UPDATE iot.sensors SET quality_limits = '{limits}'");
            assert_fails(&update, "22023", message, hint);
            let insert = format!(
                "INSERT INTO iot.sensors (device_id, sensor_name, sensor_type, unit_of_measure, quality_limits)
                 VALUES ('{device}', 'second', 'temperature', 'degC', '{limits}')"
            );
            assert_fails(&insert, "22023", message, hint);
            assert_fails(&format!("SELECT iot.validate_quality_limits('{limits}')"), "22023", message, hint);
        }
        assert_fails("SELECT iot.validate_quality_limits('[]')", "22023", "JSON object", "");
        assert_fails("SELECT iot.validate_quality_limits(NULL)", "22004", "quality_limits", "");
        Spi::run(r#"SELECT iot.validate_quality_limits('{"maximum_rate": null}')"#).unwrap();
    }

    #[pg_test]
    fn setup_attaches_the_check_where_it_is_missing() {
        factory();
        Spi::run("DROP TRIGGER sensors_validate_quality_limits ON iot.sensors; SELECT iot.setup()").unwrap();
        let update = r#"UPDATE iot.sensors SET quality_limits = '{"max_rate": 1}'"#;
        assert_fails(update, "22023", "max_rate", "maximum_rate");
    }
}
