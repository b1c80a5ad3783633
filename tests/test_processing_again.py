"""Results of processing rules follow readings that are replaced or calibrated anew, whoever else is at work."""

import threading

import psycopg
import pytest

from cluster import wait_until
from documents import ROOT, sql_blocks
from factory import add_sensor, process
from test_processing import ROLE, add_processing_rule, outputs
from test_sessions import run_together


@pytest.fixture
def last(database):
    """The device and sensor of a database in which the last of several readings counts."""
    database.execute("SELECT iot.setup(duplicates => 'last')")
    return add_sensor(database)


def second_sensor(database, device, name):
    return database.value(
        "INSERT INTO iot.sensors (device_id, sensor_name, sensor_type, unit_of_measure)"
        " VALUES (%s, %s, %s, 'x') RETURNING sensor_id", (device, name, name))


def correct(database, sensor, calibration):
    database.execute(
        "UPDATE iot.sensor_calibrations SET calibration_data = %s WHERE sensor_id = %s", (calibration, sensor))


def meanwhile(database, first, work):
    """Runs `work` in another session, which waits for `first`, and commits that then."""
    failures = []

    def run():
        try:
            with database.connect() as connection:
                work(connection)
        except psycopg.Error as error:
            failures.append(error)

    waiting = threading.Thread(target=run)
    waiting.start()
    wait_until(lambda: database.value("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1, what="the wait")
    first.commit()
    waiting.join(30)
    assert not waiting.is_alive() and failures == []


def wrong_averages(database, readings):
    """How many results differ from the mean of the newest stored readings."""
    return database.value(
        "SELECT count(*) FROM (SELECT p.processed_value, avg(r.measurement_value) OVER ("
        "    PARTITION BY r.sensor_id ORDER BY measurement_timestamp"
        f"   ROWS BETWEEN {readings - 1} PRECEDING AND CURRENT ROW) AS mean"
        "  FROM iot.sensor_data r LEFT JOIN iot.processed_data p USING (data_id, measurement_timestamp)) x"
        " WHERE processed_value IS NULL OR abs(processed_value - mean) > 1e-6")


def test_a_reading_of_another_sensor_waits_for_the_replacement_that_it_reads(database, last):
    device, sensor = last
    humidity = second_sensor(database, device, "humidity")
    add_processing_rule(database, "sum", "expression", {"expression": "t + h", "inputs": {
        "t": {"sensor_type": "temperature"}, "h": {"sensor_type": "humidity"}}}, None)
    process(database.connection, sensor, 1, "2026-01-05 12:00+00")
    process(database.connection, humidity, 10, "2026-01-05 12:01+00")
    with database.connect(autocommit=False) as first:
        process(first, sensor, 5, "2026-01-05 12:00+00")
        meanwhile(database, first, lambda second: process(second, humidity, 20, "2026-01-05 12:02+00"))
    assert outputs(database, "sum") == [15, 25]
    # And the other way round: who replaces it waits for the reading that has read it.
    with database.connect(autocommit=False) as first:
        process(first, humidity, 30, "2026-01-05 12:03+00")
        meanwhile(database, first, lambda second: process(second, sensor, 7, "2026-01-05 12:00+00"))
    assert outputs(database, "sum") == [17, 27, 37]


@pytest.mark.parametrize("remembers", [False, True])
def test_of_two_sessions_with_one_reading_the_last_counts(database, last, remembers):
    _, sensor = last
    add_processing_rule(database, "double", "scale", {"factor": 2})
    if remembers:
        add_processing_rule(database, "smooth", "moving_average", {"readings": 2})
    process(database.connection, sensor, 0, "2026-01-05 11:59+00")
    with database.connect(autocommit=False) as first:
        process(first, sensor, 10, "2026-01-05 12:00+00")
        meanwhile(database, first, lambda second: process(second, sensor, 20, "2026-01-05 12:00+00"))
    assert outputs(database, "double") == [0, 40]
    assert not remembers or outputs(database, "smooth") == [0, 10]
    process(database.connection, sensor, 40, "2026-01-05 12:01+00")
    assert not remembers or outputs(database, "smooth") == [0, 10, 30]


def test_sessions_that_replace_each_others_readings(database, last):
    """Whatever their order was, results are those of the readings that are left."""
    device, sensor = last
    humidity = second_sensor(database, device, "humidity")
    add_processing_rule(database, "smooth", "moving_average", {"readings": 3}, None)
    add_processing_rule(database, "sum", "expression", {"expression": "t + h", "inputs": {
        "t": {"sensor_type": "temperature"}, "h": {"sensor_type": "humidity"}}}, None)

    def work(connection, number):
        for step in range(15):
            for each in (sensor, humidity):
                process(connection, each, 100 * number + step, f"2026-01-05 12:{(7 * step + number) % 10:02}+00")

    run_together(database, 4, work)
    wrong = database.rows(
        "SELECT * FROM (SELECT p.processed_value, avg(r.measurement_value) OVER ("
        "    PARTITION BY r.sensor_id ORDER BY r.measurement_timestamp ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS mean"
        "  FROM iot.sensor_data r LEFT JOIN iot.processed_data p"
        "    ON p.sensor_id = r.sensor_id AND p.measurement_timestamp = r.measurement_timestamp"
        "   AND p.output_name = 'smooth') x WHERE abs(processed_value - mean) > 1e-6")
    assert wrong == []
    assert database.rows(
        "SELECT p.measurement_timestamp FROM iot.processed_data p"
        "  JOIN iot.sensor_data t ON t.sensor_id = %s AND t.measurement_timestamp = p.measurement_timestamp"
        "  JOIN iot.sensor_data h ON h.sensor_id = %s AND h.measurement_timestamp = p.measurement_timestamp"
        " WHERE output_name = 'sum' AND processed_value <> t.measurement_value + h.measurement_value",
        (sensor, humidity)) == []
    assert database.value("SELECT count(*) FROM iot.processed_data WHERE output_name = 'sum'") == 10


def test_results_follow_each_batch_of_a_recalibration(database):
    _, sensor = add_sensor(database)
    add_processing_rule(database, "smooth", "moving_average", {"readings": 50})
    database.execute(
        "INSERT INTO iot.readings (sensor_id, measurement_timestamp, measurement_value)"
        " SELECT %s, timestamptz '2026-01-05 00:00+00' + n * interval '1 minute', n FROM generate_series(0, 14999) n",
        (sensor,))
    assert wrong_averages(database, 50) == 0
    # The second batch meets a value that the calibration cannot take: results of the first one are right, of those after
    # it too.
    database.execute("UPDATE iot.sensor_data SET measurement_value = 1e308 WHERE measurement_value = 12000")
    correct(database, sensor, '{"multiplier": 10}')
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        database.execute("CALL iot.recalibrate(%s)", (sensor,))
    assert database.value("SELECT count(*) FROM iot.sensor_data WHERE raw_value IS NOT NULL") == 9_999
    database.execute("UPDATE iot.sensor_data SET measurement_value = 12000 WHERE measurement_value = 1e308")
    assert wrong_averages(database, 50) == 0
    assert database.row("CALL iot.recalibrate(%s)", (sensor,))[:2] == (15_000, 5_000)
    assert wrong_averages(database, 50) == 0
    process(database.connection, sensor, 1, "2026-01-20 00:00+00")
    assert wrong_averages(database, 50) == 0


def test_a_recalibration_waits_for_a_reading_on_its_way(database):
    _, sensor = add_sensor(database)
    add_processing_rule(database, "smooth", "moving_average", {"readings": 3})
    for minute in range(5):
        process(database.connection, sensor, minute, f"2026-01-05 12:{minute:02}+00")
    with database.connect(autocommit=False) as first:
        process(first, sensor, 50, "2026-01-05 12:05+00")
        correct(database, sensor, '{"offset": 100}')
        meanwhile(database, first, lambda second: second.execute("CALL iot.recalibrate(%s)", (sensor,)))
    assert wrong_averages(database, 3) == 0
    process(database.connection, sensor, 60, "2026-01-05 12:06+00")
    assert wrong_averages(database, 3) == 0
    assert outputs(database, "smooth")[-1] == pytest.approx((104 + 150 + 160) / 3)


def test_it_takes_no_more_privileges_than_storing(database, last):
    (grants,) = [block.text for block in sql_blocks(ROOT / "README.md") if f"CREATE ROLE {ROLE}" in block.text]
    database.psql(grants)
    try:
        _, sensor = last
        # As docs/ingest.md says of this policy.
        database.execute(f"GRANT UPDATE ON iot.sensor_data TO {ROLE}")
        add_processing_rule(database, "smooth", "moving_average", {"readings": 2})
        with database.connect(ROLE) as connection:
            for value in (1, 3, 5):
                process(connection, sensor, value, f"2023-02-03 00:{value:02}+00")
            process(connection, sensor, 7, "2023-02-03 00:03+00")
        assert outputs(database, "smooth") == [1, 4, 6]
    finally:
        database.execute(f"DROP OWNED BY {ROLE}")
        database.execute(f"DROP ROLE {ROLE}")


def test_another_session_goes_on_from_the_replacement(database, last):
    _, sensor = last
    add_processing_rule(database, "change", "difference", {})
    with database.connect() as session:
        process(session, sensor, 1, "2026-01-05 12:00+00")
        process(session, sensor, 5, "2026-01-05 12:01+00")
        process(session, sensor, 9, "2026-01-05 12:01+00")
    with database.connect() as another:
        process(another, sensor, 10, "2026-01-05 12:02+00")
    assert outputs(database, "change") == [8, 1]
