"""The files of a saved index: JSON lines, arrays by file, digests, and syncing to the disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError

from m3_retrievers.errors import IndexCorruptError, SavedIndexError
from m3_retrievers.index.stores.chunks import Pieces


@contextmanager
def disk_errors(doing: str, folder: Path) -> Iterator[None]:
    """Raise SavedIndexError for what the disk refuses: no space, no permission, no such place.

    doing: "saving" or "loading". safetensors reports the same things by an error of its own.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        left = " What was saved there before is still whole." if doing == "saving" else ""
        raise SavedIndexError(
            f"{doing.capitalize()} an index expects a folder that can be "
            f"{'written' if doing == 'saving' else 'read'}, got {str(folder)!r}: {reason}."
            f"{left} Free some space, change the permissions, or choose another folder."
        ) from error


def by_file(
    arrays: Mapping[str, NDArray[Any] | Pieces],
) -> dict[str, dict[str, NDArray[Any] | Pieces]]:
    """Return arrays named ``file.part`` by file and part."""
    files: dict[str, dict[str, NDArray[Any] | Pieces]] = {}
    for name, array in arrays.items():
        file, _, part = name.partition(".")
        files.setdefault(file, {})[part] = array
    return files


def write_json(path: Path, values: Iterable[Any]) -> None:
    """Write one JSON value a line."""
    with path.open("wb") as file:
        for value in values:
            file.write(as_json(value) + b"\n")
    sync(path)


def as_json(value: Any) -> bytes:
    """Return a value as JSON, on one line, with whatever its strings hold."""
    # surrogatepass, and no \u escapes: lone surrogates come back one by one, where two
    # neighbouring escapes would come back as one character
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def of_json(content: bytes) -> Any:
    """Return the value that ``as_json`` wrote; ValueError for what is no JSON."""
    return json.loads(content.decode("utf-8", "surrogatepass"))


def fingerprint(path: Path) -> dict[str, Any]:
    """Return a file's size and SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def check_file(path: Path, expected: Mapping[str, Any], *, whole: bool = True) -> None:
    """Raise IndexCorruptError unless a file is what its manifest says.

    whole: whether all of it is read and hashed, or its size alone compared.
    """
    remedy = "Restore it from a backup, or index the documents again into another folder."
    if not path.is_file():
        raise IndexCorruptError(f"{str(path)!r} is missing from the saved index. {remedy}")
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise IndexCorruptError(
            f"{str(path)!r} expects {expected['bytes']} bytes, got {size}: it is torn. {remedy}"
        )
    if whole and fingerprint(path) != expected:
        raise IndexCorruptError(f"{str(path)!r} was changed: its SHA-256 differs. {remedy}")


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders, and writes their entries with the files
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
