"""Partition upkeep against what one would use instead: DELETE and VACUUM, plain SQL, pg_partman.

All sides work on equal tables in one private server, in one run. See benches/README.md.

    make bench BENCH=partitions [ARGS='--only retention,premake,idle,planning --quick']

pg_partman comes from the Debian package postgresql-<version>-partman, where that can be had: its files are put into the private copy
of PostgreSQL that the benches run, not into the system.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from cluster import Cluster, Database
from ingest.measure import Goal, NotDone, Report
from ingest.world import SETTINGS

COLUMNS = """data_id uuid DEFAULT gen_random_uuid(), sensor_id uuid NOT NULL, device_id uuid, measurement_timestamp timestamptz NOT NULL,
    measurement_value double precision, measurement_unit text, data_quality text, is_anomaly boolean, anomaly_score double precision,
    measurement_metadata jsonb DEFAULT '{}'"""


def main():
    options = arguments()
    report = Report(options)
    settings = SETTINGS | {"max_locks_per_transaction": 256}
    with Cluster(preload=False, settings=settings) as cluster:
        print(f"PostgreSQL {cluster.major}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.2f}, median of {options.rounds}"
              f"{' (smoke test)' if options.quick else ''}")
        report.head()
        database = Database(cluster)
        database.execute("CREATE EXTENSION iot_ext")
        for name in options.only or MEASURES:
            try:
                MEASURES[name](database, report)
            except (NotDone, psycopg.Error) as why:
                report.void(name, why)
    print(f"load {os.getloadavg()[0]:.2f}; {report.problems} missed or void, {report.incomplete} not there yet")
    sys.exit(1 if report.problems else 0)


# Retention


def fill(database, table, days, rows):
    """A table of `days` daily partitions before today, each with `rows` rows, a btree and a BRIN index."""
    database.execute(f"DROP TABLE IF EXISTS {table}")
    database.execute(f"CREATE TABLE {table} ({COLUMNS}) PARTITION BY RANGE (measurement_timestamp)")
    for back in range(days + 1):
        database.execute(
            f"""DO $$ DECLARE day date := (now() AT TIME ZONE 'UTC')::date - {back};
                BEGIN
                    EXECUTE format('CREATE TABLE {table}_%s PARTITION OF {table} FOR VALUES FROM (%L) TO (%L)',
                                   to_char(day, 'YYYY_MM_DD'), day || ' 00:00+00', day + 1 || ' 00:00+00');
                END $$""")
    database.execute(
        f"""INSERT INTO {table} (sensor_id, device_id, measurement_timestamp, measurement_value, measurement_unit, data_quality,
                                 is_anomaly, anomaly_score, measurement_metadata)
            SELECT md5('s' || g %% 1000)::uuid, md5('d' || g %% 250)::uuid,
                   (date_trunc('day', now(), 'UTC') - %s * interval '1 day') + g * interval '1 day' / %s, 22 + sin(g), 'celsius', 'valid',
                   false, 0.5, '{{"fw": "1.4.2", "rssi": -67}}'
              FROM generate_series(0, %s) g""", (days, rows, days * rows - 1))
    database.execute(f"CREATE INDEX ON {table} (sensor_id, measurement_timestamp)")
    database.execute(f"CREATE INDEX ON {table} USING brin (measurement_timestamp)")
    database.execute(f"ANALYZE {table}")
    database.execute("CHECKPOINT")


def measured(database, work):
    """Seconds, and bytes of WAL."""
    before, begin = database.value("SELECT pg_current_wal_insert_lsn()"), time.perf_counter()
    work()
    seconds = time.perf_counter() - begin
    return seconds, int(database.value("SELECT pg_current_wal_insert_lsn() - %s::pg_lsn", (before,)))


def retention(database, report):
    days, rows = (9, 2000) if report.options.quick else (90, 50_000)

    def delete():
        database.execute("DELETE FROM old WHERE measurement_timestamp < date_trunc('day', now(), 'UTC')")
        database.execute("VACUUM old")

    def together():
        if database.value("SELECT iot.drop_old_partitions('old', older_than => '1 microsecond')") != days:
            raise NotDone("not every partition was dropped")

    def concurrently():
        for (statement,) in database.rows("SELECT iot.partition_statements('old')"):
            database.execute(statement)

    figures = {}
    for name, work in (("DELETE and VACUUM", delete), ("one transaction", together), ("concurrent detach", concurrently)):
        samples = []
        for number in range(report.options.rounds + 1):
            fill(database, "old", days, rows)
            if work is concurrently:
                database.execute("SELECT iot.manage_partitions('old', '1 day', premake => 0)")
                database.execute("UPDATE iot.partition_policy SET drop_after = '1 microsecond' WHERE parent = 'old'::regclass")
            sample = measured(database, work)
            if (left := database.value("SELECT count(*) FROM old")) != 0:
                raise NotDone(f"{left} rows are left after {name}")
            if number or report.options.quick:
                samples.append(sample)
        figures[name] = [statistics.median(column) for column in zip(*samples)]
    database.execute("DROP TABLE old")
    theirs, their_wal = figures["DELETE and VACUUM"]
    title = f"retention, {days} daily partitions of {rows:,} rows"
    for name, bound in (("one transaction", 10), ("concurrent detach", 6)):
        ours, our_wal = figures[name]
        report.line(f"{title}, {name}: 1/s against DELETE and VACUUM", 1 / ours, 1 / theirs, theirs / ours, Goal("DELETE", bound))
        report.line("    bytes of WAL", our_wal, their_wal, our_wal / their_wal, Goal("DELETE", 0.01, at_least=False))


# Premaking


def partman(database):
    """Whether pg_partman is there; puts it there where Debian's package can be had."""
    available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_partman'"
    if database.value(available) == 0 and shutil.which("apt-get"):
        with tempfile.TemporaryDirectory() as directory:
            package = f"postgresql-{database.cluster.major}-partman"
            if subprocess.run(["apt-get", "download", package], cwd=directory, capture_output=True, check=False).returncode == 0:
                (archive,) = Path(directory).glob("*.deb")
                subprocess.run(["dpkg-deb", "-x", archive, directory], check=True)
                sharedir = Path(database.cluster._ask_pg_config("--sharedir"))
                for file in Path(directory).glob("usr/share/postgresql/*/extension/pg_partman*"):
                    shutil.copy(file, sharedir / "extension")
    if database.value(available) == 0:
        return False
    database.execute("CREATE SCHEMA IF NOT EXISTS partman")
    database.execute("CREATE EXTENSION IF NOT EXISTS pg_partman SCHEMA partman")
    return True


