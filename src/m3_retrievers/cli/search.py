"""``m3-retrievers search``: one question, a table of hits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from m3_retrievers.cli.console import grid, marked, place, results, snippet
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.explain.explaining import explain as explained
from m3_retrievers.index.storage import read_model
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.hits import Hit
from m3_retrievers.types.plan import name_of

# Hits whose text is shown with what matched in it; each is read by the model once more.
_EXPLAINED = 3


def run(
    folder: Path, question: str, *, k: int, filter: str | None, explain: bool, model: str | None
) -> None:
    """Print the best k hits for a question."""
    wanted = _filter(filter)
    saved = read_model(folder)
    encoder = M3Encoder.from_pretrained(model or saved["name"])
    retriever = HybridRetriever.load(folder, encoder)
    hits = retriever.search(question, k=k, filter=wanted)
    console = results()
    if not hits:
        console.print("No hits: nothing in the index passes the filter.")
        return
    modes = list(hits[0].scores)
    labels = [name_of(mode) for mode in modes]
    table = grid("#", "where", *labels, "text", title=escape(question), numbers=("#", *labels))
    for number, hit in enumerate(hits, start=1):
        scores = [f"{hit.scores[mode]:.3f}" if mode in hit.scores else "–" for mode in modes]
        table.add_row(str(number), escape(place(hit)), *scores, escape(snippet(hit.text)))
    console.print(table)
    if explain:
        console.print(_shares(hits))
        for hit in hits[:_EXPLAINED]:
            console.print()
            console.print(marked(explained(question, hit, retriever=retriever)))


def _shares(hits: Sequence[Hit]) -> Any:
    """Return a table of each mode's rank among the candidates and its share of the score."""
    modes = list(hits[0].scores)
    labels = [name_of(mode) for mode in modes]
    table = grid(
        "#", "where", *labels, title="Rank, and share of the score", numbers=("#", *labels)
    )
    for number, hit in enumerate(hits, start=1):
        cells = []
        for mode in modes:
            share = hit.contributions.get(mode)
            part = "" if share is None else f"  {share:+.3f}"
            cells.append(f"{hit.ranks.get(mode, '–')}{part}")
        table.add_row(str(number), escape(place(hit)), *cells)
    return table


def _filter(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"--filter expects a JSON object, got {text!r} ({error}).") from error
    if not isinstance(parsed, dict):
        raise InputError(
            f'--filter expects a JSON object such as {{"source": "a.md"}}, got {text!r}.'
        )
    return parsed
