"""Same documents, same answers: recall, scores and the whole hybrid search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from m3_retrievers.errors import InputError, MissingOutputError
from m3_retrievers.index.base import Index
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.scoring.fusion import ReciprocalRankFusion, WeightedSum
from m3_retrievers.testing.agreement import same_hits, same_ranking
from m3_retrievers.testing.cases import Cases, alike, scores_of
from m3_retrievers.testing.samples import COUNT, question, records, represent
from m3_retrievers.types.hits import Query, Ranking, Record
from m3_retrievers.types.plan import HybridWeights, Mode, Plan, Recall
from m3_retrievers.types.representations import ALL_OUTPUTS, Output, Representations

LEGS: Sequence[tuple[Mode, ...]] = (("dense",), ("sparse",), ("dense", "sparse"))
ORDERS: Mapping[str, dict[str, Any]] = {
    "default": {},
    "long documents": {"weights": HybridWeights.long_documents()},
    "without colbert": {"weights": HybridWeights(1.0, 0.3, 0.0)},
    "dense alone": {"weights": HybridWeights(1.0, 0.0, 0.0)},
    "sparse alone": {"weights": HybridWeights(0.0, 2.0, 0.0)},
    "colbert alone": {"weights": HybridWeights(0.0, 0.0, 1.0)},
    "reciprocal ranks": {"fusion": ReciprocalRankFusion()},
    "weighted sum": {"fusion": WeightedSum()},
}
SOME = ("d31", "d02", "nobody", "d05", "d30", "d17")
SEARCHES: Sequence[dict[str, Any]] = (
    {"k": 10},
    {"k": 1},
    {"k": 1_000, "recall": Recall.everything()},
    {"k": 3, "recall": Recall(dense=2, lexical=3)},
    {"k": 5, "recall": Recall(dense=3, lexical=3), "filter": {"number": {"$gte": 30}}},
    {"k": 4, "recall": Recall(dense=4, lexical=4), "ids": list(SOME)},
    {"k": 4, "recall": Recall(dense=2, lexical=2), "ids": set(SOME), "filter": {"even": False}},
    {"k": 3, "filter": {"number": -1}},
    {"k": 3, "ids": ()},
)


class Searches(Cases):
    """Every way to search gives what ``LocalIndex`` gives."""

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize("legs", LEGS, ids="-".join)
    def test_a_search_gives_the_hits_of_the_definition(
        self, filled: Index, reference: LocalIndex, legs: tuple[Mode, ...], order: str
    ) -> None:
        for asked in SEARCHES:
            options = dict(asked)
            k, recall = options.pop("k"), options.pop("recall", Recall())
            plan = self._plan(order, legs=legs, recall=recall)
            whole = reference.search(question(), plan, k=10_000, **options)
            found = filled.search(question(), plan, k=k, **options)
            same_hits(
                found.hits,
                whole.hits,
                k=k,
                plan=plan,
                tolerances=self.tolerances(plan),
            )
            for leg, ranking in found.rankings.items():
                expected = whole.rankings[leg]
                scores = dict(zip(expected.ids, expected.scores.tolist(), strict=True))
                same_ranking(ranking, scores, k=None, tolerance=self.tolerances()[leg] + 1e-6)

    @pytest.mark.parametrize("seed", range(200, 210))
    def test_ten_questions_have_the_same_first_ten(
        self, filled: Index, reference: LocalIndex, seed: int
    ) -> None:
        plan = Plan(outputs=tuple(self.outputs))
        whole = reference.search(question(seed), plan, k=10_000)
        found = filled.search(question(seed), plan, k=10)
        same_hits(
            found.hits,
            whole.hits,
            k=10,
            plan=plan,
            tolerances=self.tolerances(plan),
        )

    @pytest.mark.parametrize("mode", ALL_OUTPUTS)
    def test_recall_ranks_by_the_exact_score(
        self, filled: Index, reference: LocalIndex, mode: Mode
    ) -> None:
        self._needs(mode)
        every = scores_of(reference, question(), mode)
        bound = self.tolerances()[mode] + 1e-6
        for k in (1, 7, 1_000, None):
            same_ranking(filled.recall(question(), mode, k=k), every, k=k, tolerance=bound)
        for ids in (list(SOME), set(SOME), ("d04",), ["nobody"], []):
            named = {id: score for id, score in every.items() if id in ids}
            found = filled.recall(question(), mode, k=2, ids=ids)
            same_ranking(found, named, k=2, tolerance=bound)

    @pytest.mark.parametrize("mode", ALL_OUTPUTS)
    def test_scores_come_in_the_order_asked_for(
        self, filled: Index, reference: LocalIndex, mode: Mode
    ) -> None:
        self._needs(mode)
        ids = ["d07", "d39", "d00", "d07", "d03"]
        found = filled.score(question(), mode, ids)
        expected = reference.score(question(), mode, ids)
        assert found.shape == (5,)
        np.testing.assert_allclose(found, expected, rtol=0, atol=self.tolerances()[mode] + 1e-6)
        assert filled.score(question(), mode, []).shape == (0,)
        assert filled.scale(question(), mode) == 1.0
        with pytest.raises(InputError, match="got 'nobody'"):
            filled.score(question(), mode, ["d00", "nobody"])

    @pytest.mark.parametrize("mode", ALL_OUTPUTS)
    def test_ties_break_as_the_index_says(self, index: Index, mode: Mode) -> None:
        self._needs(mode)
        ids = self._tied(index)
        assert list(index.recall(question(), mode, k=None).ids) == ids
        assert index.in_order(index.where(None)) == ids

    @pytest.mark.parametrize("mode", ALL_OUTPUTS)
    def test_a_cut_through_ties_keeps_the_first_of_them(self, index: Index, mode: Mode) -> None:
        self._needs(mode)
        ids = self._tied(index)
        for k in (1, 3):
            assert list(index.recall(question(), mode, k=k).ids) == ids[:k]

    @pytest.mark.parametrize("order", ORDERS)
    def test_tied_hits_come_in_the_order_of_ties(self, index: Index, order: str) -> None:
        ids = self._tied(index)
        plan = self._plan(order)
        for k in (1, 3, 9):
            hits = index.search(question(), plan, k=k).hits
            assert [hit.id for hit in hits] == ids[:k]

    def test_an_empty_index_finds_nothing(self, index: Index) -> None:
        plan = Plan(outputs=tuple(self.outputs))
        assert index.search(question(), plan, k=3).hits == []
        assert index.search(question(), plan, k=3, filter={"a": 1}, ids=["x"]).hits == []
        for mode in self.outputs:
            found = index.recall(question(), mode, k=3)
            assert (found.ids, found.scores.shape) == ((), (0,))

    def test_a_text_that_matches_nothing_is_no_hit(self, filled: Index) -> None:
        """Row 3 has no term, and a lexical leg leaves it out; a dense leg ranks every text."""
        self._needs("sparse")
        assert "d03" not in filled.recall(question(), "sparse", k=None).ids
        assert len(filled.recall(question(), "dense", k=None).ids) == COUNT

    def test_the_smallest_term_weight_counts(self, filled: Index, reference: LocalIndex) -> None:
        """Row 5 has one term of weight 0.0001: its score is small, and it is found."""
        self._needs("sparse")
        found = filled.recall(question(), "sparse", k=None)
        expected = reference.score(question(), "sparse", ["d05"])
        assert found.scores[found.ids.index("d05")] == pytest.approx(expected[0], rel=0.01)

    def test_a_question_without_terms_finds_nothing_lexically(self, filled: Index) -> None:
        self._needs("sparse")
        empty = represent(4).require("sparse")[3:4]
        asked = Query("", Representations(dense=represent(1).dense, sparse=empty))
        assert filled.recall(asked, "sparse", k=5).ids == ()

    def test_modes_that_are_not_kept_are_encoded(self, index: Index) -> None:
        """Without ColBERT in the index, the candidates' texts are encoded, and count."""
        if "colbert" in self.outputs:
            pytest.skip("this index keeps every mode")
        index.add(records(COUNT), represent(COUNT))
        whole = LocalIndex(colbert_dtype="float32")
        whole.add(records(COUNT), represent(COUNT))
        rows = {record.text: at for at, record in enumerate(records(COUNT))}

        def encode(texts: Sequence[str], outputs: Sequence[Output]) -> Representations:
            chosen = np.array([rows[text] for text in texts], np.int64)
            return represent(COUNT)[chosen].select(outputs)

        found = index.search(question(), Plan(), k=5, encode=encode).hits
        expected = whole.search(question(), Plan(), k=10_000).hits
        bounds = self.tolerances(Plan())
        same_hits(found, expected, k=5, plan=Plan(), tolerances=bounds)

    def test_a_mode_that_nobody_makes_is_named(self, filled: Index) -> None:
        with pytest.raises(MissingOutputError, match="bm25"):
            filled.search(question(), Plan(legs=("dense", "bm25")), k=5)
        with pytest.raises(MissingOutputError, match="bm25"):
            filled.recall(question(), "bm25", k=5)
        with pytest.raises(MissingOutputError, match="bm25"):
            filled.score(question(), "bm25", ["d00"])

    def test_fusion_gets_what_the_legs_recalled(self, filled: Index) -> None:
        """A function of the caller's own may fuse, in whatever way."""
        seen: dict[str, Ranking] = {}

        def backwards(rankings: Mapping[str, Ranking]) -> Ranking:
            seen.update(rankings)
            ids = rankings["dense"].ids[::-1]
            return Ranking(ids, np.arange(len(ids), 0, -1).astype(np.float32))

        plan = Plan(recall=Recall(dense=4, lexical=2), fusion=backwards)
        hits = filled.search(question(), plan, k=3).hits
        assert [len(ranking) for ranking in seen.values()] == [4, 2]
        assert tuple(hit.id for hit in hits) == seen["dense"].ids[:0:-1]

    def _plan(self, order: str, **options: Any) -> Plan:
        """Return the plan of one order; skip where these legs leave nothing to weigh."""
        try:
            return Plan(**ORDERS[order], **options, outputs=tuple(self.outputs))
        except InputError:
            pytest.skip("these weights count no mode that these legs score")

    def _needs(self, mode: str) -> None:
        if mode not in self.outputs:
            pytest.skip(f"this index keeps {tuple(self.outputs)}")

    def _tied(self, index: Index) -> list[str]:
        """Fill an index with five documents that tie; returns their order."""
        ids = ["m", "z", "a", "k", "b"]
        index.add([Record(id, "the same") for id in ids], alike(5))
        index.upsert([Record("z", "the same")], alike(1))
        return ["m", "a", "k", "b", "z"] if self.ties == "insertion" else sorted(ids)
