"""PostgreSQL killed in the middle of add, upsert, delete and search: what is kept, and told.

Each trial begins one operation over a handle that is kept through the whole run, sends
SIGKILL to every process of the server at a random moment of it, and starts the server again.
What the handle acknowledged before has to be there, to the bit; the operation under way has to
be there whole or not at all, and whole if it was acknowledged; the same handle has to go on::

    python benchmarks/faults/pgvector_kills.py --trials 200
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from common import RESULTS, machine, write_result

from m3_retrievers import PgVectorIndex
from m3_retrievers.errors import IndexUnavailableError
from m3_retrievers.types.hits import Query, Record
from m3_retrievers.types.packed import MultiVectors
from m3_retrievers.types.plan import Plan
from m3_retrievers.types.representations import Representations
from postgres import Server

WIDTH, TOKENS, BATCH = 384, 64, 40
OPERATIONS = ("add", "upsert", "delete", "search")
TIMEOUT = 10.0


def represent(version: int, count: int) -> Representations:
    """Return dense and ColBERT representations that only this version has."""
    rng = np.random.default_rng(version)
    dense = rng.standard_normal((count, WIDTH)).astype(np.float32)
    tokens = rng.standard_normal((count * TOKENS, WIDTH)).astype(np.float16)
    ends = np.arange(0, (count + 1) * TOKENS, TOKENS)
    return Representations(dense=dense, colbert=MultiVectors(tokens, ends))


class Run:
    """A server, one handle to it, and a model of what was acknowledged: each id's version."""

    def __init__(self, server: Server, seed: int) -> None:
        import psycopg

        self.server = server
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        self.index = PgVectorIndex(
            server.dsn(), table="documents", modes=["dense", "colbert"], timeout=TIMEOUT
        )
        self.model: dict[str, int] = {}
        self.rng = random.Random(seed)
        self.version = 0
        self.seconds = dict.fromkeys(OPERATIONS, 0.1)  # how long each takes, as last seen

    def change(self, name: str) -> tuple[Any, dict[str, int]]:
        """Return an operation, and the model once it is done."""
        self.version += 1
        version, index = self.version, self.index
        known = sorted(self.model)
        if name == "search":
            query = Query("", represent(version, 1))
            plan = Plan(legs=("dense",), outputs=("dense", "colbert"))
            return (lambda: index.search(query, plan, k=10)), dict(self.model)
        if name == "delete":
            ids = self.rng.sample(known, min(BATCH, len(known)))
            return (lambda: index.delete(ids)), {
                k: v for k, v in self.model.items() if k not in ids
            }
        kept = self.rng.sample(known, min(BATCH // 2, len(known))) if name == "upsert" else []
        ids = kept + [f"{version}-{at}" for at in range(BATCH - len(kept))]
        records = [Record(id, f"version {version}", {"version": version}) for id in ids]
        put = index.add if name == "add" else index.upsert
        made = represent(version, len(ids))
        return (lambda: put(records, made)), {**self.model, **dict.fromkeys(ids, version)}

    def trial(self, name: str) -> dict[str, Any]:
        """Kill the server in the middle of one operation; return what came of it."""
        call, after = self.change(name)
        told: dict[str, Any] = {}

        def work() -> None:
            started = time.perf_counter()
            try:
                call()
                told["outcome"] = "acknowledged"
            except IndexUnavailableError as error:
                told["outcome"] = "IndexUnavailableError"
                told["unknown"] = "not known" in str(error)
            told["seconds"] = time.perf_counter() - started

        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(self.rng.uniform(0, self.seconds[name]))
        kill(self.server)
        thread.join()
        self.server.start()
        self.settle(told, after)
        # and the handle goes on
        again, done = self.change(name)
        started = time.perf_counter()
        again()
        self.seconds[name] = time.perf_counter() - started
        self.model = done
        return {"operation": name, **told}

    def settle(self, told: dict[str, Any], after: dict[str, int]) -> None:
        """Compare the table with the model before and after, and take up which of them it is."""
        found = {
            record.id: record.metadata["version"]
            for page in self.index.pages(size=200)
            for record in page
        }
        told["found"] = (
            "after" if found == after else "before" if found == self.model else "neither"
        )
        if self.model == after:
            told["found"] = "unchanged" if found == after else "neither"
        told["lost"] = told["outcome"] == "acknowledged" and found != after
        for id in self.rng.sample(sorted(found), min(3, len(found))):
            kept = self.index.vectors([id]).dense[0]
            same = np.any(np.all(represent(found[id], BATCH).dense == kept, axis=1))
            told["lost"] |= not same
        self.model = found


def kill(server: Server) -> None:
    """Send SIGKILL to every process of a server."""
    import psutil

    first = psutil.Process(server.pid)
    processes = [first, *first.children(recursive=True)]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60, help="no trial begins after these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "faults_pgvector.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="m3pg-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder))
        server.make()
        server.start()
        try:
            run = Run(server, options.seed)
            for name in (
                "add",
                "upsert",
                "add",
                "upsert",
            ):  # something to lose, and how long it takes
                call, run.model = run.change(name)
                started = time.perf_counter()
                call()
                run.seconds[name] = time.perf_counter() - started
            until = time.monotonic() + 60 * options.minutes
            trials = []
            while len(trials) < options.trials and time.monotonic() < until:
                trials.append(run.trial(OPERATIONS[len(trials) % 4]))
            run.index.close()
        finally:
            server.stop()
    by_operation = {}
    for name in OPERATIONS:
        mine = [trial for trial in trials if trial["operation"] == name]
        by_operation[name] = {
            "trials": len(mine),
            **Counter(trial["outcome"] for trial in mine),
            "found": dict(Counter(trial["found"] for trial in mine)),
            "said that the outcome is not known": sum(t.get("unknown", False) for t in mine),
            "longest until the error, s": round(max(t["seconds"] for t in mine), 2),
        }
    result = {
        "machine": machine(threads=1),
        "documents in a change": BATCH,
        "acknowledged and lost, or torn": sum(
            trial["lost"] or trial["found"] == "neither" for trial in trials
        ),
        "by operation": by_operation,
    }
    print(result)
    write_result(options.out, result)


if __name__ == "__main__":
    main()
