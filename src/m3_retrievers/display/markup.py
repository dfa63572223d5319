"""The pieces that HTML for notebooks is made of, and the tables of hits and of facts.

Everything that comes from a text, an id, metadata or a vocabulary is escaped. Inline styles
only, no scripts, no fixed background: colours are translucent over what the page inherits, so
that light and dark themes both stay legible.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

from m3_retrievers.types.hits import Hit
from m3_retrievers.types.plan import name_of

# Red, green, blue of each mode: readable as a tint on white and on black.
COLOURS = {
    "dense": "66,133,244",
    "sparse": "245,158,11",
    "bm25": "217,119,6",
    "colbert": "16,185,129",
}
GREY = "128,128,128"
TEXT = "white-space:pre-wrap;overflow-wrap:anywhere;text-align:start;margin:.5em 0"
# What orders a list, and is a hit's score already.
_SUMS = ("hybrid", "fusion")
# Characters of a hit's text, and of its id and metadata, that are shown.
_TEXT_SHOWN, _METADATA_SHOWN = 240, 160
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# The piece of a word at a cut; where there are no spaces, as in Chinese, nothing is dropped.
_CUT_WORD = re.compile(r"\s\S{0,20}$")
# Characters that no page can hold: lone surrogates, and control characters other than white space.
_UNPRINTABLE = re.compile("[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def facts(title: str, values: Mapping[str, object]) -> str:
    """Return a title and a table of names and values: what an index or a retriever is."""
    rows = [[safe(name), safe(value)] for name, value in values.items()]
    return page(f"<b>{safe(title)}</b>{table([], rows)}")


def hits(shown: Sequence[Hit]) -> str:
    """Return a table of hits: place, id, text, and each mode's own score."""
    if not shown:
        return page('<div style="opacity:.75">No hits.</div>')
    own = dict.fromkeys(mode for hit in shown for mode in hit.scores)
    modes = [mode for mode in own if mode not in _SUMS]
    heads = ["#", "hit", "score", *(safe(name_of(mode)) for mode in modes)]
    rows = []
    for number, hit in enumerate(shown, start=1):
        text = shortened(hit.text, _TEXT_SHOWN)
        cell = (
            f'<div style="opacity:.75">{where(hit)}</div>'
            f'<div dir="auto" style="{TEXT};margin:0">{safe(text)}</div>'
            f"{strip(hit.contributions)}"
        )
        scores = [f"{hit.scores[mode]:.3f}" if mode in hit.scores else "–" for mode in modes]
        rows.append([str(number), cell, f"<b>{hit.score:.3f}</b>", *scores])
    return page(table(heads, rows, text_column=1) + _mode_legend(shown))


def _mode_legend(shown: Sequence[Hit]) -> str:
    modes = dict.fromkeys(mode for hit in shown for mode in hit.contributions)
    labels = " &nbsp; ".join(f"{swatch(mode)} {safe(name_of(mode))}" for mode in modes)
    return f'<div style="opacity:.85">share of the score: {labels}</div>' if labels else ""


def page(inside: str) -> str:
    """Return the frame around HTML that is finished."""
    # the two classes keep a notebook's MathJax from setting a text's dollars as formulas
    return (
        '<div class="tex2jax_ignore mathjax_ignore" style="color:inherit;background:none;'
        f'line-height:1.55;max-width:62em;text-align:left;overflow-wrap:anywhere">{inside}</div>'
    )


def safe(text: object) -> str:
    """Return any value's text with nothing in it that a page could take for markup."""
    return escape(printable(str(text)), quote=True)


def printable(text: str) -> str:
    """Return the text with one visible character for each that no page can hold."""
    return _UNPRINTABLE.sub("\ufffd", text)


def where(hit: Hit) -> str:
    """Return the hit's id and the start of its metadata on one line."""
    about = " · ".join(f"{key}: {value}" for key, value in hit.metadata.items())
    about = shortened(about, _METADATA_SHOWN)
    # an id that was made up says nothing after its beginning
    id = f"{hit.id[:8]}…" if made_up(hit.id) else shortened(hit.id, _METADATA_SHOWN)
    return f"<b>{safe(id)}</b>" + (f" · {safe(about)}" if about else "")


def made_up(id: str) -> bool:
    """Return whether an id is one that ``add`` makes up: it says nothing to a reader."""
    return _UUID.fullmatch(id) is not None


def shortened(text: str, most: int) -> str:
    """Return the text, or its first ``most`` characters and an ellipsis."""
    if len(text) <= most:
        return text
    return f"{_CUT_WORD.sub('', text[:most])} …"


def strip(shares: Mapping[str, float]) -> str:
    """Return the bare bar: one segment a mode, as wide as its part of the shares' sizes."""
    total = sum(abs(share) for share in shares.values())
    if not total:
        return ""
    pieces = "".join(
        f'<div title="{safe(name_of(mode))} {share:+.4f}" '
        f'style="width:{100 * abs(share) / total:.2f}%;'
        f'background:rgba({COLOURS.get(mode, GREY)},.75)"></div>'
        for mode, share in shares.items()
    )
    return (
        '<div style="display:flex;height:.6em;border-radius:.3em;overflow:hidden;'
        f'max-width:30em;margin:.3em 0;background:rgba({GREY},.2)">{pieces}</div>'
    )


def swatch(mode: str) -> str:
    """Return a small square of a mode's colour."""
    return (
        '<span style="display:inline-block;width:.7em;height:.7em;border-radius:.2em;'
        f'background:rgba({COLOURS.get(mode, GREY)},.75)"></span>'
    )


def level(part: float) -> str:
    """Return a bar for a part of the largest value, -1 to 1; grey below 0."""
    colour = COLOURS["sparse"] if part >= 0 else GREY
    return (
        f'<div style="width:{8 * abs(part):.2f}em;height:.7em;border-radius:.2em;'
        f'background:rgba({colour},.6)"></div>'
    )


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, text_column: int | None = 0
) -> str:
    """Return a table of cells that are HTML already; all but the text column right-aligned."""
    height = "top" if text_column == 1 else "middle"
    line = f"border:none;border-bottom:1px solid rgba({GREY},.3);padding:.2em .6em"

    def row(cells: Sequence[str], tag: str) -> str:
        sides = [
            "text-align:left" if at == text_column else "text-align:right;white-space:nowrap"
            for at in range(len(cells))
        ]
        inside = "".join(
            f'<{tag} style="{line};vertical-align:{height};{side}">{cell}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )
        return f'<tr style="background:none">{inside}</tr>'

    top = f"<thead>{row(heads, 'th')}</thead>" if heads else ""
    body = "".join(row(cells, "td") for cells in rows)
    return (
        '<table style="border-collapse:collapse;background:none;color:inherit;margin:.3em 0">'
        f"{top}<tbody>{body}</tbody></table>"
    )
