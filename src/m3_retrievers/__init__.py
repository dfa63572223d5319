"""BGE-M3 hybrid retrieval for LangChain and LlamaIndex: the table of contents.

Names load on first use, so that importing the package loads neither torch nor a framework.
"""

from typing import TYPE_CHECKING

from m3_retrievers.lazy import contents

if TYPE_CHECKING:
    from m3_retrievers.encoder.encoder import M3Encoder as M3Encoder
    from m3_retrievers.encoder.heads import HeadSpec as HeadSpec
    from m3_retrievers.fusion import ReciprocalRankFusion as ReciprocalRankFusion
    from m3_retrievers.fusion import WeightedSum as WeightedSum
    from m3_retrievers.index.local import LocalIndex as LocalIndex
    from m3_retrievers.lexical.bm25 import BM25 as BM25
    from m3_retrievers.representations import Hit as Hit
    from m3_retrievers.representations import HybridWeights as HybridWeights
    from m3_retrievers.representations import Representations as Representations
    from m3_retrievers.representations import Scores as Scores
    from m3_retrievers.retriever import HybridRetriever as HybridRetriever
    from m3_retrievers.retriever import Recall as Recall

_HOMES = {
    "BM25": "lexical.bm25",
    "HeadSpec": "encoder.heads",
    "Hit": "representations",
    "HybridRetriever": "retriever",
    "HybridWeights": "representations",
    "LocalIndex": "index.local",
    "M3Encoder": "encoder.encoder",
    "Recall": "retriever",
    "ReciprocalRankFusion": "fusion",
    "Representations": "representations",
    "Scores": "representations",
    "WeightedSum": "fusion",
}

__version__ = "0.1.0"
__all__ = [
    "BM25",
    "HeadSpec",
    "Hit",
    "HybridRetriever",
    "HybridWeights",
    "LocalIndex",
    "M3Encoder",
    "Recall",
    "ReciprocalRankFusion",
    "Representations",
    "Scores",
    "WeightedSum",
]

__getattr__, __dir__ = contents(__name__, _HOMES)
