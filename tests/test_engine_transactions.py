"""What did not commit leaves no trace in scores, and what plain SQL did to readings is followed by the next score."""

from datetime import timedelta

import psycopg
import pytest

from cluster import Cluster, Database
from factory import add_sensor, process
from roads import BATCH_ROADS, ROADS, START, Reading, assert_scores_follow_the_rows, probe


def minute(number):
    return START + timedelta(minutes=number)


def some(sensor, first, count=5, value=60):
    """Readings unlike the usual ones, so that a trace of them shows."""
    return [Reading(sensor, minute(first + number), float(value + number)) for number in range(count)]


def fresh(database):
    """A sensor with usual readings in shared memory, and a partition for more."""
    database.execute("SELECT iot.create_monthly_partition('iot.sensor_data', 2026, 1)")
    device, sensor = add_sensor(database)
    for number in range(10):
        process(database.connection, sensor, 20 + number % 3, minute(number))
    return device, sensor


@pytest.fixture
def sensor(database):
    return fresh(database)[1]


def assert_unchanged(database, sensor):
    assert database.value("SELECT count(*) FROM iot.sensor_data") == 10
    assert_scores_follow_the_rows(database, [sensor])


@pytest.mark.parametrize("road", ROADS)
def test_a_rolled_back_transaction_leaves_no_trace(database, sensor, road):
    with database.connect(autocommit=False) as connection:
        connection.execute("SELECT 1")
        road(connection, some(sensor, 100))
        road(connection, some(sensor, 2_000))
        connection.rollback()
        found, expected = probe(connection, sensor, minute(20))
        assert abs(found - expected) < 1e-9
        connection.rollback()
    assert_unchanged(database, sensor)


@pytest.mark.parametrize("road", BATCH_ROADS)
def test_a_failed_statement_leaves_no_trace(database, sensor, road):
    with database.connect() as connection:
        connection.execute("SET iot_ext.strict = on")
        # In JSON, NaN can only be a text.
        with pytest.raises((psycopg.errors.NumericValueOutOfRange, psycopg.errors.DatatypeMismatch)):
            road(connection, [*some(sensor, 100), Reading(sensor, minute(200), float("nan"))])
    assert_unchanged(database, sensor)


@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize("road", ROADS)
def test_savepoints(database, road, tracked):
    """Nested, released, rolled back, used twice; with the sensor's state in memory before or not."""
    if tracked:
        _, sensor = fresh(database)
    else:
        database.execute("SELECT iot.create_monthly_partition('iot.sensor_data', 2026, 1)")
        _, sensor = add_sensor(database)

    def assert_true(connection):
        connection.execute("SAVEPOINT looking")
        found, expected = probe(connection, sensor, minute(3_000))
        connection.execute("ROLLBACK TO SAVEPOINT looking; RELEASE SAVEPOINT looking")
        assert abs(found - expected) < 1e-9

    with database.connect(autocommit=False) as connection:
        connection.execute("SAVEPOINT one")
        road(connection, some(sensor, 100))
        connection.execute("SAVEPOINT two")
        road(connection, some(sensor, 200, value=90))
        assert_true(connection)
        connection.execute("ROLLBACK TO SAVEPOINT two")
        assert_true(connection)
        road(connection, some(sensor, 300, value=40))
        connection.execute("SAVEPOINT three")
        road(connection, some(sensor, 400, value=10))
        connection.execute("RELEASE SAVEPOINT three")
        connection.execute("RELEASE SAVEPOINT two")
        assert_true(connection)
        connection.execute("SAVEPOINT four")
        road(connection, some(sensor, 500, value=-50))
        connection.execute("SAVEPOINT five")
        road(connection, some(sensor, 600, value=-70))
        connection.execute("RELEASE SAVEPOINT five")
        connection.execute("ROLLBACK TO SAVEPOINT four")
        assert_true(connection)
        connection.commit()
    assert database.value("SELECT count(*) FROM iot.sensor_data") == (25 if tracked else 15)
    assert_scores_follow_the_rows(database, [sensor])
    with database.connect(autocommit=False) as connection:
        connection.execute("SAVEPOINT one")
        road(connection, some(sensor, 700))
        connection.execute("SAVEPOINT two")
        road(connection, some(sensor, 800))
        connection.execute("ROLLBACK TO SAVEPOINT one")
        connection.commit()
    assert database.value("SELECT count(*) FROM iot.sensor_data") == (25 if tracked else 15)
    assert_scores_follow_the_rows(database, [sensor])


def test_exception_blocks(database, sensor):
    database.execute(f"""
        DO $$
        BEGIN
            FOR round IN 1 .. 20 LOOP
                BEGIN
                    PERFORM iot.process_sensor_data('{sensor}', 60, '{{}}', '2026-01-05 03:00+00'::timestamptz + round * interval '1 min');
                    BEGIN
                        PERFORM iot.process_sensor_data('{sensor}', 90, '{{}}', '2026-01-05 05:00+00'::timestamptz + round * interval '1 min');
                        PERFORM 1 / 0;
                    EXCEPTION WHEN division_by_zero THEN NULL;
                    END;
                    IF round > 2 THEN
                        PERFORM iot.process_sensor_data('{sensor}', 'NaN');
                    END IF;
                EXCEPTION WHEN numeric_value_out_of_range THEN NULL;
                END;
            END LOOP;
        END $$""")
    assert database.value("SELECT count(*) FROM iot.sensor_data") == 12
    assert_scores_follow_the_rows(database, [sensor])


