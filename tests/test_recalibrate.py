"""iot.recalibrate() on a real server: it commits midway, can be interrupted, and keeps to privileges."""

import psycopg
import pytest

from factory import add_sensor, process

ROLE = "recalibrator"
ROWS = 25_000


def fill(database, sensor, rows=ROWS):
    database.execute(
        """INSERT INTO iot.sensor_data (sensor_id, device_id, measurement_timestamp, measurement_value)
           SELECT sensor_id, device_id, timestamptz '2026-01-05 00:00+00' + n * interval '1 minute', n
             FROM iot.sensors, generate_series(0, %s - 1) n WHERE sensor_id = %s""", (rows, sensor))


def correct(database, sensor, calibration):
    database.execute(
        "UPDATE iot.sensor_calibrations SET calibration_data = %s WHERE sensor_id = %s", (calibration, sensor))


@pytest.fixture
def sensor(database):
    _, sensor = add_sensor(database)
    for month in (1, 2):
        database.execute("SELECT iot.create_monthly_partition('iot.sensor_data', 2026, %s)", (month,))
    return sensor


@pytest.fixture
def role(database):
    """A role with no more than what docs/calibration.md names."""
    database.execute(f"CREATE ROLE {ROLE} LOGIN")
    database.execute(f"GRANT USAGE ON SCHEMA iot TO {ROLE}")
    database.execute(
        f"GRANT SELECT ON iot.sensors, iot.devices, iot.sensor_calibrations, iot.data_processing_rules TO {ROLE}")
    database.execute(f"GRANT SELECT, UPDATE ON iot.sensor_data TO {ROLE}")
    database.execute(f"GRANT SELECT, INSERT, UPDATE ON iot.recalibrations TO {ROLE}")
    yield ROLE
    database.execute(f"DROP OWNED BY {ROLE}")
    database.execute(f"DROP ROLE {ROLE}")


def test_it_commits_after_each_batch(database, sensor):
    fill(database, sensor)
    # The last batch meets a value that the calibration cannot take: those before it stay.
    database.execute("UPDATE iot.sensor_data SET measurement_value = 1e308 WHERE measurement_value = 24000")
    correct(database, sensor, '{"multiplier": 10}')
    with pytest.raises(psycopg.errors.NumericValueOutOfRange) as failure:
        database.execute("CALL iot.recalibrate(%s)", (sensor,))
    assert "2026-01-21 16:00:00" in failure.value.diag.message_detail
    changed = database.value("SELECT count(*) FROM iot.sensor_data WHERE raw_value IS NOT NULL")
    assert changed == 20_000 - 1  # ten times zero is zero
    reached = database.row("SELECT progressed_to, rows_examined, rows_changed, finished_at FROM iot.recalibrations")
    assert reached[1:] == (20_000, changed, None)
    assert reached[0] == database.value(
        "SELECT max(measurement_timestamp) + interval '1 microsecond' FROM iot.sensor_data WHERE raw_value IS NOT NULL")

    # Going on from there, after the mistake is mended.
    database.execute("UPDATE iot.sensor_data SET measurement_value = 24000 WHERE measurement_value = 1e308")
    assert database.row("CALL iot.recalibrate(%s, %s)", (sensor, reached[0]))[:2] == (5_000, 5_000)
    assert database.value(
        "SELECT bool_and(measurement_value = 10 * coalesce(raw_value, 0)) FROM iot.sensor_data") is True
    # Or from the start: nothing is written twice.
    assert database.row("CALL iot.recalibrate(%s)", (sensor,)) == (ROWS, 0, None, None, None)
    assert database.value("SELECT count(*) FROM iot.recalibrations WHERE finished_at IS NOT NULL") == 2


def test_it_reports_what_it_changed(database, sensor):
    fill(database, sensor, 11_000)
    correct(database, sensor, '{"offset": -2.5}')
    figures = (11_000, 11_000, -2.5, -2.5, -2.5)
    assert database.row("CALL iot.recalibrate(%s, dry_run => true)", (sensor,)) == figures
    assert database.value("SELECT count(raw_value) FROM iot.sensor_data") == 0
    assert database.row("CALL iot.recalibrate(%s)", (sensor,)) == figures
    assert database.row(
        "SELECT rows_examined, rows_changed, minimum_difference, maximum_difference, mean_difference, started_by"
        "  FROM iot.recalibrations") == (*figures, "postgres")


def test_it_refuses_to_run_where_it_cannot_commit(database, sensor):
    fill(database, sensor, 10)
    correct(database, sensor, '{"offset": 1}')
    with database.connect(autocommit=False) as connection:
        with pytest.raises(psycopg.errors.ActiveSqlTransaction) as failure:
            connection.execute("CALL iot.recalibrate(%s)", (sensor,))
        assert "autocommit" in failure.value.diag.message_hint
        connection.rollback()
        assert connection.execute("CALL iot.recalibrate(%s, dry_run => true)", (sensor,)).fetchone()[:2] == (10, 10)
    database.execute(
        "CREATE FUNCTION recalibrate(sensor uuid) RETURNS void LANGUAGE plpgsql AS"
        " $$ DECLARE n bigint; m bigint; a float8; b float8; c float8;"
        " BEGIN CALL iot.recalibrate(sensor, '-infinity', 'infinity', false, n, m, a, b, c); END $$")
    with pytest.raises(psycopg.errors.InvalidTransactionTermination):
        database.execute("SELECT recalibrate(%s)", (sensor,))
    assert database.row("SELECT count(raw_value), (SELECT count(*) FROM iot.recalibrations) FROM iot.sensor_data") == (0, 0)


