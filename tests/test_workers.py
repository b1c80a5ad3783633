"""Background workers: due jobs run by themselves, as their owner, and nothing that one does is in the way of another."""

import threading
import time

import psycopg
import pytest

from cluster import Cluster, wait_until
from jobs import (
    JOB_WORKER, LAUNCHER, SCHEDULER, add_job, new_database, outcomes, runs, wait_for, wait_for_idle, wait_for_worker, workers,
)


@pytest.fixture(scope="module")
def job_cluster():
    """A server whose workers look for new databases every second."""
    with Cluster(settings={"iot_ext.scheduler_interval": "1s"}) as running:
        yield running


@pytest.fixture
def jobs(job_cluster):
    fresh = new_database(job_cluster)
    yield fresh
    fresh.drop()


@pytest.fixture
def role(jobs, job_cluster):
    """A role that may log in and make tables."""
    name = "job_owner"
    jobs.execute(f"CREATE ROLE {name} LOGIN")
    jobs.execute(f"GRANT CREATE, USAGE ON SCHEMA public TO {name}")
    yield name
    with job_cluster.connect() as connection:
        connection.execute(f"ALTER DATABASE {jobs.name} OWNER TO postgres")
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone():
            with jobs.connect() as inside:
                inside.execute(f"DROP OWNED BY {name}")
            connection.execute(f"DROP ROLE {name}")


def as_role(database, role, sql, parameters=None):
    with database.connect(role) as connection:
        return connection.execute(sql, parameters).fetchone()


# What runs, and as whom

def test_a_due_job_runs_as_its_owner_and_shows_itself(jobs, role):
    jobs.execute("GRANT USAGE ON SCHEMA iot TO PUBLIC")
    with jobs.connect(role) as connection:
        connection.execute(
            "SELECT iot.add_job(job_name => 'who', schedule => '1 hour', command =>"
            " 'CREATE TABLE public.who AS SELECT current_user u, session_user s, current_setting(''search_path'') p;"
            " SELECT pg_sleep(60)', timeout => '1 minute')")
    pid = wait_for_worker(jobs.connection, query="%pg_sleep%")
    (seen,) = workers(jobs.connection, JOB_WORKER)
    assert seen == (pid, JOB_WORKER, f"{JOB_WORKER} {jobs.name}", jobs.name, role)
    assert jobs.row("SELECT running_pid FROM iot.job_state") == (pid,)
    jobs.execute("SELECT pg_cancel_backend(%s)", (pid,))
    assert wait_for(jobs, "who", "cancelled")[0][1] == "57014"
    add_job(jobs, "who else", "CREATE TABLE public.who AS SELECT current_user::text u, current_setting('search_path') p")
    wait_for(jobs, "who else")
    assert jobs.row("SELECT * FROM public.who") == ("postgres", "pg_catalog, pg_temp")


def test_nothing_is_left_but_the_launcher(jobs):
    add_job(jobs, "short", "SELECT 1")
    wait_for(jobs, "short")
    wait_for_idle(jobs.connection)
    assert workers(jobs.connection)[0][1:4] == (LAUNCHER, LAUNCHER, None)


def test_a_job_starts_when_its_time_comes(jobs):
    add_job(jobs, "later", "SELECT 1", schedule="1 second", first_start="2 seconds")
    due = jobs.value("SELECT next_start FROM iot.job_state")
    assert outcomes(jobs, "later") == []
    wait_for(jobs, "later", count=3)
    started = [row[0] for row in jobs.rows("SELECT started_at FROM iot.job_run ORDER BY run_id")]
    assert started[0] >= due
    assert all((later - earlier).total_seconds() > 0.5 for earlier, later in zip(started, started[1:], strict=False))


