"""Detectors other than zscore between sessions and databases: nobody waits, nothing is shared that should not be, and there
is room for some of them only."""

import random
import threading
from datetime import timedelta

import psycopg
import pytest

from cluster import Cluster, wait_until
from detectors import (DETECTORS, SLABS, add_sensors, assert_scores_are_right, new_database, readings, score, series_score,
                       state_rows)
from factory import add_sensor
from roads import START, Reading, by_arrays, in_threads


@pytest.fixture(scope="module")
def silent_cluster():
    """States are written down where a test says so."""
    with Cluster(settings={"iot_ext.flush_interval": "0", "full_page_writes": "off", "autovacuum": "off"}) as running:
        yield running


@pytest.fixture
def silent(silent_cluster):
    database = new_database(silent_cluster)
    yield database
    database._connection = None
    database.drop()


@pytest.fixture(scope="module")
def full_cluster():
    """Room for two detectors."""
    settings = {"iot_ext.flush_interval": "0", "iot_ext.max_tracked_detectors": 2}
    with Cluster(settings=settings) as running:
        yield running


@pytest.fixture
def full(full_cluster):
    database = new_database(full_cluster)
    yield database
    database.drop()


# Sessions

@pytest.mark.parametrize("first_to_commit", ["older", "newer"])
@pytest.mark.parametrize("detector", DETECTORS)
def test_two_sessions_do_not_wait_and_the_newest_reading_decides(silent, detector, first_to_commit):
    (sensor,) = add_sensors(silent, [detector])
    base = readings(sensor, 0, 60)
    by_arrays(silent.connection, base)
    older, newer = readings(sensor, 60, 10), readings(sensor, 70, 10)
    before = silent.row(SLABS)
    with silent.connect(autocommit=False) as one, silent.connect(autocommit=False) as other:
        for connection, part in ((one, older), (other, newer), (one, older), (other, newer)):
            connection.execute("SET LOCAL lock_timeout = '1ms'")
            by_arrays(connection, part)
        assert silent.value("SELECT count(*) FROM pg_locks WHERE NOT granted") == 0
        for connection in (one, other) if first_to_commit == "older" else (other, one):
            connection.commit()
    assert silent.row(SLABS)[4] == before[4] + 1
    probe = readings(sensor, 80, 1)[0]
    expected = series_score(silent, detector, base + newer, probe)
    assert score(silent, probe) == pytest.approx(expected, rel=1e-9)
    assert silent.value("SELECT count(*) FROM iot.sensor_data") == 80


def test_an_open_transaction_goes_on_from_what_another_commits(silent):
    """The other one has the newer reading, so its state is gone on from."""
    for detector in DETECTORS:
        (sensor,) = add_sensors_named(silent, detector)
        base, other, mine = readings(sensor, 0, 60), readings(sensor, 61, 5), readings(sensor, 70, 30)
        by_arrays(silent.connection, base)
        with silent.connect(autocommit=False) as connection:
            by_arrays(connection, readings(sensor, 60, 1))
            by_arrays(silent.connection, other)
            by_arrays(connection, mine)
            connection.commit()
        probe = readings(sensor, 100, 1)[0]
        expected = series_score(silent, detector, base + other + mine, probe)
        assert score(silent, probe) == pytest.approx(expected, rel=1e-9), detector


def add_sensors_named(database, detector):
    _, sensor = add_sensor(database, f"D-{detector}")
    database.execute("UPDATE iot.sensors SET detector = %s WHERE sensor_id = %s", (detector, sensor))
    return [sensor]


def test_databases_share_no_detector(silent, silent_cluster):
    (sensor,) = add_sensors(silent, ["adaptive"])
    device = silent.value("SELECT device_id FROM iot.devices")
    other = new_database(silent_cluster)
    try:
        other.execute("INSERT INTO iot.devices (device_id, device_serial_number) VALUES (%s, 'D')", (device,))
        other.execute("INSERT INTO iot.sensors (sensor_id, device_id, sensor_name, sensor_type, unit_of_measure, detector)"
                      " VALUES (%s, %s, 'probe', 'temperature', 'degC', 'adaptive')", (sensor, device))
        for step in range(10):
            by_arrays(silent.connection, readings(sensor, 10 * step, 10))
            by_arrays(other.connection, [
                Reading(sensor, reading.at, reading.value * 50) for reading in readings(sensor, 10 * step + 3, 10)])
        assert_scores_are_right(silent, {sensor: "adaptive"})
        assert_scores_are_right(other, {sensor: "adaptive"})
    finally:
        other.drop()


def test_slabs_of_a_dropped_database_are_free_again(silent, silent_cluster):
    other = new_database(silent_cluster)
    before = silent.row(SLABS)[1]
    for sensor in add_sensors(other):
        by_arrays(other.connection, readings(sensor, 0, 3))
    assert silent.row(SLABS)[1] == before + 4
    other.drop()
    # The launcher looks which databases there are.
    silent.execute("ALTER SYSTEM SET iot_ext.flush_interval = '1s'")
    try:
        silent.execute("SELECT pg_reload_conf()")
        wait_until(lambda: silent.row(SLABS)[1] == 0, what="slabs of all dropped databases given up")
    finally:
        silent.execute("ALTER SYSTEM RESET iot_ext.flush_interval")
        silent.execute("SELECT pg_reload_conf()")


# What a batch writes

