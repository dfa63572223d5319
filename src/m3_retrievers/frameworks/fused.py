"""Join what several retrievers of a framework return: which answers are the same, in what order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Generic, TypeVar

import numpy as np

from m3_retrievers.errors import InputError
from m3_retrievers.frameworks.scores import identity, read_scores
from m3_retrievers.types.hits import Ranking
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.plan import Fusion

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Found(Generic[Item]):
    """One retriever's answer: the framework's own object, and what fusing reads of it.

    id: None where the object has none. metadata: with the scores that the retriever left in
    it. score: what the retriever ordered by, where it says so.
    """

    item: Item
    id: str | None
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Fused(Generic[Item]):
    """One answer of them all: the object first found, and every score under its name."""

    item: Item
    score: float
    scores: Mapping[str, float]


def fuse(
    found: Mapping[str, Sequence[Found[Item]]], fusion: Fusion, *, id_key: str | None = None
) -> list[Fused[Item]]:
    """Return the answers of all retrievers, each once, best first.

    Two answers are the same if their ids are, or if text and metadata are: a store makes up an
    id where the caller gave none, and nobody can tell such an id from a given one. id_key: a
    metadata entry that decides alone for every answer that has it.

    A retriever enters the fusion with its own scores if it gives some that descend, else with
    1/rank. The ``scores`` are the retrievers' own, and ``fusion``.

    Raises InputError for an id_key that no answer has.

    >>> from m3_retrievers.scoring.fusion import ReciprocalRankFusion
    >>> one, two = Found("A", "1", "the text"), Found("B", "made-up", "the text")
    >>> [(fused.item, len(fused.scores)) for fused in fuse({"x": [one], "y": [two]},
    ...                                                     ReciprocalRankFusion())]
    [('A', 1)]
    """
    everything = list(chain.from_iterable(found.values()))
    _check_key(everything, id_key)
    numbers = iter(_numbers(everything, id_key))
    grouped = {name: [next(numbers) for _ in answers] for name, answers in found.items()}
    rankings = {name: _ranking(grouped[name], answers) for name, answers in found.items()}
    members: dict[str, list[Found[Item]]] = {}
    for number, one in zip(chain.from_iterable(grouped.values()), everything, strict=True):
        members.setdefault(number, []).append(one)
    fused = fusion(rankings)
    return [
        _joined(members[number], float(score))
        for number, score in zip(fused.ids, fused.scores, strict=True)
    ]


def _check_key(found: Sequence[Found[Item]], id_key: str | None) -> None:
    if id_key is None or not found or any(id_key in one.metadata for one in found):
        return
    keys = sorted({str(key) for one in found for key in one.metadata})
    raise InputError(
        f"id_key expects a metadata entry of what the retrievers return, got {id_key!r}, which "
        f"none of {len(found)} has. They have {keys}."
    )


def _numbers(found: Sequence[Found[Item]], id_key: str | None) -> list[str]:
    """Return for each answer the number of the first that is the same, as a ranking's id.

    What two have in common with a third makes all three the same, in whatever order they come.
    """
    parent = list(range(len(found)))

    def root(at: int) -> int:
        while parent[at] != at:
            at = parent[at]
        return at

    first: dict[tuple[str, str], int] = {}
    for at, one in enumerate(found):
        for name in _names(one, id_key):
            a, b = root(first.setdefault(name, at)), root(at)
            parent[max(a, b)] = min(a, b)
    return [str(root(at)) for at in range(len(found))]


def _names(one: Found[Item], id_key: str | None) -> Iterable[tuple[str, str]]:
    """Yield what an answer is known by: sharing one name makes two answers the same."""
    value = None if id_key is None else one.metadata.get(id_key)
    if value is not None:
        yield "key", str(value)
        return
    if one.id:
        yield "id", one.id
    yield "content", f"{one.text}\0{_canonical(identity(one.metadata))}"


def _canonical(value: object) -> str:
    """Return equal text for equal metadata, whatever the order of keys; stores return lists."""
    if isinstance(value, Mapping):
        return f"{{{','.join(sorted(f'{key!r}:{_canonical(v)}' for key, v in value.items()))}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_canonical, value))}]"
    return repr(value)


def _ranking(numbers: Sequence[str], found: Sequence[Found[Item]]) -> Ranking:
    """Return one retriever's answers, each once, with its scores or else 1/rank."""
    first = {number: row for row, number in reversed(list(enumerate(numbers)))}
    rows = sorted(first.values())
    values = _descending(found)
    ranks = np.arange(1, len(rows) + 1)
    ids = tuple(numbers[row] for row in rows)
    return Ranking(ids, 1.0 / ranks if values is None else values[rows])


def _descending(found: Sequence[Found[Item]]) -> Floats | None:
    """Return a retriever's scores (n,), or None where they say nothing about its order."""
    values = np.array([np.nan if one.score is None else one.score for one in found], np.float64)
    ordered = np.all(np.isfinite(values)) and np.all(np.diff(values) <= 0)
    return values if ordered else None


def _joined(members: Sequence[Found[Item]], score: float) -> Fused[Item]:
    """Return one answer of equal ones: the first, but one with an id before one without."""
    scores: dict[str, float] = {}
    for one in members:
        scores |= read_scores(one.metadata)
    kept = next((one for one in members if one.id), members[0])
    return Fused(kept.item, score, {**scores, "fusion": score})
