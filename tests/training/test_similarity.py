"""A step's similarities against plain loops, their gradients, and the memory they take."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import reference
from m3_retrievers.training.similarity import Encoded, Terms, TokenVectors, mode_scores
from m3_retrievers.types.packed import offsets_of

Tokens = list[tuple[int, float]]  # one text: (vocabulary id, term weight) a token
WIDTH = 3

token = st.tuples(st.integers(5, 9), st.just(0.0) | st.floats(0, 3))
texts = st.lists(st.lists(token, max_size=5), min_size=1, max_size=4)
numbers = st.floats(-1, 1)
vectors = st.lists(
    st.lists(st.lists(numbers, min_size=WIDTH, max_size=WIDTH), max_size=4), min_size=1, max_size=4
)


# --- lexical --------------------------------------------------------------------------------


def test_lexical_similarity_takes_the_largest_weight_of_each_shared_term() -> None:
    # term 5: 2·3, term 7: 1·0.5; 6 and 9 meet nothing
    query, passage = [(5, 0.5), (6, 9.0), (5, 2.0), (7, 1.0)], [(9, 9.0), (5, 3.0), (7, 0.5)]
    assert _sparse([query], [passage]).tolist() == [[6.5]]
    assert _sparse([query, []], [passage, [], [(6, 1.0)]]).tolist() == [[6.5, 0.0, 9.0], [0.0] * 3]


@settings(max_examples=60)
@given(texts, texts)
def test_lexical_similarity_equals_the_plain_loops(
    queries: list[Tokens], passages: list[Tokens]
) -> None:
    expected = _naive_sparse(queries, passages)
    np.testing.assert_allclose(_sparse(queries, passages), expected, atol=1e-12)


def test_lexical_gradients_are_the_slopes_of_the_plain_loops() -> None:
    queries = [[(5, 0.5), (5, 2.0), (7, 1.0)], [(8, 0.3), (7, 0.9)]]
    passages = [[(5, 3.0), (7, 0.5), (5, 2.5)], [(6, 1.0)], [(7, 0.2), (8, 0.4), (7, 0.7)]]
    cells = torch.tensor([[1.0, -2.0, 0.5], [3.0, 1.0, -1.5]], dtype=torch.float64)
    sides = [_terms(queries), _terms(passages)]
    for side in sides:
        assert side.terms is not None
        side.terms.weights.requires_grad_()
    scores = mode_scores(*sides).sparse
    assert scores is not None
    (scores * cells).sum().backward()  # type: ignore[no-untyped-call]

    def total(side: int, weights: list[list[float]]) -> float:
        moved = [queries, passages]
        left = iter(weights[0])
        moved[side] = [[(id, next(left)) for id, _ in text] for text in moved[side]]
        return float((np.array(_naive_sparse(*moved)) * cells.numpy()).sum())

    for n, side in enumerate(sides):
        assert side.terms is not None
        assert side.terms is not None
        point = [side.terms.weights.tolist()]
        (slopes,) = reference.slopes(partial(total, n), point)
        np.testing.assert_allclose(side.terms.weights.grad, slopes, atol=1e-8)


def test_no_tensor_grows_with_the_vocabulary() -> None:
    """Ids reach 250,001, yet nothing is larger than the tokens of both sides, or a score."""
    rng = np.random.default_rng(0)
    sides = []
    for count in (8, 64):
        ids = [rng.integers(5, 250_002, 50).tolist() for _ in range(count)]
        side = _terms([[(id, 1.0) for id in text] for text in ids])
        assert side.terms is not None
        side.terms.weights.requires_grad_()
        sides.append(side)
    with _Largest() as seen:
        scores = mode_scores(*sides).sparse
        assert scores is not None
        scores.sum().backward()  # type: ignore[no-untyped-call]
    terms_of_the_queries, passages = 8 * 50, 64
    assert 0 < seen.numbers <= terms_of_the_queries * passages


# --- ColBERT and dense ----------------------------------------------------------------------


@settings(max_examples=60)
@given(vectors, vectors)
def test_colbert_similarity_equals_the_plain_loops(queries: Any, passages: Any) -> None:
    expected = [[reference.maxsim(q, p) for p in passages] for q in queries]
    ours = mode_scores(_vectors(queries), _vectors(passages)).colbert
    assert ours is not None
    np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_colbert_gradients_are_the_slopes_of_the_plain_loops() -> None:
    rng = np.random.default_rng(1)
    sides = [
        [rng.normal(size=(length, WIDTH)).tolist() for length in lengths]
        for lengths in ([2, 3], [4, 1, 2])
    ]
    cells = rng.normal(size=(2, 3))
    packs = [_vectors(side) for side in sides]
    for pack in packs:
        assert pack.colbert is not None
        pack.colbert.vectors.requires_grad_()
    scores = mode_scores(*packs).colbert
    assert scores is not None
    (scores * torch.from_numpy(cells)).sum().backward()  # type: ignore[no-untyped-call]

    def total(n: int, rows: list[list[float]]) -> float:
        left = iter(rows)
        moved = list(sides)
        moved[n] = [[next(left) for _ in text] for text in sides[n]]
        found = [[reference.maxsim(q, p) for p in moved[1]] for q in moved[0]]
        return float((np.array(found) * cells).sum())

    for n, pack in enumerate(packs):
        assert pack.colbert is not None
        assert pack.colbert is not None
        slopes = reference.slopes(partial(total, n), pack.colbert.vectors.tolist())
        np.testing.assert_allclose(pack.colbert.vectors.grad, slopes, atol=1e-8)


def test_dense_similarity_is_the_inner_product() -> None:
    queries = Encoded(1, dense=torch.tensor([[0.6, 0.8]]))
    passages = Encoded(2, dense=torch.tensor([[1.0, 0.0], [0.8, -0.6]]))
    scores = mode_scores(queries, passages)
    assert scores.dense is not None
    np.testing.assert_allclose(scores.dense, [[0.6, 0.0]], atol=1e-7)


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_mode_that_one_side_lacks_has_no_similarity(lacking: int) -> None:
    sides = [_terms([[(5, 1.0)]]), _terms([[(5, 1.0)]])]
    sides[lacking] = Encoded(1, dense=torch.ones(1, 2))
    assert mode_scores(*sides).present() == {}


class _Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor made inside it has."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, Tensor):
                self.numbers = max(self.numbers, one.numel())
        return made


def _sparse(queries: list[Tokens], passages: list[Tokens]) -> Tensor:
    scores = mode_scores(_terms(queries), _terms(passages)).sparse
    assert scores is not None
    return scores


def _naive_sparse(queries: list[Tokens], passages: list[Tokens]) -> list[list[float]]:
    sides = [[reference.largest_weights(text) for text in side] for side in (queries, passages)]
    return [[reference.lexical_score(q, p) for p in sides[1]] for q in sides[0]]


def _terms(side: Sequence[Tokens]) -> Encoded:
    tokens = [token for text in side for token in text]
    terms = Terms(
        weights=torch.tensor([weight for _, weight in tokens], dtype=torch.float64),
        ids=torch.tensor([id for id, _ in tokens], dtype=torch.long),
        rows=torch.repeat_interleave(torch.tensor([len(text) for text in side])),
    )
    return Encoded(len(side), terms=terms)


def _vectors(side: Sequence[list[list[float]]]) -> Encoded:
    rows = [vector for text in side for vector in text]
    packed = TokenVectors(
        vectors=torch.tensor(rows, dtype=torch.float64).reshape(-1, WIDTH),
        offsets=torch.from_numpy(offsets_of([len(text) for text in side])),
    )
    return Encoded(len(side), colbert=packed)
