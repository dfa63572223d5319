import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse as sp

import reference
from m3_retrievers import (
    HeadSpec,
    HybridRetriever,
    HybridWeights,
    M3Encoder,
    Recall,
    Representations,
)
from m3_retrievers.errors import InputError, TrainingDataError
from m3_retrievers.training.data import Example, read_examples, write_examples
from m3_retrievers.training.negatives import MiningSettings, mine_negatives
from sentences import SENTENCES

pytestmark = pytest.mark.slow

CORPUS = list(SENTENCES)
EXAMPLES = [
    Example("Which page matters?", (CORPUS[0],), source="library"),
    Example("How far did the river rise?", (CORPUS[1], CORPUS[7])),
    Example("What is hybrid retrieval?", (CORPUS[2],)),
]


class Compass:
    """A model of one angle: a text ends in its cosine with every query, and has no other sense."""

    name, outputs, default_weights = "compass", ("dense", "sparse"), HybridWeights(sparse=0)

    def encode_documents(self, texts, *, outputs=None, show_progress=False):
        cosines = np.array([float(text.split()[-1]) for text in texts])
        dense = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1).astype(np.float32)
        return Representations(dense=dense, sparse=sp.csr_array((len(texts), 1), dtype=np.float32))

    def encode_queries(self, texts, *, outputs=None, show_progress=False):
        return self.encode_documents(["1"] * len(texts))


COMPASS = [f"text {cosine}" for cosine in (0.95, 0.88, 0.84, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, -0.2)]


def mine(examples, corpus, encoder, **chosen):
    return mine_negatives(examples, corpus, encoder, settings=MiningSettings(**chosen))


def test_what_scores_nearly_as_high_as_the_positive_is_left_out():
    # 0.95 × 0.9 = 0.855: 0.95 and 0.88 are over it
    mined = mine([Example("q", ("right 0.9",))], COMPASS, Compass(), ranks=(1, 4), count=2)
    assert mined.examples[0].negatives == ("text 0.84", "text 0.8")
    assert (mined.too_close, mined.topped_up, mined.missing) == (2, 0, 0)


def test_without_a_margin_the_top_ranks_are_taken_as_they_are():
    example = Example("q", ("right 0.9",))
    mined = mine([example], COMPASS, Compass(), ranks=(1, 3), count=3, margin=None)
    assert mined.examples[0].negatives == ("text 0.95", "text 0.88", "text 0.84")
    assert mined.too_close == 0


def test_the_lowest_of_several_positives_sets_the_margin():
    # 0.95 × 0.74 = 0.703
    example = Example("q", ("right 0.9", "right 0.74"))
    mined = mine([example], COMPASS, Compass(), ranks=(1, 6), count=2)
    assert mined.examples[0].negatives == ("text 0.7", "text 0.6")
    assert mined.too_close == 4


def test_a_positive_that_scores_below_zero_has_a_margin_below_it():
    # -0.19 - 5 % of 0.19 = -0.1995: -0.2 is the only one under it
    mined = mine([Example("q", ("right -0.19",))], COMPASS, Compass(), count=3)
    assert mined.examples[0].negatives == ("text -0.2",)
    assert (mined.too_close, mined.missing) == (9, 2)


def test_ranks_count_what_is_no_positive_and_both_ends_belong():
    example = Example("q", ("right 0.86", "right 0.81"))
    mined = mine([example], COMPASS, Compass(), ranks=(3, 5), count=3, margin=None)
    assert mined.examples[0].negatives == ("text 0.84", "text 0.8", "text 0.7")


def test_too_few_neighbours_are_topped_up_with_what_is_not_ranked_too_high():
    # ranks 3 and 4 are to be had, and of the rest not the ranks before nor what is too close
    mined = mine([Example("q", ("right 0.9",))], COMPASS, Compass(), ranks=(3, 4), count=5)
    negatives = mined.examples[0].negatives
    assert negatives[:2] == ("text 0.84", "text 0.8")
    assert len(negatives) == 5
    assert set(negatives[2:]) < set(COMPASS[4:])
    assert (mined.topped_up, mined.missing) == (3, 0)


