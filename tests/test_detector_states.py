"""What detectors other than zscore have learned: in shared memory, in the table, and found again after whatever happened.

What is right is said by iot.score_series(), which scores a series from its beginning and keeps nothing.
"""

import random
import threading
from datetime import timedelta

import psycopg
import pytest

from cluster import Cluster, Database, wait_until
from factory import add_sensor
from roads import START, Reading, by_arrays, by_single_calls, in_threads
from test_state import kill9

DETECTORS = ["robust", "ewma", "seasonal", "adaptive"]
SLABS = """SELECT detector_capacity, detectors, detectors_evicted, detectors_refused, detectors_overruled
             FROM iot.iot_stat_tracked_sensors"""
# In order of arrival.
COMPARED = """
    SELECT stored.anomaly_score, s.anomaly_score, stored.is_onset, s.is_onset
      FROM (SELECT array_agg(measurement_timestamp ORDER BY received_at, data_id) AS times,
                   array_agg(measurement_value ORDER BY received_at, data_id) AS readings
              FROM iot.sensor_data WHERE sensor_id = %(sensor)s) AS a,
           iot.score_series(%(detector)s, times, readings) WITH ORDINALITY
               AS s (at, value, anomaly_score, is_anomaly, is_onset, is_learning, number)
      JOIN (SELECT row_number() OVER (ORDER BY received_at, data_id) AS number, *
              FROM iot.sensor_data WHERE sensor_id = %(sensor)s) AS stored USING (number)"""


def new_database(cluster):
    database = Database(cluster)
    database.execute("CREATE EXTENSION iot_ext")
    database.execute("SELECT iot.setup()")
    database.execute("SELECT iot.create_monthly_partition('iot.sensor_data', 2026, 1)")
    return database


def add_sensors(database, detectors=DETECTORS):
    """A sensor for each of the detectors: detector by sensor."""
    sensors = {add_sensor(database, f"D-{number}")[1]: detector for number, detector in enumerate(detectors)}
    for sensor, detector in sensors.items():
        database.execute("UPDATE iot.sensors SET detector = %s WHERE sensor_id = %s", (detector, sensor))
    return sensors


def readings(sensor, first, count, late=False):
    """A quarter of an hour apart, with a spike now and then; some come late. The same ones for the same numbers."""
    made = []
    for number in range(first, first + count):
        chance = random.Random(number)
        at = START + timedelta(minutes=15 * number)
        value = chance.gauss(20 + number % 96 / 10, 1) + (30 if number % 37 == 36 else 0)
        if late and chance.random() < 0.15:
            at -= timedelta(hours=chance.randint(1, 50), microseconds=number + 1)
        made.append(Reading(sensor, at, value))
    return made


def assert_scores_are_right(database, sensors):
    """Stored scores are those of the series as a whole."""
    for sensor, detector in sensors.items():
        rows = database.rows(COMPARED, {"sensor": sensor, "detector": detector})
        assert len(rows) == database.value("SELECT count(*) FROM iot.sensor_data WHERE sensor_id = %s", (sensor,)) > 60
        for number, (stored, expected, onset, expected_onset) in enumerate(rows):
            assert abs(stored - expected) < 1e-9 and onset == expected_onset, f"{detector}, reading {number}"
        assert any(score > 1 for score, *_ in rows), f"{detector}: nothing to compare"


def series_score(database, detector, learned, probe):
    """What the detector says of `probe` after the readings `learned`."""
    series = [*learned, probe]
    return database.rows(
        "SELECT anomaly_score FROM iot.score_series(%s, %s::timestamptz[], %s::float8[])",
        (detector, [reading.at for reading in series], [reading.value for reading in series]))[-1][0]


def score(database, probe):
    """What the engine says of it; it is not stored."""
    with database.connect(autocommit=False) as connection:
        (found,) = connection.execute(
            "SELECT anomaly_score FROM iot.process_sensor_data_ex(%s, %s, '{}', %s)",
            (probe.sensor, probe.value, probe.at)).fetchone()
        connection.rollback()
    return found


def state_rows(database):
    """Changes whenever a row of the table of states is written."""
    return database.rows("SELECT sensor_id, xmin::text, ctid::text FROM iot.sensor_state ORDER BY 1")


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


