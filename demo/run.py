"""The demo: a private PostgreSQL, a small factory, readings replayed with COPY into iot.readings, and what came of it.

    run.py                             the built-in simulator
    run.py --data FILE                 a CSV with the columns timestamp,value as one sensor
    run.py --data FILE --labels JSON   the same, compared with labelled windows ({"…/file.csv": [[first, last], …]})
    run.py --wait                      keeps the server after the report until Enter (a terminal does so by itself)
"""

import argparse
import csv
import json
import math
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import psycopg
from psycopg.types.json import Jsonb

import report
import simulator
from cluster import Cluster

DATABASE = "iot_demo"
READINGS_PER_COPY = 2_000


@dataclass(frozen=True)
class Offer:
    sensor: str
    moment: datetime
    value: float


def main() -> None:
    options = arguments()
    with Cluster() as cluster:
        print(f"PostgreSQL {cluster.major} with iot_ext runs in {cluster.directory}")
        cluster.create_database(DATABASE)
        with cluster.connect(DATABASE, autocommit=False) as connection:
            if options.data:
                offers, main_sensor = prepare_file(connection, options.data)
            else:
                offers, main_sensor = prepare_factory(connection)
            replay(connection, offers)
            show(connection, len(offers), main_sensor)
            if options.labels:
                compare_with_labels(connection, main_sensor, options.data, options.labels)
        wait_for_visitors(cluster, options.wait)


def wait_for_visitors(cluster: Cluster, asked: bool) -> None:
    """The server lives as long as this process: on a terminal it waits, else it says how to make it wait."""
    report.heading("Look around with psql")
    print(f"  {cluster.psql_command(DATABASE)}")
    print("  SELECT * FROM iot.alerts;   SELECT * FROM iot.sensor_hourly_aggregates LIMIT 20;")
    if asked or sys.stdin.isatty():
        input("  The server runs until you press Enter here. ")
    else:
        print("  The server stops now; `make demo WAIT=1`, or running it in a terminal, keeps it until you press Enter.")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Replays readings through iot_ext in a private PostgreSQL.")
    parser.add_argument("--data", type=Path, help="CSV file with the columns timestamp,value")
    parser.add_argument("--labels", type=Path, help="JSON file with labelled windows of the data file")
    parser.add_argument("--wait", action="store_true", help="keep the server until Enter is pressed")
    options = parser.parse_args()
    if options.labels and not options.data:
        parser.error("--labels needs --data")
    for path in (options.data, options.labels):
        if path and not path.is_file():
            parser.error(f"{path} is not a file")
    return options


def set_up(connection: psycopg.Connection, retention: str) -> None:
    connection.execute("CREATE EXTENSION iot_ext")
    connection.execute("SELECT iot.setup(retention => %s::interval)", (retention,))
    connection.execute("SET TimeZone = 'UTC'")
    connection.commit()


def add_sensor(connection: psycopg.Connection, sensor: simulator.Sensor) -> str:
    """Registers a sensor, and its device when it is the first one of it."""
    device = connection.execute(
        "SELECT device_id FROM iot.devices WHERE device_serial_number = %s", (sensor.device,)).fetchone()
    if device is None:
        device = connection.execute(
            "INSERT INTO iot.devices (device_serial_number, organization_id)"
            " SELECT %s, organization_id FROM iot.organizations RETURNING device_id", (sensor.device,)).fetchone()
    return str(connection.execute(
        "INSERT INTO iot.sensors (device_id, sensor_name, sensor_type, unit_of_measure, physical_minimum,"
        " physical_maximum, calibration_data) VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING sensor_id",
        (device[0], sensor.name, sensor.kind, sensor.unit, *sensor.physical, Jsonb(sensor.calibration))).fetchone()[0])


