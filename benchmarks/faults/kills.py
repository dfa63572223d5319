"""Kill -9 at random moments: what was acknowledged is there, whole, and nothing else.

Each trial forks a child of this warm process, which changes one index as fast as it can and
says through a pipe what it is about to do and what it has done. It is killed at a random
moment; then the index is opened again and compared, to the bit, with a model that holds every
change acknowledged, and the one under way as a whole or not at all.

    python benchmarks/faults/kills.py --trials 1000
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import RESULTS, machine, write_result
from documents import check, put

from m3_retrievers.index import table
from m3_retrievers.index.durable.index import DurableIndex
from m3_retrievers.lexical.bm25 import BM25

_IDS = [str(number) for number in range(80)]
_LONGEST = 0.3  # seconds that a child may live after its first change


def changes(seed: int) -> Any:
    """Yield random changes for ever: a name, ids and the version they get."""
    rng = random.Random(seed)
    version = seed * 10_000
    while True:
        version += 1
        ids = rng.sample(_IDS, rng.choice([1, 1, 2, 5, 30]))
        yield rng.choice(["upsert", "upsert", "delete", "add"]), ids, version


def apply(model: dict[str, int], name: str, ids: list[str], version: int) -> None:
    """Do in a model what a change does to an index."""
    if name == "add":
        ids = [id for id in ids if id not in model]
    for id in ids:
        model.pop(id, None)
        if name != "delete":
            model[id] = version


def work(path: Path, seed: int, out: int) -> None:
    """Change the index until killed."""
    with DurableIndex(path, weighting=BM25()) as index:
        for name, ids, version in changes(seed):
            os.write(out, json.dumps([name, ids, version]).encode() + b"\n")
            if name == "delete":
                index.delete(ids)
            elif name == "add":
                put(index, [id for id in ids if id not in index], version)
            else:
                put(index, ids, version)
            os.write(out, b"done\n")


def trial(path: Path, seed: int, model: dict[str, int]) -> tuple[str, int]:
    """Kill one child; returns how the change under way ended and how many were acknowledged."""
    source, out = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(source)
        work(path, seed, out)
        os._exit(1)
    os.close(out)
    with os.fdopen(source, "rb") as pipe:
        # every fifth may be killed before it has opened, or made, the file
        first = pipe.readline() if seed % 5 else b""
        time.sleep(random.Random(seed).random() ** 2 * _LONGEST)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        lines = [first, *pipe.readlines()]
    acknowledged = 0
    pending = None
    for line in lines:
        if line == b"done\n":
            assert pending is not None
            apply(model, *pending)
            pending, acknowledged = None, acknowledged + 1
        elif line.endswith(b"\n"):
            pending = json.loads(line)
    return settle(path, model, pending), acknowledged


def settle(path: Path, model: dict[str, int], pending: Any) -> str:
    """Compare the index with the model, and bring the model to what became of the last change."""
    with DurableIndex(path, weighting=BM25()) as index:
        if pending is None:
            check(index, model)
            return "between changes"
        after = dict(model)
        apply(after, *pending)
        whole = list(index.ids) == list(after) and {
            record.metadata["version"] for record in index.get(list(after))
        } == set(after.values())
        if whole:
            model.clear()
            model.update(after)
        check(index, model)
        return f"{pending[0]} {'whole' if whole else 'not at all'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table._DEAD_ROWS_KEPT = 20  # so that many a kill meets a compaction
    folder = Path(tempfile.mkdtemp())
    ended: Counter[str] = Counter()
    acknowledged, compactions = 0, 0
    model: dict[str, int] = {}
    path = folder / "0.index"
    start = time.perf_counter()
    for number in range(options.trials):
        if number % 100 == 0:  # some trials meet a new file
            model, path = {}, folder / f"{number}.index"
        seed = options.seed + number + 1
        how, count = trial(path, seed, model)
        ended[how] += 1
        acknowledged += count
        if number % 100 == 99 or number == options.trials - 1:
            with DurableIndex(path, weighting=BM25()) as index, index.snapshot():
                compactions += index._file.counters().epoch
    results = {
        "trials": options.trials,
        "changes_acknowledged": acknowledged,
        "changes_lost": 0,  # a loss ends the run with an error
        "compactions": compactions,
        "the_change_under_way": dict(sorted(ended.items())),
        "seconds": round(time.perf_counter() - start, 1),
    }
    shutil.rmtree(folder)
    write_result(RESULTS / "faults_kills.json", {**results, "machine": machine(threads=1)})


if __name__ == "__main__":
    main()
