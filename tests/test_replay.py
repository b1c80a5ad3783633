"""Replaying rejected readings from several sessions."""

from factory import add_sensor
from test_sessions import run_together

NOBODY = "00000000-0000-0000-0000-000000000001"
REPLAY = "SELECT replayed, accepted, rejected, duplicates FROM iot.replay_rejected()"


def refuse(database, sensor, count):
    database.execute("UPDATE iot.sensors SET sensor_status = 'inactive'")
    database.execute("INSERT INTO iot.readings (sensor_id, measurement_timestamp, measurement_value)"
                     " SELECT %s::uuid, now() - n * interval '1 second', n FROM generate_series(1, %s) n", (sensor, count))
    database.execute("UPDATE iot.sensors SET sensor_status = 'active'")


def test_a_reading_is_replayed_by_one_session_only(database):
    _, sensor = add_sensor(database)
    refuse(database, sensor, 300)
    with database.connect(autocommit=False) as first, database.connect() as second:
        assert first.execute("SELECT replayed FROM iot.replay_rejected(maximum => 100)").fetchone() == (100,)
        assert second.execute(REPLAY).fetchone() == (200, 200, 0, 0)
        first.rollback()
        assert second.execute(REPLAY).fetchone() == (100, 100, 0, 0)
    assert database.value("SELECT count(DISTINCT measurement_value) FROM iot.sensor_data") == 300


def test_sessions_share_the_work(database):
    _, sensor = add_sensor(database)
    refuse(database, sensor, 2000)
    totals = run_together(database, 4, lambda connection, _: connection.execute(REPLAY).fetchone())
    assert [sum(column) for column in zip(*totals)] == [2000, 2000, 0, 0]
    assert database.value("SELECT count(*) FROM iot.sensor_data") == 2000
    assert database.value("SELECT count(*) FROM iot.rejected_readings WHERE replayed_at IS NULL") == 0


def test_more_than_one_chunk(database):
    _, sensor = add_sensor(database)
    refuse(database, sensor, 10_500)
    database.execute("INSERT INTO iot.readings (sensor_id, measurement_value) VALUES (%s, 1)", (NOBODY,))
    assert database.rows(REPLAY) == [(10_501, 10_500, 1, 0)]
    assert database.value("SELECT count(*) FROM iot.sensor_data") == 10_500
