"""What notebooks show: every word escaped, legible in both themes, and as long as one can read."""

import re
from html.parser import HTMLParser

import pytest

from m3_retrievers import Hit, HybridRetriever, ReciprocalRankFusion
from m3_retrievers.display import markup
from m3_retrievers.explain import compare, explain
from m3_retrievers.types.hits import Hits

HOSTILE = [
    "<script>alert('x')</script> the page",
    '"><img src=x onerror="alert(1)"> the page',
    "</div></mark></details><style>*{display:none}</style> the page",
    "' onmouseover='alert(1)' the page & <b>bold</b>",
    "<svg/onload=alert(1)> the page \ud800 \x1b[31m \x00",
    "<!-- the page -->",
    "javascript:alert(1) &lt;script&gt; the page",
]
ALLOWED = {
    "b", "details", "div", "mark", "span", "summary", "table", "tbody", "td", "th", "thead", "tr",
}  # fmt: skip


class Reader(HTMLParser):
    """Reads a page as a browser does: tags that nest, their attributes, and the text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.words: list[str] = []
        self.styles: list[str] = []

    def handle_starttag(self, tag, attributes):
        assert tag in ALLOWED, tag
        for name, value in attributes:
            assert name in ("class", "dir", "open", "style", "title"), name
            if name == "style":
                self.styles.append(value)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def handle_comment(self, data):
        raise AssertionError(data)


def read(page: str) -> Reader:
    page.encode("utf-8")
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def text_of(page: str) -> str:
    return "".join(read(page).words)


@pytest.fixture(scope="module")
def retriever(encoder):
    retriever = HybridRetriever(encoder, legs=("dense", "sparse", "bm25"))
    ids = [f"{row}<i>{text}" for row, text in enumerate(HOSTILE)]
    retriever.add(HOSTILE, ids=ids, metadata=[{text: text} for text in HOSTILE])
    return retriever


@pytest.mark.parametrize("query", HOSTILE)
def test_nothing_in_a_text_an_id_or_metadata_becomes_markup(retriever, query):
    hits = retriever.search(query, k=len(HOSTILE))
    found = [explain(query, hit, retriever=retriever) for hit in hits]
    for why in found:
        words = text_of(why._repr_html_())
        shown = re.sub("[\ud800\x1b\x00]", "\ufffd", why.hit.text)
        assert shown in words
        assert re.sub("[\ud800\x1b\x00]", "\ufffd", query) in words
    assert re.sub("[\ud800\x1b\x00]", "\ufffd", hits[0].text) in text_of(markup.hits(hits))
    read(compare(found[0], found[1])._repr_html_())


def test_hostile_vocabularies_scores_and_modes_are_escaped():
    evil = "<script>"
    hit = Hit(evil, evil, 1.0, {evil: [evil]}, {evil: 1.0}, {evil: 1}, {evil: 1.0})
    assert text_of(markup.hits([hit])).count(evil) >= 4
    from m3_retrievers.explain import Explanation, ReadText, TermShare

    side = ReadText(evil, ())
    terms = {"sparse": (TermShare(evil, 1.0, 1.0, 1.0),)}
    one = Explanation(side, side, hit, terms, None, (evil,))
    assert text_of(one._repr_html_()).count(evil) >= 5
    assert evil in text_of(compare(one, one)._repr_html_())


def test_colours_are_translucent_over_what_the_page_inherits(retriever):
    hits = retriever.search("the page", k=3)
    a, b = (explain("the page", hit, retriever=retriever) for hit in hits[:2])
    for page in (markup.hits(hits), a._repr_html_(), compare(a, b)._repr_html_()):
        for style in read(page).styles:
            for name, value in re.findall(r"([\w-]+):([^;]+)", style):
                if name == "color":
                    assert value == "inherit"
                if name == "background":
                    assert re.fullmatch(r"none|rgba\(\d+,\d+,\d+,0?\.\d+\)", value), value
            assert "#" not in style


def test_a_mark_stands_on_the_matched_word_and_not_between_letter_and_accent(encoder):
    retriever = HybridRetriever(encoder)
    retriever.add(["la premie\u0301re page, cafe\u0301 😀"], ids=["a"])
    (hit,) = retriever.search("café", k=1)
    page = explain("café", hit, retriever=retriever)._repr_html_()
    assert re.search(r"<mark[^>]*>e\u0301</mark>", page)
    assert not re.search(r"<[^>]*>\u0301", page)


def test_a_bar_is_as_wide_as_the_shares(retriever):
    (hit,) = retriever.search("the page", k=1)
    page = explain("the page", hit, retriever=retriever)._repr_html_()
    total = sum(abs(share) for share in hit.contributions.values())
    for mode, share in hit.contributions.items():
        name = {"colbert": "ColBERT"}.get(mode, mode)
        assert f'title="{name} {share:+.4f}" style="width:{100 * abs(share) / total:.2f}%' in page


def test_a_long_document_stays_readable(encoder):
    filler = "The river rose three metres overnight. " * 100
    retriever = HybridRetriever(encoder)
    retriever.add([filler + "A librarian finds the one page that matters. " + filler], ids=["a"])
    (hit,) = retriever.search("the one page that matters", k=1)
    words = text_of(explain("the one page that matters", hit, retriever=retriever)._repr_html_())
    assert len(words) < 2_500 < len(hit.text)
    left_out = sum(int(n.replace(",", "")) for n in re.findall(r"([\d,]+) characters", words))
    assert len(hit.text) - 1_200 <= left_out < len(hit.text)
    assert len(text_of(markup.hits([hit]))) < 500


def test_a_fused_list_and_no_hits_are_shown(encoder):
    retriever = HybridRetriever(encoder, fusion=ReciprocalRankFusion())
    retriever.add(["the page", "the river"], ids=["a", "b"])
    hits = retriever.search("the page", k=2)
    assert "fusing ranked lists" in text_of(
        explain("page", hits[0], retriever=retriever)._repr_html_()
    )
    assert "the river" in text_of(markup.hits(hits))
    assert text_of(markup.hits([])) == "No hits."


def test_an_empty_document_is_shown(encoder):
    retriever = HybridRetriever(encoder)
    retriever.add([""], ids=["a"])
    (hit,) = retriever.search("", k=1)
    assert "score" in text_of(explain("", hit, retriever=retriever)._repr_html_())


@pytest.mark.parametrize("shown", [Hit("<i>", "<b>page", 1.0), Hits([Hit("<i>", "<b>page", 1.0)])])
def test_hits_show_themselves_in_notebooks(shown):
    assert "<b>page" in text_of(shown._repr_html_())


def test_a_part_of_a_list_of_hits_is_shown_too(retriever):
    hits = Hits(retriever.search("the page", k=3))
    assert hits[:2] == list(hits)[:2]
    assert text_of(hits[:2]._repr_html_()) == text_of(markup.hits(list(hits)[:2]))
    assert text_of(Hits()[:5]._repr_html_()) == "No hits."


def test_facts_are_escaped():
    words = text_of(markup.facts("<script>", {"<b>": "<i>", "documents": 3}))
    assert words == "<script><b><i>documents3"


def test_a_right_to_left_text_begins_at_its_own_side():
    page = Hit("a", "وجدت أمينة المكتبة", 1.0)._repr_html_()
    assert re.search(r'<div dir="auto" style="[^"]*text-align:start', page)


def test_indexes_and_searches_show_themselves(retriever):
    hits = retriever.search("the page", k=2)
    assert text_of(hits._repr_html_()) == text_of(markup.hits(hits))
    assert "documents" in text_of(retriever._repr_html_())
    assert "LocalIndex" in text_of(retriever.index._repr_html_())
    (found,) = retriever.search_many(["the page"], k=2)
    assert "score" in text_of(found._repr_html_())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a short text", "a short text"),
        ("one twothree", "one …"),
        ("图书管理员很快找到", "图书管理员很快找 …"),
    ],
)
def test_a_long_text_is_cut_between_words(text, shown):
    assert markup.shortened(text, 12 if "short" in text else 8) == shown


def test_a_made_up_id_is_shown_by_its_beginning(encoder):
    retriever = HybridRetriever(encoder)
    (id,) = retriever.add(["the page"])
    shown = text_of(retriever.search("page")[0]._repr_html_())
    assert f"{id[:8]}…" in shown
    assert id not in shown
