"""Passages of 256 tokens on an accelerator, all three outputs, as a share of its matrix peak.

The peak is measured: the product of two large matrices in the same number type. FlagEmbedding runs
beside it where it is installed. Without an accelerator it says so and ends. Not tried on one yet::

    python benchmarks/gpu_throughput.py --models FOLDER
"""

from __future__ import annotations

import argparse
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, machine, standard_library_texts, write_result
from full_size import SHAPE, write_full_size_m3
from taking_turns import shown, take_turns

from m3_retrievers import M3Encoder

TOKENS = 256
# Of a layer: four square matrices and two of the inner layer, each number a product and a sum.
OPERATIONS = 2 * SHAPE.layers * (4 * SHAPE.hidden**2 + 2 * SHAPE.hidden * SHAPE.feed_forward)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="where checkpoints are kept")
    parser.add_argument("--documents", type=int, default=1024)
    parser.add_argument("--result", type=Path, default=RESULTS / "gpu_throughput.json")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here: nothing is measured")
    folder = write_full_size_m3(options.models / "full")
    texts = [f"{text} " * 4 for text in standard_library_texts(options.documents)]
    works: dict[str, Any] = {}
    for precision in ("fp16", "bf16"):
        encoder = M3Encoder.from_pretrained(
            folder, device="cuda", precision=precision, document_max_length=TOKENS, keep=None
        )
        works[f"ours, {precision}"] = lambda encoder=encoder: encoder.encode_documents(texts)
    baseline = "ours, fp16"
    if find_spec("FlagEmbedding") is not None:
        from FlagEmbedding import BGEM3FlagModel

        peer = BGEM3FlagModel(str(folder), use_fp16=True, devices="cuda:0")
        baseline = "FlagEmbedding, fp16"
        works[baseline] = lambda: peer.encode(
            texts, max_length=TOKENS, return_sparse=True, return_colbert_vecs=True
        )
    found = take_turns(works, baseline=baseline, rounds=3, seconds=120)
    tokens = int(encoder.measure(texts, query=False).sum())
    peak = _peak(torch.float16)
    for row in found["rows"].values():
        row["texts_a_second"] = len(texts) / (row["median"] / 1e3)
        row["share_of_peak"] = OPERATIONS * tokens / (row["median"] / 1e3) / peak
    print(shown(torch.cuda.get_device_name(0), found))
    about = machine(threads=torch.get_num_threads())
    card = {"card": torch.cuda.get_device_name(0), "peak_operations_a_second": peak}
    write_result(options.result, {"machine": about, **card, "tokens": tokens, **found})


def _peak(dtype: torch.dtype, *, size: int = 8192, rounds: int = 20) -> float:
    """Return operations a second of one large product."""
    left, right = torch.randn(2, size, size, device="cuda", dtype=dtype)
    best = 0.0
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        left @ right
        torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    main()
