"""Fixtures that every test shares: a server that runs for the whole session, and fresh databases in it."""

import pytest

from cluster import Cluster, Database


@pytest.fixture(scope="session")
def cluster():
    """The server that most tests use, with the extension preloaded. Whoever breaks a server makes a `Cluster` of his own."""
    with Cluster() as running:
        yield running


@pytest.fixture(scope="session")
def unloaded_cluster():
    """A server that does not preload the extension: everything must work there too."""
    with Cluster(preload=False) as running:
        yield running


@pytest.fixture
def bare_database(cluster):
    """A fresh database with the extension but without its tables: nobody has called `setup()`."""
    fresh = Database(cluster)
    try:
        fresh.execute("CREATE EXTENSION iot_ext")
        yield fresh
    finally:
        fresh.drop()


@pytest.fixture
def database(bare_database):
    """A fresh database with the extension and its tables."""
    bare_database.execute("SELECT iot.setup()")
    return bare_database
