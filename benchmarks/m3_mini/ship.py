"""Put a trained adapter into the package, as the m3-mini that is shipped.

The numbers are stored as float16 (half the size; the model is what these files say), every
file is pinned by its SHA-256, and the hybrid weights are those chosen on validation data::

    python benchmarks/m3_mini/ship.py OUT/adapter --scale 0.7 --weights 0.25 0.1 1

``--scale`` goes only so far from the backbone to what was trained (delta and ColBERT head; the
identity is where that head began): fine-tuned models carry over better to other collections
from a point between (WiSE-FT, arXiv 2109.01903). 0.4, 0.7 and 1 were tried on validation data.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import m3_retrievers
from m3_retrievers.encoder.adapter import CONFIG, WEIGHTS
from m3_retrievers.encoder.checkpoint import CONFIG_FILE
from m3_retrievers.encoder.heads import COLBERT_FILE, SPARSE_FILE
from m3_retrievers.encoder.mini import BACKBONE, sha256

TARGET = Path(m3_retrievers.__file__).parent / "models" / "m3_mini"
# What PEFT needs to read the adapter, without the many settings of other methods.
KEPT = ("peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "bias", "use_rslora")
LIMIT = 6_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--weights", type=float, nargs=3, metavar=("DENSE", "SPARSE", "COLBERT"))
    parser.add_argument("--scale", type=float, default=1.0)
    options = parser.parse_args()
    for name in (WEIGHTS, f"{SPARSE_FILE}.safetensors", f"{COLBERT_FILE}.safetensors"):
        state = load_file(options.adapter / name)
        if name.startswith(COLBERT_FILE):
            state = {key: options.scale * value for key, value in state.items()}
            state["weight"] += (1 - options.scale) * torch.eye(*state["weight"].shape)
        state = {key: value.half() for key, value in state.items()}
        save_file(state, TARGET / name, metadata={"format": "pt"})
        (TARGET / name).chmod(0o644)
    trained = json.loads((options.adapter / CONFIG).read_text("utf-8"))
    config = {key: trained[key] for key in KEPT} | {"base_model_name_or_path": BACKBONE}
    config["lora_alpha"] *= options.scale
    config["target_modules"] = sorted(config["target_modules"])
    write(CONFIG, config)
    model = json.loads((options.adapter / CONFIG_FILE).read_text("utf-8"))
    if options.weights:
        model["weights"] = dict(zip(("dense", "sparse", "colbert"), options.weights, strict=True))
    write(CONFIG_FILE, model)
    files = sorted(path for path in TARGET.iterdir() if path.suffix in (".json", ".safetensors"))
    pinned = [path for path in files if path.name != "checksums.json"]
    write("checksums.json", {path.name: sha256(path) for path in pinned})
    size = sum(path.stat().st_size for path in TARGET.iterdir())
    print(f"{TARGET}: {size:,} bytes")
    if size > LIMIT:
        raise SystemExit(f"expected at most {LIMIT:,} bytes; train with a smaller rank")


def write(name: str, content: dict[str, object]) -> None:
    (TARGET / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
