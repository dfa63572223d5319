"""``m3-retrievers search``: one question, a table of hits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from m3_retrievers.cli.bundled import bundled_model
from m3_retrievers.cli.console import results, write_json
from m3_retrievers.cli.home import retriever_in
from m3_retrievers.display.terminal import hits_table, marked, shares_table
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import InputError
from m3_retrievers.explain.explaining import explain as explained
from m3_retrievers.index.opening import shown_address
from m3_retrievers.retrieval.precisions import difference
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.hits import Hit

# Hits whose text is shown with what matched in it; each is read by the model once more.
_EXPLAINED = 3


def run(
    index: str,
    question: str,
    *,
    k: int,
    filter: str | None,
    explain: bool,
    model: str | None,
    as_json: bool,
) -> None:
    """Print the best k hits for a question."""
    wanted = _filter(filter)
    encoder = M3Encoder.from_pretrained(
        model or bundled_model(index, ["search", shown_address(index), question])
    )
    with retriever_in(index, encoder) as retriever:
        hits = retriever.search(question, k=k, filter=wanted)
        if as_json:
            write_json(_record(question, hits, retriever, explain=explain))
        else:
            _print(question, hits, retriever, explain=explain)


def _print(
    question: str, hits: Sequence[Hit], retriever: HybridRetriever, *, explain: bool
) -> None:
    console = results()
    if not hits:
        console.print("No hits: nothing in the index passes the filter.")
        return
    console.print(hits_table(hits, title=question))
    if explain:
        console.print(shares_table(hits))
        if apart := difference(retriever.index, retriever.encoder):
            console.print(f"The index was {apart}.", style="dim", highlight=False)
        for hit in hits[:_EXPLAINED]:
            console.print()
            console.print(marked(explained(question, hit, retriever=retriever)))


def _record(
    question: str, hits: Sequence[Hit], retriever: HybridRetriever, *, explain: bool
) -> dict[str, Any]:
    found = [asdict(hit) for hit in hits]
    for number, hit in enumerate(hits[:_EXPLAINED] if explain else ()):
        found[number]["explanation"] = explained(question, hit, retriever=retriever).to_dict()
    return {"question": question, "hits": found}


def _filter(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        parsed = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"--filter expects a JSON object, got {text!r:.200} ({error}).") from error
    if not isinstance(parsed, dict):
        raise InputError(
            f'--filter expects a JSON object such as {{"source": "a.md"}}, got {text!r:.200}.'
        )
    return parsed
