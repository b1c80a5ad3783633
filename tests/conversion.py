"""A table of readings as requirements describe it, and sessions that change and read it while it is being converted."""

import random
import threading
import time

import psycopg

from cluster import wait_until

SCHEMA = """
CREATE TABLE devices (id varchar(50) PRIMARY KEY, name text NOT NULL);
INSERT INTO devices SELECT 'd' || n, 'device ' || n FROM generate_series(1, 20) n;
CREATE TABLE sensor_readings (
    id serial PRIMARY KEY,
    device_id varchar(50) NOT NULL REFERENCES devices(id) ON DELETE CASCADE,
    "timestamp" timestamp with time zone NOT NULL,
    sensor_type varchar(100) NOT NULL,
    value numeric(10,3) NOT NULL,
    unit varchar(20) NOT NULL,
    location varchar(255),
    status varchar(50) DEFAULT 'normal',
    metadata jsonb,
    created_at timestamp with time zone DEFAULT now()
);
CREATE INDEX idx_sensor_readings_device_timestamp ON sensor_readings(device_id, timestamp DESC);
CREATE INDEX idx_sensor_readings_sensor_type_timestamp ON sensor_readings(sensor_type, timestamp DESC);
CREATE INDEX idx_sensor_readings_timestamp ON sensor_readings(timestamp DESC);
CREATE INDEX idx_sensor_readings_status ON sensor_readings(status);
CREATE TABLE ledger (rows_added bigint NOT NULL, value_added numeric NOT NULL);
"""

FILL = """
WITH added AS (
    INSERT INTO sensor_readings (device_id, timestamp, sensor_type, value, unit, metadata)
    SELECT 'd' || 1 + n %% 10, timestamptz '2026-01-01 00:00+00' + n * interval '10 minutes', 'temperature', n %% 100, 'C',
           jsonb_build_object('n', n)
      FROM generate_series(1, %(rows)s) n RETURNING value)
INSERT INTO ledger SELECT count(*), sum(value) FROM added
"""

CONVERT = "CALL iot.convert_to_partitioned('sensor_readings', 'timestamp', batch_rows => %s, lock_retries => %s)"


def fill(database, rows=20_000):
    database.psql(SCHEMA)
    database.execute(FILL, {"rows": rows})
    database.execute("ANALYZE sensor_readings")


def phase(database, relation="sensor_readings"):
    """What the conversion does now; None before it has begun."""
    found = database.rows("SELECT phase FROM iot.conversion WHERE relation = %s::regclass", (relation,))
    return found[0][0] if found else None


def is_partitioned(database, relation="sensor_readings"):
    return database.value("SELECT relkind = 'p' FROM pg_class WHERE oid = %s::regclass", (relation,))


class Worker(threading.Thread):
    """A session that does something again and again until it is told to stop, through crashes of the server if it may."""

    def __init__(self, database, survives=False):
        super().__init__(daemon=True)
        self.database, self.survives = database, survives
        self.connection = None
        self.stopping = threading.Event()
        self.failures, self.rounds = [], 0

    def run(self):
        while not self.stopping.is_set():
            try:
                if self.connection is None or self.connection.closed:
                    self.connection = self.database.connect()
                    self.connected()
                self.round()
                self.rounds += 1
            except (psycopg.OperationalError, psycopg.Rollback) as error:
                # Lock timeouts, deadlocks and the like have a SQLSTATE and are failures; a lost connection has none.
                lost = isinstance(error, psycopg.Rollback) or error.sqlstate is None or error.sqlstate in ("57P01", "57P02", "57P03", "08006")
                if not (lost and self.survives):
                    self.failures.append(repr(error))
                    return
                self.interrupted()
                self.connection = None
                time.sleep(0.05)
            except Exception as error:  # a test must hear of whatever it is
                self.failures.append(repr(error))
                return

    def connected(self):
        pass

    def interrupted(self):
        pass

    def stop(self):
        self.stopping.set()
        self.join(60)
        assert not self.is_alive()
        if self.connection is not None and not self.connection.closed:
            self.connection.close()
        return self.failures


