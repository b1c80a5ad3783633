"""However a stream of readings is cut into batches, roads and sessions: what is stored is what single calls would store."""

import random
import threading
import uuid
from datetime import datetime, timedelta, timezone

import pytest

from cluster import Cluster, Database
from roads import BATCH_ROADS, ROADS, Reading, Totals, by_single_calls, in_threads

SENSORS = 20
DETECTORS = ["zscore", "robust", "ewma", "seasonal", "adaptive"]
STORED = """
    SELECT sensor_id, measurement_timestamp, device_id, sensor_type, measurement_unit, measurement_value, raw_value,
           data_quality, quality_flags, is_anomaly, is_onset, measurement_metadata, anomaly_score
      FROM iot.sensor_data ORDER BY 1, 2"""
ALERTS = """
    SELECT r.rule_name, a.sensor_id, a.device_id, a.severity, a.occurrences, a.actual_value, a.last_value,
           a.threshold_value, a.measurement_timestamp, a.last_occurred_at, a.alert_metadata, a.message
      FROM iot.alerts a JOIN iot.alert_rules r USING (rule_id) ORDER BY 1, 2"""


@pytest.fixture(scope="module")
def crowded_cluster():
    """There is room for a few sensors only, and for fewer detectors; some are written down before they are evicted."""
    settings = {"iot_ext.max_tracked_sensors": 5, "iot_ext.max_tracked_detectors": 3, "iot_ext.flush_interval": "1s"}
    with Cluster(settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def few_slabs_cluster():
    """There is room for each sensor, but not for its detector."""
    with Cluster(settings={"iot_ext.max_tracked_detectors": 4, "iot_ext.flush_interval": "1s"}) as running:
        yield running


@pytest.fixture(params=["preloaded", "not preloaded", "crowded", "few slabs"])
def two_databases(request):
    """Two databases of one kind of server."""
    name = {"preloaded": "cluster", "not preloaded": "unloaded_cluster", "crowded": "crowded_cluster",
            "few slabs": "few_slabs_cluster"}[request.param]
    running = request.getfixturevalue(name)
    databases = [Database(running), Database(running)]
    try:
        for database in databases:
            database.execute("CREATE EXTENSION iot_ext")
            database.execute("SELECT iot.setup()")
        yield databases
    finally:
        for database in databases:
            database.drop()


def detector_of(number):
    """Four sensors have each."""
    return DETECTORS[number // 4]


def register(database, sensors):
    """The same registry in each database: sensors of all kinds, and rules over them."""
    for number, sensor in enumerate(sensors):
        device = uuid.UUID(int=number + 1)
        kind = "pressure" if number % 2 else "temperature"
        database.execute(
            "INSERT INTO iot.devices (device_id, device_serial_number) VALUES (%s, %s)", (device, f"D-{number}"))
        database.execute(
            "INSERT INTO iot.sensors (sensor_id, device_id, sensor_name, sensor_type, unit_of_measure, sensor_status,"
            " calibration_data, physical_minimum, physical_maximum, detector)"
            " VALUES (%s, %s, 'probe', %s, 'degC', %s, %s, %s, %s, %s)",
            (sensor, device, kind, "inactive" if number == 7 else "active",
             '{"multiplier": 1.5, "offset": -2}' if number % 5 == 1 else "{}",
             -50 if number % 3 else None, 60 if number % 3 else None, detector_of(number)))
    for name, kind, conditions in (
            ("hot", "temperature", '{"threshold_high": 24}'), ("low", "pressure", '{"threshold_low": 15}'),
            ("marked", "pressure", '{"metadata_check": {"mark": 1}}')):
        database.execute(
            "INSERT INTO iot.alert_rules (rule_name, sensor_type, rule_conditions, severity) VALUES (%s, %s, %s, 'high')",
            (name, kind, conditions))


def stream_of(chance, sensor, number, now):
    """Readings of one sensor in the order in which its gateway sends them."""
    at = now - timedelta(days=20, seconds=chance.randrange(86_400))
    sent = []
    # The others learn from 30 readings before they score any.
    for _ in range(chance.randint(20, 70) if number < 4 else chance.randint(60, 110)):
        at += timedelta(seconds=chance.expovariate(1 / 1800), microseconds=chance.randrange(1000))
        if chance.random() < 0.05:
            at += timedelta(hours=chance.choice([5, 24, 30]))
        value = 0.1 if number == 3 and chance.random() < 0.95 else chance.gauss(20, 2)
        when = at
        kind = chance.random()
        if kind < 0.10:
            when = at - timedelta(seconds=chance.randrange(80_000))
        elif kind < 0.14:
            when = at - timedelta(hours=chance.randint(25, 200))
        elif kind < 0.24 and sent:
            when = chance.choice(sent[-5:]).at
        elif kind < 0.34:
            when = at - timedelta(microseconds=chance.randrange(5_000_000))
        elif kind < 0.37:
            when = now + timedelta(hours=2, seconds=len(sent))
        elif kind < 0.40:
            when = now + chance.choice([-1, 1]) * timedelta(days=5000)
        if chance.random() < 0.06:
            value = chance.choice([float("nan"), float("inf"), 1e200, -1e160, 61.0, 1e6, 35.0])
        sent.append(Reading(sensor, when, value, {"mark": len(sent) % 7} if chance.random() < 0.3 else {}))
    return sent


class Dispatcher:
    """Hands out batches: of a sensor, the next readings go out only when the ones before are committed."""

    def __init__(self, chance, streams):
        self.chance = chance
        self.waiting = {sensor: list(readings) for sensor, readings in streams.items()}
        self.busy = set()
        self.changed = threading.Condition()
        self.sent = []

    def take(self):
        """The next batch and its road, or None at the end."""
        with self.changed:
            while True:
                free = [sensor for sensor, readings in self.waiting.items() if readings and sensor not in self.busy]
                if free:
                    break
                if not any(self.waiting.values()):
                    return None
                assert self.changed.wait(60), "the other sessions hang"
            chosen = self.chance.sample(free, min(len(free), self.chance.randint(1, 6)))
            parts = []
            for sensor in chosen:
                count = self.chance.choice([1, 2, 5, 20, 100])
                parts.append(self.waiting[sensor][:count])
                del self.waiting[sensor][:count]
            batch = []
            while parts:
                part = self.chance.choice(parts)
                batch.append(part.pop(0))
                parts = [part for part in parts if part]
            self.busy.update(chosen)
            road = self.chance.choice(ROADS)
            self.sent.append((road, batch))
            return road, batch

    def done(self, batch):
        with self.changed:
            self.busy.difference_update(reading.sensor for reading in batch)
            self.changed.notify_all()


def send(database, dispatcher):
    """One session: takes batches until there are none."""
    totals = Totals()
    with database.connect() as connection:
        while taken := dispatcher.take():
            road, batch = taken
            found = road(connection, batch)
            assert found.offered == len(batch), road
            totals += found
            dispatcher.done(batch)
    return totals


def assert_same_rows(found, expected):
    """All columns alike, the last one, the score, but for the last bits of sums that were made in another order."""
    assert [row[:-1] for row in found] == [row[:-1] for row in expected]
    for one, other in zip(found, expected):
        assert abs(one[-1] - other[-1]) <= 1e-9, f"{one}: by single calls the score is {other[-1]}"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_batches_are_worth_single_calls(two_databases, seed):
    batched, single = two_databases
    chance = random.Random(seed)
    now = datetime.now(timezone.utc)
    sensors = [uuid.UUID(int=chance.getrandbits(128)) for _ in range(SENSORS)]
    for database in two_databases:
        register(database, sensors)
    streams = {sensor: stream_of(chance, sensor, number, now) for number, sensor in enumerate(sensors)}
    unknown = uuid.UUID(int=99)
    streams[unknown] = stream_of(chance, unknown, 0, now)

    expected = Totals()
    for readings in streams.values():
        expected += by_single_calls(single.connection, readings)
    dispatcher = Dispatcher(chance, streams)
    totals = sum(in_threads([lambda: send(batched, dispatcher)] * 3), Totals())

    assert totals == expected
    assert expected.rejected > 40 and expected.duplicates > 40, "the stream is to have something of everything"
    stored = batched.rows(STORED)
    detectors = {sensor: detector_of(number) for number, sensor in enumerate(sensors)}
    assert {detectors[row[0]] for row in stored if row[-1] > 1} == set(DETECTORS), "all of them have something to say"
    assert_same_rows(stored, single.rows(STORED))
    assert len(stored) == totals.stored
    assert batched.rows(ALERTS) == single.rows(ALERTS) != []

    for _, batch in chance.sample(dispatcher.sent, 20):
        again = chance.choice(BATCH_ROADS)(batched.connection, batch)
        assert again.stored == 0 and again.offered == len(batch)
    assert batched.rows(STORED) == stored
    assert batched.rows(ALERTS) == single.rows(ALERTS)
