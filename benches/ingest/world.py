"""What is measured on: a database with sensors, calibrations and rules, and beside iot.sensor_data an equal table for bare
COPY and INSERT, or the PL/pgSQL pipeline of baseline.sql.
"""

import itertools
from contextlib import contextmanager
from pathlib import Path

from psycopg.pq import ExecStatus

from .measure import NotDone, NotThereYet
from .readings import identifier

# Large enough that no checkpoint starts and nothing leaves the cache while something is timed; fsync as in production,
# for synchronous_commit to mean something. Room for every sensor: the most that a measure has are 20,000.
SETTINGS = {
    "shared_buffers": "1GB", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "autovacuum": "off", "fsync": "on",
    "jit": "off", "maintenance_work_mem": "256MB", "max_connections": 50, "iot_ext.max_tracked_sensors": 25_000,
}
CALIBRATION = '{"multiplier": 1.02, "offset": 0.0}'
# Like those that a sensor has in practice, and never true for the readings of the benches.
RULES = ('{"threshold_high": 90}', '{"threshold_low": -20, "metadata_check": {"fw": "1.4.2"}}')

_number = itertools.count(1)


class World:
    """One database. `rules` are put on each sensor."""

    def __init__(self, cluster, sensors, rules=RULES, devices=None):
        self.cluster = cluster
        self.count = sensors
        self.sensors = [identifier("sensor", number) for number in range(sensors)]
        self.name = cluster.create_database(f"bench_{next(_number)}")
        self.admin = self.connect()
        self.admin.execute("CREATE EXTENSION iot_ext")
        self.admin.execute("SELECT iot.setup()")
        # Readings may lie up to a day back, in last month.
        self.admin.execute(
            "SELECT iot.create_monthly_partition('iot.sensor_data', extract(year FROM at)::int,"
            "                                    extract(month FROM at)::int)"
            " FROM (SELECT (now() - interval '25 hours') AT TIME ZONE 'UTC') AS t (at)")
        self.admin.execute(
            "INSERT INTO iot.devices (device_id, device_serial_number)"
            " SELECT md5('device ' || n)::uuid, 'D-' || n FROM generate_series(0, %s - 1) n", (devices or sensors,))
        self.admin.execute(
            "INSERT INTO iot.sensors (sensor_id, device_id, sensor_name, sensor_type, unit_of_measure, calibration_data)"
            " SELECT md5('sensor ' || n)::uuid, md5('device ' || n %% %s)::uuid, 'sensor ' || n, 'temperature', 'degC', %s"
            " FROM generate_series(0, %s - 1) n", (devices or sensors, CALIBRATION, sensors))
        for rule in rules:
            self.admin.execute(
                "INSERT INTO iot.alert_rules (rule_name, sensor_id, rule_conditions, severity)"
                " SELECT 'rule', sensor_id, %s, 'high' FROM iot.sensors", (rule,))
        self.admin.execute("VACUUM ANALYZE")

    def connect(self, synchronous_commit="off"):
        connection = self.cluster.connect(self.name)
        connection.execute(f"SET synchronous_commit = {synchronous_commit}")
        return connection

    def value(self, statement, parameters=None):
        return self.admin.execute(statement, parameters).fetchone()[0]

    def warm_up(self):
        """Gives every sensor a window to be scored against, and returns the time after which all readings have a score."""
        self.admin.execute("SELECT count(iot.process_sensor_data(s.sensor_id, 20 + n)) FROM iot.sensors s,"
                           " generate_series(1, 4) n")
        return self.value("SELECT clock_timestamp()")

    def scratch_file(self, name):
        """A path that the server can read and write."""
        return self.cluster.scratch / f"{self.name}-{name}.csv"

    def drop(self):
        self.admin.close()
        self.cluster.drop_database(self.name)

    # What this build can do

    def require_function(self, name, *first_types):
        """Refuses to measure a function that does not exist; only the first arguments' types are looked at."""
        found = self.value(
            "SELECT EXISTS (SELECT FROM pg_proc p WHERE pronamespace = 'iot'::regnamespace AND proname = %s"
            " AND (SELECT array_agg(format_type(t, NULL) ORDER BY i) FROM unnest(proargtypes) WITH ORDINALITY AS a (t, i)"
            "      WHERE i <= cardinality(%s::text[])) IS NOT DISTINCT FROM NULLIF(%s::text[], '{}'))",
            (name, list(first_types), list(first_types)))
        if not found:
            raise NotThereYet(f"iot.{name}({', '.join(first_types)}{', ...' if first_types else ''})")

    def require_readings(self):
        if self.value("SELECT to_regclass('iot.readings') IS NULL"):
            raise NotThereYet("iot.readings")

    # The equal table

    def columns(self):
        """The columns of iot.sensor_data that a client can fill."""
        return self.value(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
            " WHERE attrelid = 'iot.sensor_data'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''")

    def make_equal_table(self):
        """finished.sensor_data: partitions, indexes, checks and storage of iot.sensor_data, but no triggers."""
        self.admin.execute("CREATE SCHEMA finished")
        self.admin.execute("CREATE TABLE finished.sensor_data (LIKE iot.sensor_data INCLUDING ALL)"
                           " PARTITION BY RANGE (measurement_timestamp)")
        partitions = self.admin.execute(
            "SELECT relname, pg_get_expr(relpartbound, oid), array_to_string(reloptions, ', ') FROM pg_class"
            " WHERE oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'iot.sensor_data'::regclass)").fetchall()
        for name, bound, storage in partitions:
            self.admin.execute(f"CREATE TABLE finished.{name} (LIKE iot.{name} INCLUDING ALL)")
            if storage:
                self.admin.execute(f"ALTER TABLE finished.{name} SET ({storage})")
            self.admin.execute(f"ALTER TABLE finished.sensor_data ATTACH PARTITION finished.{name} {bound}")
        shape = """
            SELECT array_agg(line ORDER BY line) FROM (
                SELECT c.relname || ': ' || regexp_replace(pg_get_indexdef(i.indexrelid), 'INDEX \\S+ ON (ONLY )?\\S+', '')
                  FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = %(schema)s::regnamespace
                   AND c.relname LIKE 'sensor_data%%'
                UNION ALL
                SELECT c.relname || ': ' || pg_get_constraintdef(k.oid)
                  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
                 WHERE c.relnamespace = %(schema)s::regnamespace AND c.relname LIKE 'sensor_data%%'
                   AND k.contype IN ('c', 'p', 'u')) AS lines (line)"""
        if self.value(shape, {"schema": "iot"}) != self.value(shape, {"schema": "finished"}):
            raise NotDone("the table for the bare side has other indexes or checks than iot.sensor_data")

    def export(self, span, path):
        """Writes the finished rows of a span of time to a file that the server can read, in the order of arrival."""
        return self.admin.execute(
            f"COPY (SELECT {self.columns()} FROM iot.sensor_data"
            f" WHERE measurement_timestamp BETWEEN '{span[0]}' AND '{span[1]}' ORDER BY measurement_timestamp)"
            f" TO '{path}' (FORMAT csv)").rowcount

    # What must be true for a figure to count

    def check_stored(self, expected, table="iot.sensor_data"):
        found = self.value(f"SELECT count(*) FROM {table}")
        if found != expected:
            raise NotDone(f"{table} holds {found} rows instead of {expected}")

    def check_scored(self, span):
        """The rows of a span were calibrated and scored, and no rule fired."""
        calibrated, scored, rows = self.admin.execute(
            "SELECT count(raw_value), count(*) FILTER (WHERE anomaly_score > 0), count(*) FROM iot.sensor_data"
            " WHERE measurement_timestamp BETWEEN %s AND %s", span).fetchone()
        if rows == 0 or calibrated < rows:
            raise NotDone(f"{calibrated} of {rows} rows are calibrated")
        if scored < 0.95 * rows:
            raise NotDone(f"{scored} of {rows} rows have a score")
        self.check_no_alerts()

    def check_filled_alike(self):
        """A bare INSERT fills the columns that the engine fills, and its rows are as long."""
        (ours, size), (bare, bare_size) = (
            self.admin.execute(
                "SELECT (SELECT array_agg(k ORDER BY k) FROM jsonb_object_keys(jsonb_strip_nulls(to_jsonb(r))) AS k),"
                f" pg_column_size(r) FROM {schema}.sensor_data AS r"
                " ORDER BY r.measurement_timestamp DESC LIMIT 1").fetchone()
            for schema in ("iot", "finished"))
        if ours != bare or abs(size - bare_size) > 0.1 * size:
            raise NotDone(f"the bare row has {bare_size} bytes and {bare}, the engine's {size} bytes and {ours}")

    def check_no_alerts(self):
        alerts = self.value("SELECT count(*) FROM iot.alerts")
        if alerts:
            raise NotDone(f"{alerts} alerts although no rule should fire")

    # The hand-written pipeline

    def make_baseline(self):
        """The schema of baseline.sql with the same sensors, calibrations and rules."""
        self.admin.execute((Path(__file__).parents[1] / "baseline.sql").read_text())
        self.admin.execute("INSERT INTO baseline.devices (device_id) SELECT device_id FROM iot.devices")
        self.admin.execute(
            "INSERT INTO baseline.sensors SELECT sensor_id, device_id, sensor_type, sensor_status, unit_of_measure,"
            " calibration_data FROM iot.sensors")
        self.admin.execute("INSERT INTO baseline.alert_rules (sensor_id, rule_name, rule_conditions)"
                           " SELECT sensor_id, rule_name, rule_conditions FROM iot.alert_rules")


