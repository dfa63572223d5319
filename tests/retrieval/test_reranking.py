"""Reordering texts by M3's scores."""

from pathlib import Path

import numpy as np
import pytest

import reference
from m3_retrievers import HybridWeights, M3Encoder
from m3_retrievers.encoder.heads import HeadSpec
from m3_retrievers.errors import InputError, MissingHeadError
from m3_retrievers.retrieval.reranking import COLBERT_ONLY, rerank

QUERY = "Where is the river?"
TEXTS = ["The clock was repaired.", "The river rose overnight.", "", "the river", "A page."]


@pytest.fixture(scope="module")
def headless(tiny_bert: Path) -> M3Encoder:
    return M3Encoder.from_pretrained(tiny_bert, heads=HeadSpec(sparse=False, colbert=False))


def test_scores_equal_the_naive_loops(encoder: M3Encoder) -> None:
    query, texts = encoder.encode_query(QUERY), encoder.encode_documents(TEXTS)
    asked_dense, dense_rows = query.require("dense"), texts.require("dense")
    asked_colbert, colbert_rows = query.require("colbert"), texts.require("colbert")
    asked, rows = query.to_dicts()[0], texts.to_dicts()
    for place in rerank(encoder, QUERY, TEXTS, weights=HybridWeights(0.4, 0.2, 0.4)):
        n = place.index
        dense = reference.dense_score(asked_dense[0].tolist(), dense_rows[n].tolist())
        sparse = reference.lexical_score(asked, rows[n])
        colbert = reference.maxsim(asked_colbert[0].tolist(), colbert_rows[n].tolist())
        expected = {
            "dense": dense,
            "sparse": sparse,
            "colbert": colbert,
            "hybrid": 0.4 * dense + 0.2 * sparse + 0.4 * colbert,
        }
        assert dict(place.scores) == pytest.approx(expected, abs=1e-5)
        assert place.score == place.scores["hybrid"]


def test_best_first_and_every_text_once(encoder: M3Encoder) -> None:
    places = rerank(encoder, QUERY, TEXTS)
    assert sorted(place.index for place in places) == [0, 1, 2, 3, 4]
    assert [p.score for p in places] == sorted((p.score for p in places), reverse=True)


def test_equal_texts_keep_their_order(encoder: M3Encoder) -> None:
    places = rerank(encoder, QUERY, ["the river"] * 3)
    assert [place.index for place in places] == [0, 1, 2]


@pytest.mark.parametrize("seed", range(12))
def test_ties_keep_the_inputs_order_whatever_stands_between_them(tiny_m3: Path, seed: int) -> None:
    # with batches this small, equal texts would lie in different ones
    encoder = M3Encoder.from_pretrained(tiny_m3, batch_tokens=64, keep=None)
    rng = np.random.default_rng(seed)
    texts = [TEXTS[row] for row in rng.integers(0, len(TEXTS), 20)]
    for weights in (None, COLBERT_ONLY, HybridWeights(dense=1, sparse=0, colbert=0)):
        places = rerank(encoder, QUERY, texts, weights=weights)
        by_text: dict[str, list[int]] = {}
        for place in places:
            by_text.setdefault(texts[place.index], []).append(place.index)
        assert all(indexes == sorted(indexes) for indexes in by_text.values())
        assert len({(texts[p.index], p.score) for p in places}) == len(by_text)


@pytest.mark.parametrize("weights", [[1, 0.3, 1], 1.0, {"dens": 1}])
def test_weights_that_are_no_weights_are_refused(encoder: M3Encoder, weights: object) -> None:
    with pytest.raises(InputError, match="weights expects HybridWeights"):
        rerank(encoder, QUERY, TEXTS, weights=weights)  # type: ignore[arg-type]


def test_one_mode_alone_is_not_called_hybrid(encoder: M3Encoder) -> None:
    for place in rerank(encoder, QUERY, TEXTS, weights=COLBERT_ONLY):
        assert dict(place.scores) == {"colbert": place.score}


def test_the_models_own_weights_are_the_default(encoder: M3Encoder) -> None:
    assert rerank(encoder, QUERY, TEXTS) == rerank(
        encoder, QUERY, TEXTS, weights=encoder.default_weights
    )


def test_a_mode_the_model_lacks_is_left_out(headless: M3Encoder) -> None:
    assert headless.outputs == ("dense",)
    for place in rerank(headless, "river", TEXTS, weights=HybridWeights(dense=0.5, sparse=0.5)):
        assert set(place.scores) == {"dense"}
        assert place.score == pytest.approx(0.5 * place.scores["dense"])


def test_a_model_with_none_of_the_modes_is_refused(headless: M3Encoder) -> None:
    with pytest.raises(MissingHeadError):
        rerank(headless, "river", TEXTS, weights=COLBERT_ONLY)


def test_no_texts_give_no_places(encoder: M3Encoder) -> None:
    assert rerank(encoder, QUERY, []) == []


def test_what_is_no_text_is_refused(encoder: M3Encoder) -> None:
    with pytest.raises(InputError, match="position 1"):
        rerank(encoder, QUERY, ["x", None])  # type: ignore[list-item]
    with pytest.raises(InputError):
        rerank(encoder, QUERY, "one string")
    with pytest.raises(InputError):
        rerank(encoder, QUERY, None)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        rerank(encoder, None, TEXTS)  # type: ignore[arg-type]
