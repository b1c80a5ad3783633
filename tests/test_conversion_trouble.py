"""What can happen to a table while it is being converted, and what a conversion does about it."""

import pytest
import psycopg

from cluster import Database, wait_until
from conversion import (
    CONVERT, Call, Reader, Worker, Writer, check_against_records, fill, is_partitioned, phase, wait_for_phase)

LEFT = ("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND (relname LIKE '%\\_partitioned' OR relname LIKE '%\\_log' OR relname LIKE 'sensor\\_readings\\_2%')")
WRITE = ("INSERT INTO sensor_readings (device_id, timestamp, sensor_type, value, unit) "
         "VALUES ('d1', '2026-02-01', 'x', 1, 'x')")


@pytest.fixture
def readings(bare_database):
    fill(bare_database, 5_000)
    # Tests that wait for locks in vain need not wait long.
    bare_database.execute(f"ALTER DATABASE {bare_database.name} SET iot_ext.maintenance_lock_timeout = '100ms'")
    return bare_database


@pytest.fixture
def held(readings):
    """A conversion that cannot come to its end as long as this transaction reads."""
    reader = readings.connect(autocommit=False)
    reader.execute("SELECT count(*) FROM sensor_readings")
    yield reader
    reader.close()


def definition(database):
    return (database.psql("\\d+ sensor_readings").stdout,
            database.rows("SELECT r::text FROM sensor_readings r ORDER BY id"))


def test_it_can_be_cancelled(readings, held):
    before = definition(readings)
    call = Call(readings, CONVERT, (300, 10_000))
    wait_for_phase(readings, {"closing"}, call)
    # Not while another session is at it.
    for statement in ("SELECT iot.cancel_conversion('sensor_readings')", CONVERT % (300, 10)):
        with pytest.raises(psycopg.errors.LockNotAvailable) as failure:
            readings.execute(statement)
        assert "is being converted by another session" in str(failure.value)
    readings.execute("SELECT pg_cancel_backend(%s)", (call.pid,))
    with pytest.raises(psycopg.errors.QueryCanceled):
        call.wait()
    held.rollback()
    assert readings.value("SELECT iot.cancel_conversion('sensor_readings')") is True
    assert readings.value("SELECT iot.cancel_conversion('sensor_readings')") is False
    assert definition(readings) == before
    assert (readings.rows(LEFT), readings.rows("SELECT * FROM iot.conversions")) == ([], [])
    # And anew.
    Call(readings, CONVERT, (1000, 100)).wait()
    assert readings.value("SELECT iot.cancel_conversion('sensor_readings')") is False
    assert (phase(readings), is_partitioned(readings)) == ("finished", True)


def test_after_the_swap_there_is_no_way_back(readings, held):
    call = Call(readings, CONVERT, (1000, 10_000))
    wait_for_phase(readings, {"closing"}, call)
    other = readings.connect(autocommit=False)
    other.execute("SELECT count(*) FROM sensor_readings_conversion_log")
    held.rollback()
    wait_for_phase(readings, {"cleaning"}, call)
    readings.execute("SELECT pg_terminate_backend(%s)", (call.pid,))
    with pytest.raises(psycopg.OperationalError):
        call.wait()
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as failure:
        readings.execute("SELECT iot.cancel_conversion('sensor_readings')")
    assert "is partitioned already" in str(failure.value)
    other.close()
    Call(readings, CONVERT, (1000, 100)).wait()
    assert phase(readings) == "finished"
    assert readings.value("SELECT count(*) FROM pg_constraint WHERE contype = 'f'"
                          " AND conrelid = 'sensor_readings_before_conversion'::regclass") == 0


def test_it_gives_up_after_so_many_attempts_and_goes_on_later(readings, held):
    call = Call(readings, CONVERT, (1000, 2))
    with pytest.raises(psycopg.errors.LockNotAvailable) as failure:
        call.wait()
    assert 'stopped at step "closing" after 3 attempts' in str(failure.value)
    assert "call it again" in failure.value.diag.message_hint
    assert readings.row("SELECT attempts, last_obstacle IS NOT NULL FROM iot.conversions") == (2, True)
    # Nobody is held up by what it left.
    readings.execute(WRITE)
    readings.execute("DELETE FROM devices WHERE id = 'd7'")
    held.rollback()
    Call(readings, CONVERT, (1000, 2)).wait()
    assert (is_partitioned(readings), readings.value("SELECT count(*) FROM sensor_readings")) == (True, 4501)


