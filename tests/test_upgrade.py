"""Databases that earlier versions filled, brought forward: they must end like a fresh one, with every row."""

import gzip
from pathlib import Path

import pytest
from psycopg.errors import ObjectNotInPrerequisiteState

from cluster import Database

FIXTURES = Path(__file__).parent / "fixtures"
VERSIONS = ["0.1.0", "0.2.0"]

# Everything that belongs to the extension, by what it is and how it is defined.
MEMBERS = """
SELECT pg_describe_object(d.classid, d.objid, d.objsubid) || ' ' || COALESCE(
           CASE d.classid WHEN 'pg_proc'::regclass THEN
               (SELECT concat_ws(' ', p.prosrc, p.provolatile, p.proparallel, p.proisstrict, p.proconfig, p.proacl, p.prorows)
                  FROM pg_proc p WHERE p.oid = d.objid)
           WHEN 'pg_class'::regclass THEN
               (SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                                            pg_get_expr(f.adbin, f.adrelid)), ', ' ORDER BY a.attname)
                  FROM pg_attribute a LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
                 WHERE a.attrelid = d.objid AND a.attnum > 0 AND NOT a.attisdropped) END, '')
       || ' ' || COALESCE(obj_description(d.objid, c.relname), '')
  FROM pg_depend d JOIN pg_class c ON c.oid = d.classid
 WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
   AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'iot_ext')
 ORDER BY 1"""

# The tables of the user, with what hangs on them.
TABLES = """
SELECT concat_ws(' ', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                 pg_get_expr(f.adbin, f.adrelid), col_description(c.oid, a.attnum))
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef f ON f.adrelid = c.oid AND f.adnum = a.attnum
 WHERE c.relnamespace = 'iot'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
UNION ALL
SELECT concat_ws(' ', t.tgrelid::regclass, t.tgname, t.tgenabled, t.tgtype, t.tgfoid::regproc)
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
 WHERE NOT t.tgisinternal AND c.relnamespace = 'iot'::regnamespace AND NOT c.relispartition
UNION ALL
SELECT concat_ws(' ', i.indrelid::regclass, pg_get_indexdef(i.indexrelid))
  FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
 WHERE c.relnamespace = 'iot'::regnamespace AND NOT c.relispartition
 ORDER BY 1"""

# A row of the previous version, whatever columns came since.
ROWS = """SELECT sensor_id, measurement_timestamp, measurement_value, raw_value, anomaly_score, is_anomaly, data_id
            FROM iot.sensor_data ORDER BY 1, 2"""


@pytest.fixture(params=VERSIONS)
def upgraded(request, cluster):
    """A database restored from what an earlier version had filled."""
    version = request.param
    dump = gzip.decompress((FIXTURES / f"filled_by_{version}.sql.gz").read_bytes()).decode()
    created = "CREATE EXTENSION IF NOT EXISTS iot_ext WITH SCHEMA iot;"
    assert created in dump
    database = Database(cluster)
    try:
        database.psql(dump.replace(created, created.replace(";", f" VERSION '{version}';")))
        assert database.value("SELECT extversion FROM pg_extension WHERE extname = 'iot_ext'") == version
        yield database
    finally:
        database.drop()


def test_an_upgraded_database_is_like_a_fresh_one(bare_database, upgraded):
    before = upgraded.rows(ROWS)
    assert len(before) == 601
    upgraded.execute("ALTER EXTENSION iot_ext UPDATE")
    upgraded.execute("SELECT iot.setup()")
    bare_database.execute("SELECT iot.setup()")
    assert upgraded.rows(MEMBERS) == bare_database.rows(MEMBERS)
    assert upgraded.rows(TABLES) == bare_database.rows(TABLES)
    assert upgraded.rows(ROWS) == before


def test_what_was_filled_goes_on_working(upgraded):
    upgraded.execute("ALTER EXTENSION iot_ext UPDATE")
    upgraded.execute("SELECT iot.setup()")
    sensor = "00000000-0000-0000-0000-0000000000e2"
    stored = upgraded.value(f"SELECT data_id FROM iot.sensor_data WHERE sensor_id = '{sensor}' AND is_anomaly")
    again = upgraded.rows(f"SELECT data_id, is_duplicate"
                          f"  FROM iot.process_sensor_data_ex('{sensor}', 95, '{{}}', '2026-04-02 00:00+00')")
    assert again == [(stored, True)]
    totals = upgraded.rows(f"SELECT accepted, rejected"
                           f"  FROM iot.ingest(ARRAY['{sensor}'::uuid], ARRAY[now()], ARRAY[21.5])")
    assert totals == [(1, 0)]
    # The open alert of before counts on.
    upgraded.execute(f"SELECT iot.process_sensor_data('{sensor}', 99)")
    assert upgraded.value("SELECT occurrences FROM iot.alerts") == 2


@pytest.mark.parametrize("upgraded", ["0.1.0"], indirect=True)
def test_before_the_tables_are_brought_forward_the_functions_say_so(upgraded):
    upgraded.execute("ALTER EXTENSION iot_ext UPDATE")
    with pytest.raises(ObjectNotInPrerequisiteState) as caught:
        upgraded.execute("SELECT iot.process_sensor_data('00000000-0000-0000-0000-0000000000e2', 1)")
    assert "SELECT iot.setup()" in caught.value.diag.message_hint
