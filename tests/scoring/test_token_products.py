"""The kernel of MaxSim against its plain reference, whatever pieces the documents come in."""

import numpy as np
import pytest
import torch

from m3_retrievers import scoring
from m3_retrievers.scoring import packed_product
from m3_retrievers.scoring import token_products as kernel
from m3_retrievers.scoring.packed_product import can_pack
from vector_packs import pack, plain_maxsim


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("at_once", [7, 64, 1 << 19])  # values: less than a row, a few, all
@pytest.mark.parametrize("tokens", [1, 14, 16, 17])
@pytest.mark.parametrize("packed", [True, False])
def test_the_kernel_equals_the_plain_maxsim(dtype, at_once, tokens, packed, monkeypatch):
    if packed and not can_pack(torch.float32):
        pytest.skip("this torch lacks the private operations, or they changed")
    monkeypatch.setattr(kernel, "can_pack", lambda _: packed)
    monkeypatch.setattr(kernel, "_VALUES_AT_ONCE", at_once)
    queries = pack([tokens, 0, 3], width=16, seed=1)
    documents = pack([5, 0, 1, 12, 0], width=16, seed=2, dtype=dtype)
    found = scoring.maxsim(queries, documents)
    np.testing.assert_allclose(found, plain_maxsim(queries, documents), atol=1e-6)


def test_without_its_private_operations_torch_multiplies_by_its_public_ones(monkeypatch):
    def gone(*_):
        raise AttributeError

    can_pack.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(packed_product, "PackedProduct", gone)
        assert not can_pack(torch.float32)
        assert kernel._packed(torch.ones(8, 16)) is None
    can_pack.cache_clear()


def test_it_does_not_matter_how_documents_are_cut_into_pieces():
    queries, documents = pack([9], width=8, seed=3), pack([4, 7, 2], width=8, seed=4)
    expected = plain_maxsim(queries, documents)
    for cuts in ([], [4], [1, 2, 3, 12], [0, 13]):
        pieces = iter(np.split(documents.vectors, cuts))
        found = scoring.maxsim_of_pieces(queries, pieces, lengths=documents.lengths)
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_vectors_that_must_not_be_written_to_are_read():
    queries, documents = pack([2], width=4, seed=5), pack([3], width=4, seed=6)
    documents.vectors.flags.writeable = False
    np.testing.assert_allclose(
        scoring.maxsim(queries, documents), plain_maxsim(queries, documents), atol=1e-6
    )
