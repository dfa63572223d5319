"""The same 300 documents in every home: the same first ten, filtered or not, and copied."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

import postgres
from m3_retrievers.index import LocalIndex, copy
from m3_retrievers.index import open as open_index
from m3_retrievers.testing import samples
from m3_retrievers.testing.agreement import same_hits
from m3_retrievers.types.plan import Plan

COUNT = 300
QUERIES = 5
HOMES = ("durable", "qdrant", "postgresql", "milvus")
# what float16 vectors, dense ones too in Qdrant, may move a score, and a hybrid of three
BOUNDS = {"dense": 1e-3, "sparse": 1e-3, "colbert": 1e-3, "hybrid": 3e-3}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def local() -> LocalIndex:
    index = LocalIndex(colbert_dtype="float32")
    index.add(samples.records(COUNT), samples.represent(COUNT))
    return index


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    folder = tmp_path_factory.mktemp("homes")
    places = {
        "durable": str(folder / "documents.m3"),
        "qdrant": f"qdrant:{folder / 'data'}",
        "milvus": f"milvus:{folder / 'm.db'}",
    }
    with ExitStack() as running:

        @cache
        def of(home: str) -> str:
            if home in places:
                return places[home]
            if not postgres.installed():
                pytest.skip(postgres.MISSING)
            import psycopg

            run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
            server = running.enter_context(postgres.shared(run))
            name = f"homes_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}")
            with psycopg.connect(server.dsn(name), autocommit=True) as connection:
                connection.execute("CREATE EXTENSION vector")
            return f"postgresql:///{name}?host={server.folder}&user=postgres"

        yield of


@pytest.mark.parametrize("home", HOMES)
def test_the_first_ten_are_the_same(home, address, local):
    assert copy(local, address(home), batch_size=100) == COUNT
    index = open_index(address(home), create=False)
    plan = Plan()
    try:
        assert len(index) == COUNT
        for seed in range(QUERIES):
            query = samples.question(seed=100 + seed)
            for filter in (None, {"even": True, "number": {"$lt": 200}}):
                found = index.search(query, plan, k=10, filter=filter).hits
                exact = local.search(query, plan, k=COUNT, filter=filter).hits
                same_hits(found, exact, k=10, plan=plan, tolerances=BOUNDS)
                assert len(found) == 10
    finally:
        index.close()