def test_an_error_leaves_no_lock_in_its_session(readings, held):
    with readings.connect() as session:
        with pytest.raises(psycopg.errors.LockNotAvailable):
            session.execute(CONVERT, (1000, 0))
        assert readings.value("SELECT count(*) FROM pg_locks WHERE pid = %s AND locktype <> 'virtualxid'",
                              (session.info.backend_pid,)) == 0
        held.rollback()
        Call(readings, CONVERT, (1000, 10)).wait()


def test_it_waits_for_those_who_see_the_table_as_it_was(readings):
    """A transaction that has not looked at the table yet, but has its snapshot from before the last changes."""
    call = None
    with readings.connect(autocommit=False) as old:
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        old.execute("SELECT count(*) FROM ledger")
        writer = Writer(readings, 1)
        writer.start()
        call = Call(readings, CONVERT, (500, 10_000))
        wait_for_phase(readings, {"closing"}, call)
        wait_until(lambda: readings.value("SELECT last_obstacle FROM iot.conversions") is not None, what="an obstacle")
        assert "began earlier and may still read it as it was" in readings.value("SELECT last_obstacle FROM iot.conversions")
        assert not is_partitioned(readings)
        rounds = writer.rounds
        wait_until(lambda: writer.rounds > rounds + 20 or writer.failures, what="writers go on")
        # It has seen nothing of the writer, and does not now.
        assert old.execute("SELECT count(*) FROM sensor_readings").fetchone() == (5000,)
    call.wait()
    assert writer.stop() == []
    check_against_records(readings, [writer])


class Leaver(Worker):
    """Devices come with rows and go again: the rows with them, or before them."""

    cascades = True

    def round(self):
        device = f"c{self.rounds % 3}"
        with self.connection.transaction():
            self.connection.execute("INSERT INTO devices VALUES (%s, 'short-lived')", (device,))
            self.connection.execute(
                "INSERT INTO sensor_readings (device_id, timestamp, sensor_type, value, unit, location)"
                " SELECT %s, timestamptz '2026-01-15 00:00+00' + n * interval '10 days', 'x', 0, 'x', 'short-lived'"
                "   FROM generate_series(0, 9) n", (device,))
            self.connection.execute("INSERT INTO ledger VALUES (10, 0)")
        with self.connection.transaction():
            self.connection.execute("INSERT INTO ledger VALUES (-10, 0)")
            if self.cascades:
                self.connection.execute("DELETE FROM devices WHERE id = %s", (device,))
            else:
                self.connection.execute("DELETE FROM sensor_readings WHERE device_id = %s", (device,))
        if not self.cascades:
            self.connection.execute("DELETE FROM devices WHERE id = %s", (device,))


@pytest.mark.parametrize("action", ["CASCADE", "NO ACTION"])
def test_referenced_rows_come_and_go(readings, action):
    readings.execute("ALTER TABLE sensor_readings DROP CONSTRAINT sensor_readings_device_id_fkey, ADD FOREIGN KEY (device_id)"
                     f" REFERENCES devices ON DELETE {action}")
    workers = [Leaver(readings), Writer(readings, 1), Reader(readings)]
    workers[0].cascades = action == "CASCADE"
    for worker in workers:
        worker.start()
    Call(readings, CONVERT, (1000, 10_000)).wait()
    assert [worker.stop() for worker in workers] == [[], [], []]
    readings.execute("DELETE FROM sensor_readings WHERE location = 'short-lived'")
    readings.execute("DELETE FROM ledger WHERE rows_added IN (10, -10)")
    check_against_records(readings, [workers[1]])


class SlotMover(Worker):
    """A value that is unique goes from one row to another all the time."""

    def round(self):
        slot = self.rounds % 5
        with self.connection.transaction():
            at, = self.connection.execute("DELETE FROM slots WHERE slot = %s RETURNING at", (slot,)).fetchone()
            self.connection.execute("INSERT INTO slots (slot, at) VALUES (%s, %s)", (slot, at))


