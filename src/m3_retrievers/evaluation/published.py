"""Published averages of BGE-M3 (arXiv 2402.03216 v4), to stand beside what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NOTE = (
    "BGE-M3's published figures are percentages, averages over all languages of {benchmark}; "
    "two for BM25: over XLM-R tokens / by a language's analyzer."
)


@dataclass(frozen=True, slots=True)
class Published:
    """A benchmark's name, its measure as ir-measures writes it, and the averages by mode."""

    benchmark: str
    measure: str
    figures: Mapping[str, str]

    def note(self) -> str:
        """Return how the figures are to be read."""
        return NOTE.format(benchmark=self.benchmark)


def _row(benchmark: str, measure: str, *figures: str) -> Published:
    modes = ("bm25", "dense", "sparse", "colbert", "dense+sparse", "all")
    named = {mode: one for mode, one in zip(modes, figures, strict=True) if one}
    return Published(benchmark, measure, named)


_FIGURES = (
    _row("MIRACL", "nDCG@10", "31.9 / 38.5", "69.2", "53.9", "70.5", "70.4", "71.5"),
    # What the paper calls Recall@100 is the share of queries with an answer among the first 100.
    _row("MKQA", "Success@100", "39.9 / 40.9", "75.1", "45.3", "75.3", "75.3", "75.5"),
    _row("MLDR", "nDCG@10", "53.6 / 64.1", "52.5", "62.2", "57.6", "64.8", "65.0"),
    _row("NarrativeQA", "nDCG@10", "", "48.7", "57.5", "55.4", "60.1", "61.7"),
)


def published(collection: str) -> Published | None:
    """Return the figures of a collection whose name holds that of a benchmark, or None.

    >>> published("miracl-v1.0-de").figures["all"]
    '71.5'
    """
    name = collection.lower()
    return next((row for row in _FIGURES if row.benchmark.lower() in name), None)
