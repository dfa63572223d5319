"""The contract over Milvus Lite, for real: its server runs in this process, over gRPC."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from milvus_lite import server_manager_instance

from m3_retrievers.index import MilvusIndex
from m3_retrievers.testing import IndexContract

# 250 collections are made and dropped: about a minute of a processor
pytestmark = pytest.mark.slow

NUMBERS = count()


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One file for all tests, with its server up: each test has a collection of its own."""
    path = str(tmp_path_factory.mktemp("milvus") / "m.db")
    keeper = MilvusIndex(path)
    yield path
    keeper.close()


class TestMilvusLite(IndexContract):
    colbert_tolerance = 1e-3  # float16
    timeout = 6.0

    @pytest.fixture
    def collection(self) -> str:
        return f"documents_{next(NUMBERS)}"

    @pytest.fixture
    def index(self, lite: str, collection: str) -> Iterator[MilvusIndex]:
        index = MilvusIndex(lite, collection=collection)
        yield index
        index.close()

    @pytest.fixture
    def reopen(self, index: MilvusIndex, lite: str, collection: str) -> Callable[[], MilvusIndex]:
        return lambda: MilvusIndex(lite, collection=collection)

    @pytest.fixture
    def unreachable(self, tmp_path: Path) -> Iterator[MilvusIndex]:
        path = str(tmp_path / "m.db")
        index = MilvusIndex(path, timeout=1.0)
        server_manager_instance.release_server(path)
        yield index
        index.close()
