"""Plain SQL with its expected output, as pg_regress does it: tests/pg_regress/sql/NAME.sql, expected/NAME.out.

A file that says CREATE EXTENSION gets an empty database, any other one with the extension and its tables in it.
Where PostgreSQL 18 answers differently, expected/NAME_18.out takes the place of NAME.out.
"""

from pathlib import Path

import pytest

from cluster import Database
from golden import compare

HERE = Path(__file__).parent / "pg_regress"
SCRIPTS = sorted((HERE / "sql").glob("*.sql"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_sql(script, cluster):
    database = Database(cluster)
    try:
        if "create extension" not in script.read_text(encoding="utf-8").lower():
            database.psql("CREATE EXTENSION iot_ext; SELECT iot.setup();")
        got = cluster.psql_transcript(script, database.name)
    finally:
        database.drop()
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / f"{script.stem}.out").write_text(got, encoding="utf-8")
    compare(got, HERE / "expected" / f"{script.stem}.out", cluster.major)


def test_no_expected_output_without_its_script():
    names = {path.stem for path in SCRIPTS}
    orphans = [
        path.name for path in sorted((HERE / "expected").glob("*.out"))
        if path.stem not in names and path.stem.rpartition("_")[0] not in names
    ]
    assert orphans == []
