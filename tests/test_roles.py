"""Who may do what: the README's ingest role, row security, and the roles that own things."""

import psycopg
import pytest

from cluster import Database
from documents import BLOCK, ROOT, sql_blocks
from factory import add_rule, add_sensor, process

ROLE = "factory_ingest"


@pytest.fixture
def ingest_role(database):
    """The role of README's GRANTs, taken from README itself."""
    (grants,) = [block.text for block in sql_blocks(ROOT / "README.md") if f"CREATE ROLE {ROLE}" in block.text]
    database.psql(grants)
    yield ROLE
    database.execute(f"DROP OWNED BY {ROLE}")
    database.execute(f"DROP ROLE {ROLE}")


def test_the_pipeline_runs_with_readmes_grants(database, ingest_role):
    device, sensor = add_sensor(database)
    add_rule(database)
    with database.connect(ingest_role) as connection:
        process(connection, sensor, 90)
        process(connection, sensor, 91, "2023-02-03 00:00+00")  # a month that has no partition yet
        process(connection, sensor, 91, "2023-02-03 00:00+00")  # and a duplicate
        assert len(connection.execute("SELECT iot.check_alert_rules(%s, 99)", (sensor,)).fetchone()[0]) == 1
        connection.execute("SELECT iot.queue_device_command(%s, 'stop')", (device,))
        assert connection.execute("SELECT occurrences FROM iot.alerts").fetchone()[0] == 3
    owners = database.rows("SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relname LIKE 'sensor_data%%'")
    assert owners == [("postgres",)]
    assert database.value(
        "SELECT has_table_privilege(%s, 'iot.sensor_data_2023_02', 'SELECT')", (ingest_role,)) is False


