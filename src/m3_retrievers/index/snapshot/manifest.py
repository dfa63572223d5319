"""The manifest of a saved index: which generation counts, its files, and whose it is."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from m3_retrievers.errors import IndexCorruptError, IndexModelError, SavedIndexError

FORMAT = "m3-retrievers index"
VERSION = 1

MANIFEST = "manifest.json"
DOCUMENTS = "documents.jsonl"
SETTINGS = "settings.json"
# The names a save writes, and nothing else.
FILE = re.compile(r"documents\.jsonl|settings\.json|[a-z0-9_]+\.safetensors")


def existing_manifest(folder: Path) -> dict[str, Any]:
    """Return a folder's manifest; SavedIndexError where there is none."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise SavedIndexError(
            f"Loading expects a folder with {MANIFEST}, got {str(folder)!r}, which has none. "
            "Give the folder that an index was saved into."
        )
    return manifest


def rendered(manifest: Mapping[str, Any]) -> bytes:
    """Return the manifest's bytes: JSON that ends with the SHA-256 of all the rest.

    Every format version keeps this rule, so that an older package can tell a newer manifest
    from a damaged one.
    """
    body = json.dumps(manifest, indent=1)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return (json.dumps({**manifest, "sha256": digest}, indent=1) + "\n").encode()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest, or None if there is none."""
    path = folder / MANIFEST
    check_no_link(path)
    if not path.is_file():
        return None
    content = path.read_bytes()
    try:
        manifest = json.loads(content)
        manifest.pop("sha256")
        intact = rendered(manifest) == content and manifest["format"] == FORMAT
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise IndexCorruptError(
            f"{str(path)!r} is torn, was changed, or is no manifest of m3-retrievers. "
            "Restore it from a backup, or index the documents again into another folder."
        )
    if not isinstance(manifest.get("version"), int):
        raise IndexCorruptError(f"{str(path)!r} has no version that m3-retrievers writes.")
    if manifest["version"] > VERSION:
        raise SavedIndexError(
            f"{str(path)!r} has format version {manifest['version']}, this m3-retrievers reads "
            f"versions up to {VERSION}. Upgrade m3-retrievers, or index the documents again."
        )
    _check_entries(path, manifest)
    return dict(manifest)


def _check_entries(path: Path, manifest: Mapping[str, Any]) -> None:
    """Raise IndexCorruptError for entries that no save writes, whatever the digest says."""
    generation, files, model = (manifest.get(key) for key in ("generation", "files", "model"))
    if not isinstance(generation, int) or isinstance(generation, bool) or generation < 1:
        raise IndexCorruptError(f"{str(path)!r} names no generation that m3-retrievers writes.")
    if model is not None and not isinstance(model, dict):
        raise IndexCorruptError(f"{str(path)!r} expects a JSON object for its model.")
    if not isinstance(files, dict) or not all(map(FILE.fullmatch, files)):
        raise IndexCorruptError(f"{str(path)!r} names files that m3-retrievers does not write.")
    if not {DOCUMENTS, SETTINGS} <= files.keys() or not all(
        isinstance(file, dict) and isinstance(file.get("bytes"), int) for file in files.values()
    ):
        raise IndexCorruptError(f"{str(path)!r} does not say which files belong to the index.")


def check_no_link(path: Path) -> None:
    """Raise SavedIndexError for a symbolic link where a save writes a file or folder."""
    if path.is_symlink():
        raise SavedIndexError(
            f"{str(path)!r} is a symbolic link, which an index never makes and never follows. "
            "Remove it, or choose another folder."
        )


def check_model(place: Path | str, *, saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise IndexModelError unless an index was built by the model in use."""
    if saved.get("fingerprint") != given.get("fingerprint"):
        raise IndexModelError(
            f"The index in {str(place)!r} was built by {_named(saved)}, got {_named(given)}. "
            f"{_remedy(saved, given)}"
        )


def bound_record(*, saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a model to keep beside an index: the first one's precision stays.

    saved: what is kept there of the same model, ``{}`` for nothing. An index noted without a
    precision stays without: who made its vectors is not known.
    """
    if saved.get("fingerprint") != given.get("fingerprint"):
        return dict(given)
    record = {name: value for name, value in given.items() if name != "precision"}
    return record | ({"precision": saved["precision"]} if "precision" in saved else {})


def _remedy(saved: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    other = "Load it with the model that built it, or index the documents again."
    if saved.get("name") != given.get("name"):
        return other
    return f"The model's files, truncate_dim or mcls_every differ from then. {other}"


def _named(model: Mapping[str, Any]) -> str:
    if not model:
        return "no model on record"
    return f"the model {model.get('name')!r} with fingerprint {model.get('fingerprint')!r}"