def empty(database, table):
    """A new table. Nothing is dropped between rounds: file systems are slow to reuse what was deleted a moment ago."""
    database.execute(f"CREATE TABLE {table} ({COLUMNS}) PARTITION BY RANGE (measurement_timestamp)")
    database.execute(f"CREATE INDEX ON {table} (sensor_id, measurement_timestamp)")
    database.execute(f"CREATE INDEX ON {table} USING brin (measurement_timestamp)")
    return table


def children(database, table):
    return database.value("SELECT count(*) FROM pg_inherits WHERE inhparent = %s::regclass", (table,))


def premade_by_us(database, table, count):
    empty(database, table)
    database.execute(f"SELECT iot.manage_partitions('{table}', '1 day', premake => 0)")
    seconds, _ = measured(database, lambda: database.execute(f"SELECT iot.manage_partitions('{table}', premake => %s)", (count,)))
    return seconds / (children(database, table) - 1)


def premade_by_partman(database, table, count):
    empty(database, table)
    database.execute(f"SELECT partman.create_parent('public.{table}', 'measurement_timestamp', 'native', 'daily', p_premake := 1)")
    # It makes nothing ahead of an empty table.
    database.execute(f"INSERT INTO {table} (sensor_id, measurement_timestamp) VALUES (gen_random_uuid(), now())")
    database.execute("UPDATE partman.part_config SET premake = %s WHERE parent_table = %s", (count, f"public.{table}"))
    before = children(database, table)
    seconds, _ = measured(database, lambda: database.execute(f"SELECT partman.run_maintenance('public.{table}')"))
    return seconds / (children(database, table) - before)


def premade_by_hand(database, table, count):
    empty(database, table)
    seconds, _ = measured(database, lambda: database.execute(
        f"""DO $$ DECLARE day date := (now() AT TIME ZONE 'UTC')::date;
            BEGIN
                FOR n IN 1 .. {count} LOOP
                    EXECUTE format('CREATE TABLE {table}_%s PARTITION OF {table} FOR VALUES FROM (%L) TO (%L)',
                                   n, day + n || ' 00:00+00', day + n + 1 || ' 00:00+00');
                END LOOP;
            END $$"""))
    return seconds / count


