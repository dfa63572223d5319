"""How time and memory grow with the length of a text, and throughput with the number of callers.

Texts of 16 to 8,192 tokens through a checkpoint of MiniLM's size, all three outputs, beside
FlagEmbedding; 1 to 64 threads that search an index of m3-mini's at once. All is drawn::

    python benchmarks/growth_texts.py --models FOLDER
    python benchmarks/growth_texts.py --models FOLDER --only memory
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import (
    RESULTS,
    machine,
    read_result,
    standard_library_questions,
    standard_library_texts,
    write_result,
)
from full_size import write_small_m3
from speed_encode import of_tokens, ours, records, served, theirs
from taking_turns import shown, spread, take_turns
from text_memory import PEER, added

from m3_retrievers import HybridRetriever
from m3_retrievers.errors import TruncationWarning

LENGTHS = (16, 64, 256, 1_024, 4_096, 8_192)
CALLERS = (1, 2, 4, 8, 16, 32, 64)
OURS = "#1f6fb4"
COLORS = {PEER: "#999999", "ours, fp32": OURS, "ours, bf16": "#d9822b"}


def lengths(models: Path) -> list[dict[str, Any]]:
    """Encode one text of each length."""
    folder, points = str(write_small_m3(models / "small")), []
    for tokens in LENGTHS:
        text = of_tokens(ours(folder, "fp32"), tokens)
        works = {PEER: partial(theirs, folder, text, 8192)}
        for precision in ("fp32", "bf16"):
            encoder = ours(folder, precision)
            works[f"ours, {precision}"] = partial(encoder.encode_documents, text)
        rounds = 8 if tokens <= 1_024 else 1
        found = take_turns(works, baseline=PEER, rounds=rounds, blocks=2, seconds=20)
        print(shown(f"{tokens} tokens", found), flush=True)
        points.append({"tokens": tokens, "rows": found["rows"], "load": max(found["load"])})
    return points


def memory(models: Path, *, repeats: int = 3) -> list[dict[str, Any]]:
    """Measure what one text of each length adds, some processes for each encoder."""
    folder, points = str(write_small_m3(models / "small")), []
    encoders = {PEER: PEER, "ours, fp32": "fp32", "ours, bf16": "bf16"}
    for tokens in LENGTHS:
        text = of_tokens(ours(folder, "fp32"), tokens)[0]
        rows = {}
        for name, encoder in encoders.items():
            found = [
                added(folder, encoder, text, threads=torch.get_num_threads())
                for _ in range(repeats)
            ]
            rows[name] = {
                key: spread([one[key] for one in found]) for key in ("loaded_mb", "adds_mb")
            }
        print(f"  {tokens} tokens: {rows}", flush=True)
        points.append({"tokens": tokens, "rows": rows})
    return points


def callers(_: Path, *, documents: int = 1_000, seconds: float = 6.0) -> list[dict[str, Any]]:
    """Search from so many threads at once, each with questions of its own."""
    retriever = HybridRetriever(ours("m3-mini", "fp32"))
    texts = standard_library_texts(documents)
    retriever.index.add(records(documents), ours("m3-mini", "bf16").encode_documents(texts))
    questions, points = standard_library_questions(512), []
    retriever.search(questions[0])  # loads, or compiles, what was not needed before
    for threads in CALLERS:
        found = served(retriever, questions, threads, seconds)
        print(f"  {threads} callers: {found}", flush=True)
        points.append({"callers": threads, **found})
    return points


def draw(result: Mapping[str, Any], target: Path) -> None:
    """Draw what was measured, a part that was not stays empty."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, 2, figsize=(9, 6.6))
    (time, room), (rates, waits) = panels
    _over_length(time, result.get("lengths", []), lambda row: row)
    _over_length(room, result.get("memory", []), lambda row: row["adds_mb"])
    time.set(yscale="log", title="time of one text, ms")
    room.set(yscale="log", title="memory that one text adds at the most, MB")
    _over_callers(rates, waits, result.get("callers", []))
    for panel in panels.flat:
        panel.set_xscale("log")
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(target, dpi=110)


def _over_length(
    panel: Any, points: list[Any], value: Callable[[Mapping[str, Any]], Mapping[str, float]]
) -> None:
    tokens = [point["tokens"] for point in points]
    for name, color in COLORS.items():
        rows = [value(point["rows"][name]) for point in points]
        panel.plot(tokens, [row["median"] for row in rows], marker="o", color=color, label=name)
        spread = [[row[end] for row in rows] for end in ("min", "max")]
        panel.fill_between(tokens, *spread, color=color, alpha=0.15, linewidth=0)
    panel.set_xlabel("tokens")


def _over_callers(rates: Any, waits: Any, points: list[Any]) -> None:
    threads = [point["callers"] for point in points]
    rates.plot(threads, [point["queries_a_second"] for point in points], marker="o", color=OURS)
    rates.set(title="searches a second", xlabel="callers")
    rates.set_ylim(bottom=0)
    for name, style in (("p50_ms", "-"), ("p99_ms", "--")):
        times = [point[name] for point in points]
        waits.plot(threads, times, style, marker="o", color=OURS, label=name[:3])
    waits.set(yscale="log", title="a search, ms", xlabel="callers")


PARTS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    "lengths": lengths,
    "memory": memory,
    "callers": callers,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="where checkpoints are kept")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--result", type=Path, default=RESULTS / "growth_texts.json")
    parser.add_argument("--draw", action="store_true", help="draw what was measured before")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", TruncationWarning)
    result = {"machine": {}, **read_result(options.result)}
    for name in () if options.draw else options.only:
        about = machine(threads=options.threads)  # parts may come from different machines
        result[name] = PARTS[name](options.models)
        result["machine"][name] = about
        write_result(options.result, result)
    draw(result, options.result.with_suffix(".png"))


if __name__ == "__main__":
    main()
