"""``m3-retrievers demo``: Python's own documentation, indexed and asked."""

from __future__ import annotations

import platform
import time
from pathlib import Path

from rich.text import Text

from m3_retrievers.cli.console import grid, legs_for, messages, results
from m3_retrievers.corpora.standard_library import DOCSTRING_WORDS, standard_library
from m3_retrievers.encoder.encoder import M3Encoder
from m3_retrievers.errors import IndexModelError
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.hits import Record
from m3_retrievers.types.plan import Mode, name_of

QUESTIONS = (
    "how do I read a csv file row by row?",
    "create a temporary directory that is removed afterwards",
    "parse the arguments given on the command line",
    "measure elapsed time precisely",
    "find the closest matches to a misspelled word",
)
_SHOWN = 3


def run(*, out: Path, limit: int | None, model: str) -> None:
    """Index the standard library's docstrings, or open the index of an earlier run, and ask."""
    console = results()
    records = standard_library(limit)
    encoder = M3Encoder.from_pretrained(model)
    retriever = _opened(out, encoder, records)
    if retriever is None:
        messages.print(
            f"Indexing {len(records)} docstrings of Python {platform.python_version()} with "
            f"{encoder.name} (the first {DOCSTRING_WORDS} words of each)."
        )
        # BM25 recalls, too, so that its ranks stand beside those of the learned weights
        legs: tuple[Mode, ...] = tuple(dict.fromkeys([*legs_for(encoder), "bm25"]))
        retriever = HybridRetriever(encoder, legs=legs)
        started = time.perf_counter()
        retriever.add(records, show_progress=True)
        retriever.save(out)
        seconds = time.perf_counter() - started
        messages.print(f"Saved in {out} after {seconds:.0f} s.")
    else:
        messages.print(f"Opened the index of an earlier run: {out}")
    console.print(
        "\nEach question: the best three by the hybrid score, and the place each single mode "
        "gives them among all candidates.\n"
    )
    for question in QUESTIONS:
        _ask(retriever, question)
    console.print(
        f'\nAsk your own:      m3-retrievers search {out} "how do I …?" --explain\n'
        "Index your files:  m3-retrievers index FOLDER --out my-index",
        soft_wrap=True,
    )


def _ask(retriever: HybridRetriever, question: str) -> None:
    hits = retriever.search(question, k=_SHOWN)
    modes = list(hits[0].ranks)
    labels = [name_of(mode) for mode in modes]
    table = grid(*labels, "score", "answer", title=question, numbers=(*labels, "score"))
    for hit in hits:
        ranks = [str(hit.ranks[mode]) for mode in modes]
        name, _, text = hit.text.partition(": ")
        answer = Text.assemble((hit.id, "bold cyan"), " ", _first_sentence(text or name))
        table.add_row(*ranks, f"{hit.score:.2f}", answer)
    results().print(table)


def _first_sentence(text: str, most: int = 16) -> str:
    words = text.partition(". ")[0].split()
    return " ".join(words[:most]) + ("…" if len(words) > most else "")


def _opened(out: Path, encoder: M3Encoder, records: list[Record]) -> HybridRetriever | None:
    """Return the saved index if it is of these documents and this model; None otherwise."""
    if not (out / "manifest.json").exists():
        return None
    try:
        retriever = HybridRetriever.load(out, encoder)
    except IndexModelError:
        messages.print("The index of an earlier run is of another model; it is built again.")
        return None
    return retriever if retriever.index.ids == tuple(r.id for r in records) else None