@pytest.fixture(params=["slabs", "no slabs", "not preloaded"])
def anywhere(request):
    """A database of each kind of server."""
    if request.param == "no slabs":
        with Cluster(settings={"iot_ext.max_tracked_detectors": 0}) as running:
            yield new_database(running)
        return
    name = {"slabs": "cluster", "not preloaded": "unloaded_cluster"}[request.param]
    database = new_database(request.getfixturevalue(name))
    yield database
    database.drop()


# Found again

@pytest.mark.parametrize("how", ["fast", "immediate", "kill -9"])
def test_scores_go_on_after_a_restart(silent, silent_cluster, how):
    sensors = add_sensors(silent)
    for step in range(8):
        for sensor in sensors:
            by_arrays(silent.connection, readings(sensor, 25 * step, 25, late=True))
        if step in (1, 4):
            assert silent.value("SELECT iot.flush_state()") == len(sensors)
        if step in (0, 3, 4, 6):
            if how == "kill -9":
                kill9(silent_cluster, silent.value("SELECT pg_backend_pid()"))
            else:
                silent_cluster.restart(how)
            silent._connection = None
    assert_scores_are_right(silent, sensors)


def test_what_is_written_down_is_the_state(silent):
    sensors = add_sensors(silent)
    for sensor in sensors:
        by_arrays(silent.connection, readings(sensor, 0, 40))
    silent.execute("SELECT iot.flush_state()")
    written = silent.rows("""SELECT length(s.detector_state) = d.state_bytes, s.is_checkpoint
                               FROM iot.sensor_state s JOIN iot.sensors USING (sensor_id) JOIN iot.detectors d USING (detector)""")
    assert written == [(True, True)] * len(sensors)
    assert silent.value("SELECT iot.flush_state()") == 0


def test_a_flush_that_rolled_back_is_done_again(silent):
    (sensor,) = add_sensors(silent, ["ewma"])
    by_arrays(silent.connection, readings(sensor, 0, 40))
    with silent.connect(autocommit=False) as connection:
        assert connection.execute("SELECT iot.flush_state()").fetchone() == (1,)
        connection.rollback()
    assert state_rows(silent) == []
    assert silent.value("SELECT iot.flush_state()") == 1
    assert silent.value("SELECT length(detector_state) > 400 FROM iot.sensor_state")


def test_more_readings_than_a_warm_up_takes_survive_a_crash(silent, silent_cluster):
    sensors = add_sensors(silent)
    silent.execute("SELECT iot.create_monthly_partition('iot.sensor_data', 2026, 2)")
    for sensor in sensors:
        by_arrays(silent.connection, readings(sensor, 0, 2500))
    silent.execute("SELECT iot.flush_state()")
    for sensor in sensors:
        by_arrays(silent.connection, readings(sensor, 2500, 100))
    silent_cluster.restart("immediate")
    silent._connection = None
    for sensor in sensors:
        by_arrays(silent.connection, readings(sensor, 2600, 30))
    assert_scores_are_right(silent, sensors)


def test_states_are_dumped_and_restored_with_their_readings(silent, silent_cluster):
    sensors = add_sensors(silent)
    for sensor in sensors:
        by_arrays(silent.connection, readings(sensor, 0, 120))
    silent.execute("SELECT iot.flush_state()")
    for sensor in sensors:
        by_arrays(silent.connection, readings(sensor, 120, 20))
    copy = Database(silent_cluster)
    try:
        silent_cluster.psql(silent_cluster.pg_dump(silent.name), copy.name)
        for sensor in sensors:
            by_arrays(copy.connection, readings(sensor, 140, 20))
        assert_scores_are_right(copy, sensors)
    finally:
        copy.drop()


# Transactions

def test_what_rolls_back_leaves_no_trace(anywhere):
    sensors = add_sensors(anywhere)
    with anywhere.connect(autocommit=False) as connection:
        for step in range(12):
            for sensor in sensors:
                by_arrays(connection, readings(sensor, 10 * step, 5))
            connection.execute("SAVEPOINT part")
            for sensor in sensors:
                by_arrays(connection, [Reading(sensor, START + timedelta(days=20), 1e6)])
                connection.execute("SAVEPOINT deeper")
                by_arrays(connection, [Reading(sensor, START + timedelta(days=21), -1e6)])
                connection.execute("RELEASE deeper")
            connection.execute("ROLLBACK TO SAVEPOINT part")
            for sensor in sensors:
                by_single_calls(connection, readings(sensor, 10 * step + 5, 5))
            connection.commit()
            for sensor in sensors:
                by_arrays(connection, [Reading(sensor, START + timedelta(days=22), 1e9)])
            connection.rollback()
    assert_scores_are_right(anywhere, sensors)


