"""process_sensor_data, one reading a call, against a bare INSERT of the finished row, against the PL/pgSQL pipeline, and
with more rules around.

Driven by pgbench with prepared statements: it costs little itself, and both sides run scripts that differ in the statement
only.
"""

import re
from itertools import count

from cluster import clean_environment, wait_until

from .measure import Goal, NotDone, Sample, children, compare, median_rate, parent, process_cpu, take_turns, timed
from .readings import SECOND, Stream, clock
from .world import RULES, check_counts, ingest_arrays, world_of

METADATA = '{"fw": "1.4.2", "rssi": -67, "battery": 61}'
# Each client keeps to sensors of its own: two readings of a sensor in the same microsecond would be a duplicate, which
# ends a bare INSERT's client.
CHOICE = """\\set sensor :client_id * :share + random(0, :share - 1)
\\set value random(18000, 24000)
"""
OURS = CHOICE + """SELECT iot.process_sensor_data(md5('sensor ' || :sensor)::uuid, :value::float8 / 1000, '{metadata}'),
    md5('device ' || :sensor)::uuid;
"""
# The row as process_sensor_data leaves it. Its id is a constant: a client has it ready, and no index holds it. That the
# other script computes the device's id as well makes the two equal in what the client asks for.
BARE = CHOICE + """INSERT INTO finished.sensor_data (measurement_timestamp, received_at, anomaly_score, data_id, sensor_id,
    device_id, quality_flags, is_anomaly, is_onset, measurement_value, raw_value, data_quality, measurement_unit,
    sensor_type, measurement_metadata)
VALUES (clock_timestamp(), clock_timestamp(), 0.5, '0190b3c4-5d6e-7f80-8a9b-0c1d2e3f4a5b', 
    md5('sensor ' || :sensor)::uuid, md5('device ' || :sensor)::uuid, 0, false, false, :value::float8 / 1000 * 1.02,
    :value::float8 / 1000, 'valid', 'degC', 'temperature', '{metadata}');
"""
PIPELINE = CHOICE + "SELECT {function}(md5('sensor ' || :sensor)::uuid, :value::{type} / 1000, '{metadata}');\n"

_script = count(1)


