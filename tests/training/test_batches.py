from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m3_retrievers.errors import TrainingDataError
from m3_retrievers.training.batches import Plan, estimated_tokens
from m3_retrievers.training.data import Example
from m3_retrievers.training.settings import BatchSettings

SETTINGS = BatchSettings(group_size=2, tokens=256, max_queries=4, lengths=(16, 64), shuffle_share=0)


def example(number: int, *, words: int = 4, source: str = "a", negatives: int = 2) -> Example:
    passage = f"p{number} " + "word " * words
    return Example(
        query=f"q{number}",
        positives=(passage,),
        negatives=tuple(f"n{number}.{k}" for k in range(negatives)),
        source=source,
    )


def plan(examples: list[Example], *, steps: int = 6, seed: int = 0, **changes) -> Plan:
    return Plan(examples, settings=replace(SETTINGS, **changes), steps=steps, seed=seed)


def test_a_step_is_the_same_whenever_it_is_asked_for():
    examples = [example(n) for n in range(20)]
    one, other = plan(examples), plan(examples)
    assert [other[n] for n in (5, 0, 3)] == [one[n] for n in (5, 0, 3)]
    assert [plan(examples, seed=1)[n] for n in range(5)] != [one[n] for n in range(5)]


@given(st.lists(st.tuples(st.integers(1, 80), st.sampled_from("ab")), min_size=2, max_size=40))
def test_an_epoch_holds_every_example_once(shapes):
    examples = [example(n, words=w, source=s) for n, (w, s) in enumerate(shapes)]
    made = plan(examples, steps=1)
    whole = plan(examples, steps=made.epoch_steps)
    queries = [draw.query for step in range(len(whole)) for draw in whole[step]]
    assert sorted(queries) == sorted(one.query for one in examples)


def test_a_batch_comes_from_one_source():
    examples = [example(n, source="ab"[n % 2]) for n in range(21)]
    made = plan(examples, steps=12)
    source = {one.query: one.source for one in examples}
    assert all(len({source[d.query] for d in made[n]}) == 1 for n in range(12))
    mixed = plan(examples, steps=12, same_source=False)
    assert any(len({source[d.query] for d in mixed[n]}) == 2 for n in range(12))


def test_long_passages_come_in_small_batches():
    made = plan([example(n) for n in range(8)])
    # 256 tokens hold 2 passages of 64 tokens for 2 queries, and at 16 for 8, but 4 is the most
    assert (made.batch_size(64), made.batch_size(16), made.batch_size(512)) == (2, 4, 1)


def test_texts_of_one_length_meet():
    examples = [example(n, words=2 if n < 16 else 40) for n in range(32)]
    made = plan(examples, steps=1)
    whole = plan(examples, steps=made.epoch_steps)
    for n in range(len(whole)):
        lengths = {estimated_tokens(draw.passages[0]) > 16 for draw in whole[n]}
        assert len(lengths) == 1


def test_few_negatives_are_used_in_turn():
    made = plan([example(n, negatives=2) for n in range(4)], group_size=6)
    for draw in made[0]:
        assert len(draw.passages) == 6
        assert sorted(draw.passages[1:].count(one) for one in set(draw.passages[1:])) == [2, 3]


def test_without_negatives_other_passages_serve():
    examples = [example(n, negatives=0) for n in range(6)]
    for draw in plan(examples, group_size=4)[0]:
        assert len(draw.passages) == 4
        assert not set(draw.passages[1:]) & set(draw.positives)


def test_shuffling_keeps_every_character_of_a_long_passage():
    words = " ".join(f"w{n}" for n in range(60))
    long = Example("q", (words,), ("n",))
    draws = plan([long, long], shuffle_share=1.0)[0]
    shuffled = draws[0].passages[0]
    assert shuffled != words
    assert sorted(shuffled.replace(" ", "")) == sorted(words.replace(" ", ""))
    assert draws[0].passages[1] == "n"


def test_a_single_passage_teaches_nothing():
    with pytest.raises(TrainingDataError, match="two different passages"):
        plan([Example("q", ("p",)), Example("r", ("p",))])
    with pytest.raises(TrainingDataError, match="at least one example"):
        plan([])


def test_teacher_scores_without_negatives_are_refused():
    scored = [Example(f"q{n}", (f"p{n}",), (), (1.0,), ()) for n in range(3)]
    with pytest.raises(TrainingDataError, match="Teacher scores expect a negative"):
        plan(scored)[0]


def test_scores_stay_with_their_passages():
    one = Example("q", ("p",), ("n0", "n1", "n2"), (9.0,), (0.0, 1.0, 2.0))
    for draw in plan([one, one], group_size=3)[0]:
        score = dict(zip(("p", "n0", "n1", "n2"), (9.0, 0.0, 1.0, 2.0), strict=True))
        assert draw.scores == tuple(score[passage] for passage in draw.passages)
