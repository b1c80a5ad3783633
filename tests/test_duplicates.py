"""Sessions that offer readings of the same sensor and time at once, and the policy across sessions."""

import threading

import pytest

from cluster import Database, wait_until
from factory import add_sensor, process
from test_sessions import run_together

AT = "2026-01-05 12:00:00+00"


def stored(database):
    return database.rows("SELECT measurement_value, quality_flags FROM iot.sensor_data ORDER BY 1")


def ingest(connection, sensor, values):
    return connection.execute(
        "SELECT accepted, rejected, duplicates FROM iot.ingest(array_fill(%s::uuid, ARRAY[%s]),"
        " ARRAY(SELECT %s::timestamptz + n * interval '1 second' FROM generate_series(1, %s) n), %s::float8[])",
        (sensor, len(values), AT, len(values), values)).fetchone()


@pytest.mark.parametrize("offer", ["single", "batch", "trigger"])
@pytest.mark.parametrize("policy, first_ends, expected", [
    ("first", "commit", [1]), ("first", "rollback", [2]), ("last", "commit", [2]), ("last", "rollback", [2]),
])
def test_a_reading_in_progress_is_waited_for(database, policy, first_ends, expected, offer):
    _, sensor = add_sensor(database)
    database.execute("SELECT iot.setup(duplicates => %s)", (policy,))
    process(database.connection, sensor, 0, "2026-01-05 11:00+00")
    if offer == "trigger":
        database.execute(
            "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
            "CREATE TRIGGER look BEFORE INSERT ON iot.sensor_data FOR EACH ROW EXECUTE FUNCTION look()")

    def second(connection, _):
        if offer == "single":
            return str(process(connection, sensor, 2, AT))
        return connection.execute(
            "SELECT accepted, rejected, duplicates FROM iot.ingest(ARRAY[%s]::uuid[], ARRAY[%s]::timestamptz[], '{2}')",
            (sensor, AT)).fetchone()

    with database.connect(autocommit=False) as first:
        data_id = str(process(first, sensor, 1, AT))
        results = []
        waiting = threading.Thread(target=lambda: results.extend(run_together(database, 1, second)))
        waiting.start()
        wait_until(lambda: database.value("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1, what="the wait")
        getattr(first, first_ends)()
        waiting.join(30)
        assert not waiting.is_alive()
    assert [value for value, _ in stored(database)] == [0, *expected]
    if first_ends == "commit":
        assert results == [data_id if offer == "single" else (0, 0, 1)]
    # What the engine remembers agrees with what is stored.
    process(database.connection, sensor, sum(expected) / 2, "2026-01-05 12:00:01+00")
    assert database.value("SELECT anomaly_score FROM iot.sensor_data ORDER BY measurement_timestamp DESC LIMIT 1") == 0


def test_with_both_nobody_waits(database):
    _, sensor = add_sensor(database)
    database.execute("SELECT iot.setup(duplicates => 'both')")
    process(database.connection, sensor, 0, "2026-01-05 11:00+00")
    with database.connect(autocommit=False) as first:
        process(first, sensor, 1, AT)
        with database.connect() as second:
            second.execute("SET lock_timeout = '2s'")
            process(second, sensor, 2, AT)
        first.commit()
    process(database.connection, sensor, 3, AT)
    assert [value for value, _ in stored(database)] == [0, 1, 2, 3]
    assert stored(database)[3] == (3, 32)


@pytest.mark.parametrize("policy, rows", [("first", 200), ("last", 200), ("both", 1200)])
def test_offered_is_stored_and_duplicates(database, policy, rows):
    _, sensor = add_sensor(database)
    database.execute("SELECT iot.setup(duplicates => %s)", (policy,))
    totals = run_together(database, 6, lambda connection, number: ingest(connection, sensor, [number] * 200))
    assert database.value("SELECT count(*) FROM iot.sensor_data") == rows
    assert sum(accepted for accepted, _, _ in totals) == rows
    assert sum(rejected for _, rejected, _ in totals) == 0
    assert sum(map(sum, totals)) == 1200


@pytest.mark.parametrize("policy", ["last", "both"])
def test_the_policy_is_found_again_after_drop_extension(database, policy):
    _, sensor = add_sensor(database)
    database.execute("SELECT iot.setup(duplicates => %s)", (policy,))
    for value in (1, 2):
        process(database.connection, sensor, value, AT)
    kept = stored(database)
    database.execute("DROP EXTENSION iot_ext CASCADE; CREATE EXTENSION iot_ext; SELECT iot.setup()")
    assert stored(database) == kept
    # A key that is missing shows; which reading is kept where there is one does not.
    found = database.value("SELECT duplicates FROM iot.partition_settings WHERE parent = 'iot.sensor_data'::regclass")
    assert found == {"last": "first", "both": "both"}[policy]


def test_a_policy_is_cached_until_it_changes(database):
    _, sensor = add_sensor(database)
    with database.connect() as other:
        process(other, sensor, 1, AT)
        process(other, sensor, 2, AT)
        database.execute("SELECT iot.setup(duplicates => 'last')")
        process(other, sensor, 3, AT)
    assert stored(database) == [(3, 0)]


@pytest.mark.parametrize("road", ["arrays", "copy"])
def test_what_replaces_within_a_batch_is_worth_single_calls(cluster, road):
    """Scores and results of rules as well: the replaced reading had its turn."""
    minutes = [(0, 10), (1, 20), (2, 30), (1, 21), (3, 31), (1, 22), (4, 40)]
    readings = [(f"2026-03-01 00:{minute:02}:00+00", value) for minute, value in minutes]
    found = []
    for batched in (False, True):
        database = Database(cluster)
        try:
            database.execute("CREATE EXTENSION iot_ext; SELECT iot.setup(duplicates => 'last')")
            _, sensor = add_sensor(database)
            database.execute("UPDATE iot.sensors SET quality_limits = '{\"maximum_rate\": 0.1}'")
            database.execute("INSERT INTO iot.data_processing_rules (rule_name, rule_type, rule_definition)"
                             " VALUES ('average', 'moving_average', '{\"readings\": 3}')")
            if not batched:
                for at, value in readings:
                    process(database.connection, sensor, value, at)
            elif road == "arrays":
                database.execute("SELECT iot.ingest(%s::uuid[], %s::timestamptz[], %s::float8[])",
                                 ([sensor] * len(readings), [at for at, _ in readings], [value for _, value in readings]))
            else:
                with database.connection.cursor().copy(
                        "COPY iot.readings (sensor_id, measurement_timestamp, measurement_value) FROM STDIN") as copy:
                    for at, value in readings:
                        copy.write_row((sensor, at, value))
            found.append(database.rows(
                "SELECT measurement_timestamp, measurement_value, quality_flags, anomaly_score, processed_value"
                "  FROM iot.sensor_data d LEFT JOIN iot.processed_data p USING (sensor_id, measurement_timestamp) ORDER BY 1"))
        finally:
            database.drop()
    assert [value for _, value, *_ in found[0]] == [10, 22, 30, 31, 40]
    assert found[0] == found[1]
