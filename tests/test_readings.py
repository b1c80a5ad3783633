"""The stream road on a real server: COPY into iot.readings and iot.raw_readings."""

import psycopg
import pytest

from documents import ROOT, sql_blocks
from factory import add_rule, add_sensor

ROLE = "factory_ingest"
UNKNOWN = "00000000-0000-0000-0000-000000000001"
COLUMNS = "(sensor_id, measurement_timestamp, measurement_value)"


@pytest.fixture
def ingest_role(database):
    """The role of README's GRANTs, taken from README itself."""
    (grants,) = [block.text for block in sql_blocks(ROOT / "README.md") if f"CREATE ROLE {ROLE}" in block.text]
    database.psql(grants)
    yield ROLE
    database.execute(f"DROP OWNED BY {ROLE}")
    database.execute(f"DROP ROLE {ROLE}")


def copy(connection, table, lines, columns=COLUMNS):
    with connection.cursor() as cursor, cursor.copy(f"COPY {table} {columns} FROM STDIN (FORMAT csv)") as stream:
        for line in lines:
            stream.write(line + "\n")


def stored(database):
    return database.value("SELECT count(*) FROM iot.sensor_data")


def test_copy_with_psql(database):
    _, sensor = add_sensor(database)
    lines = "\n".join(f"{sensor},2026-01-05 12:{minute:02}:00+00,{minute}" for minute in range(60))
    database.psql(f"COPY iot.readings {COLUMNS} FROM STDIN (FORMAT csv);\n{lines}\n{UNKNOWN},,1\n\\.\n")
    assert database.row("SELECT count(*), sum(measurement_value) FROM iot.sensor_data") == (60, 1770)
    assert database.row("SELECT reason, sqlstate, device_id FROM iot.rejected_readings") == (
        "unknown_sensor", "42704", None)


def test_copied_readings_meet_the_rules(database):
    _, sensor = add_sensor(database)
    add_rule(database)
    copy(database.connection, "iot.readings", [f"{sensor},,90", f"{sensor},,20"])
    assert database.value("SELECT count(*) FROM iot.alerts") == 1


@pytest.mark.parametrize("before", [3, 12_000])
@pytest.mark.parametrize("ending", ["malformed line", "client error", "cancelled"])
def test_rows_of_an_aborted_copy_appear_nowhere(database, before, ending):
    """Aborted before the first batch was stored, and after it."""
    _, sensor = add_sensor(database)
    # Rejected ones are quick and travel in the same batches.
    lines = [f"{UNKNOWN},2026-01-05 12:00+00,{row}" for row in range(before)] + [f"{sensor},2026-01-05 12:00+00,1"]
    with database.connect() as connection:
        if ending == "malformed line":
            with pytest.raises(psycopg.errors.InvalidTextRepresentation):
                copy(connection, "iot.readings", [*lines, f"{sensor},2026-01-05 12:01+00,warm"])
        elif ending == "client error":
            with pytest.raises(psycopg.errors.QueryCanceled):
                with connection.cursor() as cursor:
                    with cursor.copy(f"COPY iot.readings {COLUMNS} FROM STDIN (FORMAT csv)") as stream:
                        stream.write("\n".join(lines) + "\n")
                        raise_client_error()
        else:
            with connection.transaction() as transaction:
                copy(connection, "iot.readings", lines)
                raise psycopg.Rollback(transaction)
        assert (stored(database), database.value("SELECT count(*) FROM iot.rejected_readings")) == (0, 0)
        copy(connection, "iot.readings", [f"{sensor},2026-01-05 13:00+00,2"])
    assert database.rows("SELECT measurement_value FROM iot.sensor_data") == [(2,)]
    assert database.value("SELECT count(*) FROM iot.rejected_readings") == 0


def raise_client_error():
    """What a gateway does that loses its source in the midst of a COPY."""
    raise psycopg.errors.QueryCanceled


def test_a_savepoint_takes_its_copy_back(database):
    _, sensor = add_sensor(database)
    with database.connect(autocommit=False) as connection:
        copy(connection, "iot.readings", [f"{sensor},2026-01-05 12:00+00,1"])
        with pytest.raises(psycopg.errors.InvalidTextRepresentation), connection.transaction():
            copy(connection, "iot.readings", [f"{sensor},2026-01-05 12:01+00,2", f"{sensor},2026-01-05 12:02+00,x"])
        copy(connection, "iot.readings", [f"{sensor},2026-01-05 12:03+00,3"])
        connection.commit()
    assert database.rows("SELECT measurement_value FROM iot.sensor_data ORDER BY 1") == [(1,), (3,)]


