"""SHA-256 of files, those of large ones remembered between processes.

2.3 GB take four seconds, at every start. A file of the same path, size, inode and times, to the
nanosecond, has the same bytes: its sum is kept in the user's cache folder (``XDG_CACHE_HOME``, else
``~/.cache``; ``LOCALAPPDATA`` on Windows), where nothing depends on it and it may be deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from tempfile import NamedTemporaryFile

# Below, reading the file costs about what reading the note would.
_SMALLEST = 4 * 1024 * 1024
# A file may change twice within one tick of its clock; a note of a fresh one could be of the first.
_SETTLED_S = 5.0


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    found = path.stat()
    if found.st_size < _SMALLEST:
        return _hashed(path)
    whole = path.resolve()
    key = [str(whole), found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]
    note = _folder() / f"{hashlib.sha256(str(whole).encode()).hexdigest()[:32]}.json"
    known = _read(note, key)
    if known is not None:
        return known
    digest = _hashed(path)
    after = path.stat()
    unchanged = (after.st_size, after.st_mtime_ns) == (found.st_size, found.st_mtime_ns)
    if unchanged and time.time() - max(found.st_mtime, found.st_ctime) > _SETTLED_S:
        _write(note, key, digest)
    return digest


def _hashed(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder() -> Path:
    named = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    return (Path(named) if named else Path.home() / ".cache") / "m3-retrievers" / "checksums"


def _read(note: Path, key: list[object]) -> str | None:
    try:
        held = json.loads(note.read_text("utf-8"))
        digest = held["sha256"] if held["file"] == key else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return digest if isinstance(digest, str) and len(digest) == 64 else None


def _write(note: Path, key: list[object], digest: str) -> None:
    """Keep a sum; a cache that cannot be written is done without."""
    content = json.dumps({"file": key, "sha256": digest})
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=note.parent, delete=False) as file:
            file.write(content)
        Path(file.name).replace(note)
    except OSError:
        return
