"""Published averages of BGE-M3 (arXiv 2402.03216 v4), to stand beside what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """A measure's name, and the averages over all languages by mode, in percent."""

    measure: str
    figures: Mapping[str, str]


def _row(measure: str, *figures: str) -> Published:
    modes = ("bm25", "dense", "sparse", "colbert", "dense+sparse", "all")
    return Published(measure, {mode: one for mode, one in zip(modes, figures, strict=True) if one})


_FIGURES = {
    "miracl": _row("nDCG@10", "31.9", "69.2", "53.9", "70.5", "70.4", "71.5"),
    "mkqa": _row("Recall@100", "39.9", "75.1", "45.3", "75.3", "75.3", "75.5"),
    "mldr": _row("nDCG@10", "53.6", "52.5", "62.2", "57.6", "64.8", "65.0"),
    "narrativeqa": _row("nDCG@10", "", "48.7", "57.5", "55.4", "60.1", "61.7"),
}


def published(collection: str) -> Published | None:
    """Return the figures of a collection whose name holds that of a benchmark, or None.

    >>> published("miracl-v1.0-de").figures["all"]
    '71.5'
    """
    name = collection.lower()
    return next((row for key, row in _FIGURES.items() if key in name), None)
