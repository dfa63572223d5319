"""The contract over Qdrant: embedded in a folder, and through the client of a server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from m3_retrievers.index.local import LocalIndex
from m3_retrievers.index.qdrant.home import QdrantIndex
from m3_retrievers.testing import IndexContract
from m3_retrievers.testing.keeping import KeepsRecords
from m3_retrievers.testing.lasting import Lasts
from m3_retrievers.testing.samples import COUNT, question, records, represent
from m3_retrievers.types.plan import Plan, Recall

pytest.importorskip("qdrant_edge")
qdrant_client = pytest.importorskip("qdrant_client")

from qdrant_rest import RestQdrant  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder in memory where there is one: hundreds of shards would wait for the disk."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@pytest.mark.slow  # each is quick; together they take 20 seconds
class TestEmbedded(IndexContract):
    colbert_tolerance = 1e-3  # float16, as LocalIndex keeps them
    two_handles = False

    @pytest.fixture
    def index(self, folder) -> Iterator[QdrantIndex]:
        index = QdrantIndex(folder)
        yield index
        index.close()

    @pytest.fixture
    def reopen(self, index, folder) -> Callable[[], QdrantIndex]:
        return lambda: QdrantIndex(folder)


@pytest.mark.slow
class TestServer(KeepsRecords, Lasts):
    """A server's requests and answers, its engine the client's local mode.

    What its searches send and find is in ``test_qdrant_requests``; what a filter admits is decided
    by the clauses that it becomes, which are the same for both engines.
    """

    colbert_tolerance = 1e-3

    @pytest.fixture
    def server(self) -> RestQdrant:
        return RestQdrant()

    @pytest.fixture
    def index(self, server) -> QdrantIndex:
        return QdrantIndex(server.client())

    @pytest.fixture
    def reopen(self, index, server) -> Callable[[], QdrantIndex]:
        return lambda: QdrantIndex(server.client())

    @pytest.fixture
    def unreachable(self, server, filled) -> QdrantIndex:
        server.gone = True
        return filled


def test_the_local_mode_of_a_client_is_an_engine_too():
    client = qdrant_client.QdrantClient(":memory:")
    index, exact = QdrantIndex(client), LocalIndex()
    for one in (index, exact):
        one.add(records(COUNT), represent(COUNT))
    filter = {"$or": [{"tags": "tag1"}, {"number": {"$gte": 30}}]}
    plan = Plan(recall=Recall(dense=9, lexical=9))
    found, expected = (
        one.search(question(), plan, k=5, filter=filter).hits for one in (index, exact)
    )
    assert [hit.id for hit in found] == [hit.id for hit in expected]
    assert [hit.ranks for hit in found] == [hit.ranks for hit in expected]
    index.close()
    assert client.count("m3_retrievers").count == COUNT, "the caller's client stays open"
    client.close()