def test_raw_copy_isolates_malformed_rows(database):
    _, sensor = add_sensor(database)
    copy(database.connection, "iot.raw_readings", [
        f"{sensor},2026-01-05T12:00:00Z,1", f"{sensor},2026-01-05T12:01:00Z,warm", "sensor,2026-01-05T12:02:00Z,3",
        f"{sensor},tomorrow morning,4", f"{sensor},2026-01-05T12:04:00+01:00,5"])
    assert database.rows("SELECT measurement_value FROM iot.sensor_data ORDER BY 1") == [(1,), (5,)]
    assert database.rows("SELECT reason, sqlstate, reading FROM iot.rejected_readings ORDER BY rejection_id") == [
        ("malformed", "22P02", {
            "sensor_id": str(sensor), "measurement_timestamp": "2026-01-05T12:01:00Z", "measurement_value": "warm"}),
        ("malformed", "22P02", {
            "sensor_id": "sensor", "measurement_timestamp": "2026-01-05T12:02:00Z", "measurement_value": "3"}),
        ("malformed", "22007", {
            "sensor_id": str(sensor), "measurement_timestamp": "tomorrow morning", "measurement_value": "4"}),
    ]


def test_memory_stays_flat(database):
    """180,000 readings, most of them rejected, because that is quick: both ways go through the same buffer. What the C library
    keeps for itself once the buffer has been full does not count."""
    _, sensor = add_sensor(database)

    def lines(start, count):
        for row in range(start, start + count):
            which = sensor if row % 20 == 0 else UNKNOWN
            at = f"2026-01-{1 + row // 86_400 % 28:02}T{row // 3600 % 24:02}:{row // 60 % 60:02}:{row % 60:02}"
            yield f"{which},{at}{'' if row % 100 == 1 else 'Z'},{row},\"{{\"\"note\"\": \"\"{row}\"\"}}\""

    with database.connect() as connection:
        def resident():
            with open(f"/proc/{connection.info.backend_pid}/status", encoding="ascii") as status:
                (kilobytes,) = [int(line.split()[1]) for line in status if line.startswith("RssAnon")]
            return kilobytes

        columns = COLUMNS[:-1] + ", measurement_metadata)"
        copy(connection, "iot.raw_readings", lines(0, 20_000), columns)
        copy(connection, "iot.raw_readings", lines(20_000, 80_000), columns)
        before = resident()
        copy(connection, "iot.raw_readings", lines(100_000, 80_000), columns)
        assert resident() - before < 10_000, f"{before} kB became {resident()} kB"
    assert stored(database) == 9_000
    assert database.value("SELECT count(*) FROM iot.rejected_readings") == 171_000


def test_failed_statements_give_their_memory_back(database):
    """Readings that were held back when their statement failed are dropped with it."""
    with database.connect() as connection:
        for _ in range(60):
            with pytest.raises(psycopg.errors.DivisionByZero):
                connection.execute(
                    "INSERT INTO iot.readings (text_value, measurement_value)"
                    " SELECT repeat('x', 1000000), 1 / (10 - row) FROM generate_series(1, 10) row")
        with open(f"/proc/{connection.info.backend_pid}/status", encoding="ascii") as status:
            (resident,) = [int(line.split()[1]) for line in status if line.startswith("RssAnon")]
        assert resident < 100_000, f"{resident} kB after 540 MB in failed statements"


def test_readmes_role_may_copy(database, ingest_role):
    _, sensor = add_sensor(database)
    with database.connect(ingest_role) as connection:
        copy(connection, "iot.readings", [f"{sensor},2023-02-03 00:00+00,1", f"{UNKNOWN},,2"])
        copy(connection, "iot.raw_readings", [f"{sensor},2023-02-03 01:00+00,1", f"{sensor},,warm"])
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            connection.execute("SELECT * FROM iot.readings")
    assert stored(database) == 2
    assert database.value("SELECT count(*) FROM iot.rejected_readings") == 2