@pytest.mark.parametrize("deferrable", ["", "DEFERRABLE INITIALLY DEFERRED"])
def test_unique_values_go_from_row_to_row(bare_database, deferrable):
    bare_database.execute(
        f"CREATE TABLE slots (id bigserial PRIMARY KEY, slot integer, at timestamptz NOT NULL, UNIQUE (slot) {deferrable});"
        "INSERT INTO slots (slot, at) SELECT n, timestamptz '2026-01-01 00:00+00' + n * interval '1 hour' FROM generate_series(0, 2999) n")
    mover = SlotMover(bare_database)
    mover.start()
    # Batches so small that a part of what belongs together is seen alone.
    Call(bare_database, "CALL iot.convert_to_partitioned('slots', 'at', batch_rows => 7, lock_retries => 1000)").wait()
    assert mover.stop() == []
    assert bare_database.row("SELECT count(*), count(DISTINCT slot), sum(slot) FROM slots") == (3000, 3000, 2999 * 1500)


@pytest.mark.parametrize("where", ["copying", "closing"])
def test_truncate(readings, where):
    holder = readings.connect(autocommit=False)
    if where == "closing":
        holder.execute("SELECT count(*) FROM sensor_readings")
    call = Call(readings, CONVERT, (10 if where == "copying" else 500, 10_000))
    wait_for_phase(readings, {where}, call)
    with readings.connect(autocommit=False) as other:
        other.execute(WRITE)
        if where == "closing":
            holder.rollback()  # else TRUNCATE waits as well
        other.execute("TRUNCATE sensor_readings, ledger")
        for _ in range(3):
            other.execute(WRITE)
    holder.close()
    call.wait()
    assert readings.row("SELECT count(*), min(id), max(id) FROM sensor_readings") == (3, 5002, 5004)


@pytest.mark.parametrize("how", ["VACUUM FULL sensor_readings", "CLUSTER sensor_readings USING idx_sensor_readings_timestamp",
                                 "REINDEX TABLE CONCURRENTLY sensor_readings"])
def test_rows_that_move_to_another_file(readings, how):
    readings.execute("DELETE FROM sensor_readings WHERE id % 3 = 0")
    readings.execute("DELETE FROM ledger")
    before = readings.value("SELECT md5(string_agg(r::text, ',' ORDER BY id)) FROM sensor_readings r")
    call = Call(readings, CONVERT, (10, 10_000))
    wait_for_phase(readings, {"copying"}, call)
    readings.execute(how)
    call.wait()
    assert readings.value("SELECT md5(string_agg(r::text, ',' ORDER BY id)) FROM sensor_readings r") == before


def test_a_changed_definition_stops_it(readings, held):
    call = Call(readings, CONVERT, (1000, 10_000))
    wait_for_phase(readings, {"closing"}, call)
    readings.execute("SELECT pg_cancel_backend(%s)", (call.pid,))
    with pytest.raises(psycopg.errors.QueryCanceled):
        call.wait()
    held.rollback()
    readings.execute("ALTER TABLE sensor_readings ADD more integer DEFAULT 5")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as failure:
        Call(readings, CONVERT, (1000, 10)).wait()
    assert "definition of table public.sensor_readings has changed" in str(failure.value)
    assert "iot.cancel_conversion()" in failure.value.diag.message_hint
    readings.execute("ALTER TABLE sensor_readings DROP more")
    Call(readings, CONVERT, (1000, 10)).wait()
    assert is_partitioned(readings)


@pytest.mark.parametrize("statement", [
    "CREATE VIEW latest AS SELECT * FROM sensor_readings",
    "CREATE TABLE notes (reading integer REFERENCES sensor_readings)",
    "CREATE TABLE more () INHERITS (sensor_readings)",
])
def test_what_comes_in_between_stops_the_swap(readings, held, statement):
    call = Call(readings, CONVERT, (1000, 10_000))
    wait_for_phase(readings, {"closing"}, call)
    readings.execute("SELECT pg_cancel_backend(%s)", (call.pid,))
    with pytest.raises(psycopg.errors.QueryCanceled):
        call.wait()
    held.rollback()
    readings.execute(statement)
    with pytest.raises(psycopg.errors.FeatureNotSupported) as failure:
        Call(readings, CONVERT, (1000, 10)).wait()
    assert "depends on it" in failure.value.diag.message_detail or "it" in failure.value.diag.message_detail
    readings.execute(WRITE)
    assert not is_partitioned(readings)
    readings.execute("DROP VIEW IF EXISTS latest; DROP TABLE IF EXISTS notes, more")
    Call(readings, CONVERT, (1000, 10)).wait()
    assert is_partitioned(readings)


