"""How an index lies in a folder, so that a kill at any moment leaves the old one or the new.

::

    my-index/
      manifest.json             format, generation, model; size and SHA-256 of each file
      generation-000003/
        documents.jsonl         id, text, metadata: one JSON array a line
        settings.json           how the index was made
        dense.safetensors …     the arrays

A save writes a whole new generation, syncs it to the disk, and then renames a new manifest
over the old one: that rename is the moment the new index counts. Only then are the files
that the old manifest names removed. What a killed save left is removed by the next one.
Nothing else is ever deleted, and there is no pickle anywhere.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from m3_retrievers.errors import SavedIndexError
from m3_retrievers.index.files import (
    by_file,
    check_file,
    disk_errors,
    fingerprint,
    read_json,
    sync,
    write_json,
)
from m3_retrievers.index.manifest import (
    FILE,
    FORMAT,
    MANIFEST,
    VERSION,
    check_model,
    existing_manifest,
    read_manifest,
    rendered,
)
from m3_retrievers.types.hits import Record

_DRAFT = "manifest.json.new"
_DOCUMENTS = "documents.jsonl"
_SETTINGS = "settings.json"
_GENERATION = re.compile(r"generation-(\d{6,})")

# Two saves in one process take turns, and a load does not see a generation disappear.
_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """What a folder holds: arrays by name, documents in order, settings, model record."""

    arrays: dict[str, NDArray[Any]]
    records: list[Record]
    settings: dict[str, Any]
    model: dict[str, Any] | None


def write_generation(
    folder: str | Path,
    *,
    arrays: Mapping[str, NDArray[Any]],
    documents: Iterable[Record],
    settings: Mapping[str, Any],
    model: Mapping[str, Any] | None = None,
) -> None:
    """Save an index into a folder, replacing the one there, if any.

    arrays: named ``file.part``, lower case; the parts of one file lie in one safetensors file.
    documents: their metadata must be JSON. settings, model: JSON.

    Raises SavedIndexError for a folder that holds anything else, or cannot be written.
    """
    folder = Path(folder)
    with _LOCK, disk_errors("saving", folder), ExitStack() as undo:
        previous = _claim(folder)
        _remove_leftovers(folder, keep=previous)
        number = max(_generations(folder), default=0) + 1
        home = folder / f"generation-{number:06d}"
        undo.callback(_discard, home)  # a save that fails leaves no half of itself behind
        home.mkdir()
        rows = ([record.id, record.text, dict(record.metadata)] for record in documents)
        write_json(home / _DOCUMENTS, rows)
        write_json(home / _SETTINGS, [dict(settings)])
        for name, parts in by_file(arrays).items():
            save_file(parts, home / f"{name}.safetensors")
            sync(home / f"{name}.safetensors")
        sync(home)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "generation": number,
            "model": None if model is None else dict(model),
            "files": {path.name: fingerprint(path) for path in sorted(home.iterdir())},
        }
        (folder / _DRAFT).write_bytes(rendered(manifest))
        sync(folder / _DRAFT)
        sync(folder)
        (folder / _DRAFT).replace(folder / MANIFEST)
        undo.pop_all()
        sync(folder)
        _remove_previous(folder, previous)


def read_generation(folder: str | Path, *, model: Mapping[str, Any] | None = None) -> Saved:
    """Return the index saved in a folder, after comparing every file with its SHA-256.

    model: the record of the model in use; its ``fingerprint`` must be the saved one's.

    Raises IndexCorruptError for a file that is missing, torn or changed, IndexModelError for
    another model, SavedIndexError for no index or one of a newer version.
    """
    folder = Path(folder)
    with _LOCK, disk_errors("loading", folder):
        manifest = existing_manifest(folder)
        if model is not None:
            check_model(folder, saved=manifest["model"] or {}, given=model)
        home = folder / f"generation-{manifest['generation']:06d}"
        for name, expected in manifest["files"].items():
            check_file(home / name, expected)
        arrays: dict[str, NDArray[Any]] = {}
        for name in manifest["files"]:
            if name.endswith(".safetensors"):
                for part, array in load_file(home / name).items():
                    arrays[f"{name.removesuffix('.safetensors')}.{part}"] = array
        records = [Record(*row) for row in read_json(home / _DOCUMENTS)]
        (settings,) = read_json(home / _SETTINGS)
    return Saved(arrays, records, settings, manifest["model"])


def read_model(folder: str | Path) -> dict[str, Any]:
    """Return the record of the model that built a saved index; {} where none was noted."""
    with disk_errors("loading", Path(folder)):
        return existing_manifest(Path(folder))["model"] or {}


# The folder


def _claim(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of the index to replace, None for a folder that is new or free."""
    if folder.exists() and not folder.is_dir():
        raise SavedIndexError(
            f"Saving expects a folder, got the file {str(folder)!r}. Choose another path."
        )
    if not folder.exists():
        folder.mkdir(parents=True)
        sync(folder.parent)
    manifest = read_manifest(folder)
    if manifest is not None:
        return manifest
    path = foreign_entry(folder)
    if path is not None:
        raise SavedIndexError(
            f"Saving expects a new folder, an empty one or a saved index, got "
            f"{str(folder)!r}, which holds {path.name!r} and no {MANIFEST}. "
            "Nothing was written; choose another folder."
        )
    return None


def foreign_entry(folder: Path) -> Path | None:
    """Return an entry of a folder without a manifest that no save has made, None if all are ours.

    A save that was killed may have left some, which the next one removes.
    """
    entries = (path for path in folder.iterdir() if path.name != _DRAFT)
    return next((path for path in entries if not _is_own_generation(path)), None)


def _generations(folder: Path) -> Iterator[int]:
    for path in folder.iterdir():
        if match := _GENERATION.fullmatch(path.name):
            yield int(match[1])


def _is_own_generation(path: Path) -> bool:
    """Whether a save can have made this folder: its name and all names in it are ours."""
    if path.is_symlink() or not path.is_dir() or not _GENERATION.fullmatch(path.name):
        return False
    return all(FILE.fullmatch(file.name) and file.is_file() for file in path.iterdir())


def _remove_leftovers(folder: Path, *, keep: Mapping[str, Any] | None) -> None:
    """Remove generations that a killed save left, but not the one that counts."""
    current = None if keep is None else f"generation-{keep['generation']:06d}"
    for path in list(folder.iterdir()):
        if path.name != current and _is_own_generation(path):
            _discard(path)


def _discard(home: Path) -> None:
    """Remove a generation that does not count; what cannot be removed now waits."""
    with suppress(OSError):
        for file in home.iterdir():
            file.unlink()
        home.rmdir()


def _remove_previous(folder: Path, manifest: Mapping[str, Any] | None) -> None:
    """Remove the files a manifest names; what cannot be removed now waits for the next save."""
    if manifest is None:
        return
    home = folder / f"generation-{manifest['generation']:06d}"
    with suppress(OSError):  # gone already, in use (Windows), or a file of the user's is there
        for name in manifest["files"]:
            (home / name).unlink(missing_ok=True)
        home.rmdir()
