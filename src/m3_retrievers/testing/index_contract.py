"""What every index has to do, as tests: for the package's own, and for whoever writes another."""

from __future__ import annotations

from m3_retrievers.testing.filtering import Filters
from m3_retrievers.testing.keeping import KeepsRecords
from m3_retrievers.testing.lasting import Lasts
from m3_retrievers.testing.refusing import Refuses
from m3_retrievers.testing.searching import Searches


class IndexContract(KeepsRecords, Searches, Filters, Refuses, Lasts):
    """The tests of an index: subclass it, and give it an empty one.

    ::

        class TestMyIndex(IndexContract):
            tolerance = 1e-4

            @pytest.fixture
            def index(self, tmp_path):
                index = MyIndex(tmp_path / "place")
                yield index
                index.close()

            @pytest.fixture
            def reopen(self, index, tmp_path):
                return lambda: MyIndex(tmp_path / "place")

    Fixtures that a subclass gives:

    - index: an empty index that stores ``outputs`` of any width.
    - reopen, where the index outlives its process: a function that opens the same place again;
      the tests close what it returns.
    - unreachable, where an engine can be stopped: an index whose engine is gone.

    Attributes that it may set:

    - outputs: what the index stores, of dense, sparse and colbert; all three.
    - tolerance: how far a score may be from the exact one, and a stored number from the one
      given; 1e-5. colbert_tolerance: the same for ColBERT, where it differs.
    - ties: "insertion", or "id" where the engine cannot know that order.
    - snapshots: whether a search beside changes reads one state of the index.
    - two_handles: whether a place can be opened twice at once.
    - timeout: seconds within which a call to an engine that is gone is an error; 10.

    What an index cannot keep is overridden and marked ``pytest.mark.xfail(reason=…)``, so that
    the reason can be read. Everything is seeded, and runs with ``LocalIndex`` in 3 seconds.
    """
