"""A process that is killed while it writes: what was acknowledged is there, whole."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from m3_retrievers.index import MilvusIndex
from m3_retrievers.testing import samples
from m3_retrievers.types.hits import Record

KILLS = 3
# each round adds documents, replaces them and deletes some, and says so after each call
WRITER = """
import sys
from m3_retrievers.index import MilvusIndex
from m3_retrievers.testing import samples
from m3_retrievers.types.hits import Record

index = MilvusIndex(sys.argv[1])
first = int(sys.argv[2])
made = samples.represent(4)
print("ready", flush=True)
for number in range(first, first + 1000):
    ids = [f"{number}-{at}" for at in range(4)]
    index.add([Record(id, "added") for id in ids], made)
    print("added", number, flush=True)
    index.upsert([Record(id, "replaced") for id in ids[:2]], made[[3, 2]])
    print("replaced", number, flush=True)
    index.delete(ids[3:])
    print("deleted", number, flush=True)
"""


@pytest.mark.slow
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    path, made = str(tmp_path / "m.db"), samples.represent(4)
    done: dict[int, str] = {}
    rng = random.Random(0)
    for kill in range(KILLS):
        command = [sys.executable, "-c", WRITER, path, str(1000 * kill)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.05, 0.6))
            writer.send_signal(signal.SIGKILL)
            for line in writer.stdout.read().splitlines():
                what, number = line.split()
                done[int(number)] = what
        _check(path, done, made)
    assert done


def _check(path: str, done: dict[int, str], made) -> None:
    index = MilvusIndex(path)
    try:
        held = {record.id: record for record in index.get(index.where(None))}
        for number, last in done.items():
            assert {f"{number}-{at}" for at in range(3)} <= held.keys()
            assert last != "deleted" or f"{number}-3" not in held
            if last != "added":
                assert held[f"{number}-0"] == Record(f"{number}-0", "replaced")
        # also what was under way when the kill came has its own vectors, or is not there
        ids = list(held)
        kept = index.vectors(ids)
        for at, id in enumerate(ids):
            row = int(id[-1])
            row = 3 - row if held[id].text == "replaced" else row
            assert np.array_equal(kept.require("dense")[at], made.require("dense")[row])
            colbert = made.require("colbert")[row].astype(np.float16)
            assert np.array_equal(kept.require("colbert")[at], colbert)
    finally:
        index.close()
