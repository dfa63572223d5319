"""How fast documents are encoded, all three outputs, beside FlagEmbedding.

Both libraries hold the same checkpoint in one process and take turns on the same texts,
so they never compete for cores: ours, theirs, theirs, ours, … FlagEmbedding runs as it
comes, in float32: batch size 256, progress bars included. Both get the same length limit, and
ours otherwise its own defaults::

    python benchmarks/encode_throughput.py --model FOLDER --rounds 3
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, machine, spread, standard_library_texts, timed, write_result
from full_size import write_full_size_m3

from m3_retrievers import M3Encoder
from m3_retrievers.errors import TruncationWarning


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", TruncationWarning)  # both cut the same texts
    from FlagEmbedding import BGEM3FlagModel

    folder = write_full_size_m3(options.model)
    about = machine(threads=torch.get_num_threads())
    texts = standard_library_texts(options.documents)
    ours = M3Encoder.from_pretrained(
        folder, device="cpu", precision="fp32", document_max_length=options.max_length, keep=None
    )
    theirs = BGEM3FlagModel(
        str(folder), use_fp16=False, devices="cpu", passage_max_length=options.max_length
    )

    def run_ours() -> Any:
        return ours.encode_documents(texts)

    def run_theirs() -> Any:
        return theirs.encode(
            texts,
            max_length=options.max_length,
            return_dense=True,
            return_sparse=True,
            return_colbert_vecs=True,
        )

    warm_up = texts[:16]
    ours.encode_documents(warm_up)
    theirs.encode(warm_up, return_sparse=True, return_colbert_vecs=True)
    rounds, differences = [], {}
    for number in range(options.rounds):
        # the order alternates, so that a drifting clock favours neither
        if number % 2 == 0:
            (our_time, mine), (their_time, peer) = timed(run_ours), timed(run_theirs)
        else:
            (their_time, peer), (our_time, mine) = timed(run_theirs), timed(run_ours)
        if not differences:
            differences = _differences(mine, peer)
        del mine, peer
        rounds.append({"ours_s": our_time, "flag_embedding_s": their_time})
        print(f"round {number}: ours {our_time:.1f} s, FlagEmbedding {their_time:.1f} s")
    ratios = [one["flag_embedding_s"] / one["ours_s"] for one in rounds]
    lengths = [min(options.max_length, len(ids)) for ids in ours.tokenizer(texts).input_ids]
    result = {
        "machine": about,
        "documents": len(texts),
        "tokens_a_document": spread(lengths),
        "flag_embedding": {"batch_size": theirs.batch_size, "max_length": options.max_length},
        "rounds": rounds,
        "ratios": ratios,
        "median_ratio": statistics.median(ratios),
        "ours_documents_a_second": len(texts) / statistics.median(r["ours_s"] for r in rounds),
        "flag_embedding_documents_a_second": len(texts)
        / statistics.median(r["flag_embedding_s"] for r in rounds),
        "largest_absolute_difference": differences,
    }
    print(f"median ratio {result['median_ratio']:.2f} {[round(r, 2) for r in ratios]}")
    write_result(options.result, result)


def _differences(ours: Any, theirs: dict[str, Any]) -> dict[str, float]:
    """Return the largest absolute difference of each output."""
    pairs = zip(ours.to_dicts(), theirs["lexical_weights"], strict=True)
    lexical = [
        abs(mine.get(int(term), 0.0) - peer.get(str(term), 0.0))
        for mine, peer in pairs
        for term in {*mine, *map(int, peer)}
    ]
    vectors = np.concatenate(theirs["colbert_vecs"])
    return {
        "dense": float(abs(ours.dense - theirs["dense_vecs"]).max()),
        "sparse": float(max(lexical)),
        "colbert": float(abs(ours.colbert.vectors - vectors).max()),
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="checkpoint; written if absent")
    parser.add_argument("--documents", type=int, default=512)
    parser.add_argument("--max-length", type=int, default=512, help="tokens of a document")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--result", type=Path, default=RESULTS / "encode_throughput.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