@pytest.mark.parametrize("missing", ["iot.readings", "iot.sensor_data", "iot.sensors"])
def test_a_missing_privilege_fails_the_copy(database, ingest_role, missing):
    _, sensor = add_sensor(database)
    database.execute(f"REVOKE ALL ON {missing} FROM {ingest_role}")
    with database.connect(ingest_role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        copy(connection, "iot.readings", [f"{sensor},2026-01-05 12:00+00,1"])
    assert stored(database) == 0


def test_rejecting_needs_its_own_privilege(database, ingest_role):
    database.execute(f"REVOKE ALL ON iot.rejected_readings FROM {ingest_role}")
    with database.connect(ingest_role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        copy(connection, "iot.readings", [f"{UNKNOWN},2026-01-05 12:00+00,1"])


def test_row_security_of_readings_holds(database, ingest_role):
    _, sensor = add_sensor(database)
    database.execute("ALTER TABLE iot.sensor_data ENABLE ROW LEVEL SECURITY")
    database.execute("CREATE POLICY readable ON iot.sensor_data FOR SELECT USING (true)")
    database.execute("CREATE POLICY plausible ON iot.sensor_data FOR INSERT WITH CHECK (measurement_value < 100)")
    with database.connect(ingest_role) as connection:
        copy(connection, "iot.readings", [f"{sensor},2026-01-05 12:00+00,1"])
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            copy(connection, "iot.readings", [f"{sensor},2026-01-05 12:01+00,101"])
    assert stored(database) == 1


def test_a_dump_holds_the_tables_once_and_no_rows(database):
    _, sensor = add_sensor(database)
    copy(database.connection, "iot.readings", [f"{sensor},2026-01-05 12:00+00,1"])
    dump = database.cluster.pg_dump(database.name)
    assert "FOREIGN TABLE" not in dump and "CREATE SERVER" not in dump


def test_a_query_that_inserts_is_done_when_its_transaction_is(database):
    """Its portal may stay open until then, without a snapshot."""
    _, sensor = add_sensor(database)
    with database.connect(autocommit=False) as connection:
        connection.execute(
            "WITH w AS (INSERT INTO iot.readings VALUES (%s, now(), 1)) SELECT %s", (sensor, 1), prepare=True)
        connection.commit()
    assert stored(database) == 1


@pytest.mark.parametrize("table", ["readings", "raw_readings"])
@pytest.mark.parametrize("statement", ["COPY iot.{} TO STDOUT", "COPY {} TO STDOUT", "COPY iot.{} (sensor_id) TO STDOUT (FORMAT csv)"])
def test_a_copy_out_says_where_readings_are(database, table, statement):
    database.execute("SET search_path = iot")
    with pytest.raises(psycopg.errors.WrongObjectType) as raised:
        with database.connection.cursor().copy(statement.format(table)):
            pass
    diagnosis = raised.value.diag
    assert diagnosis.message_primary == f'cannot copy from foreign table "{table}"'
    assert diagnosis.message_detail and "iot.sensor_data" in diagnosis.message_hint
    # Other tables go their way.
    for other in ("COPY iot.sensors TO STDOUT", "COPY (SELECT 1) TO STDOUT"):
        with database.connection.cursor().copy(other) as stream:
            list(stream)
    with pytest.raises(psycopg.errors.UndefinedTable), database.connection.cursor().copy("COPY iot.nothing TO STDOUT"):
        pass


def test_strict_says_which_column_cannot_be_read(database):
    _, sensor = add_sensor(database)
    database.execute("SET iot_ext.strict = on")
    for column, text, sqlstate in [
            ("measurement_value", "61,5", "22P02"), ("measurement_value", "1e999", "22003"),
            ("measurement_timestamp", "noon-ish", "22007"), ("boolean_value", "perhaps", "22P02"),
            ("measurement_metadata", "{", "22P02"), ("json_value", "{", "22P02")]:
        with pytest.raises(psycopg.DataError) as raised:
            database.execute(f"INSERT INTO iot.raw_readings (sensor_id, {column}) VALUES (%s, %s)", (str(sensor), text))
        diagnosis = raised.value.diag
        assert diagnosis.sqlstate == sqlstate, column
        assert column in diagnosis.message_detail and diagnosis.message_hint, column
    with pytest.raises(psycopg.DataError) as raised:
        database.execute("INSERT INTO iot.raw_readings (sensor_id, measurement_value) VALUES ('probe', '1')")
    assert "sensor_id" in raised.value.diag.message_detail and "iot_ext.strict" in raised.value.diag.message_hint