def test_a_savepoint_in_which_a_sensor_is_met_first(anywhere):
    sensors = add_sensors(anywhere)
    for sensor in sensors:
        by_arrays(anywhere.connection, readings(sensor, 0, 110))
    with anywhere.connect(autocommit=False) as connection:
        for step in range(4):
            connection.execute("SAVEPOINT first")
            for sensor in sensors:
                by_arrays(connection, [Reading(sensor, START + timedelta(days=20), 1e6)])
            connection.execute("ROLLBACK TO SAVEPOINT first")
            for sensor in sensors:
                by_arrays(connection, readings(sensor, 110 + 10 * step, 10))
            if step % 2:
                connection.commit()
    assert_scores_are_right(anywhere, sensors)


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
        wait_until(lambda: silent.row(SLABS)[1] == 0, 20, what="slabs of all dropped databases given up")
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


# What makes a state invalid

def test_a_detector_that_is_changed_begins_with_what_is_stored(anywhere):
    (sensor,) = add_sensors(anywhere, ["adaptive"])
    learned = []
    for step, detector in enumerate(["adaptive", "robust", "zscore", "adaptive", "ewma", "seasonal", "ewma"]):
        anywhere.execute("UPDATE iot.sensors SET detector = %s", (detector,))
        probe = readings(sensor, 60 * step, 1)[0]
        if learned and detector != "zscore":
            expected = series_score(anywhere, detector, learned, probe)
            assert score(anywhere, probe) == pytest.approx(expected, rel=1e-9), (step, detector)
        batch = readings(sensor, 60 * step, 60)
        by_arrays(anywhere.connection, batch)
        learned += batch


@pytest.mark.parametrize("other", ["robust", "zscore"])
def test_another_detector_for_one_reading_makes_it_begin_anew(silent, other):
    """Although what it had learned before is still written down."""
    (sensor,) = add_sensors(silent, ["adaptive"])
    spoiled = [Reading(sensor, reading.at, reading.value * 1e6) for reading in readings(sensor, 0, 60)]
    by_arrays(silent.connection, spoiled)
    silent.execute("SELECT iot.flush_state()")
    silent.execute("UPDATE iot.sensor_data SET measurement_value = measurement_value / 1e6")
    stored = silent.rows("SELECT measurement_timestamp, measurement_value FROM iot.sensor_data ORDER BY 1")
    one = readings(sensor, 60, 1)
    silent.execute("UPDATE iot.sensors SET detector = %s", (other,))
    by_arrays(silent.connection, one)
    silent.execute("UPDATE iot.sensors SET detector = 'adaptive'")
    probe = readings(sensor, 61, 1)[0]
    learned = [Reading(sensor, at, value) for at, value in stored] + one
    assert score(silent, probe) == pytest.approx(series_score(silent, "adaptive", learned, probe), rel=1e-9)


def test_a_sensor_with_zscore_has_no_detector_state(silent):
    (sensor,) = add_sensors(silent, ["adaptive"])
    by_arrays(silent.connection, readings(sensor, 0, 40))
    silent.execute("SELECT iot.flush_state()")
    before = silent.row(SLABS)[1]
    silent.execute("UPDATE iot.sensors SET detector = 'zscore'")
    by_arrays(silent.connection, readings(sensor, 40, 10))
    silent.execute("SELECT iot.flush_state()")
    assert silent.value("SELECT length(detector_state) FROM iot.sensor_state") == 0
    assert silent.row(SLABS)[1] == before - 1


PAST_THE_ENGINE = {
    "delete": f"DELETE FROM iot.sensor_data WHERE measurement_timestamp < '{START + timedelta(hours=6)}'",
    "update": "UPDATE iot.sensor_data SET measurement_value = measurement_value + 0.5",
    "old rows": "INSERT INTO iot.sensor_data (sensor_id, device_id, measurement_timestamp, measurement_value)"
                f" SELECT sensor_id, device_id, '{START - timedelta(days=1)}', 1000 FROM iot.sensors",
    "another partition": "CREATE TABLE iot.old (LIKE iot.sensor_data INCLUDING ALL);"
                         "ALTER TABLE iot.sensor_data ATTACH PARTITION iot.old FOR VALUES FROM ('2015-01-01') TO ('2015-02-01');"
                         "DROP TABLE iot.old",
}


