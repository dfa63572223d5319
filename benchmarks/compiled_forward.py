"""PyTorch's compilers beside our packed encoder: milliseconds, seconds to compile, differences.

64 passages of 40 to 128 tokens and one query of 14 through the backbone of a checkpoint of MiniLM's
size, cut into batches of like lengths as our encoder cuts them. transformers' module as it is,
under torch.compile, and exported and compiled ahead (AOTInductor), both with dynamic shapes and
constant weights (``freezing``); our backbone with oneDNN's packed weights as it is shipped, with
plain ones, and with its plain layers under torch.compile. Needs a C++ compiler::

    python benchmarks/compiled_forward.py --models FOLDER --threads 2 --cache NEW
    python benchmarks/compiled_forward.py --models FOLDER --threads 2 --cache NEW --only restart
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

import numpy as np
import torch
from common import RESULTS, machine, read_result, timed, write_result
from full_size import write_small_m3
from numpy.typing import NDArray
from taking_turns import shown, take_turns
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from m3_retrievers import M3Encoder
from m3_retrievers.encoder import transformer
from m3_retrievers.encoder.batching import plan_batches
from m3_retrievers.encoder.precision import DTYPES
from m3_retrievers.encoder.settings import choose_budget

# Token ids of each text, longest first, to the last hidden states of their tokens, end to end.
Texts: TypeAlias = list[NDArray[np.int64]]
Run: TypeAlias = Callable[[Texts], Tensor]

PAD_ID, FIRST_ID, LAST_ID = 1, 3, 30_000
BASELINE = "transformers"
PARTS = ("fp32", "bf16", "shapes", "restart")


def works() -> dict[str, Texts]:
    """Return what is measured, and shapes that come after it."""
    rng = np.random.default_rng(0)

    def texts(lengths: Any) -> Texts:
        return [rng.integers(FIRST_ID, LAST_ID, n) for n in sorted(lengths, reverse=True)]

    return {
        "passages": texts(rng.integers(40, 129, 64)),
        "query": texts([14]),
        "other passages": texts(rng.integers(40, 129, 64)),
        "other query": texts([15]),
    }


def batches(texts: Texts, *, padded: bool) -> Iterator[Texts]:
    lengths = np.array([len(text) for text in texts])
    budget = choose_budget(None, torch.device("cpu"))
    for rows in plan_batches(lengths, budget=budget, padded=padded):
        yield [texts[row] for row in rows]


def packed(backbone: Any) -> Run:
    def run(texts: Texts) -> Tensor:
        parts = [
            backbone(torch.from_numpy(np.concatenate(batch)), tuple(map(len, batch)))
            for batch in batches(texts, padded=False)
        ]
        return torch.cat(parts)

    return run


def padded(module: Any, *, at_once: bool = False) -> Run:
    """Run a padded module by batches of like lengths, or with all texts at once."""

    def run(texts: Texts) -> Tensor:
        parts = []
        for batch in [texts] if at_once else batches(texts, padded=True):
            ids = pad_sequence([torch.from_numpy(one) for one in batch], True, PAD_ID)
            mask = ids != PAD_ID
            parts.append(module(ids, mask.long())[mask])
        return torch.cat(parts)

    return run


class States(nn.Module):
    """transformers' module with the last hidden states as its only output."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        from transformers import XLMRobertaModel

        super().__init__()
        self.model = XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False, dtype=dtype)
        self.eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        found = self.model(input_ids=input_ids, attention_mask=attention_mask)
        states: Tensor = found.last_hidden_state
        return states


def exported(module: States) -> Any:
    sizes = {0: torch.export.Dim("texts", min=1, max=512), 1: torch.export.Dim("tokens", max=8192)}
    example = torch.full((2, 8), FIRST_ID)
    program = torch.export.export(
        module,
        (example, torch.ones_like(example)),
        dynamic_shapes={"input_ids": sizes, "attention_mask": sizes},
    )
    target = f"{os.environ['TORCHINDUCTOR_CACHE_DIR']}/{module.model.dtype}.pt2"
    path = torch._inductor.aoti_compile_and_package(program, package_path=target)
    return torch._inductor.aoti_load_package(path)


def backbone(folder: Path, precision: Any, *, plain: bool = False, compiled: bool = False) -> Any:
    """Return our Transformer, its linear layers packed or plain, each by itself compiled or not."""
    encoder = M3Encoder.from_pretrained(folder, device="cpu", precision=precision)
    with _plain_linear() if plain else nullcontext():
        found: Any = encoder.checkpoint.backbone
    if compiled:
        # what is computed row by row: attention goes by lengths, and each would be compiled
        for layer in found._layers:
            for name in ("_qkv", "_out", "_fed"):
                setattr(layer, name, torch.compile(getattr(layer, name), dynamic=True))
    return found


