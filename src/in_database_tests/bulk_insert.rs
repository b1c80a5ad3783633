//! Storing rows past the executor: what is stored is what an INSERT would have stored.

use pgrx::datum::{IntoDatum, JsonB, Uuid};
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::error::OrRaise;
use crate::pg::bulk_insert::{BulkInsert, Columns};
use crate::pg::relation::{self, Lock, OpenRelation};

static COLUMNS: Columns = &[
    (c"sensor_id", pg_sys::UUIDOID),
    (c"measurement_timestamp", pg_sys::TIMESTAMPTZOID),
    (c"measurement_value", pg_sys::FLOAT8OID),
    (c"data_quality", pg_sys::TEXTOID),
    (c"measurement_metadata", pg_sys::JSONBOID),
    (c"data_id", pg_sys::UUIDOID),
    (c"device_id", pg_sys::UUIDOID),
    (c"raw_value", pg_sys::FLOAT8OID),
    (c"received_at", pg_sys::TIMESTAMPTZOID),
];

const MINUTE: i64 = 60_000_000;

/// Three months of partitions: January to March 2026. Times are minutes since the first of January.
fn table() {
    Spi::run("SELECT iot.setup()").unwrap();
    Spi::run("SELECT iot.create_monthly_partition('iot.sensor_data', 2026, n) FROM generate_series(1, 3) n")
        .unwrap();
}

struct Row {
    sensor: u8,
    minute: i64,
    value: f64,
    quality: &'static str,
}

fn row(sensor: u8, minute: i64) -> Row {
    Row { sensor, minute, value: minute as f64, quality: "valid" }
}

fn datums(row: &Row) -> ([pg_sys::Datum; 9], [bool; 9]) {
    let id = |last: u8| {
        let mut bytes = [0; 16];
        bytes[15] = last;
        Uuid::from_bytes(bytes).into_datum().unwrap()
    };
    let start: TimestampWithTimeZone =
        Spi::get_one("SELECT timestamptz '2026-01-01 00:00+00'").unwrap().unwrap();
    let time = pg_sys::Datum::from(start.into_inner() + row.minute * MINUTE);
    let values = [
        id(row.sensor),
        time,
        row.value.into_datum().unwrap(),
        row.quality.into_datum().unwrap(),
        JsonB(serde_json::json!({"minute": row.minute})).into_datum().unwrap(),
        id(row.sensor),
        id(0),
        0.0_f64.into_datum().unwrap(),
        time,
    ];
    (values, [false, false, false, false, false, false, false, true, false])
}

