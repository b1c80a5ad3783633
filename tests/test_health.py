"""What the database shows of itself, and the alerts that it raises about itself."""

import psycopg
import pytest

from cluster import Cluster, Database, wait_until
from factory import add_sensor, process

FINDINGS = "SELECT check_name, subject, status FROM iot.health_checks() ORDER BY 1, 2"
OPEN = ("SELECT alert_metadata ->> 'check', alert_metadata ->> 'subject', severity, occurrences FROM iot.alerts"
        " WHERE alert_type = 'system_health' AND alert_status <> 'resolved' ORDER BY 1, 2")


def test_the_database_at_a_glance(database):
    name, size, connections, standby = database.row(
        "SELECT database_name, database_bytes, connections, is_standby FROM iot.db_health")
    assert name == database.name and size > 1_000_000 and connections >= 1 and standby is False
    maximum, total, used = database.row("SELECT max_connections, total_connections, used_percent FROM iot.connection_usage")
    assert 1 <= total <= maximum and 0 < used <= 100


def test_partitions_count_with_their_table(database):
    _, sensor = add_sensor(database)
    for month in (1, 2, 3):
        process(database.connection, sensor, month, f"2025-{month:02}-15 00:00+00")
    database.execute("ANALYZE iot.sensor_data")
    partitions, live, total = database.row(
        "SELECT partitions, live_tuples, total_bytes FROM iot.table_stats WHERE schemaname = 'iot' AND relname = 'sensor_data'")
    assert partitions >= 3
    # Counters of this session reach the statistics with its end.
    assert live >= 0 and total > 0
    assert database.rows("SELECT 1 FROM iot.table_stats WHERE relname LIKE 'sensor_data_2%%'") == []
    assert database.value("SELECT is_unique FROM iot.index_usage WHERE index_name = 'sensor_data_pkey'") is True
    assert database.rows("SELECT 1 FROM iot.index_usage WHERE index_name LIKE 'sensor_data_2%%'") == []


def test_slow_queries_are_empty_without_pg_stat_statements(database):
    assert database.rows("SELECT * FROM iot.slow_queries") == []


def test_nobody_lags_where_there_are_no_replicas(database):
    assert database.rows("SELECT * FROM iot.replication_lag") == []


def test_a_healthy_database_says_so(database):
    assert database.rows(FINDINGS) == []
    health = database.value("SELECT iot.health()")
    assert health["status"] == "ok" and health["findings"] == [] and health["is_preloaded"] is True
    assert database.value("SELECT iot.check_health()") == 0
    assert database.rows(OPEN) == []


def test_without_preload_it_says_that(unloaded_cluster):
    database = Database(unloaded_cluster)
    try:
        database.execute("CREATE EXTENSION iot_ext")
        assert database.value("SELECT iot.health() ->> 'is_preloaded'") == "false"
    finally:
        database.drop()


def test_a_failing_job_becomes_an_alert_until_it_works(database):
    database.execute("SELECT iot.add_job('broken', '1 day', 'SELECT 1 / divisor FROM public.divisors',"
                     " first_start => now() + interval '1 hour')")
    database.execute("CREATE TABLE public.divisors (divisor integer)")
    database.execute("INSERT INTO public.divisors VALUES (0)")
    for _ in range(3):
        with pytest.raises(psycopg.Error):
            database.execute("CALL iot.run_job('broken')")
        assert database.value("SELECT iot.check_health()") == 1
    assert database.rows(OPEN) == [("failed_job", "broken", "critical", 3)]
    assert "division by zero" in database.value("SELECT message FROM iot.alerts")
    assert database.value("SELECT iot.health() ->> 'status'") == "critical"
    database.execute("UPDATE public.divisors SET divisor = 1")
    database.execute("CALL iot.run_job('broken')")
    assert database.value("SELECT iot.check_health()") == 0
    assert database.rows(OPEN) == []
    status, by = database.row("SELECT alert_status, resolved_by FROM iot.alerts")
    assert (status, by) == ("resolved", "iot.check_health()")
    assert database.rows("SELECT job_kind FROM iot.jobs WHERE job_name = 'broken'") == [("sql",)]


def test_partitions_that_run_out_are_told(database):
    last = database.value("SELECT max(range_start) FROM iot.partitions WHERE parent = 'iot.sensor_data'::regclass")
    for (partition,) in database.rows(
            "SELECT partition::text FROM iot.partitions WHERE parent = 'iot.sensor_data'::regclass"
            "   AND range_start > date_trunc('month', now())"):
        database.execute(f"DROP TABLE {partition}")
    assert last is not None
    assert database.rows(FINDINGS) == [("partition_runway", "iot.sensor_data", "warning")]


def test_what_lies_behind_a_gap_is_not_ready(database):
    for name, premade in (("bare", None), ("far", "2090-01-01")):
        database.execute(f"CREATE TABLE public.{name} (at timestamptz NOT NULL) PARTITION BY RANGE (at)")
        database.execute(f"SELECT iot.manage_partitions('public.{name}', '1 month', premake => 1, dry_run => false)")
        for (partition,) in database.rows(f"SELECT partition::text FROM iot.partitions WHERE parent = 'public.{name}'::regclass"):
            database.execute(f"DROP TABLE {partition}")
        if premade:
            database.execute(f"SELECT iot.create_monthly_partition('public.{name}', 2090, 1)")
    assert database.rows(FINDINGS) == [
        ("partition_runway", "public.bare", "critical"), ("partition_runway", "public.far", "critical")]
    assert "has no partition for now" in database.value("SELECT max(message) FROM iot.health_checks()")


