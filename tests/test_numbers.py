"""Numbers in text: every road that reads a text as a number reads the same ones, and says the same of the others."""

import json
import math

import pytest

from factory import add_sensor

MALFORMED, OUT_OF_RANGE, NOT_FINITE = ("malformed", "22P02"), ("out_of_range", "22003"), ("not_finite", "22003")

SPELLINGS = [
    ("5", 5.0), ("-0.5", -0.5), ("+5", 5.0), (" 5 ", 5.0), ("\t5\n", 5.0), ("007", 7.0), (".5", 0.5), ("5.", 5.0),
    ("1e3", 1000.0), ("1E+3", 1000.0), ("1.5e-3", 0.0015), ("0e999", 0.0), ("-0", 0.0), ("5e-324", 5e-324),
    ("1.7976931348623157e308", 1.7976931348623157e308),
    ("NaN", NOT_FINITE), ("nan", NOT_FINITE), ("Infinity", NOT_FINITE), ("-infinity", NOT_FINITE), ("+inf", NOT_FINITE),
    ("1e999", OUT_OF_RANGE), ("-1e999", OUT_OF_RANGE), ("1e-999", OUT_OF_RANGE),
    ("0x1F", MALFORMED), ("1_000", MALFORMED), ("1,5", MALFORMED), ("1 000", MALFORMED), ("--1", MALFORMED),
    ("1e", MALFORMED), ("e5", MALFORMED), (".", MALFORMED), (" ", MALFORMED), ("-NaN", MALFORMED), ("five", MALFORMED),
    ("21.5 degC", MALFORMED), ("\u0665", MALFORMED),
]


def by_message(key):
    def offer(connection, sensor, text):
        connection.execute("SELECT iot.ingest(%s::jsonb)", (json.dumps({"sensor_id": str(sensor), key: text}),))
    return offer


def by_row(table, column):
    def offer(connection, sensor, text):
        connection.execute(f"INSERT INTO {table} (sensor_id, {column}) VALUES (%s, %s)", (str(sensor), text))
    return offer


def by_copy(connection, sensor, text):
    with connection.cursor().copy("COPY iot.raw_readings (sensor_id, measurement_value) FROM STDIN") as stream:
        stream.write_row((str(sensor), text))


ROADS = {
    "raw_readings.measurement_value": by_row("iot.raw_readings", "measurement_value"),
    "raw_readings.text_value": by_row("iot.raw_readings", "text_value"),
    "readings.text_value": by_row("iot.readings", "text_value"),
    "COPY raw_readings": by_copy,
    "message measurement_value": by_message("measurement_value"),
    "message value": by_message("value"),
    "message numeric_value": by_message("numeric_value"),
    "message text_value": by_message("text_value"),
}


def outcome(connection):
    """What became of the one reading offered: its value, or reason and SQLSTATE."""
    stored = connection.execute("SELECT measurement_value FROM iot.sensor_data WHERE text_value IS NULL").fetchall()
    refused = connection.execute("SELECT reason, sqlstate FROM iot.rejected_readings").fetchall()
    (found,) = [value for value, in stored] + refused
    return found


@pytest.mark.parametrize("road", ROADS)
def test_a_spelling_means_the_same_on_every_road(database, road):
    _, sensor = add_sensor(database)
    found = {}
    for text, _ in SPELLINGS:
        with database.connect(autocommit=False) as connection:
            ROADS[road](connection, sensor, text)
            found[text] = outcome(connection)
            connection.rollback()
    assert found == dict(SPELLINGS)


@pytest.mark.parametrize("road", ROADS)
def test_a_refused_number_is_refused_again_until_it_is_mended(database, road):
    """Whatever its road was; what stood beside it stays what it was."""
    _, sensor = add_sensor(database)
    for text, (reason, sqlstate) in [("1,5", MALFORMED), ("1e999", OUT_OF_RANGE)]:
        ROADS[road](database.connection, sensor, text)
        for _ in range(2):
            assert database.rows("SELECT reason, sqlstate FROM iot.rejected_readings WHERE replayed_at IS NULL") == [
                (reason, sqlstate)]
            assert database.row("SELECT * FROM iot.replay_rejected()") == (1, 0, 1, 0)
        database.execute("UPDATE iot.rejected_readings SET reading ="
                         " replace(replace(reading::text, '1,5', ' +1.5 '), '1e999', '2e0')::jsonb WHERE replayed_at IS NULL")
        assert database.row("SELECT * FROM iot.replay_rejected()") == (1, 1, 0, 0)
    assert database.rows("SELECT measurement_value, text_value FROM iot.sensor_data ORDER BY 1") == [(1.5, None), (2.0, None)]


def test_metadata_that_are_a_text_stay_one_when_the_message_is_offered_again(database):
    _, sensor = add_sensor(database)
    for metadata in ("ward 3", "3"):
        database.execute("SELECT iot.ingest(%s::jsonb)", (json.dumps(
            {"sensor_id": str(sensor), "measurement_value": "1,5", "measurement_metadata": metadata}),))
    database.execute("UPDATE iot.rejected_readings SET reading = reading || '{\"measurement_value\": \"1.5\"}'")
    assert database.row("SELECT * FROM iot.replay_rejected()") == (2, 2, 0, 0)
    assert database.rows("SELECT measurement_metadata FROM iot.sensor_data ORDER BY 1") == [("3",), ("ward 3",)]


def test_a_sensor_registered_by_a_text_takes_numbers_where_that_is_one(database):
    for text, kind in [(" 5 ", "numeric"), ("NaN", "numeric"), ("five", "text")]:
        database.execute("SELECT iot.ingest(%s::jsonb, register_unknown => true)", (json.dumps(
            {"deviceId": f"line {text}", "sensorType": "temperature", "value": text}),))
        assert database.value("SELECT value_type FROM iot.sensors s JOIN iot.devices d USING (device_id)"
                              " WHERE external_id = %s", (f"line {text}",)) == kind


def test_typed_columns_and_arguments_are_read_by_postgresql(database):
    """And come as numbers; what is no finite one is refused as everywhere."""
    _, sensor = add_sensor(database)
    for text in ("NaN", "Infinity"):
        for statement in ("INSERT INTO iot.readings (sensor_id, measurement_value) VALUES (%s, %s)",
                          "SELECT iot.ingest(ARRAY[%s]::uuid[], ARRAY[now()], ARRAY[%s]::float8[])"):
            database.execute(statement, (sensor, text))
    assert database.rows("SELECT DISTINCT reason, sqlstate FROM iot.rejected_readings") == [NOT_FINITE]
    values = [value for value, in database.rows("SELECT measurement_value FROM iot.rejected_readings")]
    assert len(values) == 4 and not any(math.isfinite(value) for value in values)
