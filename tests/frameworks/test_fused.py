"""Which answers of several retrievers are the same, and in what order they come."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3_retrievers import ReciprocalRankFusion, WeightedSum
from m3_retrievers.errors import InputError
from m3_retrievers.frameworks.diversity import mmr
from m3_retrievers.frameworks.fused import Found, Fused, fuse

RRF = ReciprocalRankFusion()


def found(text: str, id: str | None = None, score: float | None = None, **metadata: Any) -> Any:
    return Found((text, id), id, text, metadata, score)


def items(answers: list[Fused[Any]]) -> list[Any]:
    return [one.item for one in answers]


def test_equal_ids_are_one_answer_whatever_the_text() -> None:
    answers = fuse({"a": [found("old", "1"), found("x", "2")], "b": [found("new", "1")]}, RRF)
    assert items(answers) == [("old", "1"), ("x", "2")]


def test_equal_text_and_metadata_are_one_answer_whatever_the_ids() -> None:
    answers = fuse({"a": [found("x", "made up", n=1)], "b": [found("x", "too", n=1)]}, RRF)
    assert [one.score for one in answers] == pytest.approx([2 / 61])


def test_equal_texts_with_other_metadata_are_two_answers() -> None:
    answers = fuse({"a": [found("x", n=1)], "b": [found("x", n=2), found("x", n=True)]}, RRF)
    assert len(answers) == 3


def test_metadata_are_equal_whatever_the_order_of_keys_and_the_kind_of_list() -> None:
    one = found("x", a=[1, 2], b={"c": None, 3: "d"})
    other = found("x", b={3: "d", "c": None}, a=(1, 2))
    assert len(fuse({"a": [one], "b": [other]}, RRF)) == 1


def test_an_answer_with_an_id_stands_for_those_without() -> None:
    for legs in ({"a": [found("x")], "b": [found("x", "1")]}, {"b": [found("x", "1"), found("x")]}):
        assert items(fuse(legs, RRF)) == [("x", "1")]


def test_what_two_answers_share_with_a_third_makes_all_three_one() -> None:
    first, second = found("x", "1"), found("y", "2")
    both = found("y", "1")  # the first's id, the second's text
    for order in ([first, second, both], [both, second, first], [second, both, first]):
        assert len(fuse({"a": order}, RRF)) == 1


def test_an_id_key_decides_alone_where_an_answer_has_it() -> None:
    keyed = [found("x", "1", pk=1), found("x", "2", pk=2), found("y", "3", pk=1)]
    plain = [found("x", "4"), found("x", "5")]
    answers = fuse({"a": keyed, "b": plain}, RRF, id_key="pk")
    assert sorted(items(answers)) == [("x", "1"), ("x", "2"), ("x", "4")]


def test_an_id_key_that_no_answer_has_is_refused() -> None:
    with pytest.raises(InputError, match=r"got 'pkey', which none of 1 has. They have \['pk'\]"):
        fuse({"a": [found("x", pk=1)]}, RRF, id_key="pkey")
    assert fuse({"a": []}, RRF, id_key="pkey") == []


def test_scores_of_all_retrievers_are_kept() -> None:
    legs = {"a": [found("x", scores={"dense": 0.5})], "b": [found("x", score_bm25=2.0)]}
    (one,) = fuse(legs, RRF)
    assert one.scores == {"dense": 0.5, "bm25": 2.0, "fusion": pytest.approx(2 / 61)}


def test_descending_scores_count_and_others_give_way_to_ranks() -> None:
    descending = [found("x", score=9.0), found("y", score=1.0)]
    answers = fuse({"a": descending}, WeightedSum(normalize=None))
    assert [one.score for one in answers] == [9.0, 1.0]
    for scores in ([1.0, 9.0], [1.0, None], [float("nan"), 0.0]):
        others = [found(text, score=score) for text, score in zip("xy", scores, strict=True)]
        answers = fuse({"a": others}, WeightedSum(normalize=None))
        assert [one.score for one in answers] == [1.0, 0.5]


@given(
    legs=st.lists(
        st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from([None, "1", "2"])), max_size=4),
        min_size=1,
        max_size=3,
    )
)
def test_which_answers_are_the_same_does_not_depend_on_the_order(
    legs: list[list[tuple[str, str | None]]],
) -> None:
    answers = {str(n): [found(*one) for one in leg] for n, leg in enumerate(legs)}
    backwards = {str(n): [found(*one) for one in leg[::-1]] for n, leg in enumerate(legs[::-1])}
    assert len(fuse(answers, RRF)) == len(fuse(backwards, RRF))


def test_marginal_relevance_trades_nearness_for_unlikeness() -> None:
    axes = np.eye(3, dtype=np.float32)
    documents = np.stack([axes[0], axes[0], axes[1], axes[2]])
    query = np.array([3.0, 2.0, 0.0])
    assert mmr(query, documents, k=2, trade_off=1.0) == [0, 1]
    assert mmr(query, documents, k=3, trade_off=0.5) == [0, 2, 3]
    assert mmr(query, documents, k=9) == [0, 2, 3, 1]
    assert mmr(query, documents[:0], k=2) == []
    with pytest.raises(InputError, match="a trade-off from 0"):
        mmr(query, documents, k=1, trade_off=1.5)
