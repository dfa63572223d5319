"""Where ``m3-retrievers index`` may write, found out before anything is encoded."""

from __future__ import annotations

import os
from pathlib import Path

from m3_retrievers.errors import SavedIndexError
from m3_retrievers.index.manifest import MANIFEST
from m3_retrievers.index.storage import foreign_entry, read_model


def has_index(out: Path) -> bool:
    """Return whether a folder holds a saved index, or a new one can be made there.

    True for an index, whose manifest is whole; False for a path that is free. Nothing is
    written. Raises SavedIndexError for a file, a folder with anything else in it and one that
    cannot be written to, IndexCorruptError for an index that is damaged.
    """
    if os.path.lexists(out) and not out.is_dir():
        raise SavedIndexError(
            f"--out expects a folder, got {str(out)!r}, which is none. Choose another path."
        )
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
