"""How an index lies in a folder, so that a kill at any moment leaves the old one or the new.

::

    my-index/
      manifest.json             format, generation, model; size and SHA-256 of each file
      saving.lock               keeps a second process from saving at the same time
      generation-000003/
        documents.jsonl         id, text, metadata: one JSON array a line
        settings.json           how the index was made
        dense.safetensors …     the arrays

A save writes a whole new generation, syncs it to the disk, and then renames a new manifest
over the old one: that rename is the moment the new index counts. Only then is the generation
before it removed. What a killed save left is removed by the next one. Nothing else is ever
deleted, no symbolic link is followed, and there is no pickle anywhere.

A load takes no lock, so that it needs no right to write: where a save overtook it, it reads
the new generation, and then keeps further saves out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from numpy.typing import NDArray
from safetensors import SafetensorError

from m3_retrievers.errors import IndexCorruptError, IndexLockedError, SavedIndexError
from m3_retrievers.index.checking import record_of
from m3_retrievers.index.snapshot import generations
from m3_retrievers.index.snapshot.files import (
    by_file,
    check_file,
    disk_errors,
    fingerprint,
    of_json,
    sync,
    write_json,
)
from m3_retrievers.index.snapshot.manifest import (
    DOCUMENTS,
    FORMAT,
    MANIFEST,
    SETTINGS,
    VERSION,
    check_model,
    check_no_link,
    existing_manifest,
    read_manifest,
    rendered,
)
from m3_retrievers.index.snapshot.tensors import (
    block_digests,
    load_file,
    rows_in_file,
    save_file,
)
from m3_retrievers.index.stores.chunks import Pieces
from m3_retrievers.types.hits import Record

_DRAFT = "manifest.json.new"
_LOCK = "saving.lock"
# Seconds to wait for another process; 20,000 chunks with ColBERT are saved in 9.
_PATIENCE = 120.0
# Token vectors from this size on stay in their file when an index is loaded.
_IN_FILE_FROM = 1 << 26
_VECTORS, _BLOCKS = "colbert.vectors", "colbert_blocks.digests"


@dataclass(frozen=True, slots=True, eq=False)
class Saved:
    """What a folder holds: arrays by name, documents in order, settings, model record."""

    arrays: dict[str, Any]
    records: list[Record]
    settings: dict[str, Any]
    model: dict[str, Any] | None


def write_generation(
    folder: str | Path,
    *,
    arrays: Mapping[str, NDArray[Any] | Pieces],
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
    with disk_errors("saving", folder), ExitStack() as undo:
        _claim(folder)
        undo.enter_context(_alone(folder))
        previous = _claim(folder)  # another save may have come first
        old = None if previous is None else generations.home_of(folder, previous["generation"])
        generations.remove_left_over(folder, keep=old)
        number = generations.next_number(folder)
        home = generations.home_of(folder, number)
        failed = undo.enter_context(ExitStack())
        failed.callback(generations.discard, home)  # no half of a save is left behind
        home.mkdir()
        generations.mark(home)
        _write_files(home, arrays, documents, settings)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "generation": number,
            "model": None if model is None else dict(model),
            "files": {path.name: fingerprint(path) for path in generations.files_in(home)},
        }
        if old is not None and old.is_dir() and not old.is_symlink():
            failed.callback(generations.unmark, old)
            generations.mark(old)
        _publish(folder, manifest)
        failed.pop_all()
        generations.unmark(home)
        sync(folder)
        if old is not None and previous is not None:
            generations.discard(old, previous["files"])


def _write_files(
    home: Path,
    arrays: Mapping[str, NDArray[Any] | Pieces],
    documents: Iterable[Record],
    settings: Mapping[str, Any],
) -> None:
    rows = ([record.id, record.text, dict(record.metadata)] for record in documents)
    write_json(home / DOCUMENTS, rows)
    write_json(home / SETTINGS, [dict(settings)])
    vectors = arrays.get(_VECTORS)
    if vectors is not None and vectors.nbytes >= _IN_FILE_FROM:
        arrays = {**arrays, _BLOCKS: block_digests(vectors)}
    for name, parts in by_file(arrays).items():
        save_file(parts, home / f"{name}.safetensors")
        sync(home / f"{name}.safetensors")
    sync(home)


def _publish(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Put a manifest in place of the one there: from now on its generation counts."""
    draft = folder / _DRAFT
    draft.unlink(missing_ok=True)  # of a save that was killed, or a link to somewhere else
    with draft.open("xb") as file:
        file.write(rendered(manifest))
    sync(draft)
    sync(folder)
    draft.replace(folder / MANIFEST)


