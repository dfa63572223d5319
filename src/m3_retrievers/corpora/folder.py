"""A user's own folder as passages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from m3_retrievers.corpora.passages import read_passages
from m3_retrievers.errors import InputError
from m3_retrievers.types.hits import Record

ENDINGS = (".md", ".txt", ".rst", ".py")

_SKIPPED_FOLDERS = {"__pycache__", "node_modules", "site-packages", "venv", "build", "dist"}


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder gave: its passages, and the files that were left out, with the reason."""

    passages: tuple[Record, ...]
    files: int
    left_out: dict[str, int] = field(default_factory=dict)


def read_folder(folder: str | Path) -> Folder:
    """Return the passages of all .md, .txt, .rst and .py files below a folder.

    Hidden folders, virtual environments and caches are passed over, links are not followed.
    Raises InputError for a path that is no folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"expected a folder with documents, got {str(root)!r}. Check the path.")
    passages: list[Record] = []
    left_out: dict[str, int] = {}
    files = 0
    for path in _files(root):
        if path.suffix.lower() not in ENDINGS:
            _count(left_out, "of another kind")
            continue
        content = path.read_bytes()
        text = content.decode("utf-8", errors="replace")
        if b"\0" in content:
            _count(left_out, "binary")
        elif not text.strip():
            _count(left_out, "empty")
        else:
            files += 1
            passages += read_passages(text, source=path.relative_to(root).as_posix())
            if "\ufffd" in text:
                _count(left_out, "with undecodable bytes, read with a mark in their place")
    return Folder(tuple(passages), files, left_out)


def _files(root: Path) -> Iterator[Path]:
    """Yield the files below a folder in a fixed order."""
    for place, folders, names in os.walk(root, followlinks=False):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name not in _SKIPPED_FOLDERS
            and not (Path(place) / name / "pyvenv.cfg").exists()
        )
        for name in sorted(names):
            path = Path(place) / name
            if not name.startswith(".") and path.is_file():
                yield path


def _count(counts: dict[str, int], reason: str) -> None:
    counts[reason] = counts.get(reason, 0) + 1