@pytest.mark.parametrize("tamper", [
    "DELETE FROM sensor_readings_partitioned WHERE id = 3210",
    "UPDATE sensor_readings_partitioned SET value = 5.001 WHERE id = 3210",
    "UPDATE sensor_readings_partitioned SET id = 9999999 WHERE id = 3210",
])
def test_a_difference_is_found_and_named(readings, tamper):
    """Nobody is to write to the copy; if somebody does, or something is wrong, the table must not be replaced by it."""
    call = Call(readings, CONVERT, (100, 10_000))
    wait_until(lambda: readings.value("SELECT max(rows_copied) > 3300 FROM iot.conversion"), interval=0.002, what="the copy of the row")
    with readings.connect(autocommit=False) as hand:
        assert hand.execute(tamper).rowcount == 1
    with pytest.raises(psycopg.errors.DataCorrupted) as failure:
        call.wait()
    detail = failure.value.diag.message_detail
    assert "above (3200) up to (3300), the table has 100 rows" in detail
    assert not is_partitioned(readings)
    assert readings.value("SELECT count(*) FROM sensor_readings") == 5000
    assert readings.value("SELECT iot.cancel_conversion('sensor_readings')") is True
    Call(readings, CONVERT, (1000, 10)).wait()
    assert readings.value("SELECT count(*) FROM sensor_readings WHERE id = 3210") == 1


def test_a_dropped_table_is_forgotten(readings, held):
    call = Call(readings, CONVERT, (1000, 0))
    with pytest.raises(psycopg.errors.LockNotAvailable):
        call.wait()
    held.rollback()
    # Its sequence is that of the copy as well.
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        readings.execute("DROP TABLE sensor_readings")
    readings.execute("DROP TABLE sensor_readings CASCADE")
    assert readings.rows("SELECT * FROM iot.conversion") == []
    assert readings.rows("SELECT oid::regclass FROM pg_class WHERE relname LIKE 'sensor_readings%'") == []


def test_a_dump_taken_meanwhile_restores_to_an_ordinary_table(readings, held):
    call = Call(readings, CONVERT, (1000, 10_000))
    wait_for_phase(readings, {"closing"}, call)
    readings.execute("SELECT pg_cancel_backend(%s)", (call.pid,))
    with pytest.raises(psycopg.errors.QueryCanceled):
        call.wait()
    dump = readings.cluster.pg_dump(readings.name)
    copy = Database(readings.cluster)
    try:
        copy.psql(dump)
        assert copy.rows("SELECT * FROM iot.conversion") == []
        copy.execute(WRITE)
        assert copy.value("SELECT count(*) FROM sensor_readings_conversion_log") == 0
        with pytest.raises(psycopg.errors.FeatureNotSupported) as failure:
            copy.execute(CONVERT, (1000, 10))
        assert "left over from a conversion elsewhere" in failure.value.diag.message_detail
        assert copy.value("SELECT iot.cancel_conversion('sensor_readings')") is True
        assert copy.rows(LEFT) == []
        Call(copy, CONVERT, (1000, 10)).wait()
        assert copy.value("SELECT count(*) FROM sensor_readings") == 5001
    finally:
        copy.drop()


def test_a_table_that_is_dropped_takes_what_was_made_with_it(readings, held):
    with pytest.raises(psycopg.errors.LockNotAvailable):
        Call(readings, CONVERT, (1000, 0)).wait()
    assert readings.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'sensor_readings%partitioned'") > 0
    held.rollback()
    # Its sequence is that of the copy as well.
    readings.execute("DROP TABLE sensor_readings CASCADE")
    assert readings.rows("SELECT oid::regclass FROM pg_class WHERE relname LIKE 'sensor_readings%'") == []
    assert readings.rows("SELECT * FROM iot.conversions") == []
    # A new table of that name begins anew, and keeps what it becomes when it is dropped in its turn.
    readings.execute("CREATE TABLE sensor_readings (id bigint PRIMARY KEY, timestamp timestamptz NOT NULL)")
    readings.execute("INSERT INTO sensor_readings VALUES (1, now())")
    Call(readings, CONVERT, (1000, 10)).wait()
    assert readings.value("SELECT count(*) FROM sensor_readings") == 1
