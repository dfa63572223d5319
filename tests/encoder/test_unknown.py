"""Texts the model cannot read: said once a call, and a match for nothing."""

import warnings

import numpy as np
import pytest

from m3_retrievers import HybridRetriever, M3Encoder
from m3_retrievers.errors import UnknownTokenWarning
from m3_retrievers.retrieval.reranking import rerank

THAI = ["แม่น้ำสูงขึ้นสามเมตร", "สะพานถูกปิด", "หน้า"]
ENGLISH = ["The river rose three metres.", "The clock was repaired.", "page"]


@pytest.fixture(scope="module", params=["tiny_m3", "other_m3"], ids=["XLM-R", "WordPiece"])
def encoder(request):
    return M3Encoder.from_pretrained(request.getfixturevalue(request.param), device="cpu")


def quietly(call, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnknownTokenWarning)
        return call(*args, **options)


def test_one_warning_a_call_names_the_model_and_one_that_can(encoder):
    with pytest.warns(UnknownTokenWarning) as said:
        encoder.encode_documents([*THAI, *ENGLISH])
    [warning] = said
    assert encoder.name in str(warning.message)
    assert "nothing at all of 3 of them, which match nothing" in str(warning.message)
    assert "BAAI/bge-m3" in str(warning.message)
    assert warning.filename == __file__


def test_a_high_share_of_unknown_tokens_is_said_without_a_lost_text(encoder):
    with pytest.warns(UnknownTokenWarning, match=r"does not know \d\d% of the tokens in 1 text\."):
        encoder.encode_query("page แม่น้ำ page สะพาน page หน้า")


@pytest.mark.parametrize(
    "text", ["The river rose three metres overnight, แม่น้ำ.", "page \U0001f600", "😀 river 😀"]
)
def test_a_few_unknown_tokens_are_not_worth_a_warning(encoder, text):
    found = encoder.encode_documents([text])
    assert np.linalg.norm(found.dense) == pytest.approx(1, abs=1e-6)


def test_a_text_of_unknown_tokens_alone_has_no_representation_to_match(encoder):
    found = quietly(encoder.encode_documents, [ENGLISH[0], THAI[0], ""])
    assert not found.dense[1].any()
    assert found.sparse[[1]].nnz == 0
    assert found.colbert.lengths[1] == 0
    # its neighbours are what they are alone, and the empty text keeps its vector
    alone = encoder.encode_documents([ENGLISH[0], ""])
    np.testing.assert_allclose(found.dense[[0, 2]], alone.dense, atol=1e-6)
    np.testing.assert_allclose(found.colbert[0], alone.colbert[0], atol=1e-6)
    np.testing.assert_allclose(found.colbert[2], alone.colbert[1], atol=1e-6)
    assert np.linalg.norm(found.dense[2]) == pytest.approx(1, abs=1e-6)


def test_every_score_with_such_a_text_is_0_and_a_number(encoder):
    pairs = [(q, d) for q in (THAI[0], ENGLISH[0]) for d in (THAI[0], THAI[1], ENGLISH[1])]
    scores = quietly(encoder.score_pairs, pairs)
    for values in (scores.dense, scores.sparse, scores.colbert, scores.hybrid):
        assert values[:5].tolist() == [0, 0, 0, 0, 0]
    assert scores.hybrid[5] != 0


def test_it_comes_after_every_match_in_reranking_and_search(encoder):
    # of these texts the query's own words, whose scores are above 0 in any model
    texts = [THAI[0], ENGLISH[0], THAI[1]]
    places = quietly(rerank, encoder, ENGLISH[0], texts)
    assert places[0].index == 1
    assert [place.score for place in places[1:]] == [0, 0]
    retriever = HybridRetriever(encoder)
    quietly(retriever.add, texts)
    assert [hit.text for hit in retriever.search(ENGLISH[0], k=3)] == [ENGLISH[0]]


def test_a_query_of_unknown_tokens_alone_finds_nothing(encoder):
    retriever = HybridRetriever(encoder)
    retriever.add(ENGLISH)
    assert quietly(retriever.search, THAI[0], k=3) == []
    assert all(place.score == 0 for place in quietly(rerank, encoder, THAI[0], ENGLISH))


def test_an_instruction_does_not_hide_a_query_that_cannot_be_read(tiny_m3):
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu", query_instruction="river: ")
    assert not quietly(encoder.encode_query, THAI[0]).dense.any()
    assert encoder.encode_query("page").dense.any()


def test_the_tokens_of_such_a_text_can_still_be_looked_at(encoder):
    found = quietly(encoder.encode_documents, [THAI[0]], outputs=("tokens", "dense"))
    assert len(found.tokens[0]) > 0


def test_windows_of_unknown_tokens_match_nothing_either(tiny_m3):
    encoder = M3Encoder.from_pretrained(
        tiny_m3, device="cpu", document_max_length=6, truncation="windows"
    )
    found = quietly(encoder.encode_documents, ["สะพาน " * 20, "page " * 20])
    assert found.colbert.lengths[0] == 0
    assert not found.dense[0].any()
    assert found.colbert.lengths[1] > 20
    alone = encoder.encode_documents(["page " * 20])
    np.testing.assert_allclose(found.colbert[1], alone.colbert[0], atol=1e-6)


def test_m3_mini_says_that_it_cannot_read_thai():
    encoder = M3Encoder.from_pretrained("m3-mini", device="cpu")
    with pytest.warns(UnknownTokenWarning, match=r"'m3-mini' does not know 100% of the tokens"):
        places = rerank(encoder, THAI[0], ["A cat.", "A csv file."])
    assert [(place.index, place.score) for place in places] == [(0, 0), (1, 0)]
