"""What all cases of the contract start from: the indexes, and what is asked of the author."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import pytest

from m3_retrievers.index.base import Index, PersistentIndex
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.testing.samples import COUNT, question, records, represent
from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.plan import Mode, Plan
from m3_retrievers.types.representations import Representations

Stored: TypeAlias = Literal["dense", "sparse", "colbert"]

MODEL = {"name": "a model", "fingerprint": "0123456789abcdef"}


class Cases:
    """The attributes and fixtures that a contract's cases share; see ``IndexContract``."""

    outputs: ClassVar[Sequence[Stored]] = ("dense", "sparse", "colbert")
    tolerance: ClassVar[float] = 1e-5
    colbert_tolerance: ClassVar[float | None] = None
    ties: ClassVar[Literal["insertion", "id"]] = "insertion"
    snapshots: ClassVar[bool] = True
    two_handles: ClassVar[bool] = True
    timeout: ClassVar[float] = 10.0

    @pytest.fixture
    def index(self) -> Index:
        """Give an empty index that stores ``outputs``, and clear it away afterwards."""
        pytest.fail("IndexContract expects a fixture 'index', which gives an empty index.")

    @pytest.fixture
    def reopen(self, index: Index) -> Callable[[], Index]:
        """Give a function that opens the place of ``index`` once more, as another process would."""
        if isinstance(index, PersistentIndex):
            pytest.fail("A persistent index expects a fixture 'reopen': see IndexContract.")
        pytest.skip("this index does not outlive its process")

    @pytest.fixture
    def unreachable(self) -> Index:
        """Give an index, opened before, whose engine has stopped answering since."""
        pytest.skip("no engine behind this index is stopped in its tests")

    @pytest.fixture
    def reference(self) -> LocalIndex:
        """Give the index that counts, with the same documents as ``filled``."""
        exact = LocalIndex(modes=self.outputs, colbert_dtype="float32")
        exact.add(records(COUNT), represent(COUNT))
        return exact

    @pytest.fixture
    def filled(self, index: Index) -> Index:
        """Give the index under test, with the sample's documents."""
        index.add(records(COUNT), represent(COUNT))
        return index

    def tolerances(self, plan: Plan | None = None) -> dict[str, float]:
        """Return what each score may be off, and the hybrid of a plan."""
        colbert = self.tolerance if self.colbert_tolerance is None else self.colbert_tolerance
        by_mode = {"dense": self.tolerance, "sparse": self.tolerance, "colbert": colbert}
        weights: dict[Any, float] = {} if plan is None else dict(plan.weighted)
        hybrid = sum(by_mode[mode] * weight for mode, weight in weights.items())
        # the second part is float32's own: sums of scores of up to 10 round at 1e-6
        return {**by_mode, "hybrid": hybrid + 1e-6, "fusion": self.tolerance}


def contents(index: Index) -> tuple[int, list[str], list[Record]]:
    """Return all that an index says of its records, to compare before and after."""
    ids = index.where(None)
    return len(index), ids, index.get(ids)


def scores_of(index: Index, query: Query, mode: Mode) -> dict[str, float]:
    """Return every document's score in a mode; a lexical mode's only where above 0."""
    ids = index.where(None)
    scores = index.score(query, mode, ids)
    lexical = mode not in ("dense", "colbert")
    return {id: float(score) for id, score in zip(ids, scores, strict=True) if score or not lexical}


def alike(count: int) -> Representations:
    """Return the representations of so many texts that no score can tell apart."""
    return represent(1, seed=7)[np.zeros(count, np.int64)]


def persistent(index: Index) -> PersistentIndex:
    """Return an index that outlives its process; skip the case for one that does not."""
    if not isinstance(index, PersistentIndex):
        pytest.skip("this index does not outlive its process")
    return index


def calls(index: Index) -> list[Callable[[], object]]:
    """Return every call that needs the index's place."""
    return [
        lambda: len(index),
        lambda: index.ids,
        lambda: "d00" in index,
        lambda: index.where(None),
        lambda: index.where({"even": True}),
        lambda: index.get(["d00"]),
        lambda: index.in_order(["d00"]),
        lambda: list(index.pages()),
        lambda: index.vectors(["d00"]),
        lambda: index.recall(question(), "dense", k=1),
        lambda: index.score(question(), "dense", ["d00"]),
        lambda: index.search(question(), Plan(legs=("dense",), outputs=("dense",)), k=1),
        lambda: index.add(records(1, first=COUNT), represent(1)),
        lambda: index.upsert(records(1), represent(1)),
        lambda: index.delete(["d00"]),
        lambda: index.delete(filter={"even": True}),
        lambda: persistent(index).bind(MODEL),
    ]
