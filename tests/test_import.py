"""iot.import_partitions(): default partitions are emptied while the table is in use; tables of pg_partman are taken over.

pg_partman is Debian's package where that can be had; elsewhere its table part_config is made up.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest

from cluster import Cluster, Database, wait_until
from conversion import Call, Reader, Writer, check_against_records, kill, phase

IMPORT = "CALL iot.import_partitions('sensor_readings', '1 month', batch_rows => %s, lock_retries => %s{more})"


def partition(database, rows=10_000):
    """The table of readings, partitioned by hand, with most rows in its default partition."""
    database.psql(
        """
        CREATE TABLE devices (id varchar(50) PRIMARY KEY, name text NOT NULL);
        INSERT INTO devices SELECT 'd' || n, 'device ' || n FROM generate_series(1, 20) n;
        CREATE TABLE ledger (rows_added bigint NOT NULL, value_added numeric NOT NULL);
        CREATE TABLE heard (operation text);
        CREATE FUNCTION hear() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
        CREATE TABLE sensor_readings (
            id serial, device_id varchar(50) NOT NULL REFERENCES devices(id) ON DELETE CASCADE,
            "timestamp" timestamptz NOT NULL, sensor_type varchar(100) NOT NULL, value numeric(10,3) NOT NULL,
            unit varchar(20) NOT NULL, location varchar(255), status varchar(50) DEFAULT 'normal', metadata jsonb,
            created_at timestamptz DEFAULT now(), PRIMARY KEY (id, "timestamp")) PARTITION BY RANGE ("timestamp");
        CREATE INDEX ON sensor_readings (device_id, "timestamp" DESC);
        CREATE TRIGGER hear AFTER INSERT ON sensor_readings FOR EACH ROW EXECUTE FUNCTION hear();
        ALTER TABLE sensor_readings ENABLE ROW LEVEL SECURITY;
        CREATE POLICY all_of_it ON sensor_readings USING (true);
        CREATE TABLE readings_january PARTITION OF sensor_readings FOR VALUES FROM ('2026-01-01 00:00+00') TO ('2026-02-01 00:00+00');
        -- Its columns are in another order.
        CREATE TABLE readings_default (
            created_at timestamptz DEFAULT now(), metadata jsonb, status varchar(50) DEFAULT 'normal', location varchar(255),
            unit varchar(20) NOT NULL, value numeric(10,3) NOT NULL, sensor_type varchar(100) NOT NULL,
            "timestamp" timestamptz NOT NULL, device_id varchar(50) NOT NULL,
            id integer NOT NULL DEFAULT nextval('sensor_readings_id_seq'));
        ALTER TABLE sensor_readings ATTACH PARTITION readings_default DEFAULT;
        """)
    database.execute(
        """WITH added AS (
               INSERT INTO sensor_readings (device_id, timestamp, sensor_type, value, unit, metadata)
               SELECT 'd' || 1 + n %% 10, timestamptz '2026-01-01 00:00+00' + n * interval '10 minutes', 'temperature', n %% 100, 'C',
                      jsonb_build_object('n', n) FROM generate_series(1, %s) n RETURNING value)
           INSERT INTO ledger SELECT count(*), sum(value) FROM added""", (rows,))


@pytest.fixture
def readings(bare_database):
    partition(bare_database)
    return bare_database


def default_partition(database):
    rows = database.rows("SELECT partdefid::regclass::text FROM pg_partitioned_table"
                         " WHERE partrelid = 'sensor_readings'::regclass AND partdefid <> 0")
    return rows[0][0] if rows else None


@pytest.mark.parametrize("keep_default", [False, True])
def test_a_default_partition_is_emptied_while_it_is_used(readings, keep_default):
    assert readings.value("SELECT count(*) FROM readings_default") > 5000
    workers = [Writer(readings, 0), Writer(readings, 1), Reader(readings)]
    for worker in workers:
        worker.start()
    wait_until(lambda: all(worker.rounds > 5 for worker in workers), what="workers at work")
    call = Call(readings, IMPORT.format(more=f", keep_default => {keep_default}"), (200, 10_000))
    call.wait()
    if not keep_default:
        # Rows of 2024 and 2025 have no partition of their own to go to any more, unless some were there before.
        readings.execute("SELECT iot.create_monthly_partition('sensor_readings', y, 7) FROM unnest('{2024,2025,2027}'::int[]) y")
    failures = [worker.stop() for worker in workers]
    if keep_default:
        assert failures == [[], [], []]
    else:
        assert all("no partition of relation" in failure for found in failures for failure in found)
    if not any(failures):
        check_against_records(readings, workers[:2])
    assert default_partition(readings) == ("readings_default" if keep_default else None)
    kept = readings.value("SELECT count(*) FROM readings_default_before_import")
    assert kept > 5000
    # What is a partition now is like the others: index, key, foreign key, trigger, policy; and no more.
    assert readings.rows("""
        SELECT DISTINCT (SELECT count(*) FROM pg_index x WHERE x.indrelid = c.oid),
               (SELECT string_agg(k.contype::text, '' ORDER BY k.contype) FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype <> 'n'),
               (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'hear'),
               (SELECT count(*) FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname LIKE 'iot_ext%'),
               c.relrowsecurity, (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid)
          FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'sensor_readings'::regclass AND c.relname LIKE 'sensor\\_readings\\_2026\\_0_'""") == [
        (2, "fp", 1, 0, True, 1)]
    assert readings.value("SELECT premake FROM iot.partition_settings WHERE parent = 'sensor_readings'::regclass") == 3
    assert readings.rows("SELECT relname FROM pg_class WHERE relname LIKE 'readings\\_default\\__%'"
                         " AND relkind IN ('r', 'p')") == [("readings_default_before_import",)]
    # Nothing is left to do.
    again = Call(readings, IMPORT.format(more=f", keep_default => {keep_default}"), (200, 10))
    again.wait()
    assert readings.value("SELECT count(*) FROM iot.conversion") == 1


def test_after_kill_9_the_import_goes_on():
    with Cluster(settings={"iot_ext.maintenance_lock_timeout": "200ms"}) as cluster:
        database = Database(cluster)
        database.execute("CREATE EXTENSION iot_ext")
        partition(database)
        writers = [Writer(database, number, survives=True) for number in range(2)]
        for writer in writers:
            writer.start()
        for where in ("copying", "indexing", "closing"):
            holder = database.connect(autocommit=False)
            holder.execute("SELECT count(*) FROM sensor_readings")
            call = Call(database, IMPORT.format(more=", keep_default => true"), (100, 10_000))
            wait_until(lambda: phase(database, "readings_default") is not None, what="a beginning")
            wait_until(lambda where=where: phase(database, "readings_default") in (where, "verifying", "referencing", "closing"),
                       60, 0.002, where)
            kill(cluster, database, call)
        Call(database, IMPORT.format(more=", keep_default => true, keep_original => false"), (1000, 100)).wait()
        assert [writer.stop() for writer in writers] == [[], []]
        check_against_records(database, writers)
        assert database.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'readings_default%' AND relkind IN ('r', 'p')") == 1


def test_an_import_can_be_cancelled(readings):
    holder = readings.connect(autocommit=False)
    holder.execute("SELECT count(*) FROM sensor_readings")
    readings.execute(f"ALTER DATABASE {readings.name} SET iot_ext.maintenance_lock_timeout = '100ms'")
    before = readings.psql("\\d+ sensor_readings").stdout + readings.psql("\\d+ readings_default").stdout
    call = Call(readings, IMPORT.format(more=""), (1000, 0))
    with pytest.raises(psycopg.errors.LockNotAvailable):
        call.wait()
    holder.rollback()
    assert readings.value("SELECT iot.cancel_conversion('readings_default')") is True
    assert readings.psql("\\d+ sensor_readings").stdout + readings.psql("\\d+ readings_default").stdout == before


def test_what_an_import_refuses(readings):
    def refused(statement=IMPORT.format(more=""), error=psycopg.errors.FeatureNotSupported):
        with pytest.raises(error) as failure:
            readings.execute(statement, (100, 1))
        return failure.value.diag.message_detail or failure.value.diag.message_primary

    readings.execute("CREATE TABLE notes (id integer, at timestamptz, FOREIGN KEY (id, at) REFERENCES sensor_readings)")
    readings.execute("CREATE VIEW leftovers AS SELECT * FROM readings_default")
    readings.execute("CREATE TRIGGER own AFTER INSERT ON readings_default FOR EACH ROW EXECUTE FUNCTION hear()")
    first, *others = refused().splitlines()
    assert first.startswith("foreign key notes_id_at_fkey") and first.endswith(" of table public.notes references it")
    assert others == [
        "view public.leftovers depends on it",
        "trigger own is of the default partition itself",
    ]
    readings.execute("DROP TABLE notes; DROP VIEW leftovers; DROP TRIGGER own ON readings_default")
    readings.execute("ALTER TABLE sensor_readings DETACH PARTITION readings_default; CREATE TABLE readings_rest"
                     " PARTITION OF sensor_readings DEFAULT PARTITION BY HASH (id)")
    assert refused(error=psycopg.errors.WrongObjectType) == "default partition public.readings_rest is not a plain table"


# pg_partman


def real_partman(database):
    """Installs pg_partman into the private copy and the database, where Debian's package can be had."""
    available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_partman'"
    if database.value(available) == 0 and shutil.which("apt-get"):
        with tempfile.TemporaryDirectory() as directory:
            package = f"postgresql-{database.cluster.major}-partman"
            done = subprocess.run(["apt-get", "download", package], cwd=directory, capture_output=True, check=False)
            if done.returncode == 0:
                (archive,) = Path(directory).glob("*.deb")
                subprocess.run(["dpkg-deb", "-x", archive, directory], check=True)
                sharedir = Path(database.cluster._ask_pg_config("--sharedir"))
                for file in Path(directory).glob("usr/share/postgresql/*/extension/pg_partman*"):
                    shutil.copy(file, sharedir / "extension")
    if database.value(available) == 0:
        return False
    database.execute("CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman")
    return True


