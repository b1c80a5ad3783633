"""Every SQL block of README and docs/ runs, in order, in one database per document, and prints what the document says."""

import pytest

from cluster import Database
from documents import ROOT, sql_blocks

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def squeezed(text):
    """Without the spacing and the rule line, by which psql fits a table to its widest cell."""
    lines = [line for line in text.splitlines() if line.strip() and not set(line.strip()) <= set("-+")]
    return [[cell.strip() for cell in line.split("|")] for line in lines]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_sql_blocks_run(cluster, document):
    blocks = sql_blocks(document)
    database = Database(cluster)
    try:
        if document.name != "README.md":
            # README tells how to start; the reference assumes that its five minutes have been spent.
            for block in sql_blocks(ROOT / "README.md"):
                database.psql(block.text)
            cluster.psql("REASSIGN OWNED BY factory_ingest TO postgres; DROP OWNED BY factory_ingest", database.name)
            cluster.psql("DROP ROLE factory_ingest")
        for block in blocks:
            printed = database.psql(block.text, "postgres", "-P", "footer=off").stdout
            if block.output is not None:
                assert squeezed(printed) == squeezed(block.output), str(block)
    finally:
        if database.rows("SELECT 1 FROM pg_roles WHERE rolname = 'factory_ingest'"):
            database.execute("DROP OWNED BY factory_ingest")
            database.execute("DROP ROLE factory_ingest")
        database.drop()
    assert blocks or document.name != "README.md"