def read_generation(
    folder: str | Path, *, model: Mapping[str, Any] | None = None, verify: bool = False
) -> Saved:
    """Return the index saved in a folder, after comparing every file with its SHA-256.

    model: the record of the model in use; its ``fingerprint`` must be the saved one's. verify:
    whether token vectors of 64 MiB and more are compared now, too, and not when they are read
    first: they stay in their file.

    Raises IndexCorruptError for a file that is missing, torn or changed, IndexModelError for
    another model, SavedIndexError for no index or one of a newer version.
    """
    folder = Path(folder)
    with disk_errors("loading", folder):
        manifest = existing_manifest(folder)
        try:
            return _read(folder, manifest, model, verify=verify)
        except (IndexCorruptError, OSError):
            if existing_manifest(folder) == manifest:
                raise
        with _alone(folder):  # a save removed these files; another one must not overtake again
            return _read(folder, existing_manifest(folder), model, verify=verify)


def _read(
    folder: Path,
    manifest: Mapping[str, Any],
    model: Mapping[str, Any] | None,
    *,
    verify: bool,
) -> Saved:
    if model is not None:
        check_model(folder, saved=manifest["model"] or {}, given=model)
    home = generations.home_of(folder, manifest["generation"])
    check_no_link(home)
    has_blocks = _file_of(_BLOCKS) in manifest["files"]
    for name, expected in manifest["files"].items():
        check_no_link(home / name)
        whole = verify or not has_blocks or name != _file_of(_VECTORS)
        check_file(home / name, expected, whole=whole)
    try:
        arrays = _arrays(home, manifest["files"])
        with (home / DOCUMENTS).open("rb") as lines:
            records = [record_of(line) for line in lines]
        settings = of_json((home / SETTINGS).read_bytes())
        if not isinstance(settings, dict):
            raise ValueError("its settings are no JSON object")
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise corrupt(folder, error) from error
    return Saved(arrays, records, settings, manifest["model"])


def _arrays(home: Path, files: Collection[str]) -> dict[str, Any]:
    """Return the arrays of a generation's files; large token vectors stay where they are."""
    in_place = {_VECTORS} if _file_of(_BLOCKS) in files else set()
    arrays: dict[str, Any] = {}
    for file in files:
        if file.endswith(".safetensors"):
            arrays |= load_file(home / file, but=in_place)
    if in_place:
        arrays[_VECTORS] = rows_in_file(home / _file_of(_VECTORS), _VECTORS, arrays.pop(_BLOCKS))
    return arrays


def _file_of(array: str) -> str:
    return f"{array.partition('.')[0]}.safetensors"


def corrupt(folder: str | Path, fault: object) -> IndexCorruptError:
    """Return the error for a folder whose files have the right digests and hold no index."""
    return IndexCorruptError(
        f"The index in {str(folder)!r} was changed: {fault}. Restore it from a backup, or index "
        "the documents again into another folder."
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other saves of a folder out; IndexLockedError where they do not end."""
    check_no_link(folder / _LOCK)
    try:
        with FileLock(folder / _LOCK, timeout=_PATIENCE):
            yield
    except Timeout as error:
        raise IndexLockedError(
            f"Another process is saving into {str(folder)!r} and did not finish within "
            f"{_PATIENCE:g} seconds. Try again when it has."
        ) from error


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
    entries = (path for path in folder.iterdir() if path.name not in (_DRAFT, _LOCK))
    return next((path for path in entries if not generations.is_left_over(path)), None)
