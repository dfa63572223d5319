"""From the texts to the loss and its gradients: the training model against FlagEmbedding 1.4.2.

The recording is in tests/fixtures; record_flag_embedding_losses.py there says how it was made.
It ran in float64, ours runs in float32: losses agree within 1e-5, or 2e-6 of a large one, and
gradients within 1e-5 of their largest number (measured: 6e-6 and 2e-6 with two threads, whose
sums round otherwise than one thread's: 1.7e-5 of a loss of 16.5).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from checkpoints import digest
from m3_retrievers.encoder.checkpoint import load
from m3_retrievers.encoder.pieces import Piece, cut, tokenize
from m3_retrievers.encoder.source import locate
from m3_retrievers.training.collate import Step
from m3_retrievers.training.losses import Losses
from m3_retrievers.training.model import M3Module
from m3_retrievers.training.settings import MODES, LossSettings
from m3_retrievers.training.similarity import mode_scores

pytestmark = pytest.mark.slow

FIXTURES = Path(__file__).parents[1] / "fixtures"
RECORDED = json.loads((FIXTURES / "flag_embedding_losses.json").read_text("utf-8"))
ARRAYS = load_file(FIXTURES / "flag_embedding_losses.safetensors")
PASSAGES = [passage for group in RECORDED["groups"] for passage in group]
TOLERANCE = 1e-5
TEACHERS: list[Any] = [None, "kl_div", "m3_kd_loss"]


def test_the_checkpoint_is_the_recorded_one(tiny_m3: Path) -> None:
    assert digest(tiny_m3) == RECORDED["checkpoint_sha256"], (
        "tests/checkpoints.py writes other numbers than when the fixtures were recorded: run "
        "tests/fixtures/record_flag_embedding_losses.py again"
    )


def test_similarities_are_equal(tiny_m3: Path) -> None:
    module = _module(tiny_m3)
    with torch.no_grad():
        encoded = [module.encode(_pieces(module, side)) for side in (RECORDED["queries"], PASSAGES)]
        ours = mode_scores(*encoded).present()
    assert list(ours) == list(MODES)
    for mode, scores in ours.items():
        difference = (scores - ARRAYS[f"similarity.{mode}"]).abs().max()
        assert difference <= TOLERANCE, mode


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("sub_batch", [16, 100_000])
def test_losses_are_equal(tiny_m3: Path, teacher: Any, sub_batch: int) -> None:
    expected = RECORDED["losses"][teacher or "no_teacher"]
    module = _module(tiny_m3, teacher, sub_batch_tokens=sub_batch)
    with torch.no_grad():
        plain = _losses(module, teacher)
        taught = _losses(module, teacher, distill=True)
        dense = _losses(_module(tiny_m3, teacher, modes=("dense",)), teacher)
    for name, part in taught.parts.items():
        assert part.item() == pytest.approx(expected[name], abs=TOLERANCE, rel=2e-6), name
    totals = {"total": plain, "total_self_distilled": taught, "total_dense_only": dense}
    for name, losses in totals.items():
        assert losses.total.item() == pytest.approx(expected[name], abs=TOLERANCE, rel=2e-6), name


@pytest.mark.parametrize("caching", [False, True], ids=["one_batch", "gradient_caching"])
@pytest.mark.parametrize(
    ("teacher", "total", "modes"),
    [
        (None, "total_dense_only", ("dense",)),
        (None, "total_self_distilled", MODES),
        ("m3_kd_loss", "total", MODES),
    ],
)
def test_gradients_are_equal(
    tiny_m3: Path, teacher: Any, total: str, modes: Any, caching: bool
) -> None:
    sub_batch = 16 if caching else 100_000
    module = _module(
        tiny_m3, teacher, modes=modes, sub_batch_tokens=sub_batch, gradient_caching=caching
    )
    losses = _losses(module, teacher, distill=total == "total_self_distilled")
    losses.total.backward()  # type: ignore[no-untyped-call]
    recorded = _gradients(f"gradient.{teacher or 'no_teacher'}.{total}.")
    assert len(recorded) == (3 if modes == ("dense",) else 7)
    for name, expected in recorded.items():
        ours = module.get_parameter(name).grad
        assert ours is not None, name
        size = expected.abs().max()
        assert size > 0.01, name
        assert (ours - expected).abs().max() <= TOLERANCE * size, name


def test_heads_that_are_not_trained_get_no_gradient(tiny_m3: Path) -> None:
    module = _module(tiny_m3, modes=("dense", "colbert"))
    _losses(module, None).total.backward()  # type: ignore[no-untyped-call]
    assert module.get_parameter("heads.sparse_linear.weight").grad is None
    assert module.get_parameter("heads.colbert_linear.weight").grad is not None


def _module(folder: Path, teacher: Any = None, *, modes: Any = MODES, **options: Any) -> M3Module:
    model = load(locate(folder), device=torch.device("cpu"), dtype=torch.float32)
    module = M3Module(model, modes=modes, loss=LossSettings(teacher=teacher or "kl_div"), **options)
    module.requires_grad_(True)
    return module.eval()  # no dropout, as in the recording


def _losses(module: M3Module, teacher: Any, *, distill: bool = False) -> Losses:
    queries = len(RECORDED["queries"])
    group = len(PASSAGES) // queries
    step = Step(
        queries=_pieces(module, RECORDED["queries"]),
        passages=_pieces(module, PASSAGES),
        group_size=group,
        teacher=torch.tensor(RECORDED["teacher_scores"]) if teacher else None,
        keys=torch.arange(len(PASSAGES)),
        known=group * torch.arange(queries).unsqueeze(1),
        cut=0,
    )
    return module(step, distill=distill).losses  # type: ignore[no-any-return]


def _pieces(module: M3Module, texts: Sequence[str]) -> list[Piece]:
    model = module.checkpoint
    tokens = tokenize(model.tokenizer, texts)
    return cut(tokens, model.frame, max_length=512, truncation="error")


def _gradients(prefix: str) -> dict[str, torch.Tensor]:
    """Return the recorded gradients under our own names of the parameters."""
    found = {}
    for key, gradient in ARRAYS.items():
        if key.startswith(prefix):
            name = key.removeprefix(prefix)
            theirs = name.removeprefix("model.")
            found[f"heads.{name}" if theirs == name else f"backbone.{theirs}"] = gradient
    return found
