"""Why a hit matched: everything shown adds up to the scores, and points at the right characters."""

import json
import math
import unicodedata

import numpy as np
import pytest

import reference
from m3_retrievers import (
    BM25,
    HeadSpec,
    Hit,
    HybridRetriever,
    HybridWeights,
    LocalIndex,
    M3Encoder,
    ReciprocalRankFusion,
)
from m3_retrievers.display.highlight import document_segments, excerpt, segments
from m3_retrievers.display.terminal import marked
from m3_retrievers.errors import (
    InputError,
    MissingOutputError,
    TruncationWarning,
)
from m3_retrievers.explain import compare, explain
from m3_retrievers.explain.explaining import _placed
from m3_retrievers.explain.words import occurrences
from m3_retrievers.lexical.tokenizers import SubwordTokenizer, WordTokenizer
from m3_retrievers.types.packed import TokenWeight

# the tests' checkpoint has a small vocabulary, and these texts every script
pytestmark = pytest.mark.filterwarnings("ignore::m3_retrievers.errors.UnknownTokenWarning")

DOCUMENTS = [
    "A librarian finds the one page that matters.",
    "The river rose three metres overnight, and the bridge was closed before dawn.",
    "page page pages 😀 café cafe\u0301 page",
    "图书管理员很快找到了那一页。",
    "पुस्तकालय में सही पन्ना जल्दी मिल गया।",
    "وجدت أمينة المكتبة الصفحة الصحيحة بسرعة.",
    "",
]
QUERIES = ["the page that matters", "café 😀", "找到了那一页", "सही पन्ना", "الصفحة الصحيحة"]


def filled(encoder, documents=DOCUMENTS, **options) -> HybridRetriever:
    retriever = HybridRetriever(encoder, **options)
    retriever.add(documents, ids=[f"d{row}" for row in range(len(documents))])
    return retriever


@pytest.fixture(scope="module")
def retriever(encoder):
    return filled(encoder, legs=("dense", "sparse", "bm25"))


@pytest.mark.parametrize("query", QUERIES)
def test_terms_and_alignment_add_up_to_the_scores_of_every_hit(retriever, query):
    hits = retriever.search(query, k=10)
    assert len(hits) == len(DOCUMENTS)
    for hit in hits:
        why = explain(query, hit, retriever=retriever)
        for mode in ("sparse", "bm25"):
            total = math.fsum(share.score for share in why.terms[mode])
            assert total == pytest.approx(hit.scores[mode], abs=1e-5)
        assert why.alignment.score == pytest.approx(hit.scores["colbert"], abs=1e-5)
        assert math.fsum(why.shares.values()) == pytest.approx(hit.score, abs=1e-5)
        for share in why.terms["sparse"]:
            assert share.score == pytest.approx(share.query_weight * share.document_weight)
            assert share.score > 0


@pytest.mark.parametrize("variant", ["okapi", "plus", "l"])
@pytest.mark.parametrize("kind", [WordTokenizer, SubwordTokenizer])
def test_bm25_shares_add_up_for_every_variant_and_tokenizer(encoder, variant, kind):
    tokenizer = kind(encoder.tokenizer) if kind is SubwordTokenizer else kind()
    index = LocalIndex(modes=("dense",), weighting=BM25(variant=variant, tokenizer=tokenizer))
    weights = HybridWeights(dense=0, sparse=1, colbert=0)
    retriever = filled(encoder, index=index, legs=("bm25",), weights=weights)
    for query in ("the page, the page", "图书馆的一页"):
        for hit in retriever.search(query):
            why = explain(query, hit, retriever=retriever)
            total = math.fsum(share.score for share in why.terms["bm25"])
            assert total == pytest.approx(hit.scores["bm25"], abs=1e-5)
            assert why.lexical_mode == "bm25"


