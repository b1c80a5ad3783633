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
    waits while `pg_advisory_lock(value)` is held, and its key is not there yet."""
    partition = f"iot.sensor_data_{START:%Y_%m}"
    database.execute(f"DROP TABLE IF EXISTS {partition}")
    database.execute("CREATE FUNCTION public.pause(float8) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS"
                     " 'BEGIN PERFORM pg_advisory_xact_lock_shared($1::bigint); RETURN $1; END'")
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


def silent_cluster(**settings):
    """One whose worker writes nothing down."""
    return Cluster(settings={"iot_ext.flush_interval": "0"} | {f"iot_ext.{name}": value for name, value in settings.items()})


def made(cluster):
    database = Database(cluster)
    database.execute("CREATE EXTENSION iot_ext")
    database.execute("SELECT iot.setup()")
    return database


def write_down(database):
    """Which sensors are written down now; whoever would wait for a lock fails instead."""
    with database.connect() as connection:
        connection.execute("SET statement_timeout = '20s'")
        connection.execute("SELECT iot.flush_state()")
    return {sensor for (sensor,) in database.rows("SELECT sensor_id FROM iot.sensor_state WHERE latest_value = 2")}


HOLD_IN_TABLE = {
    "a state": "SELECT FROM iot.sensor_state WHERE sensor_id = %s FOR UPDATE",
    "a state that is not there yet": "INSERT INTO iot.sensor_state (sensor_id, device_id) SELECT sensor_id, device_id"
                                     " FROM iot.sensors WHERE sensor_id = %s",
    "a sensor that is being deleted": "SELECT FROM iot.sensors WHERE sensor_id = %s FOR UPDATE",
}


@pytest.mark.parametrize("held", HOLD_IN_TABLE)
def test_writing_states_down_waits_for_nobody(held):
    with silent_cluster() as cluster:
        database = made(cluster)
        first, second, third = sensors = add_sensors(database, 3)
        if held == "a state":
            by_arrays(database.connection, [Reading(sensor, START, 1.0) for sensor in sensors])
            assert database.value("SELECT iot.flush_state()") == 3
        by_arrays(database.connection, [Reading(sensor, START + timedelta(minutes=1), 2.0) for sensor in sensors])
        with database.connect(autocommit=False) as holder:
            holder.execute(HOLD_IN_TABLE[held], (second,))
            assert write_down(database) == {first, third}
            holder.rollback()
        assert write_down(database) == set(sensors)
        assert database.value("SELECT iot.flush_state()") == 0


def test_nor_for_a_device():
    with silent_cluster() as cluster:
        database = made(cluster)
        first, second = sensors = add_sensors(database, 2)
        by_arrays(database.connection, [Reading(sensor, START, 2.0) for sensor in sensors])
        seen = ("SELECT s.sensor_id FROM iot.sensors s JOIN iot.devices d USING (device_id) WHERE d.last_seen_at IS NOT NULL"
                " ORDER BY 1")
        with database.connect(autocommit=False) as holder:
            holder.execute("SELECT FROM iot.devices d JOIN iot.sensors s USING (device_id) WHERE sensor_id = %s"
                           " FOR UPDATE OF d", (first,))
            assert write_down(database) == set(sensors)
            assert database.rows(seen) == [(second,)]
            holder.rollback()
        write_down(database)
        assert database.rows(seen) == [(first,), (second,)]
        assert database.value("SELECT iot.flush_state()") == 0


def test_what_the_worker_writes_down_makes_nobody_wait_in_a_circle():
    """A session holds the state of the last sensor and wants that of the first; another one holds the one between."""
    with silent_cluster() as cluster:
        database = made(cluster)
        first, second, third = sensors = add_sensors(database, 3)
        for minute in (1, 2):
            by_arrays(database.connection,
                      [Reading(sensor, START + timedelta(minutes=minute), float(minute)) for sensor in sensors])
            if minute == 1:
                database.execute("SELECT iot.flush_state()")
        with database.connect(autocommit=False) as holder, database.connect(autocommit=False) as session:
            holder.execute("SELECT FROM iot.sensor_state WHERE sensor_id = %s FOR UPDATE", (second,))
            process(session, third, 1.0, START)
            database.execute("ALTER SYSTEM SET iot_ext.flush_interval = '1s'")
            database.execute("SELECT pg_reload_conf()")
            wait_until(lambda: database.rows("SELECT FROM iot.sensor_state WHERE sensor_id = %s AND latest_value = 2",
                                             (first,)), 20, what="the worker has written the first one down")
            process(session, first, 1.0, START)
            session.commit()
            holder.rollback()
        wait_until(lambda: database.value("SELECT count(*) FROM iot.sensor_state WHERE latest_value = 2") == 3, 20,
                   what="what was left out is written down")
        assert "deadlock" not in cluster.log.read_text(errors="replace")


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


def offer_in_background(database, batch):
    def offer():
        with database.connect() as connection:
            return by_arrays(connection, batch)

    return in_background(offer)


def assert_all_served(workers):
    for thread, results in workers:
        thread.join(60)
        assert not thread.is_alive()
        assert not isinstance(results[0], Exception), results[0]


@pytest.mark.parametrize("detector", ["zscore", "ewma"])
def test_states_are_locked_at_one_place_of_a_batch(detector):
    """One session has late readings of a sensor whose checkpoint is on disk. Another one has the same, and before them a
    sensor whose detector found no room in memory, and which it therefore locks before all."""
    with silent_cluster(max_tracked_detectors=1) as cluster:
        database = made(cluster)
        pause_before_the_key(database)
        shared, other = sensors = add_sensors(database, 2)
        database.execute("UPDATE iot.sensors SET detector = %s WHERE sensor_id = %s", (detector, shared))
        database.execute("UPDATE iot.sensors SET detector = 'robust' WHERE sensor_id = %s", (other,))
        by_arrays(database.connection, [Reading(sensor, START + timedelta(hours=1), 9.0) for sensor in sensors])
        assert database.value("SELECT iot.flush_state()") == 2
        occupied = add_sensor(database, "D-9")[1]
        database.execute("UPDATE iot.sensors SET detector = 'ewma' WHERE sensor_id = %s", (occupied,))
        with (database.connect(autocommit=False) as occupant, database.connect() as first_gate,
              database.connect() as second_gate):
            if detector == "zscore":
                # The only room for a detector.
                process(occupant, occupied, 9.0, START)
            first_gate.execute("SELECT pg_advisory_lock(1)")
            second_gate.execute("SELECT pg_advisory_lock(2)")
            workers = [offer_in_background(database, [Reading(shared, START, 1.0)])]
            wait_until(lambda: waiting(database) == 1, what="the first one waits before its key")
            workers.append(offer_in_background(
                database, [Reading(shared, START, 2.0), Reading(other, START + timedelta(hours=2), 3.0)]))
            wait_until(lambda: waiting(database) == 2, what="the second one waits")
            first_gate.execute("SELECT pg_advisory_unlock(1)")
            wait_until(lambda: workers[0][1] or waiting(database) == 2, what="the first one is served, or waits again")
            second_gate.execute("SELECT pg_advisory_unlock(2)")
            assert_all_served(workers)
            occupant.rollback()
        assert database.value("SELECT count(*) FROM iot.sensor_data") == 4
        assert_scores_follow_the_rows(database, [shared] if detector == "zscore" else [])


def test_a_conflict_locks_nothing_in_the_middle_of_a_batch():
    """The sensors have no place in memory, so that their states are in the table."""
    with silent_cluster(max_tracked_sensors=1) as cluster:
        database = made(cluster)
        pause_before_the_key(database)
        first, second, occupied = add_sensors(database, 3)
        with (database.connect(autocommit=False) as occupant, database.connect() as gate,
              database.connect(autocommit=False) as holder):
            process(occupant, occupied, 9.0, START)
            gate.execute("SELECT pg_advisory_lock(1)")
            workers = [offer_in_background(database, [Reading(first, START, 5.0), Reading(second, START, 1.0)])]
            wait_until(lambda: waiting(database) == 1, what="the first one waits before its key")
            process(database.connection, second, 2.0, START)
            holder.execute("SELECT FROM iot.sensor_state WHERE sensor_id = %s FOR UPDATE", (second,))
            gate.execute("SELECT pg_advisory_unlock(1)")
            wait_until(lambda: waiting(database) == 1, what="the first one waits for a state")
            later = START + timedelta(minutes=1)
            workers.append(offer_in_background(database, [Reading(first, later, 6.0), Reading(second, later, 7.0)]))
            wait_until(lambda: waiting(database) >= 2, what="the second one waits, too")
            holder.rollback()
            assert_all_served(workers)
            occupant.rollback()
        assert sorted(database.rows("SELECT measurement_value FROM iot.sensor_data")) == [(2.0,), (5.0,), (6.0,), (7.0,)]
        assert_scores_follow_the_rows(database, [first, second])
