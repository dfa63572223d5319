"""Documents whose text and representations follow from id and version, so that any loss shows."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse as sp

from m3_retrievers.index.base import Index
from m3_retrievers.types.hits import Record
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.representations import Representations

WIDTH, VOCABULARY = 8, 64


def record(id: str, version: int) -> Record:
    rng = np.random.default_rng([zlib.crc32(id.encode()), version])
    words = " ".join(f"w{number}" for number in rng.integers(0, 50, rng.integers(1, 12)))
    return Record(id, words, {"version": version})


def representations(ids: Sequence[str], version: int) -> Representations:
    dense, sparse, colbert = [], [], []
    for id in ids:
        rng = np.random.default_rng([zlib.crc32(id.encode()), version, 1])
        dense.append(rng.standard_normal(WIDTH))
        weights = np.zeros(VOCABULARY)
        weights[rng.integers(0, VOCABULARY, 6)] = rng.random(6) + 0.1
        sparse.append(weights)
        shape = (int(rng.integers(0, 6)), WIDTH)
        colbert.append(rng.standard_normal(shape).astype(np.float16))
    return Representations(
        dense=np.array(dense, np.float32).reshape(len(ids), WIDTH),
        sparse=sp.csr_array(np.array(sparse, np.float32).reshape(len(ids), VOCABULARY)),
        colbert=MultiVectors.from_rows(colbert, dimension=WIDTH),
    )


def put(index: Index, ids: Sequence[str], version: int) -> None:
    """Store documents of one version."""
    index.upsert([record(id, version) for id in ids], representations(ids, version))


def check(index: Index, versions: Mapping[str, int]) -> None:
    """Raise AssertionError unless the index holds exactly these, in this order, to the bit."""
    ids = list(versions)
    assert list(index.ids) == ids, f"ids differ: {set(index.ids) ^ set(ids)}"
    kept = index.get(ids)
    assert kept == [record(id, version) for id, version in versions.items()], "records differ"
    found = index.vectors(ids)
    for at, (id, version) in enumerate(versions.items()):
        expected = representations([id], version)
        assert np.array_equal(found.require("dense")[at], expected.require("dense")[0])
        assert np.array_equal(found.require("colbert")[at], expected.require("colbert")[0])
        row = found.require("sparse")[[at]].toarray()
        assert np.array_equal(row, expected.require("sparse").toarray())
