"""What one text adds to a process's own memory at the most, after a model was loaded.

Each measurement is a process of its own, which says when it is about to encode; whoever started it
reads RssAnon of /proc meanwhile, so that nothing watches within the process. Pages of mapped files
are left out: the system takes them back when it needs them. ``growth_texts.py`` draws it.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

PEER = "FlagEmbedding"
_EVERY = 0.0005  # seconds; a text of 16 tokens takes some milliseconds
_KB = 1024


def added(folder: str, encoder: str, text: str, *, threads: int) -> dict[str, float]:
    """Return MB of the loaded model's process, and what encoding the text adds at the most.

    encoder: ``PEER`` or one of our precisions.
    """
    task = json.dumps({"folder": folder, "encoder": encoder, "text": text})
    limits = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    child = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **limits},
    )
    with child:
        _tell(child, task)
        _hear(child)
        before = most = _own_mb(child.pid)
        _tell(child, "go")
        while not _has_written(child):
            most = max(most, _own_mb(child.pid))
        _hear(child)
        most = max(most, _own_mb(child.pid))
        _tell(child, "end")
    return {"loaded_mb": before, "adds_mb": most - before}


def main() -> None:
    """Load, encode a short query, and encode the text when told to."""
    from speed_encode import ours, theirs

    from m3_retrievers.errors import TruncationWarning

    warnings.simplefilter("ignore", TruncationWarning)
    told, sys.stdout = sys.stdout, sys.stderr  # libraries print, too
    task = json.loads(sys.stdin.readline())
    folder, text = task["folder"], task["text"]

    def encode(text: str) -> Any:
        if task["encoder"] == PEER:
            return theirs(folder, [text], 8192)
        return ours(folder, task["encoder"]).encode_documents([text])

    encode("what is this")
    print("ready", file=told, flush=True)
    sys.stdin.readline()
    held = encode(text)
    print("done", file=told, flush=True)
    sys.stdin.readline()
    del held


def _own_mb(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / _KB


def _tell(child: subprocess.Popen[str], line: str) -> None:
    assert child.stdin is not None
    child.stdin.write(f"{line}\n")
    child.stdin.flush()


def _hear(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    if not child.stdout.readline():
        raise SystemExit("a process that measures memory ended before it was asked to")


def _has_written(child: subprocess.Popen[str]) -> bool:
    """Wait a moment for a line."""
    return bool(select.select([child.stdout], [], [], _EVERY)[0])


if __name__ == "__main__":
    main()
