"""What was computed last is not computed again: counted in forward passes, within bounds."""

import numpy as np
import pytest

from m3_retrievers import M3Encoder
from m3_retrievers.encoder.recent import Keep
from m3_retrievers.errors import InputError, TruncationWarning
from sentences import SENTENCES


def counting(encoder: M3Encoder) -> list[int]:
    """Return a list that takes the number of texts of each forward pass."""
    passes: list[int] = []
    encoder.checkpoint.backbone.register_forward_pre_hook(
        lambda _module, _args, options: passes.append(len(options["lengths"])), with_kwargs=True
    )
    return passes


@pytest.fixture
def encoder(tiny_m3) -> M3Encoder:
    return M3Encoder.from_pretrained(tiny_m3, device="cpu")


def test_a_query_runs_once_whichever_outputs_are_asked_for_first(encoder):
    passes = counting(encoder)
    dense = encoder.encode_query("river", outputs=("dense",))
    sparse = encoder.encode_queries(["river"], outputs=("sparse",))
    whole = encoder.encode_query("river")
    assert passes == [1]
    np.testing.assert_array_equal(dense.dense, whole.dense)
    np.testing.assert_array_equal(sparse.sparse.toarray(), whole.sparse.toarray())


def test_a_document_runs_once_for_dense_and_sparse_and_again_for_colbert(encoder):
    passes = counting(encoder)
    encoder.encode_documents(["river"], outputs=("dense",))
    encoder.encode_documents(["river"], outputs=("sparse",))
    assert passes == [1]
    encoder.encode_documents(["river"])
    encoder.encode_documents(["river"], outputs=("colbert",))
    assert passes == [1, 1]


def test_queries_and_documents_are_kept_apart(tiny_m3):
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu", query_instruction="clock ")
    query, document = encoder.encode_queries(["river"]), encoder.encode_documents(["river"])
    assert not np.allclose(query.dense, document.dense)
    np.testing.assert_array_equal(encoder.encode_queries(["river"]).dense, query.dense)


def test_only_what_is_missing_runs_and_all_come_in_order(encoder, tiny_m3):
    texts = list(SENTENCES[:6])
    encoder.encode_documents(texts[1:4])
    passes = counting(encoder)
    found = encoder.encode_documents([*texts, texts[0]])
    assert sum(passes) == 3
    fresh = M3Encoder.from_pretrained(tiny_m3, device="cpu", keep=None)
    expected = fresh.encode_documents([*texts, texts[0]])
    np.testing.assert_allclose(found.dense, expected.dense, atol=1e-6)
    np.testing.assert_allclose(found.sparse.toarray(), expected.sparse.toarray(), atol=1e-6)
    np.testing.assert_array_equal(found.colbert.offsets, expected.colbert.offsets)
    np.testing.assert_allclose(found.colbert.vectors, expected.colbert.vectors, atol=1e-6)


def test_nothing_is_kept_where_that_was_asked_for(tiny_m3):
    for keep in (None, Keep(queries=0, document_bytes=0)):
        encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu", keep=keep)
        passes = counting(encoder)
        for _ in range(2):
            encoder.encode_query("river", outputs=("dense",))
            encoder.encode_documents(["river"], outputs=("dense",))
        assert len(passes) == 4


def test_the_least_recent_query_goes_first(tiny_m3):
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu", keep=Keep(queries=2))
    passes = counting(encoder)
    for text in ("river", "page", "river", "clock"):  # pushes "page" out
        encoder.encode_query(text)
    assert len(passes) == 3
    encoder.encode_query("river")
    assert len(passes) == 3
    encoder.encode_query("page")
    assert len(passes) == 4


def test_documents_stay_within_their_bytes(tiny_m3):
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu", keep=Keep(document_bytes=20_000))
    for start in range(0, 40, 8):
        encoder.encode_documents([f"page {number}" for number in range(start, start + 8)])
        assert 0 < encoder._recent.document_bytes <= 20_000
    passes = counting(encoder)
    encoder.encode_documents(["page 39"])
    assert not passes  # the last ones are there
    encoder.encode_documents(["page 0"])
    assert passes == [1]


def test_a_cut_text_warns_each_time_with_all_texts_counted(tiny_m3):
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu", document_max_length=8)
    texts = ["page", " ".join(["river"] * 30)]
    for _ in range(2):
        with pytest.warns(TruncationWarning, match="1 of 2 texts were cut"):
            encoder.encode_documents(texts)


def test_what_comes_back_may_be_written_to(encoder):
    first = encoder.encode_query("river").dense
    first[:] = 0
    assert np.linalg.norm(encoder.encode_query("river").dense) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("options", [{"queries": -1}, {"document_bytes": 1.5}, {"queries": True}])
def test_a_wrong_bound_is_named(options):
    with pytest.raises(InputError, match="Keep expects"):
        Keep(**options)
