//! The anomaly score against the 24-hour window.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;
    use statrs::statistics::Statistics;

    use crate::in_database_tests::{factory, one, process};

    /// The score of the last of `values`, one a minute, and the naive one over all before it.
    fn score_of_last(values: &[f64]) -> (f64, bool, f64) {
        let (_, sensor) = factory();
        // From a full hour on: whatever the clock says, the readings of one test stand in one hour.
        let start = "date_trunc('hour', now()) - interval '6 hours'";
        for (minute, value) in values.iter().enumerate() {
            process(sensor, &format!("'{value}'"), &format!("{start} + interval '{minute} minutes'"));
        }
        let (last, before) = values.split_last().unwrap();
        let naive = ((last - before.mean()).abs() / before.std_dev()).min(5.0);
        let score =
            one("SELECT anomaly_score FROM iot.sensor_data ORDER BY measurement_timestamp DESC LIMIT 1");
        let flagged =
            one("SELECT is_anomaly FROM iot.sensor_data ORDER BY measurement_timestamp DESC LIMIT 1");
        (score, flagged, naive)
    }

    #[pg_test]
    fn the_score_is_the_distance_in_standard_deviations() {
        let (score, flagged, naive) = score_of_last(&[20.0, 21.0, 19.5, 20.2, 20.4, 21.5]);
        assert!((score - naive).abs() < 1e-9, "{score} {naive}");
        assert!(!flagged);
    }

    #[pg_test]
    fn above_three_is_an_anomaly_capped_at_five() {
        let (score, flagged, _) = score_of_last(&[20.0, 21.0, 19.5, 20.2, 20.4, 190.0]);
        assert_eq!(score, 5.0);
        assert!(flagged);
    }

    #[pg_test]
    fn a_constant_signal_scores_zero_until_it_moves() {
        // 0.1 has no exact binary form: a computed deviation of its repeats need not be zero.
        let (score, flagged, _) = score_of_last(&[0.1; 40]);
        assert_eq!((score, flagged), (0.0, false));
    }

    #[pg_test]
    fn leaving_a_constant_signal_is_an_anomaly() {
        let (score, flagged, _) = score_of_last(&[0.1, 0.1, 0.1, 0.1, 0.2]);
        assert_eq!((score, flagged), (5.0, true));
    }

    #[pg_test]
    fn an_absurd_reading_does_not_stop_the_next_ones() {
        let (score, flagged, _) = score_of_last(&[1.0, 2.0, 1.5e308, 1.7e308, 1e200, 1.5]);
        assert_eq!((score, flagged), (0.0, false));
        assert_eq!(one::<f64>("SELECT avg(avg_value) FROM iot.sensor_hourly_aggregates"), 1.5);
    }

    #[pg_test]
    fn fewer_than_two_readings_score_nothing() {
        let (score, flagged, _) = score_of_last(&[1.0, 100.0]);
        assert_eq!((score, flagged), (0.0, false));
    }

    #[pg_test]
    fn the_window_starts_at_a_half_hour_a_day_before_the_newest_reading() {
        let (_, sensor) = factory();
        process(sensor, "100", "'2026-03-01 11:59+00'");
        process(sensor, "10", "'2026-03-01 12:00+00'");
        process(sensor, "12", "'2026-03-01 12:01+00'");
        // 12:29 the next day: the window starts at 12:00, so 100 is out, and 10 and 12 are in.
        process(sensor, "11", "'2026-03-02 12:29+00'");
        assert_eq!(one::<f64>("SELECT anomaly_score FROM iot.sensor_data WHERE measurement_value = 11"), 0.0);
        // A late reading is scored against the window of the newest one, to which it does not belong itself.
        process(sensor, "11", "'2026-03-01 03:00+00'");
        let late: f64 = one(
            "SELECT anomaly_score FROM iot.sensor_data WHERE measurement_timestamp = '2026-03-01 03:00+00'",
        );
        assert_eq!(late, 0.0);
    }
}
