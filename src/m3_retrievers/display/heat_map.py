"""The alignment as a heat map: which query token found which document token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.checks import check_k
from m3_retrievers.display import fonts
from m3_retrievers.display.figures import INK, new_figure, style, themed
from m3_retrievers.errors import InputError, MissingOutputError
from m3_retrievers.explain.explanation import Alignment, Explanation
from m3_retrievers.explain.words import spelled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LONGEST_LABEL = 16
# Matches that the description names.
_DESCRIBED = 8


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
    first = best_stretch(alignment, width)
    columns = range(first, min(first + width, alignment.similarities.shape[1]))
    rows = range(len(alignment.similarities))
    size = (max(4.5, 2.2 + 0.3 * len(columns)), max(2.6, 1.9 + 0.3 * len(rows)))
    with style():
        figure = new_figure(*size, _description(explanation, alignment, columns))
        axes = figure.subplots()
        themed(axes)
        image = axes.imshow(
            alignment.similarities[:, columns.start : columns.stop],
            aspect="auto",
            cmap="viridis",
            interpolation="nearest",
        )
        _ring(axes, alignment, columns)
        _label(axes, explanation, rows, columns)
        axes.set_title(_title(alignment, columns))
        bar = figure.colorbar(image, ax=axes, label="similarity", pad=0.02)
        themed(bar.ax)
        bar.outline.set_edgecolor(INK)
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


def _inside(alignment: Alignment, columns: range) -> list[tuple[int, int]]:
    """Return row and column of each best match that is drawn."""
    return [(row, at) for row, at in enumerate(alignment.best.tolist()) if at in columns]


def _ring(axes: Axes, alignment: Alignment, columns: range) -> None:
    """Ring each query token's best match, white in black: seen on every colour of the map."""
    from matplotlib import patheffects

    inside = _inside(alignment, columns)
    axes.scatter(
        [at - columns.start for _, at in inside],
        [row for row, _ in inside],
        s=60,
        facecolors="none",
        edgecolors="white",
        linewidths=1.6,
        path_effects=[patheffects.withStroke(linewidth=3.2, foreground="black")],
    )


def _label(axes: Axes, explanation: Explanation, rows: range, columns: range) -> None:
    """Write the tokens beside the rows and below the columns."""
    above, beside = explanation.document.vector_labels, explanation.query.vector_labels
    shown = (*above[columns.start : columns.stop], *beside)
    families, drawn = fonts.drawing(spelled(label) for label in shown)
    across, down = _labels(above, columns, drawn), _labels(beside, rows, drawn)
    written: dict[str, Any] = {"family": families, "parse_math": False}
    axes.set_xticks(range(len(across)), across, rotation=90, **written)
    axes.set_yticks(range(len(down)), down, **written)
    numbered = [f"#{place + 1}" == label for place, label in zip(columns, across, strict=True)]
    numbered += [f"#{place + 1}" == label for place, label in zip(rows, down, strict=True)]
    axes.set_xlabel(
        "document tokens" + (" (#n: no font here draws token n)" if any(numbered) else "")
    )
    axes.set_ylabel("query tokens")


def _title(alignment: Alignment, columns: range) -> str:
    title = f"ColBERT {alignment.score:.3f} = mean of the ringed best matches"
    rows, length = alignment.similarities.shape
    if len(columns) < length:
        title += (
            f"\ndocument tokens {columns.start + 1:,}–{columns.stop:,} of {length:,}; "
            f"{rows - len(_inside(alignment, columns))} of {rows} best matches lie outside"
        )
    return title


def _description(explanation: Explanation, alignment: Alignment, columns: range) -> str:
    """Return what the map shows, for those who do not see it."""
    asked, given = explanation.query.vector_labels, explanation.document.vector_labels
    pairs = [
        f"{spelled(asked[row])} with {spelled(given[at])} {similarity:.2f}"
        for row, (at, similarity) in enumerate(
            zip(alignment.best.tolist(), alignment.maxima.tolist(), strict=True)
        )
    ]
    more = f", and {len(pairs) - _DESCRIBED} more" if len(pairs) > _DESCRIBED else ""
    return (
        f"Heat map of similarities, {len(pairs)} query tokens by {len(columns)} document tokens. "
        f"{_title(alignment, columns)}. Best matches: {', '.join(pairs[:_DESCRIBED])}{more}."
    )


def _labels(labels: Sequence[str], places: range, drawn: frozenset[str]) -> list[str]:
    return [_readable(labels[place], place, drawn) for place in places]


def _readable(label: str, place: int, drawn: frozenset[str]) -> str:
    """Return a token's spelling, of characters in ``drawn``, else its place."""
    text = spelled(label)
    if len(text) > _LONGEST_LABEL:
        text = f"{text[: _LONGEST_LABEL - 1]}…"
    return text if drawn.issuperset(text) else f"#{place + 1}"