METRICS = """
CREATE TABLE metrics (device integer NOT NULL, at timestamptz NOT NULL, load double precision) PARTITION BY RANGE (at);
CREATE INDEX ON metrics (device, at);
"""


@pytest.fixture(params=["real", "emulated"])
def metrics(request, bare_database):
    bare_database.execute(METRICS)
    if request.param == "real":
        if not real_partman(bare_database):
            pytest.skip("pg_partman is not to be had for this PostgreSQL")
        kind = "native" if bare_database.value("SELECT extversion FROM pg_extension WHERE extname = 'pg_partman'") < "5" else "range"
        width = "daily" if kind == "native" else "1 day"
        bare_database.execute("SELECT partman.create_parent('public.metrics', 'at', %s, %s, p_premake := 5)", (kind, width))
        bare_database.execute("UPDATE partman.part_config SET retention = '30 days', retention_keep_table = false")
    else:
        bare_database.execute(
            """CREATE SCHEMA partman;
               CREATE TABLE partman.part_config (parent_table text, control text, partition_type text, partition_interval text,
                   premake integer, retention text, retention_keep_table boolean);
               INSERT INTO partman.part_config VALUES ('public.metrics', 'at', 'native', '1 day', 5, '30 days', false);
               CREATE TABLE metrics_default PARTITION OF metrics DEFAULT;
               CREATE TABLE metrics_p2026_11_01 PARTITION OF metrics FOR VALUES FROM ('2026-11-01 00:00+00') TO ('2026-11-02 00:00+00')""")
    # A key, which pg_partman leaves to its template.
    bare_database.execute("ALTER TABLE metrics ADD PRIMARY KEY (device, at)")
    # Two months ago, and one of no partition of pg_partman's.
    bare_database.execute("INSERT INTO metrics SELECT n, now() - n * interval '1 day', n FROM generate_series(1, 60) n")
    return bare_database


