"""What is refused, before anything is stored; and that nothing is shared with the caller."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse as sp

from m3_retrievers.errors import DuplicateIdError, InputError, MissingOutputError
from m3_retrievers.index.base import Index
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.testing.agreement import same_hits, same_records, same_vectors
from m3_retrievers.testing.cases import Cases, contents
from m3_retrievers.testing.samples import (
    COUNT,
    VOCABULARY,
    WIDTH,
    nested,
    question,
    records,
    represent,
)
from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.plan import Plan
from m3_retrievers.types.representations import Output, Representations

METADATA: Mapping[str, Any] = {
    "a set": {"a": {1}},
    "NaN": {"a": float("nan")},
    "infinity": {"a": [float("inf")]},
    "a date": {"a": np.datetime64("2024-01-01")},
    "a key that is no string": {1: 2},
    "such a key further in": {"a": {1: 2}},
    "too deep": {"a": nested(100)},
    "no mapping": ["a"],
    "bytes": {"a": b"a"},
}


class Refuses(Cases):
    """Bad input is an error of ``m3_retrievers.errors`` that leaves the index as it was."""

    def test_ids_that_are_known_are_not_added(self, filled: Index) -> None:
        given = [Record("new", ""), Record("d07", "other")]
        self._refused(filled, DuplicateIdError, lambda: filled.add(given, represent(2)))

    @pytest.mark.parametrize("method", ["add", "upsert"])
    def test_an_id_comes_once_a_call(self, filled: Index, method: str) -> None:
        given = [Record("new", "1"), Record("other", ""), Record("new", "2")]
        put = getattr(filled, method)
        self._refused(filled, DuplicateIdError, lambda: put(given, represent(3)))

    @pytest.mark.parametrize("method", ["add", "upsert"])
    @pytest.mark.parametrize("kind", METADATA)
    def test_metadata_that_json_does_not_hold(self, filled: Index, method: str, kind: str) -> None:
        given = [
            Record("new", ""),
            Record("d00" if method == "upsert" else "n", "", METADATA[kind]),
        ]
        put = getattr(filled, method)
        self._refused(filled, InputError, lambda: put(given, represent(2)))

    @pytest.mark.parametrize("method", ["add", "upsert"])
    def test_records_are_records(self, filled: Index, method: str) -> None:
        put = getattr(filled, method)
        for odd in ("d", {"id": "d"}, [("d", "text")], [None], None, [Record(1, "")]):  # type: ignore[arg-type]
            self._refused(filled, InputError, partial(put, odd, represent(1)))
        self._refused(filled, InputError, lambda: put([Record("d", None)], represent(1)))  # type: ignore[arg-type]

    @pytest.mark.parametrize("method", ["add", "upsert"])
    def test_a_row_of_representations_a_record(self, filled: Index, method: str) -> None:
        put = getattr(filled, method)
        for count in (1, 3):
            call = partial(put, records(2, first=COUNT), represent(count))
            self._refused(filled, InputError, call)

    @pytest.mark.parametrize("output", ["dense", "sparse", "colbert"])
    def test_an_output_that_is_missing(self, index: Index, output: Output) -> None:
        self._stores(output)
        rest = [name for name in ("dense", "sparse", "colbert") if name != output]
        given = represent(2).select(rest)  # type: ignore[arg-type]
        self._refused(index, MissingOutputError, lambda: index.add(records(2), given))
        self._refused(index, MissingOutputError, lambda: index.upsert(records(2), given))

    @pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("output", ["dense", "sparse", "colbert"])
    def test_numbers_that_are_none(self, filled: Index, output: Output, number: float) -> None:
        self._stores(output)
        given = _copied(represent(2))
        value = getattr(given, output)
        numbers = {"sparse": "data", "colbert": "vectors"}.get(output)
        (getattr(value, numbers) if numbers else value)[-1:] = number
        new = records(2, first=COUNT)
        self._refused(filled, InputError, lambda: filled.add(new, given))
        self._refused(filled, InputError, lambda: filled.upsert(records(2), given))

    @pytest.mark.parametrize("output", ["dense", "sparse", "colbert"])
    def test_another_width_than_what_is_there(self, filled: Index, output: Output) -> None:
        self._stores(output)
        new = records(1, first=COUNT)
        wide = replace(represent(1), **{output: _wide(1)[output]})
        self._refused(filled, InputError, lambda: filled.add(new, wide))
        self._refused(filled, InputError, lambda: filled.upsert(records(1), wide))

    @pytest.mark.parametrize("output", ["dense", "sparse", "colbert"])
    def test_a_question_of_another_width(self, filled: Index, output: Output) -> None:
        self._stores(output)
        asked = replace(question().representations, **{output: _wide(1)[output]})
        with pytest.raises(InputError):
            filled.recall(Query("", asked), output, k=3)  # type: ignore[arg-type]
        with pytest.raises(InputError):
            filled.score(Query("", asked), output, ["d00"])  # type: ignore[arg-type]

    @pytest.mark.parametrize("output", ["dense", "sparse", "colbert"])
    def test_a_question_is_one_text_with_what_is_asked(self, filled: Index, output: Output) -> None:
        self._stores(output)
        with pytest.raises(MissingOutputError, match=output):
            filled.recall(Query("text alone"), output, k=3)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="one text"):
            filled.recall(Query("", represent(2)), output, k=3)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="one text"):
            filled.score(Query("", represent(2)), output, ["d00"])  # type: ignore[arg-type]

    @pytest.mark.parametrize("k", [0, -1, 1.5, True, "3"])
    def test_k_is_an_integer_from_1(self, filled: Index, k: Any) -> None:
        plan = Plan(outputs=tuple(self.outputs))
        with pytest.raises(InputError, match="at least 1"):
            filled.recall(question(), "dense", k=k)
        with pytest.raises(InputError, match="at least 1"):
            filled.search(question(), plan, k=k)
        with pytest.raises(InputError, match="at least 1"):
            next(iter(filled.pages(size=k)))

    @pytest.mark.parametrize("ids", ["d00", 7, [7], [None], ["d00", b"d01"]], ids=str)
    def test_ids_are_a_list_of_strings(self, filled: Index, ids: Any) -> None:
        calls: list[Callable[[], object]] = [
            lambda: filled.get(ids),
            lambda: filled.in_order(ids),
            lambda: filled.vectors(ids),
            lambda: filled.delete(ids),
            lambda: filled.score(question(), "dense", ids),
            lambda: filled.recall(question(), "dense", k=1, ids=ids),
        ]
        for call in calls:
            self._refused(filled, InputError, call)

    # Nothing is shared with the caller

    def test_what_is_given_stays_as_it_was(self, index: Index) -> None:
        given, made = records(COUNT), represent(COUNT)
        about = copy.deepcopy(given)
        asked, filter = question(), {"number": {"$in": [1, 2]}, "$or": [{"even": True}]}
        index.add(given, made)
        index.upsert(given, made)
        index.search(asked, Plan(outputs=tuple(self.outputs)), k=5, filter=filter)
        for mode in self.outputs:
            index.recall(asked, mode, k=3, filter=filter, ids=["d01"])
        index.delete(["d01"], filter=filter)
        assert given == about
        assert filter == {"number": {"$in": [1, 2]}, "$or": [{"even": True}]}
        exact = dict.fromkeys(("dense", "sparse", "colbert"), 0.0)
        every: tuple[Output, ...] = ("dense", "sparse", "colbert")
        same_vectors(made, represent(COUNT), outputs=every, tolerances=exact)
        same_vectors(
            asked.representations, question().representations, outputs=every, tolerances=exact
        )

    def test_what_was_given_may_be_changed_afterwards(self, index: Index) -> None:
        made, given = _copied(represent(COUNT)), records(COUNT)
        index.add(given, made)
        assert made.dense is not None
        assert made.sparse is not None
        assert made.colbert is not None
        made.dense[:] = 0
        made.sparse.data[:] = 9
        made.colbert.vectors[:] = 0
        given[0].metadata["tags"].append("later")
        given.clear()
        self._as_at_first(index)

    def test_what_comes_back_may_be_changed(self, filled: Index) -> None:
        plan = Plan(outputs=tuple(self.outputs))
        found = filled.vectors(["d00", "d01"])
        if found.dense is not None:
            _blank(found.dense)
        if found.sparse is not None:
            _blank(found.sparse.data)
        if found.colbert is not None:
            _blank(found.colbert.vectors)
        ranking = filled.recall(question(), "dense", k=None)
        _blank(ranking.scores)
        shown = [
            *filled.get(["d00"]),
            *filled.search(question(), plan, k=COUNT).hits,
            *next(iter(filled.pages())),
        ]
        for record in shown:
            record.metadata["tags"].append("later")
            record.metadata["new"] = 1
        filled.where(None).clear()
        self._as_at_first(filled)

    def _as_at_first(self, index: Index) -> None:
        """Assert that an index holds the sample, and nothing of it was changed."""
        same_records(index.get(list(index.ids)), records(COUNT))
        ids = [record.id for record in records(COUNT)]
        same_vectors(
            index.vectors(ids),
            represent(COUNT),
            outputs=self.outputs,
            tolerances=self.tolerances(),
        )
        exact = LocalIndex(modes=self.outputs, colbert_dtype="float32")
        exact.add(records(COUNT), represent(COUNT))
        plan = Plan(outputs=tuple(self.outputs))
        found, expected = (one.search(question(), plan, k=COUNT).hits for one in (index, exact))
        same_hits(found, expected, k=COUNT, plan=plan, tolerances=self.tolerances(plan))

    def _refused(self, index: Index, error: type[Exception], call: Callable[[], object]) -> None:
        before = contents(index)
        with pytest.raises(error, match=r"got|which is in the index") as raised:
            call()
        assert len(str(raised.value)) < 1_000
        assert contents(index) == before

    def _stores(self, output: str) -> None:
        if output not in self.outputs:
            pytest.skip(f"this index keeps {tuple(self.outputs)}")


def _blank(numbers: NDArray[Any]) -> None:
    """Overwrite numbers, where that is allowed."""
    if numbers.flags.writeable:
        numbers[:] = 0


def _copied(made: Representations) -> Representations:
    return copy.deepcopy(made)


def _wide(count: int) -> dict[str, Any]:
    """Return each output, of a text a row, wider than the sample's."""
    wide = np.ones((count, WIDTH + 1), np.float32)
    return {
        "dense": wide,
        "sparse": sp.csr_array(np.ones((count, VOCABULARY + 1), np.float32)),
        "colbert": MultiVectors.from_rows([wide[:1]] * count),
    }
