"""Whose connection and whose transaction: a caller's is never committed, ours always."""

import os
import threading

import numpy as np
import psycopg
import pytest
from psycopg.rows import dict_row
from scipy import sparse as sp

from m3_retrievers import PgVectorIndex
from m3_retrievers.errors import (
    DuplicateIdError,
    FilterError,
    IndexUnavailableError,
    InputError,
    SavedIndexError,
)
from m3_retrievers.testing.samples import question, records, represent
from m3_retrievers.types.hits import Record
from m3_retrievers.types.plan import Plan

pytestmark = pytest.mark.slow

PLAN = Plan()


@pytest.fixture
def connection(connect):
    return connect()


@pytest.fixture
def lent(connection, table):
    """An index on a caller's connection, its table committed."""
    index = PgVectorIndex(connection, table=table)
    connection.commit()
    return index


def seen_elsewhere(dsn, table):
    with PgVector(dsn, table) as other:
        return other.where(None)


class PgVector:
    """A handle by DSN that is closed at the end of a with."""

    def __init__(self, dsn, table, **options):
        self.index = PgVectorIndex(dsn, table=table, **options)

    def __enter__(self):
        return self.index

    def __exit__(self, *_):
        self.index.close()


# A caller's connection


def test_nothing_is_committed_for_the_caller(lent, connection, dsn, table):
    lent.add(records(3), represent(3))
    assert lent.search(question(), PLAN, k=3).hits
    lent.delete(["d01"])
    lent.bind({"name": "m", "fingerprint": "f"})
    assert seen_elsewhere(dsn, table) == []
    connection.commit()
    assert seen_elsewhere(dsn, table) == ["d00", "d02"]


def test_a_rollback_takes_everything_back(lent, connection):
    lent.add(records(3), represent(3))
    connection.commit()
    lent.upsert([Record("d00", "new")], represent(1))
    lent.delete(["d02"])
    lent.bind({"name": "m", "fingerprint": "f"}, extra={"a": 1})
    connection.rollback()
    assert lent.where(None) == ["d00", "d01", "d02"]
    assert lent.get(["d00"])[0].text == "text number 0"
    assert lent.bind({"name": "other", "fingerprint": "g"}) == {}


def test_documents_and_the_caller_s_rows_are_one_change(lent, connection, table, dsn):
    connection.execute(f"CREATE TABLE orders_{table} (document text, price int)")
    connection.commit()
    lent.add(records(3), represent(3))
    connection.execute(f"INSERT INTO orders_{table} VALUES ('d01', 7), ('d02', 9)")
    joined = connection.execute(
        f"SELECT d.id, d.metadata ->> 'number', price FROM {table} d "
        f"JOIN orders_{table} o ON o.document = d.id WHERE price > 8"
    )
    assert joined.fetchall() == [("d02", "2", 9)]
    connection.rollback()
    assert len(lent) == 0
    assert connection.execute(f"SELECT count(*) FROM orders_{table}").fetchone() == (0,)


def test_an_error_leaves_the_caller_s_transaction_as_it_was(lent, connection):
    connection.execute("CREATE TEMP TABLE mine (a int)")
    connection.execute("INSERT INTO mine VALUES (1)")
    lent.add(records(2), represent(2))
    for error, call in (
        (DuplicateIdError, lambda: lent._put(records(1), represent(1), replace=False)),
        (FilterError, lambda: lent.where({"a": {"$no": 1}})),
        (InputError, lambda: lent.search(question(), PLAN, k=0)),
        (InputError, lambda: lent._store.put(records(1), wide(), replace=True)),
    ):
        with pytest.raises(error):
            call()
    assert lent.where(None) == ["d00", "d01"]
    assert connection.execute("SELECT a FROM mine").fetchall() == [(1,)]


def wide():
    made = represent(1)
    return type(made)(dense=np.ones((1, 99), np.float32), sparse=made.sparse, colbert=made.colbert)


def test_a_transaction_that_failed_before_says_so(lent, connection):
    with pytest.raises(psycopg.Error):
        connection.execute("SELECT 1 / 0")
    with pytest.raises(IndexUnavailableError, match="Roll it back"):
        lent.where(None)
    connection.rollback()
    assert lent.where(None) == []


def test_a_table_whose_creation_was_rolled_back_is_missed(connection, table):
    index = PgVectorIndex(connection, table=table)
    connection.rollback()
    with pytest.raises(SavedIndexError, match="rolled back"):
        len(index)


def test_the_caller_s_settings_change_nothing(connect, table):
    connection = connect(autocommit=True, row_factory=dict_row, prepare_threshold=0)
    connection.execute(f'CREATE SCHEMA "Mine {table}"')
    connection.execute(f'SET search_path TO "Mine {table}"')
    index = PgVectorIndex(connection, table=f'odd "{table}"')
    for _ in range(3):
        index.upsert(records(5), represent(5))
        assert len(index.search(question(), PLAN, k=3, filter={"number": {"$gt": 0}}).hits) == 3
    assert index.vectors(["d01"]).dense.tolist() == represent(5).dense[1:2].tolist()
    [row] = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()")
    assert row == {"count": 2}


def test_an_index_may_live_in_a_schema(dsn, connect, table):
    connect(autocommit=True).execute(f"CREATE SCHEMA s_{table}")
    with (
        PgVector(dsn, "documents", schema=f"s_{table}") as one,
        PgVector(dsn, "documents", schema="public") as other,
    ):
        one.add(records(2), represent(2))
        assert (len(one), len(other)) == (2, 0)
        assert len(one.search(question(), PLAN, k=2).hits) == 2


