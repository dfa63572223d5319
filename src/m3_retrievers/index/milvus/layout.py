"""What an index keeps of a document in Milvus, and as which fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from m3_retrievers.errors import IndexCorruptError, InputError
from m3_retrievers.index.milvus.rows import MOST_BYTES, dense_matrix, sparse_matrix, sparse_rows
from m3_retrievers.types.packed import MultiVectors, offsets_of
from m3_retrievers.types.representations import ALL_OUTPUTS, Output, Representations

Colbert: TypeAlias = Literal["beside", "engine", "recompute"]
Row: TypeAlias = dict[str, Any]

# Vectors of one document that an array of structs takes.
_MOST_VECTORS = 4096
# Both are exact: every vector is compared, and no small term is left out.
_EXACT: dict[str, dict[str, Any]] = {
    "dense": {"index_type": "FLAT", "metric_type": "IP"},
    "sparse": {
        "index_type": "SPARSE_INVERTED_INDEX",
        "metric_type": "IP",
        "params": {"drop_ratio_build": 0.0},
    },
}
# For arrays of vectors there is no exact index; scores of named documents do not need one.
_GRAPH: dict[str, Any] = {
    "index_type": "HNSW",
    "metric_type": "MAX_SIM_IP",
    "params": {"M": 16, "efConstruction": 200},
}
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """How an index's documents lie in Milvus.

    stored: the outputs that are kept. widths: of each of them, known from the first documents
    on. colbert: ``"beside"`` in parts, or ``"engine"``, an array of vectors that Milvus scores.
    """

    stored: tuple[Output, ...]
    colbert: Colbert
    widths: Mapping[str, int]

    @property
    def parts(self) -> bool:
        """Whether ColBERT vectors are kept as parts beside the documents."""
        return "colbert" in self.stored and self.colbert == "beside"

    @property
    def arrays(self) -> bool:
        """Whether ColBERT vectors are kept as an array of vectors."""
        return "colbert" in self.stored and self.colbert == "engine"

    def to_record(self) -> dict[str, Any]:
        """Return the layout as JSON."""
        return {"format": _FORMAT, **asdict(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], *, place: str) -> Layout:
        """Return the layout that ``to_record`` wrote; IndexCorruptError for anything else."""
        try:
            stored, widths = tuple(record["stored"]), dict(record["widths"])
            whole = record["format"] == _FORMAT and set(stored) == set(widths)
            if whole and set(stored) <= set(ALL_OUTPUTS):
                return cls(stored, record["colbert"], widths)
        except (KeyError, TypeError, ValueError):
            pass
        raise IndexCorruptError(
            f"expected an index of this version of m3-retrievers at {place!r}, got the settings "
            f"{dict(record)!r:.200}. Open it with the version that wrote it, or choose another "
            "collection."
        )

    def agrees(self, other: Layout) -> bool:
        """Return whether ColBERT vectors lie in another layout as they were asked for here."""
        if self.colbert == "recompute" or "colbert" not in other.stored:
            return self.colbert == "recompute" and "colbert" not in other.stored
        return self.colbert == other.colbert

    # The collection

    def fields(self) -> list[dict[str, Any]]:
        """Return the collection's fields, types by their names in pymilvus."""
        fields: list[dict[str, Any]] = [
            {"field_name": "key", "datatype": "VARCHAR", "max_length": 64, "is_primary": True},
            {"field_name": "place", "datatype": "INT64"},  # in order of insertion
            *(text_field(name) for name in ("id", "text", "metadata", "facts")),
            {"field_name": "orders", "datatype": "JSON"},
            {"field_name": "parts", "datatype": "INT64"},  # rows of the other collection
            {"field_name": "long", "datatype": "INT64"},  # bytes of them that are text and metadata
        ]
        if "dense" in self.stored:
            dense = {"field_name": "dense", "datatype": "FLOAT_VECTOR", "dim": self.widths["dense"]}
            fields.append(dense)
        if "sparse" in self.stored:
            fields.append({"field_name": "sparse", "datatype": "SPARSE_FLOAT_VECTOR"})
        return fields

    def vectors(self) -> dict[str, Any] | None:
        """Return the array of vectors among the fields; None where there is none."""
        if not self.arrays:
            return None
        width = self.widths["colbert"]
        return {"field_name": "colbert", "dim": width, "max_capacity": _MOST_VECTORS}

    def indexes(self) -> list[dict[str, Any]]:
        """Return the indexes of the fields."""
        made = [{"field_name": name, **_EXACT[name]} for name in self.stored if name in _EXACT]
        return [*made, {"field_name": "colbert[v]", **_GRAPH}] if self.arrays else made

    # Representations

    def row_bytes(self, representations: Representations) -> int:
        """Return how many bytes the largest row has on its way, about."""
        dense = 5 * self.widths.get("dense", 0)
        most = 0
        if self.arrays and representations.colbert is not None and len(representations):
            longest = int(representations.colbert.lengths.max())
            if longest > _MOST_VECTORS:
                raise InputError(
                    f"Milvus keeps at most {_MOST_VECTORS:,} vectors of a document, got "
                    f'{longest:,}. Cut it into passages, or open the index with colbert="beside".'
                )
            most = 4 * longest * self.widths["colbert"]
        return 2 * MOST_BYTES + dense + most

    def rows(self, representations: Representations) -> list[Row]:
        """Return the fields of each document's representations."""
        columns: dict[str, Sequence[Any]] = {}
        if "dense" in self.stored:
            columns["dense"] = representations.require("dense").astype(np.float32).tolist()
        if "sparse" in self.stored:
            columns["sparse"] = sparse_rows(representations.require("sparse"))
        if self.arrays:
            columns["colbert"] = [
                [{"v": vector} for vector in vectors.astype(np.float32)]
                for vectors in representations.require("colbert")
            ]
        count = len(representations)
        return [{name: column[row] for name, column in columns.items()} for row in range(count)]

    def blobs(self, representations: Representations) -> list[bytes]:
        """Return each document's ColBERT vectors as they are kept beside it, in float16."""
        if not self.parts:
            return [b""] * len(representations)
        colbert: MultiVectors = representations.require("colbert")
        return [vectors.astype("<f2").tobytes() for vectors in colbert]

    def representations(self, rows: Sequence[Row], outputs: Sequence[Output]) -> Representations:
        """Return what is kept of rows that were read, whole."""
        made: dict[str, Any] = {}
        if "dense" in outputs:
            made["dense"] = dense_matrix(
                [row["dense"] for row in rows], self.widths.get("dense", 0)
            )
        if "sparse" in outputs:
            made["sparse"] = sparse_matrix(
                [row["sparse"] for row in rows], self.widths.get("sparse", 0)
            )
        if "colbert" in outputs:
            width = self.widths.get("colbert", 0)
            each = [self._vectors(row).reshape(-1, width) for row in rows]
            none = np.zeros((0, width), np.float16)
            offsets = offsets_of([len(vectors) for vectors in each])
            made["colbert"] = MultiVectors(np.concatenate([none, *each]), offsets)
        return Representations(**made)

    def _vectors(self, row: Row) -> np.ndarray[Any, Any]:
        if self.arrays:
            return np.asarray([one["v"] for one in row["colbert"]], np.float32)
        return np.frombuffer(row["blob"], "<f2", offset=row["long"])


