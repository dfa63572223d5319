"""QdrantIndex in a folder, its process killed while it adds: what was acknowledged is there.

A process adds two documents at a time and says how many it holds after each add; SIGKILL comes at
a random moment of its first second. The next process opens the folder and goes on::

    python benchmarks/faults/qdrant_kills.py --kills 40
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from common import RESULTS, machine, write_result

from m3_retrievers import QdrantIndex
from m3_retrievers.testing.samples import question, records
from m3_retrievers.types.plan import Plan

WRITER = """
import sys
from m3_retrievers import QdrantIndex
from m3_retrievers.testing.samples import records, represent
index = QdrantIndex(sys.argv[1])
print(len(index), flush=True)
for at in range(len(index), 1_000_000, 2):
    index.add(records(2, first=at), represent(2, seed=at))
    print(at + 2, flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--result", type=Path, default=RESULTS / "qdrant_kills.json")
    options = parser.parse_args()
    rng = random.Random(0)
    acknowledged, found = 0, {"kills": 0, "opened_with_less_than_acknowledged": 0, "half_adds": 0}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.kills):
            held, last = one(folder, rng.uniform(0, 1))
            found["kills"] += 1
            found["opened_with_less_than_acknowledged"] += held < acknowledged
            found["half_adds"] += held % 2
            acknowledged = max(acknowledged, last)
        index = QdrantIndex(folder)
        ids = index.where(None)
        found |= {
            "acknowledged": acknowledged,
            "documents": len(ids),
            "in_order": ids == [record.id for record in records(len(ids))],
            "with_all_vectors": len(index.vectors(ids)) == len(ids),
            "hits_of_a_search": len(index.search(question(), Plan(), k=10).hits),
        }
        index.close()
    print(found)
    write_result(options.result, {**found, "machine": machine(threads=1)})


def one(folder: str, seconds: float) -> tuple[int, int]:
    """Return how many documents a process found, and how many it last acknowledged."""
    command = [sys.executable, "-c", WRITER, folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        held = int(process.stdout.readline())
        time.sleep(seconds)
        process.kill()
        whole = process.stdout.read().split("\n")[:-1]
    return held, max([held, *(int(line) for line in whole if line)])


if __name__ == "__main__":
    main()