def prepare_factory(connection: psycopg.Connection) -> tuple[list[Offer], str]:
    set_up(connection, "10 years")
    connection.execute("INSERT INTO iot.organizations (organization_name) VALUES ('Example Works')")
    ids = {sensor.name: add_sensor(connection, sensor) for sensor in simulator.FACTORY}
    connection.execute(
        """INSERT INTO iot.alert_rules (rule_name, sensor_id, sensor_type, rule_conditions, severity) VALUES
           ('Bearing hot', %(bearing)s, NULL, '{"threshold_high": 75}', 'critical'),
           ('Vibration high', NULL, 'vibration', '{"threshold_high": 4.5}', 'high'),
           ('Oven outside its band', %(oven)s, NULL, '{"outside": [170, 195]}', 'medium'),
           ('Hall too dry', NULL, 'humidity', '{"threshold_low": 30}', 'warning')""",
        {"bearing": ids["bearing temperature"], "oven": ids["chamber temperature"]})
    connection.commit()
    # The simulation ends now: its week crosses a month's end on most days, so partitions are made on the way.
    days = 7
    start = (datetime.now(timezone.utc) - timedelta(days=days)).replace(second=0, microsecond=0)
    offers = [Offer(ids[sensor.name], moment, value)
              for sensor, moment, value in simulator.readings(start, days, timedelta(minutes=5))]
    return offers, ids["bearing temperature"]


