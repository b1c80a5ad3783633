"""Bulk roads against COPY of the finished rows, and what late readings, repeated ones and the WAL cost."""

from statistics import median

from .measure import Goal, NotDone, compare, take_turns, timed
from .readings import SECOND, Batch, Stream, clock
from .world import check_counts, ingest_arrays, ingest_document, world_of

SENSORS = 1_000
COPY = "COPY"


class Lagged:
    """The engine takes a batch, the bare side the finished rows of the batch before: what it has to store exists only after
    the engine has made it. Both sides so store the same rows in the end, which is checked to the last column.

    A subclass says what a client sends (`encode`) and how (`send`).
    """

    title = ""
    bound = 0.0

    def __init__(self, cluster, report):
        self.cluster = cluster
        self.report = report
        self.ticks = 10 if report.options.quick else 100  # of each sensor in a round

    def run(self):
        with world_of(self.cluster, SENSORS) as world:
            self.require(world)
            self.prepare(world)
            self.measure(world)
            self.finish(world)

    def prepare(self, world):
        world.make_equal_table()
        self.world = world
        self.ours, self.bare = world.connect(), world.connect()
        self.columns = world.columns()
        self.stream = Stream(SENSORS, clock() - 12 * 3600 * SECOND)
        self.file = world.scratch_file("finished")
        self.stored = 0
        # The first batch makes the windows that the later ones are scored against.
        self.open(world)
        self.next_batch()
        self.feed()
        self.next_batch()

    def measure(self, _world):
        compare(self.report, self.title, {"ours": self.time_ours, COPY: self.time_bare}, [Goal(COPY, self.bound)])

    def finish(self, world):
        """Brings the bare side to the same rows, and compares both tables."""
        self.copy_file()
        for connection in (self.ours, self.bare):
            connection.close()
        world.check_stored(self.stored)
        world.check_stored(self.stored, "finished.sensor_data")
        world.check_scored(self.fed.span)
        different = world.value(
            f"SELECT count(*) FROM (SELECT {self.columns} FROM iot.sensor_data EXCEPT"
            f" SELECT {self.columns} FROM finished.sensor_data) AS missing")
        if different:
            raise NotDone(f"{different} rows differ from those that COPY stored")

    # The two sides. One round is one of each, in either order; after both, the next batch is made ready.

    def time_ours(self, _round):
        sample = timed(self.ours, len(self.batch), self.send_message)
        self.after(ours=True)
        return sample

    def time_bare(self, _round):
        sample = timed(self.bare, len(self.fed), self.copy_file)
        self.after(ours=False)
        return sample

    def after(self, ours):
        self.ours_done, self.bare_done = self.ours_done or ours, self.bare_done or not ours
        if self.ours_done and self.bare_done:
            self.took()
            self.next_batch()

    def feed(self):
        """A batch that only the engine takes, not timed."""
        self.send_message()
        self.took()

    def took(self):
        self.stored += len(self.batch)
        self.fed = self.batch
        if self.world.export(self.fed.span, self.file) != len(self.fed):
            raise NotDone("the engine did not store every reading of the batch")

    def next_batch(self):
        self.ours_done = self.bare_done = False
        self.batch = self.stream.next(self.ticks)
        self.message = self.encode(self.batch)
        self.world.admin.execute("CHECKPOINT")

    def copy_file(self):
        found = self.bare.execute(
            f"COPY finished.sensor_data ({self.columns}) FROM '{self.file}' (FORMAT csv)").rowcount
        if found != len(self.fed):
            raise NotDone(f"COPY stored {found} rows instead of {len(self.fed)}")


class Arrays(Lagged):
    """10,000 readings a call, sent as binary parameters; COPY takes its rows of a round in one statement."""

    title = "ingest(arrays), 10,000 a call"
    bound = 1.4
    size = 10_000

    def require(self, world):
        world.require_function("ingest", "uuid[]", "timestamp with time zone[]", "double precision[]")

    def open(self, _world):
        self.call = ingest_arrays(self.ours)

    def encode(self, batch):
        return [(len(part), part.arrays(self.world.sensors)) for part in batch.parts(self.size)]

    def send_message(self):
        for length, arrays in self.message:
            check_counts(self.call(*arrays), length)


class Documents(Lagged):
    """Arrays of 1,000 readings as jsonb."""

    title = "ingest(jsonb), 1,000 a call"
    bound = 0.5
    size = 1_000

    def require(self, world):
        world.require_function("ingest", "jsonb")

    def open(self, _world):
        self.call = ingest_document(self.ours)

    def encode(self, batch):
        return [(len(part), part.document(self.world.sensors)) for part in batch.parts(self.size)]

    def send_message(self):
        for length, document in self.message:
            check_counts(self.call(document), length)


