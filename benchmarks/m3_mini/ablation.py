"""What self-distillation and hard negatives each add, in the form of the paper's ablation.

Every arm starts from the same backbone with the same seed and takes the same number of steps of
first_main.toml; only the one thing is left out. After ``recipe`` has made ``.m3_mini``::

    python benchmarks/m3_mini/ablation.py --work .m3_mini --data DATA/cranfield DATA/cacm
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import torch
from common import RESULTS, machine, write_result
from quality import short, table

from m3_retrievers import M3Encoder
from m3_retrievers.evaluation import evaluate, read_collection
from m3_retrievers.training import TrainSettings, read_settings, train

ARMS = ("full", "without self-distillation", "without hard negatives")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--distill-from", type=int, default=50)
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    options = parser.parse_args()
    target = RESULTS / "m3_mini_ablation.json"
    result = {
        "machine": machine(threads=torch.get_num_threads()),
        "steps": options.steps,
        "distill_from": options.distill_from,
        "arms": {},
    }
    for arm in options.arms:
        out = options.work / "ablation" / arm.replace(" ", "_")
        trained = train(settings(options, arm, out), show_progress=True)
        encoder = M3Encoder.from_pretrained(
            trained.folder, device="cpu", precision="bf16", document_max_length=256
        )
        found = {f.name: evaluate(encoder, read_collection(f)) for f in options.data}
        result["arms"][arm] = {
            "table": table(found),
            "collections": {name: short(one) for name, one in found.items()},
        }
        print(f"{arm}\n{table(found)}", flush=True)
        write_result(target, result)


def settings(options: argparse.Namespace, arm: str, out: Path) -> TrainSettings:
    base = read_settings(Path(__file__).parent / "first_main.toml")
    lines = options.work / ("train" if arm == "without hard negatives" else "mined")
    small = (lines / "cosqa.jsonl", lines / "cosqa.jsonl", lines / "s2search_en.jsonl")
    return dataclasses.replace(
        base,
        data=tuple(str(path) for path in (lines, *small)),
        out=str(out),
        steps=options.steps,
        self_distill_from=(None if arm == "without self-distillation" else options.distill_from),
    )


if __name__ == "__main__":
    main()
