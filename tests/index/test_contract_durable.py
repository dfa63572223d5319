"""The contract over DurableIndex, its token vectors on disk and in memory."""

import pytest

from m3_retrievers.index.durable.index import DurableIndex
from m3_retrievers.testing import IndexContract
from m3_retrievers.testing.searching import Searches

pytestmark = pytest.mark.slow


class TestDurableIndex(IndexContract):
    tolerance = 1e-6
    colbert_tolerance = 1e-3  # float16

    @pytest.fixture
    def index(self, tmp_path):
        with DurableIndex(tmp_path / "my.index") as index:
            yield index

    @pytest.fixture
    def reopen(self, index, tmp_path):
        return lambda: DurableIndex(tmp_path / "my.index")


class TestDurableIndexInMemory(Searches):
    tolerance = 1e-6
    colbert_tolerance = 1e-3

    @pytest.fixture
    def index(self, tmp_path):
        with DurableIndex(tmp_path / "my.index", colbert="memory") as index:
            yield index