@pytest.mark.parametrize("what", PAST_THE_ENGINE)
@pytest.mark.parametrize("restart", [False, True])
def test_what_was_learned_is_not_unlearned_by_plain_sql(silent, silent_cluster, what, restart):
    sensors = add_sensors(silent)
    for sensor in sensors:
        by_arrays(silent.connection, readings(sensor, 0, 80))
    if restart:
        silent.execute("SELECT iot.flush_state()")
    for statement in PAST_THE_ENGINE[what].split(";"):
        silent.execute(statement)
    if restart:
        silent_cluster.restart("immediate")
        silent._connection = None
    for sensor, detector in sensors.items():
        probe = readings(sensor, 80, 1)[0]
        expected = series_score(silent, detector, readings(sensor, 0, 80), probe)
        assert score(silent, probe) == pytest.approx(expected, rel=1e-9), detector


def test_newer_rows_by_plain_sql_are_learned_from(anywhere):
    sensors = add_sensors(anywhere)
    for sensor, detector in sensors.items():
        by_arrays(anywhere.connection, readings(sensor, 0, 60))
        for reading in readings(sensor, 60, 20):
            anywhere.execute(
                "INSERT INTO iot.sensor_data (sensor_id, device_id, measurement_timestamp, measurement_value)"
                " SELECT sensor_id, device_id, %s, %s FROM iot.sensors WHERE sensor_id = %s",
                (reading.at, reading.value, sensor))
        probe = readings(sensor, 80, 1)[0]
        expected = series_score(anywhere, detector, readings(sensor, 0, 80), probe)
        assert score(anywhere, probe) == pytest.approx(expected, rel=1e-9), detector


def test_the_state_of_a_sensor_that_is_stale_is_written_down(silent):
    """Else a sensor whose readings are changed all the time would lose what it has learned with a restart."""
    (sensor,) = add_sensors(silent, ["seasonal"])
    by_arrays(silent.connection, readings(sensor, 0, 40))
    silent.execute("UPDATE iot.sensor_data SET measurement_metadata = '{}'")
    assert silent.value("SELECT iot.flush_state()") == 1
    assert silent.row("SELECT length(detector_state) > 400, state FROM iot.sensor_state") == (True, None)


def test_history_that_was_loaded_backwards_is_learned_forwards(silent):
    (sensor,) = add_sensors(silent, ["ewma"])
    history = readings(sensor, 0, 100)
    for reading in reversed(history):
        silent.execute(
            "INSERT INTO iot.sensor_data (data_id, sensor_id, device_id, measurement_timestamp, measurement_value)"
            " SELECT gen_random_uuid(), sensor_id, device_id, %s, %s FROM iot.sensors", (reading.at, reading.value))
    probe = readings(sensor, 100, 1)[0]
    assert score(silent, probe) == pytest.approx(series_score(silent, "ewma", history, probe), rel=1e-9)


def test_detectors_come_back_before_a_reading_asks_for_them(silent, silent_cluster):
    sensors = add_sensors(silent)
    for sensor in sensors:
        by_arrays(silent.connection, readings(sensor, 0, 120))
    silent.execute("SELECT iot.flush_state()")
    silent_cluster.restart("immediate")
    silent._connection = None
    assert silent.row(SLABS)[1] == 0
    assert silent.value("SELECT iot.load_state()") == len(sensors)
    assert silent.row(SLABS)[1] == len(sensors)
    silent.execute("UPDATE iot.sensor_state SET detector_state = NULL")
    for sensor in sensors:
        by_arrays(silent.connection, readings(sensor, 120, 20))
    assert_scores_are_right(silent, sensors)


def test_no_detector_is_given_up_for_one_that_comes_back(full, full_cluster):
    sensors = add_sensors(full, ["ewma"] * 4)
    for sensor in sensors:
        by_arrays(full.connection, readings(sensor, 0, 40))
    full.execute("SELECT iot.flush_state()")
    full_cluster.restart("immediate")
    full._connection = None
    assert full.value("SELECT iot.load_state()") == len(sensors)
    assert full.row(SLABS)[1:4] == (2, 0, 0)
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