class Readings(Lagged):
    """COPY of sensor, time and value from a file on the server."""

    title = "COPY iot.readings, server-side file"
    bound = 1.1

    def require(self, world):
        world.require_readings()

    def open(self, _world):
        pass

    def encode(self, batch):
        path = self.world.scratch_file("raw")
        with open(path, "w", encoding="ascii") as file:
            file.write(batch.csv(self.world.sensors))
        self.cluster.give_to_server(path)
        return path

    def send_message(self):
        found = self.ours.execute(
            "COPY iot.readings (sensor_id, measurement_timestamp, measurement_value)"
            f" FROM '{self.message}' (FORMAT csv)").rowcount
        if found != len(self.batch):
            raise NotDone(f"COPY iot.readings took {found} rows instead of {len(self.batch)}")


class ReadingsFromClient(Readings):
    """The same, sent by the client."""

    title = "COPY iot.readings, client STDIN"

    def encode(self, batch):
        return batch.csv(self.world.sensors).encode()

    def send_message(self):
        with self.ours.cursor() as cursor:
            with cursor.copy("COPY iot.readings (sensor_id, measurement_timestamp, measurement_value)"
                             " FROM STDIN (FORMAT csv)") as copy:
                copy.write(self.message)
            if cursor.rowcount != len(self.batch):
                raise NotDone(f"COPY iot.readings took {cursor.rowcount} rows instead of {len(self.batch)}")


class WriteAheadLog(Arrays):
    """Bytes of WAL per reading, without the full pages that the first change after a checkpoint writes."""

    title = "ingest(arrays), WAL"
    bound = 1.02

    def __init__(self, cluster, report):
        super().__init__(cluster, report)
        self.written = {"ours": [], COPY: []}

    def run(self):
        with self.cluster.connect() as connection:
            connection.execute("ALTER SYSTEM SET full_page_writes = off")
            connection.execute("SELECT pg_reload_conf()")
        try:
            super().run()
        finally:
            with self.cluster.connect() as connection:
                connection.execute("ALTER SYSTEM RESET full_page_writes")
                connection.execute("SELECT pg_reload_conf()")

    def measure(self, _world):
        rounds = self.report.options.rounds
        self.written = {"ours": [], COPY: []}  # without what filled the windows before
        take_turns({"ours": self.time_ours, COPY: self.time_bare}, rounds + 1)
        # The first round is left out, as everywhere.
        ours, bare = (median(written[1:]) for written in self.written.values())
        self.report.line(f"{self.title}, bytes a reading against {COPY}", ours, bare, ours / bare,
                         Goal(COPY, self.bound, at_least=False), f"n={rounds}")

    def send_message(self):
        self.note("ours", len(self.batch), super().send_message)

    def copy_file(self):
        self.note(COPY, len(self.fed), super().copy_file)

    def note(self, side, readings, work):
        before = self.position()
        work()
        self.written[side].append((self.position() - before) / readings)

    def position(self):
        return int(self.world.value("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


class Late:
    """A tenth of each batch older than its sensor's newest reading, or sent before, against a batch that is all new."""

    size = 10_000
    bound = 0.6

    def __init__(self, cluster, report):
        self.cluster = cluster
        self.report = report
        self.calls = 2 if report.options.quick else 10

    def run(self):
        with world_of(self.cluster, SENSORS) as world:
            world.require_function("ingest", "uuid[]", "timestamp with time zone[]", "double precision[]")
            connection = world.connect()
            call = ingest_arrays(connection)
            stream = Stream(SENSORS, clock() - 12 * 3600 * SECOND)
            # Something to be late behind, and repeated from.
            past = stream.next(100)
            for part in past.parts(self.size):
                check_counts(call(*part.arrays(world.sensors)), len(part))
            self.stored, self.before = len(past), past.rows[-self.size :]
            for title, change in (("a tenth late", self.make_late), ("a tenth repeated", self.repeat)):
                sides = {
                    name: lambda _round, change=change: self.time(world, connection, call, stream, change)
                    for name, change in ((title, change), ("all new", self.leave))
                }
                compare(self.report, f"ingest(arrays), {title}", sides, [Goal("all new", self.bound)])
            world.check_stored(self.stored)
            world.check_no_alerts()
            connection.close()

    def time(self, world, connection, call, stream, change):
        messages = []
        for _ in range(self.calls):
            fresh = stream.next(self.size // SENSORS).rows
            rows, duplicates = change(fresh)
            self.before = fresh
            messages.append((len(rows) - duplicates, duplicates, Batch(rows).arrays(world.sensors)))
            self.stored += len(rows) - duplicates

        def send():
            for accepted, duplicates, arrays in messages:
                check_counts(call(*arrays), accepted, duplicates)

        world.admin.execute("CHECKPOINT")
        return timed(connection, self.calls * self.size, send)

    # Only readings whose place ends in 3 are replaced, and what replaces them comes from places that end in 4.

    @staticmethod
    def leave(rows):
        return rows, 0

    @staticmethod
    def make_late(rows):
        """Every tenth reading is from before the stream began, at a time that no other has."""
        back = 6 * 3600 * SECOND + 3 * SECOND
        return [(row[0], row[1] - back, row[2]) if place % 10 == 3 else row for place, row in enumerate(rows)], 0

    def repeat(self, rows):
        """Every tenth reading is one of the batch before."""
        changed = [self.before[place + 1] if place % 10 == 3 else row for place, row in enumerate(rows)]
        return changed, len(rows) // 10
