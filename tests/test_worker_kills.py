"""kill -9 of launcher, schedulers, job workers and sessions at random moments: everything comes back, and nothing is lost,
done twice or left half done.

IOT_KILL_SECONDS: how long processes are killed (10). IOT_KILL_SEED: which ones, and when.
"""

import os
import random
import threading
import time

import psycopg

from cluster import Cluster, ClusterError, wait_until
from jobs import JOB_WORKER, LAUNCHER, SCHEDULER, add_job, new_database, wait_for_idle

SECONDS = float(os.environ.get("IOT_KILL_SECONDS", "10"))
SEED = int(os.environ.get("IOT_KILL_SEED", "20261121"))
ROWS = 20_000

# Copies what is not there yet, some rows at a time: if a run were lost, doubled or half done, rows would be.
MOVE = """INSERT INTO public.copy SELECT n, md5(n::text) FROM public.source
           WHERE n > (SELECT coalesce(max(n), 0) FROM public.copy) ORDER BY n LIMIT 500"""
# The same in transactions of its own.
PROCEDURE = """CREATE PROCEDURE public.move() LANGUAGE plpgsql AS $$
    DECLARE moved integer;
    BEGIN
        FOR turn IN 1..5 LOOP
            INSERT INTO public.copy_by_procedure SELECT n, md5(n::text) FROM public.source
             WHERE n > (SELECT coalesce(max(n), 0) FROM public.copy_by_procedure) ORDER BY n LIMIT 100;
            COMMIT;
            PERFORM pg_sleep(0.02);
        END LOOP;
    END $$"""
VICTIMS = [LAUNCHER, SCHEDULER, JOB_WORKER, JOB_WORKER, JOB_WORKER, "client backend", "iot_ext statement worker"]


def writer(database, stop):
    """A client that fills the source, and repeats what a crash took away."""
    number, by_hand = 0, 0
    while number < ROWS or not stop.is_set():
        try:
            with database.connect() as connection:
                while number < ROWS or not stop.is_set():
                    number = connection.execute("SELECT coalesce(max(n), 0) FROM public.source").fetchone()[0]
                    if number < ROWS:
                        connection.execute("INSERT INTO public.source SELECT generate_series(%s::int + 1, least(%s::int + 100, %s))",
                                           (number, number, ROWS))
                    by_hand += 1
                    if by_hand % 10 == 0:
                        connection.execute("CALL iot.run_job('by hand')")
                    time.sleep(0.01)
        except psycopg.Error:
            time.sleep(0.05)


def kill_one(cluster, rng):
    """Kills one process of a random kind, if there is one; whether there was."""
    kind = rng.choice(VICTIMS)
    deadline = time.monotonic() + 1
    try:
        with cluster.connect() as connection:
            own = connection.info.backend_pid
            while time.monotonic() < deadline:
                pids = [pid for (pid,) in connection.execute(
                    "SELECT pid FROM pg_stat_activity WHERE backend_type = %s AND pid <> %s", (kind, own))]
                if pids:
                    cluster.kill9(rng.choice(pids))
                    return kind
    except (psycopg.Error, ClusterError, ProcessLookupError):
        return None
    return None


def test_everything_comes_back_after_kills():
    rng = random.Random(SEED)
    killed = []
    with Cluster(settings={"restart_after_crash": "on", "iot_ext.scheduler_interval": "1s"}) as cluster:
        database = new_database(cluster)
        for table in ("source (n integer PRIMARY KEY)", "copy (n integer PRIMARY KEY, h text)",
                      "copy_by_procedure (n integer PRIMARY KEY, h text)"):
            database.execute(f"CREATE TABLE public.{table}")
        database.execute(PROCEDURE)
        quickly = {"schedule": "1 second", "retry_delay": "1 second", "max_retries": 1000}
        add_job(database, "move", MOVE, **quickly)
        add_job(database, "procedure", "CALL public.move()", **quickly)
        add_job(database, "vacuum", "VACUUM public.copy", **quickly)
        add_job(database, "by hand", "ANALYZE public.source", is_paused=True)
        database.connection.close()
        stop = threading.Event()
        client = threading.Thread(target=writer, args=(database, stop))
        client.start()
        try:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                time.sleep(rng.uniform(0, 0.5))
                if kind := kill_one(cluster, rng):
                    killed.append(kind)
                    cluster.wait_ready()
        finally:
            stop.set()
            client.join()
        print(f"seed {SEED}: killed", {kind: killed.count(kind) for kind in sorted(set(killed))})
        assert killed
        cluster.wait_ready()
        # Half of it by the workers as they are, the rest faster.
        database.execute("SELECT iot.alter_job(job_id, command => replace(command, '500', '50000')) FROM iot.job"
                         " WHERE job_name = 'move'")
        count = "SELECT count(*) FROM public.copy"
        wait_until(lambda: database.value(count) == ROWS, what="all rows copied")
        for table in ("copy", "copy_by_procedure"):
            wrong = f"SELECT count(*) FROM public.{table} c LEFT JOIN public.source s USING (n) WHERE s.n IS NULL OR h <> md5(n::text)"
            assert database.value(wrong) == 0
            gaps = f"SELECT max(n) - count(*) FROM public.{table}"
            assert database.value(gaps) == 0
        # Each job goes on, and none looks as if it ran.
        for name in ("move", "procedure", "vacuum"):
            total = "SELECT total_runs FROM iot.job_state JOIN iot.job USING (job_id) WHERE job_name = %s"
            before = database.value(total, (name,))
            wait_until(lambda n=name, b=before: database.value(total, (n,)) > b + 1, what=f"runs of {name}")
        database.execute("SELECT iot.alter_job(job_id, is_paused => true) FROM iot.job")
        wait_for_idle(database.connection)
        open_runs = "SELECT job_name, pid FROM iot.job_run JOIN iot.job USING (job_id) WHERE outcome = 'running'"
        assert database.rows(open_runs) == []
        assert database.rows("SELECT job_id FROM iot.job_state WHERE running_pid IS NOT NULL") == []
        assert {outcome for (outcome,) in database.rows("SELECT DISTINCT outcome FROM iot.job_run")} <= {
            "succeeded", "interrupted", "cancelled", "failed"}
        assert database.value("SELECT count(*) FROM iot.job_run WHERE outcome = 'failed' AND sqlstate NOT LIKE '57P0%%'") == 0