def test_a_table_of_pg_partman_is_taken_over(metrics):
    names = metrics.rows("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'metrics'::regclass"
                         " AND inhrelid::regclass::text <> 'metrics_default' ORDER BY 1")
    assert names
    assert metrics.value("SELECT count(*) FROM metrics_default") > 0
    call = Call(metrics, "CALL iot.import_partitions('metrics')")
    call.wait()
    assert metrics.row("SELECT partition_interval = '1 day', premake, drop_after = '30 days' FROM iot.partition_settings"
                       " WHERE parent = 'metrics'::regclass") == (True, 5, True)
    after = metrics.rows("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'metrics'::regclass ORDER BY 1")
    assert set(names) <= set(after)
    assert ("metrics_default",) not in after
    assert metrics.row("SELECT count(*), sum(load) FROM metrics") == (60, 60 * 61 / 2)
    (warning,) = [notice for notice in call.notices if notice[0] == "WARNING"]
    assert "pg_partman still has public.metrics in its configuration" in warning[1]
    assert "DELETE FROM partman.part_config WHERE parent_table = 'public.metrics';" in warning[3]
    # What retention takes away, upkeep does, when one has looked at it.
    assert metrics.row("SELECT count(*) FILTER (WHERE next_action = 'drop' AND next_action_at <= now()) > 20, count(*) > 60"
                       "  FROM iot.partitions WHERE parent = 'metrics'::regclass") == (True, True)
    metrics.execute(warning[3].split(": ", 1)[1].split(";")[0])
    metrics.execute("SELECT iot.partition_upkeep('metrics')")
    assert metrics.row("SELECT count(*) BETWEEN 29 AND 31, max(load) <= 31 FROM metrics") == (True, True)


