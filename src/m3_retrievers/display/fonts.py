"""Which installed fonts draw a text, and what to write where none does."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache

from m3_retrievers.checks import require_package
from m3_retrievers.display.markup import printable

# Families with wide coverage that systems commonly have; matplotlib's own comes first.
_FAMILIES = (
    "DejaVu Sans",
    "Noto Sans",
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans Devanagari",
    "Noto Sans Thai",
    "Noto Emoji",
    "Source Han Sans",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Arial Unicode MS",
    "Hiragino Sans",
    "PingFang SC",
    "Apple SD Gothic Neo",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Nirmala UI",
    "Segoe UI",
)
# Stands for a character that no installed font draws.
_BOX = "□"
_REGULAR = 400


def drawing(texts: Iterable[str]) -> tuple[list[str], frozenset[str]]:
    """Return families that draw the texts between them, and the characters they draw.

    A family is taken only where it draws something that those before it do not, so a machine
    with many fonts opens few of them.
    """
    wanted = {one for text in texts for one in f"{text}…{_BOX}"}
    open_ = {one for one in wanted if unicodedata.category(one)[0] not in "CZ"}
    chosen: list[str] = []
    drawn: set[str] = set(" \N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")
    for family, path in _families().items():
        if not open_ - drawn and chosen:
            break
        more = {one for one in open_ - drawn if ord(one) in _glyphs(path)}
        if more or not chosen:
            chosen.append(family)
            drawn |= more
    return chosen, frozenset(drawn)


def drawable(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the texts as the fonts here can draw them, and the families that do.

    A character without a font is a box; a text of which nothing can be drawn is ``#`` and its
    place, from 1.
    """
    clean = [" ".join(printable(text).split()) for text in texts]
    families, drawn = drawing(clean)
    return [
        "".join(one if one in drawn else _BOX for one in text)
        if drawn.intersection(text) - {" "}
        else f"#{place}"
        for place, text in enumerate(clean, start=1)
    ], families


@cache
def _families() -> dict[str, str]:
    """Return a file of each upright family, matplotlib's own and the widely known ones first."""
    require_package("matplotlib", module="matplotlib", extra="plot", purpose="plot()")
    from matplotlib import font_manager

    upright = [
        font
        for font in font_manager.fontManager.ttflist
        # the last resort draws a box with a name in it for everything
        if font.style == "normal" and "Last Resort" not in font.name
    ]
    # the most regular one last, which stays; WenQuanYi's only one calls itself medium
    upright.sort(key=lambda font: -abs(_weight(font.weight) - _REGULAR))
    there = {font.name: font.fname for font in upright}
    order = (*(family for family in _FAMILIES if family in there), *sorted(there))
    return {family: there[family] for family in order}


def _weight(weight: int | str) -> int:
    return weight if isinstance(weight, int) else 0


@cache
def _glyphs(path: str) -> frozenset[int]:
    """Return the code points that a font file can draw."""
    from matplotlib import font_manager

    return frozenset(font_manager.get_font(path).get_charmap())
