"""The arrays that an index is written as, row by row of the index: chosen and joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse as sp

from m3_retrievers.index.stores.weighted import csr_arrays, csr_of

Arrays: TypeAlias = Mapping[str, NDArray[Any]]

# What has one entry for all rows.
_SHARED = {"colbert.width"}


def chosen(arrays: Arrays, rows: NDArray[np.integer[Any]]) -> dict[str, NDArray[Any]]:
    """Return some rows (r,) of arrays that have a row each along their first axis, or are CSR."""
    kept: dict[str, NDArray[Any]] = {}
    for name, array in arrays.items():
        family, _, part = name.partition(".")
        if family in _csr(arrays):
            if part == "data":
                kept |= csr_arrays(family, sp.csr_array(csr_of(family, arrays)[rows]))
        else:
            kept[name] = array if name in _SHARED else array[rows]
    return kept


def joined(parts: Sequence[Arrays]) -> dict[str, NDArray[Any]]:
    """Return the rows of several parts behind each other; a CSR matrix as wide as the widest."""
    whole: dict[str, NDArray[Any]] = {}
    matrices = _csr(parts[0])
    for name in parts[0]:
        family, _, part = name.partition(".")
        if family in matrices:
            if part == "data":
                whole |= csr_arrays(family, _stacked([csr_of(family, arrays) for arrays in parts]))
        elif name in _SHARED:
            whole[name] = parts[0][name]
        else:
            whole[name] = np.concatenate([arrays[name] for arrays in parts])
    return whole


def _csr(arrays: Arrays) -> set[str]:
    """Return the names under which the arrays hold CSR matrices."""
    return {name.removesuffix(".indptr") for name in arrays if name.endswith(".indptr")}


def _stacked(matrices: Sequence[sp.csr_array]) -> sp.csr_array:
    width = max(matrix.shape[1] for matrix in matrices)
    wide = [
        sp.csr_array((m.data, m.indices, m.indptr), shape=(m.shape[0], width)) for m in matrices
    ]
    return sp.csr_array(sp.vstack(wide, format="csr"))
