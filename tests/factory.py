"""A device with a sensor, for tests that need one."""


def add_sensor(database, serial="D-1", name="probe", kind="temperature", unit="degC"):
    """Registers an active sensor on an active device and returns both keys."""
    device = database.value(
        "INSERT INTO iot.devices (device_serial_number) VALUES (%s) RETURNING device_id", (serial,))
    sensor = database.value(
        "INSERT INTO iot.sensors (device_id, sensor_name, sensor_type, unit_of_measure) VALUES (%s, %s, %s, %s)"
        " RETURNING sensor_id", (device, name, kind, unit))
    return device, sensor


def add_rule(database, conditions='{"threshold_high": 80}', kind="temperature"):
    """A rule over all sensors of a type."""
    return database.value(
        "INSERT INTO iot.alert_rules (rule_name, sensor_type, rule_conditions, severity)"
        " VALUES ('hot', %s, %s, 'high') RETURNING rule_id", (kind, conditions))


def process(connection, sensor, value, at=None):
    """One reading through the pipeline; returns its data_id."""
    return connection.execute(
        "SELECT iot.process_sensor_data(%s::uuid, %s::float8, measurement_timestamp => %s::timestamptz)",
        (sensor, value, at)).fetchone()[0]