def test_the_random_ones_differ_from_query_to_query():
    examples = [Example(f"q{n}", ("right 0.9",)) for n in range(20)]
    mined = mine(examples, COMPASS, Compass(), ranks=(1, 1), count=2)
    assert mined.topped_up == 40
    assert len({example.negatives for example in mined.examples}) > 10


@pytest.mark.parametrize(("ranks", "margin"), [((1, 20), None), ((3, 6), None), ((2, 9), 0.9)])
def test_the_choice_is_that_of_a_naive_loop_over_all_passages(encoder, ranks, margin):
    # ColBERT vectors are kept in float16, so a place could turn on rounding: two modes will do
    weights = HybridWeights(dense=1, sparse=0.3, colbert=0)
    mined = mine(EXAMPLES, CORPUS, encoder, ranks=ranks, margin=margin, count=20, weights=weights)
    documents = naive(encoder.encode_documents(CORPUS), CORPUS)
    too_close = 0
    for before, after in zip(EXAMPLES, mined.examples, strict=True):
        query = naive(encoder.encode_queries([before.query]), [before.query])[before.query]
        order = reference.full_scan(query, documents, weights=(1, 0.3, 0), k=len(CORPUS))
        lowest = min(score for text, score in order if text in before.positives)
        others = [pair for pair in order if pair[0] not in before.positives]
        window = others[ranks[0] - 1 : ranks[1]]
        fit = [text for text, score in window if margin is None or score <= margin * lowest]
        assert list(after.negatives[: len(fit)]) == fit[:20]
        assert set(after.negatives[len(fit) :]) <= {text for text, _ in others[ranks[1] :]}
        too_close += len(window) - len(fit)
    assert mined.too_close == too_close


def naive(found, texts):
    terms = found.to_dicts()
    return {
        text: reference.Text(found.dense[row].tolist(), terms[row], found.colbert[row].tolist())
        for row, text in enumerate(texts)
    }


def test_scores_beside_the_passages_are_the_hybrid_scores(encoder, tmp_path):
    mined = mine(EXAMPLES, CORPUS, encoder, ranks=(2, 3), count=5, with_scores=True)
    assert mined.topped_up > 0
    retriever = HybridRetriever(encoder, recall=Recall.everything())
    retriever.add(CORPUS, ids=CORPUS)
    for example in mined.examples:
        score_of = {hit.id: hit.score for hit in retriever.search(example.query, k=len(CORPUS))}
        asked = (*example.positive_scores, *example.negative_scores)
        texts = (*example.positives, *example.negatives)
        assert asked == pytest.approx([score_of[text] for text in texts], abs=1e-5)
    write_examples(tmp_path / "mined.jsonl", mined.examples)
    read = read_examples(tmp_path / "mined.jsonl")
    assert [example.negative_scores for example in read] == [
        example.negative_scores for example in mined.examples
    ]


def test_old_negatives_and_their_scores_make_way(encoder):
    old = Example("Which page?", (CORPUS[0],), ("an old negative",), (0.5,), (0.1,))
    new = mine([old], CORPUS, encoder, count=2).examples[0]
    assert "an old negative" not in new.negatives
    assert (new.positive_scores, new.negative_scores) == (None, None)
    assert old.negatives == ("an old negative",)


