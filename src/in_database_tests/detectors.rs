//! `score_series`: every detector on a series of which the answer is known, and its errors.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, factory, one};

    const DETECTORS: [&str; 5] = ["zscore", "robust", "ewma", "seasonal", "adaptive"];

    /// Readings of table `series`: ten days, one every five minutes.
    const READINGS: i64 = 2_880;
    /// The reading that is a spike.
    const SPIKE: i64 = 1_800;
    /// The first reading on the new level.
    const SHIFT: i64 = 2_500;

    /// A day's rise and fall with noise, a spike, and a shift of level, which ends before now.
    fn series() {
        Spi::run(&format!(
            "CREATE TEMP TABLE series AS
             SELECT n AS number, date_trunc('hour', now()) - interval '11 days' + n * interval '5 minutes' AS at,
                    20 + 3 * sin(2 * pi() * n / 288) + (n * 7919 % 1000) / 1000.0
                    + CASE WHEN n = {SPIKE} THEN 40 WHEN n >= {SHIFT} THEN 25 ELSE 0 END AS value
               FROM generate_series(1, {READINGS}) n"
        ))
        .unwrap();
    }

    fn score(detector: &str) {
        Spi::run(&format!(
            "CREATE TEMP TABLE {detector} AS
             SELECT s.* FROM (SELECT array_agg(at ORDER BY number) AS ats,
                                     array_agg(value::float8 ORDER BY number) AS vals FROM series) a,
                    iot.score_series('{detector}', a.ats, a.vals)
                        WITH ORDINALITY AS s (at, value, score, is_anomaly, is_onset, is_learning, number)"
        ))
        .unwrap();
    }

    fn count(detector: &str, condition: &str) -> i64 {
        one(&format!("SELECT count(*) FROM {detector} WHERE {condition}"))
    }

    #[pg_test]
    fn every_detector_finds_the_spike_and_the_shift() {
        series();
        for detector in DETECTORS {
            score(detector);
            let same = format!(
                "SELECT count(*) FROM {detector} JOIN series s USING (number, at) WHERE s.value = {detector}.value"
            );
            assert_eq!(one::<i64>(&same), READINGS, "{detector}: rows as given");
            assert_eq!(count(detector, "score NOT BETWEEN 0 AND 5"), 0, "{detector}");
            assert_eq!(count(detector, "is_anomaly <> (score > 3)"), 0, "{detector}");
            assert_eq!(count(detector, "is_onset AND NOT is_anomaly"), 0, "{detector}");
            assert_eq!(count(detector, "is_learning"), 30, "{detector}");
            assert_eq!(count(detector, "is_learning AND number > 30"), 0, "{detector}");
            assert_eq!(count(detector, &format!("is_onset AND number = {SPIKE}")), 1, "{detector}: spike");
            let shift = format!("is_onset AND number BETWEEN {SHIFT} AND {SHIFT} + 12");
            assert_eq!(count(detector, &shift), 1, "{detector}: shift");
            let onsets = count(detector, "is_onset");
            assert!((2..=8).contains(&onsets), "{detector}: {onsets} onsets");
        }
    }

    /// Ingest's scores of the series for a sensor with this detector are those of `score_series`.
    fn assert_ingest_agrees(detector: &str) {
        let (_, sensor) = factory();
        Spi::run(&format!("UPDATE iot.sensors SET detector = '{detector}'")).unwrap();
        series();
        // In order, then some that come late: older than the window, and within it.
        Spi::run(
            "INSERT INTO series SELECT 10000 + number, at + interval '1 minute', value + 1 FROM series
              WHERE number % 100 = 7",
        )
        .unwrap();
        score(detector);
        let half = |range: &str| {
            format!(
                "SELECT iot.ingest(array_agg('{sensor}'::uuid), array_agg(at ORDER BY number),
                                   array_agg(value::float8 ORDER BY number)) FROM series WHERE number {range}"
            )
        };
        // Two batches: the state goes on from one to the next.
        Spi::run(&half("<= 1500")).unwrap();
        Spi::run(&half("> 1500")).unwrap();
        let compared = format!("FROM {detector} z JOIN iot.sensor_data d ON d.measurement_timestamp = z.at");
        assert_eq!(one::<i64>(&format!("SELECT count(*) {compared}")), READINGS + 29, "{detector}");
        let worst: f64 = one(&format!("SELECT max(abs(z.score - d.anomaly_score)) {compared}"));
        assert!(worst < 1e-9, "{detector}: {worst}");
        let differing = format!(
            "SELECT count(*) {compared}
              WHERE (z.is_anomaly, z.is_onset) IS DISTINCT FROM (d.is_anomaly, d.is_onset)"
        );
        assert_eq!(one::<i64>(&differing), 0, "{detector}");
        assert!(count(detector, "is_onset") >= 2, "{detector}");
        assert_eq!(count(detector, "is_onset AND number > 2880"), 0, "{detector}: an episode began late");
    }

    #[pg_test]
    fn ingest_and_score_series_agree_zscore() {
        assert_ingest_agrees("zscore");
    }

    #[pg_test]
    fn ingest_and_score_series_agree_robust() {
        assert_ingest_agrees("robust");
    }

    #[pg_test]
    fn ingest_and_score_series_agree_ewma() {
        assert_ingest_agrees("ewma");
    }

    #[pg_test]
    fn ingest_and_score_series_agree_seasonal() {
        assert_ingest_agrees("seasonal");
    }

    #[pg_test]
    fn ingest_and_score_series_agree_adaptive() {
        assert_ingest_agrees("adaptive");
    }

    #[pg_test]
    fn readings_out_of_order_are_scored_and_change_nothing() {
        for detector in ["robust", "ewma", "seasonal", "adaptive"] {
            let scores: i64 = one(&format!(
                "WITH given AS (SELECT n, '2026-03-01 00:00+00'::timestamptz + n * interval '1 minute' AS at,
                                       (n * 7919 % 1000)::float8 AS value FROM generate_series(1, 500) n),
                      late AS (SELECT * FROM given UNION ALL SELECT 400.5, '2026-02-28 12:00+00', 1e6 ORDER BY n),
                      a AS (SELECT array_agg(at ORDER BY n) AS ats, array_agg(value ORDER BY n) AS vals FROM given),
                      b AS (SELECT array_agg(at ORDER BY n) AS ats, array_agg(value ORDER BY n) AS vals FROM late)
                 SELECT count(*) FROM a, b, iot.score_series('{detector}', a.ats, a.vals) x,
                        iot.score_series('{detector}', b.ats, b.vals) y
                  WHERE x.measurement_timestamp = y.measurement_timestamp AND x = y"
            ));
            assert_eq!(scores, 500, "{detector}");
        }
    }

    #[pg_test]
    fn nothing_gives_no_rows() {
        for arguments in
            ["'adaptive', '{}', '{}'", "NULL, '{}', '{}'", "'adaptive', NULL, '{}'", "'adaptive', '{}', NULL"]
        {
            let rows: i64 = one(&format!("SELECT count(*) FROM iot.score_series({arguments})"));
            assert_eq!(rows, 0, "{arguments}");
        }
    }

    #[pg_test]
    fn rows_come_one_by_one() {
        // In the SELECT list, LIMIT ends the series early; the next one begins anew.
        for _ in 0..3 {
            let last: f64 = one(
                "SELECT max((row).measurement_value) FROM (
                     SELECT iot.score_series('ewma', array_agg('2026-03-01'::timestamptz + n * interval '1 s'),
                                             array_agg(n::float8)) AS row
                       FROM generate_series(1, 100000) n LIMIT 5) AS first_five",
            );
            assert_eq!(last, 5.0);
        }
    }

    #[pg_test]
    fn what_cannot_be_scored_is_named() {
        for (arguments, state, message, hint) in [
            ("'mad', '{}', '{}'", "22023", "no detector \"mad\"", "zscore, robust, ewma, seasonal, adaptive"),
            ("'Ewma', '{}', '{}'", "22023", "no detector \"Ewma\"", "ewma"),
            (
                "'ewma', '{2026-01-01}', '{1,2}'",
                "2202E",
                "\"measurement_values\" has 2 elements, but timestamps has 1",
                "equal",
            ),
            (
                "'ewma', '{{2026-01-01}}', '{1}'",
                "2202E",
                "\"timestamps\" has more than one dimension",
                "one-dimensional",
            ),
            (
                "'ewma', '{2026-01-01}', '{{1}}'",
                "2202E",
                "\"measurement_values\" has more than one dimension",
                "one-dimensional",
            ),
            (
                "'ewma', '{2026-01-01,NULL}', '{1,2}'",
                "22004",
                "element 2 of argument \"timestamps\"",
                "Leave out",
            ),
            (
                "'ewma', '{2026-01-01}', '{NULL}'",
                "22004",
                "element 1 of argument \"measurement_values\"",
                "Leave out",
            ),
            (
                "'ewma', '{2026-01-01}', '{NaN}'",
                "22003",
                "element 1 of argument \"measurement_values\" is NaN",
                "finite",
            ),
            (
                "'ewma', '{2026-01-01,2026-01-02}', '{1,-Infinity}'",
                "22003",
                "element 2 of argument \"measurement_values\" is -Infinity",
                "finite",
            ),
            (
                "'ewma', '{infinity}', '{1}'",
                "22003",
                "element 1 of argument \"timestamps\" is infinity",
                "time",
            ),
            (
                "'ewma', '{-infinity}', '{1}'",
                "22003",
                "element 1 of argument \"timestamps\" is -infinity",
                "time",
            ),
        ] {
            assert_fails(&format!("SELECT * FROM iot.score_series({arguments})"), state, message, hint);
        }
    }

    #[pg_test]
    fn the_detectors_of_the_view_are_those_that_a_sensor_can_have() {
        let names: Vec<String> = one("SELECT array_agg(detector) FROM iot.detectors");
        assert_eq!(names, DETECTORS);
        let (_, sensor) = factory();
        for detector in names {
            Spi::run(&format!("UPDATE iot.sensors SET detector = '{detector}' WHERE sensor_id = '{sensor}'"))
                .unwrap();
        }
        assert_fails(
            &format!("UPDATE iot.sensors SET detector = 'zsocre' WHERE sensor_id = '{sensor}'"),
            "23514",
            "detector \"zsocre\" does not exist",
            "Use one of zscore, robust, ewma, seasonal, adaptive.",
        );
        assert_fails("UPDATE iot.sensors SET detector = NULL", "23502", "", "");
        assert_eq!(
            one::<i64>("SELECT count(*) FROM iot.detectors WHERE state_bytes NOT BETWEEN 400 AND 16384"),
            0
        );
    }
}
