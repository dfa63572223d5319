"""BM25's terms: what each adds to a score, and where it stands in the text."""

from __future__ import annotations

import unicodedata

from m3_retrievers.explain.explanation import Span, TermShare
from m3_retrievers.lexical.bm25 import BM25


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
    shares = []
    for term in dict.fromkeys(bm25.tokenizer(query)):
        column = bm25.column(term)
        if column is None:
            continue
        only = asked.copy()
        only.data = only.data * (only.indices == column)
        count, impact = float(only.data.sum()), float(impacts[column])
        score = count * impact + bm25.base(only)
        if score:
            spans = occurrences(term, query, bm25), occurrences(term, text, bm25)
            shares.append(TermShare(term, score, count, impact, *spans))
    return tuple(sorted(shares, key=lambda share: -share.score))


def occurrences(term: str, text: str, bm25: BM25) -> tuple[Span, ...]:
    """Return where a term stands in a text: characters that the tokenizer makes that term of.

    The tokenizer gives no places, so the term is looked for in the folded text, and kept where
    the tokenizer still finds it with a neighbour at each side: "page" is no part of "pages".
    A term that is spelled otherwise than the text (of a stemmer) has no places.

    >>> occurrences("straße".casefold(), "Die STRASSE, die Straßen, die Straße.", BM25())
    ((4, 11), (30, 36))
    """
    folded, origin = _folded(text)
    wanted = term.removeprefix("##").lstrip("▁").casefold()
    found, at = [], folded.find(wanted) if wanted else -1
    while at >= 0:
        start, end = origin[at][0], origin[at + len(wanted) - 1][1]
        if term in bm25.tokenizer(text[max(0, start - 1) : end + 1]):
            found.append((start, end))
        at = folded.find(wanted, at + 1)
    return tuple(dict.fromkeys(found))


def _folded(text: str) -> tuple[str, list[Span]]:
    """Return the text as BM25's tokenizers fold it, and for each of its characters the source."""
    folded: list[str] = []
    origin: list[Span] = []
    start = 0
    while start < len(text):
        end = cluster_end(text, start + 1)
        piece = unicodedata.normalize("NFKC", text[start:end]).casefold()
        folded.append(piece)
        origin += [(start, end)] * len(piece)
        start = end
    return "".join(folded), origin


def cluster_end(text: str, end: int) -> int:
    """Return the first place from ``end`` on that is no combining mark, selector or joiner."""
    while end < len(text) and unicodedata.category(text[end]) in ("Mn", "Mc", "Me"):
        end += 1
    return end
