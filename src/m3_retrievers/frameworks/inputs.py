"""What a caller or a chain hands in, checked with one set of words for both frameworks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.encoder.choose import as_encoder
from m3_retrievers.errors import InputError
from m3_retrievers.index.base import Filter
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.plan import Mode

Kind = TypeVar("Kind")


def check_all(
    given: Iterable[Kind] | Any, kind: type[Kind], *, name: str, plural: str, remedy: str
) -> list[Kind]:
    """Return a list of what is all of one kind; raises InputError for anything else.

    name: the argument's. plural: how the framework calls the kind. remedy: what to do about
    something else.

    >>> check_all([1, 2], int, name="numbers", plural="integers", remedy="Round it.")
    [1, 2]
    """
    if isinstance(given, kind):
        raise InputError(
            f"{name} expects a list of {plural}, got one {type(given).__name__}. Wrap it: [it]."
        )
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InputError(f"{name} expects a list of {plural}, got {given!r:.60}. {remedy}")
    items = list(given)
    for position, item in enumerate(items):
        if not isinstance(item, kind):
            raise InputError(
                f"{name} expects {plural}, got {type(item).__name__} ({item!r:.60}) at position "
                f"{position}. {remedy}"
            )
    return items


def check_question(query: object, *, remedy: str, owner: str = "A retriever") -> str:
    """Return a question as it is; raises InputError unless it is a string."""
    if not isinstance(query, str):
        raise InputError(
            f"{owner} expects the question as a string, got {type(query).__name__} "
            f"({query!r:.60}). {remedy}"
        )
    return query


def check_leg(index: Any, mode: Mode, *, owner: str, made_by: str) -> Any:
    """Return an index that scores a mode as it is; raises InputError for anything else.

    made_by: what makes the owner of documents, for the error.
    """
    if not hasattr(index, "modes") or mode not in index.modes:
        raise InputError(
            f"{owner} expects an index that scores {mode!r}, got {index!r:.80}. To make one of "
            f"documents use {made_by}."
        )
    return index


def as_model(given: Any) -> Encoder:
    """Return an encoder as it is, the one inside embeddings or a reranker, or the one named.

    Raises InputError for anything else.
    """
    is_model = hasattr(given, "encode_documents")
    return as_encoder(given if is_model else getattr(given, "encoder", given))


def as_hybrid(
    given: Any, *, owner: str, made_by: str, embeddings: type[Any] | None = None
) -> HybridRetriever:
    """Return a HybridRetriever as it is, or a new empty one of an encoder or a model's name.

    made_by: what makes one of documents, for the error. embeddings: the framework's own class,
    of whose ``encoder`` a new one is made too. Raises InputError for anything else.
    """
    if isinstance(given, HybridRetriever):
        return given
    encoder: Any = given.encoder if embeddings and isinstance(given, embeddings) else given
    if isinstance(encoder, str | Path) or hasattr(encoder, "encode_documents"):
        return HybridRetriever(encoder)
    raise InputError(
        f"{owner} expects a HybridRetriever, an encoder or a model's name, got {given!r:.80}. Make "
        f"an empty one with {owner}('m3-mini'), or use {made_by}."
    )


def all_of(filters: Sequence[Filter | None]) -> Filter | None:
    """Return a filter that admits what every one of these admits.

    >>> all_of([{"a": 1}, None]), all_of([{"a": 1}, {"b": 2}])
    ({'a': 1}, {'$and': [{'a': 1}, {'b': 2}]})
    """
    present = [filter for filter in filters if filter]
    return {"$and": present} if len(present) > 1 else next(iter(present), None)
