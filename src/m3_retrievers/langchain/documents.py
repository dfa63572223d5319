"""LangChain's documents from and to what the core speaks.

An index keeps and returns copies of metadata; documents that come from elsewhere are copied here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any
from uuid import uuid4

from langchain_core.documents import Document

from m3_retrievers.checks import check_ids
from m3_retrievers.errors import InputError
from m3_retrievers.frameworks.fused import Found
from m3_retrievers.frameworks.inputs import check_all
from m3_retrievers.frameworks.scores import ScoreStyle, order_score, read_scores, write_scores
from m3_retrievers.index.base import Index
from m3_retrievers.langchain.checks import check_documents
from m3_retrievers.types.hits import Hit, Ranking, Record


def make_documents(
    texts: Iterable[str],
    metadatas: Iterable[Mapping[str, Any] | None] | None = None,
    ids: Iterable[str | None] | None = None,
) -> list[Document]:
    """Return a document a text; None among the metadatas is none.

    Raises InputError for what is no text, and unless metadatas and ids match in number.
    """
    texts = check_all(
        texts,
        str,
        name="texts",
        plural="strings",
        remedy="For Documents use from_documents or add_documents.",
    )
    named = _one_a_text(ids, "ids", len(texts))
    described = _one_a_text(metadatas, "metadatas", len(texts))
    check_all(
        [metadata for metadata in described if metadata is not None],
        Mapping,  # type: ignore[type-abstract]
        name="metadatas",
        plural="mappings",
        remedy="Give {} or None for a text that has none.",
    )
    check_ids([id for id in named if id is not None], name="ids")
    return [
        Document(page_content=text, metadata=dict(metadata or {}), id=id)
        for text, metadata, id in zip(texts, described, named, strict=True)
    ]


def _one_a_text(given: Iterable[Any] | None, name: str, count: int) -> list[Any]:
    if given is None:
        return [None] * count
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise InputError(f"{name} expects a list with one entry a text, got {given!r:.60}.")
    entries = list(given)
    if len(entries) != count:
        raise InputError(f"{name} expects one entry a text, got {len(entries)} for {count} texts.")
    return entries


def to_records(
    documents: Iterable[Document], ids: Iterable[str | None] | None = None
) -> list[Record]:
    """Return a record a document, its id the given one, its own, or a new random one."""
    documents = check_documents(documents)
    given = [None] * len(documents) if ids is None else list(ids)
    if isinstance(ids, str) or len(given) != len(documents):
        raise InputError(
            f"ids expects one entry a document, got {len(given)} for {len(documents)} documents."
        )
    check_ids([id for id in given if id is not None], name="ids")
    return [
        Record(id or document.id or str(uuid4()), document.page_content, document.metadata)
        for document, id in zip(documents, given, strict=True)
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
