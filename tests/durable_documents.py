"""Small documents with representations of all kinds, the same for the same numbers."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse as sp

from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.representations import Representations

WORDS = ["alder", "birch", "cedar", "elder", "fir", "hazel", "larch", "maple", "oak", "pine"]
VOCABULARY = 40


def records(ids: Sequence[str], *, seed: int = 0) -> list[Record]:
    rng = np.random.default_rng([seed, len(ids)])
    return [
        Record(id, " ".join(rng.choice(WORDS, rng.integers(0, 9))), {"year": int(rng.integers(6))})
        for id in ids
    ]


def representations(count: int, *, seed: int = 0, width: int = 4) -> Representations:
    rng = np.random.default_rng([seed, count, 1])
    tokens = [
        rng.standard_normal((int(rng.integers(0, 5)), width)).astype(np.float32)
        for _ in range(count)
    ]
    # not scipy's random_array, whose argument for the generator has another name before 1.15
    sparse = rng.random((count, VOCABULARY)) * (rng.random((count, VOCABULARY)) < 0.2)
    return Representations(
        dense=rng.standard_normal((count, width)).astype(np.float32),
        sparse=sp.csr_array(sparse.astype(np.float32)),
        colbert=MultiVectors.from_rows(tokens, dimension=width),
    )


def put(index, ids: Sequence[str], *, seed: int = 0) -> None:
    index.upsert(records(ids, seed=seed), representations(len(ids), seed=seed))


QUERY = Query("oak birch larch unknown pine", representations(1, seed=99))
