"""Explanations, comparisons and hits as HTML for notebooks; see ``markup`` for how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from m3_retrievers.display.highlight import (
    Segment,
    document_segments,
    excerpt,
    query_segments,
    stretches,
)
from m3_retrievers.display.markup import (
    COLOURS,
    TEXT,
    level,
    page,
    safe,
    shortened,
    strip,
    swatch,
    table,
    where,
)
from m3_retrievers.types.plan import name_of

if TYPE_CHECKING:
    from m3_retrievers.explain.comparison import Comparison
    from m3_retrievers.explain.explanation import Explanation, Span

_TERMS_SHOWN = 12
_ID_SHOWN = 32  # characters, in the head of a column


def explanation(shown: Explanation) -> str:
    """Return an explanation: query, score bar, marked text, shared terms, notes."""
    hit, text = shown.hit, shown.document.text
    parts = document_segments(shown)
    asked, marks = shown.query.text, query_segments(shown)
    question = _marked(asked, marks, excerpt(asked, marks))
    terms = [(one.term, f"{one.score:.4f}", one.score) for one in shown.lexical_terms]
    terms_table = _terms(f"Shared terms ({name_of(shown.lexical_mode or '')})", terms)
    notes = "".join(f'<div style="opacity:.75">{safe(note)}</div>' for note in shown.notes)
    return page(
        f'<div style="opacity:.75">{where(hit)}</div>'
        f'<div dir="auto" style="font-weight:600;text-align:start;margin:.2em 0">{question}</div>'
        f"{_bar(hit.contributions, hit.score)}"
        f'<div dir="auto" style="{TEXT}">{_marked(text, parts, excerpt(text, parts))}</div>'
        f"{_legend(shown)}{terms_table}{notes}"
    )


def comparison(shown: Comparison) -> str:
    """Return a comparison: its sentence, and both hits' shares side by side."""
    modes = [
        (name_of(mode), f"{value:+.4f}", value, shown.a.shares.get(mode), shown.b.shares.get(mode))
        for mode, value in shown.modes.items()
    ]
    ids = [shortened(one.hit.id, _ID_SHOWN) for one in (shown.a, shown.b)]
    heads = ("mode", *ids, "difference")
    rows = [
        [
            safe(name),
            *("–" if share is None else f"{share:.4f}" for share in (left, right)),
            difference,
        ]
        for name, difference, _, left, right in modes
    ]
    rows.append(
        [
            "score",
            *(f"{one.hit.score:.4f}" for one in (shown.a, shown.b)),
            f"{shown.difference:+.4f}",
        ]
    )
    terms = [(term, f"{value:+.4f}", value) for term, value in shown.terms.items()]
    return page(
        f'<div style="font-weight:600;margin:.2em 0">{safe(shown.summary)}</div>'
        f"{table([safe(head) for head in heads], rows)}"
        f"{_terms('Terms that made the lexical difference', terms)}"
    )


def _marked(text: str, parts: Sequence[Segment], spans: Sequence[Span]) -> str:
    """Return some stretches of a text, marked, with what is left out counted between them."""
    shown = stretches(text, parts, spans)
    return "".join(_gap(one) if isinstance(one, int) else _mark(text, one) for one in shown)


def _gap(characters: int) -> str:
    return f'<span style="opacity:.6"> […&nbsp;{characters:,} characters&nbsp;…] </span>'


def _mark(text: str, part: Segment) -> str:
    words = safe(text[part.start : part.end])
    if not part.lexical and not part.aligned:
        return words
    style = "color:inherit;border-radius:.2em;background:none"
    if part.lexical:
        tint = 0.2 + 0.4 * part.lexical
        style = style.replace("none", f"rgba({COLOURS['sparse']},{tint:.2f})")
    if part.aligned:
        tint = 0.25 + 0.75 * part.aligned
        style += f";border-bottom:2px solid rgba({COLOURS['colbert']},{tint:.2f})"
    return f'<mark style="{style}">{words}</mark>'


def _bar(shares: Mapping[str, float], score: float) -> str:
    parts = " &nbsp; ".join(
        f"{swatch(mode)} {safe(name_of(mode))} {share:.4f}" for mode, share in shares.items()
    )
    total = f" = {parts}" if parts else ""
    return f"{strip(shares)}<div>score <b>{score:.4f}</b>{total}</div>"


def _legend(shown: Explanation) -> str:
    entries = []
    if shown.lexical_terms:
        style = f"color:inherit;border-radius:.2em;background:rgba({COLOURS['sparse']},.45)"
        entries.append(f'<mark style="{style}">shared term</mark>')
    if shown.alignment is not None:
        style = f"border-bottom:2px solid rgba({COLOURS['colbert']},.9)"
        entries.append(f'<span style="{style}">best match of a query token</span>')
    return (
        f'<div style="opacity:.85;font-size:90%">{" &nbsp; ".join(entries)}</div>'
        if entries
        else ""
    )


def _terms(title: str, terms: Sequence[tuple[str, str, float]]) -> str:
    """Return a table of the first terms with a bar each, and how many more there are."""
    if not terms:
        return ""
    most = max(abs(value) for _, _, value in terms) or 1.0
    rows = [
        [safe(term), number, level(value / most)] for term, number, value in terms[:_TERMS_SHOWN]
    ]
    rest = len(terms) - len(rows)
    more = f'<div style="opacity:.75">and {rest} more terms</div>' if rest else ""
    return (
        f'<details open style="margin:.4em 0"><summary>{safe(title)}</summary>'
        f"{table([], rows, text_column=0)}{more}</details>"
    )
