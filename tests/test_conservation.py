"""What is offered is stored, a duplicate, or rejected: in the answers, in the tables, and in iot_stat_ingest."""

import contextlib

import psycopg
import pytest
from psycopg.errors import NullValueNotAllowed

from factory import add_sensor

COUNTED = "SELECT offered, stored, duplicates, rejected FROM iot.iot_stat_ingest"
KEPT = "SELECT reason, sqlstate, sensor_id, reading FROM iot.rejected_readings ORDER BY reason, sqlstate"


@pytest.fixture
def sensor(own_database):
    return add_sensor(own_database)[1]


@pytest.fixture
def own_database(database):
    """Counters are those of the server: nobody else may count meanwhile."""
    database.execute("SELECT iot.iot_stat_reset()")
    return database


def test_null_elements_of_arrays_stand_for_nothing(own_database, sensor):
    """Not even for a sensor whose key has no bit set."""
    nil = "00000000-0000-0000-0000-000000000000"
    own_database.execute(
        "INSERT INTO iot.sensors (sensor_id, device_id, sensor_name, sensor_type, unit_of_measure)"
        f" SELECT '{nil}', device_id, 'nil', 'temperature', 'degC' FROM iot.devices LIMIT 1")
    totals = own_database.row(
        "SELECT accepted, rejected FROM iot.ingest(ARRAY[NULL, %s, %s]::uuid[], ARRAY[now(), now(), now()],"
        " ARRAY[66, NULL, 20]::float8[])", (sensor, sensor))
    assert totals == (1, 2)
    kept = own_database.rows(KEPT)
    assert [(reason, sqlstate, sensor_id) for reason, sqlstate, sensor_id, _ in kept] == [
        ("missing_sensor", "22004", None), ("missing_value", "22004", sensor)]
    assert "sensor_id" not in kept[0][3] and "measurement_value" not in kept[1][3]
    own_database.execute("SET iot_ext.strict = on")
    with pytest.raises(NullValueNotAllowed):
        own_database.execute("SELECT iot.ingest(ARRAY[NULL]::uuid[], ARRAY[now()], ARRAY[66::float8])")
    own_database.execute("RESET iot_ext.strict")


@pytest.mark.parametrize(("statement", "expected"), [
    ("SELECT iot.ingest('[null]'::jsonb)", (1, 0, 0, 1)),
    ("SELECT iot.ingest(ARRAY[NULL, '{s}']::uuid[], ARRAY[now(), now()], ARRAY[1, 'NaN']::float8[])", (2, 0, 0, 2)),
    ("INSERT INTO iot.raw_readings (sensor_id, measurement_value) VALUES ('{s}', 'abc'), ('{s}', '1')", (2, 1, 0, 1)),
    ("INSERT INTO iot.readings (sensor_id, measurement_value) VALUES (NULL, 1), ('{s}', NULL), ('{s}', 'Infinity')",
     (3, 0, 0, 3)),
    ("INSERT INTO iot.readings (sensor_id, measurement_value, text_value) VALUES ('{s}', 1, 'one')", (1, 0, 0, 1)),
])
def test_the_counters_conserve(own_database, sensor, statement, expected):
    own_database.execute(statement.replace("{s}", str(sensor)))
    assert own_database.row(COUNTED) == expected
    assert own_database.value("SELECT count(*) FROM iot.rejected_readings") == expected[3]


def test_readings_offered_again_are_counted_again(own_database, sensor):
    own_database.execute(
        f"INSERT INTO iot.raw_readings (sensor_id, measurement_value) VALUES ('{sensor}', 'abc'), ('{sensor}', 'NaN')")
    own_database.execute("SELECT iot.iot_stat_reset()")
    own_database.execute("SELECT iot.replay_rejected()")
    assert own_database.row(COUNTED) == (2, 0, 0, 2)