def test_closing_leaves_the_caller_s_connection_open(lent, connection):
    lent.close()
    assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(IndexUnavailableError, match="closed"):
        lent.where(None)


def test_a_connection_that_was_closed_says_so(lent, connection):
    connection.close()
    with pytest.raises(IndexUnavailableError, match="closed"):
        lent.where(None)
    with pytest.raises(IndexUnavailableError, match="closed"):
        PgVectorIndex(connection)


def test_two_writers_in_long_transactions_take_turns(connect, dsn, table):
    """The second waits for the first to end, and then counts."""
    first, second = connect(), connect()
    one = PgVectorIndex(first, table=table)
    one.add(records(1, first=9), represent(1))
    first.commit()
    other = PgVectorIndex(second, table=table)
    one.upsert([Record("d", "first")], represent(1))
    waiting = threading.Thread(target=lambda: other.upsert([Record("d", "second")], represent(1)))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    first.commit()
    waiting.join(20)
    second.commit()
    with PgVector(dsn, table) as third:
        assert [record.text for record in third.get(["d"])] == ["second"]


# A DSN


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_has_connections_of_its_own(dsn, table):
    with PgVector(dsn, table) as index:
        index.add(records(3), represent(3))
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                index.add(records(1, first=7), represent(1))
                os.write(writer, str(len(index)).encode())
                index.close()
            finally:
                os._exit(0)
        os.close(writer)  # so that the end of a child that fails is the end of what is read
        assert os.read(reader, 10) == b"4"
        os.waitpid(child, 0)
        os.close(reader)
        # the parent's connection still answers
        assert len(index.search(question(), PLAN, k=9).hits) == 4


def test_more_threads_than_connections_all_get_an_answer(dsn, table, connection):
    with PgVector(dsn, table) as index:
        index.add(records(5), represent(5))
        found, at_once = [], threading.Barrier(20)

        def ask():
            at_once.wait()
            found.append(len(index.search(question(), PLAN, k=3).hits))

        threads = [threading.Thread(target=ask) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [3] * 20
        open_now = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid()",
            [f"%{table}%"],
        )
        assert 1 <= open_now.fetchone()[0] <= 8


def test_a_snapshot_is_one_state(dsn, table):
    with PgVector(dsn, table) as index, PgVector(dsn, table) as other:
        index.add(records(2), represent(2))
        with index.snapshot():
            before = index.where(None)
            other.delete(["d00"])
            assert index.where(None) == before
            assert len(index.search(question(), PLAN, k=9).hits) == 2
        assert index.where(None) == ["d01"]


def test_an_index_that_is_dropped_closes_its_connections(dsn, table):
    index = PgVectorIndex(dsn, table=table)
    [kept] = index._store.session._pool.idle
    del index
    assert kept.closed


# What pgvector holds


def test_a_text_may_have_no_more_terms_than_the_type_takes(dsn, table):
    width = 20_000
    with PgVector(dsn, table, modes=["sparse"]) as index:
        for terms, fits in ((16_000, True), (16_001, False)):
            row = sp.csr_array((np.ones(terms), (np.zeros(terms, int), range(terms))), (1, width))
            made = type(represent(1))(sparse=sp.csr_array(row.astype(np.float32)))
            if fits:
                index.add([Record("d", "")], made)
                continue
            with pytest.raises(InputError, match="16,000"):
                index.add([Record("more", "")], made)
        assert index.where(None) == ["d"]


def test_a_vocabulary_of_bge_m3_fits(dsn, table):
    """Columns count from 1 in the table and from 0 here; the last one is a piece of the model."""
    width = 250_002
    weights = sp.csr_array(([0.25, 0.5, 2.0], ([0, 0, 1], [0, width - 1, width - 1])), (2, width))
    made = type(represent(1))(sparse=sp.csr_array(weights.astype(np.float32)))
    asked = type(question())("q", made[1:])
    with PgVector(dsn, table, modes=["sparse"]) as index, psycopg.connect(dsn) as connection:
        index.add([Record("a", ""), Record("b", "")], made)
        kept = index.vectors(["a", "b"]).sparse
        assert (kept != made.sparse).nnz == 0
        assert kept.shape == (2, width)
        ranking = index.recall(asked, "sparse", k=5)
        assert (ranking.ids, ranking.scores.tolist()) == (("b", "a"), [4.0, 1.0])
        shown = connection.execute(f"SELECT sparse::text FROM {table} WHERE id = 'a'").fetchone()
        assert shown == ("{1:0.25,250002:0.5}/250002",)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_colbert_keeps_the_precision_it_is_made_with(dsn, table, dtype):
    made = represent(5)
    with PgVector(dsn, table, colbert_dtype=dtype) as index:
        index.add(records(5), made)
        kept = index.vectors(["d03"]).colbert
        assert kept.vectors.dtype == dtype
        assert kept.vectors.tolist() == made.colbert[3].astype(dtype).tolist()
    with PgVector(dsn, table) as again:
        assert again.vectors(["d03"]).colbert.vectors.dtype == dtype
    with pytest.raises(SavedIndexError, match="colbert_dtype"):
        PgVectorIndex(
            dsn, table=table, colbert_dtype="float32" if dtype == "float16" else "float16"
        )
