//! Recalibration of stored readings. What commits is tested from outside.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::datum::Uuid;
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, factory, one, process};

    const NO_FIGURES: &str = "NULL, NULL, NULL, NULL, NULL";

    /// A sensor with readings 10, 20 … 50 at 12:00 … 12:04.
    fn sensor_with_readings() -> Uuid {
        let (_, sensor) = factory();
        for minute in 0..5 {
            process(sensor, &format!("{}", 10 * (minute + 1)), &format!("'2026-03-01 12:0{minute}+00'"));
        }
        sensor
    }

    fn correct_history(calibration: &str) {
        Spi::run(&format!("UPDATE iot.sensor_calibrations SET calibration_data = '{calibration}'")).unwrap();
    }

    /// All readings in one batch, noted in `iot.recalibrations` unless it is a dry run.
    fn recalibrate(sensor: Uuid, from: &str, to: &str, dry_run: bool) -> String {
        let number = if dry_run {
            "NULL".to_owned()
        } else {
            one::<i64>(&format!(
                "INSERT INTO iot.recalibrations (sensor_id, range_start, range_end) VALUES ('{sensor}', '{from}', '{to}')
                 RETURNING recalibration_id"
            ))
            .to_string()
        };
        one(&format!(
            "SELECT concat_ws('|', rows_examined, rows_changed, minimum_difference, maximum_difference, mean_difference)
               FROM iot.recalibrate_batch('{sensor}', '{to}', {number}, '{from}', {NO_FIGURES}) WHERE range_start IS NULL"
        ))
    }

    fn stored() -> String {
        one("SELECT string_agg(concat_ws('/', measurement_value, raw_value, nullif(quality_flags, 0), nullif(data_quality, 'valid')),
                               ' ' ORDER BY measurement_timestamp) FROM iot.sensor_data")
    }

    #[pg_test]
    fn values_and_what_follows_from_them_are_computed_anew() {
        let sensor = sensor_with_readings();
        correct_history(r#"{"multiplier": 5}"#);
        let changes = "5|5|40|200|120";
        assert_eq!(recalibrate(sensor, "-infinity", "infinity", true), changes);
        assert_eq!(stored(), "10 20 30 40 50");
        assert_eq!(recalibrate(sensor, "-infinity", "infinity", false), changes);
        assert_eq!(stored(), "50/10 100/20 150/30 200/40 250/50/1/invalid");
        assert_eq!(recalibrate(sensor, "-infinity", "infinity", false), "5|0");
        // And back.
        correct_history("{}");
        assert_eq!(recalibrate(sensor, "-infinity", "infinity", false), "5|5|-200|-40|-120");
        assert_eq!(stored(), "10 20 30 40 50");
        let runs: String = one(
            "SELECT string_agg(concat_ws('|', rows_examined, rows_changed, mean_difference, progressed_to,
                                         finished_at >= started_at), ' ' ORDER BY recalibration_id) FROM iot.recalibrations",
        );
        assert_eq!(runs, "5|5|120|infinity|t 5|0|infinity|t 5|5|-120|infinity|t");
    }

    #[pg_test]
    fn each_reading_meets_the_calibration_of_its_time() {
        let sensor = sensor_with_readings();
        Spi::run(
            "UPDATE iot.sensor_calibrations SET valid_to = '2026-03-01 12:02+00';
             INSERT INTO iot.sensor_calibrations (sensor_id, calibration_data, valid_from)
             SELECT sensor_id, '{\"piecewise\": [[0, 0], [45, 90]]}', '2026-03-01 12:02+00' FROM iot.sensors",
        )
        .unwrap();
        // Only the rows in the range, whose end does not belong to it.
        assert_eq!(recalibrate(sensor, "2026-03-01 12:01+00", "2026-03-01 12:03+00", false), "2|1|30|30|30");
        assert_eq!(stored(), "10 20 60/30 40 50");
        assert_eq!(recalibrate(sensor, "-infinity", "infinity", false), "5|2|40|40|40");
        assert_eq!(stored(), "10 20 60/30 80/40 90/50/512/suspect");
    }

    #[pg_test]
    fn what_the_calibration_does_not_decide_stays() {
        let sensor = sensor_with_readings();
        Spi::run(
            "UPDATE iot.sensor_data SET anomaly_score = 4, is_anomaly = true, data_quality = 'suspect', quality_flags = 2;
             UPDATE iot.sensor_data SET measurement_value = 'NaN' WHERE measurement_value = 10;
             UPDATE iot.sensor_data SET measurement_value = NULL, text_value = 'x' WHERE measurement_value = 20;
             UPDATE iot.sensor_data SET quality_flags = 0, data_quality = 'invalid' WHERE measurement_value = 30",
        )
        .unwrap();
        correct_history(r#"{"offset": 1}"#);
        assert_eq!(recalibrate(sensor, "-infinity", "infinity", false), "4|3|1|1|1");
        assert_eq!(stored(), "NaN/2/suspect 2/suspect 31/30/invalid 41/40/2/suspect 51/50/2/suspect");
        assert!(one::<bool>("SELECT bool_and(anomaly_score = 4 AND is_anomaly) FROM iot.sensor_data"));
    }

    #[pg_test]
    fn batches_follow_each_other_without_a_gap() {
        let (_, sensor) = factory();
        Spi::run(&format!(
            "SET LOCAL TimeZone = 'UTC';
             SELECT iot.create_monthly_partition('iot.sensor_data', 2026, 3);
             INSERT INTO iot.sensor_data (sensor_id, device_id, measurement_timestamp, measurement_value, sensor_type)
             SELECT sensor_id, device_id, timestamptz '2026-03-01 12:00+00' + n * interval '1 microsecond', n, 'temperature'
               FROM iot.sensors, generate_series(1, 10001) n WHERE sensor_id = '{sensor}'"
        ))
        .unwrap();
        correct_history(r#"{"offset": 1}"#);
        let call = |start: &str, figures: &str| -> String {
            one(&format!(
                "SELECT concat_ws('|', range_start, rows_examined, rows_changed, mean_difference)
                   FROM iot.recalibrate_batch('{sensor}', 'infinity', NULL, '{start}', {figures})"
            ))
        };
        assert_eq!(call("-infinity", NO_FIGURES), "2026-03-01 12:00:00.010001+00|10000|10000|1");
        let second = call("2026-03-01 12:00:00.010001+00", "10000, 9999, 1, 1, 1");
        assert_eq!(second, "10001|10000|1");
    }

    #[pg_test]
    fn a_dry_run_may_be_called_anywhere() {
        sensor_with_readings();
        correct_history(r#"{"offset": 1}"#);
        Spi::run(
            "CREATE TEMPORARY TABLE figures (examined bigint, changed bigint, least float8, greatest float8, mean float8);
             DO $$
             DECLARE f figures; sensor uuid := sensor_id FROM iot.sensors;
             BEGIN
                 f.examined := 7;
                 CALL iot.recalibrate(sensor, '-infinity', '2026-03-01 12:03+00', true,
                                      f.examined, f.changed, f.least, f.greatest, f.mean);
                 INSERT INTO figures VALUES (f.*);
             END $$",
        )
        .unwrap();
        assert_eq!(one::<String>("SELECT figures::text FROM figures"), "(3,3,1,1,1)");
        assert_eq!(stored(), "10 20 30 40 50");
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.recalibrations"), 0);
    }

    #[pg_test]
    fn what_cannot_be_done_is_refused() {
        let sensor = sensor_with_readings();
        let nobody = "00000000-0000-0000-0000-000000000001";
        assert_fails(
            &format!("CALL iot.recalibrate('{sensor}')"),
            "25001",
            "transaction block",
            "autocommit",
        );
        for (arguments, state, message) in [
            ("NULL", "22004", "\"sensor\""),
            (&format!("'{sensor}', NULL"), "22004", "\"range_start\""),
            (&format!("'{sensor}', range_end => NULL"), "22004", "\"range_end\""),
            (&format!("'{sensor}', dry_run => NULL"), "22004", "\"dry_run\""),
            (
                &format!("'{sensor}', '2026-02-01 00:00+00', '2026-01-01 00:00+00', true"),
                "22023",
                "range_start 2026-02-01 00:00:00+00 must be before range_end 2026-01-01 00:00:00+00",
            ),
            (&format!("'{nobody}', dry_run => true"), "42704", "does not exist"),
        ] {
            assert_fails(&format!("CALL iot.recalibrate({arguments})"), state, message, "");
        }
        assert_fails(
            &format!("SELECT iot.recalibrate_batch('{sensor}', 'infinity', 99, '-infinity', {NO_FIGURES})"),
            "42704",
            "recalibration 99",
            "iot.recalibrate()",
        );
        correct_history(r#"{"multiplier": 1e308}"#);
        assert_fails(
            &format!("CALL iot.recalibrate('{sensor}', dry_run => true)"),
            "22003",
            "calibration of raw value 10",
            "",
        );
        Spi::run("DROP TABLE iot.recalibrations").unwrap();
        assert_fails(
            &format!("CALL iot.recalibrate('{sensor}')"),
            "55000",
            "iot.recalibrations",
            "iot.setup()",
        );
    }
}
