//! Before and after setup(): tables, views, settings.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::datum::TimestampWithTimeZone;
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, factory, one, process};

    #[pg_test]
    fn before_setup_every_function_says_what_to_do() {
        let id = "00000000-0000-0000-0000-000000000001";
        for call in [
            format!("SELECT iot.process_sensor_data('{id}', 1)"),
            format!("SELECT iot.check_alert_rules('{id}', 1)"),
            format!("SELECT iot.queue_device_command('{id}', 'restart')"),
        ] {
            assert_fails(&call, "55000", "do not exist in this database yet", "SELECT iot.setup()");
        }
    }

    #[pg_test]
    fn the_hourly_view_and_the_dashboard_have_the_required_columns() {
        let (_, sensor) = factory();
        process(sensor, "10", "date_trunc('hour', now())");
        process(sensor, "20", "date_trunc('hour', now()) + interval '1 microsecond'");
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
        assert_fails("SET iot_ext.no_such_setting = 1", "42602", "iot_ext.no_such_setting", "");
        assert_fails("SET iot_ext.clock_skew = '2 days'", "22023", "iot_ext.clock_skew", "");
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
        let same: bool =
            Spi::get_one_with_args("SELECT $1 = timestamptz '0001-01-01 00:00:00.000001+00'", &[back.into()])
                .unwrap()
                .unwrap();
        assert!(same);
    }

    #[pg_test]
    fn indexes_of_others_are_left_alone() {
        Spi::run("SELECT iot.setup()").unwrap();
        Spi::run("CREATE INDEX idx_sensor_data_quality ON iot.devices (device_status)").unwrap();
        Spi::run("SELECT iot.setup()").unwrap();
        assert!(one::<bool>("SELECT to_regclass('iot.idx_sensor_data_quality') IS NOT NULL"));
        assert_fails(
            "SELECT iot.setup(index_policy => '{quality}')",
            "42P07",
            "iot.idx_sensor_data_quality",
            "index_policy",
        );
        assert_fails("SELECT iot.setup(index_policy => '{NULL}')", "22023", "index_policy", "metadata_gin");
    }
}
