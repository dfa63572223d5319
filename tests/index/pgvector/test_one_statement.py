"""A hybrid search is one statement: counted in the server's own log."""

import re
import time

import pytest

from m3_retrievers import PgVectorIndex, ReciprocalRankFusion
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.testing.agreement import same_hits
from m3_retrievers.testing.samples import COUNT, question, records, represent
from m3_retrievers.types.plan import HybridWeights, Plan, Recall

pytestmark = pytest.mark.slow

PLANS = {
    "all": Plan(recall=Recall(dense=5, lexical=4)),
    "everything": Plan(recall=Recall.everything()),
    "without ColBERT": Plan(weights=HybridWeights(dense=1, sparse=0.3, colbert=0)),
    "one leg": Plan(legs=("sparse",), recall=Recall(lexical=3)),
    "a leg that does not count": Plan(weights=HybridWeights(dense=1, sparse=0, colbert=0)),
}


@pytest.fixture
def counted(dsn, server, table):
    """An index whose every statement the server logs, and a function that reads them."""
    name = f"m3_{table}"
    logged = f"{dsn} application_name={name} options='-c log_statement=all'"
    index = PgVectorIndex(logged, table=table)
    log = server.folder / "log"

    def statements(call):
        before = log.stat().st_size
        result = call()
        with log.open("rb") as file:
            file.seek(before)
            lines = file.read().decode()
        return result, re.findall(
            rf"^{name}\|LOG:  (?:statement|execute .*?):\s+(\w+)", lines, re.M
        )

    yield index, statements
    index.close()


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("filter", [None, {"even": True, "tags": {"$itext": "TAG"}}], ids=str)
def test_a_hybrid_search_is_one_statement_with_the_same_hits(counted, name, filter):
    index, statements = counted
    reference = LocalIndex(colbert_dtype="float16")
    for one in (index, reference):
        one.add(records(COUNT), represent(COUNT))
    plan = PLANS[name]
    found, said = statements(
        lambda: index.search(question(), plan, k=7, filter=filter, ids=list(index.ids)[3:])
    )
    assert said == ["SELECT", "WITH"], "the ids, and the search"
    ids = list(reference.ids)[3:]
    expected = reference.search(question(), plan, k=COUNT, filter=filter, ids=ids)
    bounds = dict.fromkeys(("dense", "sparse", "colbert", "hybrid", "fusion"), 1e-5)
    same_hits(found.hits, expected.hits, k=7, plan=plan, tolerances=bounds)
    assert [hit.ranks for hit in found.hits] == [hit.ranks for hit in expected.hits[:7]]
    recalled = {leg: ranking.ids for leg, ranking in found.rankings.items()}
    assert recalled == {leg: ranking.ids for leg, ranking in expected.rankings.items()}


def test_the_count_counts(counted):
    """A fusion is searched as it is defined: a recall a leg, in one transaction."""
    index, statements = counted
    index.add(records(COUNT), represent(COUNT))
    index.recall(question(), "dense", k=1)  # and the widths are known
    plan = Plan(fusion=ReciprocalRankFusion())
    _, said = statements(lambda: index.search(question(), plan, k=5))
    assert said == ["BEGIN", "SELECT", "SELECT", "SELECT", "COMMIT"]
    _, said = statements(lambda: index.search(question(), Plan(), k=5))
    assert said == ["WITH"]


def test_an_hnsw_index_answers_the_dense_leg_where_it_may(counted, connect, dsn, table):
    index, _ = counted
    index.add(records(COUNT), represent(COUNT))
    index.create_hnsw(m=8, ef_construction=40)
    index.create_hnsw()  # there is one
    exact = index.recall(question(), "dense", k=5)
    scans = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = %s"
    connection = connect(autocommit=True)
    connection.execute(f"ANALYZE {table}")

    def used(index, *, patience):
        connection.execute("SELECT pg_stat_clear_snapshot()")
        before = connection.execute(scans, [f"{table}_hnsw"]).fetchone()[0]
        near = index.recall(question(), "dense", k=5)
        index.search(question(), Plan(), k=5)
        index.close()  # its backend reports what it counted when it ends, which takes a moment
        until = time.monotonic() + patience
        while True:
            connection.execute("SELECT pg_stat_clear_snapshot()")
            count = connection.execute(scans, [f"{table}_hnsw"]).fetchone()[0] - before
            if count or time.monotonic() > until:
                return near, count
            time.sleep(0.1)

    # so few rows are scanned faster than an index: the planner is told not to
    approximate = PgVectorIndex(
        f"{dsn} options='-c enable_seqscan=off -c enable_sort=off'", table=table, approximate=True
    )
    near, count = used(approximate, patience=30)
    assert count > 0
    assert near.ids == exact.ids  # of 40 documents all are seen
    assert near.scores.tolist() == exact.scores.tolist()
    again, count = used(
        PgVectorIndex(f"{dsn} options='-c enable_seqscan=off -c enable_sort=off'", table=table),
        patience=1,
    )
    assert count == 0
    assert again.ids == exact.ids