def test_statements_of_the_top_level_run(jobs):
    jobs.execute("CREATE TABLE public.plain (a integer PRIMARY KEY)")
    jobs.execute("INSERT INTO public.plain SELECT generate_series(1, 100)")
    jobs.execute("DELETE FROM public.plain WHERE a > 50")
    jobs.execute("CREATE TABLE public.parent (a integer) PARTITION BY RANGE (a)")
    jobs.execute("CREATE TABLE public.part PARTITION OF public.parent FOR VALUES FROM (0) TO (10)")
    jobs.execute("CREATE PROCEDURE public.commits() LANGUAGE plpgsql AS"
                 " 'BEGIN INSERT INTO public.plain VALUES (-1); COMMIT; INSERT INTO public.plain VALUES (-2); ROLLBACK; END'")
    good = {
        "vacuum": "VACUUM public.plain",
        "reindex": "REINDEX TABLE CONCURRENTLY public.plain",
        "detach": "ALTER TABLE public.parent DETACH PARTITION public.part CONCURRENTLY",
        "procedure": "CALL public.commits()",
        "several": "INSERT INTO public.plain VALUES (-3); INSERT INTO public.plain VALUES (-4)",
    }
    for name, command in good.items():
        add_job(jobs, name, command, max_retries=0)
    for name in good:
        assert wait_for(jobs, name) == [("succeeded", None, None)], name
    for name, command in {
        "several that fail": "INSERT INTO public.plain VALUES (-5); INSERT INTO public.plain VALUES (-4)",
        "vacuum with others": "SELECT 1; VACUUM public.plain",
        "left open": "BEGIN; INSERT INTO public.plain VALUES (-6)",
    }.items():
        add_job(jobs, name, command, max_retries=0)
    assert wait_for(jobs, "several that fail", "failed")[0][1] == "23505"
    assert wait_for(jobs, "vacuum with others", "failed")[0][1:] == (
        "25001", "VACUUM cannot run inside a transaction block")
    assert wait_for(jobs, "left open", "failed")[0][1] == "25001"
    assert jobs.rows("SELECT a FROM public.plain WHERE a < 0 ORDER BY a") == [(-4,), (-3,), (-1,)]
    assert jobs.value("SELECT count(*) FROM pg_inherits WHERE inhparent = 'public.parent'::regclass") == 0
    assert jobs.value("SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'plain'") == 1


def test_a_job_leaves_nothing_to_the_next(jobs):
    jobs.execute("CREATE TABLE public.seen (what text)")
    add_job(jobs, "1 litters", """
        SET work_mem = '77MB'; SET search_path = public; CREATE TEMP TABLE litter (a integer); PREPARE p AS SELECT 1;
        SELECT pg_advisory_lock(7); SET SESSION AUTHORIZATION pg_monitor""")
    wait_for(jobs, "1 litters")
    add_job(jobs, "2 looks", """
        INSERT INTO public.seen SELECT 'work_mem' WHERE current_setting('work_mem') = '77MB';
        INSERT INTO public.seen SELECT 'search_path' WHERE current_setting('search_path') <> 'pg_catalog, pg_temp';
        INSERT INTO public.seen SELECT 'table' WHERE to_regclass('pg_temp.litter') IS NOT NULL;
        INSERT INTO public.seen SELECT name FROM pg_prepared_statements;
        INSERT INTO public.seen SELECT 'lock' FROM pg_locks WHERE locktype = 'advisory' AND objid = 7;
        INSERT INTO public.seen SELECT 'role ' || current_user WHERE current_user <> 'postgres'""")
    wait_for(jobs, "2 looks")
    assert jobs.rows("SELECT * FROM public.seen") == []


# What goes wrong

def test_a_job_that_takes_too_long_is_ended(jobs):
    add_job(jobs, "slow", "SELECT pg_sleep(0.01); SELECT pg_sleep(60)", timeout="300 milliseconds", max_retries=0)
    assert wait_for(jobs, "slow", "timed_out")[0][1] == "57014"


def test_the_end_of_one_worker_is_not_that_of_others(jobs, role):
    jobs.execute(f"GRANT USAGE ON SCHEMA iot TO {role}")
    add_job(jobs, "steady", "SELECT pg_sleep(0.2)", schedule="1 second")
    for name, command in (("fatal", "SELECT pg_terminate_backend(pg_backend_pid())"), ("error", "SELECT 1 / 0")):
        as_role(jobs, role, "SELECT iot.add_job(job_name => %s, schedule => '1 hour', command => %s, max_retries => 0)", (name, command))
    assert wait_for(jobs, "error", "failed") == [("failed", "22012", "division by zero")]
    wait_for(jobs, "fatal", "interrupted")
    before = len(runs(jobs, "steady"))
    wait_for(jobs, "steady", count=before + 2)
    assert set(outcomes(jobs, "steady")) <= {"succeeded", "running"}


