"""Several sessions at once: races for partitions, alerts and duplicates, and changes that others must see."""

import threading

import psycopg
import pytest

from cluster import wait_until
from factory import add_rule, add_sensor, process


def run_together(database, count, work):
    """Runs `work(connection, number)` in `count` sessions that start at the same moment; returns their results."""
    barrier = threading.Barrier(count)
    results, errors = [None] * count, []

    def session(number):
        try:
            with database.connect() as connection:
                connection.execute("SELECT 1")
                barrier.wait(30)
                results[number] = work(connection, number)
        except Exception as error:  # noqa: BLE001 - reported below, in the main thread
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=session, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors, errors
    return results


def test_sessions_that_race_for_a_partition_all_succeed(database):
    _, sensor = add_sensor(database)
    for month in range(1, 13):
        run_together(database, 6, lambda connection, number, month=month: process(
            connection, sensor, number, f"2022-{month:02}-10 00:00:{number:02}+00"))
    assert database.value("SELECT count(*) FROM iot.sensor_data") == 72
    assert database.value(
        "SELECT count(*) FROM pg_partition_tree('iot.sensor_data') WHERE relid::text LIKE '%%sensor_data_2022%%'") == 12


def test_a_partition_made_in_an_open_transaction_is_waited_for(database):
    _, sensor = add_sensor(database)
    with database.connect(autocommit=False) as first:
        process(first, sensor, 1, "2021-03-01 00:00+00")
        waiting = threading.Thread(target=lambda: run_together(
            database, 1, lambda connection, _: process(connection, sensor, 2, "2021-03-02 00:00+00")))
        waiting.start()
        wait_until(lambda: database.value("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1, what="the wait")
        first.commit()
        waiting.join(30)
        assert not waiting.is_alive()
    assert database.value("SELECT count(*) FROM iot.sensor_data_2021_03") == 2


def test_a_partition_that_was_rolled_back_is_made_by_the_one_who_waited(database):
    _, sensor = add_sensor(database)
    with database.connect(autocommit=False) as first:
        process(first, sensor, 1, "2021-04-01 00:00+00")
        first.rollback()
    process(database.connection, sensor, 2, "2021-04-02 00:00+00")
    assert database.value("SELECT count(*) FROM iot.sensor_data_2021_04") == 1


def test_making_a_partition_blocks_neither_readers_nor_writers(database):
    _, sensor = add_sensor(database)
    process(database.connection, sensor, 1)
    with database.connect(autocommit=False) as reader, database.connect(autocommit=False) as maker:
        reader.execute("SELECT count(*) FROM iot.sensor_data")
        maker.execute("SET lock_timeout = '2s'")
        process(maker, sensor, 2, "2021-05-01 00:00+00")
        locks = {mode for (mode,) in maker.execute(
            "SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 'iot.sensor_data'::regclass")}
        assert "ShareUpdateExclusiveLock" in locks
        assert not locks & {"AccessExclusiveLock", "ExclusiveLock", "ShareRowExclusiveLock", "ShareLock"}
        with database.connect() as other:
            other.execute("SET lock_timeout = '2s'")
            process(other, sensor, 3)
            assert other.execute("SELECT count(*) FROM iot.sensor_data").fetchone()[0] == 2
        maker.commit()


def test_sessions_share_one_open_alert(database):
    _, sensor = add_sensor(database)
    add_rule(database)
    run_together(database, 8, lambda connection, number: [process(connection, sensor, 90 + number) for _ in range(25)])
    assert database.row("SELECT count(*), sum(occurrences) FROM iot.alerts") == (1, 200)
    assert database.value("SELECT count(*) FROM iot.sensor_data") == 200


def test_sessions_that_offer_the_same_reading_get_the_same_key(database):
    _, sensor = add_sensor(database)
    for minute in range(20):
        keys = run_together(database, 4, lambda connection, number, minute=minute: process(
            connection, sensor, number, f"2026-01-01 00:{minute:02}+00"))
        assert len(set(keys)) == 1
    assert database.value("SELECT count(*) FROM iot.sensor_data") == 20


def test_a_rule_changed_elsewhere_is_used_by_the_next_statement(database):
    _, sensor = add_sensor(database)
    add_rule(database)
    with database.connect() as long_lived:
        process(long_lived, sensor, 70)
        assert database.value("SELECT count(*) FROM iot.alerts") == 0
        database.execute("UPDATE iot.alert_rules SET rule_conditions = '{\"threshold_high\": 60}'")
        process(long_lived, sensor, 70)
        assert database.value("SELECT count(*) FROM iot.alerts") == 1


def test_commands_notify_at_commit(database):
    device, _ = add_sensor(database)
    with database.connect() as listener, database.connect(autocommit=False) as writer:
        listener.execute("LISTEN device_commands")
        rolled_back = writer.execute("SELECT iot.queue_device_command(%s, 'a')", (device,)).fetchone()[0]
        writer.rollback()
        committed = writer.execute("SELECT iot.queue_device_command(%s, 'b')", (device,)).fetchone()[0]
        writer.commit()
        writer.execute("SET iot_ext.notify_commands = off")
        writer.execute("SELECT iot.queue_device_command(%s, 'silent')", (device,))
        writer.commit()
        last = writer.execute("SELECT pg_notify('device_commands', 'end')")
        writer.commit()
        received = []
        for notice in listener.notifies(timeout=30):
            received.append(notice.payload)
            if notice.payload == "end":
                break
        assert last and received == [str(committed), "end"] and str(rolled_back) not in received


def test_setup_in_two_sessions_at_once(bare_database):
    reports = run_together(
        bare_database, 4, lambda connection, _: connection.execute("SELECT iot.setup()").fetchone()[0])
    everything = bare_database.value("SELECT count(*) FROM iot.schema_migrations")
    assert sorted(len(report["migrations_applied"]) for report in reports) == [0, 0, 0, everything]


def test_a_repeatable_read_transaction_is_told_to_retry_or_succeeds(database):
    """A snapshot taken before another session's insert must not hide the duplicate from us: no second row, no loss."""
    _, sensor = add_sensor(database)
    with database.connect(autocommit=False) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM iot.sensor_data")
        process(database.connection, sensor, 1, "2026-01-01 00:00+00")
        with pytest.raises((psycopg.errors.SerializationFailure, psycopg.errors.UniqueViolation)):
            process(old, sensor, 2, "2026-01-01 00:00+00")
    assert database.value("SELECT count(*) FROM iot.sensor_data") == 1


def test_a_rule_deleted_at_the_moment_of_a_match_costs_no_reading(database):
    _, sensor = add_sensor(database)
    add_rule(database)
    with database.connect(autocommit=False) as deleter:
        deleter.execute("DELETE FROM iot.alert_rules")
        process(database.connection, sensor, 90)
        deleter.commit()
    assert database.value("SELECT count(*) FROM iot.sensor_data") == 1


def test_an_advisory_lock_of_a_stranger_holds_nothing_up(database):
    _, sensor = add_sensor(database)
    with database.connect() as stranger, database.connect() as writer:
        stranger.execute("SELECT pg_advisory_lock(4804436, 'iot.sensor_data'::regclass::oid::int),"
                         " pg_advisory_lock(4804436, 'iot.partition_policy'::regclass::oid::int)")
        writer.execute("SET statement_timeout = '10s'")
        process(writer, sensor, 1, "2021-06-01 00:00+00")
        writer.execute("SELECT iot.setup()")
    assert database.value("SELECT count(*) FROM iot.sensor_data_2021_06") == 1


def test_conditions_made_by_the_thousand_do_not_fill_the_memory(database):
    """The cache of compiled conditions is bounded by their size."""
    with database.connect() as connection:
        pid = connection.info.backend_pid
        connection.execute(
            "SELECT count(iot.evaluate_alert_condition(jsonb_build_object('metadata_check',"
            " jsonb_build_object('k' || g, repeat(md5(g::text), 8000))), 1)) FROM generate_series(1, 600) g")
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            (resident,) = [int(line.split()[1]) for line in status if line.startswith("RssAnon")]
        assert resident < 150_000, f"{resident} kB after conditions of 150 MB in all"
