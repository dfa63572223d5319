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

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from m3_retrievers.errors import IndexCorruptError, IndexModelError, SavedIndexError
from m3_retrievers.types.hits import Record

FORMAT = "m3-retrievers index"
VERSION = 1

_MANIFEST = "manifest.json"
_DRAFT = "manifest.json.new"
_DOCUMENTS = "documents.jsonl"
_SETTINGS = "settings.json"
_GENERATION = re.compile(r"generation-(\d{6,})")
_FILE = re.compile(r"documents\.jsonl|settings\.json|[a-z0-9_]+\.safetensors")

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

    Raises SavedIndexError for a folder that holds anything else.
    """
    folder = Path(folder)
    with _LOCK:
        previous = _claim(folder)
        _remove_leftovers(folder, keep=previous)
        number = max(_generations(folder), default=0) + 1
        home = folder / f"generation-{number:06d}"
        home.mkdir()
        rows = ([record.id, record.text, dict(record.metadata)] for record in documents)
        _write_json(home / _DOCUMENTS, rows)
        _write_json(home / _SETTINGS, [dict(settings)])
        for name, parts in _by_file(arrays).items():
            save_file(parts, home / f"{name}.safetensors")
            _sync(home / f"{name}.safetensors")
        _sync(home)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "generation": number,
            "model": None if model is None else dict(model),
            "files": {path.name: _fingerprint(path) for path in sorted(home.iterdir())},
        }
        (folder / _DRAFT).write_bytes(_rendered(manifest))
        _sync(folder / _DRAFT)
        _sync(folder)
        (folder / _DRAFT).replace(folder / _MANIFEST)
        _sync(folder)
        _remove_previous(folder, previous)


def read_generation(folder: str | Path, *, model: Mapping[str, Any] | None = None) -> Saved:
    """Return the index saved in a folder, after comparing every file with its SHA-256.

    model: the record of the model in use; its ``fingerprint`` must be the saved one's.

    Raises IndexCorruptError for a file that is missing, torn or changed, IndexModelError for
    another model, SavedIndexError for no index or one of a newer version.
    """
    folder = Path(folder)
    with _LOCK:
        manifest = _existing_manifest(folder)
        if model is not None:
            _check_model(folder, saved=manifest["model"] or {}, given=model)
        home = folder / f"generation-{manifest['generation']:06d}"
        for name, expected in manifest["files"].items():
            _check_file(home / name, expected)
        arrays: dict[str, NDArray[Any]] = {}
        for name in manifest["files"]:
            if name.endswith(".safetensors"):
                for part, array in load_file(home / name).items():
                    arrays[f"{name.removesuffix('.safetensors')}.{part}"] = array
        records = [Record(*row) for row in _read_json(home / _DOCUMENTS)]
        (settings,) = _read_json(home / _SETTINGS)
    return Saved(arrays, records, settings, manifest["model"])


def read_model(folder: str | Path) -> dict[str, Any]:
    """Return the record of the model that built a saved index; {} where none was noted."""
    return _existing_manifest(Path(folder))["model"] or {}


# The manifest


def _existing_manifest(folder: Path) -> dict[str, Any]:
    manifest = _read_manifest(folder)
    if manifest is None:
        raise SavedIndexError(
            f"Loading expects a folder with {_MANIFEST}, got {str(folder)!r}, which has none. "
            "Give the folder that an index was saved into."
        )
    return manifest


def _rendered(manifest: Mapping[str, Any]) -> bytes:
    """Return the manifest's bytes: JSON that ends with the SHA-256 of all the rest.

    Every format version keeps this rule, so that an older package can tell a newer manifest
    from a damaged one.
    """
    body = json.dumps(manifest, indent=1)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return (json.dumps({**manifest, "sha256": digest}, indent=1) + "\n").encode()


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest, or None if there is none."""
    path = folder / _MANIFEST
    if not path.is_file():
        return None
    content = path.read_bytes()
    try:
        manifest = json.loads(content)
        manifest.pop("sha256")
        intact = _rendered(manifest) == content and manifest["format"] == FORMAT
    except (ValueError, AttributeError, KeyError, TypeError):
        intact = False
    if not intact:
        raise IndexCorruptError(
            f"{str(path)!r} is torn, was changed, or is no manifest of m3-retrievers. "
            "Restore it from a backup, or index the documents again into another folder."
        )
    if manifest["version"] > VERSION:
        raise SavedIndexError(
            f"{str(path)!r} has format version {manifest['version']}, this m3-retrievers reads "
            f"versions up to {VERSION}. Upgrade m3-retrievers, or index the documents again."
        )
    if not all(map(_FILE.fullmatch, manifest["files"])):
        raise IndexCorruptError(f"{str(path)!r} names files that m3-retrievers does not write.")
    return dict(manifest)


