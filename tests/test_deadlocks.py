"""Sessions that store readings wait for each other in one order, whatever the order they offer them in."""

import json
import threading
from datetime import timedelta

import pytest

from cluster import Cluster, Database, wait_until
from factory import add_rule, add_sensor, process
from roads import BATCH_ROADS, START, Reading, assert_scores_follow_the_rows, by_arrays

BEFORE = START - timedelta(days=40)


@pytest.fixture(params=["cluster", "unloaded_cluster"])
def database(request):
    """With shared memory and without."""
    database = Database(request.getfixturevalue(request.param))
    database.execute("CREATE EXTENSION iot_ext")
    database.execute("SELECT iot.setup()")
    for month in (START, BEFORE):
        database.execute("SELECT iot.create_monthly_partition('iot.sensor_data', %s, %s)", (month.year, month.month))
    yield database
    database.drop()


def add_sensors(database, count):
    """In the order of their keys."""
    return sorted(add_sensor(database, f"D-{number}")[1] for number in range(count))


def in_background(work):
    """A thread that works, and a list that gets the result, or the error."""
    results = []

    def run():
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001 - the test looks at it
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


def waiting(database):
    return database.value("SELECT count(*) FROM pg_locks WHERE NOT granted")


def offer_while_held(database, road, batch, hold, then):
    """Offers `batch` while a transaction that did `hold` is open; that one does `then` while the batch waits, and commits."""
    def offer():
        with database.connect() as connection:
            return road(connection, batch)

    with database.connect(autocommit=False) as holder:
        hold(holder)
        thread, results = in_background(offer)
        wait_until(lambda: waiting(database) == 1, what="the batch waits")
        then(holder)
        holder.commit()
    thread.join(60)
    assert not thread.is_alive()
    (result,) = results
    if isinstance(result, Exception):
        raise result
    return result


@pytest.mark.parametrize("road", BATCH_ROADS)
def test_a_batch_holds_nothing_out_of_order_while_it_waits(database, road):
    first, second, third = add_sensors(database, 3)
    offer_while_held(
        database, road, [Reading(sensor, START, 1.0) for sensor in (third, second, first)],
        hold=lambda holder: process(holder, first, 2.0, START),
        then=lambda holder: [process(holder, sensor, 2.0, START) for sensor in (second, third)])
    assert database.rows("SELECT DISTINCT measurement_value FROM iot.sensor_data") == [(2.0,)]
    assert_scores_follow_the_rows(database, [first, second, third])


def test_nor_while_a_reading_that_gives_way_is_locked(database):
    """With the last one of a time kept, some readings are new rows and others replace."""
    database.execute("SELECT iot.setup(duplicates => 'last')")
    first, second = add_sensors(database, 2)
    process(database.connection, first, 1.0, START)
    totals = offer_while_held(
        database, by_arrays, [Reading(first, START, 3.0), Reading(second, START, 3.0)],
        hold=lambda holder: holder.execute("UPDATE iot.sensor_data SET measurement_value = 2"),
        then=lambda holder: process(holder, second, 2.0, START))
    assert totals.duplicates == 2
    assert database.rows("SELECT measurement_value FROM iot.sensor_data") == [(3.0,), (3.0,)]
    assert_scores_follow_the_rows(database, [first, second])


def test_new_rows_beside_readings_that_give_way(database):
    database.execute("SELECT iot.setup(duplicates => 'last')")
    first, second = add_sensors(database, 2)
    process(database.connection, first, 1.0, START)
    totals = by_arrays(database.connection, [Reading(second, START, 3.0), Reading(first, START, 3.0)])
    assert (totals.stored, totals.duplicates) == (1, 1)
    assert database.rows("SELECT measurement_value FROM iot.sensor_data") == [(3.0,), (3.0,)]


def test_nor_where_the_executor_stores_some_of_the_rows(database):
    """A partition with a trigger of the user takes its rows through the executor, which waits."""
    first, second = add_sensors(database, 2)
    database.execute("CREATE FUNCTION public.look() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    database.execute("CREATE TRIGGER look BEFORE INSERT ON iot.sensor_data_%s FOR EACH ROW EXECUTE FUNCTION public.look()"
                     % BEFORE.strftime("%Y_%m"))
    totals = offer_while_held(
        database, by_arrays, [Reading(second, START, 1.0), Reading(first, BEFORE, 1.0)],
        hold=lambda holder: process(holder, first, 2.0, BEFORE),
        then=lambda holder: process(holder, second, 2.0, START))
    assert totals.duplicates == 2
    assert database.rows("SELECT DISTINCT measurement_value FROM iot.sensor_data") == [(2.0,)]


def test_alerts_are_opened_in_one_order(database):
    """Two batches that share rules, but no reading."""
    first, second = add_sensors(database, 2)
    rules = sorted(add_rule(database, f'{{"threshold_high": {high}}}') for high in (10, 11))
    offer_while_held(
        database, by_arrays, [Reading(sensor, START + timedelta(seconds=1), 20.0) for sensor in (second, first)],
        hold=lambda holder: by_arrays(holder, [Reading(first, START, 20.0)]),
        then=lambda holder: by_arrays(holder, [Reading(second, START, 20.0)]))
    found = database.rows("SELECT rule_id, occurrences FROM iot.alerts")
    assert sorted(found) == sorted((rule, 2) for rule in rules for _ in range(2))


