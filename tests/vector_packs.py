"""Packs of random unit vectors, and the plain MaxSim of them in float64."""

import numpy as np
import torch

from m3_retrievers import scoring
from m3_retrievers.types.packed import MultiVectors, offsets_of


def pack(lengths, *, width, seed, dtype=np.float32):
    rows = np.random.default_rng(seed).standard_normal((sum(lengths), width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return MultiVectors(rows.astype(dtype), offsets_of(lengths))


def plain_maxsim(queries, documents):
    tensors = [
        torch.from_numpy(array)
        for pack in (queries, documents)
        for array in (pack.vectors.astype(np.float64), pack.offsets)
    ]
    return scoring.packed_maxsim(*tensors).numpy()
