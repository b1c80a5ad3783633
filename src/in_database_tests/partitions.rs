//! Partitions: made ahead and on demand.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, factory, one, process};

    #[pg_test]
    fn a_missing_partition_is_made_on_demand() {
        let (_, sensor) = factory();
        process(sensor, "1", "'2024-02-29 23:59:59.999999+00'");
        process(sensor, "1", "'2024-03-01 00:00+00'");
        let partitions: String =
            one("SELECT string_agg(DISTINCT tableoid::regclass::text, ' ' ORDER BY tableoid::regclass::text)
               FROM iot.sensor_data");
        assert_eq!(partitions, "iot.sensor_data_2024_02 iot.sensor_data_2024_03");
    }

    #[pg_test]
    fn setup_makes_this_month_and_the_next_ones() {
        Spi::run("SELECT iot.setup(premake => 2)").unwrap();
        let found: Vec<String> = one(
            "SELECT array_agg(relid::regclass::text ORDER BY relid::regclass::text) FROM pg_partition_tree('iot.sensor_data') WHERE isleaf",
        );
        let expected: Vec<String> = one(
            "SELECT array_agg('iot.sensor_data_' || to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + n * interval '1 month', 'YYYY_MM') ORDER BY n)
               FROM generate_series(0, 2) n",
        );
        assert_eq!(found, expected);
    }

    #[pg_test]
    fn create_monthly_partition_is_idempotent() {
        Spi::run("SELECT iot.setup()").unwrap();
        let made: Option<String> =
            Spi::get_one("SELECT iot.create_monthly_partition('iot.sensor_data', 2023, 7)").unwrap();
        assert_eq!(made.as_deref(), Some("sensor_data_2023_07"));
        let again: Option<String> =
            Spi::get_one("SELECT iot.create_monthly_partition('iot.sensor_data', 2023, 7)").unwrap();
        assert_eq!(again, None);
    }

    #[pg_test]
    fn create_future_partitions_works_on_any_time_partitioned_table() {
        Spi::run(
            "CREATE TABLE public.\"Odd name\" (at timestamptz NOT NULL, note text) PARTITION BY RANGE (at)",
        )
        .unwrap();
        let made: Vec<String> = one("SELECT iot.create_future_partitions('public.\"Odd name\"', 1)");
        assert_eq!(made.len(), 2);
        assert!(made[0].starts_with("Odd name_20"), "{made:?}");
        Spi::run("INSERT INTO public.\"Odd name\" VALUES (now(), 'kept')").unwrap();
    }

    #[pg_test]
    fn partition_functions_refuse_what_they_cannot_do() {
        Spi::run("SELECT iot.setup()").unwrap();
        Spi::run("CREATE TABLE plain (at timestamptz)").unwrap();
        Spi::run("CREATE TABLE listed (kind text) PARTITION BY LIST (kind)").unwrap();
        for table in ["plain", "listed"] {
            let call = format!("SELECT iot.create_monthly_partition('{table}', 2023, 7)");
            assert_fails(&call, "42809", table, "PARTITION BY RANGE");
        }
        assert_fails(
            "SELECT iot.create_monthly_partition('iot.sensor_data', 2023, 13)",
            "22023",
            "13",
            "month",
        );
        assert_fails("SELECT iot.create_future_partitions('iot.sensor_data', -1)", "22023", "-1", "months");
    }

    #[pg_test]
    fn row_security_of_the_parent_is_carried_to_new_partitions() {
        let (_, sensor) = factory();
        Spi::run("ALTER TABLE iot.sensor_data ENABLE ROW LEVEL SECURITY").unwrap();
        process(sensor, "1", "'2024-02-01 00:00+00'");
        assert!(one::<bool>(
            "SELECT relrowsecurity FROM pg_class WHERE oid = 'iot.sensor_data_2024_02'::regclass"
        ));
    }

    #[pg_test]
    fn daily_partitions_can_be_chosen() {
        Spi::run("SELECT iot.setup(partition_interval => '1 day', premake => 0)").unwrap();
        let name: String =
            one("SELECT relid::regclass::text FROM pg_partition_tree('iot.sensor_data') WHERE isleaf");
        let expected: String =
            one("SELECT 'iot.sensor_data_' || to_char(now() AT TIME ZONE 'UTC', 'YYYY_MM_DD')");
        assert_eq!(name, expected);
        assert_fails("SELECT iot.setup(partition_interval => '10 days')", "22023", "10", "");
        assert_fails("SELECT iot.setup(premake => -1)", "22023", "premake -1", "");
        assert_fails("SELECT iot.setup(retention => '1 hour')", "22023", "retention", "");
        assert_fails("SELECT iot.setup(index_policy => '{nonsense}')", "22023", "nonsense", "metadata_gin");
    }

    #[pg_test]
    fn the_policy_is_forgotten_with_its_table() {
        Spi::run("SELECT iot.setup()").unwrap();
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.partition_settings"), 3);
        Spi::run("DROP TABLE iot.sensor_data CASCADE").unwrap();
        assert_eq!(
            one::<String>(
                "SELECT string_agg(parent::text, ' ' ORDER BY parent::text) FROM iot.partition_policy"
            ),
            "iot.device_logs iot.processed_data"
        );
    }

    #[pg_test]
    fn a_taken_name_is_numbered_within_the_length_of_an_identifier() {
        let table = "t".repeat(63);
        Spi::run(&format!("CREATE TABLE public.{table} (at timestamptz) PARTITION BY RANGE (at)")).unwrap();
        let usual: String = one(&format!("SELECT iot.create_monthly_partition('public.{table}', 2023, 7)"));
        Spi::run(&format!("ALTER TABLE public.{table} DETACH PARTITION public.{usual}")).unwrap();
        let numbered: String =
            one(&format!("SELECT iot.create_monthly_partition('public.{table}', 2023, 7)"));
        assert_eq!((usual.len(), numbered.len()), (63, 63));
        assert!(usual.ends_with("_2023_07") && numbered.ends_with("_1"), "{usual} {numbered}");
    }
}