def test_a_hostile_search_path_changes_nothing(database, sensor):
    fill(database, sensor, 10)
    correct(database, sensor, '{"offset": 1}')
    database.psql(
        "CREATE SCHEMA trap;"
        "CREATE FUNCTION trap.recalibrate_batch() RETURNS int LANGUAGE sql AS 'SELECT 1 / 0';"
        "CREATE FUNCTION trap.no(boolean) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;"
        "CREATE FUNCTION trap.equal(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;"
        "CREATE OPERATOR trap.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = trap.equal);"
        "CREATE DOMAIN trap.int8 AS text; CREATE DOMAIN trap.timestamptz AS text; CREATE DOMAIN trap.float8 AS text")
    with database.connect() as connection:
        connection.execute("SET search_path = trap, pg_catalog, public")
        assert connection.execute("CALL iot.recalibrate(%s)", (sensor,)).fetchone()[:2] == (10, 10)


@pytest.mark.parametrize("missing", [
    "UPDATE ON iot.sensor_data", "SELECT ON iot.sensor_calibrations", "INSERT ON iot.recalibrations"])
def test_a_missing_privilege_stops_it(database, sensor, role, missing):
    fill(database, sensor, 10)
    correct(database, sensor, '{"offset": 1}')
    with database.connect(role) as connection:
        database.execute(f"REVOKE {missing} FROM {role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CALL iot.recalibrate(%s)", (sensor,))
        database.execute(f"GRANT {missing} TO {role}")
        assert connection.execute("CALL iot.recalibrate(%s)", (sensor,)).fetchone()[:2] == (10, 10)


def test_results_of_rules_take_privileges_of_their_own(database, sensor, role):
    process(database.connection, sensor, 1, "2026-01-05 12:00+00")
    database.execute(
        "INSERT INTO iot.data_processing_rules (rule_name, rule_type, rule_definition)"
        """ VALUES ('smooth', 'moving_average', '{"readings": 2}')""")
    process(database.connection, sensor, 2, "2026-01-05 12:01+00")
    correct(database, sensor, '{"offset": 10}')
    with database.connect(role) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CALL iot.recalibrate(%s)", (sensor,))
        assert database.value("SELECT count(raw_value) FROM iot.sensor_data") == 0
        database.execute(f"GRANT SELECT ON iot.organizations, iot.partition_policy TO {role}")
        database.execute(f"GRANT SELECT, INSERT, UPDATE ON iot.processing_states TO {role}")
        database.execute(f"GRANT SELECT, UPDATE ON iot.processed_data TO {role}")
        assert connection.execute("CALL iot.recalibrate(%s)", (sensor,)).fetchone()[:2] == (2, 2)
    assert database.value("SELECT processed_value FROM iot.processed_data") == 11.5


def test_row_security_hides_readings_from_it(database, sensor, role):
    fill(database, sensor, 10)
    correct(database, sensor, '{"offset": 1}')
    database.execute("ALTER TABLE iot.sensor_data ENABLE ROW LEVEL SECURITY")
    database.execute("CREATE POLICY readable ON iot.sensor_data FOR SELECT "
                     "USING (measurement_timestamp < '2026-01-05 00:08+00')")
    database.execute("CREATE POLICY changeable ON iot.sensor_data FOR UPDATE "
                     "USING (measurement_timestamp > '2026-01-05 00:02+00') WITH CHECK (measurement_value < 100)")
    with database.connect(role) as connection:
        assert connection.execute("CALL iot.recalibrate(%s)", (sensor,)).fetchone()[:2] == (5, 5)
        assert database.rows("SELECT raw_value FROM iot.sensor_data WHERE raw_value IS NOT NULL ORDER BY 1") == [
            (3,), (4,), (5,), (6,), (7,)]
        correct(database, sensor, '{"offset": 100}')
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CALL iot.recalibrate(%s)", (sensor,))


@pytest.mark.parametrize("same_session", [True, False])
def test_later_scores_use_the_new_values(database, sensor, same_session):
    with database.connect() as other:
        for minute in range(10):
            process(other, sensor, 20 + minute % 2, f"2026-01-05 12:{minute:02}+00")
        correct(database, sensor, '{"offset": 100}')
        (other if same_session else database).execute("CALL iot.recalibrate(%s)", (sensor,))
        process(other, sensor, 20.5, "2026-01-05 12:30+00")
    assert database.row(
        "SELECT measurement_value, anomaly_score, is_anomaly FROM iot.sensor_data"
        " ORDER BY measurement_timestamp DESC LIMIT 1") == (120.5, 0, False)
    # What was scored before is history.
    assert database.value("SELECT count(*) FROM iot.sensor_data WHERE measurement_value > 119") == 11


def test_readings_arrive_meanwhile(database, sensor):
    """A reading that is being stored under the new calibration is no obstacle, and is left as it is."""
    fill(database, sensor, 10)
    correct(database, sensor, '{"offset": 1}')
    with database.connect(autocommit=False) as storing:
        process(storing, sensor, 5, "2026-01-05 12:00+00")
        assert database.row("CALL iot.recalibrate(%s)", (sensor,))[:2] == (10, 10)
        storing.commit()
    assert database.row("CALL iot.recalibrate(%s)", (sensor,))[:2] == (11, 0)