@pytest.mark.parametrize("statement", [
    "SELECT iot.create_monthly_partition('iot.sensor_data', 2020, 1)",
    "SELECT iot.setup()",
    "DELETE FROM iot.sensor_data",
    "UPDATE iot.partition_policy SET premake = 0",
    "INSERT INTO iot.alert_rules (rule_name, sensor_type, rule_conditions, severity)"
    " VALUES ('x', 'y', '{\"threshold_high\": 1}', 'low')",
])
def test_the_ingest_role_may_do_no_more(database, ingest_role, statement):
    with database.connect(ingest_role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


def test_row_security_hides_sensors_and_checks_readings(database, ingest_role):
    _, sensor = add_sensor(database)
    _, hidden = add_sensor(database, serial="D-2", name="hidden")
    database.execute("ALTER TABLE iot.sensors ENABLE ROW LEVEL SECURITY")
    database.execute("CREATE POLICY visible ON iot.sensors FOR SELECT USING (sensor_name <> 'hidden')")
    database.execute("ALTER TABLE iot.sensor_data ENABLE ROW LEVEL SECURITY")
    database.execute("CREATE POLICY readable ON iot.sensor_data FOR SELECT USING (true)")
    database.execute("CREATE POLICY plausible ON iot.sensor_data FOR INSERT WITH CHECK (measurement_value < 100)")
    with database.connect(ingest_role) as connection:
        process(connection, sensor, 20)
        with pytest.raises(psycopg.errors.UndefinedObject):
            process(connection, hidden, 20)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            process(connection, sensor, 200)
    assert database.value("SELECT count(*) FROM iot.sensor_data") == 1


def test_views_show_only_what_the_caller_may_see(database, ingest_role):
    _, sensor = add_sensor(database)
    process(database.connection, sensor, 20)
    database.execute(f"GRANT SELECT ON iot.sensor_hourly_aggregates TO {ROLE}")
    database.execute("ALTER TABLE iot.sensor_data ENABLE ROW LEVEL SECURITY")
    with database.connect(ingest_role) as connection:
        assert connection.execute("SELECT count(*) FROM iot.sensor_hourly_aggregates").fetchone()[0] == 0
    assert database.value("SELECT count(*) FROM iot.sensor_hourly_aggregates") == 1


def test_the_owner_of_the_tables_need_not_be_superuser(bare_database):
    database = bare_database
    database.execute("CREATE ROLE plant_owner LOGIN")
    try:
        database.execute("GRANT USAGE, CREATE ON SCHEMA iot TO plant_owner")
        with database.connect("plant_owner") as owner:
            owner.execute("SELECT iot.setup()")
            owner.execute("SELECT iot.setup(premake => 4)")
            owner.execute("SELECT iot.create_monthly_partition('iot.sensor_data', 2020, 1)")
            assert owner.execute("SELECT DISTINCT premake FROM iot.partition_settings").fetchone()[0] == 4
        # A superuser who runs it again changes nothing about whose tables they are.
        database.execute("SELECT iot.setup(premake => 6)")
        owners = database.rows(
            "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class c WHERE relnamespace = 'iot'::regnamespace"
            " AND relkind IN ('r', 'p', 'v') AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid"
            " AND d.deptype = 'e')")
        assert owners == [("plant_owner",)]
        with database.connect("plant_owner") as owner:
            _, sensor = add_sensor(database)
            process(owner, sensor, 1, "2019-01-01 00:00+00")
    finally:
        database.execute("DROP OWNED BY plant_owner CASCADE")
        database.execute("DROP ROLE plant_owner")


def test_what_runs_as_the_owner_does_not_use_the_callers_search_path(database, ingest_role):
    """A DBA's event trigger that pins nothing must not be led astray while a partition is made on someone's behalf."""
    _, sensor = add_sensor(database)
    database.execute("CREATE TABLE public.noted (who name)")
    database.execute(f"GRANT CREATE ON DATABASE {database.name} TO {ROLE}")
    database.execute("CREATE FUNCTION public.note() RETURNS event_trigger LANGUAGE plpgsql AS"
                     " $$ BEGIN PERFORM trap(); EXCEPTION WHEN undefined_function THEN NULL; END $$")
    database.execute("CREATE EVENT TRIGGER note ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION public.note()")
    with database.connect(ingest_role) as connection:
        connection.execute("CREATE SCHEMA mine")
        connection.execute("CREATE FUNCTION mine.trap() RETURNS void LANGUAGE plpgsql AS"
                           " $$ BEGIN EXECUTE 'INSERT INTO public.noted VALUES (current_user)'; END $$")
        connection.execute("SET search_path = mine")
        process(connection, sensor, 1, "2023-04-05 00:00+00")
        assert connection.execute("SHOW search_path").fetchone()[0] == "mine"
    assert database.rows("SELECT who FROM public.noted") == []
    assert database.value("SELECT count(*) FROM iot.sensor_data_2023_04") == 1


def test_a_hostile_search_path_changes_nothing(database, cluster):
    """Functions and operators of the caller's search_path must not be picked up by the statements of the extension."""
    _, sensor = add_sensor(database)
    database.execute("CREATE SCHEMA evil")
    database.execute("CREATE FUNCTION evil.never(uuid, uuid) RETURNS boolean LANGUAGE sql AS 'SELECT false'")
    database.execute("CREATE OPERATOR evil.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = evil.never)")
    database.execute("CREATE FUNCTION evil.count(double precision) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint'")
    database.execute("CREATE TABLE evil.sensors (sensor_id uuid)")
    with database.connect() as connection:
        connection.execute("SET search_path = evil, pg_catalog, iot")
        process(connection, sensor, 20)
        connection.execute("SELECT iot.setup()")
    assert database.value("SELECT count(*) FROM iot.sensor_data") == 1


def test_a_database_of_another_encoding_is_refused(cluster):
    with cluster.connect() as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with cluster.connect("latin") as connection, pytest.raises(psycopg.errors.FeatureNotSupported) as refused:
            connection.execute("CREATE EXTENSION iot_ext")
        assert "LATIN1" in refused.value.diag.message_detail and "UTF8" in refused.value.diag.message_hint
    finally:
        cluster.drop_database("latin")


def test_the_further_grants_of_the_ingest_document_are_enough(database, ingest_role):
    """Each of them opens what it says, and nothing does before."""
    database.execute("SELECT iot.setup(duplicates => 'last')")
    _, sensor = add_sensor(database)
    (grants,) = [text for language, text in BLOCK.findall((ROOT / "docs" / "ingest.md").read_text())
                 if language == "text" and f"TO {ROLE}" in text]
    process(database.connection, sensor, 1, "2026-01-05 12:00+00")
    database.execute(f"INSERT INTO iot.raw_readings (sensor_id, measurement_value) VALUES ('{sensor}', '6,5')")
    database.execute("UPDATE iot.rejected_readings SET reading = reading || '{\"measurement_value\": \"6.5\"}'")
    statements = [
        ("SELECT replayed, accepted FROM iot.replay_rejected()", (1, 1)),
        ("SELECT count(*) FROM iot.latest_readings", (1,)),
        ("SELECT connection FROM iot.device_status", ("online",)),
        ("SELECT offered > 0 FROM iot.iot_stat_ingest", (True,)),
        (f"SELECT is_duplicate FROM iot.process_sensor_data_ex('{sensor}', 2, '{{}}', '2026-01-05 12:00+00')", (True,)),
        ("SELECT accepted FROM iot.ingest('{\"deviceId\": \"line-7\", \"sensorType\": \"t\", \"value\": 1}', true)", (1,)),
    ]
    with database.connect(ingest_role) as connection:
        for statement, _ in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
        database.psql(grants)
        for statement, expected in statements:
            assert connection.execute(statement).fetchone() == expected, statement
