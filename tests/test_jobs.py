"""Runs of jobs on real clusters: locks between sessions, crashes, time limits, what each kind does."""

import threading

import psycopg
import pytest

from cluster import Cluster, Database, wait_until
from factory import add_sensor
from job_runs import add_job, last_run, run, state


@pytest.fixture
def database(database):
    """Without the job that setup() makes: the tests count theirs."""
    assert database.value("SELECT iot.delete_job('partition upkeep')")
    return database


@pytest.fixture
def slow_view(database):
    """A materialized view whose refresh waits for an advisory lock, that its own connection holds."""
    database.execute("CREATE TABLE public.source (at timestamptz, value int)")
    database.execute("INSERT INTO public.source VALUES (now(), 1)")
    database.execute(
        "CREATE FUNCTION public.wait_for(value int) RETURNS int LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN value; END $$")
    database.execute("CREATE MATERIALIZED VIEW public.slow AS SELECT at, public.wait_for(value) FROM public.source WITH NO DATA")
    with database.connect() as gate:
        gate.execute("SELECT pg_advisory_lock(42)")
        yield gate


def running_elsewhere(database, job):
    """Starts the job in a session of its own; returns it with its thread and, in a list, how it ended."""
    session = database.connect()
    ended = []

    def call():
        try:
            session.execute("CALL iot.run_job(%s)", (job,))
            ended.append(None)
        except psycopg.Error as error:
            ended.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    wait_until(lambda: state(database, job, "running_pid")[0] == session.info.backend_pid, what="job running")
    return session, thread, ended


def refresh_job(database):
    job = database.value("SELECT iot.add_refresh_policy('public.slow', initial_start => '2100-01-01 00:00+00')")
    # Waiting for the gate is the work here, and no lock that the job is put off for.
    database.execute("ALTER FUNCTION public.wait_for SET lock_timeout = 0")
    return job


def test_two_sessions_never_run_the_same_job(database, slow_view):
    job = refresh_job(database)
    session, thread, ended = running_elsewhere(database, job)
    assert state(database, job, "last_outcome, next_start") == (None, None)
    with pytest.raises(psycopg.errors.ObjectInUse):
        run(database, job)
    assert database.value("SELECT count(*) FROM iot.job_runs") == 1
    # Nobody can hold it up by SQL: every advisory lock is a lock of another kind.
    assert database.value("SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND objid = %s AND mode = 'ExclusiveLock'", (job,)) == 1
    slow_view.execute("SELECT pg_advisory_unlock_all()")
    thread.join()
    session.close()
    assert ended == [None]
    assert last_run(database, job) == ("succeeded", None, None, {"refreshed": ["public.slow"]})
    run(database, job)
    assert database.row("SELECT total_runs, total_failures, running_pid FROM iot.jobs") == (2, 0, None)


def test_a_session_that_ends_leaves_an_interrupted_run(database, slow_view):
    job = refresh_job(database)
    session, thread, ended = running_elsewhere(database, job)
    database.execute("SELECT pg_terminate_backend(%s)", (session.info.backend_pid,))
    thread.join()
    assert isinstance(ended[0], psycopg.OperationalError)
    slow_view.execute("SELECT pg_advisory_unlock_all()")
    wait_until(lambda: not database.value("SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND mode = 'ExclusiveLock'"))
    run(database, job)
    assert [outcome for (outcome,) in database.rows("SELECT outcome FROM iot.job_runs ORDER BY run_id")] == ["interrupted", "succeeded"]
    assert state(database, job, "total_failures, consecutive_failures, last_outcome") == (1, 0, "succeeded")


