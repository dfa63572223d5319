"""Join what foreign retrievers return: which nodes are the same, and in what order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from llama_index.core.schema import BaseNode, NodeWithScore

from m3_retrievers.llama_index.nodes import ScoredNode, scored, scores_of
from m3_retrievers.types.hits import Ranking
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import Fusion


def fuse(
    legs: Mapping[str, Sequence[NodeWithScore]], fusion: Fusion, *, id_key: str | None = None
) -> list[ScoredNode]:
    """Return the nodes of all legs, each once, best first, as copies with scores.

    A leg enters with its own scores if they descend, else each node with 1/rank. The
    ``scores`` get ``fusion``, beside what the legs themselves wrote there.
    """
    pool = _Pool(id_key)
    rankings = {name: pool.ranking(found) for name, found in legs.items()}
    fused = fusion(rankings)
    return [
        scored(
            pool.found[int(key)], float(score), {**pool.scores[int(key)], "fusion": float(score)}
        )
        for key, score in zip(fused.ids, fused.scores, strict=True)
    ]


class _Pool:
    """Gives equal nodes one key, in order of first appearance.

    Two nodes are the same if their ids are, or their hashes, which LlamaIndex makes of text
    and metadata: an id made up for each index says nothing. With ``id_key``, the metadata's
    entry of that name decides, where a node has it.
    """

    def __init__(self, id_key: str | None) -> None:
        self.found: list[NodeWithScore] = []
        self.scores: list[dict[str, float]] = []
        self._id_key = id_key
        self._places: dict[tuple[str, str], int] = {}

    def ranking(self, found: Sequence[NodeWithScore]) -> Ranking:
        values = _descending(found)
        keys = [self._key(one) for one in found]
        first = {key: at for at, key in reversed(list(enumerate(keys)))}
        rows = sorted(first.values())
        places = np.arange(1, len(rows) + 1)
        ranked = tuple(keys[row] for row in rows)
        return Ranking(ranked, 1.0 / places if values is None else values[rows])

    def _key(self, found: NodeWithScore) -> str:
        names = self._names(found.node)
        at = next((self._places[name] for name in names if name in self._places), len(self.found))
        if at == len(self.found):
            self.found.append(found)
            self.scores.append({})
        for name in names:
            self._places.setdefault(name, at)
        self.scores[at] |= scores_of(found)
        return str(at)

    def _names(self, node: BaseNode) -> list[tuple[str, str]]:
        value = None if self._id_key is None else node.metadata.get(self._id_key)
        if value is not None:
            return [("key", str(value))]
        return [("id", node.node_id), ("hash", node.hash)]


def _descending(found: Sequence[NodeWithScore]) -> Floats | None:
    """Return a leg's scores (n,), or None where they say nothing about the leg's order."""
    values = np.array([np.nan if one.score is None else one.score for one in found], np.float64)
    ordered = np.all(np.isfinite(values)) and np.all(np.diff(values) <= 0)
    return values if ordered else None
