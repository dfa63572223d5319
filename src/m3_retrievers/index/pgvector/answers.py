"""Rows that the server gives, as records, rankings and hits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from m3_retrievers import scoring
from m3_retrievers.index.pgvector.values import json_read, read
from m3_retrievers.types.hits import Hit, Hits, Ranking, Record, SearchResult
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import Plan

Row = tuple[Any, ...]


def record_of(id: str, text: str, metadata: str) -> Record:
    """Return the record whose columns id, text and metadata_json these are."""
    return Record(read(id), read(text), json_read(metadata))


def ranking_of(ids: Sequence[str], scores: Sequence[float]) -> Ranking:
    """Return columns id and score, in their order, as a ranking."""
    return Ranking(tuple(map(read, ids)), np.array(scores, np.float64))


def result_of(rows: Sequence[Row], plan: Plan) -> SearchResult:
    """Return the rows of ``Search.hybrid``, in any order, as hits and what each leg recalled."""
    ordered = sorted(rows, key=lambda row: int(row[1]))
    rankings: dict[str, Ranking] = {}
    for leg in plan.legs:
        recalled = [row for row in ordered if row[0] == leg]
        rankings[leg] = ranking_of([row[2] for row in recalled], [row[3] for row in recalled])
    hits = [_hit(row, plan) for row in ordered if row[0] is None]
    return SearchResult(Hits(hits), rankings)


def _hit(row: Row, plan: Plan) -> Hit:
    _, _, id, hybrid, text, metadata, scores, ranks = row
    record = record_of(id, text, metadata)
    names = (*plan.modes, "hybrid")
    by_mode = dict(zip(names, scores, strict=True))
    counted: dict[str, Floats] = {mode: np.asarray(by_mode[mode]) for mode in plan.weighted}
    shares = scoring.contributions(counted, plan.weights, {})
    return Hit(
        id=record.id,
        text=record.text,
        score=hybrid,
        metadata=record.metadata,
        scores=by_mode,
        ranks=dict(zip(names, ranks, strict=True)),
        contributions={mode: float(share) for mode, share in shares.items()},
    )