def test_the_same_seed_gives_the_same_negatives_and_another_seed_others(encoder):
    first, again, other = (mine(EXAMPLES, CORPUS, encoder, count=3, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first.examples != other.examples


def test_equal_passages_count_once_and_white_space_does_not_tell_them_apart(encoder):
    corpus = [*CORPUS, *(f" {text.replace(' ', '  ')}" for text in CORPUS), "", " \n"]
    mined = mine(EXAMPLES, corpus, encoder, count=100, margin=None)
    for example in mined.examples:
        expected = [text for text in CORPUS if text not in example.positives]
        assert sorted(example.negatives) == sorted(expected)


WORDS = st.sampled_from(["page", "river", "clock", "page  page", " river", "bridge\n", "", " "])
TEXTS = st.lists(WORDS, min_size=1, max_size=3).map(" ".join)
FULL = TEXTS.filter(str.strip)


@settings(max_examples=40)
@given(
    pairs=st.lists(st.tuples(TEXTS, st.lists(FULL, min_size=1, max_size=3)), max_size=4),
    corpus=st.lists(TEXTS, max_size=8),
    first=st.integers(1, 4),
    margin=st.sampled_from([None, 0.5, 1.0]),
    count=st.integers(1, 5),
)
def test_no_positive_and_no_query_is_ever_a_negative(tiny_m3, pairs, corpus, first, margin, count):
    encoder = _encoder(tiny_m3)
    examples = [Example(query, tuple(positives)) for query, positives in pairs]
    mined = mine(examples, corpus, encoder, ranks=(first, 6), margin=margin, count=count)
    known = {_even(text) for text in corpus} | {_even(p) for e in examples for p in e.positives}
    for before, after in zip(examples, mined.examples, strict=True):
        negatives = [_even(text) for text in after.negatives]
        assert len(negatives) == len(set(negatives)) <= count
        assert set(negatives) <= known - {"", _even(before.query), *map(_even, before.positives)}
        assert (after.query, after.positives) == (before.query, before.positives)
    assert mined.missing == sum(count - len(example.negatives) for example in mined.examples)


_LOADED = {}


def _encoder(folder):
    # hypothesis calls the test many times in one fixture scope
    return _LOADED.setdefault(folder, M3Encoder.from_pretrained(folder, device="cpu"))


def _even(text):
    return " ".join(text.split())


def test_another_querys_answer_serves_where_the_corpus_is_empty(encoder):
    mined = mine(EXAMPLES, [], encoder, count=2)
    assert set(mined.examples[0].negatives) <= {CORPUS[1], CORPUS[2], CORPUS[7]}
    assert len(mined.examples[0].negatives) + mined.missing >= 2


def test_a_model_without_a_sparse_head_mines_with_bm25(tiny_bert):
    heads = HeadSpec(sparse=False, colbert=False)
    encoder = M3Encoder.from_pretrained(tiny_bert, device="cpu", heads=heads)
    weights = HybridWeights(dense=0, sparse=1, colbert=0)
    example = Example("the river rose", ("The bank of the river rose.",))
    corpus = ["The river in the valley.", "A clock.", "Bread and butter."]
    mined = mine([example], corpus, encoder, weights=weights, ranks=(1, 1), count=1)
    assert mined.examples[0].negatives == ("The river in the valley.",)


def test_nothing_in_nothing_out(encoder):
    assert mine([], CORPUS, encoder).examples == []
    assert mine([], [], encoder).examples == []


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"ranks": (0, 5)}, "ranks"),
        ({"ranks": (6, 5)}, "ranks"),
        ({"count": 0}, "count"),
        ({"margin": 0.0}, "margin"),
        ({"margin": 1.5}, "margin"),
    ],
)
def test_settings_out_of_range_are_named(wrong, named):
    with pytest.raises(InputError, match=f"^{named} expects"):
        MiningSettings(**wrong)


def test_an_empty_positive_is_refused_with_its_query(encoder):
    with pytest.raises(TrainingDataError, match="Which page"):
        mine([Example("Which page?", (" ",))], CORPUS, encoder)


def test_a_passage_that_is_no_text_is_refused(encoder):
    with pytest.raises(InputError, match="NoneType"):
        mine(EXAMPLES, ["text", None], encoder)
