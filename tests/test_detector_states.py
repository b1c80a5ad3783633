"""What detectors other than zscore have learned is found again after whatever happened, and left alone by what rolls back."""

from datetime import timedelta

import pytest

from cluster import Cluster, Database, wait_until
from detectors import (DETECTORS, SLABS, add_sensors, assert_scores_are_right, new_database, readings, score, series_score,
                       state_rows)
from roads import START, Reading, by_arrays, by_single_calls
from test_state import kill9


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


def test_detectors_come_back_before_a_reading_asks_for_them(silent, silent_cluster):
    sensors = add_sensors(silent)
    for sensor in sensors:
        by_arrays(silent.connection, readings(sensor, 0, 120))
    silent.execute("SELECT iot.flush_state()")
    silent_cluster.restart("immediate")
    silent._connection = None
    # A worker that the start of the server brings may be doing so already.
    silent.execute("SELECT iot.load_state()")
    wait_until(lambda: silent.row(SLABS)[1] == len(sensors), what="states in memory")
    silent.execute("UPDATE iot.sensor_state SET detector_state = NULL")
    for sensor in sensors:
        by_arrays(silent.connection, readings(sensor, 120, 20))
    assert_scores_are_right(silent, sensors)


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