def test_a_batch_writes_no_state(silent):
    sensors = add_sensors(silent, ["adaptive"] * 20)
    plain = add_plain_sensors(silent, 20)
    wal = {}
    for step in range(4):
        for name, group in (("adaptive", list(sensors)), ("zscore", plain)):
            batch = [reading for sensor in group for reading in readings(sensor, 10 * step, 10)]
            before = silent.value("SELECT pg_current_wal_insert_lsn()")
            rows = state_rows(silent)
            by_arrays(silent.connection, batch)
            wal[name] = silent.value("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", (before,))
            assert state_rows(silent) == rows
        if step == 1:
            silent.execute("SELECT iot.flush_state()")
    # Index pages that split aside.
    assert abs(wal["adaptive"] - wal["zscore"]) < 20_000 < 20 * 4_000


def add_plain_sensors(database, count):
    return [add_sensor(database, f"P-{number}")[1] for number in range(count)]


# Room

def test_detectors_without_room_are_kept_in_the_table(full):
    sensors = add_sensors(full)
    for step in range(12):
        for sensor in sensors:
            by_arrays(full.connection, readings(sensor, 10 * step, 10, late=True))
        if step % 5 == 3:
            full.execute("SELECT iot.flush_state()")
    capacity, used, evicted, _, _ = full.row(SLABS)
    assert (capacity, used) == (2, 2) and evicted > 10
    assert_scores_are_right(full, sensors)


def test_whoever_finds_all_slabs_in_use_goes_to_the_table(full):
    sensors = add_sensors(full)
    holders, others = list(sensors)[:2], list(sensors)[2:]
    with full.connect(autocommit=False) as holder:
        for step in range(16):
            for sensor in holders:
                by_arrays(holder, readings(sensor, 10 * step, 10))
            before = full.row(SLABS)[3]
            for sensor in others:
                by_arrays(full.connection, readings(sensor, 10 * step, 10))
            assert full.row(SLABS)[3] == before + 2
            assert full.value("SELECT count(*) FROM iot.sensor_state WHERE length(detector_state) > 400"
                              " AND sensor_id = ANY (%s)", (others,)) == 2
            if step % 4 == 3:
                holder.commit()
                # And the other way round.
                holders, others = others, holders
    assert_scores_are_right(full, sensors)


def test_no_detector_is_given_up_for_one_that_comes_back(full, full_cluster):
    sensors = add_sensors(full, ["ewma"] * 4)
    for sensor in sensors:
        by_arrays(full.connection, readings(sensor, 0, 40))
    full.execute("SELECT iot.flush_state()")
    full_cluster.restart("immediate")
    full._connection = None
    # A worker that the start of the server brings may be doing so already.
    full.execute("SELECT iot.load_state()")
    wait_until(lambda: full.row(SLABS)[1:4] == (2, 0, 0), what="states in memory")
    for step in range(4, 12):
        for sensor in sensors:
            by_arrays(full.connection, readings(sensor, 10 * step, 10))
    assert_scores_are_right(full, sensors)


def test_sessions_that_compete_for_detectors_and_room():
    """Shared sensors, rollbacks, savepoints, evictions, flushes and plain SQL at once: nothing is lost, no slab leaks, and
    what is written down is what is in memory."""
    settings = {"iot_ext.max_tracked_sensors": 7, "iot_ext.max_tracked_detectors": 3, "iot_ext.flush_interval": "0"}
    with Cluster(settings=settings) as cluster:
        database = new_database(cluster)
        sensors = list(add_sensors(database, DETECTORS * 3 + ["zscore"]))
        finished = threading.Event()

        def send(session):
            chance, stored = random.Random(session), 0
            with database.connect() as connection:
                for number in range(60):
                    batch = [
                        Reading(sensor, START + timedelta(minutes=20 * number + step, microseconds=session),
                                chance.gauss(20, 3))
                        for sensor in sorted(chance.sample(sensors, chance.randint(1, 4))) for step in range(3)]
                    way = chance.random()
                    with connection.transaction() as transaction:
                        if way < 0.3:
                            with connection.transaction() as part:
                                by_arrays(connection, [Reading(r.sensor, r.at, 1e5) for r in batch])
                                raise psycopg.Rollback(part)
                        stored += by_arrays(connection, batch).stored if way >= 0.15 else 0
                        if way < 0.15:
                            raise psycopg.Rollback(transaction)
            return stored

        def disturb():
            chance = random.Random(99)
            with database.connect() as connection:
                while not finished.is_set():
                    connection.execute("SELECT iot.flush_state()")
                    connection.execute("UPDATE iot.sensor_data SET measurement_metadata = '{}' WHERE sensor_id = %s",
                                       (chance.choice(sensors),))
                    connection.execute("UPDATE iot.sensors SET detector = %s WHERE sensor_id = %s",
                                       (chance.choice(DETECTORS), sensors[-1]))
            return 0

        disturber = threading.Thread(target=in_threads, args=([disturb],))
        disturber.start()
        try:
            stored = in_threads([lambda session=session: send(session) for session in range(4)])
        finally:
            finished.set()
            disturber.join(60)
        assert sum(stored) == database.value("SELECT count(*) FROM iot.sensor_data")
        capacity, used, evicted, refused, _ = database.row(SLABS)
        assert used <= capacity == 3 and evicted > 20 and refused >= 0
        probes = [Reading(sensor, START + timedelta(days=9), 31.0) for sensor in sensors]
        database.execute("SELECT iot.flush_state()")
        found = [score(database, probe) for probe in probes]
        cluster.restart("immediate")
        database._connection = None
        assert [score(database, probe) for probe in probes] == pytest.approx(found, rel=1e-9)
        database.drop()
        other = new_database(cluster)
        for sensor in add_sensors(other, ["ewma"] * 3):
            by_arrays(other.connection, readings(sensor, 0, 5))
        assert other.row(SLABS)[1] == 3
