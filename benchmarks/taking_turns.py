"""Ours and the peer's work in turns, so that whatever else the machine does hits both."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

# A block whose baseline took a fifth longer than in the quietest block says nothing.
_MOVED = 1.2


def take_turns(
    works: Mapping[str, Callable[[], Any]],
    *,
    baseline: str,
    rounds: int = 10,
    blocks: int = 3,
    seconds: float = 15.0,
) -> dict[str, Any]:
    """Return median, least and most milliseconds of each work, and its speed-up over a baseline.

    Each block runs all works in turn, ``rounds`` times; blocks whose baseline moved are thrown
    away, and blocks go on until so many are left or the time is over.
    """
    for work in works.values():
        work()
    kept: list[dict[str, list[float]]] = []
    loads, start, thrown = [], time.perf_counter(), 0
    while len(kept) < blocks:
        kept.append(_block(works, rounds))
        loads.append(os.getloadavg()[0])
        least = min(statistics.median(block[baseline]) for block in kept)
        good = [block for block in kept if statistics.median(block[baseline]) <= _MOVED * least]
        thrown += len(kept) - len(good)
        kept = good
        if time.perf_counter() - start > seconds:
            break
    times = {name: [value for block in kept for value in block[name]] for name in works}
    base = statistics.median(times[baseline])
    return {
        "rows": {name: {**spread(values), "times": base / statistics.median(values)}
                 for name, values in times.items()},
        "baseline": baseline,
        "blocks_kept": len(kept),
        "blocks_thrown_away": thrown,
        "load": loads,
        "raw_ms": times,
    }  # fmt: skip


def shown(title: str, result: Mapping[str, Any]) -> str:
    """Return a line a work."""
    lines = [
        f"  {name:<34} {row['median']:9.3f} ms ({row['min']:.3f} to {row['max']:.3f})"
        f"  {row['times']:6.2f} x"
        for name, row in result["rows"].items()
    ]
    kept, thrown = result["blocks_kept"], result["blocks_thrown_away"]
    load = max(result["load"])
    return "\n".join([f"{title} [{kept} blocks, {thrown} thrown away, load {load:.1f}]", *lines])


def _block(works: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for number in range(rounds):
        # who comes first changes, and so does who finds the caches warm
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            works[name]()
            times[name].append((time.perf_counter() - start) * 1e3)
    return times


def spread(values: list[float]) -> dict[str, float]:
    """Return median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
