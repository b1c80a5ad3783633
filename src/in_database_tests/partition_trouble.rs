//! The partition manager where something stands in its way, and what it refuses from the start.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, factory, one};

    fn actions(call: &str) -> String {
        one(&format!(
            "SELECT coalesce(string_agg(line, '; '), '') FROM (
                 SELECT concat_ws(' ', count(*), action, split_part(outcome, ':', 1)) AS line FROM iot.manage_partitions({call})
                  GROUP BY action, split_part(outcome, ':', 1) ORDER BY 1) s"
        ))
    }

    /// A table with the months January to March of 2024, a row in each.
    fn months(more: &str) {
        Spi::run(&format!(
            "SET LOCAL client_min_messages = error;
             CREATE TABLE public.metrics (at timestamptz NOT NULL, value integer {more}) PARTITION BY RANGE (at);
             SELECT iot.create_monthly_partition('public.metrics', 2024, n) FROM generate_series(1, 3) n;
             INSERT INTO public.metrics SELECT make_timestamptz(2024, n, 2, 0, 0, 0, 'UTC'), n FROM generate_series(1, 3) n"
        ))
        .unwrap();
    }

    #[pg_test]
    fn one_partition_that_cannot_be_made_does_not_keep_the_others() {
        Spi::run(
            "SET LOCAL client_min_messages = error;
             CREATE TABLE public.metrics (at timestamptz NOT NULL) PARTITION BY RANGE (at);
             CREATE TABLE public.rest PARTITION OF public.metrics DEFAULT;
             INSERT INTO public.metrics SELECT date_trunc('month', now(), 'UTC') + interval '2 months 3 days'",
        )
        .unwrap();
        assert_eq!(actions("'public.metrics', '1 month', premake => 4"), "1 create failed; 4 create done");
        let (outcome, expected): (String, bool) = (
            one("SELECT outcome FROM iot.manage_partitions('public.metrics')"),
            one("SELECT to_char(now() AT TIME ZONE 'UTC' + interval '2 months', '\"metrics_\"YYYY_MM') =
                    (SELECT partition_name FROM iot.manage_partitions('public.metrics'))"),
        );
        assert!(
            outcome.starts_with("failed: updated partition constraint for default partition"),
            "{outcome}"
        );
        assert!(expected);
        assert_fails("SELECT iot.premake_partitions('public.metrics')", "55000", "default partition", "");
        Spi::run("UPDATE iot.partition_policy SET premake = 6").unwrap();
        assert_eq!(one::<i32>("SELECT iot.premake_partitions('public.metrics')"), 2);
        Spi::run("DELETE FROM public.rest").unwrap();
        assert_eq!(actions("'public.metrics'"), "1 create done");
    }

    #[pg_test]
    fn partitions_of_a_table_that_foreign_keys_refer_to() {
        months(", PRIMARY KEY (at)");
        Spi::run(
            "CREATE TABLE public.notes (at timestamptz CONSTRAINT of_metric REFERENCES public.metrics);
             INSERT INTO public.notes SELECT at FROM public.metrics WHERE value = 2",
        )
        .unwrap();
        let call = "'public.metrics', '1 month', premake => 0, retention => '1 year'";
        assert_eq!(actions(call), "1 create done; 1 drop failed; 2 drop done");
        let outcome: String = one("SELECT outcome FROM iot.manage_partitions('public.metrics')");
        assert!(
            outcome.contains("metrics_2024_02") && outcome.contains("foreign key constraint"),
            "{outcome}"
        );
        assert!(outcome.contains("of_metric") || outcome.contains("notes_at_fkey"), "{outcome}");
        assert_eq!(one::<i64>("SELECT count(*) FROM public.metrics"), 1);
        Spi::run("DELETE FROM public.notes").unwrap();
        assert_eq!(one::<i32>("SELECT iot.drop_old_partitions('public.metrics', 365)"), 1);
        assert!(one::<bool>("SELECT to_regclass('public.metrics_2024_02') IS NULL"));
    }

    #[pg_test]
    fn rows_that_are_kept_where_foreign_keys_refer_to_them() {
        months(", PRIMARY KEY (at)");
        Spi::run(
            "CREATE TABLE public.notes (at timestamptz REFERENCES public.metrics);
             SELECT iot.add_legal_hold('public.metrics', 'case', 'value', '2')",
        )
        .unwrap();
        let call = "'public.metrics', '1 month', premake => 0, retention => '1 year'";
        // Those of January and March have nothing that is held: as rewriting shows.
        Spi::run(&format!("SELECT iot.manage_partitions({call})")).unwrap();
        assert_eq!(one::<String>("SELECT string_agg(value::text, ' ') FROM public.metrics"), "2");
        assert!(one::<bool>("SELECT to_regclass('public.metrics_2024_01') IS NULL"));
    }

    #[pg_test]
    fn partitions_of_who_had_the_table_before() {
        months("");
        Spi::run(
            "CREATE ROLE before; CREATE ROLE after; GRANT USAGE, CREATE ON SCHEMA public TO before, after;
             GRANT USAGE ON SCHEMA iot TO before, after;
             ALTER TABLE public.metrics OWNER TO before; ALTER TABLE public.metrics_2024_01 OWNER TO before;
             ALTER TABLE public.metrics_2024_02 OWNER TO before; ALTER TABLE public.metrics_2024_03 OWNER TO before;
             SELECT iot.manage_partitions('public.metrics', '1 month', premake => 0);
             ALTER TABLE public.metrics OWNER TO after;
             SELECT iot.add_legal_hold('public.metrics', 'case', 'value', '3');
             SET ROLE after",
        )
        .unwrap();
        assert_eq!(actions("'public.metrics', retention => '1 year'"), "3 rewrite failed");
        let outcome: String = one("SELECT min(outcome) FROM iot.manage_partitions('public.metrics')");
        assert_eq!(
            outcome,
            "failed: partition public.metrics_2024_01 belongs to role \"before\", and its table to role \"after\": \
             see to ALTER TABLE public.metrics_2024_01 OWNER TO after"
        );
        assert_fails(
            "SELECT iot.retire_partition('public.metrics_2024_01', 'old')",
            "42501",
            "public.metrics_2024_01",
            "",
        );
        // A member of both may, and so may a superuser.
        Spi::run("RESET ROLE; SELECT iot.remove_retention_rule(rule_id) FROM iot.retention_rule; GRANT before TO after; SET ROLE after")
            .unwrap();
        assert_eq!(
            one::<i32>(
                "SELECT iot.drop_old_partitions('public.metrics', make_interval(days => (now()::date - date '2024-02-01')))"
            ),
            1
        );
        Spi::run("RESET ROLE; REVOKE before FROM after").unwrap();
        assert_eq!(
            actions(
                "'public.metrics', warm_after => '1 day', warm_indexes => ARRAY['(value)'], retention => '0'"
            ),
            "2 index done"
        );
        assert_eq!(
            one::<i64>(
                "SELECT count(*) FROM pg_inherits JOIN pg_class ON oid = inhrelid
                  WHERE inhparent = 'public.metrics'::regclass AND pg_get_userbyid(relowner) = 'after'"
            ),
            2
        );
        Spi::run("SET ROLE after").unwrap();
        assert_eq!(actions("'public.metrics', retention => '1 year'"), "2 drop done");
    }

    #[pg_test]
    fn what_new_partitions_cannot_be_like_is_refused() {
        months("");
        for (wish, state, message) in [
            (
                "storage_parameters => ARRAY['nonsense=3']",
                "22023",
                "storage_parameters has \"nonsense=3\": unrecognized parameter",
            ),
            (
                "storage_parameters => ARRAY['fillfactor=90', 'fillfactor=3']",
                "22023",
                "storage_parameters has \"fillfactor=3\": value 3 out of bounds",
            ),
            (
                "storage_parameters => ARRAY['fillfactor=much']",
                "22023",
                "storage_parameters has \"fillfactor=much\"",
            ),
            (
                "hot_indexes => ARRAY['(nothing)']",
                "42703",
                "hot_indexes has \"(nothing)\": column \"nothing\" does not exist",
            ),
            ("warm_indexes => ARRAY['(value)', '(random())']", "42P17", "warm_indexes has \"(random())\""),
            ("cold_indexes => ARRAY['USING gin (value)']", "42704", "cold_indexes has \"USING gin (value)\""),
            ("hot_indexes => ARRAY['(at); DROP TABLE public.metrics']", "22023", "hot_indexes"),
            ("hot_indexes => ARRAY[NULL]", "22004", "\"hot_indexes\" must not contain null"),
            ("storage_parameters => ARRAY[NULL]", "22004", "\"storage_parameters\" must not contain null"),
            (
                "subpartition_by => 'list', subpartition_column => 'value', subpartition_values => ARRAY['1', NULL]",
                "22004",
                "\"subpartition_values\" must not contain null",
            ),
            ("subpartition_by => 'range'", "22023", "subpartition_by cannot be \"range\""),
            ("partition_interval => '2 days'", "22023", "partition_interval 2 days is not"),
        ] {
            for dry in ["", ", dry_run => true"] {
                assert_fails(
                    &format!("SELECT iot.manage_partitions('public.metrics', {wish}{dry})"),
                    state,
                    message,
                    "",
                );
            }
        }
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.partition_policy"), 0);
        assert_eq!(one::<i64>("SELECT count(*) FROM pg_class WHERE relname LIKE 'metrics%'"), 4);
        assert_eq!(
            actions(
                "'public.metrics', '1 month', premake => 0, hot_indexes => ARRAY['(value)'], storage_parameters => ARRAY['fillfactor=90', 'toast.autovacuum_enabled=false']"
            ),
            "1 create done; 3 index done"
        );
    }

    #[pg_test]
    fn tables_that_cannot_be_managed() {
        Spi::run(
            "CREATE TEMPORARY TABLE passing (at timestamptz NOT NULL) PARTITION BY RANGE (at);
             CREATE TABLE public.plain (k integer, at timestamptz NOT NULL);
             CREATE TABLE public.seen AS SELECT now() AS at; CREATE VIEW public.sight AS SELECT * FROM public.seen",
        )
        .unwrap();
        months("");
        for (call, state, message, hint) in [
            ("iot.manage_partitions('passing')", "0A000", "\"passing\" is temporary", "stays"),
            (
                "iot.create_hypertable('public.plain', 'k')",
                "42804",
                "time_column_name \"k\" is a column of type integer",
                "timestamptz",
            ),
            (
                "iot.create_hypertable('public.plain', 'nocol')",
                "42703",
                "time_column_name \"nocol\"",
                "timestamptz",
            ),
            (
                "iot.create_hypertable('public.plain', 'at', '2 days')",
                "22023",
                "chunk_time_interval 2 days",
                "1 day",
            ),
            ("iot.delete_old_rows('public.plain', 'at', '-1 day')", "22023", "older_than -1 day", "90 days"),
            (
                "iot.delete_old_rows('public.sight', 'at', '1 day')",
                "42809",
                "public.sight is not a table",
                "table",
            ),
            (
                "iot.delete_old_rows('public.metrics', 'at', '1 day')",
                "22023",
                "whole partitions",
                "iot.drop_old_partitions()",
            ),
        ] {
            assert_fails(&format!("SELECT {call}"), state, message, hint);
        }
    }

    #[pg_test]
    fn ages_beyond_all_time_break_no_view() {
        months("");
        Spi::run(
            "SELECT iot.manage_partitions('public.metrics', '1 month', premake => 0, retention => '100000000 years',
                                          warm_after => '290000 years', cold_after => '999999999 days')",
        )
        .unwrap();
        let lines: String = one(
            "SELECT string_agg(DISTINCT concat_ws(' ', tier, next_action, next_action_at, reason), '; ') FROM iot.partitions",
        );
        assert!(lines.starts_with("hot warm "), "{lines}");
        one::<i64>("SELECT count(*) FROM iot.health_checks()");
        one::<String>("SELECT iot.health()::text");
        assert_eq!(one::<i64>("SELECT count(*) FROM public.metrics"), 3);
    }

    #[pg_test]
    fn what_comes_next_is_what_a_run_will_do() {
        months("");
        Spi::run(
            "INSERT INTO public.metrics SELECT at, 7 FROM public.metrics;
             SELECT iot.add_retention_rule('public.metrics', 'value', '7', '100 years');
             SELECT iot.manage_partitions('public.metrics', '1 month', premake => 1, retention => '1 year')",
        )
        .unwrap();
        let rule: i64 = one("SELECT max(rule_id) FROM iot.retention_rule");
        let told: String = one(
            "SELECT string_agg(concat_ws('|', partition, next_action, (next_action_at AT TIME ZONE 'UTC')::date, reason), '
' ORDER BY range_start) FROM iot.partitions WHERE range_start < '2024-03-01'",
        );
        let expected = [("01", "2124-02-01"), ("02", "2124-03-01")]
            .map(|(month, at)| format!("metrics_2024_{month}|drop|{at}|drop after 100 years (rule {rule})"));
        assert_eq!(told.replace("public.", ""), expected.join("\n"));
        let this_month: String =
            one("SELECT concat_ws('|', next_action, next_action_at = range_end + interval '1 year', reason)
               FROM iot.partitions WHERE range_start <= now() AND range_end > now()");
        assert_eq!(this_month, format!("rewrite|t|rewrite after 1 year; rows of rule {rule} stay"));
        Spi::run(&format!("SELECT iot.remove_retention_rule({rule})")).unwrap();
        assert_eq!(
            one::<String>(
                "SELECT string_agg(DISTINCT next_action, ' ') FROM iot.partitions WHERE range_end < now()"
            ),
            "drop"
        );
    }

    #[pg_test]
    fn holds_are_known_to_owners_alone() {
        months("");
        Spi::run(
            "CREATE ROLE stranger; CREATE ROLE keeper; GRANT USAGE ON SCHEMA iot TO stranger, keeper;
             ALTER TABLE public.metrics OWNER TO keeper; GRANT SELECT ON public.metrics TO stranger;
             SELECT iot.manage_partitions('public.metrics', '1 month', premake => 0, dry_run => true);
             SELECT iot.add_legal_hold('public.metrics', 'case of Mr X', 'value', '2');
             INSERT INTO iot.partition_policy (parent, time_column, partition_interval, premake, drop_after)
             VALUES ('public.metrics', 'at', '1 month', 0, '1 year');
             SET ROLE stranger",
        )
        .unwrap();
        assert_fails("SELECT * FROM iot.retention_rule", "42501", "retention_rule", "");
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.retention_rules"), 0);
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.partitions WHERE next_action = 'rewrite'"), 3);
        Spi::run("RESET ROLE; SET ROLE keeper").unwrap();
        assert_eq!(one::<String>("SELECT reason FROM iot.retention_rules"), "case of Mr X");
    }

    #[pg_test]
    fn readings_that_a_longer_rule_keeps_are_accepted() {
        let (device, probe) = factory();
        let shaker: pgrx::Uuid = one(&format!(
            "INSERT INTO iot.sensors (device_id, sensor_name, sensor_type, unit_of_measure)
             VALUES ('{device}', 'shaker', 'vibration', 'mm/s') RETURNING sensor_id"
        ));
        Spi::run("SELECT iot.manage_partitions('iot.sensor_data', retention => '60 days')").unwrap();
        let offer = |sensor, days: i32| {
            format!(
                "SELECT iot.process_sensor_data('{sensor}', 5, measurement_timestamp => now() - {days} * interval '1 day')"
            )
        };
        assert_fails(&offer(shaker, 100), "22008", "before", "");
        let rule: i64 =
            one("SELECT iot.add_retention_rule('iot.sensor_data', 'sensor_type', 'vibration', '300 days')");
        one::<pgrx::Uuid>(&offer(shaker, 100));
        one::<pgrx::Uuid>(&offer(probe, 50));
        assert_fails(&offer(probe, 100), "22008", "before", "");
        assert_fails(&offer(shaker, 310), "22008", "before", "");
        Spi::run(&format!("SELECT iot.remove_retention_rule({rule})")).unwrap();
        assert_fails(&offer(shaker, 101), "22008", "before", "");
        // Of a column that differs from reading to reading nobody knows before.
        Spi::run("SELECT iot.add_retention_rule('iot.sensor_data', 'data_quality', 'invalid', '200 days')")
            .unwrap();
        one::<pgrx::Uuid>(&offer(probe, 150));
        Spi::run(&format!(
            "SELECT iot.add_retention_rule('iot.sensor_data', 'device_id', upper('{device}'), '400 days')"
        ))
        .unwrap();
        one::<pgrx::Uuid>(&offer(probe, 350));
    }
}