@pytest.mark.parametrize("road", ROADS)
def test_a_transaction_with_readings_cannot_be_prepared(database, sensor, road):
    with database.connect() as connection:
        connection.execute("BEGIN")
        road(connection, some(sensor, 100))
        with pytest.raises(psycopg.errors.FeatureNotSupported) as refused:
            connection.execute("PREPARE TRANSACTION 'readings'")
        assert refused.value.diag.message_hint
        connection.execute("BEGIN")
        connection.execute("PREPARE TRANSACTION 'nothing'")
        connection.execute("COMMIT PREPARED 'nothing'")
    assert_unchanged(database, sensor)


@pytest.mark.parametrize("how", ["kill -9", "terminate"])
def test_a_session_that_dies_in_its_transaction_leaves_no_trace(how):
    with Cluster() as cluster:
        database = Database(cluster)
        database.execute("CREATE EXTENSION iot_ext")
        database.execute("SELECT iot.setup()")
        _, sensor = fresh(database)
        connection = database.connect(autocommit=False)
        connection.execute("SAVEPOINT one")
        for road in ROADS:
            road(connection, some(sensor, 100 + 10 * ROADS.index(road)))
        process(connection, sensor, 5, minute(1_000))
        if how == "kill -9":
            cluster.kill9(connection.info.backend_pid)
            cluster.wait_ready()
            database.connection.close()
        else:
            database.execute("SELECT pg_terminate_backend(%s, 30000)", (connection.info.backend_pid,))
        connection.close()
        assert_unchanged(database, sensor)
        process(database.connection, sensor, 25, minute(20))
        assert_scores_follow_the_rows(database, [sensor])


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_transaction_with_an_old_snapshot(database, sensor, level):
    """It scores by what it sees, and what it commits joins what others committed meanwhile."""
    with database.connect(autocommit=False) as old:
        old.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        old.execute("SELECT count(*) FROM iot.sensors")
        for reading in some(sensor, 100):
            process(database.connection, sensor, reading.value, reading.at)
        process(old, sensor, 21, minute(20))
        process(old, sensor, 22, minute(21))
        old.execute("SAVEPOINT one")
        process(old, sensor, 99, minute(22))
        old.execute("ROLLBACK TO SAVEPOINT one")
        process(database.connection, sensor, 70, minute(300))
        old.commit()
    assert_scores_follow_the_rows(database, [sensor])


PLAIN = {
    "INSERT": """
        INSERT INTO iot.sensor_data (sensor_id, device_id, measurement_timestamp, measurement_value, measurement_unit)
        SELECT sensor_id, device_id, '2026-01-05 01:00+00', 70, 'degC' FROM iot.sensors""",
    "COPY": None,
    "UPDATE of a value": "UPDATE iot.sensor_data SET measurement_value = 80 WHERE measurement_value = 21",
    "UPDATE of a time": "UPDATE iot.sensor_data SET measurement_timestamp = measurement_timestamp - interval '2 days'"
                        " WHERE measurement_value = 21",
    "UPDATE of the sensor": "UPDATE iot.sensor_data SET sensor_id = (SELECT sensor_id FROM iot.sensors WHERE sensor_name ="
                            " 'other') WHERE measurement_value = 21",
    "UPDATE of the quality": "UPDATE iot.sensor_data SET quality_flags = 64 WHERE measurement_value = 21",
    "DELETE": "DELETE FROM iot.sensor_data WHERE measurement_value = 21",
    "TRUNCATE": "TRUNCATE iot.sensor_data",
    "MERGE": "MERGE INTO iot.sensor_data d USING iot.sensors s ON s.sensor_id = d.sensor_id AND measurement_value = 21"
             " WHEN MATCHED THEN DELETE",
}


def run_plain(connection, device, sensor, name):
    if name != "COPY":
        connection.execute(PLAIN[name])
        return
    with connection.cursor() as cursor, cursor.copy(
            "COPY iot.sensor_data (sensor_id, device_id, measurement_timestamp, measurement_value, measurement_unit)"
            " FROM STDIN") as stream:
        stream.write_row((str(sensor), str(device), minute(70).isoformat(), "70", "degC"))


@pytest.mark.parametrize("end", ["commit", "rollback", "savepoint"])
@pytest.mark.parametrize("name", PLAIN)
def test_scores_follow_plain_sql(database, name, end):
    device, sensor = fresh(database)
    other = database.value(
        "INSERT INTO iot.sensors (device_id, sensor_name, sensor_type, unit_of_measure)"
        " VALUES (%s, 'other', 'temperature', 'degC') RETURNING sensor_id", (device,))
    for number in range(20, 23):
        process(database.connection, other, number, minute(20_000 if name == "INSERT" else number))
    with database.connect(autocommit=False) as connection:
        process(connection, sensor, 23, minute(30))
        if end == "savepoint":
            connection.execute("SAVEPOINT plain")
        run_plain(connection, device, sensor, name)
        for which in (sensor, other):
            connection.execute("SAVEPOINT looking")
            found, expected = probe(connection, which, minute(100))
            assert abs(found - expected) < 1e-9, which
            connection.execute("ROLLBACK TO SAVEPOINT looking")
        if end == "savepoint":
            connection.execute("ROLLBACK TO SAVEPOINT plain")
            process(connection, sensor, 24, minute(31))
        connection.rollback() if end == "rollback" else connection.commit()
    assert_scores_follow_the_rows(database, [sensor, other])
    process(database.connection, sensor, 21, minute(120))
    assert_scores_follow_the_rows(database, [sensor, other])
