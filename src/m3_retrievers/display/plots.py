"""The alignment as a heat map: which query token found which document token."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.checks import check_k, require_package
from m3_retrievers.errors import InputError, MissingOutputError
from m3_retrievers.explain.explanation import Alignment, Explanation
from m3_retrievers.explain.words import spelled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
_LONGEST_LABEL = 16


def heat_map(explanation: Explanation, *, width: int = 24) -> Figure:
    """Return the alignment (i, j) as a matplotlib Figure, each query token's best match ringed.

    width: document tokens drawn at most. Of a longer document, the stretch of ``width``
    tokens in which the best matches' similarities add up to most (the middle one of equals)
    is drawn, and the title says how many best matches lie outside it. A token that no
    installed font can spell is labelled ``#`` and its place.

    Raises MissingExtraError without matplotlib, MissingOutputError where the model has no
    ColBERT head, InputError for a text without tokens or a width below 1.
    """
    check_k(width, name="width")
    alignment = explanation.alignment
    if alignment is None:
        raise MissingOutputError(
            "plot expects an alignment, got none: the model has no ColBERT head. Use one that has."
        )
    if not alignment.similarities.size:
        raise InputError("plot expects a query and a document with tokens, got none on a side.")
    require_package("matplotlib", module="matplotlib", extra="plot", purpose="plot()")
    from matplotlib import patheffects, pyplot

    first = best_stretch(alignment, width)
    columns = range(first, min(first + width, alignment.similarities.shape[1]))
    rows = range(len(alignment.similarities))
    shown = alignment.similarities[:, columns.start : columns.stop]
    size = (max(4.5, 2.2 + 0.3 * len(columns)), max(2.6, 1.9 + 0.3 * len(rows)))
    figure, axes = pyplot.subplots(figsize=size, layout="constrained")
    pyplot.close(figure)  # the caller's alone: a notebook would show it a second time
    image = axes.imshow(shown, aspect="auto", cmap="viridis", interpolation="nearest")
    inside = [(row, at) for row, at in enumerate(alignment.best.tolist()) if at in columns]
    axes.scatter(
        [at - first for _, at in inside],
        [row for row, _ in inside],
        s=60,
        facecolors="none",
        edgecolors="white",
        linewidths=1.6,
        path_effects=[patheffects.withStroke(linewidth=3.2, foreground="black")],
    )
    above, beside = explanation.document.vector_labels, explanation.query.vector_labels
    families, drawn = _fonts([*(above[at] for at in columns), *beside])
    across, down = _labels(above, columns, drawn), _labels(beside, rows, drawn)
    # parse_math: a text's dollars are no formulas
    style: dict[str, Any] = {"family": families, "parse_math": False, "fontsize": "small"}
    axes.set_xticks(range(len(across)), across, rotation=90, **style)
    axes.set_yticks(range(len(down)), down, **style)
    numbered = [f"#{place + 1}" == label for place, label in zip(columns, across, strict=True)]
    numbered += [f"#{place + 1}" == label for place, label in zip(rows, down, strict=True)]
    axes.set_xlabel(
        "document tokens" + (" (#n: no font here draws token n)" if any(numbered) else "")
    )
    axes.set_ylabel("query tokens")
    axes.set_title(_title(alignment, columns, len(rows) - len(inside)), fontsize="medium")
    figure.colorbar(image, ax=axes, label="similarity", pad=0.02)
    return figure


def best_stretch(alignment: Alignment, width: int) -> int:
    """Return where the stretch of ``width`` document vectors with most in it begins.

    >>> best_stretch(Alignment(np.array([[0.1, 0.0, 0.9, 0.0, 0.0, 0.0]])), 3)
    1
    """
    length = alignment.similarities.shape[1]
    found: NDArray[np.float64] = np.zeros(length)
    np.add.at(found, alignment.best, np.maximum(alignment.maxima, 0.0))
    if length <= width:
        return 0
    sums = np.convolve(found, np.ones(width), mode="valid")
    best = np.flatnonzero(sums > sums.max() - 1e-6)  # what adds up in another order may differ
    return int(best[(len(best) - 1) // 2])


def _title(alignment: Alignment, columns: range, outside: int) -> str:
    title = f"ColBERT {alignment.score:.3f} = mean of the ringed best matches"
    length = alignment.similarities.shape[1]
    if len(columns) < length:
        title += (
            f"\ndocument tokens {columns.start + 1:,}–{columns.stop:,} of {length:,}; "
            f"{outside} of {len(alignment.similarities)} best matches lie outside"
        )
    return title


def _labels(labels: Sequence[str], places: range, drawn: frozenset[str]) -> list[str]:
    return [_readable(labels[place], place, drawn) for place in places]


def _readable(label: str, place: int, drawn: frozenset[str]) -> str:
    """Return a token's spelling, of characters in ``drawn``, else its place."""
    text = spelled(label)
    if len(text) > _LONGEST_LABEL:
        text = f"{text[: _LONGEST_LABEL - 1]}…"
    return text if drawn.issuperset(text) else f"#{place + 1}"


def _fonts(labels: Iterable[str]) -> tuple[list[str], frozenset[str]]:
    """Return families that draw the labels between them, and the characters they draw.

    A family is taken only where it draws something that those before it do not, so a machine
    with many fonts opens few of them.
    """
    wanted = {one for label in labels for one in f"{spelled(label)}…"}
    open_ = {one for one in wanted if unicodedata.category(one)[0] not in "CZ"}
    chosen: list[str] = []
    drawn: set[str] = set()
    for family, path in _families().items():
        if not open_ - drawn and chosen:
            break
        more = {one for one in open_ - drawn if ord(one) in _glyphs(path)}
        if more or not chosen:
            chosen.append(family)
            drawn |= more
    return chosen, frozenset(drawn)


@cache
def _families() -> dict[str, str]:
    """Return the file of each regular family, matplotlib's own and the widely known ones first."""
    from matplotlib import font_manager

    there = {
        font.name: font.fname
        for font in font_manager.fontManager.ttflist
        if font.style == "normal" and font.weight == 400 and "Last Resort" not in font.name
    }  # the last resort draws a box with a name in it for everything
    order = (*(family for family in _FAMILIES if family in there), *sorted(there))
    return {family: there[family] for family in order}


@cache
def _glyphs(path: str) -> frozenset[int]:
    """Return the code points that a font file can draw."""
    from matplotlib import font_manager

    return frozenset(font_manager.get_font(path).get_charmap())
