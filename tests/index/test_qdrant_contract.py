"""The contract over Qdrant: embedded in a folder, and through the client of a server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from m3_retrievers.index.qdrant.home import QdrantIndex
from m3_retrievers.testing import IndexContract

pytest.importorskip("qdrant_edge")
qdrant_client = pytest.importorskip("qdrant_client")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder in memory where there is one: hundreds of shards wait for the disk otherwise."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


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


class TestClient(IndexContract):
    """The client's local mode: the code path of a server, without one."""

    colbert_tolerance = 1e-3

    @pytest.fixture
    def client(self) -> Iterator[object]:
        client = qdrant_client.QdrantClient(":memory:")
        yield client
        client.close()

    @pytest.fixture
    def index(self, client) -> Iterator[QdrantIndex]:
        index = QdrantIndex(client)
        yield index
        index.close()

    @pytest.fixture
    def reopen(self, index, client) -> Callable[[], QdrantIndex]:
        return lambda: QdrantIndex(client)
