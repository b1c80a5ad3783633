"""The partition manager on real servers: beside readers and writers, through crashes and dumps, in every time zone."""

import threading

import psycopg
import pytest

from cluster import Cluster, Database, wait_until
from factory import add_sensor, process

ZONES = [
    "UTC", "Europe/Berlin", "Europe/Lisbon", "Europe/Moscow", "Asia/Kolkata", "Asia/Kathmandu", "Asia/Tokyo", "Asia/Tehran",
    "Australia/Lord_Howe", "Australia/Sydney", "Pacific/Auckland", "Pacific/Apia", "Pacific/Kiritimati", "Pacific/Marquesas",
    "America/New_York", "America/St_Johns", "America/Sao_Paulo", "America/Anchorage", "Africa/Casablanca", "Africa/Cairo",
]
WIDTHS = ["1 hour", "1 day", "7 days", "1 month", "3 months", "1 year"]
MANAGE = "SELECT action, partition_name, reason, outcome FROM iot.manage_partitions('metrics'{})"


def make_metrics(database, days=10, rows=20):
    """A table with a partition for today and each day before, and some rows in each."""
    database.execute("CREATE TABLE metrics (at timestamptz NOT NULL, device int NOT NULL, load float8) PARTITION BY RANGE (at)")
    database.execute("CREATE INDEX metrics_device ON metrics (device, at)")
    for back in range(days):
        database.execute(
            f"""DO $$ DECLARE day date := (now() AT TIME ZONE 'UTC')::date - {back};
                BEGIN
                    EXECUTE format('CREATE TABLE %I PARTITION OF metrics FOR VALUES FROM (%L) TO (%L)',
                                   to_char(day, '"metrics_"YYYY_MM_DD'), day || ' 00:00+00', day + 1 || ' 00:00+00');
                    INSERT INTO metrics SELECT (day || ' 00:00+00')::timestamptz, g, g FROM generate_series(1, {rows}) g;
                END $$""")


@pytest.fixture
def metrics(bare_database):
    make_metrics(bare_database)
    return bare_database


