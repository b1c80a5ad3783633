"""Jobs as the tests of workers need them: short SQL, due now or every second."""

from cluster import Database, wait_until

LAUNCHER = "iot_ext launcher"
SCHEDULER = "iot_ext scheduler"
JOB_WORKER = "iot_ext job worker"


def new_database(cluster, name=None):
    """A database with the extension, without its tables: jobs need none of them."""
    fresh = Database(cluster, name)
    fresh.execute("CREATE EXTENSION iot_ext")
    return fresh


def add_job(database, name, command, schedule="1 hour", **options):
    """A job that runs SQL, due at once or `first_start` (an interval) later."""
    if "first_start" in options:
        options["first_start"] = database.value("SELECT clock_timestamp() + %s::interval", (options["first_start"],))
    named = "".join(f", {option} => %({option})s" for option in options)
    return database.value(
        f"SELECT iot.add_job(job_name => %(name)s, schedule => %(schedule)s, command => %(command)s{named})",
        {"name": name, "schedule": schedule, "command": command} | options,
    )


def runs(database, name):
    """Outcome, SQLSTATE and message of each run, the first one first."""
    return database.rows(
        "SELECT outcome, sqlstate, message FROM iot.job_run r JOIN iot.job j USING (job_id)"
        " WHERE job_name = %s ORDER BY run_id", (name,))


def outcomes(database, name):
    return [outcome for outcome, _, _ in runs(database, name)]


def wait_for(database, name, outcome="succeeded", count=1, timeout=60):
    """Waits until so many runs of a job have ended so; returns its runs."""
    wait_until(lambda: outcomes(database, name).count(outcome) >= count, timeout, what=f"{outcome} run of {name}")
    return runs(database, name)


def workers(connection, *kinds):
    """Process number, kind, name, database and role of our workers."""
    kinds = list(kinds) or [LAUNCHER, SCHEDULER, JOB_WORKER]
    return connection.execute(
        "SELECT pid, backend_type, application_name, datname, usename FROM pg_stat_activity"
        " WHERE backend_type = ANY (%s) ORDER BY 2, 1", (kinds,)).fetchall()


def wait_for_worker(connection, kind=JOB_WORKER, query="%", timeout=60):
    """The process number of a worker that runs something like `query`."""
    def find():
        return connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = %s AND query LIKE %s AND state = 'active'",
            (kind, query)).fetchone()
    return wait_until(find, timeout, what=f"{kind} with {query}")[0]


def wait_for_idle(connection, timeout=60):
    """Waits until there is nothing but the launcher."""
    wait_until(lambda: [kind for _, kind, *_ in workers(connection)] == [LAUNCHER], timeout, what="only the launcher")
