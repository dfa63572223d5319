"""What flows between the stages: frozen, validated records.

text → ``Representations`` (dense, sparse, ColBERT) → ``Ranking`` (recall) → ``Hit``.

Axis letters, the same in every file: q queries, d documents, i query tokens,
j document tokens, h dimension, v vocabulary, n rows, t packed tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, SupportsIndex, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray
from scipy import sparse as sp

from m3_retrievers import markup
from m3_retrievers.errors import InputError, MissingOutputError
from m3_retrievers.packed import Floats, MultiVectors, TokenTable

Output: TypeAlias = Literal["dense", "sparse", "colbert", "tokens"]
Mode: TypeAlias = Literal["dense", "sparse", "bm25", "colbert"]
Metadata: TypeAlias = Mapping[str, Any]

ALL_OUTPUTS: tuple[Output, ...] = ("dense", "sparse", "colbert")


@dataclass(frozen=True, slots=True, eq=False)
class Representations:
    """What the encoder makes of n texts; an output that was not asked for is None.

    dense: (n, h) float32, rows of length 1.
    sparse: CSR (n, v) float32, term weights > 0, column = vocabulary id.
    colbert: MultiVectors of n texts, vectors of length 1.
    tokens: TokenTable of n texts.

    Raises InputError where the outputs disagree about n.

    >>> dense = np.eye(3, dtype=np.float32)
    >>> reps = Representations(dense=dense)
    >>> len(reps), len(reps[:2]), reps.outputs
    (3, 2, ('dense',))
    """

    dense: NDArray[np.float32] | None = None
    sparse: sp.csr_array | None = None
    colbert: MultiVectors | None = None
    tokens: TokenTable | None = None

    def __post_init__(self) -> None:
        counts = {name: self._rows(name) for name in self.outputs}
        if len(set(counts.values())) > 1:
            raise InputError(
                f"Representations expects every output to describe the same texts, got {counts}."
            )
        if self.dense is not None and self.dense.ndim != 2:
            raise InputError(f"dense expects shape (n, h), got {self.dense.shape}.")

    def __repr__(self) -> str:
        return f"Representations(texts={len(self)}, outputs={self.outputs})"

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Names of the outputs that are present, in a fixed order."""
        names: tuple[Output, ...] = ("dense", "sparse", "colbert", "tokens")
        return tuple(name for name in names if getattr(self, name) is not None)

    def _rows(self, name: Output) -> int:
        value = getattr(self, name)
        return int(value.shape[0]) if name in ("dense", "sparse") else len(value)

    def __len__(self) -> int:
        return self._rows(self.outputs[0]) if self.outputs else 0

    def __getitem__(self, rows: int | slice | NDArray[np.integer[Any]]) -> Representations:
        """Return some of the texts; one integer gives a record of one text, never fewer axes."""
        if isinstance(rows, int | np.integer):
            rows = [range(len(self))[rows]]  # type: ignore[assignment]
        elif isinstance(rows, slice):
            rows = np.arange(len(self))[rows]
        chosen = np.asarray(rows, dtype=np.int64)
        return Representations(
            dense=None if self.dense is None else self.dense[chosen],
            sparse=None if self.sparse is None else sp.csr_array(self.sparse[chosen]),
            colbert=None if self.colbert is None else self.colbert.take(chosen),
            tokens=None if self.tokens is None else self.tokens.take(chosen),
        )

    def select(self, outputs: Sequence[Output]) -> Representations:
        """Keep only the named outputs; raises MissingOutputError if one is not there."""
        for name in outputs:
            self.require(name)
        return Representations(**{name: getattr(self, name) for name in outputs})

    def require(self, name: Output) -> Any:
        """Return one output, or raise MissingOutputError saying how to get it."""
        value = getattr(self, name)
        if value is None:
            present = ", ".join(self.outputs) or "none"
            raise MissingOutputError(
                f"This step expects the output {name!r}, got {present}. "
                f'Encode with outputs=(…, "{name}"), with a model that has that head.'
            )
        return value

    @classmethod
    def concatenate(cls, parts: Sequence[Representations]) -> Representations:
        """Join records of the same outputs, in order; no parts give an empty record."""
        if not parts:
            return cls()
        names = parts[0].outputs
        if any(part.outputs != names for part in parts):
            found = sorted({part.outputs for part in parts})
            raise InputError(f"concatenate expects the same outputs in each part, got {found}.")
        return cls(
            dense=np.concatenate([p.dense for p in parts if p.dense is not None])
            if "dense" in names
            else None,
            sparse=sp.csr_array(
                sp.vstack([p.sparse for p in parts if p.sparse is not None], format="csr")
            )
            if "sparse" in names
            else None,
            colbert=MultiVectors.concatenate([p.colbert for p in parts if p.colbert is not None])
            if "colbert" in names
            else None,
            tokens=TokenTable.concatenate([p.tokens for p in parts if p.tokens is not None])
            if "tokens" in names
            else None,
        )

    # The shapes other tools want. Every one of them accepts an empty row.

    def to_dicts(self) -> list[dict[int, float]]:
        """Return ``{vocabulary id: weight}`` a text (langchain-milvus, LlamaIndex, pymilvus)."""
        return [
            dict(zip(ids, weights, strict=True))
            for ids, weights in zip(*self.to_lists(), strict=True)
        ]

    def to_lists(self) -> tuple[list[list[int]], list[list[float]]]:
        """Return all ids and all weights, a list a text (qdrant-client, LlamaIndex's Qdrant)."""
        matrix = self.require("sparse")
        ends = matrix.indptr[1:-1]
        ids = [part.tolist() for part in np.split(matrix.indices, ends)] if len(self) else []
        weights = [part.tolist() for part in np.split(matrix.data, ends)] if len(self) else []
        return ids, weights

    def to_flag_embedding(self) -> list[dict[str, float]]:
        """Return FlagEmbedding's ``lexical_weights``: keys are ids written as strings."""
        return [{str(key): weight for key, weight in row.items()} for row in self.to_dicts()]

    def to_sparse_vectors(self, make: Callable[..., Any]) -> list[Any]:
        """Return ``make(indices=…, values=…)`` a text.

        ``make`` is the class the other library wants: langchain-qdrant's or qdrant-client's
        SparseVector, Haystack's SparseEmbedding.
        """
        return [
            make(indices=ids, values=weights) for ids, weights in zip(*self.to_lists(), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class HybridWeights:
    """How much each mode counts in the hybrid score.

    The default is what the BGE-M3 paper (arXiv 2402.03216, section 4) uses for MIRACL and
    MKQA; ``sparse`` weighs the lexical leg, M3's or BM25's.

    Raises InputError for a weight that is negative or not finite, or if all are 0.

    >>> HybridWeights(dense=0.4, sparse=0.2, colbert=0.4).total
    1.0
    """

    dense: float = 1.0
    sparse: float = 0.3
    colbert: float = 1.0

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InputError(f"weight {part.name} expects a number, got {value!r}.")
            if not math.isfinite(value) or value < 0:
                raise InputError(f"weight {part.name} expects a finite number ≥ 0, got {value!r}.")
        if self.total <= 0:
            raise InputError(
                "HybridWeights expects at least one weight above 0, got 0 for all: nothing would "
                "be scored. Give one mode a weight."
            )

    @property
    def total(self) -> float:
        return self.dense + self.sparse + self.colbert

    @classmethod
    def long_documents(cls) -> HybridWeights:
        """Return the paper's weights for MLDR, where lexical evidence carries most."""
        return cls(dense=0.15, sparse=0.5, colbert=0.35)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores of n pairs, five arrays (n,): FlagEmbedding's lists as named fields.

    dense, sparse, colbert: the three modes, unweighted. sparse_dense and
    colbert_sparse_dense: weighted sums divided by the sum of their own weights, as
    FlagEmbedding's ``compute_score`` reports them; None where the model lacks a part or its
    weights are all 0. hybrid: the weighted sum of the modes there are, not divided.
    """

    dense: Floats
    sparse: Floats | None
    colbert: Floats | None
    sparse_dense: Floats | None
    colbert_sparse_dense: Floats | None
    hybrid: Floats
    weights: HybridWeights

    def __len__(self) -> int:
        return len(self.dense)


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
        return markup.hits([self])


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

    def _repr_html_(self) -> str:
        return markup.hits(self)
