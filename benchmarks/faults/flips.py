"""Every byte of a small durable index changed in turn: refused, or without any effect.

The file holds documents, token vectors, batches, a vocabulary and deletions. After each change
it is opened and asked for all that it holds and for every score; a refusal is an error of this
package, and any answer must equal the one before to the bit. Then a document is added, which
writes through structures that reading does not touch, and the same is asked again. The
write-ahead log that a kill leaves is changed in the same way; of it SQLite reads what is whole
and takes the rest for a commit that was torn, so there the answer may also be that of an
earlier commit, whole.

    python benchmarks/faults/flips.py
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import RESULTS, machine, write_result
from documents import put, record, representations

from m3_retrievers.errors import M3Error
from m3_retrievers.index.durable import sqlite
from m3_retrievers.index.durable.index import DurableIndex
from m3_retrievers.lexical.bm25 import BM25
from m3_retrievers.types.hits import Query
from m3_retrievers.types.plan import Plan

_QUERY = Query("w1 w2 w3 w40", representations(["q"], 1))
_PLAN = Plan(legs=("dense", "sparse", "bm25"))


def answers(path: Path, *, adding: bool = False) -> list[Any]:
    """Return all that an index says, or the name of the error it refuses with."""
    try:
        with DurableIndex(path, restore=BM25.from_state, timeout=0.2) as index:
            found = [asked(index)]
            if adding:
                index.add([record("new", 9)], representations(["new"], 9))
                found.append(asked(index))
        return found
    except M3Error as error:
        return [type(error).__name__]


def asked(index: DurableIndex) -> Any:
    rankings = [
        (r.ids, r.scores.tolist())
        for r in (index.recall(_QUERY, mode, k=None) for mode in sorted(index.modes))
    ]
    kept = index.vectors(index.ids)
    vectors = [part.tobytes() for part in kept.require("colbert")]
    hits = index.search(_QUERY, _PLAN, k=5).hits
    return index.ids, index.get(index.ids), rankings, vectors, list(hits), index._file.note()


def make(path: Path, *, crash: bool) -> list[Any]:
    """Make the index; returns what it says after each commit. crash: leave the log as it is."""
    states = []
    child = os.fork()
    if child == 0:
        index = DurableIndex(path, weighting=BM25())
        index.bind({"name": "m", "fingerprint": "f"}, extra={"legs": ["dense"]})
        for version in range(3):
            put(index, [str(number) for number in range(version, version + 4)], version)
        index.delete(["2"])
        if not crash:
            index.close()
        os._exit(0)
    os.waitpid(child, 0)
    if not crash:
        return answers(path)
    copy = path.with_name("states.index")
    index = DurableIndex(copy, weighting=BM25())
    states.append(asked(index))
    index.bind({"name": "m", "fingerprint": "f"}, extra={"legs": ["dense"]})
    states.append(asked(index))
    for version in range(3):
        put(index, [str(number) for number in range(version, version + 4)], version)
        states.append(asked(index))
    index.delete(["2"])
    states.append(asked(index))
    index.close()
    return states


def flip_file(folder: Path, every: int, workers: int) -> dict[str, Any]:
    """Change each byte of the closed file."""
    path = folder / "whole.index"
    before = make(path, crash=False)
    content = path.read_bytes()
    expected = answers(path, adding=True)
    assert len(expected) == 2
    assert before[0] == expected[0]
    return shared(workers, every, len(content), partial(tried, content, b"", expected))


def flip_log(folder: Path, every: int, workers: int) -> dict[str, Any]:
    """Change each byte of the log that a kill left."""
    path = folder / "killed.index"
    states = make(path, crash=True)
    main, log = path.read_bytes(), path.with_name("killed.index-wal").read_bytes()
    return shared(workers, every, len(log), partial(tried, main, log, states))


def tried(main: bytes, log: bytes, expected: list[Any], places: range) -> Counter[str]:
    """Return how many changes ended in which way, one byte changed at a time.

    log: whose bytes are changed where there are any, else those of the file. expected: what
    an unchanged file says before and after adding, or after each of the log's commits.
    """
    ended: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        target = Path(folder) / "changed.index"
        for at in places:
            changed = bytearray(log or main)
            changed[at] ^= 1 << (at % 8)
            target.write_bytes(main if log else bytes(changed))
            if log:
                target.with_name("changed.index-wal").write_bytes(bytes(changed))
            found = answers(target, adding=not log)
            if isinstance(found[0], str):
                ended[found[0]] += 1
            elif found == (expected[-1:] if log else expected):
                ended["no effect"] += 1
            else:
                assert log, f"byte {at} changed an answer"
                assert found[0] in expected, f"byte {at} of the log changed an answer"
                ended["an earlier commit, whole"] += 1
            for beside in Path(folder).iterdir():
                beside.unlink()
    return ended


def shared(
    workers: int, every: int, size: int, work: Callable[[range], Counter[str]]
) -> dict[str, Any]:
    """Share the places 0, every, … of so many bytes among forked workers."""
    pipes = []
    for number in range(workers):
        source, out = os.pipe()
        if not os.fork():
            try:
                found = work(range(number * every, size, every * workers))
                os.write(out, json.dumps(found).encode())
            except AssertionError as error:
                print(error, file=sys.stderr)
            finally:
                os._exit(0)
        os.close(out)
        pipes.append(source)
    ended: Counter[str] = Counter()
    for source in pipes:
        with os.fdopen(source, "rb") as pipe:
            ended.update(json.loads(pipe.read()))  # nothing at all where a worker failed
    assert sum(ended.values()) == len(range(0, size, every))
    return {"bytes": size, "changed": sum(ended.values()), **ended}


def _memory() -> str | None:
    """Return a folder in memory, where syncing costs nothing; None where there is none."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="change every n-th byte of the file")
    parser.add_argument("--every-log", type=int, default=1, help="and of the log")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    sqlite._PAGE_BYTES = 512  # a page a table is the least there is; small ones hold few zeros
    folder = Path(tempfile.mkdtemp())
    start = time.perf_counter()
    result = {
        "file": flip_file(folder, options.every, options.workers),
        "log": flip_log(folder, options.every_log, options.workers),
        "seconds": round(time.perf_counter() - start, 1),
        "machine": machine(threads=1),
    }
    write_result(RESULTS / "faults_flips.json", result)


if __name__ == "__main__":
    main()
