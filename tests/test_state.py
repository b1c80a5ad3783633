"""What the engine holds in memory: written down by a worker, found again after whatever happened."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from cluster import Cluster, Database, wait_until
from factory import add_sensor, process
from latest import check_latest

LAUNCHER = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'iot_ext launcher'"
HOUR = "timestamptz '2026-01-10 00:00+00'"


def new_database(cluster):
    fresh = Database(cluster)
    fresh.execute("CREATE EXTENSION iot_ext")
    fresh.execute("SELECT iot.setup()")
    return fresh


@pytest.fixture(scope="module")
def writing_cluster():
    """A server whose worker writes states down every second."""
    with Cluster(settings={"iot_ext.flush_interval": "1s"}) as running:
        yield running


@pytest.fixture(scope="module")
def silent_cluster():
    """A server of its own whose worker writes nothing: states are written down where a test says so."""
    with Cluster(settings={"iot_ext.flush_interval": "0"}) as running:
        yield running


@pytest.fixture
def written(writing_cluster):
    fresh = new_database(writing_cluster)
    yield fresh
    fresh.drop()


@pytest.fixture
def unwritten(silent_cluster):
    fresh = new_database(silent_cluster)
    yield fresh
    fresh.drop()


def flushed(database, sensor):
    """The newest time that is written down of a sensor."""
    rows = database.rows("SELECT latest_timestamp FROM iot.sensor_state WHERE sensor_id = %s", (sensor,))
    return rows[0][0] if rows else None


def wait_for_flush(database, sensor):
    newest = database.value("SELECT max(measurement_timestamp) FROM iot.sensor_data WHERE sensor_id = %s", (sensor,))
    return wait_until(lambda: flushed(database, sensor) == newest, what="flush")


def kill9(cluster, pid):
    """Kills a process of the server, and waits until the postmaster has noticed and recovered."""
    with cluster.connect() as witness:
        cluster.kill9(pid)
        wait_until(lambda: is_broken(witness), what="the end of all sessions")
    cluster.wait_ready()


def is_broken(connection):
    try:
        connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


def complaints(cluster):
    # A database that is dropped while its worker starts is a FATAL of PostgreSQL's own.
    return [line for line in cluster.log.read_text(errors="replace").splitlines()
            if any(word in line for word in ("ERROR", "FATAL", "PANIC", "could not write the state"))
            and not re.search(r"FATAL:  database \S+ does not exist", line)]


def fill(database, sensor, first=0, count=40):
    """Readings a quarter of an hour apart that are not all the same."""
    database.execute(
        f"""SELECT count(iot.process_sensor_data(%s::uuid, 20 + (n * 7 %% 11)::float8,
                   measurement_timestamp => {HOUR} + n * interval '15 minutes'))
              FROM generate_series(%s::integer, %s::integer) n""", (sensor, first, first + count - 1))


def next_score(database, sensor, at=80):
    """What a reading would be scored now; it is not stored."""
    with database.connect(autocommit=False) as connection:
        (score,) = connection.execute(
            f"SELECT anomaly_score FROM iot.process_sensor_data_ex(%s::uuid, 31,"
            f" measurement_timestamp => {HOUR} + %s * interval '15 minutes')", (sensor, at)).fetchone()
        connection.rollback()
    return score


# The worker

def test_the_worker_writes_states_and_last_seen_down(written):
    device, sensor = add_sensor(written)
    process(written.connection, sensor, 20)
    wait_for_flush(written, sensor)
    state = written.row("SELECT is_checkpoint, latest_value, last_received_at IS NOT NULL FROM iot.sensor_state")
    assert state == (True, 20, True)
    assert written.value("SELECT last_seen_at > now() - interval '1 minute' FROM iot.devices") is True
    process(written.connection, sensor, 21)
    wait_for_flush(written, sensor)
    assert written.value("SELECT latest_value FROM iot.sensor_state") == 21
    assert written.value("SELECT iot.flush_state()") == 0, "nothing is left to write"


def test_the_launcher_names_itself_and_belongs_to_no_database(written):
    assert written.row("SELECT application_name, datname FROM pg_stat_activity"
                       " WHERE backend_type = 'iot_ext launcher'") == ("iot_ext launcher", None)


def test_it_serves_each_database(written, writing_cluster):
    other = new_database(writing_cluster)
    try:
        sensors = [(database, add_sensor(database)[1]) for database in (written, other)]
        for database, sensor in sensors:
            process(database.connection, sensor, 20)
        for database, sensor in sensors:
            wait_for_flush(database, sensor)
    finally:
        other.drop()


def test_the_launcher_comes_back(written, writing_cluster):
    _, sensor = add_sensor(written)
    first = written.value(LAUNCHER)
    written.execute("SELECT pg_terminate_backend(%s)", (first,))
    second = wait_until(lambda: [row for row in written.rows(LAUNCHER) if row[0] != first], what="launcher")
    kill9(writing_cluster, second[0][0])
    with written.connect() as connection:
        wait_until(lambda: connection.execute(LAUNCHER).fetchall(), what="launcher after a crash")
        process(connection, sensor, 20)
    written._connection = None
    wait_for_flush(written, sensor)


def test_a_database_that_fails_is_told_once_and_stops_no_other(written, writing_cluster):
    other = new_database(writing_cluster)
    try:
        _, failing = add_sensor(written)
        _, sensor = add_sensor(other)
        written.execute("ALTER TABLE iot.sensor_state ADD CONSTRAINT never CHECK (device_id IS NULL)")
        before = len(complaints(writing_cluster))
        process(written.connection, failing, 20)
        for value in range(4):
            process(other.connection, sensor, value)
            wait_for_flush(other, sensor)
        assert len(complaints(writing_cluster)) <= before + 1
        wait_until(lambda: len(complaints(writing_cluster)) == before + 1, what="one complaint")
        assert written.name in complaints(writing_cluster)[-1]
        written.execute("ALTER TABLE iot.sensor_state DROP CONSTRAINT never")
        wait_for_flush(written, failing)
        assert len(complaints(writing_cluster)) == before + 1
    finally:
        other.drop()


def test_a_database_can_be_dropped_right_after_ingest(writing_cluster, written):
    before = complaints(writing_cluster)
    for _ in range(3):
        doomed = new_database(writing_cluster)
        _, sensor = add_sensor(doomed)
        process(doomed.connection, sensor, 20)
        doomed.connection.close()
        started = time.monotonic()
        written.execute(f"DROP DATABASE {doomed.name}")
        assert time.monotonic() - started < 4
    held = "SELECT tracked FROM iot.iot_stat_tracked_sensors"
    written.execute("SELECT count(*) FROM iot.sensors")
    wait_until(lambda: written.value(held) == 0, what="entries of dropped databases given up")
    assert complaints(writing_cluster) == before


def test_what_is_no_longer_ours_is_given_up_quietly(writing_cluster, written):
    _, sensor = add_sensor(written)
    before = complaints(writing_cluster)
    written.execute("SET client_min_messages = warning")
    with written.connection.transaction():
        process(written.connection, sensor, 20)
        written.execute("DROP EXTENSION iot_ext CASCADE")
    with writing_cluster.connect() as connection:
        connection.execute("SELECT 1")
    written.execute("CREATE EXTENSION iot_ext")
    wait_until(lambda: written.value("SELECT tracked FROM iot.iot_stat_tracked_sensors") <= 1, what="given up")
    assert complaints(writing_cluster) == before


def test_a_database_that_takes_no_connections_waits(writing_cluster, written):
    other = new_database(writing_cluster)
    try:
        before = complaints(writing_cluster)
        _, sensor = add_sensor(other)
        written.execute(f"ALTER DATABASE {other.name} ALLOW_CONNECTIONS false")
        process(other.connection, sensor, 20)
        _, own = add_sensor(written)
        for value in range(2):
            process(written.connection, own, value)
            wait_for_flush(written, own)
        assert flushed(other, sensor) is None
        written.execute(f"ALTER DATABASE {other.name} ALLOW_CONNECTIONS true")
        wait_for_flush(other, sensor)
        assert complaints(writing_cluster) == before
    finally:
        other.drop()


def test_no_launcher_on_a_standby():
    with Cluster(settings={"iot_ext.flush_interval": "1s"}) as cluster:
        cluster.stop()
        (cluster.data / "standby.signal").touch()
        cluster.give_to_server(cluster.data / "standby.signal")
        cluster.start()
        with cluster.connect() as connection:
            assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
            assert connection.execute(LAUNCHER).fetchall() == []
            connection.execute("SELECT pg_promote()")
            wait_until(lambda: connection.execute(LAUNCHER).fetchall(), what="launcher after promotion")


def test_without_preload_there_is_no_launcher_and_all_is_right(unloaded_cluster):
    database = new_database(unloaded_cluster)
    try:
        assert database.rows(LAUNCHER) == []
        device, sensor = add_sensor(database)
        fill(database, sensor)
        assert database.value("SELECT iot.flush_state()") == 0
        check_latest(database, sensor)
        process(database.connection, sensor, 25)
        assert database.row("SELECT connection, last_seen_at IS NOT NULL FROM iot.device_status") == ("online", True)
    finally:
        database.drop()


# What follows a restart

def test_a_flush_that_rolled_back_is_done_again(unwritten):
    _, sensor = add_sensor(unwritten)
    process(unwritten.connection, sensor, 20)
    with pytest.raises(psycopg.errors.DivisionByZero), unwritten.connection.transaction():
        assert unwritten.value("SELECT iot.flush_state()") == 1
        unwritten.execute("SELECT 1 / 0")
    assert flushed(unwritten, sensor) is None
    assert unwritten.value("SELECT iot.flush_state()") == 1
    assert unwritten.value("SELECT iot.flush_state()") == 0


AFTER_THE_CHECKPOINT = {
    "nothing": lambda database, sensor: None,
    "newer readings": lambda database, sensor: fill(database, sensor, 40, 10),
    "late readings": lambda database, sensor: process(database.connection, sensor, 60, "2026-01-10 05:05+00"),
    "newer and late readings": lambda database, sensor: (
        fill(database, sensor, 40, 10), process(database.connection, sensor, 60, "2026-01-10 05:05+00")),
    "deleted readings": lambda database, sensor: database.execute(
        f"DELETE FROM iot.sensor_data WHERE measurement_timestamp < {HOUR} + interval '6 hours'"
        f" OR measurement_timestamp > {HOUR} + interval '9 hours'"),
    "truncated": lambda database, sensor: (database.execute("TRUNCATE iot.sensor_data"), fill(database, sensor, 10, 5)),
    "changed readings": lambda database, sensor: database.execute(
        "UPDATE iot.sensor_data SET measurement_value = measurement_value * 2"),
    "readings by plain SQL": lambda database, sensor: database.execute(
        f"""INSERT INTO iot.sensor_data (sensor_id, device_id, measurement_timestamp, measurement_value)
            SELECT sensor_id, device_id, {HOUR} + n * interval '7 minutes' + interval '1 second', n
              FROM iot.sensors, generate_series(60, 90) n"""),
}


@pytest.mark.parametrize("how, detector", [
    ("fast", "zscore"), ("immediate", "zscore"), ("kill -9", "zscore"),
    ("fast", "robust"), ("immediate", "ewma"), ("kill -9", "adaptive")])
def test_the_first_score_after_a_restart_is_what_it_would_have_been(silent_cluster, how, detector):
    databases = {}
    try:
        for name, change in AFTER_THE_CHECKPOINT.items():
            database = databases[name] = new_database(silent_cluster)
            _, sensor = add_sensor(database)
            database.execute("UPDATE iot.sensors SET detector = %s", (detector,))
            fill(database, sensor)
            assert database.value("SELECT iot.flush_state()") == 1
            change(database, sensor)
            database.sensor, database.expected = sensor, next_score(database, sensor)
            database.latest = database.rows("SELECT * FROM iot.latest_readings")
            assert len(database.latest) == 1
        if how == "kill -9":
            kill9(silent_cluster, databases["nothing"].value("SELECT pg_backend_pid()"))
        else:
            silent_cluster.restart(how)
        for name, database in databases.items():
            database._connection = None
            assert database.rows("SELECT * FROM iot.latest_readings") == database.latest, name
            assert next_score(database, database.sensor) == pytest.approx(database.expected, rel=1e-9, abs=1e-12), name
            assert database.rows("SELECT * FROM iot.latest_readings") == database.latest, name
    finally:
        for database in databases.values():
            database._connection = None
            database.drop()


def test_restored_states_fit_the_restored_readings(unwritten, silent_cluster):
    _, sensor = add_sensor(unwritten)
    fill(unwritten, sensor)
    unwritten.execute("SELECT iot.flush_state()")
    fill(unwritten, sensor, 40, 5)
    expected, latest = next_score(unwritten, sensor), unwritten.rows("SELECT * FROM iot.latest_readings")
    copy = Database(silent_cluster)
    try:
        silent_cluster.psql(silent_cluster.pg_dump(unwritten.name), copy.name)
        assert copy.rows("SELECT * FROM iot.latest_readings") == latest
        assert next_score(copy, sensor) == pytest.approx(expected, rel=1e-9)
    finally:
        copy.drop()


def test_what_happened_while_the_extension_was_gone_counts(unwritten):
    _, sensor = add_sensor(unwritten)
    fill(unwritten, sensor)
    unwritten.execute("SELECT iot.flush_state()")
    unwritten.execute("SET client_min_messages = warning")
    unwritten.execute("DROP EXTENSION iot_ext CASCADE")
    unwritten.execute(f"DELETE FROM iot.sensor_data WHERE measurement_timestamp > {HOUR} + interval '5 hours'")
    unwritten.execute("UPDATE iot.sensor_data SET measurement_value = 30 + measurement_value / 100")
    unwritten.execute("CREATE EXTENSION iot_ext")
    unwritten.execute("SELECT iot.setup()")
    check_latest(unwritten, sensor)
    got = next_score(unwritten, sensor, 30)
    unwritten.execute("DELETE FROM iot.sensor_state")
    unwritten.execute("UPDATE iot.sensor_data SET measurement_value = measurement_value")
    assert got == pytest.approx(next_score(unwritten, sensor, 30), rel=1e-9)


def test_unwritten_states_of_a_dead_database_make_room():
    settings = {"iot_ext.max_tracked_sensors": 8, "iot_ext.flush_interval": "0"}
    with Cluster(settings=settings) as cluster:
        dead, alive = new_database(cluster), new_database(cluster)
        for database in (dead, alive):
            sensors = [add_sensor(database, f"D-{number}")[1] for number in range(8)]
            for _ in range(3):
                for sensor in sensors:
                    process(database.connection, sensor, 20)
            if database is dead:
                dead.drop()
        held = "SELECT count(iot.latest_time_in_memory(sensor_id)) FROM iot.sensors"
        assert alive.value(held) == 8
        assert alive.value("SELECT count(*) FROM iot.latest_readings") == 8


def test_a_late_reading_during_a_flush_is_not_lost(unwritten):
    """The flush has not committed when the late reading comes, and does so before it."""
    _, sensor = add_sensor(unwritten)
    fill(unwritten, sensor)
    with unwritten.connect(autocommit=False) as flusher:
        flusher.execute("SELECT iot.flush_state()")
        with ThreadPoolExecutor() as pool, unwritten.connect() as writer:
            late = pool.submit(
                writer.execute, f"SELECT iot.process_sensor_data('{sensor}', 500, '{{}}', {HOUR} + interval '7 seconds')")
            waiting = f"SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {writer.info.backend_pid}"
            wait_until(lambda: unwritten.value(waiting) or late.done(), what="writer that waits for the flush")
            flusher.commit()
            late.result()
    assert unwritten.value("SELECT is_checkpoint FROM iot.sensor_state") is False
