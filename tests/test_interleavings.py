"""Sessions whose transactions overlap in chosen ways: what is shared about a sensor stays true to its stored rows."""

from datetime import timedelta

import pytest

from cluster import Cluster, Database
from factory import add_sensor, process
from roads import START, assert_scores_follow_the_rows, probe

PLAIN_INSERT = (
    "INSERT INTO iot.sensor_data (sensor_id, device_id, measurement_timestamp, measurement_value, measurement_unit)"
    " SELECT sensor_id, device_id, %(at)s, %(value)s, unit_of_measure FROM iot.sensors WHERE sensor_id = %(sensor)s")


def minute(number):
    return START + timedelta(minutes=number)


def fill(connection, sensor, count=10, first=0):
    """Readings of the first minutes, with some spread."""
    for number in range(first, first + count):
        process(connection, sensor, 20 + number % 3, minute(number))


@pytest.fixture
def sensor(database):
    _, sensor = add_sensor(database)
    make_partition(database)
    return sensor


def make_partition(database):
    """Plain SQL makes none, and two transactions would wait for each other over it."""
    database.execute("SELECT iot.create_monthly_partition('iot.sensor_data', 2026, 1)")


@pytest.mark.parametrize("looks", [False, True])
def test_a_commit_seen_inside_a_savepoint_is_kept_when_that_rolls_back(database, sensor, looks):
    fill(database.connection, sensor)
    with database.connect(autocommit=False) as first:
        process(first, sensor, 21, minute(20))
        first.execute("SAVEPOINT inner_part")
        process(database.connection, sensor, 30, minute(21))
        process(first, sensor, 23, minute(22))
        first.execute("ROLLBACK TO SAVEPOINT inner_part")
        if looks:
            found, expected = probe(first, sensor, minute(23))
            assert abs(found - expected) < 1e-9
            first.execute("ROLLBACK TO SAVEPOINT inner_part")
        first.commit()
    assert_scores_follow_the_rows(database, [sensor])


def test_a_plain_insert_that_began_before_its_sensor_was_tracked(database, sensor):
    with database.connect(autocommit=False) as plain:
        for number in range(5):
            plain.execute(PLAIN_INSERT, {"sensor": sensor, "at": minute(number), "value": 50 + number})
        fill(database.connection, sensor, first=10)
        plain.commit()
    assert_scores_follow_the_rows(database, [sensor])


def test_a_delete_that_began_before_its_sensor_was_tracked():
    with Cluster() as cluster:
        database = Database(cluster)
        database.execute("CREATE EXTENSION iot_ext")
        database.execute("SELECT iot.setup()")
        _, sensor = add_sensor(database)
        fill(database.connection, sensor)
        database.connection.close()
        cluster.restart()
        with database.connect(autocommit=False) as plain:
            plain.execute("DELETE FROM iot.sensor_data WHERE measurement_value = 22")
            process(database.connection, sensor, 21, minute(20))
            plain.commit()
        assert_scores_follow_the_rows(database, [sensor])


def test_a_sensor_that_found_no_room_and_then_another_session_tracks():
    with Cluster(settings={"iot_ext.max_tracked_sensors": 1}) as cluster:
        database = Database(cluster)
        database.execute("CREATE EXTENSION iot_ext")
        database.execute("SELECT iot.setup()")
        (_, holder), (_, sensor) = add_sensor(database, "D-1"), add_sensor(database, "D-2")
        make_partition(database)
        with database.connect(autocommit=False) as occupier, database.connect(autocommit=False) as refused:
            process(occupier, holder, 1, minute(0))
            fill(refused, sensor)
            occupier.rollback()
            fill(database.connection, sensor, first=20)
            refused.commit()
        assert_scores_follow_the_rows(database, [sensor])


def test_an_open_transaction_sees_what_plain_sql_commits_meanwhile(database, sensor):
    fill(database.connection, sensor)
    with database.connect(autocommit=False) as first:
        process(first, sensor, 21, minute(20))
        database.execute(PLAIN_INSERT, {"sensor": sensor, "at": minute(21), "value": 60})
        found, expected = probe(first, sensor, minute(22))
        first.rollback()
    assert abs(found - expected) < 1e-9
    assert_scores_follow_the_rows(database, [sensor])


