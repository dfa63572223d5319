"""How a collection of Qdrant's keeps vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from m3_retrievers.errors import InputError

Precision: TypeAlias = Literal["float32", "float16"]
Quantization: TypeAlias = Literal["scalar", "binary"]


@dataclass(frozen=True, slots=True)
class QdrantStorage:
    """The precision of vectors in a collection, fixed when it is made.

    dense, colbert: ``"float32"`` or ``"float16"``. quantization: of the dense vectors that
    recall reads, ``"scalar"`` (a byte a dimension), ``"binary"`` (a bit) or None; scores
    always come from the vectors themselves, so it can cost recall and nothing else.

    Raises InputError for another value.

    >>> QdrantStorage(quantization="scalar").colbert
    'float16'
    """

    dense: Precision = "float32"
    colbert: Precision = "float16"
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        for name in ("dense", "colbert"):
            value = getattr(self, name)
            if value not in ("float32", "float16"):
                raise InputError(f"{name} expects 'float32' or 'float16', got {value!r:.80}.")
        if self.quantization not in (None, "scalar", "binary"):
            raise InputError(
                f"quantization expects 'scalar', 'binary' or None, got {self.quantization!r:.80}."
            )

    def state(self) -> dict[str, Any]:
        """Return it as JSON, from which ``QdrantStorage(**state)`` makes it again."""
        return {"dense": self.dense, "colbert": self.colbert, "quantization": self.quantization}
