"""The roads that readings take into the engine, and the 24-hour rule of docs/ingest.md in plain SQL to check it against."""

import json
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

import psycopg

START = datetime(2026, 1, 5, tzinfo=timezone.utc)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Reading:
    """A reading as a gateway has it. `sensor` is a uuid."""

    sensor: object
    at: datetime
    value: float
    metadata: dict = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Totals:
    """What a road made of a batch."""

    stored: int = 0
    duplicates: int = 0
    rejected: int = 0

    def __add__(self, other):
        return Totals(
            self.stored + other.stored, self.duplicates + other.duplicates, self.rejected + other.rejected)

    @property
    def offered(self):
        return self.stored + self.duplicates + self.rejected


def by_single_calls(connection, readings):
    """One call of process_sensor_data_ex each; an error that concerns the reading alone counts as rejected."""
    totals = Totals()
    for reading in readings:
        try:
            with connection.transaction():
                (is_duplicate,) = connection.execute(
                    "SELECT is_duplicate FROM iot.process_sensor_data_ex(%s, %s::float8, %s, %s)",
                    (reading.sensor, reading.value, json.dumps(reading.metadata), reading.at)).fetchone()
            totals += Totals(duplicates=1) if is_duplicate else Totals(stored=1)
        except (psycopg.errors.UndefinedObject, psycopg.errors.NumericValueOutOfRange,
                psycopg.errors.DatetimeFieldOverflow, psycopg.errors.ObjectNotInPrerequisiteState):
            totals += Totals(rejected=1)
    return totals


def by_arrays(connection, readings):
    """iot.ingest of arrays."""
    return _totals(connection.execute(
        "SELECT accepted, duplicates, rejected FROM iot.ingest(%s::uuid[], %s::timestamptz[], %s::float8[], %s::jsonb[])",
        _arrays(readings)))


def by_json(connection, readings):
    """iot.ingest of a document; NaN has no form in JSON but a text."""
    document = [{
        "sensor_id": str(reading.sensor), "measurement_timestamp": reading.at.isoformat(),
        "measurement_value": reading.value if abs(reading.value) < float("inf") else str(reading.value),
        "measurement_metadata": reading.metadata} for reading in readings]
    return _totals(connection.execute(
        "SELECT accepted, duplicates, rejected FROM iot.ingest(%s::jsonb)", (json.dumps(document),)))


def by_insert(connection, readings):
    """INSERT INTO iot.readings."""
    return _counted(connection, readings, lambda: connection.execute(
        "INSERT INTO iot.readings (sensor_id, measurement_timestamp, measurement_value, measurement_metadata)"
        " SELECT * FROM unnest(%s::uuid[], %s::timestamptz[], %s::float8[], %s::jsonb[])", _arrays(readings)))


def by_copy(connection, readings, table="iot.readings"):
    """COPY iot.readings."""
    def copy():
        with connection.cursor() as cursor, cursor.copy(
                f"COPY {table} (sensor_id, measurement_timestamp, measurement_value, measurement_metadata)"
                " FROM STDIN") as stream:
            for reading in readings:
                stream.write_row(
                    (str(reading.sensor), reading.at.isoformat(), repr(reading.value), json.dumps(reading.metadata)))
    return _counted(connection, readings, copy)


def by_raw_copy(connection, readings):
    """COPY iot.raw_readings."""
    return by_copy(connection, readings, "iot.raw_readings")


BATCH_ROADS = [by_arrays, by_json, by_insert, by_copy, by_raw_copy]
ROADS = [by_single_calls, *BATCH_ROADS]


def _arrays(readings):
    return ([reading.sensor for reading in readings], [reading.at for reading in readings],
            [reading.value for reading in readings], [json.dumps(reading.metadata) for reading in readings])


def _totals(cursor):
    return Totals(*cursor.fetchone())


def _stored(connection, readings):
    """Rows under the keys of `readings`: what other sessions do to other sensors does not disturb."""
    return connection.execute(
        "SELECT count(*) FROM (SELECT DISTINCT * FROM unnest(%s::uuid[], %s::timestamptz[]) AS k (s, t)) AS k"
        " JOIN iot.sensor_data ON sensor_id = s AND measurement_timestamp = t", _arrays(readings)[:2]).fetchone()[0]


def _rejected(connection, readings):
    return connection.execute(
        "SELECT count(*) FROM iot.rejected_readings WHERE sensor_id = ANY (%s)",
        (list({reading.sensor for reading in readings}),)).fetchone()[0]


def _counted(connection, readings, work):
    """What became of a batch on a road that returns nothing. Nobody else may offer readings of its sensors meanwhile."""
    stored, rejected = _stored(connection, readings), _rejected(connection, readings)
    work()
    stored, rejected = _stored(connection, readings) - stored, _rejected(connection, readings) - rejected
    return Totals(stored, len(readings) - stored - rejected, rejected)


def in_threads(works, timeout=120):
    """Runs the callables at once, each in a thread, and returns their results; the first error is raised here."""
    results, errors = [None] * len(works), []

    def run(number):
        try:
            results[number] = works[number]()
        except BaseException as error:  # noqa: BLE001 - raised below, in the main thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads), "a session hangs"
    return results


STATISTICS = """
    SELECT count(*), min(measurement_value), max(measurement_value), avg(measurement_value),
           stddev_samp(measurement_value)
      FROM iot.sensor_data
     WHERE sensor_id = %(sensor)s AND quality_flags & 64 = 0 AND measurement_value BETWEEN -1e150 AND 1e150
       AND measurement_timestamp >= date_bin('30 minutes', greatest(%(at)s, (
               SELECT max(measurement_timestamp) FROM iot.sensor_data
                WHERE sensor_id = %(sensor)s AND quality_flags & 64 = 0)), '2000-01-01 00:00+00') - interval '24 hours'"""


def score(statistics, value):
    """The score of a value by the rule of docs/ingest.md."""
    count, least, most, mean, deviation = statistics
    if count < 2:
        return 0.0
    if least == most:
        return 0.0 if value == least else 5.0
    return min(5.0, abs(value - mean) / deviation)


def probe(connection, sensor, at):
    """Scores a value 1.5 deviations off the mean; returns (score, score by the rule from the stored rows).

    The caller rolls it back.
    """
    statistics = connection.execute(STATISTICS, {"sensor": sensor, "at": at}).fetchone()
    count, _, most, mean, deviation = statistics
    value = mean + 1.5 * deviation if count > 1 else (most or 0.0) + 1.0
    found, value = connection.execute(
        "SELECT anomaly_score, measurement_value FROM iot.process_sensor_data_ex(%s, %s, '{}', %s)",
        (sensor, value, at)).fetchone()
    return found, score(statistics, value)


def assert_scores_follow_the_rows(database, sensors, connect=None):
    """The next reading of each sensor, now or later in the day, is scored by what is stored."""
    with (connect or database.connect)(autocommit=False) as connection:
        for sensor in sensors:
            newest = connection.execute(
                "SELECT max(measurement_timestamp) FROM iot.sensor_data WHERE sensor_id = %s AND quality_flags & 64 = 0",
                (sensor,)).fetchone()[0] or START
            for later in (MICROSECOND, timedelta(hours=9), timedelta(hours=21)):
                found, expected = probe(connection, sensor, newest + later)
                connection.rollback()
                assert abs(found - expected) < 1e-9, f"sensor {sensor}, {later} later: {found}, by the rows {expected}"
