"""Token vectors as they are kept: in float32, in float16, or in int8 with a scale a vector."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.errors import InputError
from m3_retrievers.types.packed import Floats

ColbertDtype: TypeAlias = Literal["float16", "float32", "int8"]
COLBERT_DTYPES: tuple[ColbertDtype, ...] = ("float16", "float32", "int8")

# A vector in int8 is followed by its scale, a float32, in four numbers more.
_SCALE = 4
_LARGEST = 127


def check_colbert_dtype(dtype: str) -> None:
    """Raise InputError for a precision that no store keeps."""
    if dtype not in COLBERT_DTYPES:
        raise InputError(f"colbert dtype expects one of {COLBERT_DTYPES}, got {dtype!r}.")


def compressed(vectors: Floats, dtype: ColbertDtype) -> NDArray[Any]:
    """Return vectors (t, h) as they are kept: (t, h) floats, or (t, h + 4) int8.

    int8: round(v / scale), the scale such that the largest number is 127; no number moves by
    more than half a scale.

    >>> kept = compressed(np.array([[0.5, -1.0, 0.0]], np.float32), "int8")
    >>> kept[:, :3].tolist(), expanded(kept, "int8")[0, 1]
    ([[64, -127, 0]], np.float32(-1.0))
    """
    if dtype != "int8":
        return np.ascontiguousarray(vectors, dtype)
    values = vectors.astype(np.float32, copy=False)
    largest = np.abs(values).max(axis=1, initial=0, keepdims=True)
    # a vector of zeros has any scale
    scales = np.where(largest > 0, largest / _LARGEST, 1).astype(np.float32)
    kept = np.empty((len(values), values.shape[1] + _SCALE), np.int8)
    kept[:, :-_SCALE] = np.rint(values / scales).clip(-_LARGEST, _LARGEST)
    kept[:, -_SCALE:] = scales.view(np.int8)
    return kept


def expanded(kept: NDArray[Any], dtype: ColbertDtype) -> Floats:
    """Return kept vectors as floats (t, h): as they are, or of int8 as new float32."""
    if dtype != "int8":
        return kept
    vectors = kept[:, :-_SCALE].astype(np.float32)
    vectors *= scales_of(kept)
    return vectors


def scaled(kept: NDArray[np.int8]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return vectors kept in int8 as whole numbers (t, h), a view, and their scales (t, 1)."""
    return kept[:, :-_SCALE], scales_of(kept)


def scales_of(kept: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return the scales (t, 1) of vectors kept in int8."""
    scales: NDArray[np.float32] = np.ascontiguousarray(kept[:, -_SCALE:]).view(np.float32)
    return scales


def kept_width(width: int, dtype: ColbertDtype) -> int:
    """Return how many numbers a vector of ``width`` is kept in.

    >>> kept_width(384, "float16"), kept_width(384, "int8")
    (384, 388)
    """
    return width + _SCALE if dtype == "int8" else width


def width_of(kept: int, dtype: ColbertDtype) -> int:
    """Return the width of vectors that are kept in so many numbers each."""
    return kept - _SCALE if dtype == "int8" else kept


def compression_fault(kept: NDArray[Any], dtype: str) -> str | None:
    """Return what keeps vectors from being read, of a dtype that was checked; None for nothing."""
    if dtype == "int8":
        if kept.shape[1] < _SCALE:
            return f"int8 vectors expect a scale in {_SCALE} numbers, got {kept.shape[1]} in all"
        scales = scales_of(kept)
        return None if np.all((scales > 0) & np.isfinite(scales)) else "a scale is no size"
    return None if np.all(np.isfinite(kept)) else "vectors hold NaN or infinity"
