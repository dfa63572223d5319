"""What the contract puts into an index: few records, small vectors, the same in every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse as sp

from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.representations import Representations

WIDTH, VOCABULARY, COUNT = 8, 50, 40

# Every kind of value that JSON has, with those that an engine's own types confuse: True with
# 1, 1 with 1.0 and "1", None with a missing field, a list with its element.
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    1.0,
    -2,
    2.5,
    1e300,
    2**53 + 1,
    10**30,
    "",
    "a",
    "A",
    "ab",
    "1",
    "true",
    "null",
    "100%_\\'\"",
    "straße",
    "STRASSE",
    "日本語 🦊",
    {},
    {"a": 1},
    {"a": {"b": [1, None]}},
    [],
    [1, 2],
    ["a", "b"],
    [1, "a", None, True],
    [[1, 2]],
    [{"a": 1}],
    [""],
)


def units(count: int, *, seed: int) -> NDArray[np.float32]:
    """Return (count, WIDTH) float32 rows of length 1."""
    rows = np.random.default_rng(seed).standard_normal((count, WIDTH)).astype(np.float32)
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def represent(count: int, *, seed: int = 0) -> Representations:
    """Return dense, sparse and ColBERT representations of ``count`` texts.

    Among them are a sparse row without a term (row 3), a term of very small weight alone in
    its row (row 5), and a text of one token (row 7).
    """
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.05, 1, (count, VOCABULARY)) * (rng.random((count, VOCABULARY)) < 0.15)
    weights[3:4] = 0
    weights[5:6] = 0
    weights[5:6, VOCABULARY - 1] = 1e-4
    lengths = rng.integers(1, 6, count)
    lengths[7:8] = 1
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Representations(
        dense=units(count, seed=seed + 1),
        sparse=sp.csr_array(weights.astype(np.float32)),
        colbert=MultiVectors(units(int(ends[-1]), seed=seed + 2), ends),
    )


def records(count: int, *, first: int = 0) -> list[Record]:
    """Return records d00, d01, …: their ids stand in order of insertion."""
    return [
        Record(
            f"d{number:02}",
            f"text number {number}",
            {"number": number, "even": number % 2 == 0, "tags": ["all", f"tag{number % 5}"]},
        )
        for number in range(first, first + count)
    ]


def question(seed: int = 100) -> Query:
    """Return a query of three tokens, with terms, the last of the vocabulary among them."""
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.1, 1, (1, VOCABULARY)) * (rng.random((1, VOCABULARY)) < 0.3)
    weights[0, -1] = 0.5
    return Query(
        f"question {seed}",
        Representations(
            dense=units(1, seed=seed + 1),
            sparse=sp.csr_array(weights.astype(np.float32)),
            colbert=MultiVectors.from_rows([units(3, seed=seed + 2)]),
        ),
    )


def valued(values: Sequence[Any] = VALUES) -> list[Record]:
    """Return a record a value, under ``value``, and one without that field."""
    about: list[Mapping[str, Any]] = [{"value": value, "other": 1} for value in values]
    return [Record(f"v{at:02}", "", data) for at, data in enumerate([*about, {"other": 1}])]


def nested(levels: int) -> Any:
    """Return a value of so many levels, mappings and lists in turn."""
    value: Any = "deep"
    for level in range(levels):
        value = [value] if level % 2 else {"in": value}
    return value
