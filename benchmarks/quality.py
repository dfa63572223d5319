"""How well each mode ranks, on test collections, and their average.

``m3_retrievers.evaluation`` in a loop, with documents cut at ``--max-length`` tokens. A row of
``BM25`` counts words, English stop words dropped::

    python benchmarks/quality.py --data DATA/cranfield DATA/cacm --name six_sets
    python benchmarks/quality.py --data DATA/squad_en --name six_sets --add
    python benchmarks/quality.py --data DATA/cranfield --model m3-mini/backbone
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, machine, read_result, timed, write_result

from m3_retrievers import HybridWeights, M3Encoder
from m3_retrievers.evaluation import Evaluation, evaluate, read_collection, represent
from m3_retrievers.evaluation.modes import LABELS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--model", default="m3-mini")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--protocol", default="union")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--weights", type=float, nargs=3, help="dense, sparse, ColBERT")
    parser.add_argument("--truncation", default="warn")
    parser.add_argument("--mcls-every", type=int)
    parser.add_argument("--name", default="quality", help="of the result file")
    parser.add_argument("--add", action="store_true", help="to the collections that file has")
    options = parser.parse_args()
    encoder = M3Encoder.from_pretrained(
        options.model,
        device="cpu",
        precision=options.precision,
        document_max_length=options.max_length,
        truncation=options.truncation,
        mcls_every=options.mcls_every,
    )
    weights = HybridWeights(*options.weights) if options.weights else None
    target = RESULTS / f"{options.name}.json"
    asked = {k: str(v) for k, v in vars(options).items() if k not in ("data", "add")}
    result: dict[str, Any] = {
        "machine": machine(threads=torch.get_num_threads()),
        "options": asked,
        "fingerprint": encoder.fingerprint,
        "encode_s": {},
        "collections": {},
    }
    if options.add:
        result |= held(target, options=asked, fingerprint=encoder.fingerprint)
    for folder in options.data:
        name = "/".join(folder.resolve().parts[-2:]).removeprefix("data/")
        collection = read_collection(folder, name=name)
        result["encode_s"][name], vectors = timed(partial(represent, encoder, collection))
        found = evaluate(
            encoder,
            collection,
            protocol=options.protocol,
            weights=weights,
            representations=vectors,
        )
        print(found.table(), flush=True)
        del vectors
        result["collections"][name] = short(found)
        result["table"] = table(result["collections"])
        write_result(target, result)  # what is done stays
    print(result["table"])


def held(target: Path, **same: Any) -> dict[str, Any]:
    """Return what a file holds of the same model and options."""
    result = read_result(target)
    if not result or any(result[name] != value for name, value in same.items()):
        raise SystemExit(f"{target} expects a result of the same model and options, to add to")
    return result


def short(one: Evaluation) -> dict[str, Any]:
    """Return an evaluation's caption, means and intervals, without the values a query."""
    content = one.to_dict()
    # a folder's name, without where it lies on one machine
    named = replace(one, model=Path(one.model).name)
    return {"caption": named.caption()} | {key: content[key] for key in ("means", "intervals")}


def table(found: Mapping[str, Any]) -> str:
    """Return nDCG@10 by mode and collection, with the mean over the collections."""
    lines = [
        f"| nDCG@10 | {' | '.join(found)} | average |",
        f"| --- |{' ---: |' * (len(found) + 1)}",
    ]
    for mode in next(iter(found.values()))["means"]:
        values = [one["means"][mode]["nDCG@10"] for one in found.values()]
        cells = [f"{value:.3f}" for value in [*values, float(np.mean(values))]]
        lines.append(f"| {LABELS[mode]} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