@contextmanager
def world_of(cluster, *arguments, **options):
    """A World that is dropped at the end."""
    world = World(cluster, *arguments, **options)
    try:
        yield world
    finally:
        world.drop()


class Prepared:
    """A prepared statement with binary parameters. psycopg's own conversion of lists would be timed along."""

    def __init__(self, connection, statement):
        self.connection = connection
        self.name = b"bench_%d" % next(_number)
        self._expect(connection.pgconn.prepare(self.name, statement.encode()), ExecStatus.COMMAND_OK)

    def __call__(self, *parameters):
        """The only row, as integers."""
        result = self.connection.pgconn.exec_prepared(self.name, parameters, [1] * len(parameters))
        self._expect(result, ExecStatus.TUPLES_OK)
        return tuple(int(result.get_value(0, column)) for column in range(result.nfields))

    @staticmethod
    def _expect(result, status):
        if result.status != status:
            raise NotDone(result.error_message.decode(errors="replace").strip())


COUNTS = "accepted, rejected, duplicates, anomalies, alerts"


def ingest_arrays(connection):
    """`iot.ingest` of arrays as a function of the three encoded arrays."""
    return Prepared(connection, f"SELECT {COUNTS} FROM iot.ingest($1::uuid[], $2::timestamptz[], $3::double precision[])")


def ingest_document(connection):
    return Prepared(connection, f"SELECT {COUNTS} FROM iot.ingest($1::jsonb)")


def check_counts(counts, accepted, duplicates=0):
    """`counts` is what ingest said: (accepted, rejected, duplicates, anomalies, alerts)."""
    if (counts[0], counts[1], counts[2], counts[4]) != (accepted, 0, duplicates, 0):
        raise NotDone(f"ingest counted {counts} ({COUNTS}) instead of {accepted} accepted, {duplicates} duplicates")