def test_sigterm_ends_a_long_query_and_the_job_is_tried_again(jobs):
    add_job(jobs, "long", "SELECT count(*) FROM (SELECT generate_series(1, 1000000000)) numbers", retry_delay="1 second")
    pid = wait_for_worker(jobs.connection, query="%generate_series%")
    jobs.execute("SELECT pg_terminate_backend(%s)", (pid,))
    wait_until(lambda: pid not in [worker[0] for worker in workers(jobs.connection)], what="end of the worker")
    wait_for(jobs, "long", "interrupted")
    assert wait_for_worker(jobs.connection, query="%generate_series%") != pid
    jobs.execute("SELECT iot.delete_job('long')")
    jobs.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = %s", (JOB_WORKER,))


def test_a_run_by_hand_whose_session_ends_is_closed(jobs):
    job = add_job(jobs, "by hand", "SELECT pg_sleep(600)", first_start="1 hour")
    caller = jobs.connect()
    thread = threading.Thread(target=ends, args=(caller, job))
    thread.start()
    worker = wait_for_worker(jobs.connection, "iot_ext statement worker", "%pg_sleep%")
    assert outcomes(jobs, "by hand") == ["running"]
    jobs.execute("SELECT pg_terminate_backend(%s)", (caller.info.backend_pid,))
    thread.join()
    wait_until(lambda: not workers(jobs.connection, "iot_ext statement worker"), what=f"end of {worker}")
    wait_for(jobs, "by hand", "interrupted")
    assert jobs.value("SELECT running_pid FROM iot.job_state") is None


def test_cancelling_a_run_by_hand_cancels_what_it_runs(jobs, unloaded_cluster):
    elsewhere = new_database(unloaded_cluster)
    for database in (jobs, elsewhere):
        job = add_job(database, "by hand", "SELECT pg_sleep(600)", is_paused=True)
        caller = database.connect()
        thread = threading.Thread(target=ends, args=(caller, job))
        thread.start()
        wait_for_worker(database.connection, "iot_ext statement worker", "%pg_sleep%")
        database.execute("SELECT pg_cancel_backend(%s)", (caller.info.backend_pid,))
        thread.join()
        assert outcomes(database, "by hand") == ["cancelled"]
        assert workers(database.connection, "iot_ext statement worker") == []
    elsewhere.drop()


def ends(connection, job):
    """Runs a job in a session that somebody will cancel or end."""
    with pytest.raises(psycopg.OperationalError):
        connection.execute("CALL iot.run_job(%s)", (job,))


def test_a_long_job_does_not_keep_its_owners_other_jobs_waiting(jobs):
    add_job(jobs, "long", "SELECT pg_sleep(600)")
    pid = wait_for_worker(jobs.connection, query="%pg_sleep%")
    add_job(jobs, "short", "SELECT 1")
    wait_for(jobs, "short")
    assert outcomes(jobs, "long") == ["running"]
    jobs.execute("SELECT pg_cancel_backend(%s)", (pid,))
    wait_for(jobs, "long", "cancelled")


def test_an_owner_who_cannot_connect_is_told(jobs, role):
    jobs.execute(f"GRANT USAGE ON SCHEMA iot TO {role}")
    as_role(jobs, role, "SELECT iot.add_job(job_name => 'locked out', schedule => '1 hour', command => 'SELECT 1',"
                        " first_start => now() + interval '1 second')")
    jobs.execute(f"REVOKE CONNECT ON DATABASE {jobs.name} FROM PUBLIC")
    outcome, sqlstate, message = wait_for(jobs, "locked out", "failed")[0]
    assert (sqlstate, message) == ("28000", f'role "{role}" does not have CONNECT on this database')


