"""What a session keeps of the registry is true: a change is used by the next statement of those who see it, and by no other."""

import json

import psycopg
import pytest

from factory import add_sensor, process
from roads import BATCH_ROADS, START, Reading

VALUE = 50.0


@pytest.fixture
def sensor(database):
    """A sensor of a device that has an organization, a type and a group, with rules over each scope, none of which matches."""
    organization, other = (database.value(
        "INSERT INTO iot.organizations (organization_name) VALUES (%s) RETURNING organization_id", (name,)) for name in "ab")
    device, sensor = add_sensor(database)
    database.execute("UPDATE iot.devices SET organization_id = %s", (organization,))
    group = database.value("INSERT INTO iot.device_groups (group_name) VALUES ('g') RETURNING group_id")
    for name, column, scope in (("of the other organization", "organization_id", other), ("of the group", "group_id", group)):
        database.execute(
            f"INSERT INTO iot.alert_rules (rule_name, {column}, rule_conditions, severity)"
            " VALUES (%s, %s, '{\"threshold_high\": 1}', 'high')", (name, scope))
    database.execute(
        "INSERT INTO iot.alert_rules (rule_name, sensor_id, rule_conditions, severity)"
        " VALUES ('own', %s, '{\"threshold_high\": 1000}', 'high')", (sensor,))
    return sensor


# A change, and what the reading after it looks like: (value, quality, alerts, organization), or an error.
BEFORE = (50.0, "valid", set(), "a")
CHANGES = {
    "rule": ("UPDATE iot.alert_rules SET rule_conditions = '{\"threshold_high\": 9}' WHERE rule_name = 'own'",
             (50.0, "valid", {"own"}, "a")),
    "new rule": ("INSERT INTO iot.alert_rules (rule_name, sensor_type, rule_conditions, severity)"
                 " VALUES ('new', 'temperature', '{\"threshold_low\": 60}', 'low')", (50.0, "valid", {"new"}, "a")),
    "calibration": ("UPDATE iot.sensors SET calibration_data = '{\"offset\": 2}'", (52.0, "valid", set(), "a")),
    "old calibration": ("UPDATE iot.sensor_calibrations SET calibration_data = '{\"offset\": 3}'",
                        (53.0, "valid", set(), "a")),
    "status": ("UPDATE iot.sensors SET sensor_status = 'inactive'", psycopg.errors.ObjectNotInPrerequisiteState),
    "physical range": ("UPDATE iot.sensors SET physical_maximum = 40", (50.0, "invalid", set(), "a")),
    "organization of the device": (
        "UPDATE iot.devices SET organization_id = (SELECT organization_id FROM iot.organizations"
        " WHERE organization_name = 'b')", (50.0, "valid", {"of the other organization"}, "b")),
    "tree of organizations": (
        "UPDATE iot.organizations SET parent_organization_id = (SELECT organization_id FROM iot.organizations"
        " WHERE organization_name = 'b') WHERE organization_name = 'a'",
        (50.0, "valid", {"of the other organization"}, "a")),
    "group membership": ("INSERT INTO iot.device_group_members (group_id, device_id)"
                         " SELECT group_id, device_id FROM iot.device_groups, iot.devices",
                         (50.0, "valid", {"of the group"}, "a")),
    "unit": ("UPDATE iot.sensors SET value_type = 'boolean'", psycopg.errors.DatatypeMismatch),
    "retention": ("SELECT iot.setup(retention => '1 day')", psycopg.errors.DatetimeFieldOverflow),
}
# "calibration" starts with the clock, so its reading has the clock's time.
CLOCK_TIME = {"calibration"}


class Sender:
    """Sends readings and tells what became of them, each in a subtransaction that is rolled back."""

    def __init__(self, connection, sensor, at=START):
        self.connection, self.sensor, self.at = connection, sensor, at

    def send(self):
        try:
            with self.connection.transaction() as transaction:
                value, quality, data_id, alerts = self.connection.execute(
                    "SELECT measurement_value, data_quality, data_id, alert_ids"
                    " FROM iot.process_sensor_data_ex(%s, %s, '{}', %s)", (self.sensor, VALUE, self.at)).fetchone()
                rules = {name for (name,) in self.connection.execute(
                    "SELECT rule_name FROM iot.alerts JOIN iot.alert_rules USING (rule_id) WHERE alert_id = ANY (%s)",
                    (alerts,))}
                (organization,) = self.connection.execute(
                    "SELECT organization_name FROM iot.sensor_data JOIN iot.organizations USING (organization_id)"
                    " WHERE data_id = %s", (data_id,)).fetchone()
                raise psycopg.Rollback(transaction)
            return value, quality, rules, organization
        except psycopg.errors.Error as error:
            return type(error)


def sender(database, connection, sensor, name):
    return Sender(connection, sensor, None if name in CLOCK_TIME else START)


@pytest.mark.parametrize("name", CHANGES)
def test_a_committed_change_is_used_by_the_next_statement_elsewhere(database, sensor, name):
    change, after = CHANGES[name]
    with database.connect() as other, database.connect(autocommit=False) as in_transaction:
        senders = [sender(database, connection, sensor, name) for connection in (other, in_transaction)]
        in_transaction.execute("SELECT 1")
        for one in senders:
            assert [one.send(), one.send()] == [BEFORE, BEFORE]
        in_transaction.execute("SELECT 1")
        database.execute(change)
        assert [one.send() for one in senders] == [after, after]
        in_transaction.rollback()


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_counts_inside_its_transaction_and_not_after_its_rollback(database, sensor, name):
    change, after = CHANGES[name]
    with database.connect(autocommit=False) as changing, database.connect() as other:
        here, elsewhere = (sender(database, connection, sensor, name) for connection in (changing, other))
        changing.execute("SELECT 1")
        assert (here.send(), elsewhere.send()) == (BEFORE, BEFORE)
        changing.execute("SAVEPOINT before")
        changing.execute(change)
        assert here.send() == after
        changing.execute("ROLLBACK TO SAVEPOINT before")
        assert here.send() == BEFORE
        changing.execute(change)
        assert here.send() == after
        changing.execute("SAVEPOINT later")
        changing.rollback()
        changing.execute("SELECT 1")
        assert here.send() == BEFORE
        changing.rollback()
        assert elsewhere.send() == BEFORE


