"""The hybrid search, once, over what every index can do: recall, score, fetch.

Each leg recalls its best documents; over the union of the legs every score that a leg did not
compute is computed exactly; the weighted sum orders the result (BGE-M3 paper, arXiv
2402.03216, sections 3.2 and 4). An engine that can do all this in one request answers
``Index.search`` itself, with the same hits and scores.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from m3_retrievers import scoring
from m3_retrievers.checks import check_k, check_known
from m3_retrievers.errors import MissingOutputError
from m3_retrievers.index.base import Encode, Filter, Index, RecallsMany
from m3_retrievers.index.hits import fused_hits, scored_hits
from m3_retrievers.types.hits import Hit, Hits, Query, Ranking, Record, SearchResult
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import Plan, encoded_modes

# Queries that share a reading of the dense vectors, and a state of the index: other searches and
# changes wait for so many. 100,000 × 1,024 on one core: a dense search takes 11 ms alone, 1.3
# with 16 queries, 1.0 with 32, 0.9 with 64.
MANY = 16


def search(
    index: Index,
    query: Query,
    plan: Plan,
    *,
    k: int,
    filter: Filter | None = None,
    ids: Collection[str] | None = None,
    encode: Encode | None = None,
) -> SearchResult:
    """Return the k best hits, best first, and what each leg recalled.

    filter, ids: what may be found, before the top k of each leg; None does not restrict.
    encode: makes representations of documents, for modes that the index does not keep. All
    that is read of the index belongs to one state of it, so that no score meets another text.

    Raises MissingOutputError where a mode is neither kept nor to be encoded, InputError for k
    below 1.
    """
    check_k(k)
    with index.snapshot():
        rankings: dict[str, Ranking] = {
            leg: index.recall(query, leg, k=plan.recall.depth(leg), filter=filter, ids=ids)
            for leg in plan.legs
        }
        found = _found(index, query, plan, rankings, k)
    return SearchResult(_hits(found, encode, k), rankings)


def search_many(
    index: Index,
    queries: Sequence[Query],
    plan: Plan,
    *,
    k: int,
    filter: Filter | None = None,
    encode: Encode | None = None,
) -> Iterator[SearchResult]:
    """Yield what ``index.search`` returns for each query, ``MANY`` of them of one state.

    An index that recalls for many queries at once is asked to.
    """
    check_k(k)
    if not isinstance(index, RecallsMany):
        for query in queries:
            yield index.search(query, plan, k=k, filter=filter, encode=encode)
        return
    for at in range(0, len(queries), MANY):
        block = queries[at : at + MANY]
        with index.snapshot():
            recalled = {
                leg: index.recall_many(block, leg, k=plan.recall.depth(leg), filter=filter)
                for leg in plan.legs
            }
            legs: list[dict[str, Ranking]] = [
                {leg: recalled[leg][row] for leg in plan.legs} for row in range(len(block))
            ]
            found = [
                _found(index, one, plan, each, k) for one, each in zip(block, legs, strict=True)
            ]
        for one, rankings in zip(found, legs, strict=True):
            yield SearchResult(_hits(one, encode, k), rankings)


def score(
    index: Index, query: Query, plan: Plan, ids: Iterable[str], *, encode: Encode | None = None
) -> Hits:
    """Return the given documents as hits, best hybrid score first, recalled or not.

    Their ranks count among themselves. Raises InputError for an unknown id.
    """
    wanted = list(dict.fromkeys(ids))
    with index.snapshot():
        check_known(wanted, set(index.in_order(wanted)))
        candidates = _candidates(index, query, plan, wanted)
        best = candidates.best(index, None)
    return Hits(best if best is not None else candidates.encoded(encode, None))


def _found(
    index: Index, query: Query, plan: Plan, rankings: Mapping[str, Ranking], k: int
) -> list[Hit] | _Candidates:
    """Return the k best hits, or the candidates where a mode remains to be encoded."""
    if plan.fusion is not None:
        fused = plan.fusion(rankings)
        return fused_hits(index.get(fused.ids[:k]), fused, rankings)
    union = chain.from_iterable(ranking.ids for ranking in rankings.values())
    candidates = _candidates(index, query, plan, union)
    best = candidates.best(index, k)
    return candidates if best is None else best


def _hits(found: list[Hit] | _Candidates, encode: Encode | None, k: int) -> Hits:
    return Hits(found.encoded(encode, k) if isinstance(found, _Candidates) else found)


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """The union of the legs, in order of insertion, with the scores that the index computes.

    records: all of them where a mode remains to be encoded, else None: the best are fetched.
    """

    ids: list[str]
    query: Query
    plan: Plan
    scores: Mapping[str, Floats]
    scales: Mapping[str, float]
    records: Sequence[Record] | None

    def best(self, index: Index, k: int | None) -> list[Hit] | None:
        """Return the k best matches, or all, as hits; None where a mode remains to be encoded."""
        if not self.ids:
            return []
        if self.records is not None:
            return None
        hybrid, shares = self._weighed(self.scores)
        rows = best_rows(hybrid, self.scores, k)
        records = index.get([self.ids[row] for row in rows])
        return scored_hits(records, rows, {**self.scores, "hybrid": hybrid}, shares)

    def encoded(self, encode: Encode | None, k: int | None) -> list[Hit]:
        """Return the k best matches, or all, their texts encoded for modes that were not kept."""
        assert self.records is not None
        modes = [mode for mode in self.plan.modes if mode not in self.scores]
        if encode is None:
            raise MissingOutputError(
                f"This search scores {modes}, which the index does not keep. Search through a "
                "HybridRetriever, which encodes the candidates, or build the index with them."
            )
        made = encode([record.text for record in self.records], encoded_modes(modes))
        asked = self.query.representations
        scores: dict[str, Floats] = dict(self.scores) | {
            m: scoring.by_mode(m, asked, made)[0] for m in modes
        }
        ordered: dict[str, Floats] = {mode: scores[mode] for mode in self.plan.modes}
        hybrid, shares = self._weighed(ordered)
        rows = best_rows(hybrid, ordered, k)
        records = [self.records[row] for row in rows]
        return scored_hits(records, rows, {**ordered, "hybrid": hybrid}, shares)

    def _weighed(self, scores: Mapping[str, Floats]) -> tuple[Floats, Mapping[str, Floats]]:
        """Return the hybrid scores, and each mode's share of them."""
        counted: dict[str, Floats] = {mode: scores[mode] for mode in self.plan.weighted}
        shares = scoring.contributions(counted, self.plan.weights, self.scales)
        return scoring.hybrid(counted, self.plan.weights, scales=self.scales), shares


def best_rows(hybrid: Floats, scores: Mapping[str, Floats], k: int | None) -> NDArray[np.intp]:
    """Return the places of the k best matches, ties in order of place; None for all places.

    What scores exactly 0 in every mode is no match: a text of which the model reads nothing.
    """
    order = np.argsort(-hybrid, kind="stable")
    if k is None:
        return order
    matches = np.any([values != 0 for values in scores.values()], axis=0)
    best: NDArray[np.intp] = order[matches[order]][:k]
    return best


def _candidates(index: Index, query: Query, plan: Plan, ids: Iterable[str]) -> _Candidates:
    # in order of insertion, which breaks ties
    union = index.in_order(list(ids))
    kept = [mode for mode in plan.modes if mode in index.modes] if union else []
    complete = len(kept) == len(plan.modes) or not union
    return _Candidates(
        ids=union,
        query=query,
        plan=plan,
        scores={mode: index.score(query, mode, union) for mode in kept},
        scales={mode: index.scale(query, mode) for mode in kept},
        records=None if complete else index.get(union),
    )
