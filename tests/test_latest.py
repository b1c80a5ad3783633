"""The views over what is newest: readings that the engine wrote, readings that it did not, silent sensors, row security."""

import json

from factory import add_rule, add_sensor, process
from latest import check_latest


def test_the_latest_reading_is_the_newest_by_its_own_time(database):
    _, sensor = add_sensor(database)
    assert check_latest(database, sensor) is None
    process(database.connection, sensor, 20, "2026-01-10 00:00+00")
    assert check_latest(database, sensor) == 20
    process(database.connection, sensor, 10, "2026-01-09 00:00+00")
    assert check_latest(database, sensor) == 20, "a late reading is not the latest"
    process(database.connection, sensor, 40)
    database.execute("SELECT iot.process_sensor_data(%s::uuid, 99, measurement_timestamp => now() + interval '1 hour')", (sensor,))
    assert check_latest(database, sensor) == 40, "nor is one from the future"
    assert database.row("SELECT sensor_name, sensor_type, measurement_unit, data_quality FROM iot.latest_readings") == (
        "probe", "temperature", "degC", "valid")


def test_the_latest_reading_sees_what_the_engine_did_not_write(database):
    device, sensor = add_sensor(database)
    process(database.connection, sensor, 20, "2026-01-10 00:00+00")
    insert = "INSERT INTO iot.sensor_data (sensor_id, device_id, measurement_timestamp, measurement_value) VALUES (%s, %s, %s, %s)"
    with database.connect(autocommit=False) as connection:
        connection.execute(insert, (sensor, device, "2026-01-11 00:00+00", 30))
        assert check_latest(database, sensor, connection) == 30, "before its commit, to its own session"
        assert check_latest(database, sensor) == 20, "not to others"
        connection.commit()
    assert check_latest(database, sensor) == 30
    with database.connect(autocommit=False) as connection:
        process(connection, sensor, 35, "2026-01-12 00:00+00")
        assert check_latest(database, sensor, connection) == 35
        connection.rollback()
    assert check_latest(database, sensor) == 30
    process(database.connection, sensor, 40, "2026-01-13 00:00+00")
    with database.connect(autocommit=False) as connection:
        connection.execute("DELETE FROM iot.sensor_data WHERE measurement_value = 40")
        assert check_latest(database, sensor, connection) == 30
        connection.rollback()
    assert check_latest(database, sensor) == 40
    database.execute("DELETE FROM iot.sensor_data WHERE measurement_value = 40")
    assert check_latest(database, sensor) == 30
    database.execute("TRUNCATE iot.sensor_data")
    assert check_latest(database, sensor) is None


def test_an_old_snapshot_shows_the_latest_of_its_own_time(database):
    _, sensor = add_sensor(database)
    process(database.connection, sensor, 20, "2026-01-10 00:00+00")
    with database.connect(autocommit=False) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert check_latest(database, sensor, connection) == 20
        process(database.connection, sensor, 30, "2026-01-11 00:00+00")
        assert check_latest(database, sensor, connection) == 20
        database.execute("DELETE FROM iot.sensor_data")
        process(database.connection, sensor, 5, "2026-01-01 00:00+00")
        assert check_latest(database, sensor, connection) == 20
    assert check_latest(database, sensor) == 5