def test_a_guard_that_fails_is_an_objection_and_no_obstacle(database):
    database.execute("CREATE TABLE public.guarded (at timestamptz NOT NULL) PARTITION BY RANGE (at)")
    database.execute("SELECT iot.create_monthly_partition('public.guarded', 2020, 1)")
    database.execute("CREATE FUNCTION public.check_it(regclass, timestamptz, timestamptz) RETURNS text LANGUAGE plpgsql AS"
                     " $$ BEGIN RAISE 'archive is away'; END $$")
    database.execute("SELECT iot.manage_partitions('public.guarded', '1 month', premake => 2)")
    database.execute("INSERT INTO iot.retention_guard (parent, guard_name, check_function)"
                     " VALUES ('guarded', 'archive', 'public.check_it(regclass, timestamptz, timestamptz)')")
    for said in ("archive: its function failed: archive is away", "archive: its function does not exist any more"):
        actions = database.rows("SELECT outcome, reason FROM iot.manage_partitions('public.guarded', retention => '30 days')")
        assert len(actions) == 1 and actions[0][0] == "blocked" and said in actions[0][1]
        assert said in database.value("SELECT reason FROM iot.partitions WHERE partition = 'guarded_2020_01'::regclass")
        database.value("SELECT iot.partition_upkeep()")
        assert database.rows(FINDINGS) == []
        database.execute("DROP FUNCTION IF EXISTS public.check_it")


def test_rejected_readings_that_grow_are_told(database):
    _, sensor = add_sensor(database)
    database.execute("SELECT iot.ingest(array_fill(%s::uuid, ARRAY[101]), array_fill(now(), ARRAY[101]),"
                     " array_fill('NaN'::float8, ARRAY[101]))", (sensor,))
    assert database.rows(FINDINGS) == [("rejected_readings", "", "warning")]
    database.execute("UPDATE iot.rejected_readings SET replayed_at = now()")
    assert database.rows(FINDINGS) == []


def test_two_sessions_that_check_raise_one_alert(database):
    _, sensor = add_sensor(database)
    database.execute("SELECT iot.ingest(array_fill(%s::uuid, ARRAY[101]), array_fill(now(), ARRAY[101]),"
                     " array_fill('NaN'::float8, ARRAY[101]))", (sensor,))
    with database.connect() as other:
        for connection in (database.connection, other):
            assert connection.execute("SELECT iot.check_health()").fetchone() == (1,)
    assert database.rows(OPEN) == [("rejected_readings", "", "warning", 2)]


def test_a_role_sees_what_it_may_see(database):
    role = f"watcher_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN")
    try:
        database.execute(f"GRANT USAGE ON SCHEMA iot TO {role}")
        database.execute("SELECT iot.add_job('mine', '1 day', 'SELECT 1/0',"
                         " first_start => now() + interval '1 hour')")
        with pytest.raises(psycopg.Error):
            database.execute("CALL iot.run_job('mine')")
        with database.connect(role) as watcher:
            assert watcher.execute(FINDINGS).fetchall() == []
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                watcher.execute("SELECT iot.check_health()")
        database.execute(f"GRANT pg_monitor TO {role}")
        with database.connect(role) as watcher:
            assert watcher.execute(FINDINGS).fetchall() == [("failed_job", "mine", "warning")]
    finally:
        database.execute(f"DROP OWNED BY {role}")
        database.execute(f"DROP ROLE {role}")


def test_only_who_sees_as_much_resolves(database):
    role = f"watcher_{database.name}"
    database.execute(f"CREATE ROLE {role} LOGIN")
    try:
        database.execute(f"GRANT USAGE ON SCHEMA iot TO {role}")
        database.execute(f"GRANT SELECT, INSERT, UPDATE ON iot.alerts TO {role}")
        database.execute("SELECT iot.add_job('mine', '1 day', 'SELECT 1/0', first_start => now() + interval '1 hour')")
        with pytest.raises(psycopg.Error):
            database.execute("CALL iot.run_job('mine')")
        assert database.value("SELECT iot.check_health()") == 1
        with database.connect(role) as watcher:
            assert watcher.execute("SELECT iot.check_health(), iot.health() ->> 'is_preloaded'").fetchone() == (0, None)
        assert database.rows(OPEN) == [("failed_job", "mine", "warning", 1)]
        database.execute("SELECT iot.delete_job('mine')")
        assert database.value("SELECT iot.check_health()") == 0
        assert database.rows(OPEN) == []
    finally:
        database.execute(f"DROP OWNED BY {role}")
        database.execute(f"DROP ROLE {role}")


def test_states_are_in_memory_again_soon_after_a_restart():
    """No reading has asked for them."""
    with Cluster() as cluster:
        database = Database(cluster)
        database.execute("CREATE EXTENSION iot_ext")
        database.execute("SELECT iot.setup()")
        _, sensor = add_sensor(database)
        process(database.connection, sensor, 20, "2025-01-15 00:00+00")
        database.execute("SELECT iot.flush_state()")
        database.connection.close()
        cluster.restart()
        newest = "SELECT iot.latest_time_in_memory(%s)"
        wait_until(lambda: database.value(newest, (sensor,)) is not None, what="states in memory")