def _check_model(folder: Path, *, saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if saved.get("fingerprint") != given.get("fingerprint"):
        raise IndexModelError(
            f"The index in {str(folder)!r} was built by {_named(saved)}, got {_named(given)}. "
            f"{_remedy(saved, given)}"
        )


def _remedy(saved: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    other = "Load it with the model that built it, or index the documents again."
    if saved.get("name") != given.get("name"):
        return other
    return f"The model's files, truncate_dim or mcls_every differ from then. {other}"


def _named(model: Mapping[str, Any]) -> str:
    if not model:
        return "no model on record"
    return f"the model {model.get('name')!r} with fingerprint {model.get('fingerprint')!r}"


# The folder


def _claim(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of the index to replace, None for a folder that is new or free."""
    if folder.exists() and not folder.is_dir():
        raise SavedIndexError(
            f"Saving expects a folder, got the file {str(folder)!r}. Choose another path."
        )
    if not folder.exists():
        folder.mkdir(parents=True)
        _sync(folder.parent)
    manifest = _read_manifest(folder)
    if manifest is not None:
        return manifest
    for path in folder.iterdir():
        if path.name != _DRAFT and not _is_own_generation(path):
            raise SavedIndexError(
                f"Saving expects a new folder, an empty one or a saved index, got "
                f"{str(folder)!r}, which holds {path.name!r} and no {_MANIFEST}. "
                "Nothing was written; choose another folder."
            )
    return None


def _generations(folder: Path) -> Iterator[int]:
    for path in folder.iterdir():
        if match := _GENERATION.fullmatch(path.name):
            yield int(match[1])


def _is_own_generation(path: Path) -> bool:
    """Whether a save can have made this folder: its name and all names in it are ours."""
    if path.is_symlink() or not path.is_dir() or not _GENERATION.fullmatch(path.name):
        return False
    return all(_FILE.fullmatch(file.name) and file.is_file() for file in path.iterdir())


def _remove_leftovers(folder: Path, *, keep: Mapping[str, Any] | None) -> None:
    """Remove generations that a killed save left, but not the one that counts."""
    current = None if keep is None else f"generation-{keep['generation']:06d}"
    for path in list(folder.iterdir()):
        if path.name != current and _is_own_generation(path):
            for file in path.iterdir():
                file.unlink()
            path.rmdir()


def _remove_previous(folder: Path, manifest: Mapping[str, Any] | None) -> None:
    """Remove the files a manifest names; what cannot be removed now waits for the next save."""
    if manifest is None:
        return
    home = folder / f"generation-{manifest['generation']:06d}"
    with suppress(OSError):  # gone already, in use (Windows), or a file of the user's is there
        for name in manifest["files"]:
            (home / name).unlink(missing_ok=True)
        home.rmdir()


# The files


def _by_file(arrays: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, NDArray[Any]]]:
    files: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in arrays.items():
        file, _, part = name.partition(".")
        files.setdefault(file, {})[part] = np.ascontiguousarray(array)
    return files


def _write_json(path: Path, values: Iterable[Any]) -> None:
    """Write one JSON value a line."""
    # surrogatepass, and no \u escapes: lone surrogates come back one by one, where two
    # neighbouring escapes would come back as one character
    with path.open("wb") as file:
        for value in values:
            line = json.dumps(value, ensure_ascii=False)
            file.write(line.encode("utf-8", "surrogatepass") + b"\n")
    _sync(path)


def _read_json(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        for line in file:
            yield json.loads(line.decode("utf-8", "surrogatepass"))


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _check_file(path: Path, expected: Mapping[str, Any]) -> None:
    remedy = "Restore it from a backup, or index the documents again into another folder."
    if not path.is_file():
        raise IndexCorruptError(f"{str(path)!r} is missing from the saved index. {remedy}")
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise IndexCorruptError(
            f"{str(path)!r} expects {expected['bytes']} bytes, got {size}: it is torn. {remedy}"
        )
    if _fingerprint(path) != expected:
        raise IndexCorruptError(f"{str(path)!r} was changed: its SHA-256 differs. {remedy}")


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders, and writes their entries with the files
    handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
