"""The catalogue of jobs: who may do what, owners and targets that go, dump and restore."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from cluster import Database, wait_until
from job_runs import add_job, last_run, run, state


@pytest.fixture
def database(database):
    """Without the job that setup() makes: the tests count theirs."""
    assert database.value("SELECT iot.delete_job('partition upkeep')")
    return database


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


def test_deleting_a_job_and_starting_it_do_not_wait_for_each_other(database):
    """Both take the job first, then how it is doing: whichever is later finds that the other was."""
    job = add_job(database, job_kind="command_timeouts", command=None)
    with database.connect() as starting, database.connect() as deleting, deleting.transaction():
        deleting.execute("SELECT FROM iot.job WHERE job_id = %s FOR UPDATE", (job,))
        with ThreadPoolExecutor(1) as pool:
            start = pool.submit(run, database, job, starting)
            blocked = (starting.info.backend_pid, [deleting.info.backend_pid])
            wait_until(lambda: database.value("SELECT pg_blocking_pids(%s) = %s::int[]", blocked))
            deleting.execute("SELECT iot.delete_job(%s)", (job,))
            deleting.execute("COMMIT")
            with pytest.raises(psycopg.errors.UndefinedObject, match="does not exist any more"):
                start.result()


def while_waiting(database, first, then):
    """The session of `first` has done so and not committed when another one comes to `then`; returns what becomes of that."""
    with database.connect(autocommit=False) as earlier, database.connect() as later, ThreadPoolExecutor(1) as pool:
        earlier.execute(first)
        result = pool.submit(later.execute, then)
        blocked = (later.info.backend_pid, [earlier.info.backend_pid])
        wait_until(lambda: database.value("SELECT pg_blocking_pids(%s) = %s::int[]", blocked))
        earlier.commit()
        return result.exception()


@pytest.mark.parametrize("change", ["pause_job('job')", "resume_job('job')", "delete_job('job')", "alter_job({job}, timeout => '9 s')"])
def test_a_deleted_job_stays_deleted(database, change):
    job = add_job(database)
    failure = while_waiting(database, "SELECT iot.delete_job('job')", f"SELECT iot.{change.format(job=job)}")
    assert isinstance(failure, psycopg.errors.UndefinedObject)
    assert database.value("SELECT count(*) FROM iot.jobs") == 0


def test_changes_of_a_job_at_the_same_time_are_all_kept(database):
    job = add_job(database)
    assert while_waiting(database, "SELECT iot.pause_job('job', 'not now')", f"SELECT iot.alter_job({job}, schedule => '2 hours')") is None
    assert while_waiting(database, f"SELECT iot.alter_job({job}, jitter => '3 s')", f"SELECT iot.alter_job({job}, timeout => '9 s')") is None
    assert state(database, job, "is_paused, pause_reason, schedule, jitter::text, timeout::text") == (
        True, "not now", "02:00:00", "00:00:03", "00:00:09")


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
