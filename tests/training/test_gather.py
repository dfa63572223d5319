"""Two processes, joined by gloo, against one process with both halves of the batch."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from m3_retrievers.encoder.checkpoint import load
from m3_retrievers.encoder.source import locate
from m3_retrievers.training.batches import Draw
from m3_retrievers.training.collate import Collator
from m3_retrievers.training.model import M3Module
from m3_retrievers.training.settings import LossSettings

pytestmark = pytest.mark.slow

TEXTS = ["plants make food", "a bird in the tree " * 4, "rivers", "seas and rivers", "old", "new"]


def draws() -> list[Draw]:
    rows = [(TEXTS[n], TEXTS[(n + 1) % 6] * (n + 1), TEXTS[(n + 3) % 6]) for n in range(4)]
    return [Draw(query, (good, bad), None, (good,)) for query, good, bad in rows]


def gradient(model, step, *, across: bool) -> dict[str, torch.Tensor]:
    module = M3Module(
        model,
        modes=("dense", "sparse", "colbert"),
        loss=LossSettings(),
        cross_device_negatives=across,
    ).eval()
    module(step, distill=True).losses.total.backward()
    return {n: p.grad for n, p in module.named_parameters() if p.grad is not None}


def open_model(folder):
    model = load(locate(folder), device=torch.device("cpu"), dtype=torch.float32)
    return model, Collator(model.tokenizer, model.frame, 64, 64)


def run_rank(folder: str, rank: int, meeting: str, out: str) -> None:
    """One of two processes; writes the mean of both gradients, as data-parallel training does."""
    store = torch.distributed.FileStore(meeting, 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    model, collator = open_model(folder)
    found = gradient(model, collator(draws()[2 * rank : 2 * rank + 2]), across=True)
    for value in found.values():
        torch.distributed.all_reduce(value)
        value /= 2
    if rank == 0:
        torch.save(found, out)
    torch.distributed.barrier()
    leave_together(Path(f"{meeting}-left"), rank)


def leave_together(place: Path, rank: int) -> None:
    """End this process when the other is through the barrier too, and without gloo's farewell.

    gloo aborts a process whose peer has hung up first, be it in the last step of the barrier or
    in the destructors at exit; the test is about gradients, not about that.
    """
    place.with_suffix(f".{rank}").touch()
    other = place.with_suffix(f".{1 - rank}")
    while not other.exists():
        time.sleep(0.01)
    os._exit(0)


def test_two_devices_give_the_gradient_of_one_batch(tiny_m3, tmp_path):
    model, collator = open_model(tiny_m3)
    expected = gradient(model, collator(draws()), across=False)
    code = textwrap.dedent(
        """
        import sys
        sys.path[:0] = {path!r}
        from training.test_gather import run_rank
        run_rank({folder!r}, int(sys.argv[1]), {meeting!r}, {out!r})
        """
    ).format(
        path=[str(__file__.rsplit("/training/", 1)[0])],
        folder=str(tiny_m3),
        meeting=str(tmp_path / "meeting"),
        out=str(tmp_path / "gradients.pt"),
    )
    ranks = [
        subprocess.Popen([sys.executable, "-c", code, str(rank)], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)
    assert found.keys() == expected.keys()
    size = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        assert float((found[name] - value).abs().max()) < 1e-5 * size, name