def pause_before_the_key(database):
    """Makes the partition of START by hand, with an index before that of the primary key: there a row that is stored already
    waits while `pg_advisory_lock(1)` is held, and its key is not there yet."""
    partition = f"iot.sensor_data_{START:%Y_%m}"
    database.execute(f"DROP TABLE {partition}")
    database.execute("CREATE FUNCTION public.pause(float8) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS"
                     " 'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN $1; END'")
    database.execute(f"CREATE TABLE {partition} (LIKE iot.sensor_data INCLUDING ALL EXCLUDING INDEXES)")
    database.execute(f"CREATE INDEX ON {partition} (public.pause(measurement_value))")
    database.execute(f"ALTER TABLE {partition} ADD PRIMARY KEY (sensor_id, measurement_timestamp)")
    database.execute(f"ALTER TABLE iot.sensor_data ATTACH PARTITION {partition}"
                     " FOR VALUES FROM ('2026-01-01 00:00+00') TO ('2026-02-01 00:00+00')")


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_sessions_that_lost_a_race_for_a_key_do_not_wait_for_each_other(database, end):
    """Three sessions store one reading at the same time: each row is there before any of their keys is."""
    (sensor,) = add_sensors(database, 1)
    pause_before_the_key(database)
    sessions = [database.connect(autocommit=False) for _ in range(3)]
    workers = {}
    try:
        with database.connect(autocommit=False) as gate:
            gate.execute("SELECT pg_advisory_xact_lock(1)")
            for number, session in enumerate(sessions):
                workers[number] = in_background(lambda session=session: process(session, sensor, 1.0, START))
                wait_until(lambda: waiting(database) == len(workers), what="the session waits before the key")
        open_sessions = set(workers)
        while open_sessions:
            done = wait_until(lambda: [number for number in open_sessions if workers[number][1]], what="one is served")
            number = done[0]
            (outcome,) = workers[number][1]
            assert not isinstance(outcome, Exception), outcome
            if len(open_sessions) > 1 and len(open_sessions) == len(sessions):
                wait_until(lambda: waiting(database) == len(sessions) - 1, what="the others wait for it")
            getattr(sessions[number], end)()
            open_sessions.remove(number)
    finally:
        for session in sessions:
            session.close()
    assert database.value("SELECT count(*) FROM iot.sensor_data") == (1 if end == "commit" else 0)
    assert len({workers[number][1][0] for number in workers}) == (1 if end == "commit" else 3)
    assert_scores_follow_the_rows(database, [sensor])


def test_states_are_written_down_in_one_order():
    """However many there are: the rows of a table that was empty lie as they were inserted, and so locked."""
    with Cluster(settings={"iot_ext.flush_interval": "1h", "iot_ext.max_tracked_sensors": 20_000}) as cluster:
        database = Database(cluster)
        database.execute("CREATE EXTENSION iot_ext")
        database.execute("SELECT iot.setup()")
        database.execute("SELECT iot.create_monthly_partition('iot.sensor_data', %s, %s)", (START.year, START.month))
        device, _ = add_sensor(database)
        database.execute("INSERT INTO iot.sensors (device_id, sensor_name, sensor_type, unit_of_measure)"
                         " SELECT %s, n::text, 'level', 'percent' FROM generate_series(1, 12000) n", (device,))
        database.execute("INSERT INTO iot.readings (sensor_id, measurement_timestamp, measurement_value)"
                         " SELECT sensor_id, %s, 1 FROM iot.sensors WHERE sensor_type = 'level'", (START,))
        assert database.value("SELECT iot.flush_state()") == 12_000
        assert database.row(
            "SELECT count(*), bool_and(sensor_id > before) FROM (SELECT sensor_id, lag(sensor_id) OVER (ORDER BY ctid) AS before"
            " FROM iot.sensor_state) AS s") == (12_000, True)
        assert database.value("SELECT last_seen_at IS NOT NULL FROM iot.devices")


def register(database, device_keys, sensor_names):
    messages = [{**key, "sensor_name": name, "sensor_type": "flow", "value": 1}
                for key in device_keys for name in sensor_names]
    with database.connect() as connection:
        return connection.execute("SELECT accepted, rejected FROM iot.ingest(%s::jsonb, register_unknown => true)",
                                  (json.dumps(messages),)).fetchone()


@pytest.mark.parametrize("what", ["devices", "sensors"])
def test_what_is_new_is_registered_in_one_order(database, what):
    device, _ = add_sensor(database, "D-1")
    if what == "devices":
        held = "INSERT INTO iot.devices (external_id) VALUES ('m')"
        batches = [([{"deviceId": key} for key in keys], ["flow"]) for keys in (("x", "m", "y"), ("y", "x"))]
    else:
        held = ("INSERT INTO iot.sensors (device_id, sensor_name, sensor_type, unit_of_measure)"
                f" VALUES ('{device}', 'm', 'flow', '')")
        batches = [([key], names) for key, names in (({"device_id": str(device)}, ("x", "m", "y")),
                                                     ({"device_serial_number": "D-1"}, ("y", "x")))]
    with database.connect(autocommit=False) as holder:
        holder.execute(held)
        first, first_results = in_background(lambda: register(database, *batches[0]))
        wait_until(lambda: waiting(database) == 1, what="the first batch waits")
        second, second_results = in_background(lambda: register(database, *batches[1]))
        wait_until(lambda: second_results or waiting(database) == 2, what="the second batch is done, or waits")
        holder.commit()
    for thread in (first, second):
        thread.join(60)
        assert not thread.is_alive()
    assert (first_results, second_results) == ([(3, 0)], [(2, 0)])
    assert database.value("SELECT count(*) FROM iot.sensors WHERE sensor_type = 'flow'") == 3
