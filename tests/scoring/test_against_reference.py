"""The package's arithmetic against tests/reference.py, and both against numbers by hand."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse as sp
from transformers import AutoModel

import reference
from m3_retrievers import HybridRetriever, LocalIndex, Recall, scoring
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.scoring import fusion
from m3_retrievers.types.hits import Ranking
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.plan import HybridWeights
from m3_retrievers.types.representations import Representations
from sentences import SENTENCES

Array = np.ndarray[Any, np.dtype[Any]]
TOLERANCE = 1e-5
numbers = st.floats(-1, 1, width=32)
weight = st.floats(0, 4, width=32).filter(lambda value: value == 0 or value > 1e-3)


def matrices(rows: st.SearchStrategy[int], width: int, elements: Any = numbers) -> Any:
    return rows.flatmap(lambda n: hnp.arrays(np.float32, (n, width), elements=elements))


WIDTH = 4
packs = st.lists(matrices(st.integers(0, 5), WIDTH), min_size=1, max_size=5)
sparse_rows = matrices(st.integers(1, 4), 6, st.just(0.0) | st.floats(0, 3, width=32))
mode_scores = st.floats(-1, 1, width=32)


# --- numbers by hand ------------------------------------------------------------------------


def test_maxsim_is_the_mean_of_the_best_similarities() -> None:
    # best of token (1, 0): 0.6; of token (0, 1): 1.0; mean 0.8
    query = [[1.0, 0.0], [0.0, 1.0]]
    document = [[0.6, 0.8], [0.0, 1.0]]
    assert reference.maxsim(query, document) == pytest.approx(0.8)
    assert _maxsim([query], [document]).tolist() == [[pytest.approx(0.8)]]


def test_padding_never_wins_maxsim() -> None:
    # the only true document token is opposite: -1, where a zero row of padding would give 0
    query, document, padding = [[1.0, 0.0]], [[-1.0, 0.0]], [[0.0, 0.0]] * 3
    masked = reference.maxsim(query, document + padding, document_mask=[True] + [False] * 3)
    assert masked == -1.0
    together = _maxsim([query], [document, [[0.0, 1.0]] * 4])
    assert together.tolist() == [[-1.0, 0.0]]


def test_lexical_score_is_a_sum_over_shared_terms() -> None:
    # shared terms 2 and 5: 0.5·2 + 0.25·4 = 2; terms 7 and 9 meet nothing
    query, document = {2: 0.5, 5: 0.25, 7: 3.0}, {2: 2.0, 5: 4.0, 9: 1.0}
    assert reference.lexical_score(query, document) == 2.0
    assert scoring.lexical(_csr([query], 10), _csr([document], 10)).tolist() == [[2.0]]


def test_a_term_keeps_its_largest_weight_and_specials_are_dropped() -> None:
    states = [[9.0], [0.5], [2.0], [-1.0], [1.0], [9.0]]
    weights = reference.term_weights(
        states, [0, 7, 7, 8, 3, 2], [True] * 6, weight=[[1.0]], bias=[-0.25], dropped={0, 1, 2, 3}
    )
    assert weights == {7: 1.75}  # 8 is negative, 0, 2 and 3 are specials


def test_the_five_scores_divide_by_their_own_weights() -> None:
    five = reference.five_scores(0.5, 0.2, 0.8, (0.4, 0.2, 0.4))
    assert five["sparse_dense"] == pytest.approx(0.24 / 0.6)
    assert five["colbert_sparse_dense"] == pytest.approx(0.56)


def test_rrf_by_hand() -> None:
    # k = 1: b gets 1/3 + 1/2, a 1/2, c 1/3
    assert reference.rrf([["a", "b"], ["b", "c"]], k=1) == [
        ("b", pytest.approx(5 / 6)),
        ("a", 0.5),
        ("c", pytest.approx(1 / 3)),
    ]


# --- the package against the loops ----------------------------------------------------------


@given(matrices(st.integers(1, 4), WIDTH), matrices(st.integers(1, 4), WIDTH))
def test_dense_equals_the_loop(queries: Array, documents: Array) -> None:
    expected = [[reference.dense_score(q, d) for d in documents] for q in queries]
    np.testing.assert_allclose(scoring.dense(queries, documents), expected, atol=TOLERANCE)


@given(sparse_rows, sparse_rows)
def test_lexical_equals_the_loop(queries: Array, documents: Array) -> None:
    expected = [[reference.lexical_score(_terms(q), _terms(d)) for d in documents] for q in queries]
    ours = scoring.lexical(sp.csr_array(queries), sp.csr_array(documents))
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=TOLERANCE)


@given(packs, packs)
def test_maxsim_equals_the_loop(queries: list[Any], documents: list[Any]) -> None:
    expected = [[reference.maxsim(q, d) for d in documents] for q in queries]
    np.testing.assert_allclose(_maxsim(queries, documents), expected, atol=TOLERANCE)


@given(packs)
def test_maxsim_does_not_depend_on_the_other_documents(documents: list[Array]) -> None:
    query = [np.eye(WIDTH, dtype=np.float32)[:2]]
    alone = [_maxsim(query, [document])[0, 0] for document in documents]
    np.testing.assert_allclose(_maxsim(query, documents)[0], alone, atol=1e-6)


@pytest.mark.slow
@settings(deadline=None)  # the first call of a torch operator may take long
@given(packs, packs, st.randoms(use_true_random=False))
def test_maxsim_passes_the_gradient_of_the_loop(
    queries: list[Any], documents: list[Any], random: Any
) -> None:
    # ties have no single gradient, and values on hypothesis' grid often tie: add distinct noise
    noise = np.random.default_rng(random.getrandbits(32))
    queries, documents = (
        [part + noise.uniform(0.1, 0.9, part.shape).astype(np.float32) for part in parts]
        for parts in (queries, documents)
    )
    upstream = torch.from_numpy(noise.normal(size=(len(queries), len(documents))))

    packed = [MultiVectors.from_rows(parts) for parts in (queries, documents)]
    ours = [torch.tensor(pack.vectors, dtype=torch.float64, requires_grad=True) for pack in packed]
    offsets = [torch.from_numpy(pack.offsets) for pack in packed]
    scores = scoring.packed_maxsim(ours[0], offsets[0], ours[1], offsets[1])
    torch.autograd.backward((scores * upstream).sum())

    naive = [vectors.detach().clone().requires_grad_() for vectors in ours]
    rows = [
        torch.split(vectors, pack.lengths.tolist())
        for vectors, pack in zip(naive, packed, strict=True)
    ]
    total = naive[0].sum() * 0 + naive[1].sum() * 0
    for (a, query), (b, document) in product(enumerate(rows[0]), enumerate(rows[1])):
        if len(query) and len(document):
            best = [torch.stack([q @ d for d in document]).max() for q in query]
            total = total + upstream[a, b] * torch.stack(best).sum() / len(best)
    torch.autograd.backward(total)
    for mine, theirs in zip(ours, naive, strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-9, rtol=1e-9)


@given(mode_scores, mode_scores, mode_scores, st.tuples(weight, weight, weight))
def test_hybrid_equals_the_loop(
    dense: float, sparse: float, colbert: float, weights: tuple[float, float, float]
) -> None:
    if sum(weights) == 0:
        return
    parts = {"dense": dense, "sparse": sparse, "colbert": colbert}
    ours = scoring.hybrid(
        {mode: np.array([score]) for mode, score in parts.items()}, HybridWeights(*weights)
    )
    expected = reference.hybrid(dense, sparse, colbert, weights)
    assert ours[0] == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.slow
@given(st.data())
def test_pair_scores_equal_the_loops(data: st.DataObject) -> None:
    texts = [
        reference.Text(
            dense=reference.unit(data.draw(st.lists(numbers, min_size=WIDTH, max_size=WIDTH))),
            sparse=data.draw(st.dictionaries(st.integers(0, 9), st.floats(0.0625, 3, width=32))),
            colbert=data.draw(matrices(st.integers(1, 4), WIDTH)),
        )
        for _ in range(4)
    ]
    weights = (data.draw(st.floats(0.1, 1)), data.draw(weight), data.draw(weight))
    representations = Representations(
        dense=np.array([text.dense for text in texts], np.float32),
        sparse=_csr([text.sparse for text in texts], 10),
        colbert=MultiVectors.from_rows([np.asarray(text.colbert) for text in texts]),
    )
    q_rows, d_rows = np.array([0, 0, 1, 3]), np.array([2, 3, 2, 3])
    ours = scoring.pair_scores(
        representations, representations, q_rows, d_rows, weights=HybridWeights(*weights)
    )
    for n, (q, d) in enumerate(zip(q_rows, d_rows, strict=True)):
        three = (
            reference.dense_score(texts[q].dense, texts[d].dense),
            reference.lexical_score(texts[q].sparse, texts[d].sparse),
            reference.maxsim(texts[q].colbert, texts[d].colbert),
        )
        for name, score in reference.five_scores(*three, weights).items():
            assert getattr(ours, name)[n] == pytest.approx(score, abs=TOLERANCE, rel=1e-5), name


rankings = st.lists(
    st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-5, 5, width=16), min_size=1),
    min_size=1,
    max_size=3,
)


@given(rankings, st.integers(0, 100))
def test_rrf_equals_the_loop(lists: list[dict[str, float]], k: int) -> None:
    ours = fusion.rrf([_ranking(one) for one in lists], k=k)
    _assert_ranked_alike(ours, reference.rrf([_ranking(one).ids for one in lists], k=k))


@given(rankings)
def test_min_max_sum_equals_the_loop(lists: list[dict[str, float]]) -> None:
    weights = [1.0, 0.5, 0.25][: len(lists)]
    ours = fusion.weighted_sum([_ranking(one) for one in lists], weights=weights)
    _assert_ranked_alike(ours, reference.min_max_sum(lists, weights))


# --- the encoder against the loops ----------------------------------------------------------


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_encoder_equals_the_loops_over_hidden_states(tiny_m3: Path, pooling: Any) -> None:
    encoder = M3Encoder.from_pretrained(
        tiny_m3, device="cpu", precision="fp32", pooling=pooling, truncate_dim=24
    )
    texts = ["the river the bridge the river", "", "page 图书 <mask> page", "Brücke"]
    ours = encoder.encode_documents(texts)
    tokens = encoder.tokenizer(texts, padding=True, return_tensors="pt")
    backbone = AutoModel.from_pretrained(tiny_m3, dtype=torch.float32).eval()
    with torch.inference_mode():
        hidden = backbone(**tokens).last_hidden_state.double().tolist()
    heads = {
        name: torch.load(tiny_m3 / f"{name}_linear.pt", weights_only=True)
        for name in ("sparse", "colbert")
    }
    sparse, colbert = (
        {key: value.tolist() for key, value in heads[name].items()} for name in heads
    )
    masks, ids = tokens["attention_mask"].bool().tolist(), tokens["input_ids"].tolist()
    assert ours.dense is not None
    assert ours.colbert is not None
    for row, (states, mask) in enumerate(zip(hidden, masks, strict=True)):
        dense = reference.dense_vector(states, mask, pooling=pooling, truncate_dim=24)
        np.testing.assert_allclose(ours.dense[row], dense, atol=TOLERANCE)
        terms = reference.term_weights(states, ids[row], mask, dropped={0, 1, 2, 3}, **sparse)
        assert ours.to_dicts()[row] == pytest.approx(terms, abs=TOLERANCE)
        vectors = reference.token_vectors(states, mask, **colbert)
        np.testing.assert_allclose(ours.colbert[row], vectors, atol=TOLERANCE)


# --- the retriever against the full scan ----------------------------------------------------


@pytest.mark.parametrize("weights", [(1.0, 0.3, 1.0), (0.15, 0.5, 0.35), (0.2, 0.8, 0.0)])
def test_recall_of_everything_equals_a_full_scan(
    tiny_m3: Path, weights: tuple[float, float, float]
) -> None:
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu", precision="fp32")
    retriever = HybridRetriever(
        encoder,
        LocalIndex(colbert_dtype="float32"),
        recall=Recall.everything(),
        weights=HybridWeights(*weights),
    )
    ids = [f"text {n}" for n in range(len(SENTENCES))]
    retriever.add(SENTENCES, ids=ids)
    documents = dict(zip(ids, _texts(encoder.encode_documents(SENTENCES)), strict=True))
    for query in ("the bridge was closed", "图书管理员", "Brücke page", ""):
        (asked,) = _texts(encoder.encode_query(query))
        expected = reference.full_scan(asked, documents, weights=weights, k=8)
        hits = retriever.search(query, k=8)
        assert [hit.id for hit in hits] == [id for id, _ in expected]
        np.testing.assert_allclose(
            [hit.score for hit in hits], [score for _, score in expected], atol=TOLERANCE
        )


def _texts(encoded: Representations) -> list[reference.Text]:
    assert encoded.dense is not None
    assert encoded.colbert is not None
    return [
        reference.Text(dense.tolist(), sparse, colbert.tolist())
        for dense, sparse, colbert in zip(
            encoded.dense, encoded.to_dicts(), encoded.colbert, strict=True
        )
    ]


def _maxsim(queries: list[Any], documents: list[Any]) -> Array:
    packs = [
        MultiVectors.from_rows([np.asarray(rows, np.float32) for rows in side])
        for side in (queries, documents)
    ]
    return scoring.maxsim(packs[0], packs[1])


def _terms(row: Array) -> dict[int, float]:
    return {int(term): float(row[term]) for term in np.flatnonzero(row)}


def _csr(rows: list[Any], width: int) -> sp.csr_array:
    dense = np.zeros((len(rows), width), np.float32)
    for row, terms in enumerate(rows):
        for term, value in terms.items():
            dense[row, term] = value
    return sp.csr_array(dense)


def _ranking(scores: dict[str, float]) -> Ranking:
    ordered = sorted(scores.items(), key=lambda item: -item[1])
    return Ranking(tuple(id for id, _ in ordered), np.array([score for _, score in ordered]))


def _assert_ranked_alike(ours: Ranking, expected: list[tuple[str, float]]) -> None:
    """Equal scores place by place, and of each document; ties may stand in either order."""
    theirs = dict(expected)
    assert set(ours.ids) == set(theirs)
    np.testing.assert_allclose(ours.scores, sorted(theirs.values(), reverse=True), atol=1e-9)
    for id, score in zip(ours.ids, ours.scores, strict=True):
        assert math.isclose(score, theirs[id], abs_tol=1e-9)