def test_an_owner_who_is_gone_pauses_the_job(jobs, role):
    jobs.execute(f"GRANT USAGE ON SCHEMA iot TO {role}")
    as_role(jobs, role, "SELECT iot.add_job(job_name => 'orphan', schedule => '1 second', command => 'SELECT 1')")
    wait_for(jobs, "orphan")
    jobs.execute(f"DROP OWNED BY {role}")
    jobs.execute(f"DROP ROLE {role}")
    wait_until(lambda: jobs.value("SELECT is_paused FROM iot.job"), what="pause")
    assert "owner" in jobs.value("SELECT pause_reason FROM iot.job")


def test_the_extension_may_go_while_its_jobs_run(jobs, job_cluster):
    add_job(jobs, "long", "SELECT pg_sleep(600)")
    add_job(jobs, "steady", "SELECT 1", schedule="1 second")
    pid = wait_for_worker(jobs.connection, query="%pg_sleep%")
    wait_for(jobs, "steady")
    before = len(problems(job_cluster))
    jobs.execute("DROP EXTENSION iot_ext")
    jobs.execute("SELECT pg_cancel_backend(%s)", (pid,))
    wait_for_idle(jobs.connection)
    assert problems(job_cluster)[before:] == []
    jobs.execute("CREATE EXTENSION iot_ext")
    add_job(jobs, "again", "SELECT 1")
    wait_for(jobs, "again")


def test_a_change_of_the_catalogue_in_an_open_transaction_is_waited_for(jobs):
    """As ALTER EXTENSION UPDATE does it."""
    add_job(jobs, "steady", "SELECT 1", schedule="1 second")
    wait_for(jobs, "steady")
    with jobs.connect(autocommit=False) as upgrade:
        upgrade.execute("ALTER TABLE iot.job ADD COLUMN new_in_next_version integer")
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'iot.job'::regclass"
        wait_until(lambda: jobs.rows(waiting), what="a worker that waits")
        upgrade.commit()
    before = outcomes(jobs, "steady").count("succeeded")
    wait_for(jobs, "steady", count=before + 2)


def test_a_change_that_rolls_back_is_none(jobs):
    with pytest.raises(psycopg.errors.DivisionByZero), jobs.connection.transaction():
        add_job(jobs, "never", "SELECT 1")
        jobs.execute("SELECT 1 / 0")
    with jobs.connect(autocommit=False) as connection:
        connection.execute("SELECT iot.add_job(job_name => 'prepared', schedule => '1 hour', command => 'SELECT 1')")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="cannot PREPARE a transaction that has changed jobs"):
            connection.execute("PREPARE TRANSACTION 'jobs'")
    assert jobs.rows("SELECT job_name FROM iot.job") == []


def problems(cluster):
    """What the log tells that is none of the tests' own making."""
    return [line for line in cluster.log.read_text(errors="replace").splitlines()
            if "iot_ext" in line and ("could not" in line or "ERROR" in line or "PANIC" in line)]


# Limits

def test_a_thousand_jobs_are_drained_by_two_workers(jobs, job_cluster):
    jobs.execute("CREATE TABLE public.done (job integer)")
    with jobs.connection.transaction():
        for number in range(1000):
            add_job(jobs, f"job {number}", f"INSERT INTO public.done VALUES ({number}); SELECT pg_sleep(0.001)")
    most, started = 0, time.monotonic()
    ended = "SELECT count(*) FROM iot.job_run r JOIN iot.job j USING (job_id) WHERE j.job_name LIKE 'job %' AND outcome <> 'running'"
    while jobs.value(ended) < 1000:
        most = max(most, len(workers(jobs.connection, JOB_WORKER)))
        # Others find a slot all the while.
        with pytest.raises(psycopg.errors.DivisionByZero):
            jobs.execute("CALL iot.run_job(%s)", (other_job(jobs),))
        assert time.monotonic() - started < 120
    assert most == 2
    assert jobs.row("SELECT count(*), count(DISTINCT job) FROM public.done") == (1000, 1000)
    assert jobs.rows("SELECT DISTINCT outcome FROM iot.job_run r JOIN iot.job j USING (job_id)"
                     " WHERE j.job_name LIKE 'job %'") == [("succeeded",)]
    assert jobs.value("SELECT max(n) FROM (SELECT count(*) n FROM iot.job_run r JOIN iot.job j USING (job_id)"
                      " WHERE j.job_name LIKE 'job %' GROUP BY job_id) c") == 1


