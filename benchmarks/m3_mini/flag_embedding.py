"""A model our trainer saved, loaded by FlagEmbedding 1.4.2 and by M3Encoder: the same outputs?

Term weights of [SEP] are left out of the comparison: FlagEmbedding drops XLM-R's </s>, whose part
it plays in a BERT, but keeps [SEP] itself, so that every text would share a term with every
other. Runs in the environment of the peers (``make bench`` makes it)::

    python benchmarks/m3_mini/flag_embedding.py --model OUT
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import numpy as np
from common import RESULTS, machine, standard_library_texts, write_result
from FlagEmbedding import BGEM3FlagModel

from m3_retrievers import M3Encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--documents", type=int, default=64)
    options = parser.parse_args()
    texts = standard_library_texts(options.documents)
    ours = M3Encoder.from_pretrained(options.model, device="cpu", document_max_length=128)
    encoded = ours.encode_documents(texts)
    theirs = BGEM3FlagModel(
        options.model, pooling_method=ours.source.pooling, use_fp16=False, devices="cpu"
    ).encode(
        texts,
        batch_size=8,
        max_length=128,
        return_dense=True,
        return_sparse=True,
        return_colbert_vecs=True,
    )
    sparse = 0.0
    separator = ours.tokenizer.sep_token_id
    for one, other in zip(encoded.to_dicts(), theirs["lexical_weights"], strict=True):
        other = {int(k): float(weight) for k, weight in other.items() if int(k) != separator}
        sparse = max([sparse, *(abs(one.get(k, 0) - other.get(k, 0)) for k in {*one, *other})])
    colbert = max(
        float(np.abs(encoded.colbert[row] - vectors).max())
        for row, vectors in enumerate(theirs["colbert_vecs"])
    )
    differences = {
        "dense": float(np.abs(encoded.dense - theirs["dense_vecs"]).max()),
        "sparse": sparse,
        "colbert": colbert,
    }
    print(differences)
    write_result(
        RESULTS / "flag_embedding_loads.json",
        {"machine": machine(threads=1), "documents": len(texts), "largest": differences},
    )


if __name__ == "__main__":
    main()
