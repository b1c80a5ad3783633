//! Plain tables: made partitioned, and without their old rows.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, one};

    #[pg_test]
    fn create_hypertable_is_a_name_for_it() {
        Spi::run(
            "CREATE ROLE reader;
             CREATE TABLE public.conditions (id bigserial, at timestamptz, device text DEFAULT 'none' CHECK (device <> ''), value float8,
                                             PRIMARY KEY (id, at));
             COMMENT ON TABLE public.conditions IS 'of machines';
             COMMENT ON COLUMN public.conditions.value IS 'as measured';
             CREATE INDEX by_device ON public.conditions (device, at DESC);
             GRANT SELECT, INSERT ON public.conditions TO reader; GRANT UPDATE (value) ON public.conditions TO reader",
        )
        .unwrap();
        let described = "SELECT concat_ws('|', obj_description(c.oid), col_description(c.oid, 4), relacl, a.attacl,
                           (SELECT string_agg(indexrelid::regclass::text, ' ' ORDER BY indexrelid::regclass::text) FROM pg_index WHERE indrelid = c.oid),
                           (SELECT string_agg(conname || pg_get_constraintdef(k.oid), ' ' ORDER BY conname) FROM pg_constraint k WHERE conrelid = c.oid AND contype IN ('p', 'c')),
                           pg_get_serial_sequence('public.conditions', 'id'))
                      FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid AND attname = 'value' WHERE c.oid = 'public.conditions'::regclass";
        let before: String = one(described);
        let made: String = one(
            "SELECT concat_ws(' ', schema_name, table_name, created) FROM iot.create_hypertable('public.conditions', 'at', '1 day')",
        );
        assert_eq!(made, "public conditions t");
        assert_eq!(one::<String>(described), before);
        Spi::run("INSERT INTO public.conditions (at, value) VALUES (now(), 1)").unwrap();
        assert_eq!(
            one::<i64>("SELECT count(*) FROM iot.partitions WHERE parent = 'public.conditions'::regclass"),
            4
        );
        assert_fails(
            "SELECT iot.create_hypertable('public.conditions', 'at')",
            "42710",
            "already",
            "if_not_exists",
        );
        assert!(!one::<bool>(
            "SELECT created FROM iot.create_hypertable('public.conditions', 'at', if_not_exists => true)"
        ));
        Spi::run("CREATE TABLE public.full AS SELECT now() AS at; CREATE TABLE public.seen (at timestamptz); CREATE VIEW public.sight AS SELECT * FROM public.seen")
            .unwrap();
        assert_fails(
            "SELECT iot.create_hypertable('public.full', 'at')",
            "55000",
            "full",
            "convert_to_partitioned",
        );
        assert_fails(
            "SELECT iot.create_hypertable('public.seen', 'at')",
            "0A000",
            "view",
            "PARTITION BY RANGE",
        );
        assert_fails("SELECT iot.create_hypertable('public.seen', 'at', '2 days')", "22023", "2 days", "");
    }

    #[pg_test]
    fn old_rows_of_plain_tables() {
        // Clocks of servers are set back now and then: no row is as old as is asked for to the microsecond.
        Spi::run("CREATE TABLE public.journal AS SELECT now() - n * interval '1 day' - interval '1 hour' AS at, n % 2 AS level FROM generate_series(0, 99) n").unwrap();
        let call = "SELECT iot.delete_old_rows('public.journal', 'at', '10 days', 'level = 1 OR level = 5'";
        assert_eq!(one::<i64>(&format!("{call}, dry_run => true)")), 45);
        assert_eq!(one::<i64>(&format!("{call})")), 45);
        assert_eq!(one::<i64>("SELECT iot.delete_old_rows('public.journal', 'at', '10 days')"), 45);
        assert_fails(
            "SELECT iot.delete_old_rows('public.journal', 'level', '10 days')",
            "42703",
            "level",
            "old",
        );
        assert_fails(
            "SELECT iot.delete_old_rows('public.journal', 'at', '10 days', 'true); DROP TABLE public.journal; SELECT (1')",
            "42601",
            "condition",
            "WHERE",
        );
        assert_fails("SELECT iot.delete_old_rows('public.journal', 'at', '0')", "22023", "older_than", "");
    }

    #[pg_test]
    fn a_condition_stays_within_its_brackets() {
        Spi::run("SELECT iot.setup()").unwrap();
        Spi::run("CREATE TABLE public.journal AS SELECT now() - n * interval '1 day' AS at, n % 2 AS level FROM generate_series(0, 19) n").unwrap();
        for condition in [
            "true) or (true",
            "true OR (true",
            "",
            "level = 1 -- only\n; DROP TABLE public.journal",
            "level = 1; SELECT 1",
            "true FROM public.journal",
            "true, true",
            "level = 1 LIMIT 1",
            "level = 1 ORDER BY 1",
            "level = 1 AS it",
            "true UNION SELECT true",
            "level = 1 /* open",
        ] {
            for call in [
                "SELECT iot.delete_old_rows('public.journal', 'at', '10 days', ",
                "SELECT iot.delete_old_rows('public.journal', 'at', '10 days', dry_run => true, condition => ",
                "SELECT iot.add_retention_policy('public.journal', '10 days', time_column => 'at', condition => ",
            ] {
                assert_fails(&format!("{call}$c${condition}$c$)"), "42601", "condition \"", "behind WHERE");
            }
        }
        // A job that an earlier version, or a restore, brought in.
        Spi::run("SELECT iot.add_retention_policy('public.journal', '10 days', time_column => 'at', condition => 'level = 1')")
            .unwrap();
        assert_eq!(one::<i64>("SELECT count(*) FROM public.journal"), 20);
        for (condition, state) in [("level", "42804"), ("count(*) > 0", "42803"), ("nothing = 1", "42703")] {
            let call =
                format!("SELECT iot.delete_old_rows('public.journal', 'at', '10 days', '{condition}')");
            assert_fails(&call, state, "", "");
        }
        let condition = "level IN (SELECT 1) AND (true) -- those";
        let call = format!("SELECT iot.delete_old_rows('public.journal', 'at', '10 days', '{condition}')");
        assert_eq!(one::<i64>(&call), 5);
        assert_eq!(one::<i64>("SELECT count(*) FROM public.journal"), 15);
    }

    #[pg_test]
    fn an_age_beyond_all_time_deletes_nothing() {
        Spi::run("CREATE TABLE public.journal AS SELECT now() - n * interval '1 day' AS at FROM generate_series(0, 9) n").unwrap();
        for age in ["999999999 days", "100000000 years", "2147483647 days", "2562047788 hours"] {
            assert_eq!(
                one::<i64>(&format!("SELECT iot.delete_old_rows('public.journal', 'at', '{age}')")),
                0,
                "{age}"
            );
        }
        assert_eq!(one::<i64>("SELECT count(*) FROM public.journal"), 10);
    }
}
