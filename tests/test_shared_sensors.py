"""Sessions that send to the same sensors at once: nothing is lost, and what they share stays true to the stored rows."""

import contextlib
import random
import threading
from datetime import timedelta

import psycopg
import pytest

from cluster import Cluster, Database, wait_until
from factory import add_rule, add_sensor, process
from roads import (BATCH_ROADS, ROADS, START, Reading, Totals, assert_scores_follow_the_rows, by_arrays, by_json,
                   by_single_calls, in_threads)

SESSIONS = 4
BATCHES = 40


def add_sensors(database, count):
    """Sensors whose readings have their partition already."""
    database.execute("SELECT iot.create_monthly_partition('iot.sensor_data', 2026, 1)")
    return [add_sensor(database, f"D-{number}")[1] for number in range(count)]


def batch_of(chance, sensors, session, number):
    """Readings of some sensors at times that are this session's own."""
    at = START + timedelta(minutes=20 * number, seconds=session)
    return [
        Reading(sensor, at + timedelta(seconds=10 * step - chance.choice([0, 0, 0, 40_000]), microseconds=number + 1),
                chance.gauss(20, 3))
        for sensor in chance.sample(sensors, chance.randint(1, 5)) for step in range(chance.randint(1, 10))]


def send(database, sensors, session, committed):
    """One session; adds the keys that it committed to `committed`, and returns its totals."""
    chance = random.Random(session)
    totals = Totals()
    with database.connect() as connection:
        for number in range(BATCHES):
            batch = batch_of(chance, sensors, session, number)
            road, way = chance.choice(ROADS), chance.random()
            with connection.transaction() if way < 0.4 else contextlib.nullcontext() as transaction:
                if way < 0.2:
                    chance.choice(BATCH_ROADS)(connection, batch_of(chance, sensors, session, number))
                    raise psycopg.Rollback(transaction)
                if way < 0.4:
                    # Only one part of it keeps its locks, or transactions would deadlock over alerts, as any do.
                    with connection.transaction() as part:
                        chance.choice(BATCH_ROADS)(connection, batch_of(chance, sensors, session, number))
                        raise psycopg.Rollback(part)
                    road = chance.choice(BATCH_ROADS)
                found = road(connection, batch)
            if way >= 0.2:
                assert found.offered == len(batch) and found.rejected == 0
                totals += found
                committed.update((reading.sensor, reading.at) for reading in batch)
            # The same readings from everybody: one session stores each.
            shared = [Reading(sensor, START - timedelta(minutes=number), 20.0 + session) for sensor in sensors]
            chance.shuffle(shared)
            totals += chance.choice([by_arrays, by_json, by_single_calls])(connection, shared)
            committed.update((reading.sensor, reading.at) for reading in shared)
    return totals


def edit(database, sensors, finished, also_readings):
    """The fifth session changes what all others have cached."""
    chance = random.Random(5)
    with database.connect() as connection:
        while not finished.is_set():
            connection.execute(
                "UPDATE iot.alert_rules SET rule_conditions = jsonb_build_object('threshold_high', %s::float8),"
                " is_active = %s", (chance.uniform(18, 26), chance.random() < 0.8))
            connection.execute(
                "UPDATE iot.sensors SET calibration_data = jsonb_build_object('offset', %s::float8) WHERE sensor_id = %s",
                (chance.uniform(-1, 1), chance.choice(sensors)))
            if also_readings:
                connection.execute(
                    "UPDATE iot.sensor_data SET measurement_value = measurement_value + 0.25 WHERE sensor_id = %s"
                    " AND measurement_timestamp > (SELECT max(measurement_timestamp) FROM iot.sensor_data) - interval '3 hours'",
                    (chance.choice(sensors),))


