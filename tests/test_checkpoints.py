"""Checkpoints of states on disk: whatever falls between taking a state and writing it down, none lacks a reading."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from cluster import Cluster, Database, wait_until
from factory import add_sensor, process
from roads import START, assert_scores_follow_the_rows

PLAIN_INSERT = (
    "INSERT INTO iot.sensor_data (sensor_id, device_id, measurement_timestamp, measurement_value, measurement_unit)"
    " SELECT sensor_id, device_id, %(at)s, %(value)s, unit_of_measure FROM iot.sensors WHERE sensor_id = %(sensor)s")
FLUSH = "SELECT iot.flush_state()"
# No worker writes states down or brings them back.
BY_HAND = {"iot_ext.flush_interval": "0", "iot_ext.max_job_workers": 0}


def minute(number):
    return START + timedelta(minutes=number)


def fill(connection, sensor, count=10, first=0):
    for number in range(first, first + count):
        process(connection, sensor, 20 + number % 3, minute(number))


def prepare(cluster):
    """A database in which states are written down only where a test says so."""
    database = Database(cluster)
    database.execute("CREATE EXTENSION iot_ext")
    database.execute("SELECT iot.setup()")
    database.execute("SELECT iot.create_monthly_partition('iot.sensor_data', 2026, 1)")
    return database


def waits_for_a_lock(database, connection):
    return database.value(
        "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", (connection.info.backend_pid,))


def forget_memory(database, cluster):
    """States are found again from what is on disk."""
    database.connection.close()
    cluster.restart()


def is_tracked(database, sensor):
    return database.value("SELECT iot.latest_time_in_memory(%s) IS NOT NULL", (sensor,))


def checkpoints(database):
    return database.value("SELECT count(*) FROM iot.sensor_state WHERE is_checkpoint")


@pytest.fixture
def silent_cluster():
    with Cluster(settings=BY_HAND) as running:
        yield running


@pytest.fixture
def full_cluster():
    """Room for one sensor."""
    with Cluster(settings=BY_HAND | {"iot_ext.max_tracked_sensors": 1}) as running:
        yield running


def test_a_late_reading_between_taking_and_writing(silent_cluster):
    """The flush has taken the states of two sensors, and is stopped while it writes the first one down."""
    database = prepare(silent_cluster)
    first, second = sorted(add_sensor(database, serial)[1] for serial in ("D-1", "D-2"))
    for sensor in (first, second):
        fill(database.connection, sensor)
    database.execute(FLUSH)
    for sensor in (first, second):
        fill(database.connection, sensor, first=20)
    database.execute("CREATE FUNCTION public.pause() RETURNS trigger LANGUAGE plpgsql AS"
                     " 'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END'")
    database.execute("CREATE TRIGGER pause BEFORE INSERT ON iot.sensor_state FOR EACH ROW WHEN (NEW.is_checkpoint)"
                     " EXECUTE FUNCTION public.pause()")
    with (database.connect() as gate, database.connect() as flusher, database.connect() as session,
          ThreadPoolExecutor() as pool):
        gate.execute("SELECT pg_advisory_lock(1)")
        flush = pool.submit(flusher.execute, FLUSH)
        wait_until(lambda: waits_for_a_lock(database, flusher), what="flush that writes the first row")
        late = pool.submit(process, session, second, 90, minute(15))
        wait_until(lambda: waits_for_a_lock(database, session), what="a late reading that waits for the flush")
        gate.execute("SELECT pg_advisory_unlock(1)")
        assert flush.result().fetchone()[0] == 2
        late.result()
    assert database.rows("SELECT sensor_id FROM iot.sensor_state WHERE is_checkpoint") == [(first,)]
    forget_memory(database, silent_cluster)
    assert_scores_follow_the_rows(database, [first, second])


@pytest.mark.parametrize("how", ["engine", "plain insert", "plain delete"])
def test_a_checkpoint_written_while_an_unknown_transaction_is_open(full_cluster, how):
    """The transaction began when its sensor had no entry; another session then tracked it and its state was written."""
    database = prepare(full_cluster)
    (_, holder), (_, sensor) = add_sensor(database, "D-1"), add_sensor(database, "D-2")
    fill(database.connection, sensor)
    database.execute(FLUSH)
    with database.connect(autocommit=False) as occupier, database.connect(autocommit=False) as unknown:
        process(occupier, holder, 1, minute(0))
        assert not is_tracked(database, sensor)
        if how == "engine":
            fill(unknown, sensor, first=20)
        elif how == "plain insert":
            unknown.execute(PLAIN_INSERT, {"sensor": sensor, "at": minute(20), "value": 90})
        else:
            unknown.execute("DELETE FROM iot.sensor_data WHERE sensor_id = %s AND measurement_value = 22", (sensor,))
        occupier.rollback()
        fill(database.connection, sensor, first=40)
        assert is_tracked(database, sensor)
        assert database.value(FLUSH) == 0, "it has locked the state"
        unknown.commit()
    assert checkpoints(database) == 0, "a transaction was under way that no entry knew of"
    forget_memory(database, full_cluster)
    assert_scores_follow_the_rows(database, [sensor])
    fill(database.connection, sensor, first=60)
    assert database.value(FLUSH) == 1
    assert checkpoints(database) == 1, "afterwards states are checkpoints again"


def test_a_checkpoint_on_its_way_when_readings_are_truncated(silent_cluster):
    """Whoever truncates waits for states being written, and no state becomes a checkpoint until it has committed."""
    database = prepare(silent_cluster)
    database.execute("SELECT iot.create_monthly_partition('iot.sensor_data', 2025, 12)")
    sensors = [add_sensor(database, serial)[1] for serial in ("D-1", "D-2")]
    fill(database.connection, sensors[0])
    december = -5 * 24 * 60
    fill(database.connection, sensors[1], first=december)
    with database.connect(autocommit=False) as flusher, database.connect(autocommit=False) as other:
        with ThreadPoolExecutor() as pool:
            flusher.execute(FLUSH)
            truncate = pool.submit(other.execute, "TRUNCATE iot.sensor_data_2026_01")
            wait_until(lambda: truncate.done() or waits_for_a_lock(database, other), what="TRUNCATE")
            flusher.commit()
            truncate.result()
            fill(database.connection, sensors[1], first=december + 10)
            assert database.value(FLUSH) == 0, "TRUNCATE has locked the states"
            other.commit()
    assert checkpoints(database) == 0
    forget_memory(database, silent_cluster)
    assert_scores_follow_the_rows(database, sensors)


def test_states_come_back_before_a_reading_asks_for_them(silent_cluster):
    """After a restart the latest reading of a silent sensor is found where memory says, not from the newest partition back."""
    database = prepare(silent_cluster)
    sensors = [add_sensor(database, f"D-{number}")[1] for number in range(12)]
    for number, sensor in enumerate(sensors):
        fill(database.connection, sensor, first=20 * number)
    database.execute(FLUSH)
    fill(database.connection, sensors[0], first=500)
    database.execute("DELETE FROM iot.sensor_data WHERE sensor_id = %s AND measurement_value = 22", (sensors[1],))
    forget_memory(database, silent_cluster)
    assert not any(is_tracked(database, sensor) for sensor in sensors)
    assert database.value("SELECT iot.load_state(5)") == 5
    assert database.value("SELECT iot.load_state()") == 7
    assert database.value("SELECT iot.load_state()") == 0
    assert all(is_tracked(database, sensor) for sensor in sensors)
    before = database.value("SELECT window_reads FROM iot.iot_stat_ingest")
    assert_scores_follow_the_rows(database, sensors)
    assert database.value("SELECT window_reads FROM iot.iot_stat_ingest") == before
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="maximum -1 is negative"):
        database.execute("SELECT iot.load_state(-1)")


def test_no_state_is_given_up_for_one_that_comes_back(full_cluster):
    database = prepare(full_cluster)
    first, second = (add_sensor(database, serial)[1] for serial in ("D-1", "D-2"))
    for sensor in (first, second):
        fill(database.connection, sensor)
        database.execute(FLUSH)
    assert is_tracked(database, second)
    assert database.value("SELECT iot.load_state()") == 0
    assert is_tracked(database, second)


def test_a_reading_that_is_late_only_to_those_who_see_more(silent_cluster):
    """To whom row security shows none of a sensor's readings, every one of his is the newest. Checkpoints know better."""
    database = prepare(silent_cluster)
    sensor = add_sensor(database, "D-1")[1]
    fill(database.connection, sensor, 60)
    database.execute(FLUSH)
    assert checkpoints(database) == 1
    database.execute("CREATE ROLE tenant LOGIN")
    database.execute("ALTER TABLE iot.sensor_data ENABLE ROW LEVEL SECURITY")
    database.execute("CREATE POLICY few ON iot.sensor_data FOR SELECT USING (measurement_value > 30)")
    database.execute("CREATE POLICY any_new ON iot.sensor_data FOR INSERT WITH CHECK (true)")
    database.execute("GRANT USAGE ON SCHEMA iot TO tenant")
    database.execute("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA iot TO tenant")
    with database.connect("tenant") as tenant:
        process(tenant, sensor, 31, minute(30.5))
    assert checkpoints(database) == 0
    forget_memory(database, silent_cluster)
    assert_scores_follow_the_rows(database, [sensor])


def test_states_come_back_in_a_transaction_that_changed_readings(silent_cluster):
    """What it has changed is not forgotten over that."""
    database = prepare(silent_cluster)
    sensor = add_sensor(database, "D-1")[1]
    fill(database.connection, sensor, 30)
    database.execute(FLUSH)
    forget_memory(database, silent_cluster)
    with database.connect(autocommit=False) as transaction:
        transaction.execute("DELETE FROM iot.sensor_data WHERE measurement_value = 22")
        transaction.execute("SELECT iot.load_state()")
        process(database.connection, sensor, 21, minute(40))
        transaction.commit()
    assert_scores_follow_the_rows(database, [sensor])
