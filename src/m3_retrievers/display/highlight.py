"""Which characters of a text to point at, and which stretches of a long text to show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from m3_retrievers.explain.explanation import Explanation, Span
from m3_retrievers.explain.words import cluster_end, cluster_start

# Characters shown on each side of a match in a long text.
_AROUND = 90
# How far an end of a stretch moves in to meet a space; less than what is around a match.
_WORD = 20


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text of one look; strengths in 0..1, 0 for no match.

    lexical: share of the strongest shared term that covers it. aligned: for a document, how
    much of the late interaction found its best match here; for a query, the best similarity.
    """

    start: int
    end: int
    lexical: float = 0.0
    aligned: float = 0.0


Marks = list[tuple[int, int, float, float]]


def query_segments(explanation: Explanation) -> list[Segment]:
    """Return the query in segments that join without gaps."""
    marks = _lexical_marks(explanation, query=True)
    if explanation.alignment is not None:
        for row, similarity in enumerate(explanation.alignment.maxima.tolist()):
            token = explanation.query.vector_tokens[row]
            if token is not None:
                seen = explanation.query.tokens[token]
                marks.append((seen.start, seen.end, 0.0, max(0.0, similarity)))
    return segments(explanation.query.text, marks)


def document_segments(explanation: Explanation) -> list[Segment]:
    """Return the document in segments that join without gaps."""
    marks = _lexical_marks(explanation, query=False)
    if explanation.alignment is not None:
        alignment, found = explanation.alignment, dict[int, float]()
        for column, similarity in zip(alignment.best, alignment.maxima, strict=True):
            token = explanation.document.vector_tokens[column]
            if token is not None:
                found[token] = found.get(token, 0.0) + max(0.0, float(similarity))
        most = max(found.values(), default=0.0)
        for token, strength in found.items():
            seen = explanation.document.tokens[token]
            marks.append((seen.start, seen.end, 0.0, strength / most if most else 0.0))
    return segments(explanation.document.text, marks)


def _lexical_marks(explanation: Explanation, *, query: bool) -> Marks:
    terms = explanation.lexical_terms
    most = max((share.score for share in terms), default=0.0)
    return [
        (start, end, share.score / most, 0.0)
        for share in terms
        if share.score > 0
        for start, end in (share.query_spans if query else share.document_spans)
    ]


def segments(text: str, marks: Marks) -> list[Segment]:
    """Return the text cut where marks (start, end, lexical, aligned) begin and end.

    Where marks overlap, each strength is the largest. No cut falls inside a visible character.

    >>> [(part.start, part.end, part.lexical) for part in segments("a page", [(2, 6, 1.0, 0.0)])]
    [(0, 2, 0.0), (2, 6, 1.0)]
    """
    whole = [
        (cluster_start(text, start), cluster_end(text, end), lexical, aligned)
        for start, end, lexical, aligned in marks
        if end > start
    ]
    cuts = sorted({0, len(text), *(m[0] for m in whole), *(m[1] for m in whole)})
    place = {cut: at for at, cut in enumerate(cuts)}
    strengths = [(0.0, 0.0)] * (len(cuts) - 1)
    for start, end, lexical, aligned in whole:
        for at in range(place[start], place[end]):
            had = strengths[at]
            strengths[at] = (max(had[0], lexical), max(had[1], aligned))
    return [
        Segment(start, end, lexical, aligned)
        for start, end, (lexical, aligned) in zip(cuts, cuts[1:], strengths, strict=False)
    ]


def excerpt(text: str, parts: Sequence[Segment], *, most: int = 1200) -> list[Span]:
    """Return the stretches of a text to show, in order; all of a text of up to ``most``.

    Of a longer one, what lies around the strongest segments, strongest first, until ``most``
    characters are chosen; without any match, its beginning.

    >>> long = "x" * 5000
    >>> excerpt(long, segments(long, [(3000, 3010, 1.0, 0.0)]))
    [(2910, 3100)]
    """
    if len(text) <= most:
        return [(0, len(text))]
    strong = sorted(
        (part for part in parts if part.lexical or part.aligned),
        key=lambda part: -(part.lexical + part.aligned),
    )
    chosen: list[Span] = []
    for part in strong:
        start = max(0, part.start - _AROUND)
        end = min(len(text), part.end + _AROUND, start + most)
        joined = _joined([*chosen, (start, end)])
        if sum(b - a for a, b in joined) > most:
            break
        chosen = joined
    return [_at_words(text, span) for span in chosen or [(0, most)]]


def _at_words(text: str, span: Span) -> Span:
    """Return a stretch without the pieces of words at its ends, and without half a character."""
    start, end = span
    first = text.find(" ", start, start + _WORD)
    last = text.rfind(" ", end - _WORD, end)
    if start > 0:
        start = first + 1 if first >= 0 else cluster_start(text, start)
    if end < len(text):
        end = last if last > start else cluster_end(text, end)
    return start, end


def _joined(spans: Sequence[Span]) -> list[Span]:
    """Return spans in order, those that touch made one."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def within(parts: Sequence[Segment], span: Span) -> list[Segment]:
    """Return the segments inside a span, those at its ends cut."""
    return [
        Segment(max(p.start, span[0]), min(p.end, span[1]), p.lexical, p.aligned)
        for p in parts
        if p.start < span[1] and p.end > span[0]
    ]


def stretches(
    text: str, parts: Sequence[Segment], spans: Sequence[Span]
) -> Iterator[Segment | int]:
    """Yield the segments inside the spans, and how many characters each gap beside them has.

    >>> found = stretches("a page", [Segment(0, 2), Segment(2, 6, 1.0)], [(2, 6)])
    >>> [one if isinstance(one, int) else (one.start, one.end) for one in found]
    [2, (2, 6)]
    """
    end = 0
    for span in spans:
        if span[0] > end:
            yield span[0] - end
        yield from within(parts, span)
        end = span[1]
    if len(text) > end:
        yield len(text) - end
