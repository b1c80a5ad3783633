"""Jobs on real clusters: locks between sessions, crashes, time limits, privileges, dump and restore."""

import threading

import psycopg
import pytest

from cluster import Cluster, Database, wait_until
from factory import add_sensor


@pytest.fixture
def database(database):
    """Without the job that setup() makes: the tests count theirs."""
    assert database.value("SELECT iot.delete_job('partition upkeep')")
    return database


def add_job(database, name="job", command="SELECT 1", schedule="1 hour", **more):
    # Not at once: most tests start it themselves.
    more = {"first_start": "2100-01-01 00:00+00"} | more
    arguments = "".join(f", {key} => %({key})s" for key in more)
    return database.value(
        f"SELECT iot.add_job(%(name)s, %(schedule)s, %(command)s{arguments})",
        {"name": name, "schedule": schedule, "command": command} | more,
    )


def run(database, job, connection=None):
    (connection or database.connection).execute("CALL iot.run_job(%s)", (job,))


def last_run(database, job):
    return database.row(
        "SELECT outcome, sqlstate, message, detail FROM iot.job_runs WHERE job_id = %s ORDER BY run_id DESC LIMIT 1", (job,))


def state(database, job, columns):
    return database.row(f"SELECT {columns} FROM iot.jobs WHERE job_id = %s", (job,))


@pytest.fixture
def roles(database):
    """Two roles that may log in and use the schema, no more."""
    for role in ("alice", "bob"):
        database.execute(f"CREATE ROLE {role} LOGIN")
        database.execute(f"GRANT USAGE ON SCHEMA iot TO {role}")
        database.execute(f"CREATE SCHEMA {role} AUTHORIZATION {role}")
    yield
    for role in ("alice", "bob"):
        database.execute(f"DROP OWNED BY {role} CASCADE")
        database.execute(f"DROP ROLE IF EXISTS {role}")


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


def test_old_rows_of_a_plain_table_go_in_batches(database, roles):
    database.execute("SET ROLE alice")
    database.execute("CREATE TABLE alice.log (at timestamptz, level text)")
    database.execute("INSERT INTO alice.log SELECT now() - n * interval '1 hour', CASE WHEN n %% 2 = 0 THEN 'debug' ELSE 'error' END FROM generate_series(0, 999) n", ())
    add = "SELECT iot.add_retention_policy('alice.log', %s, condition => %s, batch_size => 100, initial_start => '2100-01-01 00:00+00')"
    debug = database.value(add, ("7 days", "level = 'debug' -- not the others"))
    everything = database.value(add, ("30 days", None))
    assert debug != everything
    database.execute("RESET ROLE")
    # The superuser runs it as its owner.
    run(database, debug)
    assert last_run(database, debug)[3] == {"rows_deleted": 416}
    run(database, everything)
    assert last_run(database, everything)[3] == {"rows_deleted": 140}
    assert database.row("SELECT count(*) FILTER (WHERE level = 'debug'), count(*) FILTER (WHERE level = 'error'), max(now() - at) < '30 days'"
                        " FROM alice.log") == (84, 360, True)


