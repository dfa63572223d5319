"""What callers hand in, checked before anything is done with it.

Every message says what was expected, what came, and what to do about it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence, Set
from importlib.util import find_spec

import numpy as np

from m3_retrievers.errors import DuplicateIdError, InputError, MissingExtraError


def check_k(k: int, *, name: str = "k") -> None:
    """Raise InputError unless k is an integer of at least 1."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InputError(f"{name} expects an integer of at least 1, got {k!r}.")


def check_ids(ids: Iterable[str], *, name: str) -> list[str]:
    """Return ids as a list; InputError for one string, None, or an id that is no string."""
    if isinstance(ids, str):
        raise InputError(f"{name} expects a list of ids, got one string {ids!r:.80}: wrap it.")
    if not isinstance(ids, Iterable):
        raise InputError(f"{name} expects a list of ids, got {ids!r:.80}. Name them in a list.")
    checked = list(ids)
    for position, id in enumerate(checked):
        if not isinstance(id, str):
            raise InputError(
                f"{name} expects ids that are strings, got {type(id).__name__} ({id!r:.60}) at "
                f"position {position}. Write str(id); add() returned those that are stored."
            )
    return checked


def check_text(text: str) -> None:
    """Raise InputError unless a query is one string."""
    if not isinstance(text, str):
        raise InputError(
            f"A query expects one string, got {type(text).__name__} ({text!r:.60}). Pick the text; "
            "several queries go into the method for many."
        )


def check_known(ids: Iterable[str], index: Container[str]) -> None:
    """Raise InputError for the first id that an index does not hold."""
    unknown = next((id for id in ids if id not in index), None)
    if unknown is not None:
        raise InputError(f"expected ids of the index, got {unknown!r:.80}.")


def check_new(ids: Iterable[str], index: Container[str]) -> None:
    """Raise DuplicateIdError for the first id that an index holds already."""
    known = next((id for id in ids if id in index), None)
    if known is not None:
        raise DuplicateIdError(
            f"add expects new ids, got {known!r:.80}, which is in the index. "
            "Use upsert to replace it, or another id."
        )


def check_distinct(ids: Sequence[str]) -> None:
    """Raise DuplicateIdError for the first id that comes twice."""
    if len(set(ids)) != len(ids):
        repeated = next(id for id, count in Counter(ids).items() if count > 1)
        raise DuplicateIdError(f"expected each id once in a call, got {repeated!r:.80} twice.")


def check_texts(texts: Sequence[str]) -> list[str]:
    """Return the texts as a list; InputError names the first that is not a string."""
    if isinstance(texts, str):
        raise InputError(
            f"expected a list of texts, got one string ({texts[:40]!r}). "
            "Pass [text]; one query has a method of its own."
        )
    if isinstance(texts, Mapping | Set) or not isinstance(texts, Iterable):
        raise InputError(
            f"expected a list of texts, got {type(texts).__name__} ({texts!r:.40}). Pass a list."
        )
    checked = list(texts)
    for position, text in enumerate(checked):
        if not isinstance(text, str):
            raise InputError(
                f"expected a list of strings, got {type(text).__name__} ({text!r:.60}) at position "
                f"{position}. Drop it or turn it into a string first."
            )
    # a numpy array's strings are of a class of its own, which would be stored
    return [text if type(text) is str else str(text) for text in checked]


def check_same_width(what: str, queries: int, documents: int) -> None:
    """Raise InputError unless queries and documents have vectors of one width."""
    if queries != documents:
        raise InputError(
            f"{what} expects queries and documents of one width, got {queries} and {documents}. "
            "Encode both with the same model and settings."
        )


def require_package(package: str, *, module: str, extra: str, purpose: str) -> None:
    """Raise MissingExtraError, with the pip command, unless ``module`` can be imported.

    Looks for the module without importing it. package: its name on the package index.

    >>> require_package("numpy", module="numpy", extra="all", purpose="Counting")
    """
    try:
        found = find_spec(module)
    except ModuleNotFoundError:  # of a dotted name, what comes before the last dot
        found = None
    if found is None:
        raise MissingExtraError(package=package, extra=extra, purpose=purpose)
