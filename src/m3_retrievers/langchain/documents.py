"""LangChain's documents from and to what the core speaks.

An index keeps and returns copies of metadata; documents that come from elsewhere are copied here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any
from uuid import uuid4

from langchain_core.documents import Document

from m3_retrievers.errors import InputError
from m3_retrievers.frameworks.fused import Found
from m3_retrievers.frameworks.inputs import check_all
from m3_retrievers.frameworks.scores import ScoreStyle, order_score, read_scores, write_scores
from m3_retrievers.index.base import Index
from m3_retrievers.langchain.checks import check_documents
from m3_retrievers.types.hits import Hit, Ranking, Record


def make_documents(
    texts: Iterable[str],
    metadatas: Sequence[Mapping[str, Any]] | None = None,
    ids: Sequence[str | None] | None = None,
) -> list[Document]:
    """Return a document a text.

    Raises InputError for what is no text, and unless metadatas and ids match in number.
    """
    texts = check_all(
        texts,
        str,
        name="texts",
        plural="strings",
        remedy="For Documents use from_documents or add_documents.",
    )
    for name, given in (("metadatas", metadatas), ("ids", ids)):
        if given is not None and len(given) != len(texts):
            raise InputError(
                f"{name} expects one entry a text, got {len(given)} for {len(texts)} texts."
            )
    return [
        Document(page_content=text, metadata=dict(metadata), id=id)
        for text, metadata, id in zip(
            texts, metadatas or [{}] * len(texts), ids or [None] * len(texts), strict=True
        )
    ]


def to_records(
    documents: Iterable[Document], ids: Sequence[str | None] | None = None
) -> list[Record]:
    """Return a record a document, its id the given one, its own, or a new random one."""
    documents = check_documents(documents)
    if ids is not None and len(ids) != len(documents):
        raise InputError(
            f"ids expects one entry a document, got {len(ids)} for {len(documents)} documents."
        )
    return [
        Record(id or document.id or str(uuid4()), document.page_content, document.metadata)
        for document, id in zip(documents, ids or [None] * len(documents), strict=True)
    ]


def to_document(record: Record | Hit) -> Document:
    """Return a document with the record's id, text and metadata."""
    return Document(id=record.id, page_content=record.text, metadata=dict(record.metadata))


def from_hit(hit: Hit) -> Document:
    """Return a hit's document, its scores in ``metadata["scores"]``."""
    metadata = {**hit.metadata, "scores": dict(hit.scores)}
    return Document(id=hit.id, page_content=hit.text, metadata=metadata)


def from_ranking(index: Index, ranking: Ranking, mode: str) -> list[Document]:
    """Return the documents of one leg's ranking, in its order, each with that leg's score."""
    score_of = dict(zip(ranking.ids, ranking.scores.tolist(), strict=True))
    return [
        Document(
            id=record.id,
            page_content=record.text,
            metadata={**record.metadata, "scores": {mode: score_of[record.id]}},
        )
        for record in index.get(ranking.ids)
    ]


def scored(
    document: Document, scores: Mapping[str, float], style: ScoreStyle, **metadata: Any
) -> Document:
    """Return a copy with scores beside those it had, and more metadata; "off" adds nothing."""
    kept = deepcopy(document.metadata)
    if style != "off":
        kept = write_scores({**kept, **metadata}, {**read_scores(kept), **scores}, style)
    return document.model_copy(update={"metadata": kept})


def restyled(document: Document, style: ScoreStyle) -> Document:
    """Return a copy whose metadata show their scores in this style."""
    metadata = write_scores(document.metadata, read_scores(document.metadata), style)
    return document.model_copy(update={"metadata": metadata})


def to_found(document: Document) -> Found[Document]:
    """Return what fusing reads of a document that some retriever returned."""
    return Found(
        document,
        document.id,
        document.page_content,
        document.metadata,
        order_score(document.metadata),
    )
