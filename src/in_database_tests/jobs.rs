//! Jobs: schedules by the server's own time zones, what is refused and how, and the three parts of a run.

use pgrx::pg_schema;

#[pg_schema]
mod tests {
    use iot_core::job::{Failure, Outcome};
    use iot_core::time::{MICROS_PER_MINUTE, Timestamp};
    use pgrx::prelude::*;

    use crate::in_database_tests::{assert_fails, one};
    use crate::job::{self, Progress, Work};
    use crate::pg::clock;
    use crate::pg::statement::with_session;
    use crate::pg::top_level::Part;

    fn add(name: &str, rest: &str) -> i64 {
        one(&format!("SELECT iot.add_job('{name}', '1 hour', 'SELECT 1'{rest})"))
    }

    fn due(now: Timestamp) -> Vec<i64> {
        let due = with_session(|session| job::due(session, now)).unwrap();
        due.into_iter().map(|due| due.job_id).collect()
    }

    fn next_start(job: i64) -> Timestamp {
        let at = Spi::get_one(&format!("SELECT next_start FROM iot.job_state WHERE job_id = {job}"));
        clock::from_pg(at.unwrap().unwrap())
    }

    /// Every hour of five years: PostgreSQL says what the clocks of the zone show then, and the hours that it skips are made up
    /// for once.
    #[pg_test]
    fn daily_starts_are_those_of_the_server_s_clocks() {
        for zone in [
            "UTC",
            "Europe/Berlin",
            "America/New_York",
            "Australia/Lord_Howe",
            "America/Havana",
            "Asia/Kolkata",
        ] {
            for (cron, time) in [("30 2 * * *", "02:30"), ("0 0 * * *", "00:00")] {
                let (starts, days, off): (i64, i64, i64) = {
                    let row: Vec<i64> = one(&format!(
                        "SELECT ARRAY[count(*), count(DISTINCT (at AT TIME ZONE '{zone}')::date),
                                      count(*) FILTER (WHERE (at AT TIME ZONE '{zone}')::time <> '{time}')]
                           FROM iot.schedule_starts('{cron}', '{zone}', '2026-01-01 12:00+00', 1826) at"
                    ));
                    (row[0], row[1], row[2])
                };
                assert_eq!((starts, days), (1826, 1826), "{cron} in {zone}");
                // At most one gap a year holds the time.
                assert!(off <= 5, "{off} of {cron} in {zone}");
                let last: i64 = one(&format!(
                    "SELECT max((at AT TIME ZONE '{zone}')::date) - min((at AT TIME ZONE '{zone}')::date) + 1::bigint
                       FROM iot.schedule_starts('{cron}', '{zone}', '2026-01-01 12:00+00', 1826) at"));
                assert_eq!(last, 1826, "{cron} in {zone} leaves days out");
            }
        }
        let around: Vec<String> = one("SELECT array_agg(to_char(at AT TIME ZONE 'UTC', 'MM-DD HH24:MI'))
               FROM iot.schedule_starts('30 2 * * *', 'Europe/Berlin', '2026-03-27 12:00+00', 3) at");
        assert_eq!(around, ["03-28 01:30", "03-29 01:00", "03-30 00:30"]);
        let again: Vec<String> = one("SELECT array_agg(to_char(at AT TIME ZONE 'UTC', 'MM-DD HH24:MI'))
               FROM iot.schedule_starts('30 2 * * *', 'Europe/Berlin', '2026-10-24 12:00+00', 2) at");
        assert_eq!(again, ["10-25 00:30", "10-26 01:30"]);
        // Beyond the years for which the zone's changes are listed.
        let far: String = one("SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')
               FROM iot.schedule_starts('30 2 * * *', 'Europe/Berlin', '2126-07-01 12:00+00', 1) at");
        assert_eq!(far, "2126-07-02 00:30");
    }

    #[pg_test]
    fn what_is_refused() {
        Spi::run("CREATE TABLE public.log (at timestamptz, other timestamptz, note text)").unwrap();
        for (call, state, message, hint) in [
            ("add_job('', '1 hour', 'SELECT 1')", "22023", "job_name is empty", "name"),
            ("add_job(NULL, '1 hour', 'SELECT 1')", "22004", "job_name", "Pass"),
            ("add_job('x', '1 houre', 'SELECT 1')", "22007", "interval", ""),
            ("add_job('x', '500 milliseconds', 'SELECT 1')", "22023", "shorter than a second", "10 minutes"),
            ("add_job('x', '-1 day', 'SELECT 1')", "22023", "shorter than a second", "10 minutes"),
            ("add_job('x', '0 25 * * *', 'SELECT 1')", "22023", "0 25 * * *", "0 2 * * *"),
            ("add_job('x', '0 0 30 2 *', 'SELECT 1')", "22023", "no day that exists", "0 2 * * *"),
            ("add_job('x', '* * * * * *', 'SELECT 1')", "22023", "6 fields", "0 2 * * *"),
            (
                "add_job('x', '1 hour', 'SELECT 1', time_zone => 'Mars/Olympus')",
                "22023",
                "Mars/Olympus",
                "pg_timezone_names",
            ),
            ("add_job('x', '1 hour', 'SELEKT 1')", "42601", "SELEKT", ""),
            ("add_job('x', '1 hour', ' -- nothing')", "42601", "no statement", ""),
            ("add_job('x', '1 hour', NULL)", "22004", "command", "Pass"),
            ("add_job('x', '1 hour', NULL, 'dance')", "22023", "dance", "vacuum"),
            ("add_job('x', '1 hour', 'SELECT 1', 'vacuum')", "22023", "no command", "NULL"),
            ("add_job('x', '1 hour', NULL, 'retention')", "22004", "target", "Pass"),
            ("add_job('x', '1 hour', NULL, 'flush_state', target => 'log')", "22023", "no target", "Leave"),
            ("add_job('x', '1 hour', NULL, 'flush_state')", "55000", "do not exist", "iot.setup()"),
            (
                "add_job('x', '1 hour', NULL, 'vacuum', parameters => '{\"full\": true}')",
                "22023",
                "\"full\"",
                "work_mem",
            ),
            ("add_job('x', '1 hour', 'SELECT 1', parameters => '[]')", "22023", "no JSON object", "'{}'"),
            (
                "add_job('x', '1 hour', NULL, 'refresh_rollup', target => 'log')",
                "0A000",
                "no roll-ups yet",
                "later version",
            ),
            ("add_job('x', '1 hour', NULL, 'alert_timers')", "0A000", "timer", "later version"),
            ("add_job('x', '1 hour', 'SELECT 1', jitter => '2 hours')", "22023", "jitter", "less than"),
            ("add_job('x', '1 hour', 'SELECT 1', max_retries => -1)", "22023", "max_retries -1", "attempts"),
            ("add_job('x', '1 hour', 'SELECT 1', timeout => '-1 s')", "22023", "timeout", "0 means"),
            ("add_refresh_policy('log')", "42809", "not a materialized view", "works on"),
            ("add_retention_policy('log', '0 days')", "22023", "not positive", "90 days"),
            ("add_retention_policy('log', '1 day')", "22023", "several columns", "time_column"),
            (
                "add_retention_policy('log', '1 day', time_column => 'note')",
                "22023",
                "\"note\"",
                "time_column",
            ),
            (
                "add_retention_policy('log', '1 day', time_column => 'at', condition => 'level = 1')",
                "42703",
                "level",
                "",
            ),
            (
                "add_retention_policy('log', '1 day', time_column => 'at', batch_size => 0)",
                "22023",
                "batch_size 0",
                "rows",
            ),
            ("remove_retention_policy('log')", "42704", "retention policy of", "iot.jobs"),
            ("alter_job(4711)", "42704", "job 4711", "iot.jobs"),
            ("delete_job('nobody')", "42704", "job \"nobody\"", "iot.jobs"),
            ("schedule_starts('1 hour', count => 0)", "22023", "count 0", "number"),
        ] {
            assert_fails(&format!("SELECT iot.{call}"), state, message, hint);
        }
        add("x", "");
        assert_fails("SELECT iot.add_job('x', '1 hour', 'SELECT 1')", "42710", "job \"x\"", "if_not_exists");
        assert_fails("CALL iot.run_job('x')", "25001", "transaction block", "autocommit");
        let again: i64 = one("SELECT iot.add_job('x', '2 hours', 'SELECT 2', if_not_exists => true)");
        assert_eq!(
            one::<i64>("SELECT job_id FROM iot.jobs WHERE job_name = 'x' AND command = 'SELECT 1'"),
            again
        );
        assert!(!one::<bool>("SELECT iot.delete_job('nobody', if_exists => true)"));
        assert!(one::<bool>("SELECT iot.delete_job('x')"));
    }

    #[pg_test]
    fn the_parts_of_a_run() {
        let job = add("sql", ", timeout => '90 seconds'");
        let later = add("later", ", first_start => now() + interval '3 minutes'");
        assert_eq!(due(clock::now()), [job]);

        let claimed = with_session(|session| job::claim(session, job, clock::now())).unwrap().unwrap();
        assert_eq!(
            (claimed.job_id, claimed.name.as_str(), claimed.timeout.unwrap().as_secs()),
            (job, "sql", 90)
        );
        assert_eq!(due(clock::now()), [] as [i64; 0], "it runs");
        let next = with_session(job::next_start).unwrap();
        assert_eq!(next, Some(next_start(later)));
        let work = with_session(|session| job::plan(session, &claimed)).unwrap();
        assert!(matches!(work, Work::Statements(parts) if parts == [Part::one("", "SELECT 1")]));

        let failure = Failure { sqlstate: "22012".into(), message: "division by zero".into() };
        with_session(|session| job::finish(session, &claimed, &Outcome::Failed(failure))).unwrap();
        let told: String = one(
            "SELECT concat_ws(' ', outcome, sqlstate, message, finished_at >= started_at) FROM iot.job_runs",
        );
        assert_eq!(told, "failed 22012 division by zero t");
        let wait = next_start(job).0 - clock::now().0;
        assert!((0..=MICROS_PER_MINUTE).contains(&wait), "it is tried again in a minute");
        assert!(
            with_session(|session| job::claim(session, job, clock::now())).unwrap().is_none(),
            "it is not due"
        );
        // Its lock is free only when the transaction has ended.
        assert!(with_session(|session| job::claim(session, later, clock::now())).unwrap().is_none());
    }

    #[pg_test]
    fn missed_starts_count_once() {
        let job = add("late", ", first_start => now() - interval '100 days 10 minutes'");
        Spi::run(&format!(
            "UPDATE iot.job_state SET next_start = now() - interval '100 days' WHERE job_id = {job}"
        ))
        .unwrap();
        let claimed = with_session(|session| job::claim(session, job, clock::now())).unwrap().unwrap();
        with_session(|session| job::finish(session, &claimed, &Outcome::Succeeded)).unwrap();
        let wait = next_start(job).0 - clock::now().0;
        assert!((1..=60 * MICROS_PER_MINUTE).contains(&wait));
        // On the grid that began a hundred days ago.
        assert!(one::<bool>(&format!(
            "SELECT extract(epoch FROM s.next_start - j.first_start)::numeric % 3600 = 0
               FROM iot.job_state s JOIN iot.job j USING (job_id) WHERE job_id = {job}"
        )));
    }

    #[pg_test]
    fn a_restored_job_waits_for_its_next_start() {
        let job = add("restored", "");
        Spi::run("DELETE FROM iot.job_state").unwrap();
        assert_eq!(due(clock::now()), [] as [i64; 0]);
        assert!(next_start(job) > clock::now());
    }

    #[pg_test]
    fn who_is_gone_pauses_his_jobs() {
        Spi::run("CREATE ROLE leaver LOGIN").unwrap();
        let job = add("of a leaver", ", owner => 'leaver'");
        let other = add("other", "");
        Spi::run("DROP ROLE leaver").unwrap();
        assert_eq!(due(clock::now()), [other]);
        assert_eq!(
            one::<String>(&format!("SELECT pause_reason FROM iot.jobs WHERE job_id = {job} AND is_paused")),
            "its owner does not exist any more"
        );
        // As does a schedule that this server cannot read.
        Spi::run(&format!("UPDATE iot.job SET time_zone = 'Mars/Olympus' WHERE job_id = {other}")).unwrap();
        Spi::run("DELETE FROM iot.job_state").unwrap();
        assert_eq!(due(clock::now()), [] as [i64; 0]);
        assert!(
            one::<String>(&format!("SELECT pause_reason FROM iot.jobs WHERE job_id = {other}"))
                .contains("Mars")
        );
    }

    #[pg_test]
    fn alterations() {
        let job = add("j", ", timeout => '1 minute'");
        Spi::run(&format!(
            "SELECT iot.alter_job({job}, schedule => '5 4 * * sun', time_zone => 'Europe/Berlin', timeout => '0', job_name => 'k',
                                  command => 'SELECT 2', parameters => '{{\"a\": 1}}', max_retries => 0)")).unwrap();
        let told: String = one("SELECT concat_ws('|', job_name, schedule, time_zone, command, parameters, max_retries, timeout IS NULL,
                                                 schedule_in_words) FROM iot.jobs");
        assert_eq!(told, "k|5 4 * * sun|Europe/Berlin|SELECT 2|{\"a\": 1}|0|t|At 04:05, on Sunday.");
        assert!(one::<bool>(
            "SELECT to_char(next_start AT TIME ZONE 'Europe/Berlin', 'Dy HH24:MI') = 'Sun 04:05' AND next_start > now() FROM iot.jobs"
        ));
        Spi::run("SELECT iot.pause_job('k')").unwrap();
        assert_eq!(due(Timestamp::INFINITY), [] as [i64; 0]);
        assert!(one::<bool>("SELECT next_start IS NULL AND is_paused FROM iot.jobs"));
        Spi::run("SELECT iot.resume_job('k')").unwrap();
        Spi::run(&format!("SELECT iot.alter_job({job}, next_start => now())")).unwrap();
        assert_eq!(due(clock::now()), [job]);
    }

    #[pg_test]
    fn maintenance_jobs_are_made_once_and_delete_nothing_unasked() {
        Spi::run("SELECT iot.setup()").unwrap();
        let listed = "SELECT array_agg(concat_ws('|', job_name, schedule, is_paused)) FROM iot.add_maintenance_jobs('Europe/Berlin')";
        let expected = [
            "nightly vacuum analyze|0 2 * * *|f",
            "weekly clean-up of readings|0 3 * * 0|t",
            "weekly clean-up of resolved alerts|0 3 * * 0|t",
            "monthly reindex|0 4 1 * *|f",
            "hourly refresh of materialized views|0 * * * *|f",
        ];
        for _ in 0..2 {
            assert_eq!(one::<Vec<String>>(listed), expected);
        }
        assert_eq!(one::<i64>("SELECT count(*) FROM iot.jobs WHERE time_zone = 'Europe/Berlin'"), 5);
    }

    #[pg_test]
    fn views_are_refreshed_one_by_one() {
        Spi::run("CREATE MATERIALIZED VIEW public.first AS SELECT now() AS at").unwrap();
        Spi::run("CREATE MATERIALIZED VIEW public.second AS SELECT at FROM public.first").unwrap();
        let job: i64 = one("SELECT iot.add_job('views', '1 hour', NULL, 'refresh_materialized_view')");
        let mut claimed = with_session(|session| job::claim(session, job, clock::now())).unwrap().unwrap();
        let mut steps = 1;
        while with_session(|session| job::step(session, &mut claimed)).unwrap() == Progress::Again {
            steps += 1;
        }
        assert_eq!(steps, 2);
        with_session(|session| job::finish(session, &claimed, &Outcome::Succeeded)).unwrap();
        assert_eq!(
            one::<String>("SELECT detail::text FROM iot.job_runs"),
            "{\"refreshed\": [\"public.first\", \"public.second\"]}"
        );
    }

    #[pg_test]
    fn states_are_flushed() {
        crate::in_database_tests::factory();
        let job: i64 = one("SELECT iot.add_job('flush', '1 hour', NULL, 'flush_state')");
        let mut claimed = with_session(|session| job::claim(session, job, clock::now())).unwrap().unwrap();
        assert_eq!(with_session(|session| job::step(session, &mut claimed)).unwrap(), Progress::Done);
        with_session(|session| job::finish(session, &claimed, &Outcome::Succeeded)).unwrap();
        assert!(one::<bool>(&format!("SELECT detail ? 'sensors' FROM iot.job_runs WHERE job_id = {job}")));
    }

    #[pg_test]
    fn setup_schedules_upkeep_once_and_nothing_that_deletes() {
        assert_eq!(one::<String>("SELECT iot.setup() ->> 'jobs_created'"), "[\"partition upkeep\"]");
        assert_eq!(one::<String>("SELECT iot.setup() ->> 'jobs_created'"), "[]");
        let told: String = one(
            "SELECT string_agg(concat_ws(' ', job_kind, schedule, target IS NULL, next_start > now()), ',') FROM iot.jobs",
        );
        assert_eq!(told, "partition_upkeep 01:00:00 t t");
        // Everything is there: there is nothing to do but to analyze what never was.
        let job: i64 = one("SELECT job_id FROM iot.jobs");
        Spi::run(&format!("SELECT iot.alter_job({job}, next_start => now())")).unwrap();
        let claimed = with_session(|session| job::claim(session, job, clock::now())).unwrap().unwrap();
        match with_session(|session| job::plan(session, &claimed)).unwrap() {
            Work::Statements(parts) => {
                let analyze = Part::one("iot.sensor_data", "ANALYZE iot.sensor_data");
                assert!(parts.contains(&analyze), "{parts:?}");
            }
            Work::InTransaction => panic!("partitions are detached at top level"),
        }
    }

    #[pg_test]
    fn old_partitions_are_dropped() {
        Spi::run("CREATE TABLE public.metrics (at timestamptz NOT NULL) PARTITION BY RANGE (at)").unwrap();
        for month in 1..=3 {
            Spi::run(&format!("SELECT iot.create_monthly_partition('public.metrics', 2020, {month})"))
                .unwrap();
        }
        Spi::run("SELECT iot.manage_partitions('public.metrics', '1 month')").unwrap();
        let job: i64 = one("SELECT iot.add_retention_policy('public.metrics', '1 year')");
        let mut claimed = with_session(|session| job::claim(session, job, clock::now())).unwrap().unwrap();
        assert_eq!(with_session(|session| job::step(session, &mut claimed)).unwrap(), Progress::Done);
        with_session(|session| job::finish(session, &claimed, &Outcome::Succeeded)).unwrap();
        assert_eq!(one::<String>("SELECT detail::text FROM iot.job_runs"), "{\"partitions_dropped\": 3}");
        assert!(one::<bool>("SELECT to_regclass('public.metrics_2020_01') IS NULL"));
    }
}
