"""Workers and whole databases: they are dropped, renamed, copied, restored, promoted, and most of the time nothing is due."""

import contextlib
import time
from threading import Thread

import psycopg
import pytest

from cluster import Cluster, ClusterError, cpu_seconds, wait_until
from jobs import (
    JOB_WORKER, LAUNCHER, add_job, new_database, outcomes, wait_for, wait_for_idle, wait_for_worker, workers,
)

EVERY_SECOND = "CREATE TABLE IF NOT EXISTS public.ticks (at timestamptz); INSERT INTO public.ticks VALUES (clock_timestamp())"


@pytest.fixture(scope="module")
def job_cluster():
    # The long job of a database and that of its copy must not take all workers.
    with Cluster(settings={"iot_ext.max_job_workers": 4}) as running:
        yield running


@pytest.fixture
def admin(job_cluster):
    with job_cluster.connect() as connection:
        yield connection


@pytest.fixture
def busy(job_cluster, admin):
    """A database with a job that runs for long and one that runs every second; nobody else is connected to it."""
    database = new_database(job_cluster)
    add_job(database, "steady", EVERY_SECOND, schedule="1 second")
    add_job(database, "long", "SELECT pg_sleep(600)", retry_delay="1 second")
    wait_for_worker(admin, query="%pg_sleep%")
    wait_for(database, "steady")
    database.connection.close()
    yield database
    database.drop()


def test_a_database_is_dropped_while_its_jobs_run(admin, busy):
    admin.execute(f"DROP DATABASE {busy.name}")
    wait_for_idle(admin)


def test_a_database_is_renamed_while_its_jobs_run(admin, busy):
    old, busy.name = busy.name, f"{busy.name}_renamed"
    admin.execute(f"ALTER DATABASE {old} RENAME TO {busy.name}")
    assert wait_for(busy, "long", "cancelled")[0][1] == "57014"
    wait_for_worker(admin, query="%pg_sleep%")
    assert [worker[2] for worker in workers(admin, JOB_WORKER)][0] == f"{JOB_WORKER} {busy.name}"
    before = outcomes(busy, "steady").count("succeeded")
    wait_for(busy, "steady", count=before + 2)


def test_a_database_is_copied_while_its_jobs_run_and_the_copy_has_them_too(admin, busy, job_cluster):
    copy = f"{busy.name}_copy"
    admin.execute(f"CREATE DATABASE {copy} TEMPLATE {busy.name}")
    try:
        ticks = "SELECT count(*) FROM public.ticks"
        for name in (copy, busy.name):
            with job_cluster.connect(name) as connection:
                before = connection.execute(ticks).fetchone()[0]
                wait_until(lambda c=connection, b=before: c.execute(ticks).fetchone()[0] > b + 1, what=f"ticks in {name}")
        wait_for(busy, "long", "cancelled")
    finally:
        job_cluster.drop_database(copy)


def test_a_database_is_moved_while_its_jobs_run(admin, busy, job_cluster):
    place = job_cluster.scratch / "space"
    place.mkdir()
    job_cluster.give_to_server(place)
    admin.execute(f"CREATE TABLESPACE space LOCATION '{place}'")
    admin.execute(f"ALTER DATABASE {busy.name} SET TABLESPACE space")
    wait_for(busy, "long", "cancelled")
    wait_for_worker(admin, query="%pg_sleep%")
    busy.connection.close()
    admin.execute(f"ALTER DATABASE {busy.name} SET TABLESPACE pg_default")
    admin.execute("DROP TABLESPACE space")


def test_a_statement_that_fails_lets_the_workers_in_again(admin, busy):
    with busy.connect() as guest:
        with pytest.raises(psycopg.errors.ObjectInUse):
            admin.execute(f"DROP DATABASE {busy.name}")
        guest.execute("SELECT 1")
    wait_for(busy, "long", "cancelled")
    wait_for_worker(admin, query="%pg_sleep%")
    before = outcomes(busy, "steady").count("succeeded")
    wait_for(busy, "steady", count=before + 2)


