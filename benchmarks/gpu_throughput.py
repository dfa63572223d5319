"""Passages on an accelerator, all three outputs, as a share of its matrix peak.

The peak is measured: the product of two large matrices in the same number type. FlagEmbedding runs
beside it where it is installed, and both find the same vectors. Without an accelerator it says so
and ends::

    python benchmarks/gpu_throughput.py --models FOLDER
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, machine, standard_library_texts, write_result
from full_size import SHAPE, write_full_size_m3
from taking_turns import shown, take_turns

from m3_retrievers import M3Encoder
from m3_retrievers.errors import TruncationWarning

TOKENS = 256
# Of a layer: four square matrices and two of the inner layer, each number a product and a sum.
OPERATIONS = 2 * SHAPE.layers * (4 * SHAPE.hidden**2 + 2 * SHAPE.hidden * SHAPE.feed_forward)
# Of float16 beside float16: outputs are unit vectors.
CLOSE = 2e-2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="where checkpoints are kept")
    parser.add_argument("--documents", type=int, default=1024)
    parser.add_argument("--result", type=Path, default=RESULTS / "gpu_throughput.json")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here: nothing is measured")
    warnings.simplefilter("ignore", TruncationWarning)
    folder = write_full_size_m3(options.models / "full")
    texts = standard_library_texts(options.documents)
    rows = {
        f"{TOKENS} tokens": [f"{text} " * 4 for text in texts],
        "short passages": [text[:200] for text in texts],
    }
    card, peak = torch.cuda.get_device_name(0), _peak(torch.float16)
    encoders = {
        precision: M3Encoder.from_pretrained(
            folder, device="cuda", precision=precision, document_max_length=TOKENS, keep=None
        )
        for precision in ("fp16", "bf16")
    }
    peer = _peer(folder) if find_spec("FlagEmbedding") is not None else None
    found = {name: _compared(encoders, peer, texts, peak=peak) for name, texts in rows.items()}
    for name, one in found.items():
        print(shown(f"{card}, {name}", one))
    about = machine(threads=torch.get_num_threads())
    result = {"machine": about, "card": card, "peak_operations_a_second": peak, "rows": found}
    write_result(options.result, result)


def _peer(folder: Path) -> Callable[..., Any]:
    from FlagEmbedding import BGEM3FlagModel

    model = BGEM3FlagModel(str(folder), use_fp16=True, devices="cuda:0")
    return partial(model.encode, max_length=TOKENS, return_sparse=True, return_colbert_vecs=True)


def _compared(
    encoders: dict[str, M3Encoder],
    peer: Callable[..., Any] | None,
    texts: Sequence[str],
    *,
    peak: float,
) -> dict[str, Any]:
    """Return both on the same texts, in turns."""
    works: dict[str, Callable[[], Any]] = {
        f"ours, {precision}": partial(one.encode_documents, texts)
        for precision, one in encoders.items()
    }
    baseline = "ours, fp16"
    if peer is not None:
        ours, theirs = encoders["fp16"].encode_documents(texts), peer(texts)
        np.testing.assert_allclose(ours.dense, theirs["dense_vecs"], atol=CLOSE)
        assert ours.colbert is not None
        vectors = np.concatenate(theirs["colbert_vecs"])
        np.testing.assert_allclose(ours.colbert.vectors, vectors, atol=CLOSE)
        baseline = "FlagEmbedding, fp16"
        works[baseline] = partial(peer, texts)
    found = take_turns(works, baseline=baseline, rounds=1, seconds=60)
    tokens = int(encoders["fp16"].measure(texts, query=False).clip(max=TOKENS).sum())
    for row in found["rows"].values():
        row["texts_a_second"] = len(texts) / (row["median"] / 1e3)
        row["share_of_peak"] = OPERATIONS * tokens / (row["median"] / 1e3) / peak
    return {**found, "texts": len(texts), "tokens": tokens}


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
