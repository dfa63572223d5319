"""What hits are called in a figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from unicodedata import east_asian_width

from m3_retrievers.display import fonts
from m3_retrievers.display.markup import made_up
from m3_retrievers.types.hits import Hit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Widths of a Latin letter; a Chinese character takes two.
_WIDEST, _WIDEST_TITLE = 34, 90


def name_of_hit(hit: Hit) -> str:
    """Return a hit's id; the beginning of its text where the id was made up."""
    return fitted(hit.text if made_up(hit.id) and hit.text else hit.id)


def labels_of(hits: Sequence[Hit]) -> tuple[list[str], list[str]]:
    """Return how hits are written beside an axis, and the font families that do."""
    return fonts.drawable([name_of_hit(hit) for hit in hits])


def title_of(figure: Figure, title: str | None) -> None:
    """Write a title, such as a query, above a figure."""
    if title:
        (written,), families = fonts.drawable([fitted(title, _WIDEST_TITLE)])
        figure.suptitle(written, family=families, fontsize="medium", parse_math=False)


def fitted(text: str, widest: int = _WIDEST) -> str:
    """Return a text of at most some letters' width: its middle left out, as ids differ at ends.

    >>> fitted("docs/reference/library/shutil.md#rmtree", 20)
    'docs/refer…md#rmtree'
    """
    text = " ".join(text.split())
    if sum(map(_width, text)) <= widest:
        return text
    start, end, room = 0, len(text), widest - 1
    while start < end:
        at = start if start <= len(text) - end else end - 1
        room -= _width(text[at])
        if room < 0:
            break
        start, end = (start + 1, end) if at == start else (start, end - 1)
    return f"{text[:start]}…{text[end:]}"


def _width(character: str) -> int:
    return 2 if east_asian_width(character) in "WF" else 1
