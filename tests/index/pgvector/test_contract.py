"""PgVectorIndex keeps the contract of every index, over a DSN and on a caller's connection."""

import psycopg
import pytest

from m3_retrievers import PgVectorIndex
from m3_retrievers.testing import IndexContract


def emptied(dsn, name, **options):
    """Return an index over the table of that name, without a document and a note.

    The table is kept from test to test: to make one takes longer than most tests.
    """
    index = PgVectorIndex(dsn, table=name, **options)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"DELETE FROM {name}")
        connection.execute(f"DELETE FROM {name}_note WHERE name <> 'make'")
    return index


class TestOverADsn(IndexContract):
    tolerance = 1e-5
    colbert_tolerance = 1e-3  # float16

    @pytest.fixture
    def index(self, dsn):
        index = emptied(dsn, "by_dsn")
        yield index
        index.close()

    @pytest.fixture
    def reopen(self, dsn):
        return lambda: PgVectorIndex(dsn, table="by_dsn")
