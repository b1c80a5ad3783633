"""Processing rules with several sessions: states that nobody loses, caches that hear of changes, and roles."""

import json
import threading

import psycopg
import pytest

from cluster import wait_until
from documents import ROOT, sql_blocks
from factory import add_sensor, process
from test_sessions import run_together

ROLE = "factory_ingest"


def add_processing_rule(database, name, rule_type, definition, kind="temperature"):
    """A rule over all sensors of a type."""
    return database.value(
        "INSERT INTO iot.data_processing_rules (rule_name, sensor_type, rule_type, rule_definition)"
        " VALUES (%s, %s, %s, %s) RETURNING processing_rule_id", (name, kind, rule_type, json.dumps(definition)))


def outputs(database, name):
    return [value for (value,) in database.rows(
        "SELECT processed_value FROM iot.processed_data WHERE output_name = %s ORDER BY measurement_timestamp", (name,))]


def test_a_session_waits_for_the_state_of_another(database):
    _, sensor = add_sensor(database)
    add_processing_rule(database, "smooth", "moving_average", {"readings": 10})
    with database.connect(autocommit=False) as first:
        process(first, sensor, 10, "2026-01-05 12:00+00")
        waiting = threading.Thread(target=lambda: run_together(
            database, 1, lambda connection, _: process(connection, sensor, 20, "2026-01-05 12:01+00")))
        waiting.start()
        wait_until(lambda: database.value("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1, what="the wait")
        first.commit()
        waiting.join(30)
        assert not waiting.is_alive()
    assert outputs(database, "smooth") == [10, 15]


def test_a_session_goes_on_when_the_other_rolls_back(database):
    _, sensor = add_sensor(database)
    add_processing_rule(database, "smooth", "moving_average", {"readings": 10})
    with database.connect(autocommit=False) as first:
        process(first, sensor, 10, "2026-01-05 12:00+00")
        waiting = threading.Thread(target=lambda: run_together(
            database, 1, lambda connection, _: process(connection, sensor, 20, "2026-01-05 12:01+00")))
        waiting.start()
        wait_until(lambda: database.value("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1, what="the wait")
        first.rollback()
        waiting.join(30)
        assert not waiting.is_alive()
    assert outputs(database, "smooth") == [20]


def test_sessions_on_one_device_lose_no_state(database):
    """Differences add up to the way from the first value to the last, unless a state was lost in between."""
    device, sensor = add_sensor(database)
    other = database.value(
        "INSERT INTO iot.sensors (device_id, sensor_name, sensor_type, unit_of_measure)"
        " VALUES (%s, 'other', 'temperature', 'degC') RETURNING sensor_id", (device,))
    add_processing_rule(database, "change", "difference", {})
    add_processing_rule(database, "change of both", "difference", {"input": "both"}, None)
    add_processing_rule(database, "both", "expression", {"expression": "a - b", "inputs": {
        "a": {"sensor_name": "probe"}, "b": {"sensor_name": "other"}}}, None)
    for each in (sensor, other):
        process(database.connection, each, 0)

    def work(connection, number):
        for step in range(20):
            connection.execute(
                "INSERT INTO iot.readings (sensor_id, measurement_value) VALUES (%s, %s), (%s, %s)",
                (sensor, 100 * number + step, other, 7 * number - step))

    run_together(database, 6, work)
    for each in (sensor, other):
        latest = database.value(
            "SELECT measurement_value FROM iot.sensor_data WHERE sensor_id = %s"
            " ORDER BY measurement_timestamp DESC LIMIT 1", (each,))
        assert database.value(
            "SELECT sum(processed_value) FROM iot.processed_data WHERE output_name = 'change' AND sensor_id = %s",
            (each,)) == latest
    assert database.value("SELECT count(*) FROM iot.sensor_data") == 242
    assert database.value("SELECT count(*) FROM iot.processed_data WHERE output_name = 'both'") > 0


def test_a_processing_rule_changed_elsewhere_is_used_by_the_next_statement(database):
    _, sensor = add_sensor(database)
    with database.connect() as long_lived:
        process(long_lived, sensor, 1)
        add_processing_rule(database, "double", "scale", {"factor": 2})
        process(long_lived, sensor, 1)
        database.execute("UPDATE iot.data_processing_rules SET rule_definition = '{\"factor\": 3}'")
        process(long_lived, sensor, 1)
        database.execute("TRUNCATE iot.data_processing_rules")
        process(long_lived, sensor, 1)
    assert outputs(database, "double") == [2, 3]


def test_a_broken_rule_is_named_once(database):
    _, sensor = add_sensor(database)
    add_processing_rule(database, "broken", "scale", {"factor": 2})
    database.execute("SET session_replication_role = replica")
    database.execute("UPDATE iot.data_processing_rules SET rule_definition = '{\"faktor\": 2}'")
    database.execute("SET session_replication_role = origin")
    notices = []
    with database.connect() as connection:
        connection.add_notice_handler(lambda notice: notices.append((notice.severity, notice.message_primary)))
        for value in range(5):
            process(connection, sensor, value)
    ((severity, message),) = notices
    assert severity == "WARNING" and "faktor" in message
    assert database.value("SELECT count(*) FROM iot.sensor_data") == 5


def test_rules_run_with_readmes_grants_and_under_row_security(database):
    (grants,) = [block.text for block in sql_blocks(ROOT / "README.md") if f"CREATE ROLE {ROLE}" in block.text]
    database.psql(grants)
    try:
        _, sensor = add_sensor(database)
        add_processing_rule(database, "smooth", "moving_average", {"readings": 2})
        with database.connect(ROLE) as connection:
            process(connection, sensor, 1, "2023-02-03 00:00+00")
            process(connection, sensor, 3, "2023-02-03 00:01+00")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("DELETE FROM iot.processed_data")
        assert outputs(database, "smooth") == [1, 2]
        database.execute("ALTER TABLE iot.data_processing_rules ENABLE ROW LEVEL SECURITY")
        with database.connect(ROLE) as connection:
            process(connection, sensor, 5, "2023-02-03 00:02+00")
        assert outputs(database, "smooth") == [1, 2]
        database.execute("CREATE POLICY visible ON iot.data_processing_rules FOR SELECT USING (true)")
        with database.connect(ROLE) as connection:
            process(connection, sensor, 7, "2023-02-03 00:03+00")
        assert outputs(database, "smooth") == [1, 2, 5]
    finally:
        database.execute(f"DROP OWNED BY {ROLE}")
        database.execute(f"DROP ROLE {ROLE}")