@pytest.mark.parametrize("also_readings", [False, True])
@pytest.mark.parametrize("where", ["cluster", "unloaded_cluster"])
def test_nothing_is_lost_between_sessions(request, where, also_readings):
    database = Database(request.getfixturevalue(where))
    try:
        database.execute("CREATE EXTENSION iot_ext")
        database.execute("SELECT iot.setup()")
        sensors = add_sensors(database, 8)
        add_rule(database, '{"threshold_high": 22}')
        committed, finished = [set() for _ in range(SESSIONS)], threading.Event()
        editor = threading.Thread(target=in_threads, args=([lambda: edit(database, sensors, finished, also_readings)],))
        editor.start()
        try:
            totals = in_threads([
                lambda session=session: send(database, sensors, session, committed[session])
                for session in range(SESSIONS)])
        finally:
            finished.set()
            editor.join(60)
        stored = set(database.rows("SELECT sensor_id, measurement_timestamp FROM iot.sensor_data"))
        assert stored == set().union(*committed)
        assert sum(totals, Totals()).stored == len(stored) == database.value("SELECT count(*) FROM iot.sensor_data")
        assert database.value("SELECT count(*) FROM iot.rejected_readings") == 0
        assert_scores_follow_the_rows(database, sensors)
    finally:
        database.drop()


@pytest.mark.parametrize("road", BATCH_ROADS)
def test_the_same_batch_in_another_order_waits_but_does_not_deadlock(database, road):
    sensors = add_sensors(database, 40)
    for sensor in sensors:
        process(database.connection, sensor, 20, START - timedelta(minutes=1))
    for number in range(8):
        batch = [Reading(sensor, START + timedelta(minutes=number, seconds=step), 20.0 + step)
                 for sensor in sensors for step in range(20)]
        start = threading.Barrier(2)

        def offer(readings):
            with database.connect() as connection:
                connection.execute("SELECT 1")
                start.wait(30)
                road(connection, readings)

        in_threads([lambda: offer(batch), lambda: offer(batch[::-1])])
        assert database.value("SELECT count(*) FROM iot.sensor_data WHERE measurement_timestamp >= %s",
                              (START,)) == len(batch) * (number + 1)
    assert_scores_follow_the_rows(database, sensors[:3])


@pytest.mark.parametrize("end", ["commit", "rollback"])
@pytest.mark.parametrize("road", ROADS)
def test_two_sessions_offer_the_same_reading(database, road, end):
    (sensor,) = add_sensors(database, 1)
    for second in range(5):
        process(database.connection, sensor, second, START - timedelta(minutes=1, seconds=second))
    results = []

    def offer():
        with database.connect() as connection:
            results.append(road(connection, [Reading(sensor, START, 7.0)]))

    with database.connect(autocommit=False) as first:
        process(first, sensor, 5.0, START)
        second = threading.Thread(target=offer, daemon=True)
        second.start()
        wait_until(lambda: database.value("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1, what="the wait")
        getattr(first, end)()
        second.join(60)
        assert not second.is_alive()
    won = end == "commit"
    # The roads that return nothing are counted by the rows, where the winner's row is one of these.
    assert results[0] == Totals(duplicates=1) if won and road in (by_single_calls, by_arrays, by_json) else True
    assert won or results == [Totals(stored=1)]
    assert database.rows("SELECT measurement_value FROM iot.sensor_data WHERE measurement_timestamp = %s", (START,)) == [
        (5.0 if won else 7.0,)]
    assert_scores_follow_the_rows(database, [sensor])


def test_sessions_that_compete_for_room():
    """What is rolled back may be evicted at once, so all of them evict all the time."""
    with Cluster(settings={"iot_ext.max_tracked_sensors": 4}) as cluster:
        database = Database(cluster)
        database.execute("CREATE EXTENSION iot_ext")
        database.execute("SELECT iot.setup()")
        sensors = add_sensors(database, 30)

        def compete(session):
            with database.connect() as connection:
                connection.execute("SELECT setseed(%s)", (session / 10,))
                connection.execute(f"""
                    DO $$
                    DECLARE sensors uuid[] := (SELECT array_agg(sensor_id) FROM iot.sensors);
                    BEGIN
                        FOR round IN 1 .. 2000 LOOP
                            PERFORM iot.process_sensor_data(sensors[1 + floor(random() * 30)::int], 1, '{{}}', '{START}');
                            ROLLBACK;
                        END LOOP;
                    END $$""")

        in_threads([lambda session=session: compete(session) for session in range(6)])
        evicted, tracked = database.row("SELECT evicted, tracked FROM iot.iot_stat_tracked_sensors")
        assert evicted > 100 and tracked <= 4
        assert_scores_follow_the_rows(database, sensors[:3])