/// Stores rows in one bulk insert; `None` where the executor must do it. Rows that were not taken count as conflicts.
fn store(rows: &[Row], ignored: &[&std::ffi::CStr]) -> Option<Vec<u32>> {
    let parent = OpenRelation::open(relation::in_schema_iot(c"sensor_data").unwrap(), Lock::RowExclusive);
    let own: [&std::ffi::CStr; 2] = [c"sensor_data_changed", c"sensor_data_truncated"];
    let ignored: Vec<_> = own.iter().chain(ignored).copied().collect();
    let mut insert = BulkInsert::open(&parent, COLUMNS, &ignored)?;
    let mut not_taken = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let (values, nulls) = datums(row);
        if !insert.append(&values, &nulls).or_raise() {
            not_taken.push(number as u32);
        }
    }
    not_taken.extend(insert.finish());
    Some(not_taken)
}

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use super::{Row, row, store, table};
    use crate::in_database_tests::one;

    const DAY: i64 = 24 * 60;

    /// Nothing but the end of the test may follow: what the failed work held is still held.
    #[track_caller]
    fn assert_raises(work: impl FnOnce() + std::panic::UnwindSafe, state: PgSqlErrorCode, message: &str) {
        let found = PgTryBuilder::new(move || {
            work();
            None
        })
        .catch_others(|error| match error {
            pgrx::pg_sys::panic::CaughtError::PostgresError(report)
            | pgrx::pg_sys::panic::CaughtError::ErrorReport(report)
            | pgrx::pg_sys::panic::CaughtError::RustPanic { ereport: report, .. } => {
                Some((report.sql_error_code(), report.message().to_string()))
            }
        })
        .execute();
        let (found_state, found_message) = found.expect("no error");
        assert_eq!(found_state, state, "{found_message}");
        assert!(found_message.contains(message), "{found_message}");
    }

    fn count() -> i64 {
        one("SELECT count(*) FROM iot.sensor_data")
    }

    #[pg_test]
    fn rows_equal_those_of_an_insert() {
        table();
        assert_eq!(store(&[row(1, 61), row(1, 45 * DAY + 7)], &[]), Some(vec![]));
        Spi::run(
            "CREATE TEMP TABLE stored AS SELECT * FROM iot.sensor_data;
             TRUNCATE iot.sensor_data;
             INSERT INTO iot.sensor_data (sensor_id, measurement_timestamp, measurement_value, data_quality,
                 measurement_metadata, data_id, device_id, received_at)
             SELECT sensor_id, measurement_timestamp, measurement_value, data_quality, measurement_metadata, data_id,
                    device_id, received_at FROM stored",
        )
        .unwrap();
        let differences: i64 = one(
            "SELECT count(*) FROM (SELECT s::text FROM stored s EXCEPT SELECT r::text FROM iot.sensor_data r) d",
        );
        assert_eq!(differences, 0);
        let row: String = one(
            "SELECT concat_ws('|', count(*), min(hour_bucket) = '2026-01-01 01:00+00', bool_and(NOT is_onset),
                              bool_and(raw_value IS NULL), min(measurement_metadata::text)) FROM stored",
        );
        assert_eq!(row, "2|t|t|t|{\"minute\": 61}");
    }

    #[pg_test]
    fn many_rows_over_months_in_any_order() {
        table();
        let rows: Vec<Row> = (0..2500).map(|n| row((n % 7) as u8, (n * 7919 % 2503) * 50)).collect();
        assert_eq!(store(&rows, &[]), Some(vec![]));
        let found: String = one(
            "SELECT concat_ws('|', count(*), count(DISTINCT tableoid),
                    count(*) FILTER (WHERE measurement_value * interval '1 minute' + '2026-01-01 00:00+00'::timestamptz
                                           = measurement_timestamp)) FROM iot.sensor_data",
        );
        assert_eq!(found, "2500|3|2500");
        Spi::run("SET enable_seqscan = off; SET enable_bitmapscan = off").unwrap();
        let by_index: i64 = one(
            "SELECT count(*) FROM iot.sensor_data WHERE sensor_id >= '00000000-0000-0000-0000-000000000000'",
        );
        assert_eq!(by_index, 2500, "every row has its index entry");
    }

    #[pg_test]
    fn duplicates_are_named_and_not_stored() {
        table();
        assert_eq!(store(&[row(1, 5), row(1, 6)], &[]), Some(vec![]));
        let rows =
            [row(1, 4), row(1, 5), row(2, 5), row(1, 4), row(1, 40 * DAY), row(1, 40 * DAY), row(1, 6)];
        assert_eq!(store(&rows, &[]), Some(vec![1, 3, 5, 6]));
        assert_eq!(count(), 5);
        assert_eq!(store(&rows, &[]), Some((0..7).collect()), "sent again");
        assert_eq!(store(&[row(1, 4)], &[]), Some(vec![0]), "a single one");
        assert_eq!(store(&[row(1, 4), row(1, 7)], &[]), Some(vec![0]), "the first of two");
        assert_eq!(count(), 6);
        let rows: Vec<Row> = (0..3000).map(|n| row(1, n)).collect();
        assert_eq!(store(&rows, &[]), Some(vec![4, 5, 6, 7]));
        assert_eq!(store(&rows, &[]), Some((0..3000).collect()));
    }

    #[pg_test]
    fn a_batch_that_is_sent_again_leaves_no_dead_rows() {
        table();
        let rows: Vec<Row> = (0..2000).map(|n| row(1, n)).collect();
        store(&rows, &[]);
        let size =
            "SELECT sum(pg_relation_size(p.relid))::bigint FROM pg_partition_tree('iot.sensor_data') p";
        let before: i64 = one(size);
        assert_eq!(store(&rows, &[]).unwrap().len(), 2000);
        assert_eq!(one::<i64>(size), before);
    }

    #[pg_test]
    fn columns_of_the_user_get_their_defaults() {
        table();
        Spi::run(
            "CREATE SEQUENCE public.counter;
             ALTER TABLE iot.sensor_data ADD COLUMN plant text NOT NULL DEFAULT 'north',
                 ADD COLUMN serial_number bigint DEFAULT nextval('public.counter'), ADD COLUMN remark text",
        )
        .unwrap();
        store(&[row(1, 1), row(1, 2), row(1, 40 * DAY)], &[]).unwrap();
        let found: String = one(
            "SELECT string_agg(plant || serial_number || (remark IS NULL), ' ' ORDER BY measurement_timestamp)
               FROM iot.sensor_data",
        );
        assert_eq!(found, "north1true north2true north3true");
    }

    #[pg_test]
    fn a_layout_that_was_kept_follows_the_table() {
        table();
        store(&[row(1, 1)], &[]).unwrap();
        Spi::run(
            "ALTER TABLE iot.sensor_data ADD COLUMN plant text DEFAULT 'north';
             ALTER TABLE iot.sensor_data DROP COLUMN text_value CASCADE",
        )
        .unwrap();
        store(&[row(1, 2)], &[]).unwrap();
        Spi::run("ALTER TABLE iot.sensor_data ALTER COLUMN plant SET DEFAULT 'south'").unwrap();
        store(&[row(1, 3)], &[]).unwrap();
        let found: String =
            one("SELECT string_agg(plant, ' ' ORDER BY measurement_timestamp) FROM iot.sensor_data");
        assert_eq!(found, "north north south");
        Spi::run("ALTER TABLE iot.sensor_data ALTER COLUMN raw_value TYPE real").unwrap();
        assert_eq!(store(&[row(1, 4)], &[]), None, "another type than the caller's");
    }

    #[pg_test]
    fn check_reads_as_in_an_insert() {
        table();
        let bad = || {
            store(&[Row { quality: "splendid", ..row(1, 1) }], &[]);
        };
        assert_raises(bad, PgSqlErrorCode::ERRCODE_CHECK_VIOLATION, "sensor_data_data_quality_check");
    }

    #[pg_test]
    fn not_null_reads_as_in_an_insert() {
        table();
        Spi::run("ALTER TABLE iot.sensor_data ADD COLUMN plant text NOT NULL").unwrap();
        let missing = || {
            store(&[row(1, 1)], &[]);
        };
        assert_raises(
            missing,
            PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
            "null value in column \"plant\" of relation \"sensor_data_",
        );
    }

    #[pg_test]
    fn a_partition_may_have_another_order_of_columns() {
        table();
        Spi::run(
            "CREATE TABLE public.odd (gone int, LIKE iot.sensor_data INCLUDING DEFAULTS INCLUDING GENERATED
                                      INCLUDING CONSTRAINTS);
             ALTER TABLE public.odd DROP COLUMN gone, DROP COLUMN sensor_id, DROP COLUMN measurement_value;
             ALTER TABLE public.odd ADD COLUMN measurement_value float8, ADD COLUMN sensor_id uuid NOT NULL;
             ALTER TABLE iot.sensor_data ATTACH PARTITION public.odd
                 FOR VALUES FROM ('2030-01-01 00:00+00') TO ('2030-02-01 00:00+00')",
        )
        .unwrap();
        let minute: i64 = one(
            "SELECT (extract(epoch FROM timestamptz '2030-01-03 00:30+00' - '2026-01-01 00:00+00') / 60)::bigint",
        );
        assert_eq!(store(&[row(3, minute), row(3, 1), row(3, minute)], &[]), Some(vec![2]));
        let found: String = one(
            "SELECT concat_ws('|', sensor_id, measurement_value, data_quality, hour_bucket = '2030-01-03 00:00+00',
                              is_onset) FROM public.odd",
        );
        assert_eq!(found, format!("00000000-0000-0000-0000-000000000003|{minute}|valid|t|f"));
        assert_eq!(count(), 2);
    }

    #[pg_test]
    fn another_unique_index_raises_but_not_for_duplicates_of_the_key() {
        table();
        Spi::run(
            "CREATE UNIQUE INDEX one_value ON iot.sensor_data (measurement_value, measurement_timestamp)",
        )
        .unwrap();
        assert_eq!(store(&[row(1, 1), row(1, 1), row(1, 2)], &[]), Some(vec![1]));
        assert_eq!(store(&[row(1, 1), row(1, 3)], &[]), Some(vec![0]));
        assert_raises(
            || {
                store(&[row(2, 1)], &[]);
            },
            PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
            "sensor_data_2026_01_measurement_value",
        );
    }

    #[pg_test]
    fn triggers_are_left_to_the_executor() {
        table();
        Spi::run(
            "CREATE FUNCTION public.pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
             CREATE TRIGGER pass AFTER INSERT ON iot.sensor_data FOR EACH ROW EXECUTE FUNCTION public.pass()",
        )
        .unwrap();
        assert_eq!(store(&[row(1, 1)], &[]), None);
        assert_eq!(store(&[row(1, 1)], &[c"pass"]), Some(vec![]), "ignored, and its clones are");
        Spi::run("SET session_replication_role = replica").unwrap();
        assert_eq!(store(&[row(1, 2)], &[]), Some(vec![]), "it does not fire now");
        Spi::run("SET session_replication_role = origin; ALTER TABLE iot.sensor_data DISABLE TRIGGER pass")
            .unwrap();
        assert_eq!(store(&[row(1, 3)], &[]), Some(vec![]));
        Spi::run(
            "DROP TRIGGER pass ON iot.sensor_data;
             CREATE TRIGGER said AFTER INSERT ON iot.sensor_data REFERENCING NEW TABLE AS added
                 EXECUTE FUNCTION public.pass()",
        )
        .unwrap();
        assert_eq!(store(&[row(1, 4)], &[]), None);
        Spi::run("DROP TRIGGER said ON iot.sensor_data").unwrap();
        let leaf: String =
            one("SELECT tableoid::regclass::text FROM iot.sensor_data WHERE measurement_value = 1");
        Spi::run(&format!(
            "CREATE TRIGGER own BEFORE INSERT ON {leaf} FOR EACH ROW EXECUTE FUNCTION public.pass()"
        ))
        .unwrap();
        assert_eq!(store(&[row(1, 4), row(1, 40 * DAY)], &[]), Some(vec![0]), "only that partition");
        Spi::run("CREATE RULE away AS ON INSERT TO iot.sensor_data DO INSTEAD NOTHING").unwrap();
        assert_eq!(store(&[row(1, 40 * DAY)], &[]), None);
    }

    #[pg_test]
    fn row_security_and_missing_privileges_are_left_to_the_executor() {
        table();
        Spi::run(
            "CREATE ROLE writer; GRANT USAGE ON SCHEMA iot TO writer; GRANT INSERT ON iot.sensor_data TO writer;
             CREATE ROLE reader; GRANT USAGE ON SCHEMA iot TO reader; SET ROLE writer",
        )
        .unwrap();
        // Without SELECT on the times: the helper's own query reads no table.
        assert_eq!(store(&[row(1, 1)], &[]), Some(vec![]));
        Spi::run("SET ROLE reader").unwrap();
        assert_eq!(store(&[row(1, 2)], &[]), None);
        Spi::run("RESET ROLE; ALTER TABLE iot.sensor_data ENABLE ROW LEVEL SECURITY; SET ROLE writer")
            .unwrap();
        assert_eq!(store(&[row(1, 2)], &[]), None);
        Spi::run("RESET ROLE").unwrap();
    }

    #[pg_test]
    fn a_read_only_transaction_raises() {
        table();
        Spi::run("SET LOCAL transaction_read_only = on").unwrap();
        assert_raises(
            || {
                store(&[row(1, 1)], &[]);
            },
            PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
            "cannot execute INSERT in a read-only transaction",
        );
    }

    #[pg_test]
    fn without_a_primary_key_everything_is_stored() {
        table();
        Spi::run("ALTER TABLE iot.sensor_data DROP CONSTRAINT sensor_data_pkey").unwrap();
        assert_eq!(store(&[row(1, 1), row(1, 1), row(1, 2)], &[]), Some(vec![]));
        assert_eq!(store(&[row(1, 1)], &[]), Some(vec![]));
        assert_eq!(count(), 4);
    }

    #[pg_test]
    fn a_row_without_a_partition() {
        table();
        assert_raises(
            || {
                store(&[row(1, -100 * 366 * DAY)], &[]);
            },
            PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
            "no partition of relation \"sensor_data\" found for row",
        );
    }

    #[pg_test]
    fn more_partitions_than_are_kept_open() {
        Spi::run(
            "SELECT iot.setup();
             DO $$ BEGIN FOR day IN 0..49 LOOP
                 EXECUTE format('CREATE TABLE public.day%s PARTITION OF iot.sensor_data FOR VALUES FROM (%L) TO (%L)',
                     day, '1990-01-01 00:00+00'::timestamptz + day * interval '1 day',
                     '1990-01-01 00:00+00'::timestamptz + (day + 1) * interval '1 day');
             END LOOP; END $$",
        )
        .unwrap();
        let start: i64 = one(
            "SELECT (extract(epoch FROM timestamptz '1990-01-01 00:00+00' - '2026-01-01 00:00+00') / 60)::bigint",
        );
        let rows: Vec<Row> = (0..300).map(|n| row(1, start + n % 50 * DAY + n / 50)).collect();
        assert_eq!(store(&rows, &[]), Some(vec![]));
        let found: String = one("SELECT count(*) || ' ' || count(DISTINCT tableoid) FROM iot.sensor_data");
        assert_eq!(found, "300 50");
    }

    #[pg_test]
    fn long_values_are_stored_out_of_line() {
        table();
        let long: &'static str = Box::leak(
            one::<String>("SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1000) n")
                .into_boxed_str(),
        );
        Spi::run("ALTER TABLE iot.sensor_data DROP CONSTRAINT sensor_data_data_quality_check").unwrap();
        let rows: Vec<Row> = (0..50).map(|n| Row { quality: long, ..row(1, n) }).collect();
        assert_eq!(store(&rows, &[]), Some(vec![]));
        assert_eq!(store(&rows[..2], &[]), Some(vec![0, 1]));
        assert_eq!(one::<i64>("SELECT sum(length(data_quality))::bigint FROM iot.sensor_data"), 50 * 32_000);
    }
}
