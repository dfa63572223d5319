"""What goes into an index and what a search returns: records, queries, rankings, hits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias, overload

from m3_retrievers.checks import require_package
from m3_retrievers.errors import InputError
from m3_retrievers.habits import guided
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.representations import Representations

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

Metadata: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """A document as an index keeps it: id, text, metadata (JSON values)."""

    id: str
    text: str
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A question on its way through the index: its text and its one-row representations."""

    text: str
    representations: Representations = field(default_factory=Representations)


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """A ranked list: ids best first, scores (n,) descending; ties in order of insertion."""

    ids: tuple[str, ...]
    scores: Floats

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.scores):
            raise InputError(
                f"Ranking expects a score for each id, got {len(self.ids)} ids and "
                f"{len(self.scores)} scores."
            )

    def __len__(self) -> int:
        return len(self.ids)

    def head(self, k: int) -> Ranking:
        """Return the first k places."""
        return Ranking(self.ids[:k], self.scores[:k])


@guided(page_content="text", document="text", content="text", page="text", node="text")
@dataclass(frozen=True, slots=True)
class Hit:
    """One answer of a search.

    score is what the list is ordered by. scores holds each mode's own score under its
    name (dense, sparse or bm25, colbert) and the sum under ``hybrid`` (or ``fusion``);
    ranks holds the place, from 1, that each of these gives the hit among the candidates;
    contributions holds each mode's weighted share: they add up to ``score``.
    """

    id: str
    text: str
    score: float
    metadata: Metadata = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)
    contributions: Mapping[str, float] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        from m3_retrievers.display import markup

        return markup.hits([self])


@guided(ids="[hit.id for hit in hits]", texts="[hit.text for hit in hits]")
class Hits(list[Hit]):
    """A list of hits, best first, that notebooks show as a table.

    >>> found = Hits([Hit("a", "x", 2.0), Hit("b", "y", 1.0)])
    >>> found == list(found), type(found[:1]).__name__, found[1].id
    (True, 'Hits', 'b')
    """

    @overload
    def __getitem__(self, at: SupportsIndex) -> Hit: ...
    @overload
    def __getitem__(self, at: slice) -> Hits: ...
    def __getitem__(self, at: SupportsIndex | slice) -> Hit | Hits:
        """Return one hit, or some of them, which notebooks show as a table too."""
        if isinstance(at, slice):
            return Hits(super().__getitem__(at))
        return super().__getitem__(at)

    def to_pandas(self) -> DataFrame:
        """Return a pandas DataFrame with a row a hit, indexed by its place from 1 (``place``).

        Columns: id, score and text; ``score.dense``, ``rank.dense`` and ``share.dense`` for each
        mode that some hit has (NaN, or <NA> for a rank, where another lacks it), and
        ``metadata.lang`` for each key of the metadata. Raises MissingExtraError without pandas.
        """
        require_package("pandas", module="pandas", extra="pandas", purpose="to_pandas()")
        from pandas import DataFrame, RangeIndex, Series

        place = RangeIndex(1, len(self) + 1, name="place")
        columns: dict[str, Any] = {
            name: [getattr(hit, name) for hit in self] for name in ("id", "score", "text")
        }
        for prefix, field_of, dtype in (
            ("score", "scores", "float64"),
            ("rank", "ranks", "Int64"),
            ("share", "contributions", "float64"),
            ("metadata", "metadata", None),
        ):
            rows = [getattr(hit, field_of) for hit in self]
            for key in dict.fromkeys(key for row in rows for key in row):
                values = [row.get(key) for row in rows]
                columns[f"{prefix}.{key}"] = Series(values, index=place, dtype=dtype)
        return DataFrame(columns, index=place)

    def plot(self, *, title: str | None = None, most: int = 20) -> Figure:
        """Return each mode's share of each score as stacked bars: ``display.plots.shares``."""
        from m3_retrievers.display import plots

        return plots.shares(self, title=title, most=most)

    def plot_scores(self, *, title: str | None = None) -> Figure:
        """Return how each mode's scores lie, a histogram a mode: ``display.plots.scores``."""
        from m3_retrievers.display import plots

        return plots.scores(self, title=title)

    def plot_against(
        self,
        other: Sequence[Hit],
        *,
        names: tuple[str, str] = ("first", "second"),
        title: str | None = None,
        most: int = 10,
    ) -> Figure:
        """Return these hits beside those of another search: ``display.plots.rank_changes``."""
        from m3_retrievers.display import plots

        return plots.rank_changes(self, other, names=names, title=title, most=most)

    def _repr_html_(self) -> str:
        from m3_retrievers.display import markup

        return markup.hits(self)


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """What one search found: the hits, and what each leg recalled, by the leg's name.

    An engine that searches in one request may leave ``rankings`` empty.
    """

    hits: Hits
    rankings: Mapping[str, Ranking] = field(default_factory=dict)