class Writer(Worker):
    """Inserts, changes, moves in time and deletes rows of its own, and remembers what is committed."""

    def __init__(self, database, number, survives=False, moves=True):
        super().__init__(database, survives)
        self.random = random.Random(number)
        self.name = f"writer {number}"
        self.moves = moves
        self.record = {}  # id: (time, value)
        self.in_flight = None
        self.replicates = number == 2

    def connected(self):
        if self.replicates:
            # As a subscription applies changes: ordinary triggers do not fire.
            self.connection.execute("SET session_replication_role = replica")
        if self.in_flight is None:
            return
        # The commit that the crash interrupted may have happened or not.
        before, after = self.in_flight
        stored = self.stored()
        assert stored in (before, after), (self.name, set(stored.items()) ^ set(before.items()))
        self.record, self.in_flight = stored, None

    def stored(self, connection=None):
        rows = (connection or self.connection).execute(
            "SELECT id, timestamp, value FROM sensor_readings WHERE location = %s", (self.name,)).fetchall()
        assert len(rows) == len({row[0] for row in rows}), "a row is there twice"
        return {row[0]: row[1:] for row in rows}

    def round(self):
        after = dict(self.record)
        rows_before, value_before = len(after), sum(value for _, value in after.values())
        self.in_flight = (self.record, after)
        rolls_back = self.random.random() < 0.1
        try:
            with self.connection.transaction():
                for _ in range(self.random.choice((1, 1, 2, 5))):
                    self.change(after)
                self.connection.execute("INSERT INTO ledger VALUES (%s, %s)", (
                    len(after) - rows_before, sum(value for _, value in after.values()) - value_before))
                if rolls_back:
                    raise psycopg.Rollback
        finally:
            if rolls_back:
                self.in_flight = None
        if not rolls_back:
            self.record = after
        self.in_flight = None

    def time(self):
        """Mostly where rows are, sometimes months before or after them."""
        return f"2026-{self.random.randint(1, 5):02}-{self.random.randint(1, 28):02} 12:00+00" if (
            self.random.random() < 0.9) else f"{self.random.choice((2024, 2025, 2027))}-07-01 00:00+00"

    def change(self, record):
        what = self.random.random()
        if what < 0.4 or not record:
            row = self.connection.execute(
                "INSERT INTO sensor_readings (device_id, timestamp, sensor_type, value, unit, location)"
                " VALUES (%s, %s, 'pressure', %s, 'kPa', %s) RETURNING id, timestamp, value",
                (f"d{self.random.randint(1, 10)}", self.time(), self.random.randint(0, 999), self.name)).fetchone()
            record[row[0]] = row[1:]
            return
        key = self.random.choice(sorted(record))
        if what < 0.6:
            row = self.connection.execute(
                "UPDATE sensor_readings SET value = value + 1 WHERE id = %s RETURNING timestamp, value", (key,)).fetchone()
        elif what < 0.8 and self.moves:
            row = self.connection.execute(
                "UPDATE sensor_readings SET timestamp = %s WHERE id = %s RETURNING timestamp, value",
                (self.time(), key)).fetchone()
        else:
            row = self.connection.execute(
                "DELETE FROM sensor_readings WHERE id = %s RETURNING timestamp, value", (key,)).fetchone()
            assert row == record.pop(key), "a row was not as it was left"
            return
        record[key] = row


class Reader(Worker):
    """Looks at all rows and at the ledger with one snapshot: they must agree."""

    SUMS = "SELECT count(*), coalesce(sum(value), 0) FROM sensor_readings"

    def round(self):
        seen = self.connection.execute(
            "SELECT * FROM (SELECT sum(rows_added), sum(value_added) FROM ledger) l,"
            f" ({self.SUMS}) r").fetchone()
        assert seen[:2] == seen[2:], f"a statement saw {seen}"
        self.connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        ledger = self.connection.execute("SELECT sum(rows_added), sum(value_added) FROM ledger").fetchone()
        self.connection.execute("SELECT pg_sleep(0.02)")
        readings = self.connection.execute(self.SUMS).fetchone()
        self.connection.execute("COMMIT")
        assert ledger == readings, f"a transaction saw {readings} rows, and should have seen {ledger}"


class LockWatch(Worker):
    """Which locks the converting session holds on the table, by phase."""

    def __init__(self, database, pid):
        super().__init__(database)
        self.pid = pid
        self.seen = set()

    def round(self):
        self.seen.update(self.connection.execute(
            "SELECT c.phase, l.mode FROM iot.conversion c JOIN pg_locks l"
            "    ON l.relation = coalesce(c.original, c.relation) AND l.locktype = 'relation'"
            " WHERE l.pid = %s AND l.granted", (self.pid,)).fetchall())


class Call(threading.Thread):
    """A statement in a session of its own, while the test goes on."""

    def __init__(self, database, statement, parameters=None, user="postgres"):
        super().__init__(daemon=True)
        self.connection = database.connect(user)
        self.pid = self.connection.info.backend_pid
        self.statement, self.parameters = statement, parameters
        self.notices, self.failure = [], None
        # What a notice says is gone with its connection.
        self.connection.add_notice_handler(lambda notice: self.notices.append(
            (notice.severity, notice.message_primary, notice.message_detail, notice.message_hint)))
        self.start()

    def run(self):
        try:
            self.connection.execute(self.statement, self.parameters)
        except psycopg.Error as error:
            self.failure = error
        finally:
            self.connection.close()

    def wait(self, timeout=120):
        """Waits for its end and raises what it raised."""
        self.join(timeout)
        assert not self.is_alive(), f"{self.statement} does not come to its end"
        if self.failure is not None:
            raise self.failure


def kill(cluster, database, call):
    """Kills the session of a call, and waits until the server is back."""
    witness = database.connect()
    cluster.kill9(call.pid)

    def is_gone():
        try:
            witness.execute("SELECT 1")
            return False
        except psycopg.OperationalError:
            return True

    wait_until(is_gone, what="the crash of all sessions")
    database.connection.close()
    cluster.wait_ready()
    call.join(10)
    assert isinstance(call.failure, psycopg.OperationalError)


def check_against_records(database, writers):
    """What is in the table is what the writers committed, and what was there before."""
    for writer in writers:
        assert writer.stored(database.connection) == writer.record, writer.name
    others = database.row(
        "SELECT count(*), count(DISTINCT id), sum((metadata->>'n')::int) FROM sensor_readings WHERE location IS NULL")
    rows = database.value("SELECT rows_added FROM ledger ORDER BY rows_added DESC LIMIT 1")
    assert others == (rows, rows, rows * (rows + 1) // 2)
    assert database.row("SELECT sum(rows_added), sum(value_added) FROM ledger") == database.row(Reader.SUMS)


def wait_for_phase(database, phases, call=None, timeout=60):
    """Waits until the conversion is in one of the phases; returns it."""

    def look():
        if call is not None and not call.is_alive():
            raise AssertionError(f"the call ended before {phases}: {call.failure}")
        found = phase(database)
        return found if found in phases else None

    return wait_until(look, timeout, 0.002, f"phase {phases}")
