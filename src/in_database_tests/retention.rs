//! What retention may take: ages, rules and legal holds by the types of their columns.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, one};

    /// A table of which `columns` are a part, with a partition for January 2020 and one for this month.
    fn table(columns: &str) {
        Spi::run(&format!(
            "CREATE TABLE public.metrics (at timestamptz NOT NULL, {columns}) PARTITION BY RANGE (at);
             SELECT iot.create_monthly_partition('public.metrics', 2020, 1)"
        ))
        .unwrap();
    }

    fn drop_old() {
        Spi::run(
            "SELECT iot.manage_partitions('public.metrics', '1 month', premake => 0, retention => '1 year')",
        )
        .unwrap();
    }

    #[pg_test]
    fn an_age_beyond_all_time_drops_nothing() {
        table("value integer");
        Spi::run("INSERT INTO public.metrics VALUES ('2020-01-02 00:00+00', 1)").unwrap();
        for call in [
            "iot.drop_old_partitions('public.metrics', 999999999)",
            "iot.drop_old_partitions('public.metrics', 2147483647)",
            "iot.drop_old_partitions('public.metrics', interval '999999999 days')",
            "iot.drop_old_partitions('public.metrics', interval '100000000 years')",
            "iot.drop_old_partitions('public.metrics', interval '2562047788 hours')",
        ] {
            assert_eq!(one::<i32>(&format!("SELECT {call}")), 0, "{call}");
        }
        for age in ["999999999 days", "178000000 years 2147483647 days", "213503983 days"] {
            Spi::run(&format!(
                "SELECT iot.manage_partitions('public.metrics', '1 month', premake => 0, retention => '{age}')"
            ))
            .unwrap();
            assert_eq!(one::<i64>("SELECT count(*) FROM public.metrics"), 1, "{age}");
        }
    }

    #[pg_test]
    fn a_hold_finds_its_rows_by_the_type_of_the_column() {
        Spi::run("CREATE TYPE public.mood AS ENUM ('sad', 'ok'); CREATE DOMAIN public.short AS text CHECK (length(VALUE) < 4)")
            .unwrap();
        Spi::run("SET LOCAL TimeZone = 'Asia/Tokyo'; SET LOCAL DateStyle = 'SQL, DMY'; SET LOCAL IntervalStyle = 'sql_standard'")
            .unwrap();
        for (kind, stored, given, kept) in [
            (
                "uuid",
                "abcdefab-0000-0000-0000-000000000001",
                "ABCDEFAB-0000-0000-0000-000000000001",
                "abcdefab-0000-0000-0000-000000000001",
            ),
            (
                "uuid",
                "abcdefab-0000-0000-0000-000000000001",
                "{abcdefab000000000000000000000001}",
                "abcdefab-0000-0000-0000-000000000001",
            ),
            ("boolean", "true", "TRUE", "t"),
            ("boolean", "false", "no", "f"),
            ("numeric", "3.0", "3", "3"),
            ("numeric(6,2)", "3", "3.000", "3.000"),
            ("double precision", "1000", "1e3", "1000"),
            ("integer", "7", " 07 ", "7"),
            ("jsonb", "{\"b\": 1, \"a\": [1, 2]}", "{\"a\":[1,2],\"b\":1.0}", "{\"a\": [1, 2], \"b\": 1.0}"),
            ("timestamptz", "2020-01-01 12:00+00", "2020-01-01 21:00", "2020-01-01 12:00:00+00"),
            ("timestamptz", "2020-01-01 12:00+00", "2020-01-01 13:00+01", "2020-01-01 12:00:00+00"),
            ("date", "2020-05-04", "04/05/2020", "2020-05-04"),
            ("interval", "1 day", "1 0:00:00", "1 day"),
            ("char(5)", "ab", "ab", "ab"),
            ("varchar(5)", "ab", "ab", "ab"),
            ("text", "Ab", "Ab", "Ab"),
            ("public.mood", "ok", "ok", "ok"),
            ("public.short", "abc", "abc", "abc"),
            ("integer[]", "{1,2}", "{ 1, 2 }", "{1,2}"),
            ("bytea", "\\x41", "A", "\\x41"),
        ] {
            table(&format!("value {kind}"));
            Spi::run(&format!(
                "INSERT INTO public.metrics VALUES ('2020-01-02 00:00+00', $v${stored}$v$), ('2020-01-03 00:00+00', NULL)"
            ))
            .unwrap();
            let hold: i64 =
                one(&format!("SELECT iot.add_legal_hold('public.metrics', 'case', 'value', $v${given}$v$)"));
            let value: String =
                one(&format!("SELECT column_value FROM iot.retention_rule WHERE rule_id = {hold}"));
            assert_eq!(value, kept, "{kind}");
            drop_old();
            assert_eq!(one::<i64>("SELECT count(*) FROM public.metrics"), 1, "{kind} {given}");
            // What came in another form, by a restore or an UPDATE, finds them as well, if it means the same to everybody.
            if !["2020-01-01 21:00", "04/05/2020", "1 0:00:00"].contains(&given) {
                Spi::run(&format!(
                    "UPDATE iot.partition_state SET settled = NULL;
                     UPDATE iot.retention_rule SET column_value = $v${given}$v$ WHERE rule_id = {hold}"
                ))
                .unwrap();
                drop_old();
                assert_eq!(one::<i64>("SELECT count(*) FROM public.metrics"), 1, "{kind} {given}");
            }
            Spi::run("DROP TABLE public.metrics").unwrap();
        }
    }

    #[pg_test]
    fn a_value_that_no_row_can_have_is_refused() {
        table("flag boolean, document json, number integer");
        for (column, value, state) in [
            ("flag", "perhaps", "22P02"),
            ("number", "3.5", "22P02"),
            ("number", "99999999999", "22003"),
            ("at", "yesterday or so", "22007"),
        ] {
            for call in [
                "iot.add_legal_hold('public.metrics', 'case', ",
                "iot.add_retention_rule('public.metrics', keep_for => '1 day', column_name => ",
            ] {
                let sql = if call.contains("hold") {
                    format!("SELECT {call}'{column}', '{value}')")
                } else {
                    format!("SELECT {call}'{column}', column_value => '{value}')")
                };
                assert_fails(&sql, state, &format!("column_value \"{value}\""), "Give a value of type");
            }
        }
        let json = "SELECT iot.add_legal_hold('public.metrics', 'case', 'document', '{}')";
        assert_fails(json, "42883", "document", "jsonb");
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.retention_rule"), 0);
    }

    #[pg_test]
    fn a_rule_whose_column_is_gone_takes_nothing() {
        table("value integer, kind text");
        Spi::run(
            "INSERT INTO public.metrics VALUES ('2020-01-02 00:00+00', 1, 'a');
             SELECT iot.add_legal_hold('public.metrics', 'case', 'value', '1');
             ALTER TABLE public.metrics RENAME COLUMN value TO measure;
             SET LOCAL client_min_messages = error",
        )
        .unwrap();
        let outcome: String = one(
            "SELECT outcome FROM iot.manage_partitions('public.metrics', '1 month', premake => 0, retention => '1 year')
              WHERE action = 'rewrite'",
        );
        assert_eq!(outcome, "failed: column \"value\" of the table does not exist");
        assert_eq!(one::<i64>("SELECT count(*) FROM public.metrics"), 1);
    }

    #[pg_test]
    fn what_is_held_is_not_retired() {
        table("value integer");
        Spi::run("INSERT INTO public.metrics VALUES ('2020-01-02 00:00+00', 1)").unwrap();
        Spi::run("SELECT iot.add_legal_hold('public.metrics', 'case', held_from => '2020-02-01 00:00+00')")
            .unwrap();
        Spi::run("SELECT iot.retire_partition('public.metrics_2020_01', 'old')").unwrap();
        Spi::run("SELECT iot.add_legal_hold('public.metrics', 'case', held_until => '2020-01-03 00:00+00')")
            .unwrap();
        assert_fails(
            "SELECT iot.retire_partition('public.metrics_2020_01', 'old')",
            "55000",
            "public.metrics_2020_01 are under legal hold",
            "partition_statements",
        );
    }

    #[pg_test]
    fn a_hold_brings_a_detached_partition_back() {
        table("value integer");
        Spi::run("INSERT INTO public.metrics VALUES ('2020-01-02 00:00+00', 1), ('2020-01-02 00:00+00', 2)")
            .unwrap();
        Spi::run("SELECT iot.manage_partitions('public.metrics', '1 month', premake => 0)").unwrap();
        Spi::run("SELECT iot.retire_partition('public.metrics_2020_01', 'old')").unwrap();
        Spi::run("ALTER TABLE public.metrics DETACH PARTITION public.metrics_2020_01").unwrap();
        Spi::run("SELECT iot.add_legal_hold('public.metrics', 'case', 'value', '2')").unwrap();
        assert_eq!(one::<i32>("SELECT iot.drop_retired_partitions('public.metrics')"), 0);
        assert_eq!(one::<i64>("SELECT count(*) FROM public.metrics"), 2);
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.partition_state WHERE retired_at IS NOT NULL"), 0);
        drop_old();
        assert_eq!(one::<String>("SELECT string_agg(value::text, ' ') FROM public.metrics"), "2");
    }

    #[pg_test]
    fn a_held_partition_whose_place_is_taken_stays_a_table() {
        table("value integer");
        Spi::run("INSERT INTO public.metrics VALUES ('2020-01-02 00:00+00', 1)").unwrap();
        Spi::run("SELECT iot.retire_partition('public.metrics_2020_01', 'old')").unwrap();
        Spi::run("ALTER TABLE public.metrics DETACH PARTITION public.metrics_2020_01").unwrap();
        Spi::run("SELECT iot.add_legal_hold('public.metrics', 'case')").unwrap();
        Spi::run("SELECT iot.create_monthly_partition('public.metrics', 2020, 1); SET LOCAL client_min_messages = error").unwrap();
        for _ in 0..2 {
            assert_eq!(one::<i32>("SELECT iot.drop_retired_partitions('public.metrics')"), 0);
            let outcome: String = one(
                "SELECT action || ' ' || outcome FROM iot.manage_partitions('public.metrics', '1 month', premake => 0)
                  WHERE partition_name = 'metrics_2020_01'",
            );
            assert!(
                outcome.starts_with("attach failed: partition \"metrics_2020_01\" would overlap"),
                "{outcome}"
            );
        }
        assert_eq!(one::<i64>("SELECT count(*) FROM public.metrics_2020_01"), 1);
        // Without the hold it goes.
        Spi::run("SELECT iot.remove_retention_rule(rule_id) FROM iot.retention_rule").unwrap();
        assert_eq!(one::<i32>("SELECT iot.drop_retired_partitions('public.metrics')"), 1);
        assert!(one::<bool>("SELECT to_regclass('public.metrics_2020_01') IS NULL"));
    }
}