def test_a_number_that_came_as_text_is_a_number(own_database, sensor):
    own_database.execute("SELECT iot.ingest(jsonb_build_object('sensor_id', %s::uuid, 'value', '55.5'))", (sensor,))
    assert own_database.row("SELECT measurement_value, text_value FROM iot.sensor_data") == (55.5, None)


STATEMENTS = [
    "SELECT iot.process_sensor_data({s}, {v})",
    "SELECT * FROM iot.process_sensor_data_ex({s}, {v})",
    "SELECT iot.ingest(ARRAY['{k}', {s}]::uuid[], ARRAY[now(), now()], ARRAY[1, {v}]::float8[])",
    "SELECT iot.ingest(jsonb_build_array(jsonb_build_object('sensor_id', '{k}', 'value', 1),"
    " jsonb_build_object('sensor_id', {s}::text, 'value', {v}::text)))",
    "INSERT INTO iot.readings (sensor_id, measurement_value) VALUES ('{k}', 1), ({s}, {v})",
    "INSERT INTO iot.raw_readings (sensor_id, measurement_value) VALUES ('{k}', '1'), ({s}, {v}::text)",
]


@pytest.mark.parametrize("strict", ["on", "off"])
@pytest.mark.parametrize("statement", STATEMENTS)
def test_the_counters_conserve_when_a_statement_fails(own_database, sensor, statement, strict):
    """Whether it fails over what was refused, or over something else after that."""
    nobody = "'00000000-0000-0000-0000-000000000001'"
    own_database.execute(f"SET iot_ext.strict = {strict}")
    expected = 0
    for s, v in [(f"'{sensor}'", "'NaN'::float8"), (f"'{sensor}'", "NULL::float8"), ("NULL", "1"), (nobody, "1")]:
        offer = statement.format(s=s, v=v, k=sensor)
        fails = strict == "on" or "process" in statement
        before = own_database.row(COUNTED)
        with own_database.connect() as connection:
            connection.execute(f"SET iot_ext.strict = {strict}")
            with pytest.raises(psycopg.Error) if fails else contextlib.nullcontext():
                connection.execute(offer)
            with pytest.raises(psycopg.errors.DivisionByZero), connection.transaction():
                try:
                    with connection.transaction():
                        connection.execute(offer)
                except psycopg.Error as error:
                    assert fails, error
                connection.execute("SELECT 1 / 0")
        offered, stored, duplicates, rejected = own_database.row(COUNTED)
        assert offered == stored + duplicates + rejected
        # Twice the same; a reading that was held back when the statement failed had not reached the engine.
        assert rejected == before[3] + 2, offer
        expected += 2 if not fails else 0
    assert own_database.value("SELECT count(*) FROM iot.rejected_readings") == expected // 2


def test_what_was_rolled_back_stays_counted_as_stored(own_database, sensor):
    with own_database.connect(autocommit=False) as connection:
        connection.execute("SELECT iot.process_sensor_data(%s, 1)", (sensor,))
        connection.rollback()
    assert own_database.row(COUNTED) == (1, 1, 0, 0)
    assert own_database.value("SELECT count(*) FROM iot.sensor_data") == 0


def test_a_failure_in_the_midst_of_a_batch_counts_nothing(own_database, sensor):
    own_database.execute("ALTER TABLE iot.sensor_data ADD CONSTRAINT small CHECK (measurement_value < 100)")
    with pytest.raises(psycopg.errors.CheckViolation):
        own_database.execute("SELECT iot.ingest(ARRAY[%s, %s]::uuid[], ARRAY[now(), now()], ARRAY[1, 'NaN']::float8[])",
                             (sensor, sensor))
        own_database.execute("SELECT iot.ingest(ARRAY[%s, %s]::uuid[], ARRAY[now(), now()], ARRAY[100, 'NaN']::float8[])",
                             (sensor, sensor))
    assert own_database.row(COUNTED) == (2, 1, 0, 1)
