//! Conversion to partitions: what is refused, and what a dry run says. The rest commits, and is tested from outside.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, one};

    const DRY: &str = "CALL iot.convert_to_partitioned('public.readings', 'at', dry_run => true)";

    fn readings(extra: &str) {
        Spi::run(&format!(
            "CREATE TABLE public.readings (id bigint PRIMARY KEY, at timestamptz NOT NULL, value double precision {extra})"
        ))
        .unwrap();
    }

    /// What the refusal lists, or the error's message if it lists nothing.
    fn refusal(call: &str) -> String {
        Spi::run(
            "CREATE OR REPLACE FUNCTION pg_temp.refusal(call text) RETURNS text LANGUAGE plpgsql AS $$
             DECLARE message text; list text;
             BEGIN
                 EXECUTE call;
                 RETURN 'no error';
             EXCEPTION WHEN OTHERS THEN
                 GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, list = PG_EXCEPTION_DETAIL;
                 RETURN coalesce(nullif(list, ''), message);
             END $$",
        )
        .unwrap();
        Spi::get_one_with_args("SELECT pg_temp.refusal($1)", &[call.into()]).unwrap().unwrap()
    }

    #[pg_test]
    fn everything_in_the_way_is_listed_at_once() {
        readings("");
        Spi::run(
            "CREATE VIEW public.latest AS SELECT * FROM public.readings;
             CREATE MATERIALIZED VIEW public.daily AS SELECT count(*) FROM public.readings;
             CREATE TABLE public.notes (reading bigint REFERENCES public.readings);
             CREATE TABLE public.more () INHERITS (public.readings);
             CREATE RULE nothing AS ON DELETE TO public.readings DO ALSO NOTHING;
             CREATE TABLE public.pairs (one public.readings);
             CREATE FUNCTION public.total() RETURNS bigint BEGIN ATOMIC SELECT count(*) FROM public.readings; END;
             ALTER TABLE public.readings ADD CONSTRAINT positive CHECK (value > 0) NOT VALID,
                 ADD CONSTRAINT own CHECK (value < 10) NO INHERIT,
                 ADD EXCLUDE USING btree (value WITH =);",
        )
        .unwrap();
        assert_eq!(
            refusal(DRY).lines().collect::<Vec<_>>(),
            [
                "table public.more inherits from it",
                "foreign key notes_reading_fkey of table public.notes references it",
                "it has rule nothing",
                "materialized view public.daily depends on it",
                "view public.latest depends on it",
                "function public.total() depends on it",
                "column one of table public.pairs is of its type",
                "it has exclusion constraint readings_value_excl",
                "constraint positive is not validated",
                "constraint own is NO INHERIT",
            ]
        );
        assert_fails(DRY, "0A000", "table public.readings cannot be converted", "Remove what is listed");
    }

    #[pg_test]
    fn what_cannot_be_kept_right_is_refused() {
        for (change, expected) in [
            ("ALTER TABLE public.readings DROP CONSTRAINT readings_pkey", "it has no primary key"),
            (
                "ALTER TABLE public.readings DROP CONSTRAINT readings_pkey;
                 CREATE UNIQUE INDEX ON public.readings (id) WHERE id > 0",
                "it has no primary key",
            ),
            ("ALTER TABLE public.readings ALTER at DROP NOT NULL", "column at is not declared NOT NULL"),
            (
                "ALTER TABLE public.readings ALTER at DROP NOT NULL; INSERT INTO public.readings VALUES (1)",
                "column at has NULLs",
            ),
            ("INSERT INTO public.readings VALUES (1, 'infinity')", "column at has infinite values"),
            (
                "INSERT INTO public.readings VALUES (1, '1970-01-01'), (2, now())",
                "would take more than 2000 partitions",
            ),
            ("ALTER TABLE public.readings SET UNLOGGED", "it is unlogged"),
            (
                "CREATE TABLE public.root (LIKE public.readings); ALTER TABLE public.readings INHERIT public.root",
                "it inherits from table public.root",
            ),
            (
                "CREATE PUBLICATION everything FOR ALL TABLES",
                "publication everything is FOR ALL TABLES: subscribers would be sent the copy",
            ),
            (
                "CREATE PUBLICATION schemawide FOR TABLES IN SCHEMA public",
                "publication schemawide is of its whole schema",
            ),
            (
                "CREATE PUBLICATION leaves FOR TABLE public.readings",
                "publication leaves is without publish_via_partition_root",
            ),
            (
                "CREATE FUNCTION public.seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
                 CREATE TRIGGER seen AFTER INSERT ON public.readings REFERENCING NEW TABLE AS added
                     FOR EACH ROW EXECUTE FUNCTION public.seen()",
                "row trigger seen has transition tables",
            ),
            (
                "ALTER TABLE public.readings ADD other bigint NOT NULL UNIQUE;
                 CREATE UNIQUE INDEX down ON public.readings (other DESC);
                 ALTER TABLE public.readings REPLICA IDENTITY USING INDEX down",
                "the index of its replica identity is not one by which rows can be put in order",
            ),
        ] {
            readings("");
            Spi::run(change).unwrap();
            let call = "CALL iot.convert_to_partitioned('public.readings', 'at', '1 day', dry_run => true)";
            let found = refusal(call);
            assert!(found.contains(expected), "{change}: {found}");
            Spi::run(
                "DROP TABLE public.readings CASCADE; DROP TABLE IF EXISTS public.root;
                 DROP FUNCTION IF EXISTS public.seen();
                 DROP PUBLICATION IF EXISTS everything, schemawide, leaves",
            )
            .unwrap();
        }
    }

    #[pg_test]
    fn only_a_time_can_be_the_column() {
        readings(
            ", day date NOT NULL DEFAULT now(), local timestamp NOT NULL DEFAULT now(), \
                  later timestamp NOT NULL GENERATED ALWAYS AS (NULL) STORED",
        );
        let convert = |column: &str, width: &str| {
            refusal(&format!(
                "CALL iot.convert_to_partitioned('public.readings', '{column}', '{width}', dry_run => true)"
            ))
        };
        assert_eq!(convert("day", "1 day"), "no error");
        assert_eq!(convert("local", "1 hour"), "no error");
        assert_eq!(convert("day", "1 hour"), "column day is a date, and partition_interval is 1 hour");
        assert_eq!(convert("later", "1 day"), "column later is generated");
        assert_eq!(
            convert("id", "1 day"),
            "column id has type bigint, and not timestamptz, timestamp or date"
        );
        assert_fails(
            "CALL iot.convert_to_partitioned('public.readings', 'gone', dry_run => true)",
            "42703",
            "column \"gone\" of the table does not exist",
            "Name a column",
        );
    }

    #[pg_test]
    fn arguments_are_checked() {
        readings("");
        for (arguments, state, message, hint) in [
            ("NULL, 'at'", "22004", "argument \"relation\" must not be null", "Pass a value"),
            ("'public.readings', NULL", "22004", "argument \"time_column\" must not be null", "Pass a value"),
            (
                "'public.readings', 'at', '2 days'",
                "22023",
                "unsupported partition interval",
                "Use an interval of",
            ),
            (
                "'public.readings', 'at', batch_rows => 0",
                "22023",
                "batch_rows 0 is not between 1 and 1000000",
                "Give a number",
            ),
            ("'public.readings', 'at', premake => -1", "22023", "premake -1 is not between", "Give a number"),
            (
                "'public.readings', 'at', lock_retries => -1",
                "22023",
                "lock_retries -1 is not between",
                "Give a number",
            ),
            (
                "'pg_catalog.pg_views', 'viewname'",
                "42809",
                "pg_catalog.pg_views is not a plain table",
                "Name a table",
            ),
        ] {
            let call = format!("CALL iot.convert_to_partitioned({arguments}, dry_run => true)");
            assert_fails(&call, state, message, hint);
        }
        Spi::run("CREATE TABLE public.parts (at timestamptz NOT NULL) PARTITION BY RANGE (at)").unwrap();
        assert_fails(
            "CALL iot.convert_to_partitioned('public.parts', 'at', dry_run => true)",
            "42809",
            "public.parts is not a plain table",
            "iot.import_partitions()",
        );
        assert_fails(
            "CALL iot.import_partitions('public.readings', dry_run => true)",
            "42809",
            "is not partitioned by range over one",
            "Name a table created with PARTITION BY RANGE",
        );
        assert_fails(
            "CALL iot.import_partitions('public.parts', premake => -1, dry_run => true)",
            "22023",
            "premake -1 is not between 0 and 1000",
            "Give the number of partitions",
        );
    }

    #[pg_test]
    fn nothing_begins_inside_a_transaction() {
        readings("");
        for call in [
            "iot.convert_to_partitioned('public.readings', 'at')",
            "iot.import_partitions('public.readings')",
        ] {
            assert_fails(
                &format!("CALL {call}"),
                "25001",
                "cannot run inside a transaction block",
                "with autocommit on",
            );
        }
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.conversion"), 0);
        assert!(!one::<bool>("SELECT iot.cancel_conversion('public.readings')"));
    }

    #[pg_test]
    fn only_the_owner_may() {
        readings("");
        Spi::run(
            "CREATE ROLE stranger; GRANT ALL ON public.readings TO stranger; GRANT USAGE ON SCHEMA iot TO stranger;
             SET ROLE stranger",
        )
        .unwrap();
        for call in [
            "CALL iot.convert_to_partitioned('public.readings', 'at', dry_run => true)",
            "CALL iot.import_partitions('public.readings', dry_run => true)",
            "SELECT iot.cancel_conversion('public.readings')",
        ] {
            assert_fails(call, "42501", "must be owner of table public.readings", "Call it as the owner");
        }
        assert_fails("SELECT * FROM iot.conversion", "42501", "permission denied", "");
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.conversions"), 0);
        Spi::run("RESET ROLE").unwrap();
    }

    #[pg_test]
    fn a_dry_run_changes_nothing() {
        readings("");
        Spi::run("INSERT INTO public.readings SELECT n, now() - n * interval '1 hour' FROM generate_series(1, 100) n")
            .unwrap();
        assert_eq!(refusal(DRY), "no error");
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.conversion"), 0);
        assert_eq!(
            one::<i64>(
                "SELECT count(*) FROM pg_class WHERE relname LIKE 'readings%' AND relkind IN ('r', 'p')"
            ),
            1
        );
        assert_eq!(
            one::<i64>("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'public.readings'::regclass"),
            0
        );
    }

    #[pg_test]
    fn triggers_of_a_copy_elsewhere_do_nothing_and_go() {
        readings("");
        Spi::run(
            "CREATE TABLE public.readings_log (key_1 bigint, key_2 timestamptz);
             CREATE TABLE public.readings_copy (LIKE public.readings);
             CREATE TRIGGER iot_ext_conversion AFTER INSERT OR UPDATE OR DELETE ON public.readings FOR EACH ROW
                 EXECUTE FUNCTION iot.log_conversion_change('4711', '4712', '1 2', 'public.readings_copy', 'public.readings_log');
             INSERT INTO public.readings VALUES (1, now())",
        )
        .unwrap();
        assert_eq!(one::<i64>("SELECT count(*) FROM public.readings_log"), 0);
        assert_eq!(refusal(DRY), "trigger iot_ext_conversion is left over from a conversion elsewhere");
        assert!(one::<bool>("SELECT iot.cancel_conversion('public.readings')"));
        assert_eq!(refusal(DRY), "no error");
        assert_eq!(
            one::<i64>("SELECT count(*) FROM pg_class WHERE relname LIKE 'readings\\__%' AND relkind = 'r'"),
            0
        );
    }

    #[pg_test]
    fn the_log_gets_every_key() {
        readings("");
        Spi::run(
            "CREATE TABLE public.readings_log (key_1 bigint, key_2 timestamptz);
             DO $$ BEGIN EXECUTE format('CREATE TRIGGER iot_ext_conversion AFTER INSERT OR UPDATE OR DELETE ON public.readings
                 FOR EACH ROW EXECUTE FUNCTION iot.log_conversion_change(%L, %L, %L)',
                 'public.readings'::regclass::oid, 'public.readings_log'::regclass::oid, '1 2'); END $$;
             DO $$ BEGIN EXECUTE format('CREATE TRIGGER iot_ext_conversion_truncate AFTER TRUNCATE ON public.readings
                 EXECUTE FUNCTION iot.log_conversion_change(%L, %L, %L)',
                 'public.readings'::regclass::oid, 'public.readings_log'::regclass::oid, '1 2'); END $$;
             SET timezone = 'UTC';
             INSERT INTO public.readings VALUES (1, '2026-01-01'), (2, '2026-01-02');
             UPDATE public.readings SET value = 1 WHERE id = 1;
             UPDATE public.readings SET at = '2026-02-01' WHERE id = 1;
             DELETE FROM public.readings WHERE id = 2;
             TRUNCATE public.readings",
        )
        .unwrap();
        assert_eq!(
            one::<String>(
                "SELECT string_agg(concat_ws(' ', key_1, key_2::date), ',' ORDER BY ctid) FROM public.readings_log"
            ),
            "1 2026-01-01,2 2026-01-02,1 2026-01-01,1 2026-01-01,1 2026-02-01,2 2026-01-02,"
        );
    }
}
