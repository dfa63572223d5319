"""A database for each process of the tests, and tables in it."""

import os
from itertools import count

import pytest

import postgres

NAMES = count()
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")


@pytest.fixture(scope="session")
def server():
    if not postgres.installed():
        pytest.skip(postgres.MISSING)
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    with postgres.shared(run) as made:
        yield made


@pytest.fixture(scope="session")
def dsn(server):
    """A DSN of a database with pgvector."""
    import psycopg

    name = f"tests_{WORKER}"
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    with psycopg.connect(server.dsn(name), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
    return server.dsn(name)


@pytest.fixture
def table():
    """The name of a table that no other test has, in any process: the server is one."""
    return f"documents_{WORKER}_{next(NAMES)}"


@pytest.fixture
def connect(dsn):
    """Return a function that connects as a user of the package would; closed afterwards."""
    import psycopg

    made = []

    def connect(**options):
        made.append(psycopg.connect(options.pop("dsn", dsn), **options))
        return made[-1]

    yield connect
    for one in made:
        one.close()
