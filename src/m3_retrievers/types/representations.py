"""What the encoder makes of texts: dense vectors, term weights, token vectors.

Axis letters, the same in every file: q queries, d documents, i query tokens,
j document tokens, h dimension, v vocabulary, n rows, t packed tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse as sp

from m3_retrievers.errors import InputError, MissingOutputError
from m3_retrievers.habits import guided
from m3_retrievers.types.packed import MultiVectors, TokenTable

Output: TypeAlias = Literal["dense", "sparse", "colbert", "tokens"]

ALL_OUTPUTS: tuple[Output, ...] = ("dense", "sparse", "colbert")


@guided(
    dense_vecs="dense",
    lexical_weights="to_flag_embedding()",
    colbert_vecs="colbert",
    shape="dense.shape",
)
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
        if isinstance(rows, str):
            raise InputError(
                f"Representations expects row numbers, got {rows!r:.60}. Its outputs are "
                "attributes: .dense, .sparse, .colbert; FlagEmbedding's: .to_flag_embedding()."
            )
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
