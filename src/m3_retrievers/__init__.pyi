from .encoder.combined import CombinedEncoder as CombinedEncoder
from .encoder.encoder import M3Encoder as M3Encoder
from .encoder.heads import HeadSpec as HeadSpec
from .encoder.remote.connection import Connection as Connection
from .encoder.remote.http import HttpEncoder as HttpEncoder
from .encoder.remote.tei import TeiEncoder as TeiEncoder
from .encoder.remote.vllm import VllmEncoder as VllmEncoder
from .encoder.splade import SpladeEncoder as SpladeEncoder
from .index.durable.index import DurableIndex as DurableIndex
from .index.local import LocalIndex as LocalIndex
from .index.milvus.index import MilvusIndex as MilvusIndex
from .index.pgvector.index import PgVectorIndex as PgVectorIndex
from .index.qdrant.home import QdrantIndex as QdrantIndex
from .index.qdrant.options import QdrantStorage as QdrantStorage
from .lexical.bm25 import BM25 as BM25
from .retrieval.retriever import HybridRetriever as HybridRetriever
from .scoring.fusion import ReciprocalRankFusion as ReciprocalRankFusion
from .scoring.fusion import WeightedSum as WeightedSum
from .types.hits import Hit as Hit
from .types.plan import HybridWeights as HybridWeights
from .types.plan import Recall as Recall
from .types.representations import Representations as Representations
from .types.scores import Scores as Scores

__version__: str