def premake(database, report):
    count = 10 if report.options.quick else 100
    sides = {"ours": premade_by_us, "plain SQL": premade_by_hand}
    if partman(database):
        sides["pg_partman"] = premade_by_partman
    samples = {name: [] for name in sides}
    for number in range(report.options.rounds + 1):
        for name in sides if number % 2 else reversed(sides):
            seconds = sides[name](database, f"{name.split()[-1].lower()}_{number}", count)
            if number:
                samples[name].append(seconds * 1000)
    ours = statistics.median(samples["ours"])
    title = f"premaking {count} partitions, ms each against"
    for name in sides:
        if name != "ours":
            theirs = statistics.median(samples[name])
            goal = Goal(name, 0.5, at_least=False) if name == "pg_partman" else None
            report.line(f"{title} {name}", ours, theirs, ours / theirs, goal)
    if "pg_partman" not in sides:
        report.missing(f"{title} pg_partman", "pg_partman is not installed")


def idle(database, report):
    count = 20 if report.options.quick else 150
    premade_by_us(database, "idle_ours", count)
    there = partman(database)
    if there:
        premade_by_partman(database, "idle_theirs", count)
    runs = 20 if report.options.quick else 200

    def milliseconds(statement, times):
        database.execute(statement)
        samples = []
        for _ in range(times):
            begin = time.perf_counter()
            database.execute(statement)
            samples.append((time.perf_counter() - begin) * 1000)
        return statistics.median(samples)

    ours = milliseconds("SELECT iot.manage_partitions('idle_ours')", runs)
    title = f"an idle run over {count} partitions, ms against pg_partman"
    if there:
        theirs = milliseconds("SELECT partman.run_maintenance('public.idle_theirs')", max(runs // 10, 5))
        report.line(title, ours, theirs, ours / theirs, Goal("pg_partman", 0.1, at_least=False))
    else:
        report.missing(title, f"pg_partman is not installed; ours takes {ours:.3f} ms")


# Planning


def planning(database, report):
    most = 200 if report.options.quick else 2000
    query = ("SELECT avg(measurement_value) FROM {} WHERE sensor_id = md5('s1')::uuid AND measurement_timestamp >= {}"
             " AND measurement_timestamp < {}")
    literal = ("date_trunc('day', now(), 'UTC')", "date_trunc('day', now(), 'UTC') + interval '1 day'")
    for count, table in ((10, "few"), (most, "many")):
        empty(database, table)
        database.execute("SET client_min_messages = error")
        for premake in range(0, count, 100):
            database.execute(f"SELECT iot.manage_partitions('{table}', '1 hour', premake => %s)", (min(premake + 100, count - 1, 1000),))
        if count > 1000:
            # premake goes up to 1,000: the others lie in the past.
            database.execute(
                f"""DO $$ DECLARE hour timestamptz := date_trunc('hour', now());
                    BEGIN
                        FOR n IN 1 .. {count - 1001} LOOP
                            EXECUTE format('CREATE TABLE {table}_before_%s PARTITION OF {table} FOR VALUES FROM (%L) TO (%L)',
                                           n, hour - n * interval '1 hour', hour - (n - 1) * interval '1 hour');
                        END LOOP;
                    END $$""")
        if children(database, table) != count:
            raise NotDone(f"{table} has {children(database, table)} partitions")

    def milliseconds(statement):
        samples = []
        for _ in range(3 if report.options.quick else 11):
            plan = database.value(f"EXPLAIN (SUMMARY, FORMAT json) {statement}")
            samples.append(plan[0]["Planning Time"])
        return statistics.median(samples[1:])

    bounds = [repr(str(bound)) for bound in database.row(f"SELECT {literal[0]}, {literal[1]}")]
    few, many = (milliseconds(query.format(table, *bounds)) for table in ("few", "many"))
    report.line(f"planning a day of one sensor, ms: {most} partitions against 10", many, few, many / few,
                Goal("10 partitions", 5, at_least=False))
    few, many = (milliseconds(query.format(table, "now() - interval '1 day'", "now()")) for table in ("few", "many"))
    report.line("    the same with now() - interval '1 day'", many, few, many / few)
    database.execute("RESET client_min_messages")


MEASURES = {"retention": retention, "premake": premake, "idle": idle, "planning": planning}


def arguments():
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    parser.add_argument("--only", type=names, help=f"measures, separated by commas: {', '.join(MEASURES)}")
    parser.add_argument("--quick", action="store_true", help="a smoke test: small sizes, no verdicts")
    parser.add_argument("--rounds", type=int, help="rounds that count (3; with --quick 1)")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    return options


def names(text):
    chosen = text.split(",")
    if unknown := set(chosen) - set(MEASURES):
        raise argparse.ArgumentTypeError(f"no such measure: {', '.join(sorted(unknown))}")
    return chosen


if __name__ == "__main__":
    main()