@pytest.mark.parametrize("preload", [True, False])
def test_a_crash_leaves_an_interrupted_run(preload):
    with Cluster(preload=preload) as cluster:
        database = Database(cluster)
        database.execute("CREATE EXTENSION iot_ext")
        database.execute("CREATE MATERIALIZED VIEW public.slow AS SELECT 1 AS one FROM pg_sleep(600) WITH NO DATA")
        job = database.value("SELECT iot.add_refresh_policy('public.slow', initial_start => '2100-01-01 00:00+00')")
        session, thread, ended = running_elsewhere(database, job)
        cluster.kill9(session.info.backend_pid)
        thread.join()
        cluster.wait_ready()
        assert isinstance(ended[0], psycopg.OperationalError)
        wait_until(lambda: _connects(database))
        # It runs again, though it seemed to go on; its new run ends otherwise.
        database.execute("SELECT iot.alter_job(%s, timeout => '50 milliseconds')", (job,))
        with pytest.raises(psycopg.errors.QueryCanceled):
            run(database, job)
        assert [outcome for (outcome,) in database.rows("SELECT outcome FROM iot.job_runs ORDER BY run_id")] == [
            "interrupted", "timed_out"]
        assert state(database, job, "running_pid, consecutive_failures, total_runs") == (None, 2, 2)


def _connects(database):
    try:
        return database.value("SELECT 1") == 1
    except psycopg.OperationalError:
        return False


def test_a_run_that_takes_too_long_is_ended(database, slow_view):
    job = refresh_job(database)
    database.execute("SELECT iot.alter_job(%s, timeout => '100 milliseconds')", (job,))
    with pytest.raises(psycopg.errors.QueryCanceled):
        run(database, job)
    assert last_run(database, job)[:2] == ("timed_out", "57014")
    assert state(database, job, "last_outcome, consecutive_failures") == ("timed_out", 1)
    # The time limit of the session's own statement is not touched by it.
    slow_view.execute("SELECT pg_advisory_unlock_all()")
    database.execute("SET statement_timeout = '10min'")
    run(database, job)
    database.execute("RESET statement_timeout")
    assert state(database, job, "last_outcome, consecutive_failures") == ("succeeded", 0)


