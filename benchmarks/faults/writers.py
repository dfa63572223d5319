"""Two processes that write one durable index at the same moment, and two that save one folder.

Of a durable index every change acknowledged to either process must be there, once and whole,
and a third process that reads meanwhile must see whole changes alone. A folder must hold what
one of the two saved, whole, at every moment somebody loads it.

    python benchmarks/faults/writers.py --pairs 1000
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import RESULTS, machine, write_result
from documents import check, put

from m3_retrievers.errors import M3Error
from m3_retrievers.index.durable.index import DurableIndex
from m3_retrievers.index.snapshot.storage import read_generation, write_generation
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.types.hits import Record

_CHANGES = 3  # of each process; every change stores two documents and deletes an older one


def forked(work: Callable[[], None]) -> int:
    """Start a child; it ends with 0 where all went well."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def ended_well(child: int) -> bool:
    return os.waitpid(child, 0)[1] == 0


def write(path: Path, name: str, pair: int) -> None:
    with DurableIndex(path, weighting=BM25(), timeout=60) as index:
        for number in range(_CHANGES):
            put(index, [f"{name}{number}", f"{name}{number}+"], pair)
            if number:
                assert index.delete([f"{name}{number - 1}+"]) == [f"{name}{number - 1}+"]


def expected(pair: int) -> dict[str, int]:
    last = _CHANGES - 1
    names = [f"{name}{number}" for name in "ab" for number in range(_CHANGES)]
    return dict.fromkeys([*names, f"a{last}+", f"b{last}+"], pair)


def durable_pair(path: Path, pair: int) -> int:
    """Let two processes write; returns how many states a reader saw meanwhile."""
    children = [forked(lambda name=name: write(path, name, pair)) for name in "ab"]
    seen = set()
    waiting = set(children)
    with DurableIndex(path, weighting=BM25(), timeout=60) as index:
        while waiting:
            with index.snapshot():
                ids = index.ids
                check(index, {record.id: record.metadata["version"] for record in index.get(ids)})
            for id in ids:  # a document and its pair come in one change, the pair goes later
                assert id.removesuffix("+") in ids
            seen.add(ids)
            time.sleep(0.005)
            for child in list(waiting):
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    assert status == 0
                    waiting.remove(child)
        for id in expected(pair):
            assert id in index, f"{id} was acknowledged and is lost"
        check(index, dict.fromkeys(index.ids, pair))
        assert set(index.ids) == set(expected(pair))
        index.delete(list(index.ids))
    return len(seen)


def save(folder: Path, number: int) -> None:
    write_generation(
        folder,
        arrays={"dense.vectors": np.full((50, 8), number, np.float32)},
        documents=[Record(str(at), f"text {number}") for at in range(50)],
        settings={"number": number},
    )


def load(folder: Path) -> int:
    saved = read_generation(folder)
    number: int = saved.settings["number"]
    assert np.all(saved.arrays["dense.vectors"] == number)
    assert {one.text for one in saved.records} == {f"text {number}"}
    return number


def snapshot_pair(folder: Path, pair: int, met: Counter[str]) -> None:
    """Let two processes save into one folder, and load it meanwhile."""
    numbers = (2 * pair, 2 * pair + 1)
    children = [forked(lambda number=number: save(folder, number)) for number in numbers]
    for _ in range(4):
        try:
            load(folder)
            met["loads, whole"] += 1
        except M3Error as error:
            met[type(error).__name__] += 1
    assert list(map(ended_well, children)) == [True, True]
    met["pairs"] += 1
    assert load(folder) in numbers
    assert len(list(folder.glob("generation-*"))) == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1_000)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    start = time.perf_counter()
    states = 0
    for pair in range(options.pairs):
        path = folder / f"{pair // 100}.index"
        if pair % 100 == 0:
            DurableIndex(path, weighting=BM25()).close()
        states += durable_pair(path, pair)
    met: Counter[str] = Counter()
    save(folder / "snapshot", 0)
    for pair in range(1, options.pairs + 1):
        snapshot_pair(folder / "snapshot", pair, met)
    result = {
        "durable": {
            "pairs": options.pairs,
            "changes": options.pairs * 2 * (2 * _CHANGES - 1),
            "changes_lost": 0,  # a loss ends the run with an error
            "states_read_meanwhile": states,
        },
        "snapshot": {**met, "mixtures": 0},
        "seconds": round(time.perf_counter() - start, 1),
        "machine": machine(threads=1),
    }
    write_result(RESULTS / "faults_writers.json", result)


if __name__ == "__main__":
    main()
