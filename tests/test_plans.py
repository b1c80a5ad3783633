"""The indexes are there for the queries that people ask, and partitions that cannot hold an answer are left out."""

import json

import pytest

from factory import add_sensor


@pytest.fixture
def filled(database):
    """Two years of readings in monthly partitions: enough that a full scan would be the wrong plan."""
    device, sensor = add_sensor(database)
    for year in (2025, 2026):
        for month in range(1, 13):
            database.execute("SELECT iot.create_monthly_partition('iot.sensor_data', %s, %s)", (year, month))
    database.execute(
        """INSERT INTO iot.sensor_data (sensor_id, device_id, measurement_timestamp, measurement_value, measurement_unit)
           SELECT CASE WHEN n %% 50 = 0 THEN %s::uuid ELSE gen_random_uuid() END, %s, at, n, 'degC'
             FROM generate_series(timestamptz '2025-01-01 00:00+00', '2026-12-31 00:00+00', '30 minutes')
                  WITH ORDINALITY AS t (at, n)""", (sensor, device))
    database.execute("ANALYZE iot.sensor_data")
    return database, sensor, device


def plan_of(database, query, *parameters):
    """The plan's nodes as a flat list of (node type, index, relation, direction)."""
    found = []

    def walk(node):
        found.append((node["Node Type"], node.get("Index Name", ""), node.get("Relation Name", ""),
                      node.get("Scan Direction", "")))
        for child in node.get("Plans", []):
            walk(child)

    (plan,) = database.row(f"EXPLAIN (FORMAT json) {query}", parameters)
    walk((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
    return found


def test_the_latest_reading_is_a_backward_scan_of_the_primary_key(filled):
    database, sensor, _ = filled
    nodes = plan_of(database, "SELECT * FROM iot.sensor_data WHERE sensor_id = %s"
                    " ORDER BY measurement_timestamp DESC LIMIT 1", sensor)
    scans = [node for node in nodes if "Scan" in node[0]]
    assert all(node[0] == "Index Scan" and node[1].endswith("_pkey") and node[3] == "Backward" for node in scans), scans
    assert not any(node[0] == "Sort" for node in nodes)


def test_one_day_of_a_sensor_reads_one_partition(filled):
    database, sensor, _ = filled
    nodes = plan_of(database, "SELECT avg(measurement_value) FROM iot.sensor_data WHERE sensor_id = %s"
                    " AND measurement_timestamp >= '2026-03-05 00:00+00' AND measurement_timestamp < '2026-03-06 00:00+00'",
                    sensor)
    assert {node[2] for node in nodes if node[2]} == {"sensor_data_2026_03"}
    assert any(node[1].endswith("_pkey") for node in nodes)


def test_the_newest_readings_of_a_device_use_its_index(filled):
    database, _, device = filled
    nodes = plan_of(database, "SELECT * FROM iot.sensor_data WHERE device_id = %s"
                    " ORDER BY measurement_timestamp DESC LIMIT 10", device)
    assert any("device_id_measurement_timestamp" in node[1] for node in nodes)
    assert not any(node[0] in ("Sort", "Seq Scan") for node in nodes)


@pytest.mark.parametrize("policy, index, condition", [
    ("metadata_gin", "measurement_metadata", "measurement_metadata @> '{\"batch\": 7}'"),
    ("time_bucket", "hour_bucket", "hour_bucket = '2026-03-05 10:00+00' AND sensor_id = gen_random_uuid()"),
    ("quality", "measurement_timestamp", "data_quality <> 'valid'"),
])
def test_opt_in_indexes_serve_their_queries(filled, policy, index, condition):
    database, _, _ = filled
    database.execute("SELECT iot.setup(index_policy => ARRAY[%s])", (policy,))
    with database.connect() as connection:
        connection.execute("SET enable_seqscan = off")
        plan = "\n".join(line for (line,) in connection.execute(
            f"EXPLAIN SELECT count(*) FROM iot.sensor_data_2026_03 WHERE {condition}"))
    assert f"sensor_data_2026_03_{index}" in plan, plan