def test_a_cancelled_run_counts_as_no_failure(database, slow_view):
    job = refresh_job(database)
    session, thread, ended = running_elsewhere(database, job)
    wait_until(lambda: database.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"))
    database.execute("SELECT pg_cancel_backend(%s)", (session.info.backend_pid,))
    thread.join()
    assert isinstance(ended[0], psycopg.errors.QueryCanceled)
    session.close()
    assert last_run(database, job)[:2] == ("cancelled", "57014")
    assert state(database, job, "total_failures, consecutive_failures") == (0, 0)
    assert database.value("SELECT next_start - last_finished_at FROM iot.jobs").total_seconds() == 60


def test_a_lock_that_is_not_free_defers_the_job(database, slow_view):
    slow_view.execute("SELECT pg_advisory_unlock_all()")
    job = refresh_job(database)
    run(database, job)
    with database.connect(autocommit=False) as reader:
        reader.execute("SELECT count(*) FROM public.slow")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            run(database, job)
    assert last_run(database, job)[:2] == ("deferred", "55P03")
    assert state(database, job, "total_failures, consecutive_failures") == (0, 0)
    # Once it is filled and has a unique index, a reader is no reason to wait.
    database.execute("CREATE UNIQUE INDEX ON public.slow (at)")
    with database.connect(autocommit=False) as reader:
        reader.execute("SELECT count(*) FROM public.slow")
        run(database, job)
    assert last_run(database, job)[3] == {"refreshed_concurrently": ["public.slow"]}


def test_failures_back_off(database, slow_view):
    slow_view.execute("SELECT pg_advisory_unlock_all()")
    job = refresh_job(database)
    database.execute("SELECT iot.alter_job(%s, retry_delay => '3 minutes', max_retries => 2, schedule => '1 day',"
                     " first_start => now() - interval '1 hour')", (job,))
    database.execute("CREATE OR REPLACE FUNCTION public.wait_for(value int) RETURNS int LANGUAGE sql AS 'SELECT value / 0'")
    waits = []
    for _ in range(3):
        with pytest.raises(psycopg.errors.DivisionByZero):
            run(database, job)
        waits.append(database.value("SELECT next_start - last_finished_at FROM iot.jobs").total_seconds() / 60)
    assert waits[:2] == [3, 6] and 22 * 60 < waits[2] <= 23 * 60
    assert last_run(database, job)[:3] == ("failed", "22012", "division by zero")
    assert state(database, job, "consecutive_failures, total_failures, last_error") == (3, 3, "division by zero")


def test_it_runs_by_itself_and_not_inside_a_transaction(database, slow_view):
    slow_view.execute("SELECT pg_advisory_unlock_all()")
    job = refresh_job(database)
    with database.connect(autocommit=False) as connection:
        with pytest.raises(psycopg.errors.ActiveSqlTransaction) as refusal:
            run(database, job, connection)
        assert "autocommit" in refusal.value.diag.message_hint
    database.execute("CREATE FUNCTION public.call(job bigint) RETURNS void LANGUAGE plpgsql AS 'BEGIN CALL iot.run_job(job); END'")
    with pytest.raises(psycopg.errors.ActiveSqlTransaction):
        database.execute("SELECT public.call(%s)", (job,))
    assert database.value("SELECT count(*) FROM iot.job_runs") == 0
    # A procedure and a DO block are fine.
    database.execute(f"DO $$ BEGIN CALL iot.run_job({job}); CALL iot.run_job('refresh of public.slow'); END $$")
    assert database.value("SELECT count(*) FROM iot.job_runs WHERE outcome = 'succeeded'") == 2
    # Whoever waits for the job's lock must not wait for a session that failed.
    with pytest.raises(psycopg.errors.UndefinedObject):
        run(database, 4711)
    assert database.value("SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND mode = 'ExclusiveLock'") == 0


def test_the_history_is_bounded(database):
    job = add_job(database, job_kind="command_timeouts", command=None)
    database.execute(
        "INSERT INTO iot.job_run (job_id, started_at, finished_at, outcome)"
        " SELECT %s, now() - n * interval '1 hour', now(), 'succeeded' FROM generate_series(150, 1, -1) n", (job,))
    run(database, job)
    assert database.value("SELECT count(*) FROM iot.job_run") == 100
    database.execute("UPDATE iot.job_run SET started_at = now() - interval '31 days'")
    run(database, job)
    assert database.value("SELECT count(*) FROM iot.job_run") == 1


def test_commands_that_were_not_sent_in_time_expire(database):
    device, _ = add_sensor(database)
    for when in ("- interval '1 minute'", "+ interval '1 hour'"):
        database.execute(f"INSERT INTO iot.device_commands (device_id, command_type, expires_at) VALUES (%s, 'restart', now() {when})", (device,))
    job = add_job(database, job_kind="command_timeouts", command=None)
    run(database, job)
    assert last_run(database, job)[3] == {"expired": 1}
    assert database.rows("SELECT execution_status, completed_at IS NOT NULL FROM iot.device_commands ORDER BY expires_at") == [
        ("expired", True), ("pending", False)]


@pytest.mark.parametrize("where", ["cluster", "unloaded_cluster"])
def test_statements_for_the_top_level(request, where):
    database = Database(request.getfixturevalue(where))
    try:
        database.execute("CREATE EXTENSION iot_ext")
        database.execute("SELECT iot.setup()")
        database.execute("CREATE TABLE public.things (id int PRIMARY KEY, part int) PARTITION BY RANGE (id)")
        database.execute("CREATE TABLE public.things_1 PARTITION OF public.things FOR VALUES FROM (0) TO (1000)")
        database.execute("INSERT INTO public.things SELECT n, n FROM generate_series(1, 500) n")
        database.execute("DELETE FROM public.things WHERE id > 250")
        for kind in ("vacuum", "analyze", "vacuum_analyze", "reindex"):
            job = add_job(database, kind, None, job_kind=kind, target="public.things")
            run(database, job)
            assert last_run(database, job)[:2] == ("succeeded", None)
        # Autovacuum would never analyze the partitioned table itself.
        assert database.value("SELECT reltuples FROM pg_class WHERE oid = 'public.things'::regclass") == 250
        assert database.value("SELECT reltuples FROM pg_class WHERE oid = 'public.things_1'::regclass") == 250
        # A job for everything that its owner owns.
        everything = add_job(database, "everything", None, job_kind="vacuum_analyze")
        run(database, everything)
        # SQL of the user: a procedure may COMMIT, and what was done before an error stays.
        database.execute("CREATE PROCEDURE public.work() LANGUAGE plpgsql AS"
                         " $$ BEGIN INSERT INTO public.things VALUES (998); COMMIT; RAISE 'no more' USING ERRCODE = 'P0042'; END $$")
        job = add_job(database, "sql", "CALL public.work()")
        with pytest.raises(psycopg.Error, match="no more") as failure:
            run(database, job)
        assert last_run(database, job)[0] == "failed" and "no more" in last_run(database, job)[2]
        assert failure.value.diag.message_primary == "no more"
        assert database.value("SELECT count(*) FROM public.things WHERE id = 998") == 1
        slow = add_job(database, "slow", "SELECT pg_sleep(600)", timeout="200 milliseconds")
        with pytest.raises(psycopg.errors.QueryCanceled):
            run(database, slow)
        assert last_run(database, slow)[0] == "timed_out"
    finally:
        database.drop()


def test_an_index_that_an_interrupted_reindex_left_is_dropped(database):
    database.execute("CREATE TABLE public.things (id int PRIMARY KEY)")
    database.execute("CREATE INDEX things_id_ccnew ON public.things (id)")
    database.execute("SET allow_system_table_mods = on")
    database.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'public.things_id_ccnew'::regclass")
    run(database, add_job(database, "reindex", None, job_kind="reindex", target="public.things"))
    assert [name for (name,) in database.rows("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'public.things'::regclass")] == ["things_pkey"]


def test_a_procedure_as_timescaledb_calls_it(database):
    database.execute("CREATE TABLE public.calls (job_id int, config jsonb)")
    database.execute("CREATE PROCEDURE public.act(job_id int, config jsonb) LANGUAGE sql AS 'INSERT INTO public.calls VALUES (job_id, config)'")
    job = database.value("SELECT iot.add_job('public.act', '1 day', config => '{\"drop\": \"it''s\"}', initial_start => '2100-01-01 00:00+00')")
    assert state(database, job, "job_name, schedule, is_paused") == ("public.act", "1 day", False)
    run(database, job)
    assert database.rows("SELECT * FROM public.calls") == [(job, {"drop": "it's"})]


def test_upkeep_drops_by_hand_whatever_the_search_path_is(database):
    database.execute("CREATE TABLE public.metrics (at timestamptz NOT NULL) PARTITION BY RANGE (at)")
    database.execute("SELECT iot.create_monthly_partition('public.metrics', 2020, 1)")
    database.execute("SELECT iot.manage_partitions('public.metrics', '1 month')")
    # So that the run has something to drop.
    database.execute("UPDATE iot.partition_policy SET drop_after = '30 days' WHERE parent = 'public.metrics'::regclass")
    database.value("SELECT iot.add_job('upkeep', '1 hour', NULL, 'partition_upkeep', first_start => '2100-01-01 00:00+00')")
    assert database.value("SHOW search_path") == '"$user", public'
    database.execute("CALL iot.run_job('upkeep')")
    assert database.value("SELECT to_regclass('public.metrics_2020_01')") is None
    assert database.value("SHOW search_path") == '"$user", public'


def test_a_table_that_fails_does_not_keep_upkeep_from_the_others(database):
    for name in ("first", "second"):
        database.execute(f"CREATE TABLE public.{name} (at timestamptz NOT NULL) PARTITION BY RANGE (at)")
        database.execute(f"SELECT iot.manage_partitions('public.{name}', '1 month', premake => 0)")
    database.execute("CREATE TABLE public.first_default PARTITION OF public.first DEFAULT")
    database.execute("INSERT INTO public.first VALUES (date_trunc('month', now(), 'UTC') + interval '40 days')")
    database.execute("UPDATE iot.partition_policy SET premake = 3 WHERE parent::text <> 'iot.sensor_data'")
    job = database.value("SELECT iot.add_job('upkeep', '1 hour', NULL, 'partition_upkeep', first_start => '2100-01-01 00:00+00')")
    with pytest.raises(psycopg.Error) as failure:
        database.execute("CALL iot.run_job('upkeep')")
    assert "public.first: " in str(failure.value)
    outcome, _, message, _ = last_run(database, job)
    assert outcome == "failed" and "public.first: " in message and "public.second" not in message
    counted = dict(database.rows("SELECT parent::text, count(*) FROM iot.partitions GROUP BY 1"))
    assert counted["second"] == 4


def test_a_run_of_a_paused_job_is_closed_after_a_crash():
    with Cluster() as cluster:
        database = Database(cluster)
        database.execute("CREATE EXTENSION iot_ext")
        job = add_job(database, "slow", "SELECT pg_sleep(600)", is_paused=True)
        session, thread, _ = running_elsewhere(database, job)
        cluster.kill9(session.info.backend_pid)
        thread.join()
        cluster.wait_ready()
        wait_until(lambda: _connects(database))
        wait_until(lambda: state(database, job, "running_pid, last_outcome") == (None, "interrupted"), what="the run's end")


def test_the_memory_of_a_run_is_set_for_it_alone(database):
    database.execute("CREATE TABLE public.seen (work_mem text, maintenance_work_mem text)")
    parameters = '{"work_mem": "5MB", "maintenance_work_mem": "33MB"}'
    job = add_job(database, "measured",
                  "INSERT INTO public.seen SELECT current_setting('work_mem'), current_setting('maintenance_work_mem')",
                  parameters=parameters)
    run(database, job)
    assert database.rows("SELECT * FROM public.seen") == [("5MB", "33MB")]
    database.execute("CREATE MATERIALIZED VIEW public.shown AS SELECT current_setting('work_mem') AS work_mem WITH NO DATA")
    job = database.value("SELECT iot.add_job('refresh', '1 hour', NULL, 'refresh_materialized_view', 'public.shown', %s,"
                         " first_start => '2100-01-01 00:00+00')", (parameters,))
    run(database, job)
    assert database.value("SELECT work_mem FROM public.shown") == "5MB"
    assert database.value("SHOW work_mem") == "4MB"
    for value in ('"many"', "5"):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            add_job(database, "odd", parameters='{"work_mem": %s}' % value)


def test_jobs_are_counted(database):
    job = add_job(database, "counted")
    late = add_job(database, "late", first_start="2020-01-01 00:00+00", is_paused=True)
    for _ in range(3):
        run(database, job)
    counted = database.row("SELECT total_runs, total_failures, runs_kept, average_duration > '0', longest_duration >= last_duration,"
                           " late_by FROM iot.iot_stat_jobs WHERE job_id = %s", (job,))
    assert counted == (3, 0, 3, True, True, None)
    assert database.row("SELECT runs_kept, is_paused FROM iot.iot_stat_jobs WHERE job_id = %s", (late,)) == (0, True)


def test_an_age_beyond_all_time_deletes_nothing(database):
    database.execute("CREATE TABLE public.log (at timestamptz, day date)")
    database.execute("INSERT INTO public.log VALUES (now(), now()::date), ('2000-01-01', '2000-01-01')")
    for column in ("at", "day"):
        job = database.value("SELECT iot.add_retention_policy('public.log', '999999999 days', time_column => %s,"
                             " initial_start => '2100-01-01 00:00+00')", (column,))
        run(database, job)
        assert database.value("SELECT count(*) FROM public.log") == 2
        database.execute("SELECT iot.delete_job(%s)", (job,))
