//! The partition manager: what it makes of a table, what it refuses.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, one};

    /// A table with a partition for each of the last `days` days, each with three rows, partitioned by a column of `kind`.
    fn daily(kind: &str, days: i32) {
        Spi::run(&format!(
            "CREATE TABLE public.metrics (at {kind} NOT NULL, device integer, kind text, load double precision)
                 PARTITION BY RANGE (at);
             DO $$ DECLARE first date := (now() AT TIME ZONE 'UTC')::date; BEGIN
                 FOR n IN 0 .. {days} LOOP
                     EXECUTE format('CREATE TABLE public.metrics_%s PARTITION OF public.metrics
                                         FOR VALUES FROM (%L) TO (%L)', to_char(first - n, 'YYYY_MM_DD'),
                                    to_char(first - n, 'YYYY-MM-DD') || CASE WHEN '{kind}' = 'timestamptz' THEN ' 00:00+00' ELSE '' END,
                                    to_char(first - n + 1, 'YYYY-MM-DD') || CASE WHEN '{kind}' = 'timestamptz' THEN ' 00:00+00' ELSE '' END);
                     EXECUTE format('INSERT INTO public.metrics_%s SELECT %L, g, (ARRAY[''a'', ''b'', ''c''])[g], g
                                       FROM generate_series(1, 3) g', to_char(first - n, 'YYYY_MM_DD'),
                                    to_char(first - n, 'YYYY-MM-DD') || CASE WHEN '{kind}' = 'timestamptz' THEN ' 00:00+00' ELSE '' END);
                 END LOOP;
             END $$"
        ))
        .unwrap();
    }

    fn partitions() -> i64 {
        one("SELECT count(*) FROM pg_inherits WHERE inhparent = 'public.metrics'::regclass")
    }

    fn actions(call: &str) -> String {
        one(&format!(
            "SELECT coalesce(string_agg(line, '; '), '') FROM (
                 SELECT concat_ws(' ', count(*), action, outcome) AS line FROM iot.manage_partitions({call})
                  GROUP BY action, outcome ORDER BY action, outcome) s"
        ))
    }

    #[pg_test]
    fn it_makes_and_drops_by_any_type_of_time() {
        for kind in ["timestamptz", "timestamp", "date"] {
            daily(kind, 9);
            assert_eq!(
                actions("'public.metrics', '1 day', premake => 2, retention => '7 days', dry_run => true"),
                "2 create planned; 2 drop planned",
                "{kind}"
            );
            assert_eq!(partitions(), 10, "{kind}");
            assert_eq!(one::<i64>("SELECT count(*) FROM iot.partition_settings"), 0, "{kind}");
            let done = actions("'public.metrics', '1 day', premake => 2, retention => '7 days'");
            assert_eq!(done, "2 create done; 2 drop done", "{kind}");
            assert_eq!(actions("'public.metrics'"), "", "{kind}");
            assert_eq!(partitions(), 10, "{kind}");
            Spi::run("INSERT INTO public.metrics (at) SELECT (now() AT TIME ZONE 'UTC') + n * interval '1 day' FROM generate_series(-6, 2) n")
                .unwrap();
            Spi::run("DROP TABLE public.metrics").unwrap();
            assert_eq!(one::<i64>("SELECT count(*) FROM iot.partition_policy"), 0, "{kind}");
        }
    }

    #[pg_test]
    fn widths_from_an_hour_to_a_year() {
        for (width, form) in [
            ("1 hour", "YYYY_MM_DD_HH24"),
            ("1 day", "YYYY_MM_DD"),
            ("1 week", "YYYY_MM_DD"),
            ("1 month", "YYYY_MM"),
            ("3 months", "YYYY_\"q\"Q"),
            ("1 year", "YYYY"),
        ] {
            Spi::run("CREATE TABLE public.metrics (at timestamptz) PARTITION BY RANGE (at)").unwrap();
            let unit = width.split(' ').nth(1).unwrap();
            let unit = if unit == "months" { "quarter" } else { unit };
            assert_eq!(actions(&format!("'public.metrics', '{width}', premake => 1")), "2 create done");
            assert!(
                one::<bool>(&format!(
                    "SELECT array_agg(relname::text ORDER BY relname::text) = ARRAY(
                        SELECT 'metrics_' || to_char(date_trunc('{unit}', now() AT TIME ZONE 'UTC') + n * interval '{width}', '{form}')
                          FROM generate_series(0, 1) n ORDER BY 1)
                       FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'public.metrics'::regclass"
                )),
                "{width}"
            );
            Spi::run("DROP TABLE public.metrics").unwrap();
        }
    }

    #[pg_test]
    fn the_contract_of_drop_old_partitions() {
        daily("timestamptz", 20);
        assert_eq!(one::<i32>("SELECT iot.drop_old_partitions('public.metrics', 7, dry_run => true)"), 13);
        assert_eq!(one::<i32>("SELECT iot.drop_old_partitions('public.metrics', 15)"), 5);
        assert_eq!(one::<i32>("SELECT iot.drop_old_partitions('public.metrics', interval '7 days')"), 8);
        assert_eq!(one::<i32>("SELECT iot.drop_old_partitions('public.metrics', older_than => '7 days')"), 0);
        assert_eq!(partitions(), 8);
        assert_fails(
            "SELECT iot.drop_old_partitions('public.metrics', 0)",
            "22023",
            "retention_days 0",
            "days",
        );
        assert_fails(
            "SELECT iot.drop_old_partitions('public.metrics', interval '-1 day')",
            "22023",
            "older_than",
            "12 months",
        );
    }

    #[pg_test]
    fn the_age_is_that_of_postgresql() {
        daily("timestamptz", 3);
        for age in
            ["1 month", "1 year 1 month 1 day 01:00", "90 days", "36:00", "1 day", "2 days 23:59:59.999999"]
        {
            let agree: bool = one(&format!(
                "SELECT (SELECT count(*) FROM iot.manage_partitions('public.metrics', '1 day', premake => 0, retention => '{age}', dry_run => true))
                        = (SELECT count(*) FROM generate_series(0, 3) n
                            WHERE ((now() AT TIME ZONE 'UTC')::date - n + 1)::timestamp <= (now() AT TIME ZONE 'UTC') - interval '{age}')"
            ));
            assert!(agree, "{age}");
        }
    }

    #[pg_test]
    fn a_guard_stands_in_the_way_unless_forced() {
        daily("timestamptz", 9);
        Spi::run(
            "INSERT INTO iot.retention_guard (parent, guard_name, complete_until)
             VALUES ('public.metrics', 'roll-up hourly', date_trunc('day', now(), 'UTC') - interval '7 days')",
        )
        .unwrap();
        let call = "'public.metrics', '1 day', premake => 0, retention => '6 days'";
        assert_eq!(actions(&format!("{call}, dry_run => true")), "1 drop blocked; 2 drop planned");
        assert_eq!(actions(call), "1 drop blocked; 2 drop done");
        let reason: String = one(
            "SELECT reason FROM iot.partitions WHERE parent = 'public.metrics'::regclass AND next_action = 'blocked'",
        );
        assert!(reason.starts_with("older than 6 days, but roll-up hourly has got only to 20"), "{reason}");
        assert_eq!(actions("'public.metrics', force => true"), "1 drop done");

        Spi::run(
            "CREATE FUNCTION public.needed(parent regclass, range_start timestamptz, range_end timestamptz) RETURNS text
                 LANGUAGE sql AS $$ SELECT CASE WHEN parent::text = 'public.metrics' THEN 'bucket of ' || (range_end - range_start) || ' is stale' END $$;
             UPDATE iot.retention_guard SET check_function = 'public.needed(regclass, timestamptz, timestamptz)'",
        )
        .unwrap();
        let reason: String =
            one("SELECT reason FROM iot.manage_partitions('public.metrics', retention => '5 days')");
        assert_eq!(reason, "older than 5 days, but roll-up hourly: bucket of 1 day is stale");
        Spi::run("UPDATE iot.retention_guard SET check_function = NULL, complete_until = 'infinity'")
            .unwrap();
        assert_eq!(actions("'public.metrics'"), "1 drop done");
    }

    #[pg_test]
    fn rules_keep_rows_and_a_hold_beats_them() {
        daily("timestamptz", 9);
        let rows = |device: i32| -> i64 {
            one(&format!("SELECT count(*) FROM public.metrics WHERE device = {device}"))
        };
        Spi::run("CREATE INDEX metrics_device ON public.metrics (device, at)").unwrap();
        let rule: i64 = one("SELECT iot.add_retention_rule('public.metrics', 'kind', 'a', '8 days')");
        let shorter: i64 = one("SELECT iot.add_retention_rule('public.metrics', 'device', '3', '2 days')");
        let hold: i64 = one(
            "SELECT iot.add_legal_hold('public.metrics', 'case 7', 'device', '2', held_until => date_trunc('day', now(), 'UTC') - interval '8 days')",
        );
        let done = actions("'public.metrics', '1 day', premake => 0, retention => '5 days'");
        // Days 1 to 5 are complete; of them, 2 to 5 lose device 3; 6 to 8 keep kind a, and 9 the held rows.
        assert_eq!(done, "7 rewrite done", "{rule} {shorter} {hold}");
        assert_eq!((rows(1), rows(2), rows(3)), (9, 7, 3));
        assert_eq!(partitions(), 10);
        assert_eq!(actions("'public.metrics'"), "");
        assert_eq!(
            one::<i64>(
                "SELECT count(*) FROM pg_inherits WHERE inhparent = 'public.metrics_device'::regclass"
            ),
            10
        );
        assert_eq!(one::<i64>("SELECT count(*) FROM pg_constraint WHERE conname LIKE '%_bounds'"), 0);
        assert!(one::<bool>(
            "SELECT iot.remove_retention_rule((SELECT max(rule_id) FROM iot.retention_rule))"
        ));
        assert!(!one::<bool>("SELECT iot.remove_retention_rule(0)"));
        assert_eq!(actions("'public.metrics'"), "1 drop done");
        assert_eq!((rows(1), rows(2), rows(3)), (9, 6, 3));
        assert_fails(
            "SELECT iot.add_retention_rule('public.metrics', 'nothing', 'a', '8 days')",
            "42703",
            "nothing",
            "column",
        );
        assert_fails(
            "SELECT iot.add_retention_rule('public.metrics', 'kind', 'a', '-1 day')",
            "22023",
            "keep_for",
            "",
        );
        assert_fails("SELECT iot.add_legal_hold('public.metrics', NULL)", "22004", "reason", "");
    }

    #[pg_test]
    fn a_budget_drops_the_oldest() {
        daily("timestamptz", 9);
        let one_of_them: i64 = one(
            "SELECT pg_total_relation_size('public.metrics_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM_DD'))",
        );
        let budget = one_of_them * 8;
        let done = actions(&format!("'public.metrics', '1 day', premake => 0, maximum_bytes => {budget}"));
        assert_eq!(done, "2 drop done");
        assert!(one::<bool>(&format!("SELECT sum(bytes) <= {budget} FROM iot.partitions")));
        assert_eq!(actions("'public.metrics', maximum_bytes => 0"), "");
        Spi::run("SELECT iot.add_legal_hold('public.metrics', 'all of it')").unwrap();
        assert_eq!(actions("'public.metrics', maximum_bytes => 1"), "");
        assert_eq!(partitions(), 8);
    }

    #[pg_test]
    fn tiers_have_their_own_indexes() {
        daily("timestamptz", 9);
        let indexes = || -> String {
            one("SELECT string_agg(n::text, ' ' ORDER BY range_end DESC) FROM (
                     SELECT p.range_end, count(x.indexrelid) AS n FROM iot.partitions p LEFT JOIN pg_index x ON x.indrelid = p.partition
                      WHERE p.parent = 'public.metrics'::regclass GROUP BY p.range_end) s")
        };
        let done = actions(
            "'public.metrics', '1 day', premake => 1, warm_after => '2 days', cold_after => '5 days',
             hot_indexes => ARRAY['(device, at)', 'USING brin (at)'], warm_indexes => ARRAY['USING brin (at)'], cold_indexes => '{}'",
        );
        assert_eq!(done, "1 create done; 6 index done");
        assert_eq!(indexes(), "2 2 2 2 1 1 1 0 0 0 0");
        assert_eq!(actions("'public.metrics'"), "");
        assert_eq!(actions("'public.metrics', cold_indexes => ARRAY['(kind)']"), "4 index done");
        assert_eq!(actions("'public.metrics', hot_indexes => '{}'"), "4 index done");
        assert_eq!(indexes(), "0 0 0 0 1 1 1 1 1 1 1");
        assert_fails(
            "SELECT iot.manage_partitions('public.metrics', hot_indexes => ARRAY['(at); DROP TABLE public.metrics'])",
            "22023",
            "hot_indexes",
            "CREATE INDEX",
        );
        assert_fails(
            "SELECT iot.manage_partitions('public.metrics', cold_after => '1 day')",
            "22023",
            "cold_after 1 day",
            "hot, then warm",
        );
    }

    #[pg_test]
    fn sub_partitions_with_the_key_on_the_leaves() {
        Spi::run("CREATE TABLE public.metrics (at timestamptz NOT NULL, device integer NOT NULL, kind text) PARTITION BY RANGE (at)")
            .unwrap();
        let done = actions(
            "'public.metrics', '1 day', premake => 1, subpartition_by => 'list', subpartition_column => 'kind',
             subpartition_values => ARRAY['hot', 'Wet & cold'], leaf_key => ARRAY['device', 'at']",
        );
        assert_eq!(done, "2 create done");
        Spi::run("INSERT INTO public.metrics SELECT now(), n, k FROM unnest(ARRAY['hot', 'Wet & cold', 'new', NULL]) WITH ORDINALITY AS u (k, n)")
            .unwrap();
        let leaves: String = one(
            "SELECT string_agg(DISTINCT regexp_replace(tableoid::regclass::text, '^.*\\d_', ''), ' ') FROM public.metrics",
        );
        assert_eq!(leaves, "hot others wet___cold");
        assert_fails(
            "INSERT INTO public.metrics SELECT * FROM public.metrics WHERE kind = 'hot'",
            "23505",
            "duplicate key",
            "",
        );
        assert_eq!(one::<i64>("SELECT count(*) FROM pg_partition_tree('public.metrics') WHERE isleaf"), 6);
        assert_eq!(
            actions(
                "'public.metrics', subpartition_by => 'hash', subpartition_column => 'device', subpartition_count => 3, premake => 2"
            ),
            "1 create done"
        );
        assert_eq!(one::<i64>("SELECT count(*) FROM pg_partition_tree('public.metrics') WHERE isleaf"), 9);
        Spi::run("INSERT INTO public.metrics SELECT now() + interval '2 days', n, 'x' FROM generate_series(1, 20) n").unwrap();
        // Rows of a rule are kept in sub-partitions again.
        Spi::run("SELECT iot.add_retention_rule('public.metrics', 'device', '7', '1 year')").unwrap();
        assert_eq!(actions("'public.metrics', subpartition_by => 'none', premake => 3"), "1 create done");
        assert_eq!(one::<i64>("SELECT count(*) FROM pg_partition_tree('public.metrics') WHERE isleaf"), 10);
        for (wish, state, word) in [
            ("subpartition_by => 'range', subpartition_column => 'kind'", "22023", "range"),
            ("subpartition_by => 'hash', subpartition_column => 'kind'", "22023", "subpartition_count"),
            ("subpartition_by => 'list', subpartition_column => 'kind'", "22004", "subpartition_values"),
            ("subpartition_by => 'hash', subpartition_count => 2", "22004", "subpartition_column"),
            (
                "subpartition_by => 'hash', subpartition_column => 'none', subpartition_count => 2",
                "42703",
                "none",
            ),
            ("subpartition_count => 2", "22023", "subpartition_by"),
            ("storage_parameters => ARRAY['fillfactor = 90); DROP TABLE x']", "22023", "storage_parameters"),
            ("premake => -1", "22023", "premake -1"),
            ("retention => '-1 day'", "22023", "retention"),
            ("partition_interval => '2 days'", "22023", "2 days"),
            ("maximum_bytes => -1", "22023", "maximum_bytes"),
        ] {
            assert_fails(&format!("SELECT iot.manage_partitions('public.metrics', {wish})"), state, word, "");
        }
    }

    #[pg_test]
    fn a_partition_has_what_its_table_has() {
        Spi::run(
            "CREATE ROLE keeper; CREATE ROLE reader; GRANT CREATE ON SCHEMA public TO keeper;
             CREATE TABLE public.metrics (at timestamptz NOT NULL, tenant integer NOT NULL, note text, UNIQUE (tenant, at)) PARTITION BY RANGE (at);
             CREATE TABLE public.members (tenant integer, name name);
             ALTER TABLE public.metrics ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
             ALTER TABLE public.metrics REPLICA IDENTITY USING INDEX metrics_tenant_at_key;
             CREATE POLICY own ON public.metrics FOR SELECT TO reader
                 USING (EXISTS (SELECT FROM public.members m WHERE m.tenant = metrics.tenant AND m.name = current_user));
             CREATE POLICY sane ON public.metrics AS RESTRICTIVE FOR INSERT WITH CHECK (note <> 'no');
             ALTER TABLE public.metrics OWNER TO keeper;
             ALTER DEFAULT PRIVILEGES FOR ROLE keeper GRANT ALL ON TABLES TO reader, PUBLIC;
             GRANT SELECT ON public.metrics TO reader",
        )
        .unwrap();
        let done = actions(
            "'public.metrics', '1 month', premake => 0, storage_parameters => ARRAY['fillfactor=77', 'autovacuum_vacuum_insert_scale_factor = 0.5']",
        );
        assert_eq!(done, "1 create done");
        let found: String = one(
            "SELECT concat_ws('|', pg_get_userbyid(relowner), relrowsecurity, relforcerowsecurity, relreplident,
                              reloptions::text,
                              (SELECT count(*) FROM aclexplode(relacl) g WHERE g.grantee <> relowner),
                              (SELECT string_agg(concat_ws(' ', polname, polcmd, polpermissive, pg_get_expr(polqual, polrelid),
                                                           pg_get_expr(polwithcheck, polrelid)), '; ' ORDER BY polname)
                                 FROM pg_policy WHERE polrelid = c.oid))
               FROM pg_class c WHERE relname LIKE 'metrics_20__\\___' AND relkind = 'r'",
        );
        let name: String = one(
            "SELECT relname::text FROM pg_class WHERE relname LIKE 'metrics_20__\\___' AND relkind = 'r'",
        );
        let squeezed = found.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(
            squeezed,
            format!(
                "keeper|t|t|i|{{fillfactor=77,autovacuum_vacuum_insert_scale_factor=0.5}}|0|\
                 own r t (EXISTS ( SELECT FROM members m WHERE ((m.tenant = {name}.tenant) AND (m.name = CURRENT_USER)))); \
                 sane a f (note <> 'no'::text)"
            )
        );
    }

    #[pg_test]
    fn readings_and_what_is_derived_from_them_are_managed_from_the_start() {
        Spi::run("SELECT iot.setup(partition_interval => '1 day', premake => 1)").unwrap();
        let managed: String = one(
            "SELECT string_agg(concat_ws(' ', parent, time_column, partition_interval, premake), '; ' ORDER BY parent::text)
               FROM iot.partition_settings",
        );
        assert_eq!(
            managed,
            "iot.device_logs log_timestamp 1 day 7; iot.processed_data measurement_timestamp 1 day 1; iot.sensor_data measurement_timestamp 1 day 1"
        );
        assert_eq!(
            one::<i64>("SELECT count(*) FROM iot.partitions WHERE next_action = 'keep' AND tier = 'hot'"),
            12
        );
        Spi::run("SELECT iot.manage_partitions('iot.processed_data', retention => '30 days')").unwrap();
        Spi::run("SELECT iot.setup(premake => 2)").unwrap();
        assert_eq!(
            one::<String>(
                "SELECT concat_ws(' ', premake, drop_after) FROM iot.partition_settings WHERE parent = 'iot.processed_data'::regclass"
            ),
            "2 30 days"
        );
        let triggers: i64 = one(
            "SELECT count(*) FROM pg_trigger WHERE tgname = 'sensor_data_truncated' AND tgenabled = 'A'
                AND tgrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'iot.sensor_data'::regclass)",
        );
        assert_eq!(triggers, 3);
        // What would be dropped at once is not accepted.
        Spi::run("SELECT iot.manage_partitions('iot.sensor_data', retention => '2 years')").unwrap();
        assert_eq!(
            one::<String>(
                "SELECT concat_ws(' ', retention, drop_after) FROM iot.partition_settings WHERE parent = 'iot.sensor_data'::regclass"
            ),
            "2 years 2 years"
        );
        let report: String = one(
            "SELECT jsonb_agg(r -> 'analyzed')::text FROM jsonb_array_elements(iot.partition_upkeep()) r",
        );
        assert_eq!(report, "[true, true, true]");
    }

    #[pg_test]
    fn the_lock_table_is_watched() {
        Spi::run("CREATE TABLE public.metrics (at timestamptz) PARTITION BY RANGE (at)").unwrap();
        Spi::run("SET LOCAL client_min_messages = error").unwrap();
        assert_eq!(actions("'public.metrics', '1 day', premake => 1000"), "1001 create done");
    }

    #[pg_test]
    fn only_owners_manage() {
        Spi::run("CREATE ROLE stranger; GRANT USAGE ON SCHEMA iot TO stranger").unwrap();
        daily("timestamptz", 3);
        Spi::run("SELECT iot.manage_partitions('public.metrics', '1 day', premake => 0)").unwrap();
        let hold: i64 = one("SELECT iot.add_legal_hold('public.metrics', 'case')");
        let remove = format!("iot.remove_retention_rule({hold})");
        Spi::run("SET ROLE stranger").unwrap();
        for call in [
            "iot.manage_partitions('public.metrics')",
            "iot.drop_old_partitions('public.metrics', 1)",
            "iot.premake_partitions('public.metrics')",
            "iot.partition_upkeep('public.metrics')",
            "iot.partition_statements('public.metrics')",
            "iot.drop_retired_partitions('public.metrics')",
            "iot.add_legal_hold('public.metrics', 'mine')",
            "iot.add_retention_rule('public.metrics', 'kind', 'a', '1 day')",
            &remove,
            "iot.create_hypertable('public.metrics', 'at')",
            "iot.delete_old_rows('public.metrics', 'at', '1 day')",
        ] {
            assert_fails(
                &format!("SELECT {call}"),
                "42501",
                "must be owner of table public.metrics",
                "owner",
            );
        }
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.partitions"), 0);
        assert_eq!(one::<String>("SELECT iot.partition_upkeep()::text"), "[]");
        Spi::run("RESET ROLE; GRANT SELECT ON public.metrics TO stranger; SET ROLE stranger").unwrap();
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.partitions"), 4);
    }
}
