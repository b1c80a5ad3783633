"""Data survives: dumps, restores, DROP EXTENSION, killed backends, a crash of the whole server."""

import threading

import psycopg
import pytest

from cluster import Cluster, Database, wait_until
from factory import add_rule, add_sensor, process

# Everything that a dump must carry over, as rows that can be compared.
INVENTORY = {
    "columns": """
        SELECT c.oid::regclass::text, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               pg_get_expr(d.adbin, d.adrelid), a.attgenerated, col_description(c.oid, a.attnum)
          FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
         WHERE c.relnamespace = 'iot'::regnamespace AND c.relkind IN ('r', 'p', 'v')""",
    "relations": """
        SELECT c.oid::regclass::text, c.relkind, pg_get_userbyid(c.relowner), c.relrowsecurity, c.relforcerowsecurity,
               c.relacl::text, obj_description(c.oid, 'pg_class'), pg_get_expr(c.relpartbound, c.oid)
          FROM pg_class c WHERE c.relnamespace = 'iot'::regnamespace AND c.relkind IN ('r', 'p', 'v')""",
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'iot'",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
          FROM pg_constraint WHERE connamespace = 'iot'::regnamespace AND contype <> 'n'""",
    # Without brackets: the parser nests a long OR otherwise when it reads its own output again.
    "triggers": """
        SELECT tgrelid::regclass::text, tgname, tgenabled, translate(pg_get_triggerdef(oid), '()', '')
          FROM pg_trigger t WHERE NOT tgisinternal""",
    "views": "SELECT viewname, definition FROM pg_views WHERE schemaname = 'iot'",
    "policies": "SELECT tablename, policyname, permissive, roles::text, cmd, qual, with_check FROM pg_policies",
    "functions": """
        SELECT p.oid::regprocedure::text, p.provolatile, p.proparallel, p.proacl::text, obj_description(p.oid, 'pg_proc')
          FROM pg_proc p WHERE p.pronamespace = 'iot'::regnamespace""",
    "policy catalogue": "SELECT parent::text, time_column, partition_interval, premake, retention, index_policy, duplicates"
                        " FROM iot.partition_settings",
}


def contents(database):
    """Every row of every table of the schema, as text."""
    tables = [name for (name,) in database.rows(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'iot'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition AND relname NOT IN ('job_state', 'job_run') ORDER BY 1")]
    rows = {table: sorted(row[0] for row in database.rows(f"SELECT t::text FROM {table} t")) for table in tables}
    assert rows["iot.sensor_data"], "nothing to lose proves nothing"
    return rows


def inventory(database):
    return {name: sorted(map(repr, database.rows(query))) for name, query in INVENTORY.items()}


@pytest.fixture
def full_database(database):
    """A database with something in every corner: readings over months, calibrations, alerts, policies, own columns."""
    device, sensor = add_sensor(database)
    add_rule(database)
    for value, at in ((20, "2025-11-30 23:59:59.5+00"), (85, "2025-12-01 00:00+00"), (86, None)):
        process(database.connection, sensor, value, at)
    database.execute("UPDATE iot.sensors SET calibration_data = '{\"offset\": 1}'")
    process(database.connection, sensor, 20)
    database.execute("SELECT iot.queue_device_command(%s, 'restart')", (device,))
    database.execute("INSERT INTO iot.organizations (organization_name) VALUES ('Ünïcode & ''quotes''')")
    database.execute("INSERT INTO iot.device_groups (group_name, group_predicate) VALUES ('all active', '{\"device_status\": \"active\"}')")
    database.execute("INSERT INTO iot.device_tags (device_id, tag_key, tag_value) VALUES (%s, 'line', '3')", (device,))
    database.execute("ALTER TABLE iot.sensor_data ADD COLUMN shift text")
    database.execute("ALTER TABLE iot.devices ENABLE ROW LEVEL SECURITY")
    database.execute("CREATE POLICY own_devices ON iot.devices FOR SELECT USING (device_status = 'active')")
    database.execute("CREATE INDEX own_index ON iot.sensor_data (received_at)")
    database.execute("GRANT SELECT ON iot.sensor_data TO PUBLIC")
    database.execute("SELECT iot.setup(premake => 5, index_policy => '{device_time,time_brin,metadata_gin}')")
    return database


def restored(database, how, cluster):
    """A copy of `database` that went through a dump."""
    copy = Database(cluster)
    if how == "plain":
        cluster.psql(cluster.pg_dump(database.name), copy.name)
    else:
        archive = cluster.scratch / f"{database.name}.dump"
        cluster.pg_dump(database.name, "-Fc", "-f", archive)
        cluster.pg_restore(copy.name, archive, "-j2")
        archive.unlink()
    return copy


@pytest.mark.parametrize("how", ["plain", "custom"])
def test_dump_and_restore_keep_everything(full_database, cluster, how):
    copy = restored(full_database, how, cluster)
    try:
        assert contents(copy) == contents(full_database)
        for name, rows in inventory(full_database).items():
            assert inventory(copy)[name] == rows, name
        sensor = copy.value("SELECT sensor_id FROM iot.sensors")
        before = copy.value("SELECT count(*) FROM iot.sensor_data")
        process(copy.connection, sensor, 90)
        process(copy.connection, sensor, 20, "2024-05-05 05:05+00")
        assert copy.value("SELECT count(*) FROM iot.sensor_data") == before + 2
        assert copy.value("SELECT iot.setup() ->> 'migrations_applied'") == "[]"
    finally:
        copy.drop()


def test_a_renamed_table_keeps_its_policy_through_a_dump(full_database, cluster):
    full_database.execute("ALTER TABLE iot.sensor_data RENAME TO readings_of_old")
    copy = restored(full_database, "plain", cluster)
    try:
        managed = {name for (name,) in copy.rows("SELECT parent::text FROM iot.partition_settings")}
        assert managed == {"iot.readings_of_old", "iot.processed_data", "iot.device_logs"}
    finally:
        copy.drop()


def test_drop_extension_refuses_while_something_hangs_on_it(full_database):
    before = contents(full_database)
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        full_database.execute("DROP EXTENSION iot_ext")
    assert contents(full_database) == before


def test_drop_extension_cascade_takes_no_row_and_no_column(full_database):
    columns = "SELECT attrelid::regclass::text, attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid" \
              " WHERE relnamespace = 'iot'::regnamespace AND relkind IN ('r', 'p') AND attnum > 0 AND NOT attisdropped" \
              " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')" \
              " ORDER BY 1, 2"
    members = [name for (name,) in full_database.rows(
        "SELECT objid::regclass::text FROM pg_depend JOIN pg_class c ON c.oid = objid WHERE classid = 'pg_class'::regclass"
        " AND deptype = 'e' AND relkind IN ('r', 'p')")]
    before, columns_before = contents(full_database), full_database.rows(columns)
    triggers_before = inventory(full_database)["triggers"]
    policy = {name: before.pop(name, None) for name in members}["iot.partition_policy"]
    full_database.execute("SET client_min_messages = warning")
    full_database.execute("DROP EXTENSION iot_ext CASCADE")
    assert contents(full_database) == before
    assert full_database.rows(columns) == columns_before

    full_database.execute("CREATE EXTENSION iot_ext")
    # The policy went with the extension: what can be seen of it is kept without being told, the rest is given again.
    assert full_database.value("SELECT iot.setup() ->> 'indexes_dropped'") == "[]"
    full_database.execute("SELECT iot.setup(premake => 5)")
    after = contents(full_database)
    assert {name: after.pop(name, None) for name in members}["iot.partition_policy"] == policy
    assert after == before
    assert inventory(full_database)["triggers"] == triggers_before, "setup() attaches every trigger again"
    sensor = full_database.value("SELECT sensor_id FROM iot.sensors")
    process(full_database.connection, sensor, 20, "2023-01-01 00:00+00")
    assert full_database.value("SELECT count(*) FROM iot.sensor_data") == len(before["iot.sensor_data"]) + 1


def test_it_works_without_preload(unloaded_cluster):
    database = Database(unloaded_cluster)
    try:
        assert database.value("SHOW shared_preload_libraries") == ""
        database.execute("CREATE EXTENSION iot_ext")
        database.execute("SELECT iot.setup()")
        _, sensor = add_sensor(database)
        process(database.connection, sensor, 20)
        assert database.value("SELECT count(*) FROM iot.sensor_data") == 1
    finally:
        database.drop()


def ingest_until_cut(cluster, database_name, sensor, committed, started):
    """Commits one reading after the other and notes each commit that the server confirmed."""
    try:
        with cluster.connect(database_name) as connection:
            for number in range(1_000_000):
                committed.append(process(connection, sensor, number))
                started.set()
    except psycopg.OperationalError:
        started.set()


@pytest.mark.parametrize("how", ["kill -9 of the backend", "immediate stop"])
def test_no_committed_reading_is_lost(how):
    with Cluster(settings={"fsync": "on"}) as cluster:
        database = Database(cluster)
        database.execute("CREATE EXTENSION iot_ext")
        database.execute("SELECT iot.setup()")
        _, sensor = add_sensor(database)
        committed, started = [], threading.Event()
        writer = threading.Thread(target=ingest_until_cut, args=(cluster, database.name, sensor, committed, started))
        writer.start()
        assert started.wait(30)
        wait_until(lambda: len(committed) > 200, what="200 commits")
        if how == "immediate stop":
            cluster.crash()
        else:
            # Not the session of this test: the one that ingests.
            (backend,) = database.row(
                "SELECT pid FROM pg_stat_activity WHERE query LIKE '%%process_sensor_data%%' AND pid <> pg_backend_pid()")
            cluster.kill9(backend)
        writer.join(30)
        assert not writer.is_alive()
        if how == "immediate stop":
            cluster.start()
        else:
            cluster.wait_ready()
        with cluster.connect(database.name) as connection:
            stored = {row[0] for row in connection.execute("SELECT data_id FROM iot.sensor_data")}
        assert set(committed) <= stored
        assert len(stored) <= len(committed) + 1, "at most the reading whose commit was not confirmed any more"
