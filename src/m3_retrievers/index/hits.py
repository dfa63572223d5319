"""From scores to hits: which documents came out, with every mode's score and rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.types.hits import Hit, Ranking, Record
from m3_retrievers.types.packed import Floats


def scored_hits(
    records: Sequence[Record],
    rows: NDArray[np.intp],
    scores: Mapping[str, Floats],
    contributions: Mapping[str, Floats],
) -> list[Hit]:
    """Return a hit a record, in the order given, ranked among all n candidates.

    rows (k,): each record's place among the candidates. scores: of every mode and of
    ``"hybrid"``, (n,) each; ranks count from 1. contributions: the hybrid score's parts.
    """
    ranks = {mode: _ranks(values) for mode, values in scores.items()}
    return [
        Hit(
            id=record.id,
            text=record.text,
            score=float(scores["hybrid"][row]),
            metadata=record.metadata,
            scores={mode: float(values[row]) for mode, values in scores.items()},
            ranks={mode: int(places[row]) for mode, places in ranks.items()},
            contributions={mode: float(values[row]) for mode, values in contributions.items()},
        )
        for row, record in zip(rows, records, strict=True)
    ]


def fused_hits(
    records: Sequence[Record], fused: Ranking, rankings: Mapping[str, Ranking]
) -> list[Hit]:
    """Return a hit for each record, all of them from a fused ranking; some of it may be gone.

    Scores and ranks are those of the legs that found the record, and of ``"fusion"``.
    """
    places = {leg: {id: at for at, id in enumerate(r.ids)} for leg, r in rankings.items()}
    fused_places = {id: at for at, id in enumerate(fused.ids)}
    hits = []
    for record in records:
        at = fused_places[record.id]
        rows = {leg: place[record.id] for leg, place in places.items() if record.id in place}
        scores = {leg: float(rankings[leg].scores[row]) for leg, row in rows.items()}
        score = float(fused.scores[at])
        hits.append(
            Hit(
                id=record.id,
                text=record.text,
                score=score,
                metadata=record.metadata,
                scores={**scores, "fusion": score},
                ranks={**{leg: row + 1 for leg, row in rows.items()}, "fusion": at + 1},
            )
        )
    return hits


def _ranks(scores: Floats) -> NDArray[np.int64]:
    """Return each position's rank, from 1; ties in order of position."""
    ranks = np.empty(len(scores), np.int64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks
