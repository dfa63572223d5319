"""Figures for light and dark pages that bring a description of themselves along."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from m3_retrievers.checks import require_package
from m3_retrievers.display.markup import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A grey with equal contrast, above 4:1, to white and to the near-black of dark themes.
INK = "#7a7a7a"
_STYLE: Any = {
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "auto",
    "legend.frameon": False,
    "legend.fontsize": "small",
    "legend.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # a text's dollars are no formulas
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw for light and dark pages within the block: transparent, with mid-tone text.

    Raises MissingExtraError without matplotlib.
    """
    require_package("matplotlib", module="matplotlib", extra="plot", purpose="plot()")
    from matplotlib import rc_context

    with rc_context(_STYLE):
        yield


def new_figure(width: float, height: float, description: str) -> Figure:
    """Return an empty figure of some inches, of the class that shows its description.

    It is the caller's alone: pyplot does not know it, so a notebook shows it once.
    """
    from m3_retrievers.display.described import DescribedFigure

    return DescribedFigure(description, figsize=(width, height), layout="constrained")


def themed(axes: Axes) -> None:
    """Give an axes' ticks the colour of its text: they are made later, outside of ``style``."""
    axes.tick_params(colors=INK, labelsize="small", which="both")


def colour(mode: str) -> tuple[float, float, float] | str:
    """Return a mode's colour; that of text for what is a sum.

    >>> colour("hybrid")
    '#7a7a7a'
    """
    if mode not in COLOURS:
        return INK
    red, green, blue = (int(part) / 255 for part in COLOURS[mode].split(","))
    return red, green, blue
