"""The whole hybrid search in one request to Qdrant.

One batch holds a search for each mode, over the union of what the legs recall: so every
candidate comes back with every score, and ranks, ties and what each leg recalled are known. To a
server the batch carries one search more, the weighted sum as a formula over the same legs: its
best k come with their records, and nothing is left to fetch. In this process, where a request costs
nothing, the k records are read afterwards instead of scoring twice.

The searches of a batch do not wait for writers. So each find brings its insertion number, which
every write changes: where two of them differ, the whole is asked for again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers import scoring
from m3_retrievers.index.hits import scored_hits
from m3_retrievers.index.qdrant.points import ID_FIELDS, RECORD_FIELDS, id_of, record_of
from m3_retrievers.index.qdrant.queries import Asked
from m3_retrievers.index.qdrant.requests import (
    Clause,
    Engine,
    Found,
    Nearest,
    WeightedSum,
)
from m3_retrievers.index.search import best_rows
from m3_retrievers.types.hits import Hit, Hits, Ranking, SearchResult
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import Mode, Plan

# how often a search starts again because another thread or process has just changed a find of it
_TRIES = 10


@dataclass(frozen=True, slots=True)
class HybridRequest:
    """One hybrid search.

    asked: the query by mode; a mode in which it has nothing (no terms) is left out. depths: of each
    leg. scales: as ``Index.scale``, 1 where none is given.
    """

    plan: Plan
    asked: Mapping[Mode, Asked]
    depths: Mapping[Mode, int]
    scales: Mapping[str, float]
    admitted: Clause
    exact: bool

    def search(self, engine: Engine, k: int) -> SearchResult:
        """Return the k best hits, best first, and what each leg recalled."""
        legs = self._legs()
        if not legs:
            nothing = Ranking((), np.zeros(0, np.float32))
            return SearchResult(Hits(), dict.fromkeys(map(str, self.plan.legs), nothing))
        searches: list[Nearest | WeightedSum] = list(legs.values())
        if engine.remote and (formula := self._formula(legs, k)):
            searches.append(formula)
        for _ in range(_TRIES):
            answers = engine.query(searches)
            by_mode = dict(zip(legs, answers, strict=False))
            records = answers[len(legs)] if len(answers) > len(legs) else []
            candidates = _Candidates.of(by_mode, self.plan, self.asked)
            hits = candidates.best(engine, self.plan, self.scales, k=k, records=records)
            if hits is not None:
                break
        rankings: dict[str, Ranking] = {
            leg: candidates.ranking(leg, self.depths[leg]) for leg in self.plan.legs
        }
        return SearchResult(Hits(hits or []), rankings)

    def _legs(self) -> dict[Mode, Nearest]:
        """Return a search for each mode, over what the legs recall together."""
        recalled = tuple(
            Nearest(
                leg,
                self.asked[leg].vector,
                self.depths[leg],
                filter=self.admitted,
                exact=self.exact,
            )
            for leg in self.plan.legs
            if leg in self.asked
        )
        if not recalled:
            return {}
        most = sum(leg.limit for leg in recalled)
        return {
            mode: Nearest(
                mode,
                self.asked[mode].vector,
                most,
                among=recalled,
                exact=True,
                original=True,
                payload=ID_FIELDS,
            )
            for mode in self.plan.modes
            if mode in self.asked
        }

    def _formula(self, legs: Mapping[Mode, Nearest], k: int) -> WeightedSum | None:
        weights = {
            mode: weight * self.scales.get(mode, 1.0) / self.asked[mode].tokens
            for mode, weight in self.plan.weighted.items()
            if mode in legs
        }
        if not weights:
            return None
        return WeightedSum(tuple(legs[mode] for mode in weights), tuple(weights.values()), k)


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """The union of the legs, in order of insertion, with all their scores.

    scored: by mode, whether the engine gave the candidate a score in it. torn: whether some
    document was replaced between two of the searches.
    """

    points: Sequence[Found]
    scores: Mapping[str, Floats]
    scored: Mapping[str, NDArray[np.bool_]]
    torn: bool

    @classmethod
    def of(
        cls, answers: Mapping[Mode, list[Found]], plan: Plan, asked: Mapping[Mode, Asked]
    ) -> _Candidates:
        union = {point.id: point for points in answers.values() for point in points}
        every = (point for points in answers.values() for point in points)
        torn = any(_version(point) != _version(union[point.id]) for point in every)
        points = sorted(union.values(), key=insertion)
        row_of = {point.id: row for row, point in enumerate(points)}
        scores: dict[str, Floats] = {}
        scored: dict[str, NDArray[np.bool_]] = {}
        for mode in plan.modes:
            found = answers.get(mode, [])
            rows = [row_of[point.id] for point in found]
            scores[mode] = np.zeros(len(points), np.float32)
            scored[mode] = np.zeros(len(points), bool)
            if rows:
                raw = np.array([point.score for point in found], np.float32)
                scores[mode][rows] = raw / asked[mode].tokens
                scored[mode][rows] = True
        return cls(points, scores, scored, torn)

    def best(
        self,
        engine: Engine,
        plan: Plan,
        scales: Mapping[str, float],
        *,
        k: int,
        records: Sequence[Found],
    ) -> list[Hit] | None:
        """Return the k best as hits; None where a record is not the one that was scored.

        records: points whose payload has come already.
        """
        if not self.points:
            return []
        counted: dict[str, Floats] = {mode: self.scores[mode] for mode in plan.weighted}
        hybrid = scoring.hybrid(counted, plan.weights, scales=scales)
        shares = scoring.contributions(counted, plan.weights, scales)
        rows = best_rows(hybrid, self.scores, k)
        best = [self.points[row] for row in rows]
        known = {point.id: point for point in records}
        if missing := [point.id for point in best if point.id not in known]:
            known |= engine.retrieve(missing, payload=RECORD_FIELDS)
        found = [known.get(point.id) for point in best]
        if self.torn or any(map(_differs, best, found)):
            return None
        kept = [record_of(point.payload) for point in found if point]
        return scored_hits(kept, rows, {**self.scores, "hybrid": hybrid}, shares)

    def ranking(self, leg: Mode, depth: int) -> Ranking:
        """Return what a leg recalled: of the union, its own best."""
        rows = np.flatnonzero(self.scored[leg])
        best = rows[np.argsort(-self.scores[leg][rows], kind="stable")][:depth]
        ids = tuple(id_of(self.points[row].payload) for row in best)
        return Ranking(ids, self.scores[leg][best])


def _version(point: Found) -> Any:
    """Return what a point's payload has of its own: each write gives it another number."""
    return point.payload["n"]


def _differs(point: Found, other: Found | None) -> bool:
    return other is None or _version(point) != _version(other)


def insertion(point: Found) -> tuple[int, str]:
    """Return what orders points by insertion: their numbers, and UUIDs where these are equal."""
    return point.payload["n"], point.id
