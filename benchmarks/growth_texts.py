"""How time grows with the length of a text, and throughput with the number of callers.

Texts of 16 to 8,192 tokens through a checkpoint of MiniLM's size, all three outputs, beside
FlagEmbedding; 1 to 64 threads that search an index of m3-mini's at once. Both are drawn::

    python benchmarks/growth_texts.py --models FOLDER
"""

from __future__ import annotations

import argparse
import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import (
    RESULTS,
    machine,
    standard_library_questions,
    standard_library_texts,
    write_result,
)
from full_size import write_small_m3
from speed_encode import of_tokens, ours, records, served, theirs
from taking_turns import shown, take_turns

from m3_retrievers import HybridRetriever
from m3_retrievers.errors import TruncationWarning

LENGTHS = (16, 64, 256, 1_024, 4_096, 8_192)
CALLERS = (1, 2, 4, 8, 16, 32, 64)
PEER = "FlagEmbedding"
COLORS = {PEER: "#999999", "ours, fp32": "#1f6fb4", "ours, bf16": "#d9822b"}


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


def callers(documents: int = 1_000, seconds: float = 6.0) -> list[dict[str, Any]]:
    """Search from so many threads at once, each with questions of its own."""
    retriever = HybridRetriever(ours("m3-mini", "fp32"))
    texts = standard_library_texts(documents)
    retriever.index.add(records(documents), ours("m3-mini", "bf16").encode_documents(texts))
    questions, points = standard_library_questions(512), []
    for threads in CALLERS:
        found = served(retriever, questions, threads, seconds)
        print(f"  {threads} callers: {found}", flush=True)
        points.append({"callers": threads, **found})
    return points


def draw(result: dict[str, Any], target: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(12, 3.6))
    points = result["lengths"]
    tokens = [point["tokens"] for point in points]
    for name, color in COLORS.items():
        rows = [point["rows"][name] for point in points]
        left.plot(tokens, [row["median"] for row in rows], marker="o", color=color, label=name)
        spread = [[row[end] for row in rows] for end in ("min", "max")]
        left.fill_between(tokens, *spread, color=color, alpha=0.15, linewidth=0)
    left.set(xscale="log", yscale="log", title="one text, ms", xlabel="tokens")
    threads = [point["callers"] for point in result["callers"]]
    rates = [point["queries_a_second"] for point in result["callers"]]
    middle.plot(threads, rates, marker="o", color="#1f6fb4")
    middle.set(xscale="log", title="searches a second", xlabel="callers")
    middle.set_ylim(bottom=0)
    for name, style in (("p50_ms", "-"), ("p99_ms", "--")):
        times = [point[name] for point in result["callers"]]
        right.plot(threads, times, style, marker="o", color="#1f6fb4", label=name[:3])
    right.set(xscale="log", yscale="log", title="a search, ms", xlabel="callers")
    left.legend(frameon=False)
    right.legend(frameon=False)
    for panel in (left, middle, right):
        panel.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(target, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="where checkpoints are kept")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--result", type=Path, default=RESULTS / "growth_texts.json")
    parser.add_argument("--draw", action="store_true", help="draw what was measured before")
    options = parser.parse_args()
    if not options.draw:
        torch.set_num_threads(options.threads)
        warnings.simplefilter("ignore", TruncationWarning)
        about = machine(threads=options.threads)
        result = {"machine": about, "lengths": lengths(options.models), "callers": callers()}
        write_result(options.result, result)
    draw(json.loads(options.result.read_text()), options.result.with_suffix(".png"))


if __name__ == "__main__":
    main()
