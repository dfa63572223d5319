"""The folders of a saved index's generations: which of them are a save's own to remove.

A save writes a mark into the folder it is filling, and into the one that is to give way to it.
Only what bears the mark is ever removed, so that a folder of somebody else's is safe whatever
its name and the names in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from m3_retrievers.index.snapshot.manifest import FILE

_NAME = re.compile(r"generation-(\d{6,18})")
_MARK = "unfinished"
_MARKED = b"m3-retrievers: this folder is being written or removed, and may be removed.\n"


def home_of(folder: Path, number: int) -> Path:
    """Return the folder of a generation."""
    return folder / f"generation-{number:06d}"


def next_number(folder: Path) -> int:
    """Return the number of a new generation, above all that are there."""
    return max(_numbers(folder), default=0) + 1


def mark(home: Path) -> None:
    """Say that a generation does not count yet, or does not count any more."""
    with suppress(FileExistsError), (home / _MARK).open("xb") as file:
        file.write(_MARKED)


def unmark(home: Path) -> None:
    """Say that a generation counts."""
    (home / _MARK).unlink(missing_ok=True)


def files_in(home: Path) -> list[Path]:
    """Return the files that a save has written into a generation."""
    return sorted(path for path in home.iterdir() if path.name != _MARK)


def is_left_over(path: Path) -> bool:
    """Return whether a save that was killed left this folder: marked, or not filled yet."""
    if path.is_symlink() or not path.is_dir() or not _NAME.fullmatch(path.name):
        return False
    marked = path / _MARK
    if marked.is_symlink() or not marked.is_file():
        return not any(path.iterdir())
    # a mark may be torn as well
    return _MARKED.startswith(marked.read_bytes())


def remove_left_over(folder: Path, *, keep: Path | None) -> None:
    """Remove what killed saves left, but not the generation that counts."""
    for path in list(folder.iterdir()):
        if path != keep and is_left_over(path):
            discard(path)


def discard(home: Path, names: Iterable[str] | None = None) -> None:
    """Remove the files a save wrote, then the mark; what cannot be removed now waits.

    names: of these files, where a manifest has them; None takes all that a save may write.
    """
    if home.is_symlink():
        return
    with suppress(OSError):  # in use (Windows), or a file of the user's is there
        ours = [path.name for path in files_in(home) if FILE.fullmatch(path.name)]
        for name in ours if names is None else names:
            (home / name).unlink(missing_ok=True)
        unmark(home)
        home.rmdir()


def _numbers(folder: Path) -> Iterator[int]:
    for path in folder.iterdir():
        if match := _NAME.fullmatch(path.name):
            yield int(match[1])
