"""A user's own folder as passages."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from m3_retrievers.corpora.passages import read_passages
from m3_retrievers.corpora.splitting import Splitter
from m3_retrievers.errors import InputError
from m3_retrievers.types.hits import Record

ENDINGS = (".md", ".txt", ".rst", ".py")

_SKIPPED_FOLDERS = {"__pycache__", "node_modules", "site-packages", "venv", "build", "dist"}
_LINKS = "that are links, which are not followed"
_UNREADABLE = "that cannot be read"
_GONE = "that vanished while the folder was read"
# A pipe that took a file's place would wait for a writer; Windows reads text without O_BINARY.
_UNBLOCKED = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class Folder:
    """What a folder gave: its passages, and the files that were left out, with the reason."""

    passages: tuple[Record, ...]
    files: int
    left_out: dict[str, int] = field(default_factory=dict)


def check_folder(folder: str | Path) -> Path:
    """Return the folder as a path; InputError for what is none."""
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"expected a folder with documents, got {str(root)!r}. Check the path.")
    return root


def read_folder(folder: str | Path, *, splitter: Splitter | None = None) -> Folder:
    """Return the passages of all .md, .txt, .rst and .py files below a folder.

    Hidden folders, virtual environments and caches are passed over. Links are not followed, so
    nothing outside the folder is read. splitter: how long passages are; None takes 200 words.

    Raises InputError for a path that is no folder.
    """
    root = check_folder(folder)
    passages: list[Record] = []
    left_out = Counter[str]()
    files = 0
    for path in _files(root, left_out):
        if path.suffix.lower() not in ENDINGS:
            left_out["of another kind"] += 1
            continue
        content = _content(path, left_out)
        if content is None:
            continue
        text = content.decode("utf-8-sig", errors="replace")
        if "\0" in text:
            left_out["binary"] += 1
        elif not text.strip():
            left_out["empty"] += 1
        else:
            files += 1
            source = path.relative_to(root).as_posix()
            passages += read_passages(text, source=source, splitter=splitter)
            if "\ufffd" in text:
                left_out["with undecodable bytes, read with a mark in their place"] += 1
    return Folder(tuple(passages), files, dict(left_out))


def _files(root: Path, left_out: Counter[str]) -> Iterator[Path]:
    """Yield the files below a folder in a fixed order; no depth is too deep for it."""
    todo = [root]
    while todo:
        place = todo.pop()
        folders = []
        try:
            with os.scandir(place) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            left_out[_UNREADABLE] += 1
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                left_out[_LINKS] += 1
            elif entry.is_dir(follow_symlinks=False):
                if not _passed_over(entry):
                    folders.append(place / entry.name)
            elif entry.is_file(follow_symlinks=False):
                yield place / entry.name
            else:
                left_out["of another kind"] += 1  # a pipe, a socket, a device
        todo += reversed(folders)


def _passed_over(folder: os.DirEntry[str]) -> bool:
    environment = os.path.lexists(os.path.join(folder.path, "pyvenv.cfg"))  # noqa: PTH118
    return folder.name in _SKIPPED_FOLDERS or environment


def _content(path: Path, left_out: Counter[str]) -> bytes | None:
    """Return a file's bytes, None for what cannot be had or became a link since it was listed."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | _UNBLOCKED)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            left_out["of another kind"] += 1
            return None
        with os.fdopen(handle, "rb") as file:
            return file.read()
    except FileNotFoundError:
        left_out[_GONE] += 1
    except OSError:
        left_out[_LINKS if path.is_symlink() else _UNREADABLE] += 1
    return None
