"""What the tests of jobs share."""

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
