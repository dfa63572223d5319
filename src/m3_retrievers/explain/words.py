"""BM25's terms: what each adds to a score, and where it stands in the text."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable

from m3_retrievers.explain.explanation import Span, TermShare
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.lexical.folding import folded
from m3_retrievers.lexical.tokenizers import SpanTokenizer

# Regional indicators, two of which are a flag.
_FLAGS = frozenset(map(chr, range(0x1F1E6, 0x1F200)))
# What follows the character it belongs to, and is no mark: skin tones, vowel and final jamo.
_TRAILING = (
    ("\U0001f3fb", "\U0001f3ff"),
    ("\u1160", "\u11ff"),
    ("\ud7b0", "\ud7ff"),
)


def spelled(token: str) -> str:
    """Return how a tokenizer's token is written for people.

    >>> spelled("##ings"), spelled("▁page"), spelled("▁")
    ('ings', 'page', '␣')
    """
    return token.removeprefix("##").lstrip("▁") or "␣"


def term_shares(bm25: BM25, query: str, text: str) -> tuple[TermShare, ...]:
    """Return the terms of ``query`` that add to ``text``'s score, the largest share first.

    The scores add up to BM25's score, base included. The text is one the index holds; terms it
    does not know count nothing.

    >>> bm25 = BM25(b=0.0)
    >>> bm25.fit(bm25.count(["red red fox", "blue fox"]))
    >>> [(one.term, round(one.score, 4)) for one in term_shares(bm25, "red fox", "red red fox")]
    [('red', 0.9902), ('fox', 0.1823)]
    """
    asked = bm25.query(query)
    impacts = bm25.impacts(bm25.query(text)).toarray()[0]
    terms = dict.fromkeys(bm25.terms(query))
    places = [_places(terms, side, bm25) for side in (query, text)]
    shares = []
    for term in terms:
        column = bm25.column(term)
        if column is None:
            continue
        only = asked.copy()
        only.data = only.data * (only.indices == column)
        count, impact = float(only.data.sum()), float(impacts[column])
        score = count * impact + bm25.base(only)
        if score:
            in_query, in_text = (found[term] for found in places)
            shares.append(TermShare(term, score, count, impact, in_query, in_text))
    return tuple(sorted(shares, key=lambda share: -share.score))


def occurrences(term: str, text: str, bm25: BM25) -> tuple[Span, ...]:
    """Return where a term stands in a text: characters that the tokenizer makes that term of.

    A tokenizer with ``spans`` says so itself. For another the term is looked for in the folded
    text, and kept where the tokenizer still finds it with a neighbour at each side: "page" is no
    part of "pages". Its terms that are spelled otherwise than the text have no places.

    >>> occurrences("straße".casefold(), "Die STRASSE, die Straßen, die Straße.", BM25())
    ((4, 11), (30, 36))
    """
    return _places([term], text, bm25)[term]


def _places(terms: Iterable[str], text: str, bm25: BM25) -> dict[str, tuple[Span, ...]]:
    tokenizer = bm25.tokenizer
    found: dict[str, list[Span]] = defaultdict(list)
    if isinstance(tokenizer, SpanTokenizer):
        for term, start, end in tokenizer.spans(text):
            found[term].append((start, end))
    else:
        spelling, origin = folded(text)
        for term in terms:
            found[term] = _looked_for(term, text, spelling, origin, tokenizer)
    return {term: tuple(dict.fromkeys(found[term])) for term in terms}


def _looked_for(
    term: str,
    text: str,
    spelling: str,
    origin: list[Span],
    tokenizer: Callable[[str], list[str]],
) -> list[Span]:
    wanted = term.removeprefix("##").lstrip("▁").casefold()
    found, at = [], spelling.find(wanted) if wanted else -1
    while at >= 0:
        start, end = origin[at][0], origin[at + len(wanted) - 1][1]
        if term in tokenizer(text[max(0, start - 1) : end + 1]):
            found.append((start, end))
        at = spelling.find(wanted, at + 1)
    return found


def cluster_start(text: str, start: int) -> int:
    """Return the last place up to ``start`` at which a visible character begins."""
    while 0 < start < len(text) and _joined(text, start):
        start -= 1
    return start


def cluster_end(text: str, end: int) -> int:
    """Return the first place from ``end`` on at which a visible character begins.

    Marks, selectors, joiners, skin tones, the second half of a flag and the later jamo of a
    Hangul syllable go with what is before them.

    >>> cluster_end("cafe\u0301s", 4)
    5
    """
    while 0 < end < len(text) and _joined(text, end):
        end += 1
    return end


def _joined(text: str, at: int) -> bool:
    """Return whether the characters before and after a place are drawn as one."""
    after = text[at]
    if unicodedata.category(after)[0] == "M" or "\u200d" in (text[at - 1], after):
        return True
    if after in _FLAGS:
        before = at
        while before > 0 and text[before - 1] in _FLAGS:
            before -= 1
        return (at - before) % 2 == 1
    return any(first <= after <= last for first, last in _TRAILING)
