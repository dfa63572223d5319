"""``m3-retrievers search``: one question, a table of hits."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from m3_retrievers.cli.console import results, write_json
from m3_retrievers.cli.destination import load, model_of
from m3_retrievers.cli.home import model_at, retriever_at
from m3_retrievers.display.terminal import hits_table, marked, shares_table
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.encoder.mini import NAMES
from m3_retrievers.errors import InputError
from m3_retrievers.explain.explaining import explain as explained
from m3_retrievers.index.opening import parse_address, shown_address
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.hits import Hit

# Hits whose text is shown with what matched in it; each is read by the model once more.
_EXPLAINED = 3
# Models that come with this package or by pip; an index may name them without being trusted.
_BUNDLED = NAMES


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
    encoder = M3Encoder.from_pretrained(model or _bundled(index, question))
    with _retriever(index, encoder) as retriever:
        hits = retriever.search(question, k=k, filter=wanted)
        if as_json:
            write_json(_record(question, hits, retriever, explain=explain))
        else:
            _print(question, hits, retriever, explain=explain)


def _retriever(index: str, encoder: M3Encoder) -> AbstractContextManager[HybridRetriever]:
    """Return a context with the retriever over an index in a folder, a file or an engine."""
    home = parse_address(index)
    if home.engine == "sqlite":
        return nullcontext(load(Path(home.target), encoder))
    return retriever_at(index, encoder, create=False)


def _model_of(index: str) -> Mapping[str, Any]:
    home = parse_address(index)
    return model_of(Path(home.target)) if home.engine == "sqlite" else model_at(index)


def _bundled(index: str, question: str) -> str:
    """Return the model that built an index, where it may be loaded without being asked for.

    An index may come from anyone, and its model's name is a path to load or a repository to
    download: whoever searches decides on that.
    """
    name = str(_model_of(index).get("name", ""))
    if name in _BUNDLED:
        return name
    shown = shown_address(index)
    built = f"was built by the model {name!r}" if name else "names no model"
    command = ["m3-retrievers", "search", shown, question, "--model", name or "MODEL"]
    raise InputError(
        f"The index in {shown!r} {built}, and a search loads, or downloads, no model just because "
        f"an index names it. If you trust that model, type: {shlex.join(command)}"
    )


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
