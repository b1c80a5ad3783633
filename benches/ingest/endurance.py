"""What must not grow or come back: the memory of a large batch, and the time of the first batch after a restart."""

from statistics import median

from .measure import Goal, NotDone, NotThereYet, memory, timed, watch_memory
from .readings import SECOND, Stream, clock
from .world import Prepared, check_counts, ingest_arrays, world_of

MEBIBYTE = 1 << 20
FLAT = 1.2
ARRAYS = ("ingest", "uuid[]", "timestamp with time zone[]", "double precision[]")


def large_batches(cluster, report):
    """Peak of the backend's private memory with 1,000,000 readings in one batch against 10,000."""
    small, large = (2_000, 20_000) if report.options.quick else (10_000, 1_000_000)
    sensors = 1_000
    with world_of(cluster, sensors) as world:
        stream = Stream(sensors, clock() - 12 * 3600 * SECOND, interval=SECOND)
        for name, road in (("ingest(arrays)", send_arrays), ("COPY iot.readings", send_copy)):
            title = f"{name}, {large:,} readings against {small:,}, memory"
            try:
                peaks = {size: road(world, stream.next(size // sensors)) for size in (small, large)}
            except NotThereYet as missing:
                report.missing(title, missing)
                continue
            # What a backend takes for its first batch of any size is in both.
            (few, few_hwm), (many, many_hwm) = peaks[small], peaks[large]
            report.line(f"{title} (MiB)", many / MEBIBYTE, few / MEBIBYTE, many / few, Goal("small", FLAT, at_least=False),
                        f"VmHWM {many_hwm / MEBIBYTE:.0f} and {few_hwm / MEBIBYTE:.0f} MiB")


def send_arrays(world, batch):
    """Peak RssAnon without what merely receiving the arguments takes, and VmHWM."""
    world.require_function(*ARRAYS)
    arrays = batch.arrays(world.sensors)
    with world.connect() as connection:
        # The same call, planned and not made: core keeps the message, the arrays and their copies in the plan until it is
        # over, and it stays a while to be seen.
        receive = Prepared(connection, "SELECT count(*) FROM (SELECT pg_sleep(0.5) IS NULL AS is_over OFFSET 0) AS s"
                                       " CROSS JOIN LATERAL (SELECT accepted FROM iot.ingest($1::uuid[], $2::timestamptz[],"
                                       " $3::double precision[]) WHERE s.is_over) AS never")
        with watch_memory(connection.info.backend_pid) as received:
            receive(*arrays)
    with world.connect() as connection:
        call = ingest_arrays(connection)
        pid = connection.info.backend_pid
        started = memory(pid, "RssAnon")
        with watch_memory(pid) as peak:
            check_counts(call(*arrays), len(batch))
        highest = memory(pid, "VmHWM")
    return max(peak[0] - (received[0] - started), started), highest


def send_copy(world, batch):
    """Peak RssAnon and VmHWM of a COPY from a file on the server."""
    world.require_readings()
    path = world.scratch_file("large")
    with open(path, "w", encoding="ascii") as file:
        file.write(batch.csv(world.sensors))
    world.cluster.give_to_server(path)
    with world.connect() as connection:
        pid = connection.info.backend_pid
        with watch_memory(pid) as peak:
            found = connection.execute("COPY iot.readings (sensor_id, measurement_timestamp, measurement_value)"
                                       f" FROM '{path}' (FORMAT csv)").rowcount
        highest = memory(pid, "VmHWM")
    path.unlink()
    if found != len(batch):
        raise NotDone(f"COPY iot.readings took {found} rows instead of {len(batch)}")
    return peak[0], highest


def restart(cluster, report):
    """The first batch after a restart against a steady one: 10 readings for each of 10,000 sensors that hold a day at one a
    minute, the state saved at most a minute before."""
    sensors, minutes = (200, 60) if report.options.quick else (10_000, 1_440)
    with world_of(cluster, sensors) as world:
        world.require_function(*ARRAYS)
        world.require_function("flush_state")
        # A day back from now; batches after it advance by a second a tick and stay before now.
        stream = Stream(sensors, clock() - (minutes + 20) * 60 * SECOND, interval=60 * SECOND)
        connection = world.connect()
        call = ingest_arrays(connection)
        stored = 0
        while stream.tick < minutes:
            stored += feed(call, stream.next(10), world, 10 * sensors)
        after = Stream(sensors, clock() - 15 * 60 * SECOND, interval=SECOND)

        def batch(connection, call):
            nonlocal stored
            ten = after.next(10)
            arrays = ten.arrays(world.sensors)
            sample = timed(connection, len(ten), lambda: check_counts(call(*arrays), len(ten)))
            stored += len(ten)
            return sample, ten

        for how in ("fast", "immediate"):
            first, steady = [], []
            for _ in range(report.options.rounds):
                batch(connection, call)
                steady.append(batch(connection, call)[0].seconds)
                # Else the recovery of a crash would have a day of readings to redo.
                world.admin.execute("CHECKPOINT")
                connection.execute("SELECT iot.flush_state()")
                # What came in since the state was saved must be found again, so a crash must not lose it.
                connection.execute("SET synchronous_commit = on")
                stored += feed(call, after.next(1), world, sensors)
                connection.close()
                world.admin.close()
                cluster.restart(how)
                world.admin = world.connect()
                connection = world.connect()
                call = ingest_arrays(connection)
                sample, readings = batch(connection, call)
                first.append(sample.seconds)
                world.check_scored(readings.span)
            report.line(f"first batch after a restart ({how}) against a steady one, s", median(first), median(steady),
                        median(first) / median(steady), Goal("steady", 3, at_least=False), f"n={len(first)}")
        world.check_stored(stored)
        connection.close()


def feed(call, readings, world, size):
    """Sends readings without timing them; returns how many."""
    for part in readings.parts(size):
        check_counts(call(*part.arrays(world.sensors)), len(part))
    return len(readings)