def test_the_end_of_the_session_lets_the_workers_in_again(admin, busy, job_cluster):
    with busy.connect() as guest, job_cluster.connect() as other:
        pid = other.info.backend_pid
        failed = []

        def drop():
            # PostgreSQL waits five seconds for the guest to leave.
            try:
                other.execute(f"DROP DATABASE {busy.name}")
            except psycopg.OperationalError as error:
                failed.append(error)
        thread = Thread(target=drop)
        thread.start()
        wait_until(lambda: not workers(admin, JOB_WORKER), what="workers gone")
        admin.execute("SELECT pg_terminate_backend(%s)", (pid,))
        thread.join()
        assert failed
        guest.execute("SELECT 1")
    before = outcomes(busy, "steady").count("succeeded")
    wait_for(busy, "steady", count=before + 2)


def test_who_may_not_drop_the_database_stops_nothing(admin, busy, job_cluster):
    admin.execute("CREATE ROLE stranger LOGIN CREATEDB")
    with job_cluster.connect(user="stranger") as stranger:
        for statement in (f"DROP DATABASE {busy.name}", f"ALTER DATABASE {busy.name} RENAME TO mine",
                          f"CREATE DATABASE mine TEMPLATE {busy.name}", f"ALTER DATABASE {busy.name} SET TABLESPACE pg_default"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                stranger.execute(statement)
        stranger.autocommit = False
    with job_cluster.connect(autocommit=False) as block, pytest.raises(psycopg.errors.ActiveSqlTransaction):
        block.execute("SELECT 1")
        block.execute(f"DROP DATABASE {busy.name}")
    admin.execute("DROP ROLE stranger")
    assert outcomes(busy, "long") == ["running"]


def test_a_job_that_refuses_to_be_cancelled_is_ended(job_cluster, admin):
    database = new_database(job_cluster)
    add_job(database, "stubborn", "DO $$BEGIN LOOP BEGIN PERFORM pg_sleep(600);"
                                  " EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END$$")
    wait_for_worker(admin, query="%query_canceled%")
    database.connection.close()
    admin.execute(f"DROP DATABASE {database.name}")


def test_errors_of_other_statements_keep_what_they_say(admin, busy):
    with busy.connect() as connection, pytest.raises(psycopg.errors.CheckViolation) as caught:
        connection.execute("CREATE TABLE public.t (a integer)")
        connection.execute("INSERT INTO public.t VALUES (-1)")
        connection.execute("ALTER TABLE public.t ADD CONSTRAINT positive CHECK (a > 0)")
    assert (caught.value.diag.constraint_name, caught.value.diag.table_name) == ("positive", "t")


@pytest.mark.parametrize("libraries", ["iot_ext, pg_stat_statements", "pg_stat_statements, iot_ext"])
def test_hooks_of_others_are_called(libraries):
    settings = {"shared_preload_libraries": libraries, "pg_stat_statements.track_utility": "on"}
    with contextlib.ExitStack() as stack:
        try:
            cluster = stack.enter_context(Cluster(settings=settings))
        except ClusterError as error:
            assert "pg_stat_statements" in str(error)
            pytest.skip("this PostgreSQL has no pg_stat_statements")
        database = new_database(cluster)
        database.execute("CREATE EXTENSION pg_stat_statements")
        other = new_database(cluster)
        add_job(other, "long", "SELECT pg_sleep(600)")
        wait_for_worker(database.connection, query="%pg_sleep%")
        other.connection.close()
        database.execute(f"DROP DATABASE {other.name}")
        seen = "SELECT calls FROM pg_stat_statements WHERE query = %s"
        assert database.rows(seen, (f"DROP DATABASE {other.name}",)) == [(1,)]


# Copies by dump and by streaming

@pytest.mark.parametrize("format", ["custom", "directory"])
def test_a_restore_is_not_disturbed_and_the_jobs_go_on(job_cluster, format):
    source = new_database(job_cluster)
    source.execute("SELECT iot.setup()")
    source.execute("CREATE TABLE public.numbers (n integer PRIMARY KEY, square bigint NOT NULL)")
    source.execute("INSERT INTO public.numbers SELECT n, n::bigint * n FROM generate_series(1, 50000) n")
    for number in range(5):
        add_job(source, f"vacuum {number}", "VACUUM ANALYZE public.numbers", schedule="1 second")
    add_job(source, "adds", "INSERT INTO public.numbers SELECT max(n) + 1, 0 FROM public.numbers", schedule="1 second")
    wait_for(source, "adds", count=2)
    archive = job_cluster.scratch / f"{source.name}.{format}"
    job_cluster.pg_dump(source.name, f"--format={format}", "-f", archive)
    copy = job_cluster.create_database()
    try:
        job_cluster.pg_restore(copy, archive, "-j2")
        with job_cluster.connect(copy) as connection:
            count = "SELECT count(*) FROM public.numbers"
            assert connection.execute(count + " WHERE square = n::bigint * n").fetchone() == (50000,)
            before = connection.execute(count).fetchone()[0]
            wait_until(lambda: connection.execute(count).fetchone()[0] > before, 90, what="the jobs of the copy")
            failed = connection.execute("SELECT outcome, message FROM iot.job_run WHERE outcome NOT IN"
                                        " ('succeeded', 'running', 'deferred')").fetchall()
            assert failed == []
    finally:
        job_cluster.drop_database(copy)
        source.drop()


def test_a_standby_is_idle_and_takes_over_after_promotion():
    with Cluster() as primary:
        database = new_database(primary)
        add_job(database, "steady", EVERY_SECOND, schedule="1 second")
        wait_for(database, "steady", count=2)
        with Cluster(standby_of=primary) as standby, standby.connect(database.name) as connection:
            ticks = "SELECT count(*) FROM public.ticks"
            before = connection.execute(ticks).fetchone()[0]
            wait_until(lambda: connection.execute(ticks).fetchone()[0] > before, what="streaming")
            assert workers(connection) == []
            primary.stop("immediate")
            assert workers(connection) == []
            connection.execute("SELECT pg_promote()")
            promoted = time.monotonic()
            wait_until(lambda: workers(connection, LAUNCHER), what="launcher")
            before = connection.execute(ticks).fetchone()[0]
            wait_until(lambda: connection.execute(ticks).fetchone()[0] > before + 1, what="jobs")
            print(f"jobs {time.monotonic() - promoted:.1f} s after promotion")
            assert connection.execute("SELECT count(*) FROM iot.job_run WHERE outcome = 'running'").fetchone()[0] <= 1


def stays_idle(connection, seconds=1):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if [kind for _, kind, *_ in workers(connection)] != [LAUNCHER]:
            return False
        time.sleep(0.02)
    return True


def test_fifty_databases_with_nothing_due_cost_nothing():
    with Cluster() as cluster:
        template = new_database(cluster, "template_with_jobs")
        template.execute("SELECT iot.setup()")
        add_job(template, "yearly", "SELECT 1", schedule="1 year", first_start="1 year")
        # What setup() schedules has run for the first time.
        soon = ("SELECT count(*) FROM iot.job LEFT JOIN iot.job_state USING (job_id) WHERE running_pid IS NOT NULL"
                " OR next_start IS NULL OR next_start < now() + interval '5 minutes'")
        wait_until(lambda: template.value(soon) == 0, what="nothing due soon")
        template.connection.close()
        with cluster.connect() as admin:
            for number in range(50):
                admin.execute(f"CREATE DATABASE idle_{number} TEMPLATE template_with_jobs")
            # The launcher looks at one database after the other.
            wait_until(lambda: stays_idle(admin), what="a second with nothing but the launcher")
            (launcher,) = [pid for pid, kind, *_ in workers(admin) if kind == LAUNCHER]
            begin, cpu, seen = time.monotonic(), cpu_seconds(launcher), set()
            while time.monotonic() - begin < 10:
                seen |= {kind for _, kind, *_ in workers(admin)}
                time.sleep(0.1)
            share = (cpu_seconds(launcher) - cpu) / (time.monotonic() - begin)
            print(f"the launcher of 50 idle databases uses {share:.3%} of a processor")
            assert seen == {LAUNCHER}