def test_an_open_transaction_sees_what_other_sessions_commit_meanwhile(database, sensor):
    fill(database.connection, sensor)
    with database.connect(autocommit=False) as first:
        process(first, sensor, 21, minute(20))
        process(database.connection, sensor, 60, minute(21))
        found, expected = probe(first, sensor, minute(22))
        first.rollback()
    assert abs(found - expected) < 1e-9
    assert_scores_follow_the_rows(database, [sensor])


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_session_that_builds_while_another_writes(database, sensor, end):
    """The one that built cannot have seen what the other had not committed."""
    with database.connect(autocommit=False) as first, database.connect(autocommit=False) as second:
        first.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        fill(first, sensor)
        fill(second, sensor, first=20)
        fill(database.connection, sensor, first=40)
        getattr(first, end)()
        fill(database.connection, sensor, first=60)
        getattr(second, end)()
    assert_scores_follow_the_rows(database, [sensor])


@pytest.mark.parametrize("statement", [
    "TRUNCATE iot.sensor_data_2026_01",
    "DROP TABLE iot.sensor_data_2026_01",
    "ALTER TABLE iot.sensor_data DETACH PARTITION iot.sensor_data_2026_01",
    "SET session_replication_role = replica; DELETE FROM iot.sensor_data WHERE measurement_value > 21",
    "DELETE FROM iot.sensor_data_2026_01 WHERE measurement_value > 21",
])
@pytest.mark.parametrize("committed", [True, False])
def test_readings_that_go_past_the_parent_table(database, sensor, statement, committed):
    fill(database.connection, sensor)
    with database.connect(autocommit=False) as other:
        for part in statement.split("; "):
            other.execute(part)
        if committed:
            other.commit()
        else:
            process(other, sensor, 20, minute(5_000))
            other.rollback()
    assert_scores_follow_the_rows(database, [sensor])


def test_a_partition_that_comes_with_readings(database, sensor):
    fill(database.connection, sensor)
    database.execute("ALTER TABLE iot.sensor_data DETACH PARTITION iot.sensor_data_2026_01")
    fill(database.connection, sensor, count=2, first=50_000)
    database.execute("ALTER TABLE iot.sensor_data ATTACH PARTITION iot.sensor_data_2026_01"
                     " FOR VALUES FROM ('2026-01-01 00:00+00') TO ('2026-02-01 00:00+00')")
    database.execute("DELETE FROM iot.sensor_data_2026_02")
    assert_scores_follow_the_rows(database, [sensor])


def test_a_state_that_was_lost_is_taken_over_from_whoever_builds_it(database, sensor):
    """A transaction whose state went stale builds one for itself, and goes on with the common one once there is one."""
    fill(database.connection, sensor, count=5)
    with database.connect(autocommit=False) as transaction, database.connect() as other:
        process(transaction, sensor, 23, minute(10))
        other.execute(PLAIN_INSERT, {"sensor": sensor, "at": minute(11), "value": 24})
        process(transaction, sensor, 25, minute(12))
        # Nothing is written down meanwhile: whoever builds the state after this begins with what a flush has left.
        assert transaction.execute("SELECT count(*) FROM iot.sensor_state WHERE state IS NOT NULL").fetchone() == (0,)
        process(other, sensor, 26, minute(13))
        process(transaction, sensor, 27, minute(14))
        found, expected = probe(transaction, sensor, minute(15))
        assert abs(found - expected) < 1e-9
        process(other, sensor, 28, minute(16))
        transaction.commit()
    assert_scores_follow_the_rows(database, [sensor])