class Pgbench:
    """One side: a script run for some seconds against a database. CPU seconds are those of all its backends."""

    def __init__(self, world, script, seconds, clients=1, synchronous_commit="off", before=None, **values):
        self.world, self.cluster = world, world.cluster
        self.before = before
        self.path = self.cluster.scratch / f"script-{next(_script)}.sql"
        self.path.write_text(script.replace("{metadata}", METADATA), encoding="utf-8")
        values |= {"share": world.count // clients}
        self.arguments = [
            "--no-vacuum", "--protocol", "prepared", "--client", clients, "--jobs", min(clients, 2), "--time", seconds,
            "--file", self.path, *(f"--define={name}={value}" for name, value in values.items()),
            "--host", self.cluster.host, "--port", self.cluster.port, "--username", "postgres", world.name,
        ]
        self.environment = clean_environment(PGOPTIONS=f"-c synchronous_commit={synchronous_commit}")
        self.calls = 0

    def __call__(self, _round):
        if self.before:
            self.before()
        postmaster = parent(self.world.admin.info.backend_pid)
        before = process_cpu(postmaster)[1]
        out = self.cluster.run("pgbench", *self.arguments, env=self.environment).stdout
        # The postmaster knows the CPU seconds of a backend when it has ended: a little after it leaves pg_stat_activity.
        wait_until(lambda: children(postmaster) <= set(self.world.value("SELECT array_agg(pid) FROM pg_stat_activity")),
                   what="end of pgbench's sessions")
        cpu = process_cpu(postmaster)[1] - before
        calls = int(re.search(r"actually processed: (\d+)", out)[1])
        failed = re.search(r"failed transactions: (\d+)", out)
        if failed and int(failed[1]):
            raise NotDone(f"{failed[1]} calls failed")
        self.calls += calls
        return Sample(calls, calls / float(re.search(r"tps = ([\d.]+) \(without", out)[1]), cpu)


def insert(cluster, report):
    """Against a bare prepared INSERT: 1 and 4 clients, synchronous_commit on and off."""
    seconds = 1 if report.options.quick else 3
    with world_of(cluster, 1_000) as world:
        world.require_function("process_sensor_data", "uuid", "double precision")
        world.make_equal_table()
        started = world.warm_up()
        for synchronous_commit in ("off", "on"):
            for clients in (1, 4):
                ours, bare = (
                    Pgbench(world, script, seconds, clients, synchronous_commit) for script in (OURS, BARE))
                before = [world.value(f"SELECT count(*) FROM {schema}.sensor_data") for schema in ("iot", "finished")]
                compare(report, f"process_sensor_data, {clients} client(s), sync {synchronous_commit}",
                        {"ours": ours, "INSERT": bare}, [Goal("INSERT", 0.75)], "calls/s")
                world.check_stored(before[0] + ours.calls)
                world.check_stored(before[1] + bare.calls, "finished.sensor_data")
                world.check_scored((started, "infinity"))
                world.check_filled_alike()


# Readings in the 24-hour window: sensors, and the goals against the pipeline as written and with a covering index.
WINDOWS = {0: (20_000, 5, 4), 1_440: (1_000, 50, 7.5), 8_640: (200, 250, 15), 86_400: (20, 1_500, 130)}
# As above in the share of sensors: fewer of them put a sensor's readings closer together on disk.
QUICK_SENSORS = {0: 2_000, 1_440: 50, 8_640: 10, 86_400: 2}


def pipeline(cluster, report):
    """Against the PL/pgSQL pipeline with windows of several sizes, one client, synchronous_commit off."""
    ours_at = {}
    for window in report.options.windows or WINDOWS:
        sensors, as_written, covering = WINDOWS[window]
        with world_of(cluster, QUICK_SENSORS[window] if report.options.quick else sensors) as world:
            world.require_function("process_sensor_data", "uuid", "double precision")
            world.make_baseline()
            world.make_equal_table()
            if window:
                fill(world, window)
            warm_up(world)
            samples = against_baseline(report, world, window, "as written", as_written)
            world.admin.execute("CALL baseline.use_covering_index()")
            samples += against_baseline(report, world, window, "covering index", covering)
            ours_at[window] = median_rate(samples)
            if report.options.last_seen:
                with_last_seen(report, world, window)
    empty = ours_at.get(0)
    for window, rate in ours_at.items():
        if window and empty:
            report.line(f"process_sensor_data, window {window:,} against empty, calls/s", rate, empty, rate / empty,
                        Goal("empty", 0.9))


def fill(world, window):
    """Gives each sensor `window` readings in the last 24 hours, both tables in time order: readings of a sensor lie as far
    apart on disk as the number of sensors makes them."""
    # A little less than a day, so that none falls out of the window during the run.
    times = ("FROM generate_series(0, %(window)s - 1) AS tick,"
             " LATERAL (SELECT now() - interval '23 hours 30 minutes'"
             "                 + tick * (interval '23 hours 20 minutes' / %(window)s))"
             " AS t (at), iot.sensors s ORDER BY at")
    value = "22 + 4 * sin(extract(epoch FROM at) / 13751) + random()"
    world.admin.execute(
        "INSERT INTO baseline.sensor_data (sensor_id, device_id, measurement_timestamp, measurement_value,"
        f" measurement_unit, data_quality, is_anomaly, anomaly_score, measurement_metadata) SELECT s.sensor_id, s.device_id,"
        f" at, {value}, 'degC', 'valid', false, 0.5, '{METADATA}'::jsonb {times}", {"window": window})
    world.admin.execute(
        "INSERT INTO iot.sensor_data (data_id, sensor_id, device_id, measurement_timestamp, measurement_value,"
        " measurement_unit, sensor_type, anomaly_score, measurement_metadata) SELECT gen_random_uuid(), s.sensor_id,"
        f" s.device_id, at, {value}, 'degC', 'temperature', 0.5, '{METADATA}'::jsonb {times}", {"window": window})


def warm_up(world):
    """What the engine has to learn about its sensors, and about rows that came past it, it learns now and not in the first
    timed calls."""
    world.admin.execute("SELECT count(iot.process_sensor_data(sensor_id, 22)) FROM iot.sensors")
    world.admin.execute("SELECT count(baseline.process_sensor_data(sensor_id, 22)) FROM iot.sensors")
    world.admin.execute("VACUUM ANALYZE")
    world.admin.execute("CHECKPOINT")


def against_baseline(report, world, window, how, bound, function="baseline.process_sensor_data"):
    seconds = 1 if report.options.quick else 3
    ours = Pgbench(world, PIPELINE.replace("{function}", "iot.process_sensor_data").replace("{type}", "float8"), seconds)
    theirs = Pgbench(world, PIPELINE.replace("{function}", function).replace("{type}", "numeric"), seconds,
                     before=lambda: world.admin.execute("VACUUM ANALYZE baseline.sensor_data"))
    bare = Pgbench(world, BARE, seconds)
    before = [world.value(f"SELECT count(*) FROM {schema}.sensor_data") for schema in ("iot", "baseline")]
    started = world.value("SELECT clock_timestamp()")
    title = f"process_sensor_data, window {window:,}, {how}"
    samples = compare(report, title, {"ours": ours, "PL/pgSQL": theirs, "INSERT": bare}, [Goal("PL/pgSQL", bound)], "calls/s")
    # What any call can reach: the client's way to the server and back, and the row.
    bare_rate, pipeline_rate = median_rate(samples["INSERT"]), median_rate(samples["PL/pgSQL"])
    report.line("    a bare INSERT of the finished row", bare_rate, pipeline_rate, bare_rate / pipeline_rate)
    world.check_stored(before[0] + ours.calls)
    world.check_stored(before[1] + theirs.calls, "baseline.sensor_data")
    if window:
        world.check_scored((started, "infinity"))
    world.check_no_alerts()
    if world.value("SELECT count(*) FROM baseline.alerts"):
        raise NotDone("the PL/pgSQL pipeline raised alerts although no rule should fire")
    without_a_client(report, world, title, bound, median_rate(samples["PL/pgSQL"]))
    return samples["ours"]


def without_a_client(report, world, title, bound, pipeline_rate):
    """The same calls made by one statement each: the work alone, held to the same goal. Sessions have called for these
    sensors before, as those of a pool have."""
    most = 500 if report.options.quick else 5_000
    # Some seconds of the slower side.
    calls = {"iot": most, "baseline": min(most, max(20, int(2 * pipeline_rate)))}
    connections = {schema: world.connect() for schema in calls}

    def side(schema, kind):
        connection = connections[schema]
        connection.execute("SET synchronous_commit = off")
        statement = (f"SELECT count({schema}.process_sensor_data(md5('sensor ' || n % {world.count})::uuid,"
                     f" (18000 + n % 6000)::{kind} / 1000, '{METADATA}')) FROM generate_series(1, {calls[schema]}) n")
        return lambda _round: timed(connection, calls[schema], lambda: connection.execute(statement))

    try:
        compare(report, f"    {title.rpartition(', ')[0].split(', ')[1]}, {title.rpartition(', ')[2]}, without a client",
                {"ours": side("iot", "float8"), "PL/pgSQL": side("baseline", "numeric")}, [Goal("PL/pgSQL", bound)], "calls/s")
    finally:
        for connection in connections.values():
            connection.close()


def with_last_seen(report, world, window):
    """No goal: what the hand-written pipeline loses when it also writes devices.last_seen_at."""
    sides = {
        name: Pgbench(world, PIPELINE.replace("{function}", f"baseline.{name}").replace("{type}", "numeric"),
                      1 if report.options.quick else 3)
        for name in ("process_sensor_data_seen", "process_sensor_data")
    }
    take_turns(sides, 1)
    seen, plain = map(median_rate, take_turns(sides, report.options.rounds, first=1).values())
    report.line(f"PL/pgSQL with last_seen_at against without, window {window:,}", seen, plain, seen / plain)


def rules(cluster, report):
    """What 1,000 active rules on other sensors cost, and 20 on the same sensor instead of 2, by call and by batch."""
    seconds = 1 if report.options.quick else 3
    sensors = 500
    script = PIPELINE.replace("{function}", "iot.process_sensor_data").replace("{type}", "float8")
    with (world_of(cluster, sensors) as usual, world_of(cluster, 2 * sensors) as others,
          world_of(cluster, sensors, rules=RULES * 10) as many):
        usual.require_function("process_sensor_data", "uuid", "double precision")
        # The second half of these sensors carries 1,000 rules and sends nothing.
        others.count = sensors
        worlds = {
            "1,000 rules elsewhere": (others, Goal("2 rules", 0.98)),
            "20 rules on the sensor": (many, Goal("2 rules", 0.75)),
        }
        started = {world: world.warm_up() for world in (usual, others, many)}

        def both(road, unit, make):
            for title, (world, goal) in worlds.items():
                compare(report, f"{road}, {title}", {title: make(world), "2 rules": make(usual)}, [goal], unit)
                for each in (world, usual):
                    each.check_scored((started[each], "infinity"))

        both("process_sensor_data", "calls/s", lambda world: Pgbench(world, script, seconds))
        usual.require_function("ingest", "uuid[]", "timestamp with time zone[]", "double precision[]")
        streams = {world: Stream(sensors, clock() - 12 * 3600 * SECOND) for world in started}
        both("ingest(arrays)", "rows/s", lambda world: batches_of(world, streams[world]))


def batches_of(world, stream, calls=10, ticks=20):
    """One side: batches of 10,000 readings."""
    connection = world.connect()
    call = ingest_arrays(connection)

    def side(_round):
        parts = [stream.next(ticks) for _ in range(calls)]
        messages = [(len(part), part.arrays(world.sensors)) for part in parts]

        def send():
            for length, arrays in messages:
                check_counts(call(*arrays), length)

        world.admin.execute("CHECKPOINT")
        return timed(connection, sum(map(len, parts)), send)

    return side
