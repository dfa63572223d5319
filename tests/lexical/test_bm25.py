"""BM25: rank_bm25 is the definition, which the fit by counts equals."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import rank_bm25
from hypothesis import given, settings
from hypothesis import strategies as st

from m3_retrievers.errors import InputError
from m3_retrievers.index.base import TermWeighting
from m3_retrievers.index.stores.inverted import InvertedIndex
from m3_retrievers.lexical.bm25 import BM25, as_bm25
from m3_retrievers.lexical.tokenizers import WordTokenizer

REFERENCES = {
    "okapi": rank_bm25.BM25Okapi,
    "plus": rank_bm25.BM25Plus,
    "l": rank_bm25.BM25L,
}
VARIANTS = tuple(REFERENCES)
CRANFIELD = Path(__file__).parents[3] / "shared" / "data" / "cranfield"

# Few letters, so that terms occur in most documents (negative idf) and repeat in queries.
documents_of_few_terms = st.lists(
    st.lists(st.sampled_from("abcdefg"), max_size=12), min_size=1, max_size=12
).filter(lambda documents: any(documents))
queries_of_few_terms = st.lists(st.sampled_from("abcdefgz"), max_size=6)


def make(**options) -> BM25:
    return BM25(tokenizer=str.split, **options)


def scores(bm25: BM25, counts, query: str) -> np.ndarray:
    """What an index does with the weighting: every document, base included."""
    index = InvertedIndex.from_matrix(bm25.impacts(counts))
    terms = bm25.query(query)
    return index.scores(terms) + bm25.base(terms)


def fitted(documents: list[list[str]], **options):
    bm25 = make(**options)
    counts = bm25.count([" ".join(document) for document in documents])
    bm25.fit(counts)
    return bm25, counts


def test_it_is_what_an_index_asks_of_a_term_weighting():
    weighting: TermWeighting = BM25()
    assert weighting.name == "bm25"


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=150)
@given(
    documents=documents_of_few_terms,
    query=queries_of_few_terms,
    k1=st.sampled_from([0.4, 1.5, 2.0]),
    b=st.sampled_from([0.0, 0.75, 0.9]),
)
def test_scores_equal_rank_bm25(variant, documents, query, k1, b):
    expected = REFERENCES[variant](documents, k1=k1, b=b).get_scores(query)
    bm25, counts = fitted(documents, variant=variant, idf="rank_bm25", k1=k1, b=b)
    assert scores(bm25, counts, " ".join(query)) == pytest.approx(expected, abs=1e-6)


def test_parity_covers_a_floored_negative_idf():
    documents = [["a", "b"], ["a", "c"], ["a", "d"], ["a"]]
    reference = rank_bm25.BM25Okapi(documents)
    raw = math.log(0.5) - math.log(4.5)
    assert raw < 0 < reference.idf["b"]
    assert reference.idf["a"] == pytest.approx(0.25 * reference.average_idf)
    bm25, counts = fitted(documents, idf="rank_bm25")
    assert scores(bm25, counts, "a") == pytest.approx(reference.get_scores(["a"]), abs=1e-12)


@pytest.mark.parametrize("variant", ["plus", "l"])
def test_delta_and_epsilon_reach_the_reference_and_our_own_sums(variant):
    documents = [["a", "a", "b"], ["b", "c"], []]
    expected = REFERENCES[variant](documents, delta=0.3).get_scores(["a", "b"])
    bm25, counts = fitted(documents, variant=variant, idf="rank_bm25", delta=0.3)
    assert scores(bm25, counts, "a b") == pytest.approx(expected, abs=1e-12)
    documents = [["a", "b"], ["a", "c"], ["a"]]
    expected = rank_bm25.BM25Okapi(documents, epsilon=0.9).get_scores(["a"])
    bm25, counts = fitted(documents, idf="rank_bm25", epsilon=0.9)
    assert scores(bm25, counts, "a") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("idf", ["lucene", "rank_bm25"])
@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=60)
@given(
    before=documents_of_few_terms,
    added=st.lists(st.lists(st.sampled_from("abfghij"), max_size=9), max_size=6),
    query=st.lists(st.sampled_from("abcfgjz"), min_size=1, max_size=5),
    data=st.data(),
)
def test_scores_after_adds_and_deletes_equal_a_fresh_fit(variant, idf, before, added, query, data):
    bm25, _ = fitted(before, variant=variant, idf=idf)
    every = before + added
    bm25.count([" ".join(document) for document in added])
    kept = data.draw(st.lists(st.sampled_from(range(len(every))), unique=True))
    counts = bm25.count([" ".join(every[row]) for row in kept])
    bm25.fit(counts)
    fresh, fresh_counts = fitted([every[row] for row in kept], variant=variant, idf=idf)
    text = " ".join(query)
    expected = scores(fresh, fresh_counts, text)
    assert scores(bm25, counts, text) == pytest.approx(expected, abs=1e-9)
    assert bm25.scale(bm25.query(text)) == pytest.approx(fresh.scale(fresh.query(text)))


def test_lucene_idf_by_hand():
    # two documents of 2 terms: lengths are average, so the norm is 1; n(fox) = 2, n(red) = 1
    bm25, counts = fitted([["red", "fox"], ["blue", "fox"]])
    fox, red = math.log(1 + 0.5 / 2.5), math.log(1 + 1.5 / 1.5)
    assert scores(bm25, counts, "fox red") == pytest.approx([fox + red, fox])


@settings(max_examples=100)
@given(documents=documents_of_few_terms)
def test_lucene_idf_is_never_negative(documents):
    bm25, counts = fitted(documents)
    assert np.all(bm25.impacts(counts).data > 0)


@pytest.mark.parametrize("idf", ["lucene", "rank_bm25"])
@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=60)
@given(documents=documents_of_few_terms, query=queries_of_few_terms)
def test_scaled_scores_stay_within_0_and_1(variant, idf, documents, query):
    bm25, counts = fitted(documents, variant=variant, idf=idf)
    text = " ".join(query)
    scaled = scores(bm25, counts, text) * bm25.scale(bm25.query(text))
    assert np.all(scaled <= 1 + 1e-12)
    if idf == "lucene":
        assert np.all(scaled >= 0)


def test_scale_by_hand():
    bm25, _ = fitted([["red", "fox"], ["blue", "fox"]], k1=1.0)
    fox, red = math.log(1 + 0.5 / 2.5), math.log(2)
    assert bm25.scale(bm25.query("red red fox")) == pytest.approx(1 / (2 * (2 * red + fox)))
    assert bm25.scale(bm25.query("wolf")) == 0


def test_scale_leaves_negative_idf_out():
    # N = 3: idf(a) = log 0.5/3.5 and the average is below 0 too, so the floor stays negative
    bm25, counts = fitted([["a"], ["a"], ["a"]], idf="rank_bm25")
    assert np.all(scores(bm25, counts, "a") < 0)
    assert bm25.scale(bm25.query("a")) == 0


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("idf", ["lucene", "rank_bm25"])
@pytest.mark.parametrize("documents", [[], [[]], [[], []]])
def test_a_corpus_without_terms_scores_0(variant, idf, documents):
    bm25, counts = fitted(documents, variant=variant, idf=idf)
    assert scores(bm25, counts, "a b").tolist() == [0.0] * len(documents)
    assert bm25.scale(bm25.query("a b")) == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_query_without_a_known_term_scores_0(variant):
    bm25, counts = fitted([["a"], ["b"]], variant=variant)
    for query in ("", "z y"):
        assert scores(bm25, counts, query).tolist() == [0.0, 0.0]
        assert bm25.scale(bm25.query(query)) == 0


def test_counting_extends_the_vocabulary_and_asking_does_not():
    bm25 = make()
    assert bm25.count(["a b a"]).toarray().tolist() == [[2, 1]]
    assert bm25.query("c b b").toarray().tolist() == [[0, 2]]
    assert bm25.count(["c a"]).toarray().tolist() == [[1, 0, 1]]
    assert bm25.count([]).shape == (0, 3)


def test_terms_newer_than_the_fit_add_nothing():
    bm25, _ = fitted([["a"], ["b"]])
    newer = bm25.count(["a c"])
    impacts = bm25.impacts(newer).toarray()[0]
    assert impacts[0] > 0
    assert impacts[2] == 0


def test_counts_are_not_changed():
    bm25, counts = fitted([["a", "a"], ["b"]])
    before = counts.toarray()
    bm25.fit(counts)
    bm25.impacts(counts)
    assert np.array_equal(counts.toarray(), before)


@pytest.mark.parametrize("options", [{}, {"variant": "plus", "delta": 0.7, "idf": "rank_bm25"}])
def test_a_saved_state_scores_the_same(options):
    texts = ["the red fox", "the blue fox 日本語", ""]
    bm25 = BM25(k1=0.9, b=0.4, tokenizer="german", **options)
    counts = bm25.count(texts)
    bm25.fit(counts)
    state = json.loads(json.dumps(bm25.state()))
    again = BM25.from_state(state)
    again.fit(counts)
    assert again.state() == bm25.state()
    for query in ("red fox", "日本", "wolf"):
        assert np.array_equal(scores(again, counts, query), scores(bm25, counts, query))
        assert again.scale(again.query(query)) == bm25.scale(bm25.query(query))
    assert again.count(["green"]).shape == bm25.count(["green"]).shape


def test_a_tokenizer_without_state_cannot_be_saved():
    with pytest.raises(InputError, match="state"):
        make().state()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "bm42"}, "'okapi', 'plus' or 'l', got 'bm42'"),
        ({"idf": "tf"}, "'lucene' or 'rank_bm25', got 'tf'"),
        ({"k1": -0.1}, "k1 expects a finite number ≥ 0, got -0.1"),
        ({"k1": math.nan}, "k1 expects"),
        ({"b": 1.1}, "b expects a finite number in 0..1, got 1.1"),
        ({"b": "0.5"}, "b expects .* got '0.5'"),
        ({"epsilon": -1}, "epsilon expects"),
        ({"variant": "plus", "delta": -1}, "delta expects"),
        ({"delta": 1.0}, "delta belongs to"),
    ],
)
def test_parameters_out_of_range_are_named(options, message):
    with pytest.raises(InputError, match=message):
        BM25(**options)


def test_texts_that_are_no_strings_are_refused_before_anything_is_counted():
    bm25 = make()
    with pytest.raises(InputError, match="got None"):
        bm25.count(["a", None])
    with pytest.raises(InputError, match="wrap it in a list"):
        bm25.count("a b")
    assert bm25.query("a").shape == (1, 0)


# Languages


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("图书管理员很快找到了那一页。", "找到"),
        ("これは東京タワーです。", "東京"),
        ("ร้านกาแฟอยู่ใกล้แม่น้ำ", "กาแฟ"),
        ("पुस्तकालय में सही पन्ना", "पन्ना"),
        ("وجدت أمينة المكتبة الصفحة", "الصفحة"),
    ],
)
def test_the_default_finds_a_word_within_a_sentence_of_any_script(text, query):
    bm25 = BM25()
    counts = bm25.count(["another page", text])
    bm25.fit(counts)
    found = scores(bm25, counts, query)
    assert found[1] > found[0] == 0


def test_a_language_s_name_is_enough_for_its_stems():
    bm25 = BM25(tokenizer="german")
    counts = bm25.count(["Die Häuser am Hafen", "Ein Buch"])
    bm25.fit(counts)
    assert scores(bm25, counts, "Haus")[0] > scores(bm25, counts, "Haus")[1] == 0
    assert bm25.terms("Häuser, unbekannt") == ["haus", "unbekannt"]


def test_one_of_bm25_and_tokenizer_makes_the_weighting():
    given = BM25(k1=1.2)
    assert as_bm25(given) is given
    assert as_bm25().state() == BM25().state()
    assert as_bm25(tokenizer="german").terms("Häuser") == ["haus"]
    with pytest.raises(InputError, match=r"got both \('german'\).*BM25\(…, tokenizer=…\)"):
        as_bm25(given, "german")
    with pytest.raises(InputError, match=r"bm25 expects a BM25 .*got 'okapi'"):
        as_bm25("okapi")


@pytest.mark.parametrize("split", [lambda text: None, lambda text: text, lambda text: [3], iter])
def test_a_tokenizer_that_gives_no_list_of_words_is_refused_before_anything_is_counted(split):
    bm25 = BM25(tokenizer=split)
    for call in (bm25.query, bm25.terms, lambda text: bm25.count([text])):
        with pytest.raises(InputError, match=r"tokenizer expects a callable .* returned"):
            call("some words")
    assert bm25.count([]).shape == (0, 0)


# What no document holds any more


@pytest.mark.parametrize("idf", ["lucene", "rank_bm25"])
@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=60, deadline=None)
@given(documents=documents_of_few_terms, query=queries_of_few_terms, data=st.data())
def test_without_the_terms_of_deleted_documents_scores_are_the_same(
    variant, idf, documents, query, data
):
    bm25, counts = fitted(documents, variant=variant, idf=idf)
    rows = data.draw(st.lists(st.sampled_from(range(len(documents))), unique=True))
    live, text = counts[rows], " ".join(query)
    bm25.fit(live)
    before, vocabulary, expected = live.toarray(), bm25.query(text).shape, scores(bm25, live, text)
    smaller, kept = bm25.compacted(live)
    assert kept.shape == (len(rows), len({term for row in rows for term in documents[row]}))
    # as it was fitted, and fitted again
    assert scores(smaller, kept, text) == pytest.approx(expected, abs=1e-9)
    assert smaller.scale(smaller.query(text)) == pytest.approx(bm25.scale(bm25.query(text)))
    smaller.fit(kept)
    assert scores(smaller, kept, text) == pytest.approx(expected, abs=1e-9)
    # words that come later
    smaller.count(["new words"])
    assert (bm25.query(text).shape, live.toarray().tolist()) == (vocabulary, before.tolist())


def test_a_compacted_vocabulary_holds_what_is_left_in_order_and_takes_new_terms():
    bm25 = BM25()
    counts = bm25.count(["red fox", "blue fox", "green owl"])
    smaller, kept = bm25.compacted(counts[[1, 2]])
    assert smaller.state()["vocabulary"] == ["fox", "blue", "green", "owl"]
    assert kept.toarray().tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]
    assert smaller.count(["red owl"]).toarray().tolist() == [[0, 0, 0, 1, 1]]
    assert bm25.state()["vocabulary"] == ["red", "fox", "blue", "green", "owl"]
    empty, none = smaller.compacted(counts[[]])
    assert (none.shape, empty.state()["vocabulary"]) == ((0, 0), [])


def test_a_weighting_of_a_class_of_its_own_stays_one():
    class Own(BM25):
        pass

    smaller, _ = Own().compacted(Own().count([]))
    assert type(smaller) is Own


# The check against rank_bm25


@pytest.mark.parametrize("idf", ["lucene", "rank_bm25"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_check_says_how_far_rank_bm25_is_and_changes_nothing(variant, idf):
    texts = ["the red fox, the red fox", "the blue fox", "the owl", ""]
    bm25 = BM25(variant=variant, idf=idf, k1=0.9, b=0.4)
    bm25.fit(bm25.count(["another page"]))
    state, scale = bm25.state(), bm25.scale(bm25.query("page"))
    assert bm25.verify(texts) < 1e-12
    assert bm25.verify(texts, ["the the fox", "", "wolf"]) < 1e-12
    assert bm25.verify(texts, []) == 0
    assert (bm25.state(), bm25.scale(bm25.query("page"))) == (state, scale)


def test_the_check_notices_a_difference(monkeypatch):
    impacts = BM25.impacts
    monkeypatch.setattr(BM25, "impacts", lambda self, counts: impacts(self, counts) * 1.5)
    assert BM25().verify(["the red fox", "the owl"], ["fox"]) > 0.1


@pytest.mark.parametrize("texts", [[], [""], ["!", "?"]])
def test_a_check_of_nothing_is_refused(texts):
    with pytest.raises(InputError, match=f"at least one term, got {len(texts)} without"):
        BM25().verify(texts)


def test_no_fit_goes_through_rank_bm25(monkeypatch):
    monkeypatch.setattr(rank_bm25.BM25, "__init__", None)
    fitted([["a", "b"], ["b"]], idf="rank_bm25")


@pytest.mark.skipif(not CRANFIELD.is_dir(), reason="no ../shared/data/cranfield beside the repo")
@pytest.mark.parametrize("variant", VARIANTS)
def test_parity_with_rank_bm25_on_cranfield(variant):
    texts = [f"{line['title']} {line['text']}" for line in read("corpus.jsonl")]
    queries = [line["text"] for line in read("queries.jsonl")][:25]
    words = WordTokenizer("en")
    reference = REFERENCES[variant]([words(text) for text in texts])
    bm25 = BM25(variant=variant, idf="rank_bm25", tokenizer=words)
    counts = bm25.count(texts)
    bm25.fit(counts)
    index = InvertedIndex.from_matrix(bm25.impacts(counts))
    for query in queries:
        terms = bm25.query(query)
        ours = index.scores(terms) + bm25.base(terms)
        assert np.abs(ours - reference.get_scores(words(query))).max() <= 1e-6


def read(name: str) -> list[dict]:
    lines = (CRANFIELD / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