def prepare_file(connection: psycopg.Connection, path: Path) -> tuple[list[Offer], str]:
    with path.open(newline="") as file:
        rows = [(datetime.fromisoformat(row["timestamp"]), float(row["value"])) for row in csv.DictReader(file)]
    if not rows:
        sys.exit(f"{path} holds no readings")
    rows = [(moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc), value) for moment, value in rows]
    age = datetime.now(timezone.utc) - min(moment for moment, _ in rows)
    set_up(connection, f"{max(age.days + 366, 3653)} days")
    connection.execute("INSERT INTO iot.organizations (organization_name) VALUES ('Replay')")
    sensor = add_sensor(connection, simulator.Sensor(path.stem, "value", "replay", "unit", 0, 0, 0, (None, None)))
    low, high = band(value for _, value in rows[: max(len(rows) // 10, 2)])
    connection.execute(
        "INSERT INTO iot.alert_rules (rule_name, sensor_id, rule_conditions, severity, message_template)"
        " VALUES ('Outside the usual band', %s, %s, 'high', '{sensor_name} is {value}, beyond {threshold}')",
        (sensor, Jsonb({"outside": [low, high]})))
    connection.commit()
    print(f"  alert rule: outside {low:g} to {high:g}, four standard deviations of the file's first tenth")
    return [Offer(sensor, moment, value) for moment, value in rows], sensor


def band(values) -> tuple[float, float]:
    values = list(values)
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1))
    return round(mean - 4 * deviation, 3), round(mean + 4 * deviation, 3)


def replay(connection: psycopg.Connection, offers: list[Offer]) -> None:
    report.heading(f"Replaying {len(offers):,} readings with COPY iot.readings")
    progress = report.Progress(len(offers))
    for first in range(0, len(offers), READINGS_PER_COPY):
        batch = offers[first : first + READINGS_PER_COPY]
        with connection.cursor() as cursor, cursor.copy(
                "COPY iot.readings (sensor_id, measurement_timestamp, measurement_value) FROM STDIN") as copy:
            for offer in batch:
                copy.write_row((offer.sensor, offer.moment, offer.value))
        connection.commit()
        progress.show(first + len(batch))
    engine = connection.execute(
        "SELECT stored, duplicates, rejected, (look_up_milliseconds + score_milliseconds + store_milliseconds"
        " + alert_milliseconds) / 1000 FROM iot.iot_stat_ingest").fetchone()
    print(f"  the engine took {engine[3]:.2f} s for them: {engine[0] / float(engine[3]):,.0f} rows/s inside the server")


def show(connection: psycopg.Connection, offered: int, main_sensor: str) -> None:
    query = connection.execute
    stored, suspect, invalid, anomalies, partitions = query(
        "SELECT count(*), count(*) FILTER (WHERE data_quality = 'suspect'),"
        " count(*) FILTER (WHERE data_quality = 'invalid'), count(*) FILTER (WHERE is_anomaly),"
        " count(DISTINCT tableoid) FROM iot.sensor_data").fetchone()
    report.heading("Ingested")
    print(f"  {offered:,} offered = {stored:,} stored + {offered - stored:,} duplicates;"
          f" {suspect:,} suspect, {invalid:,} invalid; in {partitions:,} monthly partitions")

    report.heading(f"Anomalies: {anomalies:,} readings more than three standard deviations from their last 24 hours")
    print(report.table(
        ("sensor", "anomalies", "first", "last", "lowest", "highest"),
        query("SELECT d.device_name || ' ' || s.sensor_name, count(*), min(r.measurement_timestamp)::timestamp(0),"
              " max(r.measurement_timestamp)::timestamp(0), min(r.measurement_value), max(r.measurement_value)"
              " FROM iot.sensor_data r JOIN iot.sensors s USING (sensor_id) JOIN iot.devices d ON d.device_id ="
              " s.device_id WHERE r.is_anomaly GROUP BY 1 ORDER BY 2 DESC, 1").fetchall()))

    report.heading("Alerts")
    print(report.table(
        ("severity", "status", "times", "first reading", "message"),
        query("SELECT severity, alert_status, occurrences, measurement_timestamp::timestamp(0), message"
              " FROM iot.alerts ORDER BY measurement_timestamp").fetchall()))

    report.heading("Hourly table (iot.sensor_hourly_aggregates), last hours of the main sensor")
    print(report.table(
        ("hour", "readings", "average", "lowest", "highest", "deviation", "valid", "anomalies"),
        query("SELECT hour_bucket::timestamp(0), measurement_count, avg_value, min_value, max_value, value_stddev,"
              " data_quality_ratio, anomaly_count FROM iot.sensor_hourly_aggregates WHERE sensor_id = %s"
              " ORDER BY hour_bucket DESC LIMIT 6", (main_sensor,)).fetchall()))

    for sensor, name in query(
            "SELECT s.sensor_id, d.device_name || ' ' || s.sensor_name || ' [' || s.unit_of_measure || ']'"
            " FROM iot.sensors s JOIN iot.devices d USING (device_id) ORDER BY s.sensor_id = %s DESC, 2",
            (main_sensor,)).fetchall():
        series = query("SELECT measurement_value, is_anomaly FROM iot.sensor_data WHERE sensor_id = %s"
                       " ORDER BY measurement_timestamp", (sensor,)).fetchall()
        line, marks = report.sparkline([value for value, _ in series], [flagged for _, flagged in series])
        report.heading(f"{name}: {min(v for v, _ in series):g} to {max(v for v, _ in series):g}, ▲ anomaly")
        print(f"  {line}\n  {marks}")

    report.heading("Dashboard (iot.iot_operations_dashboard)")
    cursor = query("SELECT * FROM iot.iot_operations_dashboard")
    row = cursor.fetchone()
    print(report.table(("figure", "value"), zip([column.name for column in cursor.description], row)))


def compare_with_labels(connection: psycopg.Connection, sensor: str, data: Path, labels: Path) -> None:
    """How the flags lie to the labelled windows of the file."""
    windows = next((windows for name, windows in json.loads(labels.read_text()).items()
                    if Path(name).name == data.name), None)
    if windows is None:
        sys.exit(f"{labels} has no entry for {data.name}")
    bounds = [tuple(datetime.fromisoformat(bound).replace(tzinfo=timezone.utc) for bound in window)
              for window in windows]
    flags = [moment for (moment,) in connection.execute(
        "SELECT measurement_timestamp FROM iot.sensor_data WHERE sensor_id = %s AND is_anomaly", (sensor,))]
    found = sum(any(first <= flag <= last for flag in flags) for first, last in bounds)
    outside = sum(not any(first <= flag <= last for first, last in bounds) for flag in flags)
    report.heading("Compared with the labelled windows")
    print(f"  {found} of {len(bounds)} windows contain a flagged reading;"
          f" {outside:,} of {len(flags):,} flags lie outside all windows")


if __name__ == "__main__":
    main()
