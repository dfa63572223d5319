"""PgVectorIndex keeps the contract of every index, over a DSN and on a caller's connection."""

import psycopg
import pytest

import postgres
from m3_retrievers import PgVectorIndex
from m3_retrievers.testing import IndexContract
from m3_retrievers.testing.samples import records, represent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def emptied(dsn):
    """Return a function that empties the table of a name and its note.

    A table is kept from test to test: to make one takes longer than most of them.
    """
    with psycopg.connect(dsn, autocommit=True) as connection:

        def emptied(name):
            PgVectorIndex(connection, table=name)
            connection.execute(f"DELETE FROM {name}_note WHERE name <> 'make'")
            connection.execute(f"DELETE FROM {name}")
            return connection

        yield emptied


class TestOverADsn(IndexContract):
    tolerance = 1e-5
    colbert_tolerance = 1e-3  # float16

    @pytest.fixture
    def index(self, dsn, emptied):
        emptied("by_dsn")
        index = PgVectorIndex(dsn, table="by_dsn")
        yield index
        index.close()

    @pytest.fixture
    def reopen(self, dsn):
        return lambda: PgVectorIndex(dsn, table="by_dsn")

    @pytest.fixture
    def unreachable(self, dsn):
        with postgres.server() as server:
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                connection.execute("CREATE EXTENSION vector")
            index = PgVectorIndex(server.dsn())
            index.add(records(3), represent(3))
            server.stop()
            yield index
            index.close()


@pytest.mark.slow
class TestOnACallersConnection(IndexContract):
    """In one transaction of the caller's, which is rolled back at the end."""

    tolerance = 1e-5
    colbert_tolerance = 1e-3  # float16

    @pytest.fixture
    def connection(self, dsn, emptied):
        emptied("by_connection")
        with psycopg.connect(dsn) as connection:
            yield connection
            connection.rollback()

    @pytest.fixture
    def index(self, connection):
        return PgVectorIndex(connection, table="by_connection")

    @pytest.fixture
    def reopen(self, connection):
        return lambda: PgVectorIndex(connection, table="by_connection")
