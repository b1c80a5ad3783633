"""Databases of one server share the engine's memory and nothing in it; and no batch is too large for a session's memory."""

from datetime import timedelta

import pytest

from cluster import Database
from factory import process
from roads import START, assert_scores_follow_the_rows

SENSOR = "00000000-0000-0000-0000-000000000001"
DEVICE = "00000000-0000-0000-0000-000000000002"


def with_the_sensor(cluster, name=None):
    """A database whose only sensor has the same keys in each."""
    database = Database(cluster, name)
    database.execute("CREATE EXTENSION iot_ext")
    database.execute("SELECT iot.setup()")
    database.execute("SELECT iot.create_monthly_partition('iot.sensor_data', 2026, 1)")
    database.execute("INSERT INTO iot.devices (device_id, device_serial_number) VALUES (%s, 'D')", (DEVICE,))
    database.execute(
        "INSERT INTO iot.sensors (sensor_id, device_id, sensor_name, sensor_type, unit_of_measure)"
        " VALUES (%s, %s, 'probe', 'temperature', 'degC')", (SENSOR, DEVICE))
    return database


def fill(database, value):
    for number in range(10):
        process(database.connection, SENSOR, value + number % 3, START + timedelta(minutes=number))


def test_databases_share_no_sensor(cluster):
    one, two = with_the_sensor(cluster), with_the_sensor(cluster)
    try:
        fill(one, 20)
        offered = two.value("SELECT offered FROM iot.iot_stat_ingest")
        fill(two, 500)
        assert two.value("SELECT offered FROM iot.iot_stat_ingest") == offered + 10
        for database in (one, two, one):
            assert_scores_follow_the_rows(database, [SENSOR])
        one.execute("TRUNCATE iot.sensor_data")
        before = two.value("SELECT window_reads FROM iot.iot_stat_ingest")
        assert_scores_follow_the_rows(two, [SENSOR])
        assert two.value("SELECT window_reads FROM iot.iot_stat_ingest") == before, "what happens elsewhere costs nothing"
        assert_scores_follow_the_rows(one, [SENSOR])
    finally:
        one.drop()
        two.drop()


def test_a_database_made_anew_under_the_same_name(cluster):
    name = "made_anew"
    for value in (20, 500):
        database = with_the_sensor(cluster, name)
        try:
            assert_scores_follow_the_rows(database, [SENSOR])
            fill(database, value)
            assert_scores_follow_the_rows(database, [SENSOR])
        finally:
            database.drop()


def test_a_copy_of_a_database_goes_its_own_way(cluster):
    one = with_the_sensor(cluster)
    two = None
    try:
        fill(one, 20)
        one.connection.close()
        with cluster.connect() as connection:
            connection.execute(f"CREATE DATABASE copied TEMPLATE {one.name}")
        two = object.__new__(Database)
        two.cluster, two.name, two._connection = cluster, "copied", None
        process(two.connection, SENSOR, 90, START + timedelta(minutes=30))
        for database in (one, two):
            assert_scores_follow_the_rows(database, [SENSOR])
    finally:
        one.drop()
        if two:
            two.drop()


def resident(connection):
    """Private memory of the session's backend, in kB."""
    with open(f"/proc/{connection.info.backend_pid}/status", encoding="ascii") as status:
        (kilobytes,) = [int(line.split()[1]) for line in status if line.startswith("RssAnon")]
    return kilobytes


def copy(connection, first, count):
    with connection.cursor() as cursor, cursor.copy(
            "COPY iot.readings (sensor_id, measurement_timestamp, measurement_value) FROM STDIN") as stream:
        for second in range(first, first + count):
            stream.write(f"{SENSOR}\t{START + timedelta(seconds=second)}\t{second % 17}\n")


def ingest(connection, first, count):
    connection.execute(
        "SELECT iot.ingest(array_agg(%s::uuid), array_agg(%s::timestamptz + second * interval '1 second'),"
        " array_agg((second %% 17)::float8)) FROM generate_series(%s::int, %s) second",
        (SENSOR, START, first, first + count - 1))


@pytest.mark.parametrize("road", [copy, ingest])
def test_memory_does_not_grow_with_the_batch(cluster, road):
    database = with_the_sensor(cluster)
    try:
        with database.connect() as connection:
            road(connection, 0, 30_000)
            before = resident(connection)
            road(connection, 30_000, 300_000)
            # The arrays themselves are 10 MB, and their making takes some more; malloc may keep all of that.
            bound = 60_000 if road is ingest else 10_000
            assert resident(connection) - before < bound, f"{before} kB became {resident(connection)} kB"
        assert database.value("SELECT count(*) FROM iot.sensor_data") == 330_000
        assert_scores_follow_the_rows(database, [SENSOR])
    finally:
        database.drop()