def partitions(database):
    return [name for (name,) in database.rows(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'metrics'::regclass AND NOT inhdetachpending ORDER BY 1")]


def outcomes(database, arguments="", connection=None):
    """(action, outcome) with their numbers."""
    counted = {}
    for action, _, _, outcome in (connection or database.connection).execute(MANAGE.format(arguments)).fetchall():
        counted[action, outcome] = counted.get((action, outcome), 0) + 1
    return counted


def waiting(database):
    return database.value("SELECT count(*) FROM pg_locks WHERE NOT granted")


def test_it_passes_by_a_running_copy_and_a_long_reader(metrics):
    """What needs the table alone is left for later, what does not is done; nobody waits, not even in line."""
    with metrics.connect(autocommit=False) as reader, metrics.connect(autocommit=False) as writer, \
            metrics.connect(autocommit=False) as manager:
        assert reader.execute("SELECT count(*) FROM metrics").fetchone() == (200,)
        with writer.cursor().copy("COPY metrics (at, device, load) FROM STDIN") as copy:
            copy.write("\n".join(f"{at}\t1\t1" for (at,) in metrics.rows("SELECT now() FROM generate_series(1, 5000)")) + "\n")
            wait_until(lambda: metrics.value(
                "SELECT count(*) FROM pg_locks WHERE relation = 'metrics'::regclass AND mode = 'RowExclusiveLock'"))
            manager.execute("SET iot_ext.maintenance_lock_timeout = '200ms'")
            seen = []
            done = threading.Event()

            def watch():
                with metrics.connect() as watcher:
                    while not done.is_set():
                        seen.append(watcher.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0])

            watching = threading.Thread(target=watch)
            watching.start()
            try:
                found = outcomes(metrics, ", '1 day', premake => 2, retention => '5 days'", manager)
            finally:
                done.set()
                watching.join()
            assert found == {("drop", "deferred"): 4, ("create", "done"): 2}
            assert len(seen) > 2 and set(seen) == {0}
            modes = {mode for (mode,) in metrics.rows(
                "SELECT mode FROM pg_locks WHERE relation = 'metrics'::regclass AND pid = %s", (manager.info.backend_pid,))}
            assert modes == {"AccessShareLock", "ShareUpdateExclusiveLock"}, modes
            # The manager has not committed: others read and write all the same.
            with metrics.connect() as other:
                other.execute("SET lock_timeout = '1s'")
                other.execute("INSERT INTO metrics VALUES (now(), 1, 1)")
                assert other.execute("SELECT count(*) FROM metrics").fetchone() == (201,)
            copy.write(f"{metrics.value('SELECT now()')}\t1\t1\n")
        assert reader.execute("SELECT count(*) FROM metrics").fetchone() == (201,)
        for connection in (manager, writer, reader):
            connection.commit()
    assert outcomes(metrics) == {("drop", "done"): 4}
    assert outcomes(metrics) == {}
    assert len(partitions(metrics)) == 8


def test_a_reader_of_one_partition_keeps_that_one(metrics):
    oldest = partitions(metrics)[0]
    with metrics.connect(autocommit=False) as reader:
        reader.execute(f"SELECT count(*) FROM ONLY {oldest}")
        metrics.execute("SET iot_ext.maintenance_lock_timeout = '100ms'")
        assert outcomes(metrics, ", '1 day', premake => 0, retention => '5 days'") == {("drop", "deferred"): 1, ("drop", "done"): 3}
        assert partitions(metrics)[0] == oldest
    assert outcomes(metrics) == {("drop", "done"): 1}


def test_a_partition_that_something_depends_on_does_not_keep_the_others(metrics):
    oldest = partitions(metrics)[0]
    metrics.execute(f"CREATE VIEW first_day AS SELECT * FROM {oldest}")
    found = outcomes(metrics, ", '1 day', premake => 1, retention => '5 days'")
    (failed,) = [outcome for _, outcome in found if outcome.startswith("failed: ")]
    assert "cannot drop table" in failed
    assert found == {("drop", "done"): 3, ("drop", failed): 1, ("create", "done"): 1}


def test_a_table_that_somebody_has_to_himself_is_left_for_later(metrics):
    """Planning waits as little as acting does, and nothing is half done."""
    metrics.execute("SELECT iot.manage_partitions('metrics', '1 day', premake => 0)")
    metrics.execute("SET iot_ext.maintenance_lock_timeout = '100ms'")
    oldest = partitions(metrics)[0]
    with metrics.connect(autocommit=False) as other:
        other.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
        connection, messages = notices(metrics)
        with connection:
            connection.execute("SET iot_ext.maintenance_lock_timeout = '100ms'")
            assert outcomes(metrics, ", retention => '5 days'", connection) == {("plan", "deferred"): 1}
            assert "is not remembered" in messages[-1][1]
            assert connection.execute("SELECT iot.drop_old_partitions('metrics', 5)").fetchone() == (0,)
            assert "to himself" in messages[-1][1]
        (report,) = metrics.value("SELECT iot.partition_upkeep()")
        assert report["deferred"] and not report["analyzed"] and report["actions"] == {"plan deferred": 1}
        todo = [text for text in statements(metrics) if text.startswith("SELECT")]
        assert todo == ["SELECT iot.premake_partitions('public.metrics'::pg_catalog.regclass)"]
        with pytest.raises(psycopg.errors.LockNotAvailable):
            metrics.execute(todo[0])
        with pytest.raises(psycopg.errors.LockNotAvailable):
            metrics.execute("SELECT iot.premake_partitions('metrics')")
    assert metrics.value("SELECT drop_after IS NULL FROM iot.partition_settings")
    # Only one partition of it: the others go.
    with metrics.connect(autocommit=False) as other:
        other.execute(f"LOCK TABLE {oldest} IN ACCESS EXCLUSIVE MODE")
        assert outcomes(metrics, ", retention => '5 days'") == {("drop", "done"): 3, ("drop", "deferred"): 1}
    assert outcomes(metrics) == {("drop", "done"): 1}


def statements(database):
    return [text for (text,) in database.rows("SELECT iot.partition_statements('metrics')")]


def test_concurrent_detachment_by_statements(metrics):
    """While a reader is there, detachment cannot end: the next run completes it, and nobody has waited for it."""
    metrics.execute("SELECT iot.manage_partitions('metrics', '1 day', premake => 1)")
    metrics.execute("UPDATE iot.partition_policy SET drop_after = '7 days'")
    metrics.execute("SET iot_ext.maintenance_lock_timeout = '200ms'")
    todo = statements(metrics)
    assert [text.split()[0] for text in todo] == [
        "SET", "SET", "SELECT", "ALTER", "SELECT", "ALTER", "SELECT", "ANALYZE", "RESET", "RESET"]
    with metrics.connect(autocommit=False) as reader:
        reader.execute("SELECT count(*) FROM metrics")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            for text in todo:
                metrics.execute(text)
        assert metrics.value("SELECT count(*) FROM pg_inherits WHERE inhdetachpending") == 1
        metrics.execute("INSERT INTO metrics VALUES (now(), 1, 1)")
    for text in statements(metrics):
        metrics.execute(text)
    assert len(partitions(metrics)) == 9
    assert metrics.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'metrics_20%' AND relkind = 'r'") == 9
    assert metrics.value("SELECT count(*) FROM iot.partition_state") == 0
    assert statements(metrics) == []


def test_a_hold_on_the_way_keeps_the_rows(metrics):
    """Between the statements of a concurrent drop; one that is not committed yet is waited for."""
    metrics.execute("SELECT iot.manage_partitions('metrics', '1 day', premake => 1)")
    metrics.execute("UPDATE iot.partition_policy SET drop_after = '7 days'")
    retire, detach, *_, drop, _ = [text for text in statements(metrics) if text.split()[0] in ("SELECT", "ALTER", "ANALYZE")]
    metrics.execute(retire)
    metrics.execute(detach)
    assert metrics.value("SELECT count(*) FROM metrics") == 180
    metrics.execute("SET iot_ext.maintenance_lock_timeout = '100ms'")
    with metrics.connect(autocommit=False) as lawyer:
        lawyer.execute("SELECT iot.add_legal_hold('metrics', 'case 7', 'device', '7')")
        assert metrics.value(drop) == 0
        assert metrics.value("SELECT count(*) FROM metrics") == 180
        lawyer.commit()
    assert metrics.value(drop) == 0
    assert metrics.value("SELECT count(*) FROM metrics") == 200
    for text in statements(metrics):
        metrics.execute(text)
    assert metrics.value("SELECT count(*) FROM metrics") == 162
    assert statements(metrics) == []


def test_a_hold_that_is_not_committed_yet_is_waited_for(metrics):
    metrics.execute("SET iot_ext.maintenance_lock_timeout = '100ms'")
    with metrics.connect(autocommit=False) as lawyer:
        lawyer.execute("SELECT iot.add_legal_hold('metrics', 'case 7', 'device', '7')")
        assert outcomes(metrics, ", '1 day', premake => 0, retention => '7 days'") == {("drop", "deferred"): 2}
        lawyer.commit()
    assert outcomes(metrics) == {("rewrite", "done"): 2}
    assert metrics.value("SELECT count(*) FROM metrics") == 162


@pytest.mark.parametrize("until", ["retired", "detaching", "detached"])
def test_a_crash_on_the_way_is_picked_up(until):
    with Cluster() as cluster:
        database = Database(cluster)
        database.execute("CREATE EXTENSION iot_ext")
        make_metrics(database)
        database.execute("SELECT iot.manage_partitions('metrics', '1 day', premake => 0)")
        database.execute("UPDATE iot.partition_policy SET drop_after = '8 days'")
        todo = [text for text in statements(database) if text.split()[0] in ("SELECT", "ALTER")]
        assert len(todo) == 3
        database.execute(todo[0])
        if until == "detaching":
            reader = database.connect(autocommit=False)
            reader.execute("SELECT count(*) FROM metrics")
            detaching = threading.Thread(target=lambda: pytest.raises(psycopg.OperationalError, database.execute, todo[1]))
            detaching.start()
            with database.connect() as looking:
                wait_until(lambda: looking.execute("SELECT count(*) FROM pg_inherits WHERE inhdetachpending").fetchone()[0])
            cluster.crash()
            detaching.join()
            reader.close()
        elif until == "detached":
            database.execute(todo[1])
        cluster.crash()
        cluster.start()
        database.connection.close()
        assert outcomes(database) == {("drop", "done"): 1}
        assert database.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'metrics_20%' AND relkind = 'r'") == 9
        assert database.value("SELECT count(*) FROM iot.partition_state") == 0
        assert outcomes(database) == {}
        assert database.value("SELECT count(*) FROM metrics") == 180


def test_a_detachment_of_somebody_else_is_not_ours(metrics):
    oldest = partitions(metrics)[0]
    metrics.execute(f"ALTER TABLE metrics DETACH PARTITION {oldest} CONCURRENTLY")
    assert outcomes(metrics, ", '1 day', premake => 0, retention => '5 days'") == {("drop", "done"): 3}
    assert metrics.value(f"SELECT count(*) FROM {oldest}") == 20


def test_two_managers_at_once(metrics):
    results = []

    def manage():
        with metrics.connect() as connection:
            results.append(outcomes(metrics, ", '1 day', premake => 30, retention => '5 days'", connection))

    threads = [threading.Thread(target=manage) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    outcomes(metrics)
    assert len(partitions(metrics)) == 36
    total = {}
    for result in results:
        for (action, outcome), count in result.items():
            total[action, outcome] = total.get((action, outcome), 0) + count
    assert total.get(("create", "done"), 0) <= 30 and total.get(("drop", "done"), 0) <= 4
    assert not [outcome for _, outcome in total if outcome.startswith("failed")]


def test_bounds_do_not_depend_on_the_client(bare_database):
    """All widths in 20 time zones: the same ranges, without gap or overlap, and UTC."""
    database = bare_database
    for number, width in enumerate(WIDTHS):
        database.execute(f"CREATE TABLE m{number} (at timestamptz NOT NULL) PARTITION BY RANGE (at)")
        planned = set()
        for zone in ZONES:
            database.execute(f"SET TimeZone = '{zone}'")
            # Not the first one: an hour, or a day, may end while this runs.
            planned.add(tuple(database.rows(
                "SELECT partition_name, range_start AT TIME ZONE 'UTC', range_end AT TIME ZONE 'UTC'"
                f" FROM iot.manage_partitions('m{number}', '{width}', premake => 1000, dry_run => true) OFFSET 2 LIMIT 990")))
        assert width == "1 hour" or len(planned) == 1, width
        for ranges in planned:
            assert all(before[2] == after[1] and before[1] < before[2] for before, after in zip(ranges, ranges[1:]))
        for step, zone in enumerate(ZONES):
            database.execute(f"SET TimeZone = '{zone}'")
            database.execute(f"SELECT iot.manage_partitions('m{number}', '{width}', premake => {step})")
        database.execute("SET TimeZone = 'UTC'")
        ranges = database.rows(
            "SELECT lag(range_end) OVER (ORDER BY range_start), range_start, range_end, partition::text FROM iot.partitions"
            f" WHERE parent = 'm{number}'::regclass ORDER BY range_start")
        assert len(ranges) in (20, 21), width
        assert all(before in (None, start) and start < end for before, start, end, _ in ranges), width
        assert all(start.minute == start.second == 0 for _, start, _, _ in ranges)
        if width != "1 hour":
            assert all(start.hour == 0 for _, start, _, _ in ranges)
        if width == "7 days":
            assert all(start.weekday() == 0 for _, start, _, _ in ranges)


def test_dump_and_restore_keep_settings_rules_and_what_is_between(metrics, cluster):
    database = metrics
    oldest = partitions(database)[0]
    database.execute(
        """SELECT iot.manage_partitions('metrics', '1 day', premake => 2, retention => '20 days', maximum_bytes => 1000000000,
                                        warm_after => '2 days', cold_after => '5 days', hot_indexes => ARRAY['(load)'],
                                        storage_parameters => ARRAY['fillfactor=90'])""")
    database.execute("SELECT iot.add_retention_rule('metrics', 'device', '7', '30 days', 'slow machine')")
    database.execute("SELECT iot.add_legal_hold('metrics', 'case 12', 'device', '8', now() - interval '2 days')")
    database.execute("INSERT INTO iot.retention_guard (parent, guard_name, complete_until) VALUES ('metrics', 'hourly', 'infinity')")
    database.execute(f"SELECT iot.retire_partition('{oldest}', 'to be dropped')")
    database.execute(f"ALTER TABLE metrics DETACH PARTITION {oldest} CONCURRENTLY")
    copy = Database(cluster)
    try:
        cluster.psql(cluster.pg_dump(database.name), copy.name)
        for relation in ("iot.partition_settings", "iot.retention_rule", "iot.retention_guard", "iot.partition_state"):
            query = f"SELECT t::text FROM {relation} t ORDER BY 1"
            assert copy.rows(query) == database.rows(query) != [], relation
        assert outcomes(copy) == {("drop", "done"): 1}
        assert copy.value(f"SELECT to_regclass('{oldest}') IS NULL")
        assert outcomes(copy) == {}
        assert copy.value("SELECT iot.add_retention_rule('metrics', 'device', '9', '1 year')") == 3
    finally:
        copy.drop()


def test_readers_see_their_rows_and_no_partition(metrics):
    metrics.execute("CREATE ROLE tenant LOGIN")
    try:
        metrics.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO tenant")
        metrics.execute("ALTER TABLE metrics ENABLE ROW LEVEL SECURITY")
        metrics.execute("CREATE POLICY own ON metrics FOR SELECT TO tenant USING (device = 7)")
        metrics.execute("GRANT SELECT ON metrics TO tenant")
        metrics.execute("SELECT iot.manage_partitions('metrics', '1 day', premake => 1)")
        newest = partitions(metrics)[-1]
        metrics.execute("INSERT INTO metrics SELECT now() + interval '1 day', g, g FROM generate_series(1, 20) g")
        with metrics.connect(user="tenant") as tenant:
            assert tenant.execute("SELECT count(*) FROM metrics").fetchone() == (11,)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                tenant.execute(f"SELECT count(*) FROM {newest}")
        # Whoever is given one by hand meets the policy there as well.
        metrics.execute(f"GRANT SELECT ON {newest} TO tenant")
        with metrics.connect(user="tenant") as tenant:
            assert tenant.execute(f"SELECT count(*) FROM {newest}").fetchone() == (1,)
    finally:
        metrics.execute("DROP OWNED BY tenant")
        metrics.execute("DROP ROLE tenant")


def test_rows_that_row_security_hides_from_the_owner_are_not_lost(metrics):
    metrics.execute("CREATE ROLE keeper")
    try:
        metrics.execute("GRANT CREATE ON SCHEMA public TO keeper")
        metrics.execute("ALTER TABLE metrics OWNER TO keeper")
        for partition in partitions(metrics):
            metrics.execute(f"ALTER TABLE {partition} OWNER TO keeper")
            metrics.execute(f"ALTER TABLE {partition} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        metrics.execute("ALTER TABLE metrics ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        metrics.execute("SELECT iot.add_legal_hold('metrics', 'case', 'device', '8')")
        found = outcomes(metrics, ", '1 day', premake => 0, retention => '5 days'")
        assert found == {("rewrite", "done"): 4}
        assert metrics.value("SELECT count(*) FROM metrics") == 6 * 20 + 4
        assert metrics.value("SELECT bool_and(relforcerowsecurity) FROM pg_class WHERE relname LIKE 'metrics_20%' AND relkind = 'r'")
        assert metrics.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'metrics_20%' AND relkind = 'r'"
                             " AND pg_get_userbyid(relowner) <> 'keeper'") == 0
    finally:
        metrics.execute("DROP OWNED BY keeper")
        metrics.execute("DROP ROLE keeper")


def test_a_rewrite_that_cannot_have_its_locks_changes_nothing(metrics):
    metrics.execute("SET iot_ext.maintenance_lock_timeout = '100ms'")
    metrics.execute("SELECT iot.add_legal_hold('metrics', 'case', 'device', '8')")
    with metrics.connect(autocommit=False) as reader:
        reader.execute("SELECT count(*) FROM metrics")
        assert outcomes(metrics, ", '1 day', premake => 0, retention => '8 days'") == {("rewrite", "deferred"): 1}
    assert metrics.value("SELECT count(*) FROM metrics") == 200
    assert metrics.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'metrics_20%' AND relkind = 'r'") == 10
    assert outcomes(metrics) == {("rewrite", "done"): 1}
    assert metrics.value("SELECT count(*) FROM metrics") == 181


def test_tables_of_those_who_have_nothing_to_do_with_it(database):
    """The event triggers of the extension look at every ALTER TABLE, also of roles that may not look into its schema."""
    database.execute("CREATE ROLE stranger LOGIN")
    try:
        database.execute("CREATE SCHEMA own AUTHORIZATION stranger")
        with database.connect(user="stranger") as stranger:
            stranger.execute("CREATE TABLE own.things (at timestamptz) PARTITION BY RANGE (at)")
            stranger.execute("CREATE TABLE own.part (at timestamptz)")
            stranger.execute("ALTER TABLE own.things ATTACH PARTITION own.part DEFAULT")
            stranger.execute("DROP TABLE own.part")
            stranger.execute("DROP TABLE own.things")
    finally:
        database.execute("DROP OWNED BY stranger")
        database.execute("DROP ROLE stranger")


def notices(database):
    """A connection and the messages that come with its statements."""
    connection = database.connect()
    messages = []
    connection.add_notice_handler(lambda notice: messages.append((notice.severity, notice.message_primary)))
    return connection, messages


def test_what_it_says_before_and_after(metrics, cluster):
    connection, messages = notices(metrics)
    with connection:
        size = metrics.value("SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'metrics'::regclass")
        assert outcomes(metrics, f", '1 day', premake => 0, maximum_bytes => {int(size * 100 / 90)}", connection) == {}
        assert messages[-1][0] == "WARNING" and "% of its budget" in messages[-1][1]
        connection.execute("SELECT iot.drop_old_partitions('metrics', 8, dry_run => true)")
        assert messages[-1][0] == "NOTICE" and messages[-1][1].startswith("would drop partition")
        metrics.execute("INSERT INTO iot.retention_guard (parent, guard_name) VALUES ('metrics', 'archive')")
        assert connection.execute("SELECT iot.drop_old_partitions('metrics', 8)").fetchone() == (0,)
        assert messages[-1] == ("WARNING", messages[-1][1]) and "archive has got only to -infinity" in messages[-1][1]
        assert connection.execute("SELECT iot.drop_old_partitions('metrics', 8, force => true)").fetchone() == (1,)
        assert "dropped by force although archive has got only to" in cluster.log.read_text()
        metrics.execute("CREATE TABLE many (at timestamptz NOT NULL, PRIMARY KEY (at)) PARTITION BY RANGE (at)")
        connection.execute("SELECT iot.manage_partitions('many', '1 hour', premake => 200)")
        assert "201 partitions" in messages[-1][1] and "locks" in messages[-1][1]


def test_upkeep_looks_after_every_table_and_analyzes(metrics):
    metrics.execute("SELECT iot.setup()")
    metrics.execute("SELECT iot.manage_partitions('metrics', '1 day', premake => 1)")
    before = metrics.value("SELECT reltuples FROM pg_class WHERE oid = 'metrics'::regclass")
    report = metrics.value("SELECT iot.partition_upkeep()")
    assert before == -1
    assert sorted(entry["table"] for entry in report) == [
        "iot.device_logs", "iot.processed_data", "iot.sensor_data", "public.metrics"]
    assert all(entry["analyzed"] and not entry["deferred"] for entry in report)
    assert metrics.value("SELECT reltuples FROM pg_class WHERE oid = 'metrics'::regclass") == 200
    assert metrics.value("SELECT count(*) FROM pg_stats WHERE tablename = 'metrics' AND inherited") == 3
    wait_until(lambda: not any(entry["analyzed"] for entry in metrics.value("SELECT iot.partition_upkeep()")))


def test_readings_are_taken_while_their_table_is_managed(database):
    """Ingest makes partitions on demand while the manager makes, drops and rewrites others."""
    _, sensor = add_sensor(database)
    database.execute("SELECT iot.setup(partition_interval => '1 day', premake => 0)")
    failures = []
    stop = threading.Event()

    def manage():
        try:
            with database.connect() as connection:
                premake = 0
                while not stop.is_set():
                    premake += 1
                    for row in connection.execute(
                            "SELECT outcome FROM iot.manage_partitions('iot.sensor_data', premake => %s, retention => '40 days')",
                            (premake,)):
                        if row[0].startswith("failed"):
                            failures.append(row[0])
        except psycopg.Error as error:
            failures.append(str(error))

    thread = threading.Thread(target=manage)
    thread.start()
    try:
        for back in range(30):
            process(database.connection, sensor, 20, database.value("SELECT now() - %s * interval '1 day'", (back,)))
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert database.value("SELECT count(*) FROM iot.sensor_data") == 30
