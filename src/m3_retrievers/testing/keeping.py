"""Records in and out: what was put in comes back, whole, until it is replaced or deleted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from m3_retrievers.errors import InputError, MissingOutputError
from m3_retrievers.index.base import Index
from m3_retrievers.testing.agreement import same_ranking, same_records, same_vectors
from m3_retrievers.testing.cases import Cases, alike, contents, scores_of
from m3_retrievers.testing.samples import (
    COUNT,
    VALUES,
    nested,
    question,
    records,
    represent,
    valued,
)
from m3_retrievers.types.hits import Record
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.plan import Plan
from m3_retrievers.types.representations import Representations

IDS = {
    "empty": [""],
    "alike": ["a", "A", "a ", " a", "á", "a\u0301", "á ", "１", "1", "01", "1.0"],
    "unicode": ["日本語", "🦊", "İstanbul", "straße", "\u202eright to left", "\u2028", "\ufeff"],
    "punctuation": ["%", "_", "\\", "\\\\", "'", '"', "`", "''", "a,b", "{a}", "[a]", "$a", "*"],
    "SQL": ["'; DROP TABLE documents; --", "1' OR '1'='1", "NULL", "?", ":id", "%s", "$1"],
    "paths": ["../../etc/passwd", "/", "C:\\a", "a/b", ".", "..", "file:///a#b?c=d", "a%2Fb"],
    "control": ["a\nb", "a\rb", "\t", "\x01", "\x1b[31m", "\x7f", "\x85"],
    "long": ["x" * 10_000, "x" * 9_999 + "y", "日" * 3_000],
    "numbers": [str(2**63), "-1", "1e5", "550e8400-e29b-41d4-a716-446655440000"],
}
# texts that UTF-8, or an engine's strings, cannot hold: kept as they are, or refused
ODD = {"half a pair": "a\ud83d", "the other half": "\udd8a", "NUL": "a\x00b"}


class KeepsRecords(Cases):
    """add, upsert, delete, get, and every list of ids."""

    def test_records_come_out_as_they_went_in(self, filled: Index) -> None:
        assert len(filled) == COUNT
        assert list(filled.ids) == filled.where(None) == [record.id for record in records(COUNT)]
        assert "d17" in filled
        assert "nobody" not in filled
        assert 17 not in filled
        assert None not in filled
        same_records(filled.get(["d17", "nobody", "d03"]), [records(18)[17], records(4)[3]])
        same_records(filled.get(["d03", "d03"]), [records(4)[3]] * 2)

    def test_the_index_says_what_it_keeps(self, filled: Index) -> None:
        assert filled.modes == frozenset(self.outputs)
        assert filled.weighting is None
        with filled.snapshot():
            assert len(filled) == COUNT
        assert type(filled).__name__ in repr(filled)

    def test_ids_are_put_in_order_each_once(self, filled: Index) -> None:
        assert filled.in_order(["d30", "d02", "nobody", "d30", "d11"]) == ["d02", "d11", "d30"]

    def test_a_second_batch_follows_the_first(self, filled: Index) -> None:
        filled.add(records(3, first=COUNT), represent(3, seed=9))
        assert len(filled) == COUNT + 3
        assert filled.where(None)[-3:] == ["d40", "d41", "d42"]
        self._holds(filled, ["d40", "d41", "d42"], represent(3, seed=9))
        self._holds(filled, ["d00"], represent(COUNT)[:1])

    def test_an_upsert_replaces_all_of_a_record(self, filled: Index) -> None:
        changed = [Record("d02", "another text", {"new": [1]}), Record("n", "a new one", {})]
        filled.upsert(changed, represent(2, seed=9))
        assert len(filled) == COUNT + 1
        same_records(filled.get(["d02", "n"]), changed)
        assert filled.where({"number": 2}) == []
        assert filled.where({"new": 1}) == ["d02"]
        self._holds(filled, ["d02", "n"], represent(2, seed=9))
        for mode in self.outputs:
            found = filled.recall(question(), mode, k=None)
            assert len(set(found.ids)) == len(found.ids)
            bound = self.tolerances()[mode] + 1e-6
            expected = scores_of(filled, question(), mode)
            same_ranking(found, expected, k=None, tolerance=bound)

    def test_an_upserted_record_is_inserted_anew(self, filled: Index) -> None:
        if self.ties != "insertion":
            pytest.skip("this index does not know the order of insertion")
        filled.upsert([Record("d02", "again"), Record("d00", "too")], represent(2, seed=9))
        assert filled.where(None)[-2:] == ["d02", "d00"]
        assert filled.in_order(["d00", "d05", "d02"]) == ["d05", "d02", "d00"]

    def test_delete_by_ids(self, filled: Index) -> None:
        assert filled.delete(["d05", "nobody", "d01", "d05"]) == ["d05", "d01"]
        assert len(filled) == COUNT - 2
        self._gone(filled, ["d05", "d01"])
        assert filled.delete(["d05"]) == []
        assert filled.delete([]) == []
        assert len(filled) == COUNT - 2

    def test_delete_by_filter(self, filled: Index) -> None:
        assert filled.delete(filter={"number": {"$lt": 3}}) == ["d00", "d01", "d02"]
        self._gone(filled, ["d00", "d01", "d02"])
        assert filled.delete(filter={"number": -1}) == []
        assert len(filled.delete(filter={})) == COUNT - 3
        assert len(filled) == 0

    def test_delete_by_ids_and_filter_takes_those_that_both_name(self, filled: Index) -> None:
        assert filled.delete(["d09", "nobody", "d04"], filter={"even": True}) == ["d04"]
        assert filled.delete([], filter={"even": True}) == []
        assert len(filled) == COUNT - 1

    def test_delete_without_ids_or_filter_deletes_nothing(self, filled: Index) -> None:
        with pytest.raises(InputError, match="got neither"):
            filled.delete()
        assert len(filled) == COUNT

    def test_a_deleted_id_may_come_back(self, filled: Index) -> None:
        filled.delete(["d02"])
        filled.add([Record("d02", "again")], represent(1, seed=9))
        self._holds(filled, ["d02"], represent(1, seed=9))
        same_records(filled.get(["d02"]), [Record("d02", "again")])

    def test_an_emptied_index_takes_records_again(self, filled: Index) -> None:
        filled.delete(filled.ids)
        assert contents(filled) == (0, [], [])
        assert filled.recall(question(), "dense", k=3).ids == ()
        filled.add(records(2), represent(2))
        self._holds(filled, ["d00", "d01"], represent(2))

    def test_pages_list_every_record_once(self, filled: Index) -> None:
        for size in (1, 7, COUNT, 1_000):
            pages = list(filled.pages(size=size))
            assert all(len(page) == size for page in pages[:-1])
            same_records([record for page in pages for record in page], records(COUNT))
        even = [record for page in filled.pages(filter={"even": True}, size=6) for record in page]
        same_records(even, [record for record in records(COUNT) if record.metadata["even"]])
        assert [record for page in filled.pages(filter={"number": -1}) for record in page] == []

    def test_vectors_come_back_in_the_order_asked_for(self, filled: Index) -> None:
        rows = np.array([39, 3, 5, 3, 7], np.int64)
        ids = [f"d{row:02}" for row in rows]
        self._holds(filled, ids, represent(COUNT)[rows])
        for output in self.outputs:
            found = filled.vectors(ids, outputs=[output])
            same_vectors(
                found, represent(COUNT)[rows], outputs=[output], tolerances=self.tolerances()
            )
        with pytest.raises(InputError, match="got 'nobody'"):
            filled.vectors(["d00", "nobody"])
        with pytest.raises(MissingOutputError, match="tokens"):
            filled.vectors(["d00"], outputs=["tokens"])

    def test_nothing_asked_gives_nothing(self, index: Index) -> None:
        for _ in range(2):
            index.add([], Representations())
            index.upsert([], Representations())
            assert index.get([]) == []
            assert index.in_order([]) == []
            assert index.delete([]) == []
            assert len(index.vectors([])) == 0
            assert set(index.vectors([]).outputs) == set(self.outputs)
            assert index.vectors([], outputs=["dense"]).outputs == ("dense",)
            assert index.recall(question(), "dense", k=1, ids=[]).ids == ()
            assert index.score(question(), "dense", []).shape == (0,)
            index.upsert(records(2), represent(2))  # and once more with something in it
        assert len(index) == 2

    def test_an_empty_index_lists_nothing(self, index: Index) -> None:
        assert contents(index) == (0, [], [])
        assert list(index.ids) == []
        assert list(index.pages()) == []
        assert index.get(["d00"]) == []
        assert index.in_order(["d00"]) == []
        assert index.delete(["d00"]) == []
        assert index.delete(filter={"a": 1}) == []
        assert "d00" not in index

    @pytest.mark.parametrize("kind", IDS)
    def test_any_string_is_an_id(self, index: Index, kind: str) -> None:
        ids = IDS[kind]
        index.add([Record(id, id, {"id": id}) for id in ids], represent(len(ids)))
        assert sorted(index.where(None)) == sorted(ids)
        assert sorted(index.recall(question(), "dense", k=None).ids) == sorted(ids)
        for id in ids:
            assert id in index
            same_records(index.get([id]), [Record(id, id, {"id": id})])
            assert index.where({"id": id}) == [id]
            assert index.recall(question(), "dense", k=9, ids=[id]).ids == (id,)
        self._holds(index, ids[:1], represent(len(ids))[:1])
        index.upsert([Record(ids[0], "new")], represent(1))
        assert len(index) == len(ids)
        assert index.delete(ids[:1]) == ids[:1]
        assert sorted(index.where(None)) == sorted(ids[1:])

    @pytest.mark.parametrize("kind", ODD)
    @pytest.mark.parametrize("place", ["id", "text", "metadata", "key"])
    def test_odd_characters_are_kept_or_refused(self, index: Index, kind: str, place: str) -> None:
        odd = ODD[kind]
        record = {
            "id": Record(odd, "text"),
            "text": Record("d", odd),
            "metadata": Record("d", "text", {"a": [odd]}),
            "key": Record("d", "text", {odd: 1}),
        }[place]
        try:
            index.add([Record("first", "text"), record], represent(2))
        except InputError:
            assert contents(index) == (0, [], [])
            return
        same_records(index.get([record.id]), [record])
        assert index.recall(question(), "dense", k=None, ids=[record.id]).ids == (record.id,)

    def test_metadata_of_every_kind_comes_back_as_it_was(self, index: Index) -> None:
        index.add(valued(), alike(len(VALUES) + 1))
        same_records(index.get([record.id for record in valued()]), valued())

    @pytest.mark.parametrize(
        "metadata",
        [
            {"": 1, " ": 2, "a.b": 3, "a'b": 4, 'a"b': 5, "ключ": 6, "$eq": 7, "k" * 300: 8},
            {"deep": nested(99)},
            {"wide": list(range(2_000))},
            {"id": "x", "text": "y", "dense": [1], "sparse": 2, "metadata": {"id": 3}},
            {"tiny": 5e-324, "huge": 1.7976931348623157e308, "third": 1 / 3, "zero": -0.0},
        ],
        ids=["keys", "deep", "wide", "names of our own", "floats"],
    )
    def test_metadata_within_reason_comes_back(
        self, index: Index, metadata: dict[str, Any]
    ) -> None:
        index.add([Record("d", "text", metadata)], represent(1))
        same_records(index.get(["d"]), [Record("d", "text", metadata)])

    def test_a_long_text_comes_back(self, index: Index) -> None:
        record = Record("d", "long text – 長い文 \n" * 10_000)
        index.add([record, Record("empty", "")], represent(2))
        same_records(index.get(["d", "empty"]), [record, Record("empty", "")])

    def test_a_text_without_token_vectors_scores_0_or_is_refused(self, index: Index) -> None:
        if "colbert" not in self.outputs:
            pytest.skip("this index keeps no token vectors")
        made = represent(2)
        vectors = made.require("colbert")[0]
        none = MultiVectors(vectors, np.array([0, 0, len(vectors)]))
        given = Representations(dense=made.dense, sparse=made.sparse, colbert=none)
        try:
            index.add([Record("none", ""), Record("some", "")], given)
        except InputError:
            assert contents(index) == (0, [], [])
            return
        assert index.score(question(), "colbert", ["none"]).tolist() == [0]
        assert set(index.recall(question(), "colbert", k=None).ids) == {"none", "some"}
        assert len(index.search(question(), Plan(), k=5).hits) == 2
        assert index.vectors(["none", "some"]).require("colbert").lengths.tolist()[0] == 0

    def _holds(self, index: Index, ids: list[str], expected: Representations) -> None:
        same_vectors(
            index.vectors(ids), expected, outputs=self.outputs, tolerances=self.tolerances()
        )

    def _gone(self, index: Index, ids: list[str]) -> None:
        assert index.get(ids) == []
        assert index.in_order(ids) == []
        assert not set(ids) & set(index.where(None))
        assert not any(id in index for id in ids)
        for mode in self.outputs:
            assert not set(ids) & set(index.recall(question(), mode, k=None).ids)
        found = index.search(question(), Plan(outputs=tuple(self.outputs)), k=1_000).hits
        assert not set(ids) & {hit.id for hit in found}
