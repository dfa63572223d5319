"""Two rankings beside each other: a line a document, from its place in one to that in the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from m3_retrievers.checks import check_k
from m3_retrievers.display import fonts
from m3_retrievers.display.figures import INK, colour, new_figure, style
from m3_retrievers.display.labels import fitted, labels_of, name_of_hit, title_of
from m3_retrievers.errors import InputError
from m3_retrievers.types.hits import Hit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour and line of a document that rises, falls or stays; both differ, for those who see no hue.
_LOOKS = {
    "rises": (colour("dense"), "-"),
    "falls": (colour("sparse"), "--"),
    "stays": (INK, "-"),
}


def rank_changes(
    first: Sequence[Hit],
    second: Sequence[Hit],
    *,
    names: tuple[str, str] = ("first", "second"),
    title: str | None = None,
    most: int = 10,
) -> Figure:
    """Return two results of one query beside each other: a line a document, blue where it rises.

    first, second: of two models, weights or indexes that share ids. names: what they are called.
    most: places drawn of each; below a gap stand documents that only the other side has among
    them, with their place here, or "–" where the list does not hold them. Raises InputError where
    both are empty or names are not two, MissingExtraError without matplotlib.
    """
    check_k(most, name="most")
    if not first and not second:
        raise InputError("rank_changes expects hits, got none in both lists.")
    if isinstance(names, str) or len(names) != 2:
        raise InputError(f"names expects one for each of the two lists, got {names!r}.")
    places = [{hit.id: place for place, hit in enumerate(one, start=1)} for one in (first, second)]
    hits = {hit.id: hit for hit in (*first[:most], *second[:most])}
    rows = [_rows(list(hits), one, most) for one in places]
    lowest = max(row for one in rows for row in one.values())
    with style():
        description = _description(hits, places, names)
        figure = new_figure(9, 1.0 + 0.3 * lowest, description)
        axes = figure.subplots()
        _lines(axes, places, rows)
        written, families = labels_of(list(hits.values()))
        labels = dict(zip(hits, written, strict=True))
        for side in (0, 1):
            _side(axes, side, places[side], rows[side], labels, families)
        (left, right), families = fonts.drawable([fitted(str(name)) for name in names])
        axes.annotate(left, (0, 0.1), ha="center", family=families, parse_math=False)
        axes.annotate(right, (1, 0.1), ha="center", family=families, parse_math=False)
        axes.set(xlim=(-1.05, 2.05), ylim=(lowest + 0.5, -0.4))
        axes.axis("off")
        title_of(figure, title)
    return figure


def _lines(
    axes: Axes, places: Sequence[Mapping[str, int]], rows: Sequence[Mapping[str, float]]
) -> None:
    """Draw a line a document, and below them what the lines mean."""
    drawn = {}
    for id in rows[0]:
        change = _change(places[0].get(id), places[1].get(id))
        hue, line = _LOOKS[change]
        ends = [one[id] for one in rows]
        (drawn[change],) = axes.plot((0, 1), ends, line, marker="o", color=hue, linewidth=2)
    known = [change for change in _LOOKS if change in drawn]
    axes.legend(
        [drawn[change] for change in known],
        known,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        ncols=len(known),
        handlelength=4,
    )


def _rows(ids: Sequence[str], places: Mapping[str, int], most: int) -> dict[str, float]:
    """Return where each document is drawn: at its place, or below a gap where that is lower."""
    low = sorted(
        (id for id in ids if places.get(id, math.inf) > most),
        key=lambda id: places.get(id, math.inf),
    )
    first = min(most, len(places)) + 1.6
    return {id: float(places[id]) for id in ids if id not in low} | {
        id: first + row for row, id in enumerate(low)
    }


def _change(before: int | None, after: int | None) -> str:
    if before == after:
        return "stays"
    return "rises" if (after or math.inf) < (before or math.inf) else "falls"


def _side(
    axes: Axes,
    side: int,
    places: Mapping[str, int],
    rows: Mapping[str, float],
    labels: Mapping[str, str],
    families: Sequence[str],
) -> None:
    """Write places and documents left of the lines, or right of them."""
    outward, align = ((-1, "right"), (1, "left"))[side]
    # two texts: a number in one with a right-to-left id would change its side
    for offset, written in (
        (8, {id: str(places.get(id, "–")) for id in rows}),
        (28, labels),
    ):
        for id, row in rows.items():
            axes.annotate(
                written[id],
                (side, row),
                (outward * offset, 0),
                textcoords="offset points",
                ha=align,
                va="center",
                fontsize="small",
                family=families,
                parse_math=False,
            )


def _description(
    hits: Mapping[str, Hit], places: Sequence[Mapping[str, int]], names: tuple[str, str]
) -> str:
    """Return every change of place in words."""
    changes = [
        f"{name_of_hit(hit)} {places[0].get(id, 'not found')} to {places[1].get(id, 'not found')}"
        for id, hit in hits.items()
    ]
    return (
        f"Places of {len(hits)} documents in two rankings, {names[0]} and {names[1]}: "
        f"{'; '.join(changes)}."
    )
