"""Dense search with a first look in int8 gives what reading every row gives, to the bit."""

import numpy as np
import pytest

from m3_retrievers.index.stores import dense, quantised
from m3_retrievers.index.stores.dense import DenseIndex
from m3_retrievers.index.stores.quantised import QuantisedRows
from m3_retrievers.scoring import int8

KERNELS = {"torch": (int8.by_torch, int8.LARGEST), "numba": int8._compiled()}


def units(count, *, width=24, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(params=KERNELS)
def looking(request, monkeypatch):
    """Let indexes look first from 64 rows on, with either kernel."""
    kernel = KERNELS[request.param]
    if kernel is None:
        pytest.skip("numba, an extra that makes it faster, is not installed")
    if request.param == "numba":
        kernel = (kernel, 4_096)
    monkeypatch.setattr(dense, "_QUANTISED_FROM", 64)
    monkeypatch.setattr(dense, "_REREAD_COST", 0)
    for module in (dense, quantised):
        monkeypatch.setattr(module, "int_products", lambda width: kernel)


@pytest.mark.parametrize("k", [1, 10, 500])
def test_the_best_are_those_of_a_full_scan_bit_by_bit(looking, k):
    rows = np.concatenate([units(300), units(20, seed=1), units(300)[::-1]])  # ties as well
    rows[7] = 0
    index, plain = DenseIndex(rows[:100]), DenseIndex(rows)
    for first in range(100, len(rows), 130):
        index.append(rows[first : first + 130])
    plain._first_look = None
    admitted = np.arange(len(rows)) % 3 > 0
    for query in (rows[3], units(1, seed=9)[0], np.zeros(24, np.float32)):
        for mask in (None, admitted):
            found, expected = (one.search(query, k=k, admitted=mask) for one in (index, plain))
            assert index._first_look is not None
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_array_equal(found[1], expected[1])


def test_few_rows_are_read_again(looking):
    rows = units(4_000, width=64)
    look = QuantisedRows(width=64)
    look.append(rows)
    assert len(look.candidates(rows[5], k=10)) < 400


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_multiplies_exactly(name):
    if KERNELS[name] is None:
        pytest.skip("numba, an extra that makes it faster, is not installed")
    if name == "torch" and not int8._torch_holds():
        pytest.skip("this machine's products of int8 saturate, so they are not used")
    product = int8.by_torch if name == "torch" else KERNELS[name]
    rng = np.random.default_rng(0)
    rows = rng.integers(-127, 128, (70, 48), np.int8)
    rows[0] = 127
    for query in (rng.integers(-127, 128, 48), np.full(48, 127)):
        np.testing.assert_array_equal(product(rows, query), rows.astype(np.int64) @ query)
