"""What iot.latest_readings must show, told without it."""

NEWEST = """SELECT sensor_id, measurement_timestamp, measurement_value FROM iot.sensor_data
             WHERE sensor_id = %s AND quality_flags & 64 = 0 ORDER BY 2 DESC LIMIT 1"""
LATEST = "SELECT sensor_id, measurement_timestamp, measurement_value FROM iot.latest_readings WHERE sensor_id = %s"


def check_latest(database, sensor, connection=None):
    connection = connection or database.connection
    expected = connection.execute(NEWEST, (sensor,)).fetchall()
    assert connection.execute(LATEST, (sensor,)).fetchall() == expected
    return expected[0][2] if expected else None
