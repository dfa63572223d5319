"""The score of each mode by itself: inner products of vectors, of term weights, MaxSim."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse as sp

from m3_retrievers.checks import check_same_width
from m3_retrievers.errors import InputError
from m3_retrievers.scoring.late_interaction import maxsim
from m3_retrievers.types.packed import Floats
from m3_retrievers.types.representations import Representations


def dense(queries: Floats, documents: Floats) -> Floats:
    """Return (q, d) inner products of unit vectors (q, h) and (d, h), in -1 to 1.

    >>> dense(np.array([[1.0, 0.0]]), np.array([[0.6, 0.8], [0.0, 1.0]])).tolist()
    [[0.6, 0.0]]
    """
    check_same_width("dense", queries.shape[1], documents.shape[1])
    return queries @ documents.T


def lexical(queries: sp.csr_array, documents: sp.csr_array) -> NDArray[np.float64]:
    """Return (q, d) sums of products of the weights of shared terms, ≥ 0, not normalised.

    queries (q, v) and documents (d, v) are CSR.

    >>> q, d = sp.csr_array([[0.0, 2.0, 1.0]]), sp.csr_array([[5.0, 3.0, 0.0]])
    >>> lexical(q, d).tolist()
    [[6.0]]
    """
    check_same_width("sparse", queries.shape[1], documents.shape[1])
    return np.asarray((queries.astype(np.float64) @ documents.T).toarray())


def by_mode(mode: str, queries: Representations, documents: Representations) -> Floats:
    """Return (q, d) scores of one mode, ``"dense"``, ``"sparse"`` or ``"colbert"``.

    Raises MissingOutputError where either side lacks that output.
    """
    if mode == "dense":
        return dense(queries.require("dense"), documents.require("dense"))
    if mode == "sparse":
        return lexical(queries.require("sparse"), documents.require("sparse"))
    if mode == "colbert":
        return maxsim(queries.require("colbert"), documents.require("colbert"))
    raise InputError(f"mode expects 'dense', 'sparse' or 'colbert', got {mode!r}.")
