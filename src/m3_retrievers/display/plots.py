"""Lists of hits as figures: what each mode gave, how its scores lie, what another search changes.

Each function returns a matplotlib Figure (extra ``plot``), transparent and with mid-tone text,
for light and dark pages; ``alt_text`` is its description, which notebooks take as the image's
alternative text. ``figure.savefig("hits.png")`` writes it to a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from m3_retrievers.checks import check_k
from m3_retrievers.display.figures import INK, colour, new_figure, style, themed
from m3_retrievers.display.heat_map import heat_map as heat_map
from m3_retrievers.display.labels import labels_of, name_of_hit, title_of
from m3_retrievers.display.rank_changes import rank_changes as rank_changes
from m3_retrievers.errors import InputError
from m3_retrievers.types.hits import Hit
from m3_retrievers.types.plan import name_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BINS = 24
# Hits that a description names.
_DESCRIBED = 5


def alt_text(figure: Figure) -> str:
    """Return what a figure of this package shows, in words; "" for any other figure."""
    return str(getattr(figure, "description", ""))


def shares(hits: Sequence[Hit], *, title: str | None = None, most: int = 20) -> Figure:
    """Return stacked bars: each mode's weighted share of the score, a bar a hit, best first.

    A share below 0 stands left of the zero line. most: hits drawn. title: such as the query.
    Raises InputError for no hits, or hits whose order comes from fusing ranks: they have no
    shares; MissingExtraError without matplotlib.
    """
    check_k(most, name="most")
    if not hits or not all(hit.contributions for hit in hits):
        raise InputError(
            f"shares expects hits of a hybrid search, got {len(hits)}, of which "
            f"{sum(not hit.contributions for hit in hits)} have no shares. Search with "
            "fusion=None, or draw their scores: plot_scores()."
        )
    drawn = hits[:most]
    modes = list(dict.fromkeys(mode for hit in drawn for mode in hit.contributions))
    names, families = labels_of(drawn)
    with style():
        figure = new_figure(8, 1.3 + 0.32 * len(drawn), _shares_description(hits, drawn))
        axes = figure.subplots()
        themed(axes)
        rows = np.arange(len(drawn))
        ends = np.zeros((2, len(drawn)))  # of what is below 0, and of what is above
        for mode in modes:
            values = np.array([hit.contributions.get(mode, 0.0) for hit in drawn])
            left = np.where(values < 0, ends[0], ends[1])
            axes.barh(rows, values, left=left, height=0.62, color=colour(mode), label=name_of(mode))
            ends += np.minimum(values, 0), np.maximum(values, 0)
        for row, hit in enumerate(drawn):
            axes.annotate(
                f" {hit.score:.3f}", (ends[1, row], row), va="center", fontsize="small", color=INK
            )
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.margins(x=0.12)
        axes.set_yticks(rows, names, family=families, parse_math=False)
        axes.set_ylim(len(drawn) - 0.4, -0.6)
        axes.set_xlabel("share of the score")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(modes), borderaxespad=0.2)
        title_of(figure, title)
    return figure


def _shares_description(hits: Sequence[Hit], drawn: Sequence[Hit]) -> str:
    bars = [
        f"{place}. {name_of_hit(hit)}: {hit.score:.3f} = "
        + " + ".join(f"{name_of(mode)} {share:.3f}" for mode, share in hit.contributions.items())
        for place, hit in enumerate(drawn[:_DESCRIBED], start=1)
    ]
    more = f"; and {len(drawn) - _DESCRIBED} more" if len(drawn) > _DESCRIBED else ""
    return (
        f"Stacked bars: each mode's share of the score, for {len(drawn)} of {len(hits)} hits. "
        f"{'; '.join(bars)}{more}."
    )


def scores(hits: Sequence[Hit], *, title: str | None = None) -> Figure:
    """Return how the scores of a list lie: a histogram a mode, each with its own scale.

    A short line at the bottom is one hit, a triangle the first hit. Hits that a mode did not
    score are left out of its histogram, and counted beside it. Raises InputError for hits
    without scores, MissingExtraError without matplotlib.
    """
    modes = list(dict.fromkeys(mode for hit in hits for mode in hit.scores))
    if not modes:
        raise InputError(f"scores expects hits with scores, got {len(hits)} without any.")
    values = {
        mode: np.array([hit.scores[mode] for hit in hits if mode in hit.scores]) for mode in modes
    }
    lines = {mode: _summary(mode, found, hits) for mode, found in values.items()}
    description = f"Histograms of the scores of {len(hits)} hits. " + " ".join(lines.values())
    with style():
        figure = new_figure(8, 0.6 + 1.15 * len(modes), description)
        panels = figure.subplots(len(modes), squeeze=False)[:, 0]
        for panel, (mode, found) in zip(panels, values.items(), strict=True):
            themed(panel)
            _histogram(panel, mode, found, hits[0].scores.get(mode))
            panel.set_title(lines[mode].rstrip("."), fontsize="small")
        panels[-1].set_xlabel("score, each mode on its own scale   | a hit   ▼ the first hit")
        title_of(figure, title)
    return figure


def _summary(mode: str, found: NDArray[np.float64], hits: Sequence[Hit]) -> str:
    first = hits[0].scores.get(mode)
    missing = len(hits) - len(found)
    return (
        f"{name_of(mode)}: {found.min():.3f} to {found.max():.3f}, median {np.median(found):.3f}"
        + (f", first hit {first:.3f}" if first is not None else "")
        + (f", {missing} of {len(hits)} not scored" if missing else "")
        + "."
    )


def _histogram(
    axes: Axes,
    mode: str,
    found: NDArray[np.float64],
    first: float | None,
) -> None:
    counts, edges = np.histogram(found, bins=_BINS)
    axes.stairs(counts, edges, fill=True, color=colour(mode), alpha=0.7)
    top = int(counts.max())
    axes.plot(found, np.full(len(found), -0.12 * top), "|", color=INK, markersize=7)
    if first is not None:
        axes.plot([first], [1.18 * top], "v", color=colour(mode), markersize=8)
    axes.set_ylim(-0.25 * top, 1.4 * top)
    axes.set_yticks([0, top])
    axes.set_ylabel("hits")