def test_what_pg_partman_keeps_is_not_dropped(metrics):
    metrics.execute("UPDATE partman.part_config SET retention_keep_table = true")
    call = Call(metrics, "CALL iot.import_partitions('metrics', keep_default => true, keep_original => false)")
    call.wait()
    assert metrics.value("SELECT drop_after FROM iot.partition_settings WHERE parent = 'metrics'::regclass") is None
    assert any("pg_partman detaches partitions of public.metrics after 30 days and keeps them" in text
               for _, text, _, _ in call.notices)
    assert metrics.row("SELECT (SELECT count(*) FROM metrics), (SELECT count(*) FROM metrics_default)") == (60, 0)


def test_an_interval_that_is_none_of_ours(metrics):
    metrics.execute("UPDATE partman.part_config SET partition_interval = '15 minutes'")
    with pytest.raises(psycopg.errors.InvalidParameterValue) as failure:
        metrics.execute("CALL iot.import_partitions('metrics')")
    assert "1 hour, 1 day, 7 days" in failure.value.diag.message_hint
    # Given one, it is that.
    metrics.execute("CALL iot.import_partitions('metrics', '1 day', retention => '400 days', dry_run => true)")
    assert metrics.rows("SELECT * FROM iot.partition_settings WHERE parent = 'metrics'::regclass") == []


def test_a_configuration_of_somebody_else_does_nothing_with_our_rights(bare_database):
    """Whoever may create a schema can put a table of that name there."""
    bare_database.execute(METRICS)
    bare_database.execute("CREATE ROLE conversion_mallory LOGIN")
    try:
        bare_database.execute(f"GRANT CREATE ON DATABASE {bare_database.name} TO conversion_mallory")
        with bare_database.connect("conversion_mallory") as mallory:
            mallory.execute(
                "CREATE SCHEMA partman; CREATE TABLE partman.seen (who text);"
                "CREATE FUNCTION partman.spy(text) RETURNS boolean LANGUAGE plpgsql AS"
                " $$ BEGIN INSERT INTO partman.seen VALUES (current_user); RETURN true; END $$;"
                "CREATE TABLE partman.part_config (parent_table text, partition_interval text, premake integer,"
                "  retention text, retention_keep_table boolean);"
                "INSERT INTO partman.part_config VALUES ('public.metrics', '1 day', 1, '2 days', false);"
                "ALTER TABLE partman.part_config ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
                "CREATE POLICY spy ON partman.part_config USING (partman.spy(parent_table))")
        bare_database.execute("CALL iot.import_partitions('metrics', '1 day')")
        assert bare_database.row("SELECT premake, drop_after FROM iot.partition_settings"
                                 " WHERE parent = 'metrics'::regclass") == (3, None)
        # Of a table of his own it is believed, and read as him.
        bare_database.execute("ALTER TABLE metrics OWNER TO conversion_mallory")
        bare_database.execute("CALL iot.import_partitions('metrics')")
        assert bare_database.value("SELECT drop_after = '2 days' FROM iot.partition_settings"
                                   " WHERE parent = 'metrics'::regclass")
        assert set(bare_database.rows("SELECT who FROM partman.seen")) == {("conversion_mallory",)}
    finally:
        bare_database.execute("DROP OWNED BY conversion_mallory; DROP ROLE conversion_mallory")
