"""process_sensor_data against the same work written by hand in PL/pgSQL, and against a bare INSERT of the finished row.

One session, prepared statements, synchronous_commit off, two threshold rules per sensor that do not fire. The sides
alternate in every round; printed are medians of calls per second and the ratio to the hand-written pipeline.

    make bench BENCH=pipeline [ARGS='--seconds 1 --rounds 7']
"""

import argparse
import statistics
import time
from pathlib import Path

from cluster import Cluster

SENSORS = 20
WINDOWS = (0, 288, 1_440)
SIDES = {
    "bare INSERT": """INSERT INTO iot.sensor_data (data_id, sensor_id, device_id, measurement_timestamp, measurement_value,
                          measurement_unit, anomaly_score, measurement_metadata)
                      VALUES (gen_random_uuid(), %s, (SELECT device_id FROM iot.devices LIMIT 1), clock_timestamp(), %s,
                              'degC', 0.5, '{"rssi": -67}')""",
    "PL/pgSQL": "SELECT baseline.process_reading(%s::uuid, %s::numeric, '{\"rssi\": -67}')",
    "process_sensor_data": "SELECT iot.process_sensor_data(%s::uuid, %s, '{\"rssi\": -67}')",
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side")
    options = parser.parse_args()
    with Cluster(settings={"shared_buffers": "512MB", "autovacuum": "off"}) as cluster:
        print(f"PostgreSQL {cluster.major}, calls/s (median of {options.rounds}, {options.seconds:g} s each)")
        print(f"{'readings in window':>18} " + " ".join(f"{side:>20}" for side in SIDES) + "   ratio to PL/pgSQL")
        for window in WINDOWS:
            rates = measure(cluster, window, options)
            ratio = rates["process_sensor_data"] / rates["PL/pgSQL"]
            print(f"{window:>18,} " + " ".join(f"{rates[side]:>20,.0f}" for side in SIDES) + f"   {ratio:.2f}", flush=True)


def measure(cluster, window, options):
    """Calls per second of each side on a fresh database whose sensors hold `window` readings of the last 24 hours."""
    name = cluster.create_database()
    with cluster.connect(name) as connection:
        connection.execute("CREATE EXTENSION iot_ext")
        connection.execute("SELECT iot.setup()")
        connection.execute((Path(__file__).parent / "pipeline.sql").read_text())
        sensors = prepare(connection, window)
        connection.execute("SET synchronous_commit = off")
        found = {side: [] for side in SIDES}
        for _ in range(options.rounds):
            for side, statement in SIDES.items():
                found[side].append(rate(connection, statement, sensors, options.seconds))
                # What was just measured must not lengthen the window of the next one.
                connection.execute("DELETE FROM iot.sensor_data WHERE measurement_metadata <> '{}'")
                connection.execute("VACUUM iot.sensor_data")
    cluster.drop_database(name)
    return {side: statistics.median(rates) for side, rates in found.items()}


def prepare(connection, window):
    connection.execute("INSERT INTO iot.devices (device_serial_number) VALUES ('D-1')")
    connection.execute(
        "INSERT INTO iot.sensors (device_id, sensor_name, sensor_type, unit_of_measure, calibration_data)"
        " SELECT device_id, 'sensor ' || n, 'temperature', 'degC', '{\"multiplier\": 1.01, \"offset\": -0.2}'"
        " FROM iot.devices, generate_series(1, %s) n", (SENSORS,))
    connection.execute(
        "INSERT INTO iot.alert_rules (rule_name, sensor_id, rule_conditions, severity)"
        " SELECT 'rule', sensor_id, conditions, 'high' FROM iot.sensors,"
        " unnest(ARRAY['{\"threshold_high\": 90}', '{\"threshold_low\": -20}']::jsonb[]) AS conditions")
    # Yesterday's readings may lie in last month.
    connection.execute("SELECT iot.create_monthly_partition('iot.sensor_data', extract(year FROM at)::int,"
                       " extract(month FROM at)::int) FROM (SELECT (now() - interval '1 day') AT TIME ZONE 'UTC') AS t (at)")
    if window:
        connection.execute(
            "INSERT INTO iot.sensor_data (sensor_id, device_id, measurement_timestamp, measurement_value, measurement_unit)"
            " SELECT sensor_id, device_id, now() - n * (interval '23 hours' / %(window)s), 20 + sin(n), 'degC'"
            " FROM iot.sensors, generate_series(1, %(window)s) n", {"window": window})
    connection.execute("VACUUM ANALYZE")
    return [sensor for (sensor,) in connection.execute("SELECT sensor_id FROM iot.sensors")]


def rate(connection, statement, sensors, seconds):
    """Calls per second; the first calls, which plan the statements, are not counted."""
    for number in range(20):
        connection.execute(statement, (sensors[number % len(sensors)], 20.5), prepare=True)
    calls, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for sensor in sensors:
            connection.execute(statement, (sensor, 20.0 + calls % 7 / 10), prepare=True)
            calls += 1
    return calls / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
