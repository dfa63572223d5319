"""Dense search with a first look in int8 gives what reading every row gives, to the bit."""

import numpy as np
import pytest

from m3_retrievers.index.stores import dense, quantised
from m3_retrievers.index.stores.dense import DenseIndex
from m3_retrievers.index.stores.quantised import QuantisedRows
from m3_retrievers.scoring import int8

KERNELS = {"torch": int8.by_torch, "numba": int8._compiled()}
LARGEST = {"torch": int8.LARGEST_IN_TWO, "numba": 32_767}


def units(count, *, width=24, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(params=KERNELS)
def looking(request, monkeypatch):
    """Let indexes look first from 64 rows on, with either kernel."""
    kernel = KERNELS[request.param]
    if kernel is None:
        pytest.skip("numba, an extra that makes it faster, is not installed")
    if request.param == "torch" and not int8._torch_holds():
        pytest.skip("this machine's products of int8 saturate, so they are not used")
    monkeypatch.setattr(dense, "_QUANTISED_FROM", 64)
    monkeypatch.setattr(dense, "_REREAD_COST", 0)
    made = int8.IntKernel(kernel, LARGEST[request.param], has_team=request.param == "torch")
    for module in (dense, quantised):
        monkeypatch.setattr(module, "int_products", lambda *_, **__: made)


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
    assert len(look.candidates(rows[5:6], k=10)[0]) < 400


def awkward_rows():
    """Return rows with ties and a row of zeros, queries and masks for them."""
    rows = np.concatenate([units(300), units(20, seed=1), units(300)[::-1]])
    rows[7] = 0
    queries = np.concatenate([rows[3:4], units(40, seed=9), np.zeros((1, 24), np.float32)])
    every_third = np.arange(len(rows)) % 3 > 0
    return rows, queries, (None, every_third, ~every_third, np.arange(len(rows)) == 11)


def check_many(index, queries, *, k, masks):
    for mask in masks:
        together = index.search_many(queries, k=k, admitted=mask)
        for query, found in zip(queries, together, strict=True):
            alone = index.search(query, k=k, admitted=mask)
            np.testing.assert_array_equal(found[0], alone[0])
            np.testing.assert_array_equal(found[1], alone[1])


@pytest.mark.parametrize("k", [1, 10, 500, None])
def test_many_queries_at_once_find_what_each_finds_bit_by_bit(looking, k, monkeypatch):
    rows, queries, masks = awkward_rows()
    index = DenseIndex(rows[:100])
    for first in range(100, len(rows), 130):
        index.append(rows[first : first + 130])
    assert index._first_look is not None
    monkeypatch.setattr(dense, "_SCORES_AT_ONCE", 5 * len(rows))
    monkeypatch.setattr(quantised, "_PRODUCTS_AT_ONCE", 100)
    check_many(index, queries, k=k, masks=masks)


@pytest.mark.parametrize("k", [1, 10, 500])
@pytest.mark.parametrize("reread", [0, dense._REREAD_COST])
def test_many_queries_at_once_need_no_first_look(k, reread, monkeypatch):
    monkeypatch.setattr(dense, "_REREAD_COST", reread)
    rows, queries, masks = awkward_rows()
    index = DenseIndex(rows * np.linspace(0.1, 3, len(rows), dtype=np.float32)[:, None])
    assert index._first_look is None
    check_many(index, queries, k=k, masks=masks)
    assert DenseIndex().search_many(queries, k=3)[0][0].tolist() == []


def test_many_queries_at_once_agree_with_brute_force(looking):
    rows, queries, _ = awkward_rows()
    index = DenseIndex(rows)
    exact = queries.astype(np.float64) @ rows.astype(np.float64).T
    for row, (found, scores) in enumerate(index.search_many(queries, k=10)):
        np.testing.assert_allclose(scores, exact[row, found], atol=1e-6)
        np.testing.assert_allclose(scores, np.sort(exact[row])[::-1][:10], atol=1e-6)


def test_many_queries_read_the_rows_once(looking, monkeypatch):
    index = DenseIndex(units(4_000, width=64))
    monkeypatch.setattr(DenseIndex, "scores", lambda *_: pytest.fail("all rows were scored"))
    assert len(index.search_many(units(30, width=64, seed=4), k=10)) == 30


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
    most = LARGEST[name]
    queries = np.stack([rng.integers(-most, most + 1, 48), np.full(48, most), np.full(48, -most)])
    queries = queries.astype(np.int32)
    np.testing.assert_array_equal(product(queries)(rows), queries @ rows.astype(np.int64).T)


@pytest.mark.parametrize("width", [1, 384, 1_024, 8_192])
def test_sums_stay_in_31_bits(width):
    kernels = [int8.int_products(width, queries=count) for count in (1, 64)]
    if not all(kernels):
        pytest.skip("this machine multiplies int8 by neither way")
    for kernel in kernels:
        queries = np.full((1, width), kernel.largest, np.int32)
        rows = np.full((33, width), int8.LARGEST, np.int8)
        expected = [[kernel.largest * int8.LARGEST * width] * 33]
        assert kernel.products_with(queries)(rows).tolist() == expected
