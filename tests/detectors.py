"""Detectors other than zscore, for tests that follow what they have learned.

What is right is said by iot.score_series(), which scores a series from its beginning and keeps nothing.
"""

import random
from datetime import timedelta

from cluster import Database
from factory import add_sensor
from roads import START, Reading

DETECTORS = ["robust", "ewma", "seasonal", "adaptive"]
SLABS = """SELECT detector_capacity, detectors, detectors_evicted, detectors_refused, detectors_overruled
             FROM iot.iot_stat_tracked_sensors"""
# In order of arrival.
COMPARED = """
    SELECT stored.anomaly_score, s.anomaly_score, stored.is_onset, s.is_onset
      FROM (SELECT array_agg(measurement_timestamp ORDER BY received_at, data_id) AS times,
                   array_agg(measurement_value ORDER BY received_at, data_id) AS readings
              FROM iot.sensor_data WHERE sensor_id = %(sensor)s) AS a,
           iot.score_series(%(detector)s, times, readings) WITH ORDINALITY
               AS s (at, value, anomaly_score, is_anomaly, is_onset, is_learning, number)
      JOIN (SELECT row_number() OVER (ORDER BY received_at, data_id) AS number, *
              FROM iot.sensor_data WHERE sensor_id = %(sensor)s) AS stored USING (number)"""


def new_database(cluster):
    database = Database(cluster)
    database.execute("CREATE EXTENSION iot_ext")
    database.execute("SELECT iot.setup()")
    database.execute("SELECT iot.create_monthly_partition('iot.sensor_data', 2026, 1)")
    return database


def add_sensors(database, detectors=DETECTORS):
    """A sensor for each of the detectors: detector by sensor."""
    sensors = {add_sensor(database, f"D-{number}")[1]: detector for number, detector in enumerate(detectors)}
    for sensor, detector in sensors.items():
        database.execute("UPDATE iot.sensors SET detector = %s WHERE sensor_id = %s", (detector, sensor))
    return sensors


def readings(sensor, first, count, late=False):
    """A quarter of an hour apart, with a spike now and then; some come late. The same ones for the same numbers."""
    made = []
    for number in range(first, first + count):
        chance = random.Random(number)
        at = START + timedelta(minutes=15 * number)
        value = chance.gauss(20 + number % 96 / 10, 1) + (30 if number % 37 == 36 else 0)
        if late and chance.random() < 0.15:
            at -= timedelta(hours=chance.randint(1, 50), microseconds=number + 1)
        made.append(Reading(sensor, at, value))
    return made


def assert_scores_are_right(database, sensors):
    """Stored scores are those of the series as a whole."""
    for sensor, detector in sensors.items():
        rows = database.rows(COMPARED, {"sensor": sensor, "detector": detector})
        assert len(rows) == database.value("SELECT count(*) FROM iot.sensor_data WHERE sensor_id = %s", (sensor,)) > 60
        for number, (stored, expected, onset, expected_onset) in enumerate(rows):
            assert abs(stored - expected) < 1e-9 and onset == expected_onset, f"{detector}, reading {number}"
        assert any(score > 1 for score, *_ in rows), f"{detector}: nothing to compare"


def series_score(database, detector, learned, probe):
    """What the detector says of `probe` after the readings `learned`."""
    series = [*learned, probe]
    return database.rows(
        "SELECT anomaly_score FROM iot.score_series(%s, %s::timestamptz[], %s::float8[])",
        (detector, [reading.at for reading in series], [reading.value for reading in series]))[-1][0]


def score(database, probe):
    """What the engine says of it; it is not stored."""
    with database.connect(autocommit=False) as connection:
        (found,) = connection.execute(
            "SELECT anomaly_score FROM iot.process_sensor_data_ex(%s, %s, '{}', %s)",
            (probe.sensor, probe.value, probe.at)).fetchone()
        connection.rollback()
    return found


def state_rows(database):
    """Changes whenever a row of the table of states is written."""
    return database.rows("SELECT sensor_id, xmin::text, ctid::text FROM iot.sensor_state ORDER BY 1")
