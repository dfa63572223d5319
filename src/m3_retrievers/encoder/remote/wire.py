"""Representations on their way through HTTP: one safetensors body, no pickle.

``serve`` writes it and ``HttpEncoder`` reads it. Tensors: ``dense`` (n, h); ``sparse.data``,
``sparse.indices``, ``sparse.indptr``; ``colbert.vectors`` (t, h), ``colbert.offsets`` (n + 1,).
The metadata is JSON under one key: texts, vocabulary size, fingerprint, warnings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from scipy import sparse as sp

from m3_retrievers.encoder.remote.answers import numbers, unit_rows
from m3_retrievers.encoder.remote.exchange import Answer
from m3_retrievers.errors import InputError
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.representations import Output, Representations

MEDIA_TYPE = "application/vnd.m3-retrievers+safetensors"
WireType: TypeAlias = Literal["float32", "float16"]
WIRE_TYPES: tuple[WireType, ...] = ("float32", "float16")
_ABOUT = "m3_retrievers"


def packed(found: Representations, about: Mapping[str, Any], *, dtype: WireType) -> bytes:
    """Return representations as the body of an answer; about: JSON."""
    arrays: dict[str, NDArray[Any]] = {}
    if found.dense is not None:
        arrays["dense"] = found.dense.astype(dtype)
    if found.sparse is not None:
        arrays["sparse.data"] = found.sparse.data.astype(dtype)
        arrays["sparse.indices"] = found.sparse.indices.astype(np.int64)
        arrays["sparse.indptr"] = found.sparse.indptr.astype(np.int64)
    if found.colbert is not None:
        arrays["colbert.vectors"] = found.colbert.vectors.astype(dtype)
        arrays["colbert.offsets"] = found.colbert.offsets
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return bytes(save(whole, metadata={_ABOUT: json.dumps(dict(about))}))


def unpacked(
    answer: Answer, outputs: Sequence[Output], *, rows: int, widths: Mapping[Output, int]
) -> tuple[Representations, dict[str, Any]]:
    """Return the representations of n texts in an answer, and what it says about them.

    widths: of the dense and the sparse output. Raises EncoderAnswerError for anything that
    cannot be the outputs of n texts.
    """
    try:
        arrays = load(answer.content)
        size = int.from_bytes(answer.content[:8], "little")
        about = json.loads(json.loads(answer.content[8 : 8 + size])["__metadata__"][_ABOUT])
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise answer.wrong("safetensors of m3-retrievers", f"{answer.content[:40]!r}") from error
    if not isinstance(about, dict):
        raise answer.wrong("a record about the answer", f"{about!r:.60}")
    made: dict[str, Any] = {}
    if "dense" in outputs:
        shape = (rows, widths["dense"])
        dense = numbers(answer, arrays.get("dense"), shape, what="dense vectors")
        made["dense"] = _unit_or_zero(answer, dense)
    if "sparse" in outputs:
        made["sparse"] = _sparse(answer, arrays, rows, widths["sparse"])
    if "colbert" in outputs:
        made["colbert"] = _colbert(answer, arrays, rows)
    return Representations(**made), about


def check_wire_type(dtype: object) -> None:
    """Raise InputError unless a number type is one that goes through HTTP."""
    if dtype not in WIRE_TYPES:
        raise InputError(f"dtype expects one of {WIRE_TYPES}, got {dtype!r:.40}.")


def _unit_or_zero(answer: Answer, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows of length 1, but for those of texts the model cannot read, which are 0."""
    read = rows.any(axis=1)
    rows[read] = unit_rows(answer, rows[read], what="dense vectors")
    return rows


def _sparse(
    answer: Answer, arrays: Mapping[str, NDArray[Any]], rows: int, width: int
) -> sp.csr_array:
    indptr = _integers(answer, arrays.get("sparse.indptr"), rows + 1, what="sparse.indptr")
    total = int(indptr[-1])
    _check_offsets(answer, indptr, total, what="sparse.indptr")
    indices = _integers(answer, arrays.get("sparse.indices"), total, what="sparse.indices")
    data = numbers(answer, arrays.get("sparse.data"), (total,), what="term weights")
    inside = total == 0 or (indices.min() >= 0 and indices.max() < width)
    starts = np.zeros(total + 1, bool)
    starts[indptr] = True
    ascending = total == 0 or ((np.diff(indices) > 0) | starts[1:total]).all()
    if not inside or not ascending or (data < 0).any():
        raise answer.wrong(
            f"ascending columns below {width} with weights ≥ 0 in each row", "others among them"
        )
    found = sp.csr_array((data, indices, indptr), shape=(rows, width))
    found.eliminate_zeros()  # float16 has no room for the smallest weights
    return found


def _colbert(answer: Answer, arrays: Mapping[str, NDArray[Any]], rows: int) -> MultiVectors:
    given = arrays.get("colbert.vectors")
    offsets = _integers(answer, arrays.get("colbert.offsets"), rows + 1, what="colbert.offsets")
    total = int(offsets[-1])
    _check_offsets(answer, offsets, total, what="colbert.offsets")
    width = given.shape[1] if given is not None and given.ndim == 2 else None
    vectors = numbers(answer, given, (total, width), what="token vectors")
    return MultiVectors(unit_rows(answer, vectors, what="token vectors"), offsets)


def _integers(answer: Answer, found: Any, count: int, *, what: str) -> NDArray[np.int64]:
    if found is None or found.dtype != np.int64 or found.shape != (count,):
        got = "nothing" if found is None else f"{found.dtype} {found.shape}"
        raise answer.wrong(f"{what} of {count} int64", got)
    return np.asarray(found, np.int64)


def _check_offsets(answer: Answer, offsets: NDArray[np.int64], total: int, *, what: str) -> None:
    if offsets[0] != 0 or total > 2**40 or (np.diff(offsets) < 0).any():
        raise answer.wrong(f"{what} ascending from 0", f"{offsets[:5].tolist()}")
