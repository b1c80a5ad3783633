//! Conditions, rules and alerts.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::datum::Uuid;
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, factory, one, process, rule};

    #[pg_test]
    fn conditions_hold_together() {
        let cases = [
            ("{}", "1", "{}", "t"),
            ("{\"threshold_high\": 10}", "10", "{}", "f"),
            ("{\"threshold_high\": 10}", "10.5", "{}", "t"),
            ("{\"threshold_high\": \"10\"}", "10.5", "{}", "t"),
            ("{\"threshold_low\": 10}", "9", "{}", "t"),
            ("{\"threshold_high\": 10, \"threshold_low\": 5}", "11", "{}", "f"),
            ("{\"or\": [{\"threshold_high\": 10}, {\"threshold_low\": 5}]}", "11", "{}", "t"),
            ("{\"not\": {\"threshold_high\": 10}}", "11", "{}", "f"),
            ("{\"between\": [1, 2]}", "2", "{}", "t"),
            ("{\"outside\": [1, 2]}", "2", "{}", "f"),
            ("{\"metadata_check\": {\"a\": {\"b\": 1.0}}}", "0", "{\"a\": {\"b\": 1, \"c\": 2}}", "t"),
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
        assert!(one::<bool>("SELECT iot.evaluate_alert_condition('{\"threshold_high\": 1}', 2, NULL)"));
    }

    #[pg_test]
    fn time_windows_use_now_and_the_sessions_zone() {
        Spi::run("SET TimeZone = 'Asia/Kolkata'").unwrap();
        let around: String = one(
            "SELECT format('{\"time_window\": {\"start\": \"%s\", \"end\": \"%s\"}}',
                           to_char(now() - interval '1 minute', 'HH24:MI'), to_char(now() + interval '1 minute', 'HH24:MI'))",
        );
        assert!(one::<bool>(&format!("SELECT iot.evaluate_alert_condition('{around}', 1)")));
        Spi::run("SET TimeZone = 'UTC'").unwrap();
        assert!(!one::<bool>(&format!("SELECT iot.evaluate_alert_condition('{around}', 1)")));
        let zoned = around.replace("\"start\"", "\"timezone\": \"Asia/Kolkata\", \"start\"");
        assert!(one::<bool>(&format!("SELECT iot.evaluate_alert_condition('{zoned}', 1)")));
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
            ("{\"time_window\": {\"start\": \"25:00\", \"end\": \"06:00\"}}", "25:00"),
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
        assert_fails("SELECT iot.evaluate_alert_condition('{}', 'NaN')", "22003", "NaN", "");
        assert_fails(
            "SELECT iot.evaluate_alert_condition('{\"threshold_high\": 1e999}', 1)",
            "22023",
            "threshold_high",
            "finite",
        );
    }

    #[pg_test]
    fn metadata_are_compared_as_exact_numbers() {
        for number in ["89490200001234567890", "0.12345678901234567890", "18446744073709551616", "1e400"] {
            let check = format!("{{\"metadata_check\": {{\"serial\": {number}}}}}");
            let same = format!("{{\"serial\": {number}}}");
            assert!(
                one::<bool>(&format!("SELECT iot.evaluate_alert_condition('{check}', 1, '{same}')")),
                "{number}"
            );
            let other = "{\"serial\": 89490200001234567891}";
            assert!(
                !one::<bool>(&format!("SELECT iot.evaluate_alert_condition('{check}', 1, '{other}')")),
                "{number}"
            );
        }
    }

    #[pg_test]
    fn a_broken_rule_costs_no_reading() {
        let (_, sensor) = factory();
        rule("sensor_type='temperature'", "{\"threshold_high\": 80}");
        Spi::run("SET session_replication_role = replica").unwrap();
        Spi::run("UPDATE iot.alert_rules SET rule_conditions = '{\"treshold_high\": 80}'").unwrap();
        Spi::run("SET session_replication_role = origin").unwrap();
        rule("sensor_type='temperature'", "{\"threshold_high\": 85}");
        process(sensor, "90", "clock_timestamp()");
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.sensor_data"), 1);
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.alerts"), 1, "the sound rule is evaluated");
    }

    #[pg_test]
    fn occurrences_do_not_run_out() {
        let (_, sensor) = factory();
        rule("sensor_type='temperature'", "{\"threshold_high\": 80}");
        process(sensor, "90", "clock_timestamp()");
        Spi::run("UPDATE iot.alerts SET occurrences = 2147483647").unwrap();
        process(sensor, "90", "clock_timestamp()");
        assert_eq!(one::<i64>("SELECT occurrences FROM iot.alerts"), 2_147_483_648);
    }

    #[pg_test]
    fn resolving_and_acknowledging_note_when_and_who() {
        let (_, sensor) = factory();
        rule("sensor_type='temperature'", "{\"threshold_high\": 80}");
        process(sensor, "90", "clock_timestamp()");
        Spi::run("UPDATE iot.alerts SET alert_status = 'acknowledged'").unwrap();
        Spi::run("UPDATE iot.alerts SET alert_status = 'resolved', resolved_by = 'shift 3'").unwrap();
        let found: String = one(
            "SELECT concat_ws('|', acknowledged_at <= resolved_at, acknowledged_by = session_user, resolved_by)
               FROM iot.alerts",
        );
        assert_eq!(found, "t|t|shift 3");
        assert!(one::<bool>("SELECT avg_resolution_hours IS NOT NULL FROM iot.iot_operations_dashboard"));
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
        assert_fails(&insert("{\"nonsense\": 1}", ("", "")), "22023", "nonsense", "threshold_high");
        assert_fails(&insert("{}", ("", "")), "22023", "empty", "threshold_high");
        let good = "{\"threshold_high\": 1}";
        assert_fails(&insert(good, (", message_template", ", '{colour}'")), "22023", "colour", "value");
        assert_fails(
            &insert(good, (", time_zone", ", 'Mars/Base'")),
            "22023",
            "Mars/Base",
            "pg_timezone_names",
        );
        Spi::run(&insert(good, ("", ""))).unwrap();
        assert_fails("UPDATE iot.alert_rules SET rule_conditions = '{\"x\": 1}'", "22023", "x", "");
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
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.alerts"), 2, "resolved alerts stay closed");
    }

    #[pg_test]
    fn duplicates_count_no_occurrence() {
        let (_, sensor) = factory();
        rule("sensor_type='temperature'", "{\"threshold_high\": 80}");
        process(sensor, "90", "'2026-01-05 12:00+00'");
        process(sensor, "90", "'2026-01-05 12:00+00'");
        assert_eq!(one::<i64>("SELECT occurrences FROM iot.alerts"), 1);
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
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.sensor_data"), 0, "checking stores no reading");
    }

    #[pg_test]
    fn an_edited_rule_is_used_at_once() {
        let (_, sensor) = factory();
        rule("sensor_type='temperature'", "{\"threshold_high\": 80}");
        process(sensor, "85", "clock_timestamp()");
        Spi::run("UPDATE iot.alert_rules SET rule_conditions = '{\"threshold_high\": 90}'").unwrap();
        process(sensor, "86", "clock_timestamp()");
        assert_eq!(one::<i64>("SELECT occurrences FROM iot.alerts"), 1);
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
        assert_fails(&format!("SELECT iot.check_alert_rules('{unknown}', 1, '{{}}')"), "42704", unknown, "");
        assert_fails("SELECT iot.check_alert_rules(NULL, 1, '{}')", "22004", "sensor_uuid", "");
        assert_fails(
            &format!("SELECT iot.check_alert_rules('{sensor}', NULL, '{{}}')"),
            "22004",
            "sensor_value",
            "",
        );
        assert_fails(&format!("SELECT iot.check_alert_rules('{sensor}', 'NaN', '{{}}')"), "22003", "NaN", "");
    }
}
