"""How time and memory grow with the corpus: lexical, dense and BM25 search beside their peers.

From 1,000 to 1,000,000 documents, a tenfold step at a time, as far as memory and patience go.
Each size runs in a process of its own, which says how much memory the index took. Curves are
drawn with the peer's beside them::

    python benchmarks/growth.py --most 1000000
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, machine, write_result
from speed_scoring import resident, term_weights, units, words
from taking_turns import take_turns

from m3_retrievers.index.stores.dense import DenseIndex
from m3_retrievers.index.stores.inverted import InvertedIndex
from m3_retrievers.index.stores.live import LiveRows
from m3_retrievers.index.stores.weighted import WeightedIndex
from m3_retrievers.lexical.bm25 import BM25

WIDTH = 384
SIZES = (1_000, 10_000, 100_000, 1_000_000)
PEERS = {"dense": "faiss", "lexical": "scipy", "bm25": "bm25s"}

# Make an index, and return what asks it question n: ours, and the peer's.
Makers = tuple[Callable[[], Any], Callable[[], Any]]


def dense(size: int) -> Makers:
    import faiss

    rows, queries = units(size, WIDTH), units(20, WIDTH, seed=1)

    def peer() -> Any:
        made = faiss.IndexFlatIP(WIDTH)
        made.add(rows)
        return lambda n: made.search(queries[n][None], 10)

    def ours() -> Any:
        made = DenseIndex()
        made.append(rows)
        return lambda n: made.search(queries[n], k=10)

    return ours, peer


def lexical(size: int) -> Makers:
    matrix, queries = term_weights(size, 64), term_weights(20, 12, seed=5)
    asked = [queries[[n]] for n in range(20)]

    def peer() -> Any:
        made = matrix.copy()

        def search(n: int) -> Any:
            scores = (made @ asked[n].T).toarray()[:, 0]
            return np.argpartition(-scores, 100)[:100]

        return search

    def ours() -> Any:
        made = InvertedIndex.from_matrix(matrix)
        return lambda n: made.search(asked[n], k=100)

    return ours, peer


def bm25(size: int) -> Makers:
    import bm25s

    vocabulary = np.array([f"word{n}" for n in range(60_000)])
    texts = [" ".join(row) for row in vocabulary[words((size, 32), vocabulary=60_000)].tolist()]
    asked = [" ".join(row) for row in vocabulary[words((20, 6), vocabulary=60_000, seed=9)]]

    def peer() -> Any:
        made = bm25s.BM25(backend="numba")
        made.index(bm25s.tokenize(texts, show_progress=False, stopwords=[]), show_progress=False)

        def search(n: int) -> Any:
            tokens = bm25s.tokenize([asked[n]], show_progress=False, stopwords=[])
            return made.retrieve(tokens, k=10, show_progress=False)

        return search

    def ours() -> Any:
        weighting, live = BM25(), LiveRows(size)
        made = WeightedIndex(weighting)
        made.append(weighting.count(texts))
        made.fitted(live=live)
        return lambda n: made.search(asked[n], k=10, live=live, admitted=live.mask)

    return ours, peer


MODES: dict[str, Any] = {"dense": dense, "lexical": lexical, "bm25": bm25}


def measure(mode: str, size: int) -> dict[str, Any]:
    """Return build times, memory and search times of ours and the peer's at one size."""
    ours, peer = MODES[mode](size)
    searches, found = {}, {}
    for name, make in (("ours", ours), (PEERS[mode], peer)):
        before, start = resident(), time.perf_counter()
        searches[name] = make()
        found[name] = {
            "build_s": time.perf_counter() - start,
            "memory_gb": max(0, resident() - before) / 1e9,
        }
    turn = np.random.default_rng(0)
    works = {
        name: (lambda search=search: search(int(turn.integers(20))))
        for name, search in searches.items()
    }
    turns = take_turns(
        works, baseline=PEERS[mode], rounds=20 if size <= 100_000 else 5, blocks=2, seconds=10
    )
    for name, row in turns["rows"].items():
        found[name]["search_ms"] = {key: row[key] for key in ("median", "min", "max")}
    return {"size": size, "load": max(turns["load"]), **found}


def draw(result: dict[str, Any], target: Path) -> None:
    """Draw a row of panels a mode: search, build and memory against documents, log by log."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = {
        "search_ms": "one search, ms",
        "build_s": "build, s",
        "memory_gb": "memory, GB",
    }
    figure, panels = pyplot.subplots(
        len(result["modes"]), 3, figsize=(11, 3 * len(result["modes"])), squeeze=False
    )
    for row, (mode, points) in zip(panels, result["modes"].items(), strict=True):
        for panel, (kind, label) in zip(row, kinds.items(), strict=True):
            for name, color in (("ours", "#1f6fb4"), (PEERS[mode], "#999999")):
                sizes = [point["size"] for point in points]
                values = [point[name][kind] for point in points]
                if kind == "search_ms":
                    spread = [[v["min"] for v in values], [v["max"] for v in values]]
                    panel.fill_between(sizes, *spread, color=color, alpha=0.15, linewidth=0)
                    values = [v["median"] for v in values]
                # what took no memory of its own has no place on a logarithmic axis
                values = [value or float("nan") for value in values]
                panel.plot(sizes, values, marker="o", color=color, label=name)
            panel.set(xscale="log", yscale="log", title=f"{mode}: {label}", xlabel="documents")
            panel.grid(alpha=0.3)
            panel.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(target, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, default=SIZES[-1])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--result", type=Path, default=RESULTS / "growth.json")
    parser.add_argument("--one", nargs=2, metavar=("MODE", "SIZE"), help=argparse.SUPPRESS)
    parser.add_argument("--draw", action="store_true", help="draw what was measured before")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.draw:
        draw(json.loads(options.result.read_text()), options.result.with_suffix(".png"))
        return
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]))))
        return
    result: dict[str, Any] = {"machine": machine(threads=options.threads), "modes": {}}
    for mode in options.modes:
        points = result["modes"][mode] = []
        for size in SIZES:
            if size > options.most:
                break
            command = [sys.executable, __file__, "--one", mode, str(size)]
            command += ["--threads", str(options.threads)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:  # out of memory, most of the time: the curve ends here
                print(f"{mode} {size}: {done.stderr[-300:]}")
                break
            points.append(json.loads(done.stdout.splitlines()[-1]))
            print(mode, points[-1], flush=True)
    write_result(options.result, result)
    draw(result, options.result.with_suffix(".png"))


if __name__ == "__main__":
    main()