@contextmanager
def _plain_linear() -> Iterator[None]:
    def made(weight: Tensor, bias: Tensor, *, activation: str = "none", **_: Any) -> nn.Module:
        layer = nn.Linear(*weight.T.shape, device="meta")  # a module: its weights may be frozen
        layer.weight, layer.bias = (
            nn.Parameter(one, requires_grad=False) for one in (weight, bias)
        )
        return nn.Sequential(layer, nn.GELU()) if activation == "gelu" else layer

    with mock.patch.object(transformer, "make_linear", made):
        yield


def engines(folder: Path, precision: str) -> dict[str, Callable[[], Run]]:
    """Return what makes each way to compute the states."""
    module = States(folder, DTYPES[precision])  # type: ignore[index]
    ours = partial(backbone, folder, precision)
    return {
        BASELINE: lambda: padded(module),
        "transformers, one batch": lambda: padded(module, at_once=True),
        "torch.compile": lambda: padded(torch.compile(module, dynamic=True)),
        "export, AOTInductor": lambda: padded(exported(module)),
        "ours, plain weights": lambda: packed(ours(plain=True)),
        "ours, plain, compiled": lambda: packed(ours(plain=True, compiled=True)),
        "ours": lambda: packed(ours()),
    }


def started(
    makers: Mapping[str, Callable[[], Run]], exact: Mapping[str, Tensor]
) -> tuple[dict[str, Run], dict[str, dict[str, float]]]:
    """Make each engine and call it once a work: what runs, and what that cost and differs by."""
    runs, found = {}, {}
    for name, make in makers.items():
        torch._dynamo.reset()
        row = found[name] = {}
        row["made_s"], row["made_processor_s"], runs[name] = cost(make)
        for work, texts in works().items():
            wall, processor, states = cost(partial(runs[name], texts))
            row |= {f"{work}_s": wall, f"{work}_processor_s": processor}
            row[f"{work}_off"] = float((states.float() - exact[work]).abs().max())
        print(f"  {name}: {row}", flush=True)
    return runs, found


def cost(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return seconds of wall clock, those of processors (the compiler's with it) and the result.

    Other work on the machine stretches the former.
    """
    before = os.times()
    wall, result = timed(work)
    return wall, sum(os.times()[:4]) - sum(before[:4]), result


def in_turns(
    folder: Path, precision: str, exact: Mapping[str, Tensor]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what making the engines took, then the times of passages and of a query."""
    runs, found = started(engines(folder, precision), exact)
    yield f"{precision}, started", found
    for work, rounds, blocks in (("query", 5, 9), ("passages", 1, 7)):
        turns = {name: partial(run, works()[work]) for name, run in runs.items()}
        times = take_turns(turns, baseline=BASELINE, rounds=rounds, blocks=blocks, seconds=75)
        print(shown(f"{work}, {precision}", times), flush=True)
        yield f"{precision}, {work}", times


def shapes(folder: Path, exact: Mapping[str, Tensor]) -> dict[str, dict[str, Any]]:
    """Compile a query for its very shape: what it gains, and what the next length costs."""
    module = States(folder, torch.float32)
    static = torch.compile(module, dynamic=False)
    texts = {name: one for name, one in works().items() if "query" in name}
    found: dict[str, dict[str, Any]] = {}
    for name, one in texts.items():
        wall, processor, states = cost(partial(padded(static), one))
        off = float((states - exact[name]).abs().max())
        turns = {"static": partial(padded(static), one), BASELINE: partial(padded(module), one)}
        row = take_turns(turns, baseline=BASELINE, blocks=2)["rows"]
        found[name] = {"first_s": wall, "first_processor_s": processor, "off": off}
        found[name]["again"] = row
        print(f"  static, {name}: {found[name]}", flush=True)
    return found


def restarted(folder: Path, exact: Mapping[str, Tensor]) -> dict[str, Any]:
    """Compile once more what an earlier process compiled: what a restart pays."""
    makers = engines(folder, "fp32")
    names = ("torch.compile", "ours, plain, compiled", "ours")
    return started({name: makers[name] for name in names}, exact)[1]


def measured(
    part: str, folder: Path, exact: Mapping[str, Tensor]
) -> Iterator[tuple[str, dict[str, Any]]]:
    if part == "shapes":
        yield part, shapes(folder, exact)
    elif part == "restart":
        yield part, restarted(folder, exact)
    else:
        yield from in_turns(folder, part, exact)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="where checkpoints are kept")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--cache", type=Path, required=True, help="where compiled code is kept")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS[:-1])
    parser.add_argument("--result", type=Path, default=RESULTS / "compiled_forward.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch._inductor.config.freezing = True
    torch._inductor.config.compile_threads = 1  # other processes' time would not be counted
    torch._dynamo.config.recompile_limit = 64  # each layer's part is a program of its own
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(options.cache.resolve())
    folder = write_small_m3(options.models / "small")
    result = read_result(options.result) | {"machine": machine(threads=options.threads)}
    with torch.inference_mode():
        reference = padded(States(folder, torch.float32))
        exact = {name: reference(texts) for name, texts in works().items()}
        for part in options.only:
            for name, found in measured(part, folder, exact):
                result[name] = found
                write_result(options.result, result)  # what is done stays


if __name__ == "__main__":
    main()
