"""Join what foreign retrievers return: which documents are the same, and in what order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from langchain_core.documents import Document

from m3_retrievers.langchain.documents import scored, scores_of
from m3_retrievers.types.hits import Ranking
from m3_retrievers.types.plan import Fusion

# What retrievers and rerankers write into metadata: no part of a document's identity.
_WRITTEN = ("scores", "relevance_score")


def fuse(
    legs: Mapping[str, Sequence[Document]], fusion: Fusion, *, id_key: str | None = None
) -> list[Document]:
    """Return the documents of all legs, each once, best first, as copies with scores.

    Foreign legs give an order and no scores, so a document enters its leg's ranking with
    1/rank. ``metadata["scores"]`` gets ``fusion``, beside what the legs themselves wrote there.
    """
    pool = _Pool(id_key)
    rankings = {name: _ranking([pool.key(doc) for doc in found]) for name, found in legs.items()}
    fused = fusion(rankings)
    return [
        scored(pool.documents[int(key)], {**pool.scores[int(key)], "fusion": float(score)})
        for key, score in zip(fused.ids, fused.scores, strict=True)
    ]


def _ranking(keys: Sequence[str]) -> Ranking:
    once = tuple(dict.fromkeys(keys))
    return Ranking(once, 1.0 / np.arange(1, len(once) + 1))


class _Pool:
    """Gives equal documents one key, in order of first appearance.

    Two documents are the same if their ids are, or, unless both have one, if text and
    metadata are. With ``id_key``, the metadata's entry of that name takes the id's part.
    """

    def __init__(self, id_key: str | None) -> None:
        self.documents: list[Document] = []
        self.scores: list[dict[str, float]] = []
        self._id_key = id_key
        self._by_id: dict[str, int] = {}
        self._by_content: dict[str, int] = {}

    def key(self, document: Document) -> str:
        id, content = self._id(document), _content(document)
        at = self._by_id.get(id) if id is not None else None
        if at is None:
            at = self._by_content.get(content)
            if at is not None and id is not None and self._id(self.documents[at]) is not None:
                at = None  # both have ids, and they differ
        if at is None:
            at = len(self.documents)
            self.documents.append(document)
            self.scores.append({})
            self._by_content.setdefault(content, at)
        if id is not None:
            self._by_id[id] = at
            if self._id(self.documents[at]) is None:
                self.documents[at] = document
        self.scores[at] |= scores_of(document)
        return str(at)

    def _id(self, document: Document) -> str | None:
        if self._id_key is None:
            return document.id
        value = document.metadata.get(self._id_key)
        return None if value is None else str(value)


def _content(document: Document) -> str:
    metadata = {key: value for key, value in document.metadata.items() if key not in _WRITTEN}
    return json.dumps([document.page_content, metadata], sort_keys=True, default=repr)
