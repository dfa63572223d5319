"""Token pooling: a document's vectors that say nearly the same become one, their mean.

Clavié, Chaffin and Adams, "Reducing the Footprint of Multi-Vector Retrieval with Minimal
Performance Impact via Token Pooling" (arXiv 2409.14683): Ward's clustering of each document's
vectors, which keeps most of what late interaction finds with half or a third of them.
"""

from __future__ import annotations

import numpy as np

from m3_retrievers.checks import check_k
from m3_retrievers.types.packed import Floats, MultiVectors


def pooled(vectors: MultiVectors, *, factor: int) -> MultiVectors:
    """Return each text's vectors, at most 1/factor of them (rounded up), as float32 of length 1.

    factor: 1 leaves them as they are. What a text's vectors become depends on that text alone.

    >>> four = np.array([[1, 0], [0, 1], [1, 0.1], [0.1, 1]], np.float32)
    >>> pooled(MultiVectors.from_rows([four]), factor=2)[0].round(2).tolist()
    [[1.0, 0.05000000074505806], [0.05000000074505806, 1.0]]
    """
    check_k(factor, name="colbert_pool_factor")
    if factor == 1:
        return vectors
    rows = [_pooled(one.astype(np.float32), factor) for one in vectors]
    return MultiVectors.from_rows(rows, dimension=vectors.dimension)


def _pooled(vectors: Floats, factor: int) -> Floats:
    """Return the mean of each cluster (c, h), in the order in which the clusters begin."""
    if len(vectors) < 2:
        return vectors
    # a tenth of a second to import, for an option that few indexes have
    from scipy.cluster.hierarchy import fcluster, linkage

    # of vectors of length 1, euclidean distances order pairs as cosines do
    tree = linkage(vectors, method="ward")
    labels = fcluster(tree, t=-(-len(vectors) // factor), criterion="maxclust")
    firsts, members = np.unique(labels, return_index=True, return_inverse=True)[1:]
    place = np.argsort(np.argsort(firsts))[members]
    order = np.argsort(place, kind="stable")
    sums = np.add.reduceat(vectors[order], np.searchsorted(place[order], np.arange(len(firsts))))
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    means: Floats = sums / np.maximum(lengths, np.finfo(np.float32).tiny)
    return means
