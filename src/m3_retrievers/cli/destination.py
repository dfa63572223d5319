"""Where ``m3-retrievers index`` may write, found out before anything is encoded.

An index is a snapshot in a folder, or a durable file: what is a file already, and new paths
that end in ``.index``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.errors import SavedIndexError
from m3_retrievers.index.durable.opening import bound_model, is_made
from m3_retrievers.index.snapshot.manifest import MANIFEST
from m3_retrievers.index.snapshot.storage import foreign_entry, read_model
from m3_retrievers.retrieval.retriever import HybridRetriever


def is_durable(path: Path) -> bool:
    """Return whether a path is that of a durable index, and not of a folder.

    >>> is_durable(Path("new.index")), is_durable(Path("my-index"))
    (True, False)
    """
    return path.is_file() or (path.suffix == ".index" and not path.is_dir())


def load(path: Path, encoder: Encoder) -> HybridRetriever:
    """Return the retriever over an index that is there, in a folder or a durable file."""
    if not is_durable(path):
        return HybridRetriever.load(path, encoder)
    if not is_made(path):
        raise SavedIndexError(
            f"There is no index in {str(path)!r}. Make one with m3-retrievers index."
        )
    return HybridRetriever.open(path, encoder)


def model_of(path: Path) -> dict[str, Any]:
    """Return the record of the model that built an index; {} where none was noted."""
    return bound_model(path) if is_durable(path) else read_model(path)


def has_index(out: Path) -> bool:
    """Return whether an index is in a folder or file, or a new one can be made there.

    True for an index, whose manifest is whole; False for a path that is free. Nothing is
    written. Raises SavedIndexError for a file or folder with anything else in it and one that
    cannot be written to, IndexCorruptError for an index that is damaged.
    """
    if os.path.lexists(out) and not out.exists():
        raise SavedIndexError(
            f"--out expects a folder or a file, got {str(out)!r}, a link to nothing. Choose "
            "another path."
        )
    if out.is_file():
        return is_made(out)
    nearest = next(one for one in (out, *out.absolute().parents) if os.path.lexists(one))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise SavedIndexError(
            f"--out expects a folder that can be written to, got {str(out)!r}, and "
            f"{str(nearest)!r} cannot. Choose another path, or change its permissions."
        )
    if not out.is_dir():
        return False
    if (out / MANIFEST).exists():
        read_model(out)
        return True
    path = foreign_entry(out)
    if path is not None:
        raise SavedIndexError(
            f"--out expects a new folder, an empty one or a saved index, got {str(out)!r}, "
            f"which holds {path.name!r}. Choose another folder."
        )
    return False