@pytest.mark.parametrize("name", sorted(set(CHANGES) - {"calibration"}))
def test_an_old_snapshot_sees_the_old_registry_and_leaves_none_behind(database, sensor, name):
    change, after = CHANGES[name]
    with database.connect(autocommit=False) as old:
        one = sender(database, old, sensor, name)
        old.execute("SELECT 1")
        assert one.send() == BEFORE
        old.rollback()
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM iot.sensors")
        database.execute(change)
        assert one.send() == BEFORE
        old.rollback()
        old.execute("SELECT 1")
        assert one.send() == after
        old.rollback()


@pytest.fixture
def tenants(database):
    """Two roles that see the sensors of their own organization only."""
    roles = {}
    database.execute("ALTER TABLE iot.sensors ENABLE ROW LEVEL SECURITY")
    for name in "ab":
        role = roles[name] = f"tenant_{name}_{database.name}"
        database.execute(f"CREATE ROLE {role} LOGIN")
        database.execute(f"GRANT USAGE ON SCHEMA iot TO {role}")
        database.execute(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA iot TO {role}")
    database.execute(
        "CREATE POLICY own ON iot.sensors USING (sensor_name = right(split_part(current_user, '_test', 1), 1))")
    sensors = {name: add_sensor(database, f"D-{name}", name)[1] for name in roles}
    yield roles, sensors
    for role in roles.values():
        database.execute(f"DROP OWNED BY {role}")
        database.execute(f"DROP ROLE {role}")


def outcome(connection, sensor):
    try:
        process(connection, sensor, 1)
        return "stored"
    except psycopg.errors.UndefinedObject:
        return "unknown"


def test_a_tenant_does_not_profit_from_what_another_role_cached(database, tenants):
    roles, sensors = tenants
    with database.connect() as connection:
        for _ in range(2):
            for user in ("postgres", roles["a"], roles["b"], roles["a"]):
                connection.execute(f'SET ROLE "{user}"')
                expected = {
                    name: "stored" if user in ("postgres", roles[name]) else "unknown" for name in sensors}
                assert {name: outcome(connection, sensor) for name, sensor in sensors.items()} == expected, user
            connection.execute("RESET ROLE")
    for road in BATCH_ROADS:
        with database.connect() as connection:
            road(connection, [Reading(sensor, START, 1.0) for sensor in sensors.values()])
            connection.execute(f"SET ROLE {roles['a']}")
            before = database.value("SELECT count(*) FROM iot.rejected_readings WHERE reason = 'unknown_sensor'")
            connection.execute(
                "SELECT * FROM iot.ingest(%s::jsonb)", (json.dumps([
                    {"sensor_id": str(sensor), "measurement_value": 2} for sensor in sensors.values()]),))
            assert database.value(
                "SELECT count(*) FROM iot.rejected_readings WHERE reason = 'unknown_sensor'") == before + 1


def test_row_security_that_is_switched_on_counts_at_once(database, tenants):
    roles, sensors = tenants
    database.execute("ALTER TABLE iot.sensors DISABLE ROW LEVEL SECURITY")
    with database.connect(roles["a"]) as tenant:
        assert [outcome(tenant, sensor) for sensor in sensors.values()] == ["stored", "stored"]
        database.execute("ALTER TABLE iot.sensors ENABLE ROW LEVEL SECURITY")
        assert [outcome(tenant, sensor) for sensor in sensors.values()] == ["stored", "unknown"]
        database.execute("UPDATE iot.sensors SET sensor_name = CASE sensor_name WHEN 'a' THEN 'b' ELSE 'a' END")
        assert [outcome(tenant, sensor) for sensor in sensors.values()] == ["unknown", "stored"]
        database.execute(f"REVOKE SELECT ON iot.sensors FROM {roles['a']}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            process(tenant, sensors["b"], 1)


def test_a_sensor_that_was_unknown_is_found_when_it_is_registered(database):
    device, known = add_sensor(database)
    new = "00000000-0000-0000-0000-000000000042"
    with database.connect() as other:
        assert outcome(other, known) == "stored" and outcome(other, new) == "unknown"
        database.execute(
            "INSERT INTO iot.sensors (sensor_id, device_id, sensor_name, sensor_type, unit_of_measure)"
            " VALUES (%s, %s, 'new', 'temperature', 'degC')", (new, device))
        assert outcome(other, new) == "stored"
        database.execute("DELETE FROM iot.sensor_data; DELETE FROM iot.sensors WHERE sensor_name = 'new'")
        assert outcome(other, new) == "unknown"


@pytest.mark.parametrize("asked_before", [3, 4, 5])
def test_sensors_asked_for_together_are_all_found(database, asked_before):
    """A session that asks for sensors one by one loads those that follow beforehand: around the end, the first ones again."""
    sensors = sorted(add_sensor(database, f"D-{number}")[1] for number in range(20))
    for first in range(19):
        with database.connect() as connection:
            for number in range(asked_before):
                assert outcome(connection, f"00000000-0000-0000-0000-0000000000{number:02}") == "unknown"
            found = BATCH_ROADS[0](connection, [Reading(sensor, START, 1.0) for sensor in (sensors[first], sensors[-1])])
        assert found.rejected == 0, first
