"""What an engine is asked and answers: the few shapes of Qdrant's that an index needs.

Both engines, the embedded one and the client of a server, have classes of their own for the
same things; ``edge`` and ``client`` translate these records into them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from m3_retrievers.index.qdrant.options import QdrantStorage

# Conditions


@dataclass(frozen=True, slots=True)
class Match:
    """The payload's list under ``key`` holds one of these strings."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """One of the numbers under ``key`` lies within the bounds; None does not bound."""

    key: str
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None


@dataclass(frozen=True, slots=True)
class Nested:
    """One of the objects in the list under ``key`` passes the part, whose keys are its own."""

    key: str
    part: Clause


@dataclass(frozen=True, slots=True)
class HasId:
    """The point is one of these."""

    points: frozenset[str]


@dataclass(frozen=True, slots=True)
class Every:
    """All parts hold; without parts, everything passes."""

    parts: tuple[Clause, ...] = ()


@dataclass(frozen=True, slots=True)
class Some:
    """One of the parts holds; there is at least one."""

    parts: tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class Never:
    """The part does not hold."""

    part: Clause


Clause: TypeAlias = "Match | Span | Nested | HasId | Every | Some | Never"
EVERYTHING = Every()


# Points


@dataclass(frozen=True, slots=True)
class Terms:
    """A sparse vector: ascending indices and their values, at least one."""

    indices: list[int]
    values: list[float]


Vector: TypeAlias = "list[float] | list[list[float]] | Terms"


@dataclass(frozen=True, slots=True)
class Point:
    """A record as a collection holds it: a UUID, vectors by name, payload."""

    id: str
    vectors: Mapping[str, Vector]
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """A point that came back, with what was asked of it; score: of a search."""

    id: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    score: float = 0.0


def found(point: Any) -> Found:
    """Return a point that came back, as the classes of both engines have it."""
    vectors = point.vector if isinstance(point.vector, dict) else {}
    return Found(
        id=str(point.id),
        payload=point.payload or {},
        vectors={name: _read(vector) for name, vector in vectors.items()},
        score=float(getattr(point, "score", 0.0)),
    )


def _read(vector: Any) -> Vector:
    if hasattr(vector, "indices"):
        return Terms(list(vector.indices), list(vector.values))
    return vector  # type: ignore[no-any-return]


# Searches


@dataclass(frozen=True, slots=True)
class Nearest:
    """The points whose vector ``using`` scores best, at most ``limit``.

    among: searches whose finds alone are scored. original: score by the vectors themselves,
    where a quantised copy would serve otherwise. payload: fields to come back, None for all.
    """

    using: str
    vector: Vector
    limit: int
    filter: Clause = EVERYTHING
    among: tuple[Nearest, ...] = ()
    exact: bool = False
    original: bool = False
    payload: tuple[str, ...] | None = ()


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """The points whose sum of weighted scores is best; a leg that lacks a point counts as 0."""

    legs: tuple[Nearest, ...]
    weights: tuple[float, ...]
    limit: int


# A collection


@dataclass(frozen=True, slots=True)
class Layout:
    """What a collection holds of each record: widths by output, and BM25's weights or none."""

    widths: Mapping[str, int]
    bm25: bool
    storage: QdrantStorage


class Engine(Protocol):
    """A collection, wherever it lies. Every call may raise IndexUnavailableError."""

    place: str
    # whether a request travels: one that answers everything is then worth more work
    remote: bool

    def read_note(self) -> dict[str, Any]:
        """Return the JSON kept beside the points; {} where there is none.

        ``{"foreign": True}`` of a collection that something else has made.
        """
        ...

    def write_note(self, note: Mapping[str, Any]) -> None:
        """Keep JSON beside the points, or, as long as there is no collection, in its place."""
        ...

    def create(self, layout: Layout, note: Mapping[str, Any]) -> None:
        """Make the collection; one that another process has just made is left as it is."""
        ...

    def index_numbers(self, key: str) -> None:
        """Index the numbers under a key of the payload; once more is no error."""
        ...

    def count(self) -> int: ...

    def upsert(self, points: Sequence[Point], *, only_new: bool) -> None:
        """Write points, durably; only_new: those whose id is there stay as they are."""
        ...

    def delete(self, clause: Clause) -> None:
        """Remove the points under a clause, durably."""
        ...

    def retrieve(
        self, ids: Sequence[str], *, payload: tuple[str, ...] | None, vectors: Sequence[str] = ()
    ) -> dict[str, Found]:
        """Return the points that are there, by id; payload: fields, None for all of them."""
        ...

    def scroll(
        self, clause: Clause, *, limit: int, payload: tuple[str, ...], newest: bool = False
    ) -> list[Found]:
        """Return the first points under a clause, by ``n``; newest: the last ones."""
        ...

    def query(self, searches: Sequence[Nearest | WeightedSum]) -> list[list[Found]]:
        """Return what each search finds, best first: all of them in one request."""
        ...

    def optimize(self) -> None:
        """Merge what was written and build indices, where the engine does not by itself."""
        ...

    def close(self) -> None: ...
