"""iot.convert_to_partitioned() on real servers: a table in use, crashes at every step, what is carried over."""

import pytest

from cluster import Cluster, Database, wait_until
from conversion import (
    CONVERT, Call, LockWatch, Reader, Writer, check_against_records, fill, is_partitioned, kill, phase,
    wait_for_phase)

BLOCKING = {"ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"}


@pytest.fixture
def readings(bare_database):
    fill(bare_database)
    return bare_database


def test_it_is_converted_while_it_is_read_and_written(readings):
    writers = [Writer(readings, number) for number in range(3)]
    readers = [Reader(readings) for _ in range(2)]
    for worker in writers + readers:
        worker.start()
    wait_until(lambda: all(worker.rounds > 5 for worker in writers + readers), what="workers at work")
    call = Call(readings, CONVERT, (500, 60))
    watch = LockWatch(readings, call.pid)
    watch.start()
    wait_for_phase(readings, {"copying"}, call)
    (activity,) = readings.row("SELECT query FROM pg_stat_activity WHERE pid = %s", (call.pid,))
    assert activity.startswith("iot_ext: converting public.sensor_readings (")
    progress = readings.row("SELECT rows_copied + rows_to_go > 0, log_length >= 0 FROM iot.conversions")
    assert progress == (True, True)
    call.wait()
    # A while with the new table.
    rounds = [worker.rounds for worker in writers + readers]
    wait_until(lambda: all(worker.rounds > before + 5 or worker.failures
                           for worker, before in zip(writers + readers, rounds, strict=True)), what="workers go on")
    assert [worker.stop() for worker in writers + readers] == [[]] * 5
    assert watch.stop() == []

    assert is_partitioned(readings)
    check_against_records(readings, writers)
    blocked = {(phase, mode) for phase, mode in watch.seen if mode in BLOCKING}
    assert {phase for phase, _ in blocked} <= {"starting", "closing", "swapping", "cleaning"}
    assert readings.rows("SELECT DISTINCT k.convalidated, k.conparentid <> 0 OR k.conrelid = 'sensor_readings'::regclass"
                         "  FROM pg_constraint k WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace") == [(True, True)]
    assert ("copying", "AccessShareLock") in watch.seen and ("verifying", "AccessShareLock") in watch.seen
    row = readings.row("SELECT phase, rows_verified >= 20000, changes_replayed > 0, finished_at > started_at, log_length"
                       "  FROM iot.conversions WHERE relation = 'sensor_readings'::regclass")
    assert row == ("finished", True, True, True, None)
    # Nothing of the conversion is left.
    assert readings.rows("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
                         " AND (relname LIKE '%\\_partitioned%' OR relname LIKE '%\\_log')") == []
    assert readings.rows("SELECT tgname FROM pg_trigger WHERE tgname LIKE 'iot_ext%'") == []
    # It is managed from now on.
    assert readings.row("SELECT time_column, partition_interval = '1 month', premake FROM iot.partition_settings"
                        " WHERE parent = 'sensor_readings'::regclass") == ("timestamp", True, 3)


# What keeps a conversion in a phase for as long as the test likes: a transaction that is open meanwhile.
KEPT_BY = {
    "starting": "INSERT INTO sensor_readings (device_id, timestamp, sensor_type, value, unit, location)"
                " VALUES ('d1', '2026-02-01', 'x', 0, 'x', 'lost')",
    "partitioning": None,
    "copying": None,
    "indexing": None,
    "verifying": None,
    "closing": "SELECT count(*) FROM sensor_readings",
    "swapping": "UPDATE devices SET name = name WHERE id = 'd15'",
    "cleaning": "SELECT count(*) FROM sensor_readings",
}


@pytest.fixture(scope="module")
def fragile_cluster():
    with Cluster(settings={"iot_ext.maintenance_lock_timeout": "200ms", "autovacuum_naptime": "1s"}) as running:
        yield running


@pytest.mark.parametrize("where", KEPT_BY)
def test_after_kill_9_it_goes_on(fragile_cluster, where):
    database = Database(fragile_cluster)
    try:
        database.execute("CREATE EXTENSION iot_ext")
        fill(database, 10_000)
        writers = [Writer(database, number, survives=True) for number in range(2)]
        if where != "starting":
            for writer in writers:
                writer.start()
        holder = database.connect(autocommit=False)
        if KEPT_BY[where]:
            holder.execute(KEPT_BY[where])
        call = Call(database, CONVERT, (200, 10_000))
        if where == "cleaning":
            # From one that keeps it before the swap to one that keeps it after.
            wait_for_phase(database, {"closing"}, call)
            other = database.connect(autocommit=False)
            other.execute("SELECT count(*) FROM sensor_readings_conversion_log")
            holder.rollback()
        # What is not held may be over before we look.
        near = {"closing", "swapping"} if where == "swapping" else {where}
        wait_for_phase(database, near if KEPT_BY[where] else {where, "indexing", "analyzing", "verifying"}, call)
        if KEPT_BY[where]:
            wait_until(lambda: database.value("SELECT max(attempts) FROM iot.conversion") > 0, what="an attempt in vain")
        kill(fragile_cluster, database, call)
        assert is_partitioned(database) == (where == "cleaning")
        again = Call(database, CONVERT, (200, 100))
        again.wait()
        assert any("going on with the conversion" in message for _, message, _, _ in again.notices)
        assert (phase(database), is_partitioned(database)) == ("finished", True)
        assert [writer.stop() for writer in writers if writer.ident] == [[]] * (0 if where == "starting" else 2)
        check_against_records(database, writers)
    finally:
        database.drop()