def test_only_the_owner_and_its_members_may_touch_a_job(database, roles):
    with database.connect("alice") as alice, database.connect("bob") as bob:
        (job,) = alice.execute("SELECT iot.add_job('of alice', '1 day', 'SELECT 1', first_start => '2100-01-01 00:00+00')").fetchone()
        assert alice.execute("SELECT owner::text, command FROM iot.jobs").fetchall() == [("alice", "SELECT 1")]
        assert bob.execute("SELECT * FROM iot.jobs").fetchall() == []
        assert bob.execute("SELECT * FROM iot.job_runs").fetchall() == []
        for statement in (
            "SELECT iot.alter_job(%s, command => 'DROP TABLE x')", "SELECT iot.pause_job(%s)", "SELECT iot.resume_job(%s)",
            "SELECT iot.delete_job(%s)", "CALL iot.run_job(%s)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                bob.execute(statement, (job,))
        for statement in ("SELECT * FROM iot.job", "UPDATE iot.job SET owner = 'postgres'", "SELECT * FROM iot.job_run", "DELETE FROM iot.job_state"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                alice.execute(statement)
        # Nobody becomes somebody else by a job.
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            alice.execute("SELECT iot.add_job('climb', '1 day', 'SELECT 1', owner => 'postgres')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            alice.execute("SELECT iot.alter_job(%s, owner => 'bob')", (job,))
        # Nor works on what is not his.
        bob.execute("CREATE MATERIALIZED VIEW bob.view AS SELECT 1 AS one")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            alice.execute("SELECT iot.add_refresh_policy('bob.view')")
        # Members act for their role; pg_monitor looks on.
        database.execute("GRANT alice TO bob")
        bob.execute("SELECT iot.pause_job('of alice', 'holidays')")
        assert alice.execute("SELECT is_paused, pause_reason FROM iot.jobs").fetchall() == [(True, "holidays")]
        database.execute("REVOKE alice FROM bob")
        database.execute("GRANT pg_monitor TO bob")
        assert bob.execute("SELECT job_name FROM iot.jobs").fetchall() == [("of alice",)]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            bob.execute("SELECT iot.delete_job('of alice')")
        database.execute("REVOKE pg_monitor FROM bob")


def test_a_job_of_others_cannot_use_the_rights_of_who_runs_it(database, roles):
    with database.connect("alice") as alice:
        alice.execute("CREATE TABLE alice.log (at timestamptz)")
        alice.execute("INSERT INTO alice.log SELECT now() - interval '10 days'")
        alice.execute("CREATE TABLE alice.seen (who text)")
        alice.execute(
            "CREATE FUNCTION alice.spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " INSERT INTO alice.seen VALUES (current_user); RETURN NULL; END $$")
        alice.execute("CREATE CONSTRAINT TRIGGER spy AFTER DELETE ON alice.log DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION alice.spy()")
        (job,) = alice.execute("SELECT iot.add_retention_policy('alice.log', '1 day', initial_start => '2100-01-01 00:00+00')").fetchone()
        # A deferred trigger would run at COMMIT, as the superuser again.
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="deferred trigger"):
            run(database, job)
        assert alice.execute("SELECT count(*) FROM alice.log").fetchone() == (1,)
        # For its owner it is his own business.
        run(database, job, alice)
        assert alice.execute("SELECT who FROM alice.seen").fetchall() == [("alice",)]
        assert database.value("SELECT count(*) FROM alice.log") == 0


def test_owners_without_login(database, roles):
    database.execute("CREATE ROLE crew NOLOGIN")
    database.execute("GRANT USAGE ON SCHEMA iot TO crew")
    database.execute("CREATE SCHEMA crew AUTHORIZATION crew")
    database.execute("GRANT crew TO alice")
    database.execute("SET ROLE crew")
    database.execute("CREATE MATERIALIZED VIEW crew.view AS SELECT 1 AS one")
    try:
        with database.connect("alice") as alice:
            if database.cluster.major >= 17:
                alice.execute("SELECT iot.add_refresh_policy('crew.view')")
            else:
                with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refusal:
                    alice.execute("SELECT iot.add_refresh_policy('crew.view')")
                assert "LOGIN" in refusal.value.diag.message_hint
                # A member with LOGIN may do it for the role.
                (job,) = alice.execute("SELECT iot.add_refresh_policy('crew.view', owner => 'alice')").fetchone()
                run(database, job, alice)
    finally:
        database.execute("RESET ROLE")
        database.execute("DROP OWNED BY crew CASCADE")
        database.execute("DROP ROLE crew")


def test_a_dropped_owner_pauses_the_job(database):
    database.execute("CREATE ROLE leaver LOGIN")
    job = add_job(database, owner="leaver", first_start="2020-01-01 00:00+00")
    database.execute("DROP ROLE leaver")
    # Whoever looks pauses it; here a run by hand has nobody to run as.
    with pytest.raises(psycopg.Error):
        run(database, job)
    assert database.value("SELECT count(*) FROM iot.jobs WHERE job_id = %s", (job,)) == 1


def test_targets_are_followed_and_left(database):
    for kind in ("MATERIALIZED VIEW public.a AS SELECT 1 AS one", "MATERIALIZED VIEW public.b AS SELECT one FROM public.a",
                 "TABLE public.log (at timestamptz)", "SCHEMA other"):
        database.execute(f"CREATE {kind}")
    for view in "ab":
        database.execute("SELECT iot.add_refresh_policy(%s)", (f"public.{view}",))
    log = database.value("SELECT iot.add_retention_policy('public.log', '1 day')")
    database.execute("ALTER TABLE public.log RENAME TO journal")
    database.execute("ALTER TABLE public.journal SET SCHEMA other")
    assert state(database, log, "target::text")[0] == "other.journal"
    run(database, log)
    # With everything that hangs on it.
    database.execute("DROP MATERIALIZED VIEW public.a CASCADE")
    assert database.rows("SELECT job_id FROM iot.jobs") == [(log,)]
    database.execute("DROP SCHEMA other CASCADE")
    assert database.rows("SELECT job_id FROM iot.jobs") == []
    assert database.value("SELECT count(*) FROM iot.job_run") == 0


@pytest.mark.parametrize("how", ["plain", "custom"])
def test_dump_and_restore_keep_the_jobs(database, cluster, how, roles):
    database.execute("CREATE TABLE alice.\"Log file\" (at timestamptz PRIMARY KEY)")
    database.execute("ALTER TABLE alice.\"Log file\" OWNER TO alice")
    database.execute("SELECT iot.add_retention_policy('alice.\"Log file\"', '30 days', condition => 'true')")
    add_job(database, "sql", "SELECT 'ünïcode', $$'$$", "5 4 * * mon", time_zone="Europe/Berlin", jitter="3 minutes", timeout="1 hour",
            max_retries=2, retry_delay="7 seconds", is_paused=True, owner="bob")
    gone = add_job(database, "deleted")
    database.execute("SELECT iot.delete_job(%s)", (gone,))
    database.execute("CREATE ROLE leaver LOGIN")
    add_job(database, "of a leaver", owner="leaver")
    run(database, "retention of alice.\"Log file\"")
    database.execute("DROP ROLE leaver")
    jobs = "SELECT job_id, job_name, job_kind, owner::text, target::text, schedule, time_zone, is_paused, command, parameters," \
           " jitter, first_start, timeout, max_retries, retry_delay, created_at FROM iot.jobs WHERE job_name <> 'of a leaver' ORDER BY job_id"
    copy = Database(cluster)
    try:
        if how == "plain":
            cluster.psql(cluster.pg_dump(database.name), copy.name)
        else:
            archive = cluster.scratch / f"{database.name}.dump"
            cluster.pg_dump(database.name, "-Fc", "-f", archive)
            cluster.pg_restore(copy.name, archive, "-j2")
            archive.unlink()
        assert copy.rows(jobs) == database.rows(jobs)
        assert len(copy.rows(jobs)) == 2
        # A job of a role that is gone stays behind: its number may be somebody else's there.
        assert copy.value("SELECT count(*) FROM iot.jobs WHERE job_name = 'of a leaver'") == 0
        # Numbers go on, history begins anew, and what was restored runs.
        assert add_job(copy, "new") > database.value("SELECT max(job_id) FROM iot.job")
        run(copy, "retention of alice.\"Log file\"")
        assert copy.value("SELECT count(*) FROM iot.job_runs") == 1
        copy.execute("ALTER TABLE alice.\"Log file\" RENAME TO log")
        assert copy.value("SELECT target::text FROM iot.jobs WHERE target IS NOT NULL") == "alice.log"
    finally:
        copy.drop()


def test_jobs_wait_for_the_end_of_the_restore(database):
    """Until the session that brings them in is gone, there may be no keys and no triggers."""
    job = add_job(database, job_kind="command_timeouts", command=None)
    with database.connect() as restore:
        restore.execute("SET check_function_bodies = false")
        with restore.cursor().copy("COPY iot.job (job_id, job_name, job_kind, owner, schedule_interval) FROM stdin") as copy:
            copy.write_row((4711, "restored", "command_timeouts", "postgres", "1 hour"))
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has not ended"):
            run(database, 4711)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has not ended"):
            run(database, job)
    wait_until(lambda: not database.value("SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND mode = 'ShareLock'"))
    run(database, 4711)
    run(database, job)


def test_a_table_without_its_key_is_being_restored(database):
    job = add_job(database, job_kind="command_timeouts", command=None)
    key = database.value("SELECT conname FROM pg_constraint WHERE conrelid = 'iot.device_commands'::regclass AND contype = 'p'")
    database.execute(f"ALTER TABLE iot.device_commands DROP CONSTRAINT {key} CASCADE")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="being restored"):
        run(database, job)
    database.execute("ALTER TABLE iot.device_commands ADD PRIMARY KEY (command_id)")
    run(database, job)


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