def executed(database, query, *parameters):
    """Partitions that a query entered."""
    entered = set()

    def walk(node):
        name = node.get("Relation Name", "")
        if name.startswith("sensor_data_") and node["Actual Loops"] > 0:
            entered.add(name)
        for child in node.get("Plans", []):
            walk(child)

    plan = database.value(f"EXPLAIN (ANALYZE, FORMAT json) {query}", parameters)
    walk((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
    return entered


def test_a_sensor_that_was_silent_for_long_costs_one_partition(database):
    _, silent = add_sensor(database)
    _, busy = add_sensor(database, "D-2")
    for month in range(1, 13):
        for sensor in (silent, busy) if month <= 2 else (busy,):
            process(database.connection, sensor, month, f"2025-{month:02}-15 00:00+00")
    assert executed(database, "SELECT * FROM iot.latest_readings WHERE sensor_id = %s", silent) == {"sensor_data_2025_02"}
    assert executed(database, "SELECT * FROM iot.latest_readings") == {"sensor_data_2025_02", "sensor_data_2025_12"}


def test_row_security_holds_for_the_latest_reading(database):
    _, own = add_sensor(database)
    _, foreign = add_sensor(database, "D-2")
    process(database.connection, own, 20, "2026-01-10 00:00+00")
    process(database.connection, own, 99, "2026-01-11 00:00+00")
    process(database.connection, foreign, 30)
    role = f"reader_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN")
    try:
        database.execute(f"GRANT USAGE ON SCHEMA iot TO {role}")
        database.execute(f"GRANT SELECT ON iot.latest_readings, iot.sensors, iot.sensor_data TO {role}")
        database.execute("ALTER TABLE iot.sensor_data ENABLE ROW LEVEL SECURITY")
        database.execute(f"CREATE POLICY own_and_low ON iot.sensor_data TO {role} USING (sensor_id = '{own}' AND measurement_value < 50)")
        with database.connect(role) as connection:
            assert connection.execute("SELECT sensor_id, measurement_value FROM iot.latest_readings").fetchall() == [(own, 20)]
            assert connection.execute("SELECT iot.latest_time_in_memory(%s)", (foreign,)).fetchone() == (None,)
        database.execute(f"DROP POLICY own_and_low ON iot.sensor_data")
    finally:
        database.execute(f"DROP OWNED BY {role}")
        database.execute(f"DROP ROLE {role}")


# Devices

STATUS = "SELECT connection, last_seen_at FROM iot.device_status WHERE device_id = %s"


def test_a_device_is_online_while_it_is_heard_of(database):
    device, sensor = add_sensor(database)
    assert database.row(STATUS, (device,)) == ("offline", None)
    # A reading of long ago is a sign of life when it arrives.
    process(database.connection, sensor, 20, "2026-01-10 00:00+00")
    connection, seen = database.row(STATUS, (device,))
    assert (connection, seen) == ("online", database.value("SELECT max(received_at) FROM iot.sensor_data"))
    database.execute("SELECT iot.flush_state()")
    assert database.row(STATUS, (device,)) == ("online", seen)
    database.execute("UPDATE iot.devices SET last_seen_at = NULL")
    assert database.row(STATUS, (device,)) == ("online", seen), "what memory knows does not go back"


def test_a_device_is_offline_when_it_was_not_heard_of_for_too_long(database):
    device, sensor = add_sensor(database)
    database.execute("UPDATE iot.devices SET last_seen_at = now() - interval '2 hours'")
    assert database.row(STATUS, (device,))[0] == "offline"
    database.execute("UPDATE iot.sensors SET expected_interval = '1 minute'")
    assert database.row(STATUS, (device,))[0] == "offline"
    database.execute("UPDATE iot.sensors SET expected_interval = '45 minutes'")
    assert database.row(STATUS, (device,))[0] == "online"


def test_readings_past_the_engine_are_a_sign_of_life(database):
    device, sensor = add_sensor(database)
    insert = ("INSERT INTO iot.sensor_data (sensor_id, device_id, measurement_timestamp, received_at, measurement_value)"
              " VALUES (%s, %s, clock_timestamp(), now() - %s * interval '1 minute', 1)")
    database.execute(insert, (sensor, device, 90))
    connection, seen = database.row(STATUS, (device,))
    assert connection == "offline" and seen is not None
    database.execute(insert, (sensor, device, 5))
    connection, later = database.row(STATUS, (device,))
    assert connection == "online" and later > seen


def test_the_status_counts_sensors_and_active_alerts(database):
    device, sensor = add_sensor(database)
    bare = database.value("INSERT INTO iot.devices (device_serial_number) VALUES ('D-9') RETURNING device_id")
    add_rule(database)
    process(database.connection, sensor, 90)
    query = "SELECT device_serial_number, device_status, sensors, active_alerts FROM iot.device_status WHERE device_id = %s"
    assert database.row(query, (device,)) == ("D-1", "active", 1, 1)
    assert database.row(query, (bare,)) == ("D-9", "active", 0, 0)
    database.execute("UPDATE iot.alerts SET alert_status = 'resolved', resolved_at = now()")
    assert database.row(query, (device,))[3] == 0
