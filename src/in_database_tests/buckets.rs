//! Time buckets, first and last.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, one};

    #[pg_test]
    fn buckets_start_where_they_should() {
        Spi::run("SET TimeZone = 'America/New_York'").unwrap();
        for (call, expected) in [
            ("'15 minutes', '2026-11-19 10:29:59+00'", "2026-11-19 10:15:00+00"),
            ("'1 day', '2026-11-19 10:29:59+00'", "2026-11-19 00:00:00+00"),
            ("'1 week', '2026-11-19 10:29:59+00'", "2026-11-16 00:00:00+00"),
            ("'1 month', '2026-11-19 10:29:59+00'", "2026-11-01 00:00:00+00"),
            ("'3 months', '2026-11-19 10:29:59+00'", "2026-10-01 00:00:00+00"),
            ("'1 hour', '1999-12-31 23:59:59+00'", "1999-12-31 23:00:00+00"),
            ("'1 day', '2026-11-19 10:00+00', origin => '2000-01-01 06:00+00'", "2026-11-19 06:00:00+00"),
            ("'1 day', '2026-11-19 10:00+00', \"offset\" => '12 hours'", "2026-11-18 12:00:00+00"),
            ("'1 day', 'infinity'", "infinity"),
        ] {
            let found: bool = one(&format!("SELECT iot.time_bucket({call}) = timestamptz '{expected}'"));
            assert!(found, "{call}");
        }
    }

    #[pg_test]
    fn bucket_widths_that_have_no_meaning_are_refused() {
        for width in ["0", "-1 hour", "1 month 1 day"] {
            assert_fails(&format!("SELECT iot.time_bucket('{width}', now())"), "22023", "", "");
        }
        assert_fails(
            "SELECT iot.time_bucket('1 day', now(), \"offset\" => '1 month')",
            "22023",
            "month",
            "origin",
        );
    }

    #[pg_test]
    fn first_and_last_follow_the_time_of_any_type() {
        let rows = "(VALUES (3, 'c', NULL::int, 9.5), (1, 'a', 10, NULL), (2, 'b', 20, 1.5)) v (t, word, number, small)";
        let found: String = one(&format!(
            "SELECT concat_ws('|', iot.first(word, t), iot.last(word, t), iot.first(number, t),
                              iot.last(number, t) IS NULL, iot.last(word, timestamptz '2026-01-01' + t * interval '1 day'),
                              iot.first(word, small))
               FROM {rows}"
        ));
        assert_eq!(found, "a|c|10|t|c|b");
        let none: Option<String> = Spi::get_one("SELECT iot.first('x'::text, NULL::int)").unwrap();
        assert_eq!(none, None);
        assert_fails("SELECT iot.first(1, '(1,2)'::point)", "42883", "cannot be sorted", "timestamp");
    }

    #[pg_test]
    fn first_and_last_copy_long_values() {
        let found: i64 =
            one("SELECT length(iot.last(repeat(n::text, 5000), n))::bigint FROM generate_series(1, 300) n");
        assert_eq!(found, 15000);
    }
}
