"""What a durable index costs beside a snapshot: build, change, open, first query, size, memory.

Representations are drawn at random in m3-mini's shape, 64 token vectors of 384 values in
float16 a document, so that no model is needed. Files come from the page cache, as they do on a
machine that has just written or read them.

    python benchmarks/durable.py --documents 20000 --large 100000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, machine, timed, write_result
from scipy import sparse as sp

from m3_retrievers import scoring
from m3_retrievers.index.base import Index
from m3_retrievers.index.durable.index import DurableIndex
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.packed import MultiVectors, offsets_of
from m3_retrievers.types.plan import Plan
from m3_retrievers.types.representations import Representations

WIDTH, TOKENS, VOCABULARY, TERMS, BATCH = 384, 64, 30_522, 60, 256
_TEXT = "The committee approved the plan for the new bridge over the river. " * 18
_PLAN = Plan()


def representations(count: int, rng: np.random.Generator) -> Representations:
    dense = rng.standard_normal((count, WIDTH), np.float32)
    columns = np.sort(rng.integers(0, VOCABULARY // TERMS, (count, TERMS)), axis=1)
    columns += np.arange(TERMS) * (VOCABULARY // TERMS)
    weights = rng.random(count * TERMS, np.float32) + 0.01
    sparse = (weights, columns.reshape(-1), offsets_of([TERMS] * count))
    vectors = rng.standard_normal((count * TOKENS, WIDTH), np.float32).astype(np.float16)
    return Representations(
        dense=dense / np.linalg.norm(dense, axis=1, keepdims=True),
        sparse=sp.csr_array(sparse, shape=(count, VOCABULARY)),
        colbert=MultiVectors(vectors, offsets_of([TOKENS] * count)),
    )


def batches(documents: int) -> Iterator[tuple[list[Record], Representations]]:
    rng = np.random.default_rng(0)
    for first in range(0, documents, BATCH):
        ids = range(first, min(documents, first + BATCH))
        records = [Record(str(id), f"{id} {_TEXT}", {"page": id % 100}) for id in ids]
        yield records, representations(len(records), rng)


def build(index: Index, documents: int) -> float:
    """Return the seconds that adding took, without those of drawing the numbers."""
    return sum(timed(partial(index.add, *batch))[0] for batch in batches(documents))


def query() -> Query:
    return Query("", representations(1, np.random.default_rng(7)))


def size_of(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")
    return sum(file.stat().st_size for file in files if file.is_file())


def changed(index: Index, number: int) -> None:
    """Replace one document."""
    record = Record(str(number * 11), f"changed {_TEXT}", {})
    index.upsert([record], representations(1, np.random.default_rng(number)))


def snapshot(folder: Path, documents: int) -> dict[str, Any]:
    index = LocalIndex()
    added = build(index, documents)
    saved, _ = timed(lambda: index.save(folder))
    changed(index, 1)
    again, _ = timed(lambda: index.save(folder))
    ids = [str(id) for id in range(0, 200 * 7, 7)]
    vectors = [timed(lambda: index.vectors(ids, outputs=["colbert"]))[0] for _ in range(5)]
    del index
    opened, index = timed(lambda: LocalIndex.load(folder))
    first, _ = timed(lambda: index.search(query(), _PLAN, k=10))
    later = [timed(lambda: index.search(query(), _PLAN, k=10))[0] for _ in range(20)]
    return {
        "build_s": added + saved,
        "one_changed_document_s": again,
        "open_s": opened,
        "first_query_s": first,
        "later_query_s": statistics.median(later),
        "vectors_of_200_s": statistics.median(vectors),
        "bytes": size_of(folder),
    }


def durable(path: Path, documents: int) -> dict[str, Any]:
    index = DurableIndex(path)
    added = build(index, documents)
    changes = [timed(lambda n=n: changed(index, n))[0] for n in range(1, 101)]
    closed, _ = timed(index.close)
    opened, index = timed(lambda: DurableIndex(path))
    first, _ = timed(lambda: index.search(query(), _PLAN, k=10))
    later = [timed(lambda: index.search(query(), _PLAN, k=10))[0] for _ in range(20)]
    ids = [str(id) for id in range(0, 200 * 7, 7)]
    vectors = [timed(lambda: index.vectors(ids, outputs=["colbert"]))[0] for _ in range(5)]
    index.close()
    return {
        "build_s": added + closed,
        "one_changed_document_s": statistics.median(changes),
        "one_changed_document_p99_s": sorted(changes)[98],
        "open_s": opened,
        "first_query_s": first,
        "later_query_s": statistics.median(later),
        "vectors_of_200_s": statistics.median(vectors),
        "bytes": size_of(path),
    }


def memory(path: Path) -> dict[str, Any]:
    """Return what a process that opens and searches weighs, in bytes."""
    opened, index = timed(lambda: DurableIndex(path))
    after_opening = resident()
    first, found = timed(lambda: index.search(query(), _PLAN, k=10))
    later = [timed(lambda: index.search(query(), _PLAN, k=10))[0] for _ in range(20)]
    assert len(found.hits) == 10
    return {
        "documents": len(index),
        "open_s": opened,
        "first_query_s": first,
        "later_query_s": statistics.median(later),
        "resident_after_opening": after_opening,
        "resident_after_searching": resident(),
        "highest": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "bytes": size_of(path),
    }


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def in_a_process(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--large", type=int, default=100_000, help="0 leaves this part out")
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--part", choices=["snapshot", "durable", "build", "memory"])
    options = parser.parse_args()
    if options.part:
        warm = query().representations.require("colbert")
        scoring.maxsim(warm, warm)  # torch is loaded, and no part of a first query
        work = {
            "snapshot": lambda: snapshot(options.folder, options.documents),
            "durable": lambda: durable(options.folder, options.documents),
            "build": lambda: {"build_s": build(DurableIndex(options.folder), options.documents)},
            "memory": lambda: memory(options.folder),
        }
        print(json.dumps(work[options.part]()))
        return
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    count = ["--documents", str(options.documents)]
    result: dict[str, Any] = {"documents": options.documents, "machine": machine(threads=1)}
    start = time.perf_counter()
    for part in ("durable", "snapshot"):
        result[part] = in_a_process("--part", part, "--folder", str(folder / part), *count)
        remove(folder / part)
    if options.large:
        place = ["--folder", str(folder / "large")]
        built = in_a_process("--part", "build", *place, "--documents", str(options.large))
        result["large"] = {**built, **in_a_process("--part", "memory", *place)}
    result["seconds"] = round(time.perf_counter() - start, 1)
    shutil.rmtree(folder)
    write_result(RESULTS / "durable.json", result)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


if __name__ == "__main__":
    main()
