"""Put trained adapters into the package, as the m3-mini (or m3-mini-multilingual) that is shipped.

The numbers are stored as float16 (half the size; the model is what these files say), every
file is pinned by its SHA-256, and the hybrid weights are those chosen on validation data::

    python benchmarks/m3_mini/ship.py OUT/adapter OTHER/adapter --scale 0.75 --weights 0.25 0.2 1

Of several adapters the mean is shipped (a model soup, arXiv 2203.05482): runs that start from the
same backbone and differ in data and seed average to a model that carries over better than each.
The mean of low-rank deltas is one delta whose rank is the sum of theirs. ``--scale`` goes only so
far from the backbone to what was trained (delta and ColBERT head; the identity is where that head
began), as WiSE-FT does (arXiv 2109.01903). What was tried on validation data: the model card.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from m3_retrievers.encoder.adapter import CONFIG, WEIGHTS
from m3_retrievers.encoder.heads import COLBERT_FILE, SPARSE_FILE
from m3_retrievers.encoder.mini import BACKBONE, bundled, sha256
from m3_retrievers.encoder.source import CONFIG_FILE

# What PEFT needs to read the adapter, without the many settings of other methods.
KEPT = ("peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "bias", "use_rslora")
PINNED = (".json", ".safetensors", ".xz")
LIMIT = 6_500_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("adapters", type=Path, nargs="+", metavar="ADAPTER")
    parser.add_argument("--weights", type=float, nargs=3, metavar=("DENSE", "SPARSE", "COLBERT"))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--model", default="m3-mini", help="or m3-mini-multilingual")
    options = parser.parse_args()
    model = bundled(options.model)
    if model is None:
        raise SystemExit(f"expected the name of a bundled model, got {options.model!r}")
    target = model.ours
    write_adapter(
        target,
        options.adapters,
        scale=options.scale,
        weights=options.weights,
        backbone=model.backbone,
    )
    pinned = sorted(path for path in target.iterdir() if path.suffix in PINNED)
    pinned = [path for path in pinned if path.name != "checksums.json"]
    write(target / "checksums.json", {path.name: sha256(path) for path in pinned})
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{target}: {size:,} bytes")
    if size > LIMIT:
        raise SystemExit(f"expected at most {LIMIT:,} bytes; train with a smaller rank")


def write_adapter(
    target: Path,
    adapters: Sequence[Path],
    *,
    scale: float = 1.0,
    weights: Sequence[float] | None = None,
    backbone: str = BACKBONE,
) -> None:
    """Write the mean of adapters, ``scale`` of the way from the backbone, in PEFT's format."""
    save(target / WEIGHTS, joined([load_file(folder / WEIGHTS) for folder in adapters]))
    sparse, colbert = (f"{name}.safetensors" for name in (SPARSE_FILE, COLBERT_FILE))
    save(target / sparse, mean([load_file(folder / sparse) for folder in adapters]))
    head = mean([load_file(folder / colbert) for folder in adapters])
    head = {key: scale * value for key, value in head.items()}
    head["weight"] += (1 - scale) * torch.eye(*head["weight"].shape)
    save(target / colbert, head)
    configs = [json.loads((folder / CONFIG).read_text("utf-8")) for folder in adapters]
    trained = configs[0]
    if any(
        one["r"] != trained["r"] or one["lora_alpha"] != trained["lora_alpha"] for one in configs
    ):
        raise SystemExit("expected adapters of one rank and alpha; train them alike")
    config = {key: trained[key] for key in KEPT} | {"base_model_name_or_path": backbone}
    # alpha / r is the factor of each delta: a mean of n takes 1 / n of what one had
    config["r"] = len(configs) * trained["r"]
    config["lora_alpha"] = scale * trained["lora_alpha"]
    config["target_modules"] = sorted(config["target_modules"])
    write(target / CONFIG, config)
    model = json.loads((adapters[0] / CONFIG_FILE).read_text("utf-8"))
    if weights:
        model["weights"] = dict(zip(("dense", "sparse", "colbert"), weights, strict=True))
    write(target / CONFIG_FILE, model)


def joined(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the sum of low-rank deltas B·A as one: rows of A and columns of B side by side."""
    side = {"lora_A": 0, "lora_B": 1}
    return {
        key: torch.cat([state[key] for state in states], dim=side[key.split(".")[-2]])
        for key in states[0]
    }


def mean(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.stack([state[key] for state in states]).mean(0) for key in states[0]}


def save(path: Path, state: dict[str, Tensor]) -> None:
    halves = {key: value.half().contiguous() for key, value in state.items()}
    save_file(halves, path, metadata={"format": "pt"})
    path.chmod(0o644)


def write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