def asked_layout(modes: Sequence[Output] | None, colbert: Colbert | None) -> Layout:
    """Return the layout of a new index; InputError for modes that Milvus cannot keep."""
    if colbert not in (None, "beside", "engine", "recompute"):
        raise InputError(
            f"colbert expects 'beside', 'engine', 'recompute' or None, got {colbert!r:.60}."
        )
    wanted = ALL_OUTPUTS if modes is None else modes
    unknown = [mode for mode in wanted if mode not in ALL_OUTPUTS]
    left_out = {"colbert"} if colbert == "recompute" else set()
    stored = tuple(mode for mode in ALL_OUTPUTS if mode in wanted and mode not in left_out)
    if isinstance(wanted, str) or unknown or not {"dense", "sparse"} & set(stored):
        raise InputError(
            f"modes expects some of {ALL_OUTPUTS}, with 'dense' or 'sparse' among them (Milvus "
            f"keeps no row without a vector), got {modes!r:.80}."
        )
    return Layout(stored, "beside" if colbert is None else colbert, {})


def text_field(name: str) -> dict[str, Any]:
    """Return a field of text, as long as Milvus takes one."""
    return {"field_name": name, "datatype": "VARCHAR", "max_length": MOST_BYTES}


def part_fields() -> list[dict[str, Any]]:
    """Return the fields of the collection of parts; Milvus has none without a vector."""
    return [
        {"field_name": "key", "datatype": "VARCHAR", "max_length": 128, "is_primary": True},
        text_field("data"),
        {"field_name": "none", "datatype": "FLOAT_VECTOR", "dim": 2},
    ]


def part_indexes() -> list[dict[str, Any]]:
    """Return the index without which Milvus reads nothing."""
    return [{"field_name": "none", **_EXACT["dense"]}]
