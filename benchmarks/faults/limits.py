"""A disk that fills up, one that is read-only, and a limit on the size of a file.

Each change that was acknowledged before must be there afterwards, whole; what the disk refuses
must be an error of this package. Needs the right to mount a file system in memory (root on
Linux); without it the limit on the size of a file alone is tried.

    python benchmarks/faults/limits.py
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import RESULTS, machine, write_result
from documents import check, put

from m3_retrievers.errors import M3Error
from m3_retrievers.index.durable.index import DurableIndex
from m3_retrievers.index.local import LocalIndex
from m3_retrievers.lexical.bm25 import BM25


def fill(path: Path) -> dict[str, Any]:
    """Change an index until the disk refuses, then in other ways, and compare what is there."""
    refusals: Counter[str] = Counter()
    model: dict[str, int] = {}
    with DurableIndex(path, weighting=BM25()) as index:
        for version in range(10_000):
            ids = [str(version * 20 + number) for number in range(20)]
            try:
                put(index, ids, version)
            except M3Error as error:
                refusals[f"{type(error).__name__} of upsert"] += 1
                if sum(refusals.values()) == 3:
                    break
            else:
                model |= dict.fromkeys(ids, version)
        check(index, model)
        gone = list(model)[: len(model) // 2]
        try:
            index.delete(gone)
        except M3Error as error:
            refusals[f"{type(error).__name__} of delete"] += 1
        else:
            model = {id: version for id, version in model.items() if id not in gone}
        check(index, model)
    with DurableIndex(path, restore=BM25.from_state) as index:
        check(index, model)
    return {"documents_before": version * 20, **refusals}


def fill_folder(folder: Path) -> dict[str, Any]:
    """Save ever larger indexes into one folder until the disk refuses."""
    index, saved = LocalIndex(), 0
    for version in range(1_000):
        put(index, [str(version * 200 + number) for number in range(200)], version)
        try:
            index.save(folder)
        except M3Error as error:
            assert len(LocalIndex.load(folder)) == saved
            return {"documents_before": saved, f"{type(error).__name__} of save": 1}
        saved = len(index)
    raise AssertionError("the disk never filled up")


def limited(work: Callable[[], dict[str, Any]], *, megabytes: int) -> dict[str, Any]:
    """Do work in a child whose files may not grow beyond a size."""
    source, out = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (megabytes << 20, megabytes << 20))
            os.write(out, repr(work()).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(out)
    with os.fdopen(source) as pipe:
        said = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    found: dict[str, Any] = eval(said)
    return found


def read_only(folder: Path) -> dict[str, Any]:
    """Read and change an index and a folder on a file system that takes no writes."""
    with DurableIndex(folder / "my.index", weighting=BM25()) as index:
        put(index, ["a", "b"], 1)
    local = LocalIndex()
    put(local, ["a", "b"], 1)
    local.save(folder / "snapshot")
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    found: dict[str, Any] = {}
    with DurableIndex(folder / "my.index", restore=BM25.from_state) as index:
        check(index, {"a": 1, "b": 1})
        found["durable, read"] = "whole"
        for name, work in {
            "durable, upsert": lambda: put(index, ["c"], 2),
            "durable, delete": lambda: index.delete(["a"]),
            "durable, bind": lambda: index.bind({"name": "m", "fingerprint": "f"}),
        }.items():
            found[name] = refusal(work)
    check(LocalIndex.load(folder / "snapshot"), {"a": 1, "b": 1})
    found["snapshot, load"] = "whole"
    found["snapshot, save"] = refusal(lambda: local.save(folder / "snapshot"))
    found["durable, made"] = refusal(lambda: DurableIndex(folder / "new.index"))
    return found


def refusal(work: Callable[[], Any]) -> str:
    try:
        work()
    except M3Error as error:
        return type(error).__name__
    raise AssertionError("a read-only disk took a change")


def mounted(work: Callable[[Path], dict[str, Any]], *, megabytes: int) -> dict[str, Any]:
    """Do work on a file system in memory of a size."""
    folder = Path(tempfile.mkdtemp())
    options = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]
    if subprocess.run(options, check=False).returncode:
        return {"not tried": "mounting was not allowed"}
    try:
        return work(folder)
    finally:
        subprocess.run(["umount", folder], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without-mounts", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    result = {
        "a file of 2 MB at most, durable": limited(lambda: fill(folder / "my.index"), megabytes=2),
        "a file of 1 MB at most, snapshot": limited(
            lambda: fill_folder(folder / "snapshot"), megabytes=1
        ),
        "machine": machine(threads=1),
    }
    if not options.without_mounts:
        result |= {
            "a disk of 4 MB, durable": mounted(lambda disk: fill(disk / "my.index"), megabytes=4),
            "a disk of 4 MB, snapshot": mounted(lambda disk: fill_folder(disk / "s"), megabytes=4),
            "read-only": mounted(read_only, megabytes=8),
        }
    write_result(RESULTS / "faults_limits.json", result)


if __name__ == "__main__":
    main()