def test_the_alignment_is_every_pair_of_token_vectors(encoder):
    retriever = filled(encoder, index=LocalIndex(colbert_dtype="float32"))
    hit = next(hit for hit in retriever.search(QUERIES[0]) if hit.id == "d0")
    why = explain(QUERIES[0], hit, retriever=retriever)
    q = encoder.encode_queries([QUERIES[0]]).colbert[0].tolist()
    d = encoder.encode_documents([hit.text]).colbert[0].tolist()
    naive = [[reference.dot(a, b) for b in d] for a in q]
    np.testing.assert_allclose(why.alignment.similarities, naive, atol=1e-5)
    assert why.alignment.best.tolist() == [row.index(max(row)) for row in naive]
    assert why.alignment.score == pytest.approx(reference.maxsim(q, d), abs=1e-5)
    assert why.query.vector_labels[-1] == "</s>"
    assert why.query.vector_tokens[-1] is None
    assert why.query.vector_tokens[:-1] == tuple(range(len(why.query.tokens)))


def test_pooled_vectors_are_explained_token_by_token_and_the_difference_is_said(encoder):
    retriever = filled(encoder, index=LocalIndex(colbert_pool_factor=2))
    hit = next(hit for hit in retriever.search(QUERIES[0]) if hit.id == "d0")
    why = explain(QUERIES[0], hit, retriever=retriever)
    tokens = encoder.encode_documents([hit.text]).colbert.lengths[0]
    assert retriever.vectors(["d0"], outputs=("colbert",)).colbert.lengths[0] == -(-tokens // 2)
    assert why.alignment.similarities.shape[1] == tokens
    assert any("the index pools token vectors" in note for note in why.notes)


def test_a_text_explains_itself_with_a_diagonal(retriever):
    (hit,) = retriever.search(DOCUMENTS[0], k=1)
    assert hit.id == "d0"
    why = explain(DOCUMENTS[0], hit, retriever=retriever)
    assert why.alignment.best.tolist() == list(range(len(why.query.vector_tokens)))
    assert why.alignment.score == pytest.approx(1.0, abs=1e-3)  # stored as float16


def spelled(text: str, spans) -> list[str]:
    return [text[start:end] for start, end in spans]


def test_learned_terms_point_at_their_characters_in_every_script(retriever):
    found = {}
    for query in QUERIES:
        for hit in retriever.search(query):
            why = explain(query, hit, retriever=retriever)
            for share in why.terms["sparse"]:
                found[share.term, hit.id] = spelled(hit.text, share.document_spans)
                assert share.term == "▁" or spelled(query, share.query_spans)
    assert found["▁the", "d0"] == ["the"]
    # an accent typed as a mark of its own belongs to its letter
    assert found["é", "d2"] == ["é", "e\u0301"]
    # the bare word boundary stands for no character
    assert all(spans == [] for (term, _), spans in found.items() if term == "▁")
    for (term, _), spans in found.items():
        for span in spans:
            assert span.replace("e\u0301", "é") == term.lstrip("▁")


def test_tokens_spell_the_characters_they_point_at(retriever):
    for hit in retriever.search(" ".join(QUERIES), k=10):
        read = explain("page", hit, retriever=retriever).document
        covered = set()
        for token in read.tokens:
            characters = unicodedata.normalize("NFC", hit.text[token.start : token.end])
            assert characters == token.surface.lstrip("▁"), token
            covered |= set(range(token.start, token.end))
        assert {at for at, letter in enumerate(hit.text) if not letter.isspace()} == covered


def test_bm25_terms_point_at_whole_words(retriever):
    hit = next(hit for hit in retriever.search("page café") if hit.id == "d2")
    shares = {
        share.term: share for share in explain("page café", hit, retriever=retriever).terms["bm25"]
    }
    assert spelled(hit.text, shares["page"].document_spans) == ["page", "page", "page"]
    assert spelled(hit.text, shares["café"].document_spans) == ["café", "cafe\u0301"]
    assert shares["page"].query_spans == ((0, 4),)


@pytest.mark.parametrize(
    ("term", "text", "tokenizer", "words"),
    [
        ("strasse", "STRASSE Straßen Straße", WordTokenizer(), ["STRASSE", "Straße"]),
        ("हिन्दी", "हिन्दी में हिन्दीभाषी", WordTokenizer(), ["हिन्दी"]),
        ("東京", "東京タワーは東京", WordTokenizer(), ["東京", "東京"]),
        ("abc", "ＡＢＣ abcd", WordTokenizer(), ["ＡＢＣ"]),
        ("page", "homepage pages", WordTokenizer(), []),
        ("haus", "Häuser, ein Haus", WordTokenizer(language="german"), ["Häuser", "Haus"]),
        ("ガラ", "ｶﾞﾗｽ窓", WordTokenizer(), ["ｶﾞﾗ"]),
        # of a callable that stems: the letters that the term is spelled with, if it is
        ("run", "running", lambda text: ["run" for _ in text.split()], ["run"]),
        ("study", "studies", lambda text: ["study" for _ in text.split()], []),
    ],
)
def test_occurrences_are_whole_terms(term, text, tokenizer, words):
    found = occurrences(term, text, BM25(tokenizer=tokenizer))
    assert spelled(text, found) == words


def test_a_cut_document_says_how_much_was_not_read(tiny_m3):
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu", document_max_length=12)
    text = "the river rose " * 40
    with pytest.warns(TruncationWarning):
        retriever = filled(encoder, [text])
    (hit,) = retriever.search("the river", k=1)
    with pytest.warns(TruncationWarning):
        why = explain("the river", hit, retriever=retriever)
    assert len(why.document.tokens) == 10
    whole = len(encoder.tokenizer(text, add_special_tokens=False)["input_ids"])
    assert why.document.unseen == whole - 10
    assert f"first 10 of the document's {whole:,} tokens" in why.notes[0]
    assert len(why.document.vector_tokens) == why.alignment.similarities.shape[1] == 11
    assert why.alignment.score == pytest.approx(hit.scores["colbert"], abs=1e-5)


@pytest.mark.parametrize("mcls_every", [None, 3])
def test_windows_align_with_the_tokens_of_the_whole_text(tiny_m3, mcls_every):
    encoder = M3Encoder.from_pretrained(
        tiny_m3, device="cpu", document_max_length=12, truncation="windows", mcls_every=mcls_every
    )
    text = "the river rose overnight and the page was found before dawn " * 3
    retriever = filled(encoder, [text])
    (hit,) = retriever.search("the page", k=1)
    why = explain("the page", hit, retriever=retriever)
    places = why.document.vector_tokens
    assert why.alignment.similarities.shape[1] == len(places)
    assert [at for at in places if at is not None] == list(range(len(why.document.tokens)))
    assert places.count(None) > 1
    assert all(
        label == ("</s>" if at is None else why.document.tokens[at].surface)
        for at, label in zip(places, why.document.vector_labels, strict=True)
    )
    assert why.document.unseen == 0
    assert why.alignment.score == pytest.approx(hit.scores["colbert"], abs=1e-5)
    total = math.fsum(share.score for share in why.terms["sparse"])
    assert total == pytest.approx(hit.scores["sparse"], abs=1e-5)


def test_a_query_instruction_points_at_no_character(tiny_m3):
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu", query_instruction="find: ")
    retriever = filled(encoder)
    hit = retriever.search("the page", k=1)[0]
    why = explain("the page", hit, retriever=retriever)
    words = [(t.start, t.end) for t in why.query.tokens if t.end > t.start]
    assert spelled("the page", words) == ["the", "page"]
    assert why.query.unseen == 0
    assert why.alignment.score == pytest.approx(hit.scores["colbert"], abs=1e-5)


def test_a_model_without_heads_is_explained_by_bm25(tiny_bert):
    without = HeadSpec(sparse=False, colbert=False)
    encoder = M3Encoder.from_pretrained(tiny_bert, device="cpu", heads=without)
    retriever = filled(encoder, legs=("dense", "bm25"))
    hit = retriever.search("the page", k=1)[0]
    why = explain("the page", hit, retriever=retriever)
    assert why.alignment is None
    assert list(why.terms) == ["bm25"]
    assert math.fsum(t.score for t in why.lexical_terms) == pytest.approx(hit.scores["bm25"])
    assert any("no colbert head" in note for note in why.notes)
    json.dumps(why.to_dict())
    with pytest.raises(MissingOutputError, match="alignment"):
        why.plot()


def test_a_fused_hit_has_terms_and_says_that_it_has_no_shares(encoder):
    retriever = filled(encoder, fusion=ReciprocalRankFusion())
    a, b = (explain("the page", h, retriever=retriever) for h in retriever.search("the page", k=2))
    assert a.shares == {}
    assert any("fusing" in note for note in a.notes)
    with pytest.raises(InputError, match="shares"):
        compare(a, b)


def test_compare_takes_the_difference_apart(retriever):
    query = "the page that matters"
    found = [explain(query, hit, retriever=retriever) for hit in retriever.search(query, k=10)]
    for a in found:
        for b in found:
            one = compare(a, b)
            assert one.difference == a.hit.score - b.hit.score
            assert math.fsum(one.modes.values()) == pytest.approx(one.difference, abs=1e-5)
            lexical = a.shares["sparse"] - b.shares["sparse"]
            assert math.fsum(one.terms.values()) == pytest.approx(lexical, abs=1e-5)
            sizes = [abs(value) for value in one.modes.values()]
            assert sizes == sorted(sizes, reverse=True)
    best = compare(found[0], found[-1])
    assert best.summary.startswith(f"'{found[0].hit.id}' outranks '{found[-1].hit.id}' by ")
    assert compare(found[-1], found[0]).summary.startswith(f"'{found[-1].hit.id}' ranks below ")
    assert json.loads(json.dumps(best.to_dict()))["terms"] == dict(best.terms)
    with pytest.raises(InputError, match="one query"):
        compare(found[0], explain("another", found[1].hit, retriever=retriever))


def test_the_dict_is_json_and_its_matches_average_to_the_colbert_score(retriever):
    query = "page 😀 \ud800"
    hit = next(hit for hit in retriever.search(query) if hit.id == "d2")
    told = json.loads(json.dumps(explain(query, hit, retriever=retriever).to_dict()))
    matches = [match["similarity"] for match in told["alignment"]["matches"]]
    assert math.fsum(matches) / len(matches) == pytest.approx(hit.scores["colbert"], abs=1e-5)
    assert told["query"]["text"] == query
    assert math.fsum(term["score"] for term in told["terms"]["sparse"]) == pytest.approx(
        told["scores"]["sparse"], abs=1e-5
    )


def test_a_query_that_is_no_text_is_refused(retriever):
    hit = retriever.search("page", k=1)[0]
    with pytest.raises(InputError, match="strings"):
        explain(None, hit, retriever=retriever)


# What is pointed at


def test_segments_join_without_gaps_and_keep_marks_with_their_letters(retriever):
    for query in QUERIES:
        for hit in retriever.search(query):
            parts = document_segments(explain(query, hit, retriever=retriever))
            assert "".join(hit.text[part.start : part.end] for part in parts) == hit.text
    assert [(p.start, p.end) for p in segments("e\u0301a", [(0, 1, 1.0, 0.0)])] == [(0, 2), (2, 3)]


def test_overlapping_marks_keep_the_stronger():
    parts = segments("abcd", [(0, 3, 0.5, 0.0), (1, 4, 1.0, 0.0), (1, 2, 0.0, 0.7)])
    assert [(p.start, p.end, p.lexical, p.aligned) for p in parts] == [
        (0, 1, 0.5, 0.0),
        (1, 2, 1.0, 0.7),
        (2, 3, 1.0, 0.0),
        (3, 4, 1.0, 0.0),
    ]


def test_an_excerpt_shows_the_strongest_matches_and_no_more_than_asked():
    text = "word " * 4000
    marks = [(at, at + 4, at / 20_000, 0.0) for at in range(0, 20_000, 500)]
    spans = excerpt(text, segments(text, marks), most=600)
    assert sum(end - start for start, end in spans) <= 600
    assert any(start <= 19_500 < end for start, end in spans)
    assert all(text[start:end].startswith("word") for start, end in spans)
    assert excerpt(text, segments(text, []), most=600) == [(0, 599)]
    assert excerpt("short", segments("short", []), most=600) == [(0, 5)]


# The terminal


def test_the_terminal_marks_what_matched_and_obeys_no_text(encoder):
    text = "the [bold]page[/] \x1b[31mred\x1b[0m " + "The river rose. " * 100
    retriever = filled(encoder, [text])
    (hit,) = retriever.search("the page", k=1)
    why = explain("the page", hit, retriever=retriever)
    shown = marked(why, most=300)
    assert "[bold]page[/]" in shown.plain
    assert "\x1b" not in shown.plain
    assert shown.plain.startswith("d0  ▁the ")
    assert len(shown.plain) < 450
    bold = [shown.plain[s.start : s.end] for s in shown.spans if str(s.style).startswith("bold m")]
    assert bold
    terms = {share.term.lstrip("▁") for share in why.lexical_terms}
    assert all(word.casefold() in terms for word in bold)


def test_an_explanation_says_when_the_index_is_no_longer_the_searched_one(encoder):
    retriever = filled(encoder, legs=("dense", "bm25"))
    hit = retriever.search("the page", k=1)[0]
    assert explain("the page", hit, retriever=retriever).notes == ()
    retriever.add(["the page"] * 20)
    (note,) = explain("the page", hit, retriever=retriever).notes
    assert note.startswith(f"The hit's bm25 score is {hit.scores['bm25']:.4f}, ")
    told = " ".join(explain("elsewhere", hit, retriever=retriever).notes)
    assert "hit's colbert score" in told


def test_a_hit_made_by_hand_is_explained_and_not_called_fused(retriever):
    (note,) = explain("page", Hit("a", "the page", 0.0), retriever=retriever).notes
    assert "no shares" in note
    assert "fusing" not in note


@pytest.mark.parametrize(
    ("text", "mark", "whole"),
    [
        ("👩‍💻 x", (0, 1), "👩‍💻"),
        ("👩‍💻 x", (2, 3), "👩‍💻"),
        ("👍🏽 x", (0, 1), "👍🏽"),
        ("🇩🇪🇫🇷 x", (2, 3), "🇫🇷"),
        ("पुस्तक", (1, 2), "पु"),
        ("e\u0301a", (1, 2), "e\u0301"),
        ("\u1112\u1161\u11ab\u1100", (0, 1), "\u1112\u1161\u11ab"),
    ],
)
def test_no_mark_cuts_a_visible_character(text, mark, whole):
    parts = segments(text, [(*mark, 1.0, 0.0)])
    assert [text[p.start : p.end] for p in parts if p.lexical] == [whole]
    assert "".join(text[p.start : p.end] for p in parts) == text


def test_a_vowel_sign_belongs_to_the_token_that_holds_it():
    first, second = (TokenWeight(5, "प", 0, 1, 0.0), TokenWeight(6, "ुस्तक", 1, 6, 0.0))
    assert _placed(first, "पुस्तक", second.start) == first
    alone = TokenWeight(5, "é", 0, 1, 0.0)
    assert _placed(alone, "e\u0301a", 2).end == 2


def test_decomposed_hangul_is_found():
    text = unicodedata.normalize("NFD", "한국어 페이지")
    ((start, end),) = occurrences("한국어", text, BM25())
    assert unicodedata.normalize("NFC", text[start:end]) == "한국어"


def test_a_document_that_was_not_found_is_explained_by_its_id(retriever):
    hit = retriever.search("the page", k=1)[0]
    by_id = explain("the page", hit.id, retriever=retriever)
    assert by_id.hit.scores == pytest.approx(hit.scores, abs=1e-5)
    assert by_id.shares == pytest.approx(hit.contributions, abs=1e-5)
    assert by_id.hit.ranks == {}
    assert by_id.notes == ()
    with pytest.raises(InputError, match="ids of the index, got 'nobody'"):
        explain("the page", "nobody", retriever=retriever)


def test_explanations_are_short_in_a_terminal(retriever):
    first, second = retriever.search("the page", k=2)
    a, b = (explain("the page", hit, retriever=retriever) for hit in (first, second))
    assert repr(a) == f"Explanation('the page', {first.id!r}, {first.score:.3f})"
    assert repr(compare(a, b)) == f"Comparison({compare(a, b).summary})"