def other_job(jobs):
    known = jobs.rows("SELECT job_id FROM iot.job WHERE job_name = 'by hand'")
    return known[0][0] if known else add_job(jobs, "by hand", "SELECT 1 / 0", is_paused=True)


def test_without_free_slots_one_warning_names_the_setting():
    # PostgreSQL's own launcher of logical replication takes one, ours the other.
    settings = {"max_worker_processes": 2, "iot_ext.scheduler_interval": "1h", "max_logical_replication_workers": 4}
    with Cluster(settings=settings) as cluster:
        database = new_database(cluster)
        for number in range(3):
            add_job(database, f"job {number}", "SELECT 1")
            wait_until(lambda: warnings(cluster), what="warning")
        assert len(warnings(cluster)) == 1
        assert "Raise max_worker_processes" in cluster.log_tail(100)
        cluster.restart(max_worker_processes=3)
        database._connection = None
        for number in range(3):
            wait_for(database, f"job {number}")


def warnings(cluster):
    return [line for line in cluster.log.read_text().splitlines() if "lacks free background workers" in line]


def test_one_slot_is_left_to_others():
    settings = {"max_worker_processes": 5, "iot_ext.max_job_workers": 8}
    with Cluster(settings=settings) as cluster:
        database = new_database(cluster)
        for number in range(6):
            add_job(database, f"long {number}", "SELECT pg_sleep(600)")
        by_hand = add_job(database, "by hand", "SELECT 1", is_paused=True)
        wait_until(lambda: len(workers(database.connection, JOB_WORKER)) == 2, what="two job workers")
        wait_until(lambda: warnings(cluster), what="warning")
        database.execute("CALL iot.run_job(%s)", (by_hand,))
        assert len(workers(database.connection, JOB_WORKER)) == 2


def test_job_workers_can_be_turned_off_and_on():
    with Cluster(settings={"iot_ext.max_job_workers": 0}) as cluster:
        database = new_database(cluster)
        add_job(database, "due", "SELECT 1")
        with cluster.connect() as connection:
            assert [kind for _, kind, *_ in workers(connection)] == [LAUNCHER]
        assert runs(database, "due") == []
        database.execute("ALTER SYSTEM SET iot_ext.max_job_workers = 1")
        (cluster.data / "cluster.conf").write_text(
            (cluster.data / "cluster.conf").read_text().replace("iot_ext.max_job_workers", "# "))
        database.execute("SELECT pg_reload_conf()")
        wait_for(database, "due")


def test_more_databases_than_the_launcher_can_remember():
    settings = {"iot_ext.max_scheduled_databases": 2, "iot_ext.scheduler_interval": "1s"}
    with Cluster(settings=settings) as cluster:
        databases = [new_database(cluster) for _ in range(4)]
        for database in databases:
            add_job(database, "steady", "SELECT 1", schedule="1 second")
        for database in databases:
            wait_for(database, "steady", count=2)


def test_setup_says_what_is_missing_without_preload(unloaded_cluster, job_cluster):
    for cluster, expected in ((unloaded_cluster, 1), (job_cluster, 0)):
        database = new_database(cluster)
        notices = []
        database.connection.add_notice_handler(lambda said: notices.append((said.message_primary, said.message_hint)))
        database.execute("SELECT iot.setup()")
        found = [hint for message, hint in notices if "not preloaded" in message]
        assert len(found) == expected
        assert all("shared_preload_libraries" in hint for hint in found)
        database.drop()


def test_the_scheduler_shows_itself(jobs):
    add_job(jobs, "due", "SELECT 1", first_start="1 second")
    with jobs.connect(autocommit=False) as locked:
        locked.execute("LOCK TABLE iot.job_state")
        ((_, _, *seen),) = wait_until(lambda: workers(jobs.connection, SCHEDULER), what="scheduler")
        assert tuple(seen) == (f"{SCHEDULER} {jobs.name}", jobs.name, "postgres")
    wait_for(jobs, "due")