def test_a_role_that_sees_few_readings_does_not_decide_for_all(database, sensor):
    """What it builds is made of what it may see."""
    role = f"half_blind_{database.name}"
    for number in range(20):
        database.execute(PLAIN_INSERT, {"sensor": sensor, "at": minute(number), "value": 20 + number})
    database.execute(f"CREATE ROLE {role} LOGIN")
    try:
        database.execute("ALTER TABLE iot.sensor_data ENABLE ROW LEVEL SECURITY")
        database.execute("CREATE POLICY few ON iot.sensor_data FOR SELECT USING (measurement_value < 25)")
        database.execute("CREATE POLICY any_new ON iot.sensor_data FOR INSERT WITH CHECK (true)")
        database.execute(f"GRANT USAGE ON SCHEMA iot TO {role}")
        database.execute(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA iot TO {role}")
        with database.connect(role) as half_blind:
            process(half_blind, sensor, 21, minute(30))
        assert_scores_follow_the_rows(database, [sensor])
        # And the other way round: it is not told what is hidden from it.
        with database.connect(role, autocommit=False) as half_blind:
            found, expected = probe(half_blind, sensor, minute(31))
            half_blind.rollback()
        assert abs(found - expected) < 1e-9
    finally:
        database.execute(f"DROP OWNED BY {role}")
        database.execute(f"DROP ROLE {role}")


def test_roles_that_see_more_and_less_in_one_transaction(database, sensor):
    """All that the transaction stores reaches the others, whoever it was at the time."""
    role = f"sees_less_{database.name}"
    fill(database.connection, sensor, count=30)
    database.execute(f"CREATE ROLE {role}")
    try:
        database.execute("ALTER TABLE iot.sensor_data ENABLE ROW LEVEL SECURITY")
        database.execute("CREATE POLICY few ON iot.sensor_data FOR SELECT USING (measurement_value > 30)")
        database.execute("CREATE POLICY any_new ON iot.sensor_data FOR INSERT WITH CHECK (true)")
        database.execute(f"GRANT USAGE ON SCHEMA iot TO {role}")
        database.execute(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA iot TO {role}")
        with database.connect(autocommit=False) as transaction:
            for number, who in enumerate(("postgres", role, "postgres", "postgres")):
                transaction.execute(f"SET ROLE {who}")
                process(transaction, sensor, 35 + number, minute(40 + number))
            transaction.commit()
        assert_scores_follow_the_rows(database, [sensor])
    finally:
        database.execute(f"DROP OWNED BY {role}")
        database.execute(f"DROP ROLE {role}")


def test_a_trigger_of_the_user_that_changes_values(database, sensor):
    database.execute("CREATE FUNCTION public.halve() RETURNS trigger LANGUAGE plpgsql AS"
                     " 'BEGIN NEW.measurement_value := NEW.measurement_value / 2 - 3; RETURN NEW; END'")
    database.execute("CREATE TRIGGER halve BEFORE INSERT ON iot.sensor_data FOR EACH ROW EXECUTE FUNCTION public.halve()")
    fill(database.connection, sensor)
    assert_scores_follow_the_rows(database, [sensor])


@pytest.mark.parametrize("how", ["plain", "engine"])
def test_a_trigger_of_the_user_that_derives_another_sensors_reading(database, sensor, how):
    _, derived = add_sensor(database, "D-2")
    fill(database.connection, derived)
    insert = (
        "INSERT INTO iot.sensor_data (sensor_id, device_id, measurement_timestamp, measurement_value, measurement_unit)"
        " SELECT sensor_id, device_id, NEW.measurement_timestamp, NEW.measurement_value * 4, ''degC'' FROM iot.sensors"
        f" WHERE sensor_id = ''{derived}''" if how == "plain" else
        f"PERFORM iot.process_sensor_data(''{derived}'', NEW.measurement_value * 4, ''{{}}'', NEW.measurement_timestamp)")
    database.execute("CREATE FUNCTION public.derive() RETURNS trigger LANGUAGE plpgsql AS"
                     f" 'BEGIN IF NEW.sensor_id <> ''{derived}'' THEN {insert}; END IF; RETURN NEW; END'")
    database.execute("CREATE TRIGGER derive AFTER INSERT ON iot.sensor_data FOR EACH ROW EXECUTE FUNCTION public.derive()")
    fill(database.connection, sensor, first=20)
    assert database.value("SELECT count(*) FROM iot.sensor_data WHERE sensor_id = %s", (derived,)) == 20
    assert_scores_follow_the_rows(database, [sensor, derived])


def test_sensors_of_a_dropped_database_make_room():
    with Cluster(settings={"iot_ext.max_tracked_sensors": 5}) as cluster:
        for round_number in range(2):
            database = Database(cluster)
            database.execute("CREATE EXTENSION iot_ext")
            database.execute("SELECT iot.setup()")
            make_partition(database)
            sensors = [add_sensor(database, f"D-{number}")[1] for number in range(5)]
            for sensor in sensors:
                fill(database.connection, sensor)
            before = database.value("SELECT window_reads FROM iot.iot_stat_ingest")
            assert_scores_follow_the_rows(database, sensors)
            assert database.value("SELECT window_reads FROM iot.iot_stat_ingest") == before, round_number
            database.drop()


def test_a_quiet_sensor_makes_room_for_a_busy_one():
    with Cluster(settings={"iot_ext.max_tracked_sensors": 5}) as cluster:
        database = Database(cluster)
        database.execute("CREATE EXTENSION iot_ext")
        database.execute("SELECT iot.setup()")
        make_partition(database)
        sensors = [add_sensor(database, f"D-{number}")[1] for number in range(10)]
        for sensor in sensors:
            fill(database.connection, sensor)
        assert database.value("SELECT evicted FROM iot.iot_stat_tracked_sensors") > 0
        assert_scores_follow_the_rows(database, sensors)
